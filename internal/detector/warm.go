package detector

import (
	"time"

	"github.com/beatfabric/hivebeat"
	"github.com/beatfabric/hivebeat/internal/liveness"
	"github.com/beatfabric/hivebeat/verdict"
)

// WarmAfter is how long after Start the absence of a worker is evidence.
const WarmAfter = 45 * time.Second

// Ran records that the owner runs. The owner calls it at least every
// liveness.LookEvery, so that Warm detects a pause even for a snapshot that is built
// right after it.
func (r *Registry) Ran(now time.Time) { r.ran = now }

// Start starts the WarmAfter period.
func (r *Registry) Start(now time.Time) { r.warmAt = now.Add(WarmAfter) }

// Warm reports whether the absence of a worker is evidence. Once true, it stays true.
//
// A hive that was stopped before it was warm has not read the messages of that time. It
// is not warm until they have been read and credited.
func (r *Registry) Warm(now time.Time) bool {
	stopped := !r.doubt.IsZero() || !r.ran.IsZero() && now.Sub(r.ran) > liveness.MaxPause
	if !r.warm && !r.warmAt.IsZero() && !stopped {
		r.warm = !now.Before(r.warmAt) || r.kept && len(r.expected) == 0
	}
	return r.warm
}

// Doubt records that messages received from now on may have waited since then. Until
// Credit they count as heard at since, and Detect must not be called.
func (r *Registry) Doubt(since time.Time) { r.doubt = since }

// Credit ends the doubt, and extends all deadlines by blind, the time when nothing
// could arrive.
func (r *Registry) Credit(blind time.Duration) {
	r.doubt = time.Time{}
	r.deadlines.Shift(blind)
	r.calms.Shift(blind)
	r.closings.Shift(blind)
	if !r.warmAt.IsZero() {
		r.warmAt = r.warmAt.Add(blind)
	}
}

// Excuse gives each worker that has been silent for longer than it promised the time
// that it would have if it had fallen silent at now. All other workers keep their
// deadlines.
func (r *Registry) Excuse(now time.Time) {
	for _, w := range r.sorted {
		at, ok := r.deadlines.At(w)
		every, quiet := w.facts.Every.Duration(), w.facts.Quiet.Duration()
		from := now
		switch {
		case w.live == hivebeat.Alive && at.Before(now): // late comes first
			from = now.Add(verdict.LateAfter(every, quiet))
		case w.live == hivebeat.Late:
			from = now.Add(verdict.LostAfter(every, quiet))
		}
		if ok && at.Before(from) && w.counted() {
			r.deadlines.Set(w, from)
		}
	}
}

// Paused counts time in which the hive itself was stopped or starved.
func (r *Registry) Paused(d time.Duration) {
	r.stats.SelfPause = hivebeat.Millis(add(uint64(r.stats.SelfPause), uint64(hivebeat.MillisOf(d))))
}
