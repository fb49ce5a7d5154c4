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

// Expect names the workers of the last kept snapshot. Once all were heard the
// Registry is warm.
func (r *Registry) Expect(ids []string) {
	r.kept, r.expected = true, make(map[string]bool, len(ids))
	for _, id := range ids {
		if r.workers[id] == nil {
			r.expected[id] = true
		}
	}
}

// Expected returns how many workers of the last kept snapshot were not heard yet,
// and whether there is one.
func (r *Registry) Expected() (n int, known bool) { return len(r.expected), r.kept }

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

// CreditSilence takes time in which nobody who is silent could be judged out of all
// judgements by silence.
func (r *Registry) CreditSilence(d time.Duration) { r.deadlines.Shift(d) }

// Paused counts time in which the hive itself was stopped or starved.
func (r *Registry) Paused(d time.Duration) {
	r.stats.SelfPause = hivebeat.Millis(add(uint64(r.stats.SelfPause), uint64(hivebeat.MillisOf(d))))
}
