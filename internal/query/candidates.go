package query

import (
	"cmp"
	"math/bits"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/beatfabric/hivebeat/internal/index"
)

// Where a pick looks for candidates: in some of the lists first, and after that in all.

// list holds everything in one zone that can be picked, by levels.
type list struct {
	zone  string
	cells []*index.Pool[*index.Worker]
	gpus  *index.Pool[*index.GPU]
	n     int
}

// lists returns the lists of all zones that the filter allows, in random order.
func (f *Finder) lists(v *index.Index) []list {
	var out []list
	if f.gpu {
		for _, r := range v.GPUs() {
			if f.filter.Zone == "" || f.filter.Zone == r.Zone {
				out = append(out, list{zone: r.Zone, gpus: r, n: r.Len()})
			}
		}
		shuffle(out)
		return out
	}
	at := make(map[string]int)
	add := func(s *index.Model) {
		for _, c := range s.Pools() {
			if f.filter.Zone != "" && f.filter.Zone != c.Zone {
				continue
			}
			i, ok := at[c.Zone]
			if !ok {
				i = len(out)
				at[c.Zone] = i
				out = append(out, list{zone: c.Zone})
			}
			out[i].cells = append(out[i].cells, c)
			out[i].n += c.Len()
		}
	}
	f.eachServing(v, add)
	shuffle(out)
	return out
}

// eachServing yields the models that the filter selects. It looks at pickModels models at
// most.
func (f *Finder) eachServing(v *index.Index, fn func(*index.Model)) {
	if f.filter.Model != "" && f.filter.literal {
		if s := v.Model(f.filter.Model); s != nil {
			fn(s)
		}
		return
	}
	n := 0
	v.EachModel(func(s *index.Model) bool {
		if f.filter.model(s.Name) {
			fn(s)
		}
		if n++; n >= pickModels {
			f.cut = true
		}
		return n < pickModels
	})
}

func shuffle[T any](s []T) { rand.Shuffle(len(s), func(i, j int) { s[i], s[j] = s[j], s[i] }) }

// sample takes candidates from some of the lists, or from all if there are few candidates.
func (f *Finder) sample(v *index.Index, lists []list, total int, now time.Time) {
	if f.filter.hive != "" {
		f.ofHive(v, now)
		return
	}
	if f.gpu && f.filter.Model != "" {
		f.serving(v, now)
	}
	zones, each := len(lists), total
	if total > pickAll {
		zones = min(zones, max(pickZones, f.n))
		each = max(pickEach, 2*(f.n/max(1, zones)+1))
	}
	for i := range lists {
		if i >= zones && len(f.cands) >= f.n || f.looks >= pickLooks {
			return
		}
		before := len(f.cands)
		lists[i].each(f.level(), func(w *index.Worker, g *index.GPU) bool {
			f.look(v, w, g, false, now)
			return f.looks < pickLooks && len(f.cands)-before < each
		})
	}
}

// level is the lowest level of free slots, or of free memory, that may suffice.
func (f *Finder) level() int {
	if f.gpu {
		return index.MemoryLevel(f.need)
	}
	return min(bits.Len64(f.need), index.SlotLevels) - 1
}

// each yields the candidates of a list, the best levels first, and from a random place
// within each level.
func (l *list) each(least int, yield func(*index.Worker, *index.GPU) bool) {
	if l.gpus != nil {
		for i := least; i < index.MemoryLevels; i++ {
			if !around(l.gpus.Level(i), func(g *index.GPU) bool { return yield(nil, g) }) {
				return
			}
		}
		return
	}
	for i := index.SlotLevels - 1; i >= least; i-- {
		if !around(l.cells, func(c *index.Pool[*index.Worker]) bool {
			return around(c.Level(i), func(w *index.Worker) bool { return yield(w, nil) })
		}) {
			return
		}
	}
}

// around yields a list from a random place on, and wraps around.
func around[T any](list []T, yield func(T) bool) bool {
	if len(list) == 0 {
		return true
	}
	from := rand.IntN(len(list))
	for i := range list {
		if !yield(list[(from+i)%len(list)]) {
			return false
		}
	}
	return true
}

