package detector

import (
	"time"

	"github.com/beatfabric/hivebeat"
	"github.com/beatfabric/hivebeat/internal/liveness"
)

// WarmAfter is how long after Start an absent worker is evidence.
const WarmAfter = 45 * time.Second

// Ran notes that the owner runs, which is asked at least every liveness.LookEvery:
// whoever builds a snapshot right after a pause is not told of it otherwise.
func (r *Registry) Ran(now time.Time) { r.ran = now }

// Start begins the time after which an absent worker is evidence.
func (r *Registry) Start(now time.Time) { r.warmAt = now.Add(WarmAfter) }

// Warm reports whether the absence of a worker is evidence. Once it is, it
// stays.
//
// A hive that was stopped before it was warm has not heard what came meanwhile: it
// is not, until that was read and credited.
func (r *Registry) Warm(now time.Time) bool {
	stopped := !r.doubt.IsZero() || !r.ran.IsZero() && now.Sub(r.ran) > liveness.MaxPause
	if !r.warm && !r.warmAt.IsZero() && !stopped {
		r.warm = !now.Before(r.warmAt) || r.kept && len(r.expected) == 0
	}
	return r.warm
}

// Doubt says that what is heard from now on may have waited since: until Credit
// it counts as heard then, and Detect is not to be called.
func (r *Registry) Doubt(since time.Time) { r.doubt = since }

// Credit ends the doubt, and takes time in which nothing could be heard out of
// all judgements.
func (r *Registry) Credit(blind time.Duration) {
	r.doubt = time.Time{}
	r.deadlines.Shift(blind)
	r.calms.Shift(blind)
	r.closings.Shift(blind)
	if !r.warmAt.IsZero() {
		r.warmAt = r.warmAt.Add(blind)
	}
}

// Excuse gives each worker that is silent for longer than it promised as long to be heard
// as if it had fallen silent at now. The silence of others is judged as ever.
func (r *Registry) Excuse(now time.Time) {
	for _, w := range r.sorted {
		at, ok := r.deadlines.At(w)
		every, quiet := w.facts.Every.Duration(), w.facts.Quiet.Duration()
		from := now
		switch {
		case w.live == hivebeat.Alive && at.Before(now): // late is told first
			from = now.Add(liveness.LateAfter(every, quiet))
		case w.live == hivebeat.Late:
			from = now.Add(liveness.LostAfter(every, quiet))
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
