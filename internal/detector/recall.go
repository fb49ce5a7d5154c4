package detector

import (
	"slices"
	"time"

	"github.com/beatfabric/hivebeat"
	"github.com/beatfabric/hivebeat/internal/liveness"
)

// A hive that begins again has an empty registry. What it knew is in the last snapshot
// of its earlier life that a queen kept: each worker that was lost or left stays in the
// list for the rest of its time, and one that was there goes on without a word when it
// is heard. What is counted of its restarts goes on too.

// recalled is a worker that was there in the last kept snapshot.
type recalled struct {
	inc    uint64
	live   hivebeat.Live
	since  time.Time
	until  time.Time // a lower incarnation is refused until then, as this one would be late
	untold bool      // that it joined may not have been told yet

	restarts uint64
	looping  bool
}

// Recall takes the record that a worker had in the last kept snapshot, age ago. It comes
// before anything is heard.
func (r *Registry) Recall(now time.Time, rec *hivebeat.Record, age time.Duration) {
	ago := func(d hivebeat.Millis) time.Time { return now.Add(-age - min(d, maxRecall).Duration()) }
	since := ago(rec.Since)
	if rec.Live != hivebeat.Lost && rec.Live != hivebeat.Left {
		if r.expected == nil {
			r.expected = make(map[string]*recalled)
		}
		joined := func(t hivebeat.Transition) bool { return t.Kind == hivebeat.KindJoined && t.Inc == rec.Inc }
		r.expected[rec.Worker] = &recalled{
			inc: rec.Inc, live: rec.Live, since: since,
			until:  now.Add(liveness.LateAfter(rec.Every.Duration(), rec.Quiet.Duration())),
			untold: slices.ContainsFunc(rec.Tr, joined), restarts: rec.Restarts, looping: rec.Looping,
		}
		return
	}
	if now.Sub(since) < hivebeat.KeepGone {
		r.Seed(now, Seed{
			Worker: rec.Worker, Live: rec.Live, Cause: rec.Cause, Facts: rec.Facts, Heard: ago(rec.Age), Since: since, Ended: rec.Ended,
			Restarts: rec.Restarts, Looping: rec.Looping,
		})
		if w := r.workers[rec.Worker]; w != nil && rec.Looping { // its end is to be told when that is over
			w.told = hivebeat.Alive
		}
	}
}

// maxRecall keeps an age from the wire within what a time.Duration can hold.
const maxRecall = hivebeat.Millis(365 * 24 * time.Hour / time.Millisecond)

// RecalledAll says that Recall was told of all workers, by a hive that was warm. Once
// those that were there are heard the Registry is warm.
func (r *Registry) RecalledAll() { r.kept = true }

// Expected returns how many workers of the last kept snapshot were not heard yet, and
// whether all of them are known.
func (r *Registry) Expected() (n int, known bool) { return len(r.expected), r.kept }

// begin makes the transition of a worker that is heard for the first time.
func (r *Registry) begin(now time.Time, w *worker) {
	k := r.expected[w.id]
	if k != nil {
		r.loopsOn(now, now, w, k.restarts, k.looping)
	}
	switch {
	case k == nil, r.warm: // a queen may have given it up, as it was not listed
		r.become(now, w, hivebeat.Alive, "", hivebeat.KindJoined, 0)
	case k.inc < w.facts.Inc:
		w.live, w.told = k.live, k.live
		r.become(now, w, hivebeat.Alive, "", hivebeat.KindRestarted, 0)
		r.restarted(now, w)
	case k.inc != w.facts.Inc, k.untold:
		r.become(now, w, hivebeat.Alive, "", hivebeat.KindJoined, 0)
	case k.live == hivebeat.Late: // as was told
		w.live, w.told = k.live, k.live
		r.become(now, w, hivebeat.Alive, "", hivebeat.KindRecovered, 0)
	default:
		w.live, w.since, w.told = hivebeat.Alive, k.since, hivebeat.Alive
	}
}