// serving takes candidates from hives that already serve the model.
func (f *Finder) serving(v *index.Index, now time.Time) {
	want := len(f.cands) + max(pickEach, 2*f.n)
	f.eachServing(v, func(s *index.Model) {
		around(s.Hives(), func(h *index.Hive) bool {
			f.looks++
			f.gpusOf(v, h, true, now)
			return f.looks < pickLooks/2 && len(f.cands) < want
		})
	})
}

func (f *Finder) gpusOf(v *index.Index, h *index.Hive, serves bool, now time.Time) {
	gpus := h.GPUs()
	for i := range gpus {
		if gpus[i].Fit() && !gpus[i].Last() {
			f.look(v, nil, &gpus[i], serves, now)
		}
	}
}

// ofHive takes all candidates of one hive.
func (f *Finder) ofHive(v *index.Index, now time.Time) {
	h := known(v, f.filter.hive)
	switch {
	case h == nil:
	case f.gpu:
		f.gpusOf(v, h, f.servesModel(h), now)
	default:
		for _, w := range h.Workers() {
			if f.filter.model(w.Record().Model) && w.Fit() && !w.Last() {
				f.look(v, w, nil, true, now)
			}
		}
	}
}

// last takes candidates that are picked after all others, if there are too few others.
func (f *Finder) last(v *index.Index, now time.Time) {
	if len(f.cands) >= f.n {
		return
	}
	f.looks, f.final = 0, true
	var lists []list
	if f.gpu {
		for _, p := range v.LastGPUs() {
			lists = append(lists, list{zone: p.Zone, gpus: p})
		}
	} else {
		for _, p := range v.Last().Pools() {
			lists = append(lists, list{zone: p.Zone, cells: []*index.Pool[*index.Worker]{p}})
		}
	}
	for i := range lists {
		if f.filter.Zone != "" && f.filter.Zone != lists[i].zone {
			continue
		}
		lists[i].each(f.level(), func(w *index.Worker, g *index.GPU) bool {
			if f.looks >= pickLooks {
				f.cut = true
				return false
			}
			var h *index.Hive
			if w != nil {
				h = w.Hive()
			} else {
				h, _ = g.Device()
			}
			if (f.filter.hive == "" || f.filter.hive == h.ID()) && (w == nil || f.serves(w)) {
				f.look(v, w, g, false, now)
			}
			return true
		})
	}
}

// serves reports whether w serves a model that is asked for, or can load it.
func (f *Finder) serves(w *index.Worker) bool {
	if !w.Cold() {
		return f.filter.model(w.Record().Model)
	}
	return f.coldModel(w) != ""
}

// coldModel returns the model that w would load for this pick. A pick for any model gets none: nothing would
// say which one to load.
func (f *Finder) coldModel(w *index.Worker) string {
	if f.filter.Model == "" {
		return ""
	}
	for _, m := range w.Record().Cold {
		if f.filter.model(m) {
			return m
		}
	}
	return ""
}

// scan continues through all lists after the sample was too small. The lists may change
// between two steps, so it may miss a candidate.
func (f *Finder) scan(v *index.Index, lists []list, now time.Time) (done bool) {
	slices.SortFunc(lists, func(a, b list) int { return cmp.Compare(a.zone, b.zone) })
	from, at := f.scanAt, 0
	full := false
	visit := func(w *index.Worker, g *index.GPU) bool {
		at++
		if at <= from {
			return true
		}
		f.scanAt++
		f.look(v, w, g, false, now)
		full = len(f.cands) >= 4*f.n
		return !full && f.looks < StepLooks
	}
	for i := range lists {
		l := &lists[i]
		stop := false
		if l.gpus != nil {
			for k := f.level(); k < index.MemoryLevels && !stop; k++ {
				for _, g := range l.gpus.Level(k) {
					if stop = !visit(nil, g); stop {
						break
					}
				}
			}
		}
		for _, c := range l.cells {
			for k := index.SlotLevels - 1; k >= f.level() && !stop; k-- {
				for _, w := range c.Level(k) {
					if stop = !visit(w, nil); stop {
						break
					}
				}
			}
		}
		if stop {
			f.cut = f.scanAt >= pickScan
			return full || f.cut
		}
	}
	return true
}
