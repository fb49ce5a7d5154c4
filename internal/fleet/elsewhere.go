package fleet

import "time"

// peerDoubt is what another queen says of a hive: its life is doubtful, as far as
// that one heard it.
type peerDoubt struct {
	queen    string
	inc, seq uint64
	until    time.Time
}

// Doubted counts the hives whose life is doubtful to this view, give or take those that
// are known from memory alone.
func (v *View) Doubted() int { return v.Unverified() + v.closings.Open() }

// EachDoubted yields the hives whose life is doubtful to this view: a brake holds them
// as unverified, or their connection closed and they were not heard since.
func (v *View) EachDoubted(now time.Time, yield func(*Hive)) {
	v.Settle(now)
	if len(v.inDoubt) == 0 && len(v.Brakes()) == 0 {
		return
	}
	for _, h := range v.order {
		if h.heldBy != nil || h.inDoubt {
			yield(h)
		}
	}
}

// DoubtElsewhere notes that another queen doubts until that time that a hive lives, by
// what it heard of it up to (inc, seq). Of several queens the one that heard most
// counts.
func (v *View) DoubtElsewhere(hive, queen string, inc, seq uint64, now, until time.Time) {
	h := v.hives[hive]
	if h == nil {
		return
	}
	d, ok := v.doubted[h]
	if ok && d.queen != queen && d.until.After(now) && (d.inc > inc || d.inc == inc && d.seq > seq) {
		return
	}
	v.doubted[h] = peerDoubt{queen, inc, seq, until}
}

// DoubtedBy returns the queen that doubts that a hive lives, where this view knows
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

// DoubtedElsewhere returns how many hives are alive to this view and doubtful to another
// queen, and one such queen.
func (v *View) DoubtedElsewhere(now time.Time) (n int, queen string) {
	for h := range v.doubted {
		if by := v.DoubtedBy(h, now); by != "" && h.Up() && !h.inDoubt {
			n++
			if queen == "" || by < queen {
				queen = by
			}
		}
	}
	return n, queen
}
