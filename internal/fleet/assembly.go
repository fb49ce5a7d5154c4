package fleet

import (
	"time"

	"github.com/beatfabric/hivebeat"
)

// assembly puts the pages of one (inc, seq) together. Their records are taken
// over as they arrive; what only all of them prove is who is absent.
type assembly struct {
	inc, seq uint64
	pages    uint64
	got      [(hivebeat.MaxPages + 63) / 64]uint64
	n        uint64
	gen      uint64
	listed   int // workers

	began  time.Time       // when the first page was received, at the earliest
	oldest hivebeat.Millis // greatest age of a record that is fresh
}

func (a *assembly) is(inc, seq uint64) bool { return a.inc == inc && a.seq == seq }

func (a *assembly) has(page uint64) bool { return a.got[page/64]&(1<<(page%64)) != 0 }

func (a *assembly) complete() bool { return a.pages > 0 && a.n == a.pages }

func (a *assembly) begin(inc, seq, pages uint64, received time.Time) {
	*a = assembly{inc: inc, seq: seq, pages: pages, gen: a.gen + 1, began: received}
}

func (a *assembly) add(page uint64) {
	a.got[page/64] |= 1 << (page % 64)
	a.n++
}

// absent draws the conclusion from a complete, warm snapshot: a worker that is not in
// it is gone for good if it was lost or left before, and lost otherwise. One that is
// lost or left stays for as long as a hive lists it that does not begin again meanwhile.
func (v *View) absent(h *Hive, now time.Time) {
	if h.asm.listed == len(h.workers) {
		return
	}
	for _, w := range h.Workers() { // in order, so that the events are
		if w.gen == h.asm.gen {
			continue
		}
		if isGone(w.rec.Live) {
			if w.goneFor(now) >= hivebeat.MillisOf(hivebeat.KeepGone) {
				v.remove(h, w)
			}
			continue
		}
		// A hive that began anew is warm before it could miss anybody whose promise
		// or announced silence is long: one lost answer to its roll call kills nobody.
		if w.hiveInc != h.head.Inc && now.Sub(h.speaksFrom) < w.patience() {
			continue
		}
		v.loseAbsent(h, w, now)
	}
}
