package index

import "time"

// doubt is a report of another queen that a hive may not be alive. (inc, seq) is the last message of the
// hive that the other queen heard.
type doubt struct {
	queen    string
	inc, seq uint64
	until    time.Time
}

// DoubtElsewhere records that another queen, which heard the hive up to (inc, seq), doubts that the hive
// is alive. The doubt ends at until. If several queens doubt the same hive, the one that heard most
// counts.
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

// DoubtedBy returns the other queen that doubts that h is alive. It is empty if there is none, or if this
// index has a newer message of h.
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

// DoubtedElsewhere returns how many hives are up here, and not doubtful, while another queen doubts that
// they are alive, and the first such queen by id.
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
