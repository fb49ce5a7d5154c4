package detector

import (
	"slices"
	"time"

	"github.com/beatfabric/hivebeat"
	"github.com/beatfabric/hivebeat/verdict"
)

// A restarted hive has an empty registry. A queen may have kept the last snapshot of
// the hive's previous incarnation. Workers that were lost or left in that snapshot stay
// listed for the rest of their time. A worker that was present continues without a
// transition at its next beat. Restart counts continue too.

// recalled is a worker that was present in the last kept snapshot.
type recalled struct {
	inc    uint64
	live   hivebeat.Live
	since  time.Time
	until  time.Time                 // refuse a lower incarnation until this one would be late
	other  struct{ inc, seq uint64 } // the newest beat that was refused for it
	untold bool                      // its joined transition may not have been reported yet

	restarts uint64
	looping  bool
}

// lower judges a beat of a lower incarnation than the expected one, which wait says is
// awaited. What was refused meanwhile, or sent before it, is not news afterwards.
func (k *recalled) lower(inc, seq uint64, wait bool) error {
	newer := inc > k.other.inc || inc == k.other.inc && seq > k.other.seq
	switch {
	case !newer:
		return errStale
	case wait:
		k.other.inc, k.other.seq = inc, seq
		return errOlder // the expected incarnation was alive
	}
	return nil
}

// Recall takes a worker's record from the last kept snapshot, which is age old. Call it
// before the first beat.
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
			until:  now.Add(verdict.LateAfter(rec.Every.Duration(), rec.Quiet.Duration())),
			untold: slices.ContainsFunc(rec.Tr, joined), restarts: rec.Restarts, looping: rec.Looping,
		}
		return
	}
	if now.Sub(since) < hivebeat.KeepGone {
		r.Seed(now, Seed{
			Worker: rec.Worker, Live: rec.Live, Cause: rec.Cause, Facts: rec.Facts, Heard: ago(rec.Age), Since: since, Ended: rec.Ended,
			Restarts: rec.Restarts, Looping: rec.Looping,
		})
		if w := r.workers[rec.Worker]; w != nil && rec.Looping { // report its end when the loop is over
			w.told = hivebeat.Alive
		}
	}
}

// maxRecall limits an age from the wire to the range of time.Duration.
const maxRecall = hivebeat.Millis(365 * 24 * time.Hour / time.Millisecond)

// RecalledAll records that Recall was called for all workers, from the snapshot of a
// hive that was warm. The registry is warm once all present workers have been heard.
func (r *Registry) RecalledAll() { r.kept = true }

// Expected returns how many workers of the last kept snapshot have not been heard yet,
// and whether that snapshot named all workers.
func (r *Registry) Expected() (n int, known bool) { return len(r.expected), r.kept }

// begin makes the transition of a worker that is heard for the first time.
func (r *Registry) begin(now time.Time, w *worker) {
	k := r.expected[w.id]
	if k != nil {
		r.loopsOn(now, now, w, k.restarts, k.looping)
	}
	switch {
	case k == nil, r.warm: // not listed, so a queen may have given it up
		r.become(now, w, hivebeat.Alive, "", hivebeat.KindJoined, 0)
	case k.inc < w.facts.Inc:
		w.live, w.told = k.live, k.live
		r.become(now, w, hivebeat.Alive, "", hivebeat.KindRestarted, 0)
		r.restarted(now, w)
	case k.inc != w.facts.Inc, k.untold:
		r.become(now, w, hivebeat.Alive, "", hivebeat.KindJoined, 0)
	case k.live == hivebeat.Late: // as was reported
		w.live, w.told = k.live, k.live
		r.become(now, w, hivebeat.Alive, "", hivebeat.KindRecovered, 0)
	default:
		w.live, w.since, w.told = hivebeat.Alive, k.since, hivebeat.Alive
	}
}
