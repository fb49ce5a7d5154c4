package index

import "time"

// doubt is what another queen says of a hive: as far as that queen heard it, its life is doubtful.
type doubt struct {
	queen    string
	inc, seq uint64
	until    time.Time
}

// DoubtElsewhere notes that another queen doubts until then that a hive lives, by what it heard of it
// up to (inc, seq). Of several queens the one that heard most counts.
func (x *Index) DoubtElsewhere(hive, queen string, inc, seq uint64, now, until time.Time) {
	h := x.Hive(hive)
	if h == nil {
		return
	}
	d, ok := x.doubts[h]
	if ok && d.queen != queen && d.until.After(now) && (d.inc > inc || d.inc == inc && d.seq > seq) {
		return
	}
	x.doubts[h] = doubt{queen, inc, seq, until}
}

// DoubtedBy returns the queen that doubts that a hive lives, unless this index knows something newer
// of the hive. It is empty where no queen does.
func (x *Index) DoubtedBy(h *Hive, now time.Time) (queen string) {
	d, ok := x.doubts[h]
	switch {
	case !ok:
	case !d.until.After(now), d.inc < h.facts.Inc, d.inc == h.facts.Inc && d.seq < h.facts.Seq:
		delete(x.doubts, h)
	default:
		return d.queen
	}
	return ""
}

// DoubtedElsewhere returns the number of hives that are alive here and doubtful to another queen, and
// the first such queen.
func (x *Index) DoubtedElsewhere(now time.Time) (n int, queen string) {
	for h := range x.doubts {
		if by := x.DoubtedBy(h, now); by != "" && h.Up() && !h.facts.Doubtful {
			n++
			if queen == "" || by < queen {
				queen = by
			}
		}
	}
	return n, queen
}
