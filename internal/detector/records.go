package detector

import (
	"time"

	"github.com/beatfabric/hivebeat"
	"github.com/beatfabric/hivebeat/verdict"
)

// record returns the snapshot record of w. The record shares strings, maps and slices
// with w.facts, which are replaced when they change and never modified in place.
func (r *Registry) record(now time.Time, w *worker, tr []hivebeat.Transition) hivebeat.Record {
	age := now.Sub(w.heard)
	rec := hivebeat.Record{
		Worker: w.id, Live: w.live, Cause: w.cause, N: w.n, Tr: tr, Facts: w.facts, Stalled: w.progress.stalled, Rival: w.rival.now(now, &w.facts),
		Age:   hivebeat.MillisOf(age),
		Since: hivebeat.MillisOf(now.Sub(w.since)),

		Closed: r.closings.Has(w), Restarts: w.starts.count(now), Looping: w.looping,
		Rate: w.pace.rate, TPS: w.pace.tps,
	}
	if rec.Rival != 0 {
		believed, refused := w.places()
		rec.Addr, rec.RivalAt = believed.Addr, refused
	}
	if w.live == hivebeat.Lost && w.spent.Inc == w.facts.Inc && !w.spent.proved {
		rec.Ended = w.spent.boot
	}
	if w.live != hivebeat.Left { // a worker that said goodbye owes no beats
		rec.Missed = verdict.Missed(age, w.facts.Every.Duration(), w.facts.Quiet.Duration())
	}
	return rec
}

// Records returns the records of all workers, by id.
func (r *Registry) Records(now time.Time) []hivebeat.Record {
	list := make([]hivebeat.Record, 0, len(r.sorted))
	var all []hivebeat.Transition // one allocation for most records
	for _, w := range r.sorted {
		first := len(all)
		for _, s := range w.tr {
			if ago := now.Sub(s.At); ago <= hivebeat.TransitionsCarried {
				t := s.Transition
				t.Ago = hivebeat.MillisOf(ago)
				all = append(all, t)
			}
		}
		var tr []hivebeat.Transition
		if len(all) > first {
			tr = all[first:len(all):len(all)]
		}
		list = append(list, r.record(now, w, tr))
	}
	return list
}
