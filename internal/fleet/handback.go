package fleet

import (
	"slices"
	"time"

	"github.com/beatfabric/hivebeat"
)

// handBack gives a ward back to its hive, which has listed it: before its record
// is taken over.
func (v *View) handBack(h *Hive, w *Worker, now time.Time) {
	id, c := w.rec.Worker, w.ward
	if w.rec.Live == hivebeat.Lost && c.base.Live != hivebeat.Lost {
		w.lost = &mistake{inc: w.rec.Inc, seq: w.rec.Seq, at: h.since}
		if rec, ok := h.adopted.reg.Record(now, id); ok {
			w.lost.at = now.Add(-min(rec.Since, maxAge).Duration())
		}
	}
	v.unward(h, id, c)
	h.adopted.reg.Drop(now, id)
	v.Compare(h)
}

// mistake is a verdict of this queen on a worker, which its hive may disprove.
type mistake struct {
	inc, seq uint64
	at       time.Time
}

// disproved scores a mistake, where the record of w proves that it was one.
func (v *View) disproved(h *Hive, w *Worker) {
	m, r := w.lost, &w.rec
	switch {
	case r.Inc != m.inc || r.Live == hivebeat.Left || r.Live == hivebeat.Lost && r.Seq <= m.seq:
		w.lost = nil
	case r.Seq > m.seq:
		margin := max(0, w.received.Add(-min(r.Age, maxAge).Duration()).Sub(m.at))
		v.score.back(margin, r.Seq > m.seq+1)
		w.lost = nil
		v.Compare(h)
	}
}

// goneBack ends the adoption where the hive speaks for all its workers again: it
// has listed them, or given them up by a warm complete snapshot (absent).
func (v *View) goneBack(h *Hive, now time.Time) {
	a := h.adopted
	if a == nil || h.live == hivebeat.Lost || !h.asm.complete() {
		return
	}
	if h.head.Warm {
		for id, c := range a.wards {
			if w := h.workers[id]; w == nil || isGone(w.rec.Live) {
				v.unward(h, id, c)
				a.reg.Drop(now, id)
			}
		}
	}
	if len(a.wards) == 0 {
		v.endAdoption(h)
	}
}

// adoptAgain makes wards of whom a page lists that came after its hive was lost, and
// was sent before.
func (v *View) adoptAgain(h *Hive, now time.Time) {
	free := func(w *Worker) bool { return w.ward == nil }
	if h.adopted != nil && slices.ContainsFunc(h.Workers(), free) {
		v.takeIn(h, now)
	}
}

// endAdoption ends the adoption of whoever is left.
func (v *View) endAdoption(h *Hive) {
	a := h.adopted
	if a == nil {
		return
	}
	for id, c := range a.wards {
		v.unward(h, id, c)
	}
	h.adopted = nil
	v.adopted--
	delete(v.adoptedHives, h)
	v.wardsDue.Remove(h)
	v.ready.Adoptions = append(v.ready.Adoptions, h.id)
}
