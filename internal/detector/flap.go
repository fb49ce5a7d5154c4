package detector

import (
	"time"

	"github.com/beatfabric/hivebeat"
)

// A worker that is late and recovers over and over tells nothing new each time. Of
// one that did so more than flapMost times within flapWithin the verdicts go on,
// but they are no transitions any more: they are counted, and have no number.
//
// Once it was calm for flapWithin, or something else happens to it, the numbers of
// what was left out are used up at once. A queen finds them missing, and tells one
// gap for all; after that comes what became of the worker, if that is not what was
// told last.
const (
	flapMost   = 6
	flapWithin = time.Minute
)

// flaps is what is known of a worker's going back and forth between alive and late.
type flaps struct {
	last   [flapMost]time.Time // the newest of them, in a ring
	at     int
	told   hivebeat.Live // what the last transition made of it
	damped uint64        // that have no number yet
	total  uint64        // that were damped, in all
}

// damp notes that w is late or recovered, and reports whether that is to be told.
func (w *worker) damp(now time.Time) bool {
	f := &w.flaps
	oldest := f.last[f.at]
	f.last[f.at] = now
	f.at = (f.at + 1) % flapMost
	if oldest.IsZero() || now.Sub(oldest) > flapWithin {
		return false
	}
	f.damped++
	f.total++
	return true
}

// newest returns when the last of them was.
func (f *flaps) newest() time.Time { return f.last[(f.at+flapMost-1)%flapMost] }

// flaps reports whether kind, from this verdict, is what a worker that flaps does
// over and over.
func flapping(kind hivebeat.Kind, from hivebeat.Live) bool {
	return kind == hivebeat.KindLate || kind == hivebeat.KindRecovered && from == hivebeat.Late
}

// calm gives w its numbers back, if it has been calm for long enough.
func (r *Registry) calm(now time.Time, w *worker) {
	f := &w.flaps
	if f.damped == 0 || now.Sub(f.newest()) < flapWithin {
		return
	}
	if f.told == w.live {
		w.n += f.damped
		f.damped = 0
		return
	}
	kind := hivebeat.KindRecovered
	if w.live == hivebeat.Late {
		kind = hivebeat.KindLate
	}
	s := r.note(now, w, kind, now.Sub(w.heard))
	s.From, s.To, s.Cause = string(f.told), string(w.live), w.cause
	f.told = w.live
	r.keep(w)
}

// Flaps returns how many verdicts on workers were damped, by worker, where there
// were any.
func (r *Registry) Flaps() map[string]uint64 {
	var m map[string]uint64
	for _, w := range r.sorted {
		if n := w.flaps.total; n > 0 {
			if m == nil {
				m = make(map[string]uint64)
			}
			m[w.id] = n
		}
	}
	return m
}
