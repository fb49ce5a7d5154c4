package query

import (
	"iter"
	"slices"
	"sort"
	"strings"
	"time"

	"github.com/beatfabric/hivebeat/internal/index"
	"github.com/beatfabric/hivebeat/queen/api"
)

const (
	// PageLooks is how many workers one page by id may look at. A hive counts as several
	// workers, and a worker as two if labels are checked. At the limit the page is answered
	// with its results up to there, and the next page continues from there.
	PageLooks = 20_000
	// StepLooks is how many workers one step looks at.
	StepLooks = 4_000
	// sortedLooks limits a page that is sorted by another key than id. Such a page must
	// look at everything that may fit.
	sortedLooks     = 20_000_000
	maxSortedOffset = 100_000
)

// Job is a question that is answered in steps. Step is called with the settled view, and
// reports whether the answer is complete.
type Job interface {
	Step(v *index.Index, now time.Time) (done bool)
	Answer() api.Answer
}

// Page returns the job for the verb hives or workers. The request was checked.
func Page(verb string, r api.Request) Job {
	p := &page{verb: verb, filter: filterOf(&r), sort: sortOf(&r), limit: limitOf(&r), first: r.After == ""}
	p.order = orderOf(p.sort)
	c, _ := parseCursor(&r)
	p.at, p.skip, p.begun = c.rank(), c.Skip, c.Hive != ""
	p.after, p.afterSet = p.at, p.begun
	return p
}

// page walks the fleet by id, from at on. If the list is sorted by another key, it keeps
// the best ranks.
type page struct {
	verb   string
	filter filter
	sort   string
	order  order
	limit  int
	first  bool

	after    rank // of the request
	afterSet bool
	skip     int

	at     rank // looked at up to here, by id
	begun  bool
	whole  bool // that hive was looked at completely
	looked int
	best   ranks
	answer api.Answer
}

// Answer returns the result.
func (p *page) Answer() api.Answer { return p.answer }

// Step looks at some more hives and workers.
func (p *page) Step(v *index.Index, now time.Time) bool {
	if p.looked == 0 && !p.start(v) {
		return true
	}
	budget := StepLooks
	if p.order.key == "id" {
		budget = min(budget, PageLooks-p.looked)
	}
	budget = max(budget, 1)
	before := budget
	done := false
	switch {
	case p.order.key != "id":
		done = p.gather(v, now, &budget)
	case p.verb == api.VerbHives:
		done = p.hives(v, now, &budget)
	default:
		done = p.workers(v, now, &budget)
	}
	p.looked += max(1, before-budget)
	switch {
	case done:
		return true
	case p.order.key == "id" && p.looked >= PageLooks:
		if h := v.Hive(p.at.hive); p.whole && h != nil {
			p.at.worker = lastOf(h, p.down())
		}
		p.answer.Next = cursorAt(p.sort, p.at, p.skip).String()
		return true
	case p.looked >= sortedLooks:
		p.finish(v, now)
		p.answer.Status.Unsure = append(p.answer.Status.Unsure, "the fleet is too large to be sorted completely: the list is correct only for the part that this queen looked at")
		return true
	}
	return false
}

// start counts the items that fit, if that is cheap. It returns false if there is nothing
// to look at.
func (p *page) start(v *index.Index) bool {
	f := &p.filter
	if p.verb == api.VerbWorkers {
		if f.hive != "" && known(v, f.hive) == nil {
			p.answer.Error = &api.Error{Code: api.CodeNotFound, Message: "no hive " + f.hive + " is known"}
			return false
		}
		if n, ok := f.total(v); ok {
			p.answer.Total = &n
		}
	}
	if f.Model != "" && f.literal && v.Model(f.Model) == nil { // no hive serves it
		p.answer.Total = new(0)
		return false
	}
	if p.order.key != "id" {
		p.begun, p.at = false, rank{}
		p.best = ranks{order: p.order, most: p.skip + p.limit + 1}
	}
	return true
}

// known returns the hive with this id, if more than its name is known.
func known(v *index.Index, id string) *index.Hive {
	if h := v.Hive(id); h != nil && h.Live() != "" {
		return h
	}
	return nil
}

