package fleet

import "time"

// peerDoubt is what another queen says of a hive: its life is doubtful, as far as
// that one heard it.
type peerDoubt struct {
	queen    string
	inc, seq uint64
	until    time.Time
}

// EachDoubted yields the hives whose life is doubtful to this view: a brake holds them
// as unverified.
func (v *View) EachDoubted(yield func(*Hive)) {
	if len(v.Brakes()) == 0 {
		return
	}
	for _, h := range v.order {
		if h.heldBy != nil {
			yield(h)
		}
	}
}

// DoubtElsewhere notes that another queen holds a hive as unverified until that time,
// by what it heard of it up to (inc, seq).
func (v *View) DoubtElsewhere(hive, queen string, inc, seq uint64, until time.Time) {
	h := v.hives[hive]
	if h == nil {
		return
	}
	v.doubted[h] = peerDoubt{queen, inc, seq, until}
}

// DoubtedBy returns the queen that holds a hive as unverified, where this view knows
// nothing newer of the hive; else it is empty.
func (v *View) DoubtedBy(h *Hive, now time.Time) (queen string) {
	d, ok := v.doubted[h]
	switch {
	case !ok:
	case !d.until.After(now), d.inc < h.Inc(), d.inc == h.Inc() && d.seq < h.Seq(), v.hives[h.id] != h:
		delete(v.doubted, h)
	default:
		return d.queen
	}
	return ""
}

// DoubtedElsewhere returns how many hives are alive to this view and held as
// unverified by another queen, and one such queen.
func (v *View) DoubtedElsewhere(now time.Time) (n int, queen string) {
	for h := range v.doubted {
		if by := v.DoubtedBy(h, now); by != "" && h.Up() {
			n++
			if queen == "" || by < queen {
				queen = by
			}
		}
	}
	return n, queen
}
