package fleet

import (
	"time"

	"github.com/beatfabric/hivebeat"
	"github.com/beatfabric/hivebeat/internal/detector"
	"github.com/beatfabric/hivebeat/internal/liveness"
)

// seeds are the workers of h as they are known: by its last snapshot, or where
// there is none by the roster, which knows less.
func (h *Hive) seeds(now time.Time) []detector.Seed {
	var list []detector.Seed
	if h.head.Inc != 0 {
		for _, w := range h.Workers() {
			r := &w.rec
			s := detector.Seed{
				Worker: r.Worker, Live: r.Live, Cause: r.Cause, Facts: r.Facts,
				Heard: w.received.Add(-min(r.Age, maxAge).Duration()), Stalled: r.Stalled, Ended: r.Ended,
				Looping: r.Looping, Restarts: r.Restarts,
			}
			if w.prior != nil {
				s.Prior, s.PriorSeq = w.prior.inc, w.prior.seq
			}
			if s.Facts.Every == 0 { // by the roster, and not listed since
				s.Facts.Every = hivebeat.MillisOf(hivebeat.WorkerEvery)
			}
			list = append(list, s)
		}
		return list
	}
	// The roster has no ages of workers. Deadlines count from when the entry was put:
	// none is hastened by what is not known.
	heard := h.Book.heard(h.every, now)
	put := h.Book.put(now)
	for id, r := range h.Book.Item.Workers {
		if !hivebeat.ValidID(id) || r.Inc == 0 {
			continue
		}
		every, quiet, _ := promise(&r)
		list = append(list, detector.Seed{
			Worker: id, Live: r.Live, Cause: r.Cause,
			Heard: heard.Add(-oldest(&r)), Until: put.Add(liveness.LostAfter(every.Duration(), quiet.Duration())),
			Facts: hivebeat.Facts{Inc: r.Inc, Seq: max(1, r.Seq), Every: every, Quiet: quiet, State: r.State, Model: r.Model},
		})
	}
	return list
}

// promiseKnown reports whether somebody knows the promise of a worker that seeds
// has returned.
func (h *Hive) promiseKnown(id string) bool {
	if w := h.workers[id]; w != nil {
		return w.rec.Every > 0
	}
	return h.Book.Item.Workers[id].Every > 0
}