// rest returns the hives that remain from p.at on, by id.
func (p *page) rest(v *index.Index) []*index.Hive {
	if p.filter.hive != "" {
		h := known(v, p.filter.hive)
		if c := strings.Compare(p.filter.hive, p.at.hive); h == nil || p.begun && c != 0 && (c < 0) != p.down() {
			return nil
		}
		return []*index.Hive{h}
	}
	all := p.filter.among(v)
	if !p.begun {
		return all
	}
	from, found := slices.BinarySearchFunc(all, p.at.hive, func(h *index.Hive, id string) int { return strings.Compare(h.ID(), id) })
	if p.down() {
		if found {
			from++
		}
		return all[:from]
	}
	return all[from:]
}

func (p *page) down() bool { return p.order.key == "id" && p.order.down }

// inOrder yields the elements of a list in the order of the page.
func inOrder[T any](list []T, down bool) iter.Seq[T] {
	if !down {
		return slices.Values(list)
	}
	return func(yield func(T) bool) {
		for _, x := range slices.Backward(list) {
			if !yield(x) {
				return
			}
		}
	}
}

// hives lists hives by id, and counts them separately if that is cheap.
func (p *page) hives(v *index.Index, now time.Time, budget *int) (done bool) {
	if p.looked == 0 && p.filter.hivesAreCheap() {
		p.countHives(v, now)
	}
	for h := range inOrder(p.rest(v), p.down()) {
		if p.begun && h.ID() == p.at.hive {
			continue
		}
		if *budget <= 0 {
			return false
		}
		fits, looked := p.filter.hiveFits(h, now)
		*budget -= 1 + looked
		if fits && p.skip > 0 {
			p.skip--
			fits = false
		}
		if fits {
			if n := len(p.answer.Hives); n == p.limit {
				p.answer.Next = cursorAt(p.sort, rank{hive: p.answer.Hives[n-1].Hive}, 0).String()
				return true
			}
			p.answer.Hives = append(p.answer.Hives, HiveInfo(v, h, now))
		}
		p.at, p.begun = rank{hive: h.ID()}, true
	}
	return true
}

func (p *page) countHives(v *index.Index, now time.Time) {
	n := 0
	for _, h := range p.filter.among(v) {
		if fits, _ := p.filter.hiveFits(h, now); fits {
			n++
		}
	}
	p.answer.Total = &n
}

// workers lists workers by id.
func (p *page) workers(v *index.Index, now time.Time, budget *int) (done bool) {
	exact := p.filter.counts()
	for h := range inOrder(p.rest(v), p.down()) {
		if *budget <= 0 {
			return false
		}
		*budget -= p.filter.costOf(h)
		n := p.filter.may(h)
		var list []*index.Worker // sorted only when needed
		switch same := p.begun && h.ID() == p.at.hive; {
		case n == 0, same && p.whole:
		case same: // continue in the middle
			list = p.restOf(h.Workers())
		case exact && n <= p.skip:
			p.skip -= n
		default:
			list = h.Workers()
		}
		for w := range inOrder(list, p.down()) {
			if *budget <= 0 {
				return false
			}
			*budget -= p.filter.costs()
			fits := p.filter.worker(h, w, now)
			if fits && p.skip > 0 {
				p.skip--
				fits = false
			}
			if fits {
				if k := len(p.answer.Workers); k == p.limit {
					last := &p.answer.Workers[k-1]
					p.answer.Next = cursorAt(p.sort, rank{hive: last.Hive, worker: last.Worker}, 0).String()
					return true
				}
				p.answer.Workers = append(p.answer.Workers, WorkerInfo(v, w, now))
			}
			p.at, p.begun, p.whole = rank{hive: h.ID(), worker: w.Record().Worker}, true, false
		}
		p.at, p.begun, p.whole = rank{hive: h.ID()}, true, true
	}
	return true
}

// lastOf returns the id of the last worker on a hive, in the order of the page.
func lastOf(h *index.Hive, down bool) string {
	list := h.Workers()
	switch {
	case len(list) == 0:
		return ""
	case down:
		return list[0].Record().Worker
	}
	return list[len(list)-1].Record().Worker
}

// restOf returns the workers of a hive that come after p.at.
func (p *page) restOf(list []*index.Worker) []*index.Worker {
	if p.down() {
		return list[:sort.Search(len(list), func(i int) bool { return list[i].Record().Worker >= p.at.worker })]
	}
	return list[sort.Search(len(list), func(i int) bool { return list[i].Record().Worker > p.at.worker }):]
}
