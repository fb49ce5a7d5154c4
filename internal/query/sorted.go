package query

import (
	"container/heap"
	"slices"
	"time"

	"github.com/beatfabric/hivebeat/internal/index"
	"github.com/beatfabric/hivebeat/queen/api"
)

// A list that is sorted by another key than id is walked completely, and only the best
// ranks are kept.

// gather finds the best of a list that is sorted by another key than id. It goes through
// everything by id, and keeps only the ranks that the page needs.
func (p *page) gather(v *index.Index, now time.Time, budget *int) (done bool) {
	if p.verb == api.VerbHives && p.order.key == "vram_free" && p.looked == 0 && p.filter.everyHive() && p.byFreeMemory(v, now) {
		return true
	}
	n := 0
	for _, h := range p.rest(v) {
		if p.begun && h.ID() == p.at.hive && p.at.worker == "" {
			continue
		}
		if *budget <= 0 {
			return false
		}
		*budget -= 2 * p.filter.costOf(h)
		if p.verb == api.VerbHives {
			fits, looked := p.filter.hiveFits(h, now)
			*budget -= looked
			if fits {
				n++
				p.take(p.order.hive(h))
			}
			p.at, p.begun = rank{hive: h.ID()}, true
			continue
		}
		if p.filter.may(h) > 0 && p.mayImprove(h) {
			list := h.Workers()
			if p.begun && h.ID() == p.at.hive {
				list = p.restOf(list)
			}
			for _, w := range list {
				if *budget <= 0 {
					return false
				}
				*budget -= p.filter.costs()
				if p.filter.worker(h, w, now) {
					p.take(p.order.worker(w))
				}
				p.at, p.begun = rank{hive: h.ID(), worker: w.Record().Worker}, true
			}
		}
		p.at, p.begun = rank{hive: h.ID()}, true
	}
	if p.verb == api.VerbHives {
		if p.answer.Total != nil {
			n += *p.answer.Total
		}
		p.answer.Total = &n
	}
	p.finish(v, now)
	return true
}

// take keeps a rank if it belongs to this page and is good enough.
func (p *page) take(r rank) {
	if !p.afterSet || p.order.compare(&r, &p.after) > 0 {
		p.best.take(r)
	}
}

// byFreeMemory lists hives by free memory, from the lists that the view keeps by free memory, and
// stops when the page is full. It returns false if those lists are too large for one step.
func (p *page) byFreeMemory(v *index.Index, now time.Time) bool {
	level, step, end := 0, 1, index.MemoryLevels
	if p.order.down {
		level, step, end = index.MemoryLevels-1, -1, -1
	}
	if p.afterSet {
		level = index.MemoryLevel(uint64(max(0, p.after.num)))
	}
	looks := 0
	for ; level != end; level += step {
		list := v.ByFreeMemory(level)
		if looks += len(list); looks > StepLooks {
			p.best.list = nil
			return false
		}
		for _, h := range list {
			p.take(p.order.hive(h))
		}
		if _, full := p.best.worst(); full {
			break // all hives of the next level come later
		}
	}
	n := 0
	for _, k := range v.Totals().Hives {
		n += k
	}
	p.answer.Total = &n
	p.finish(v, now)
	return true
}

// mayImprove reports whether, by the counts, a worker of h may come before one that is
// kept. A later hive with the same value comes after the kept ones.
func (p *page) mayImprove(h *index.Hive) bool {
	worst, full := p.best.worst()
	if !full {
		return true
	}
	better := false
	h.EachMix(func(m index.Mix, _ int) {
		var r rank
		if better || !p.filter.mix(m) {
			return
		}
		better = !p.order.mixValue(m, &r) || p.order.value(&r, worst) < 0
	})
	return better
}

// finish describes the kept hives or workers as they are now.
func (p *page) finish(v *index.Index, now time.Time) {
	list := p.best.sorted()
	if p.skip >= len(list) {
		return
	}
	list = list[p.skip:]
	if len(list) > p.limit {
		list = list[:p.limit]
		p.answer.Next = cursorAt(p.sort, list[p.limit-1], 0).String()
	}
	for _, r := range list {
		h := known(v, r.hive)
		if h == nil {
			continue
		}
		if p.verb == api.VerbHives {
			p.answer.Hives = append(p.answer.Hives, HiveInfo(v, h, now))
		} else if w := h.Worker(r.worker); w != nil {
			p.answer.Workers = append(p.answer.Workers, WorkerInfo(v, w, now))
		}
	}
}

// ranks keeps the first ranks of an order, in a heap with the last one on top.
type ranks struct {
	order order
	most  int
	list  []rank
}

func (r *ranks) Len() int { return len(r.list) }

func (r *ranks) Less(i, j int) bool { return r.order.compare(&r.list[i], &r.list[j]) > 0 }

func (r *ranks) Swap(i, j int) { r.list[i], r.list[j] = r.list[j], r.list[i] }

func (r *ranks) Push(x any) { r.list = append(r.list, x.(rank)) }

func (r *ranks) Pop() any {
	x := r.list[len(r.list)-1]
	r.list = r.list[:len(r.list)-1]
	return x
}

func (r *ranks) take(x rank) {
	switch {
	case len(r.list) < r.most:
		heap.Push(r, x)
	case r.order.compare(&x, &r.list[0]) < 0:
		r.list[0] = x
		heap.Fix(r, 0)
	}
}

// worst returns the last of the kept ranks, and whether ranks is full.
func (r *ranks) worst() (*rank, bool) {
	if len(r.list) < r.most {
		return nil, false
	}
	return &r.list[0], true
}

func (r *ranks) sorted() []rank {
	slices.SortFunc(r.list, func(a, b rank) int { return r.order.compare(&a, &b) })
	return r.list
}
