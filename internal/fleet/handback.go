package fleet

import (
	"time"

	"github.com/beatfabric/hivebeat"
)

// handBack gives an adopted worker back to its hive, which has listed it. It is called before the record of
// the hive is applied.
func (v *View) handBack(h *Hive, w *Worker, now time.Time) {
	id, c := w.rec().Worker, w.adopted
	w.own = life{w.rec().Inc, w.rec().Seq}
	if r := w.rec(); r.Live == hivebeat.Lost && c.base.Live != hivebeat.Lost {
		w.lost = &mistake{inc: r.Inc, seq: r.Seq, at: h.since}
		if rec, ok := h.adoption.reg.Record(now, id); ok {
			w.lost.at = now.Add(-min(rec.Since, maxAge).Duration())
		}
	}
	v.release(h, id, c)
	h.adoption.reg.Drop(now, id)
	v.Compare(h)
}

// mistake is a lost of this queen on an adopted worker that the worker's hive may disprove.
type mistake struct {
	inc, seq uint64
	at       time.Time
}

// disproved counts a mistake if the record of w proves it.
func (v *View) disproved(h *Hive, w *Worker) {
	m, r := w.lost, w.rec()
	switch {
	case r.Inc != m.inc || r.Live == hivebeat.Left || r.Live == hivebeat.Lost && r.Seq <= m.seq:
		w.lost = nil
	case r.Seq > m.seq:
		margin := max(0, w.heard().Sub(m.at))
		v.countMistake(margin, r.Seq > m.seq+1)
		w.lost = nil
		v.Compare(h)
	}
}

// handBackAll ends the adoption if the hive speaks for all its workers again: it has listed them, or a warm,
// complete snapshot without them has made them lost (giveUpAbsent).
func (v *View) handBackAll(h *Hive, now time.Time) {
	a := h.adoption
	if a == nil || h.live == hivebeat.Lost || !h.assembly.complete() {
		return
	}
	if h.head().Warm {
		for id, c := range a.workers {
			if w := h.workers[id]; w == nil || isGone(w.rec().Live) {
				v.release(h, id, c)
				a.reg.Drop(now, id)
			}
		}
	}
	if len(a.workers) == 0 {
		v.endAdoption(h)
	}
}

// adoptAgain adopts the workers in a page that was sent before its hive was lost, and arrived afterwards.
func (v *View) adoptAgain(h *Hive, now time.Time) {
	if h.adoption == nil {
		return
	}
	for _, w := range h.workers {
		if w.adopted == nil {
			v.adopt(h, now)
			return
		}
	}
}

// endAdoption ends the adoption of all workers of h that are still adopted.
func (v *View) endAdoption(h *Hive) {
	a := h.adoption
	if a == nil {
		return
	}
	for id, c := range a.workers {
		v.release(h, id, c)
	}
	h.adoption = nil
	delete(v.adoptedHives, h)
	v.adoptionsDue.Remove(h)
	v.ready.Adoptions = append(v.ready.Adoptions, h.id)
}
