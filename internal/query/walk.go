package query

import (
	"math/bits"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/beatfabric/hivebeat"
	"github.com/beatfabric/hivebeat/internal/index"
)

// If a pick asks for labels that few workers have, the lists of free capacity are of little
// use, because they are not sorted by label. The pick then walks the hives that have the
// labels, or have a worker with them.

// walk is the progress of such a walk. It visits the hives in random order: it starts at a
// random hive and takes a random stride, so that even a few hives are from many zones.
type walk struct {
	begun        bool
	from, stride int
	at           int  // hives visited
	each         int  // candidates taken per hive
	seen         int  // candidates looked at
	cut          bool // some hive had more
	of           []*index.Worker
}

func beginWalk(hives, each int) walk {
	w := walk{begun: true, each: each}
	if hives > 1 {
		w.from, w.stride = rand.IntN(hives), 1+rand.IntN(hives-1)
		for gcd(w.stride, hives) != 1 { // or some would never be visited
			w.stride = 1 + rand.IntN(hives-1)
		}
	}
	return w
}

func gcd(a, b int) int {
	for b != 0 {
		a, b = b, a%b
	}
	return a
}

const narrowPart = 8 // up to one in this many hives is few

// narrow reports whether labels leave so few hives that looking elsewhere is pointless. If
// a GPU is asked for, the hives that serve the model come first.
func (f *Finder) narrow(v *index.Index, hives []*index.Hive) bool {
	servedFirst := f.gpu && f.filter.Model != ""
	return !servedFirst && len(hives) <= len(v.Hives())/narrowPart
}

// meant returns the conditions of the filter. For a GPU, the model is not a condition.
func (f *Finder) meant() filter {
	meant := f.filter
	if f.gpu {
		meant.Model = ""
	}
	return meant
}

// walkHives continues through the hives that may have such labels. They may change between
// two steps, so it may miss one.
func (f *Finder) walkHives(v *index.Index, hives []*index.Hive, now time.Time) (done bool) {
	meant := f.meant()
	w := &f.walk
	if !w.begun {
		*w = beginWalk(len(hives), (f.n+3)/4)
	}
	for ; w.at < len(hives); w.at++ {
		switch {
		case len(f.cands) >= max(pickEach, 4*f.n):
			return true
		case f.looks >= StepLooks:
			f.scanAt += f.looks
			f.cut = f.scanAt >= pickScan
			return f.cut
		}
		f.looks += meant.costOf(hives[0])
		f.walkHive(v, &meant, hives[(w.from+w.at*w.stride)%len(hives)], now)
	}
	if !w.cut || len(f.cands) >= f.n {
		return true
	}
	clear(f.passed)
	*w = beginWalk(len(hives), f.n) // it never takes more from one hive
	return false
}

// walkHive takes candidates of one hive.
func (f *Finder) walkHive(v *index.Index, meant *filter, h *index.Hive, now time.Time) {
	enough := len(f.cands) + f.walk.each
	switch {
	case h.Live() != hivebeat.Alive || !h.Fresh() || meant.otherMachine(h) != "" || meant.Zone != "" && meant.Zone != h.Zone():
	case f.gpu:
		if meant.selector.Fits(labelsOf(h, nil)) {
			before := f.looks
			f.gpusOf(v, h, false, now)
			f.walk.seen += f.looks - before
		}
	case meant.may(h) > 0:
		for _, w := range f.bestOf(meant, h) {
			if len(f.cands) >= enough {
				f.walk.cut = true
				return
			}
			f.look(v, w, nil, false, now)
			f.walk.seen++
		}
	}
}

// bestOf returns the workers of one hive that serve the model and can take work, those with
// the most free slots first, and equal ones in random order. The slice is valid until the
// next call.
func (f *Finder) bestOf(meant *filter, h *index.Hive) []*index.Worker {
	f.walk.of = f.walk.of[:0]
	around(h.Workers(), func(w *index.Worker) bool {
		if w.Fit() && !w.Last() && meant.model(w.Record().Model) {
			f.walk.of = append(f.walk.of, w)
		}
		return true
	})
	slices.SortStableFunc(f.walk.of, func(a, b *index.Worker) int {
		return bits.Len64(b.FreeSlots()) - bits.Len64(a.FreeSlots())
	})
	return f.walk.of
}
