package query

import (
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/beatfabric/hivebeat"
	"github.com/beatfabric/hivebeat/internal/index"
	"github.com/beatfabric/hivebeat/queen/api"
)

// Watch is one watcher: the changes that it has received, and those that it is still to
// receive. Between requests, only its cursor holds that state.
type Watch struct {
	queen  string
	filter filter
	all    bool // the whole fleet: there is no filter
	only   only
	kinds  []hivebeat.Kind
	limit  int

	cursor  string
	rev     uint64 // reported up to here
	base    uint64 // up to here it receives the current state, not the changes; 0: that is over
	pass    uint64 // where the steps began that have not reached the end yet: a change of numbers may have moved a material change past rev
	begun   bool
	sum     uint64 // revision of the last summary sent
	sumTold bool
	answer  api.Answer
}

type only struct{ summary, hives, workers, events bool }

// NewWatch returns the watcher for a request that was checked, at the queen with this id.
func NewWatch(queen string, r api.Request) *Watch {
	w := &Watch{queen: queen, filter: filterOf(&r), kinds: r.Kinds, limit: limitOf(&r), cursor: r.After}
	w.all = r.Hive == "" && w.filter.counts() && r.Model == "" && len(r.Live) == 0 && len(r.State) == 0 && r.Zone == ""
	w.only = only{true, true, true, true}
	if len(r.Only) > 0 {
		has := func(s string) bool { return slices.Contains(r.Only, s) }
		w.only = only{has("summary"), has("hives"), has("workers"), has("events")}
	}
	return w
}

// Answer returns the result of the last step.
func (w *Watch) Answer() api.Answer { return w.answer }

// begin reads the cursor. If it cannot continue from there, the watcher receives everything
// again.
func (w *Watch) begin(v *index.Index) {
	w.begun = true
	resync := func(why string) {
		w.answer.Resync = why
		w.rev, w.base, w.pass = v.Floor(), v.Rev(), v.Floor()
	}
	if w.cursor == "" {
		w.rev, w.base, w.pass = v.Floor(), v.Rev(), v.Floor()
		return
	}
	parts := strings.Split(w.cursor, ".")
	if parts[0] != w.queen {
		resync("the cursor belongs to another queen, " + parts[0])
		return
	}
	n := [3]uint64{}
	readable := len(parts) >= 2 && len(parts) <= 4
	for i := range n {
		if readable && i+1 < len(parts) {
			u, err := strconv.ParseUint(parts[i+1], 10, 64)
			n[i], readable = u, err == nil
		}
	}
	switch {
	case !readable, n[0] > v.Rev(), n[1] > v.Rev(), n[2] > n[0]:
		resync("the cursor cannot be parsed")
	case n[0] < v.Floor():
		resync("this queen started after the cursor was made")
	case !v.Since(n[0]):
		resync("too much was dropped since the cursor was made")
	default:
		w.rev, w.base, w.pass = n[0], n[1], n[0]
		if n[2] > 0 {
			w.pass = n[2]
		}
		w.sum, w.sumTold = w.rev, w.base == 0
	}
}

func (w *Watch) next() string {
	s := w.queen + "." + strconv.FormatUint(w.rev, 10)
	switch {
	case w.pass < w.rev:
		s += "." + strconv.FormatUint(w.base, 10) + "." + strconv.FormatUint(w.pass, 10)
	case w.base > w.rev:
		s += "." + strconv.FormatUint(w.base, 10)
	}
	return s
}

// Step adds the changes since the last step to the answer, up to the limits of one step. It
// reports whether there is anything to answer with. If there is not, the watcher has
// reached the end, and may be stepped again once the revision of the view has changed.
// events may be nil.
func (w *Watch) Step(v *index.Index, events *Events, now time.Time) (found bool) {
	if !w.begun {
		w.begin(v)
	}
	a := &w.answer
	from, end := w.rev, v.Rev()
	if from > 0 && !v.Since(from) { // while it waited
		w.rev, w.base, w.pass, from = v.Floor(), end, v.Floor(), v.Floor()
		a.Resync = "too much was dropped since the cursor was made"
	}
	looks, n := StepLooks, 0
	to := end // the answer is complete up to here
	full := func(rev uint64) bool {
		if n < w.limit && looks > 0 {
			return false
		}
		to = rev
		return true
	}
	// A watcher that still receives the current state knows nothing that could be gone, and
	// has received no events.
	known := max(from, w.base)
	gone := v.Tombstones(known)
	var happened []*Arrival
	if w.only.events && events != nil {
		happened, a.Missed = events.Since(known)
	}
	last := from
	// Three lists in one order: removals, events and changes.
	others := func(before uint64) bool {
		for {
			g, e := ^uint64(0), ^uint64(0)
			if len(gone) > 0 {
				g = gone[0].Rev
			}
			if len(happened) > 0 {
				e = happened[0].Rev
			}
			switch {
			case min(g, e) > before:
				return true
			case full(last):
				return false
			case g < e:
				if w.addGone(&gone[0]) {
					a.Gone = append(a.Gone, idOf(gone[0].Hive, gone[0].Worker))
					n++
				}
				last, gone = g, gone[1:]
			default:
				if w.addEvent(happened[0]) {
					a.Events = append(a.Events, happened[0].Happened)
					n++
				}
				last, happened = e, happened[1:]
			}
			looks--
		}
	}
	stopped := false
	w.changed(v, from, func(h *index.Hive, k *index.Worker, rev, key uint64) bool {
		if !others(rev) || full(last) {
			stopped = true
			return false
		}
		looks--
		n += w.add(v, h, k, key > max(w.pass, w.base), now)
		last = rev
		return true
	})
	if !stopped {
		stopped = !others(^uint64(0) - 1)
	}
	w.rev = to
	if !stopped {
		w.pass = to
	}
	a.More = stopped
	if w.base != 0 && w.rev >= w.base {
		w.base = 0
	}
	if w.only.summary && w.all && !a.More && (!w.sumTold || w.sum != w.rev) {
		s := Summary(v)
		a.Summary, w.sum, w.sumTold = &s, w.rev, true
		n++
	}
	a.Next = w.next()
	return n > 0 || a.Resync != "" || a.Missed > 0 || w.cursor == ""
}

// changed yields the changes since rev, in order. If the filter names a hive, it looks only
// at that hive.
func (w *Watch) changed(v *index.Index, rev uint64, yield func(*index.Hive, *index.Worker, uint64, uint64) bool) {
	if !w.only.hives && !w.only.workers {
		return
	}
	if w.filter.hive == "" {
		v.Changed(rev, yield)
		return
	}
	h := v.Hive(w.filter.hive)
	if h == nil {
		return
	}
	type change struct {
		w        *index.Worker
		rev, key uint64
	}
	var list []change
	if r, key := h.Revision(); r > rev {
		list = append(list, change{nil, r, key})
	}
	for _, k := range h.Workers() {
		if r, key := k.Revision(); r > rev {
			list = append(list, change{k, r, key})
		}
	}
	slices.SortFunc(list, func(a, b change) int {
		if a.rev < b.rev {
			return -1
		}
		return 1
	})
	for _, c := range list {
		if !yield(h, c.w, c.rev, c.key) {
			return
		}
	}
}

// add adds one hive or worker to the answer: as it is, or as gone if it does not fit. It
// leaves the item out if it certainly did not fit before either. another means that the
// item itself has changed, and not only its numbers.
func (w *Watch) add(v *index.Index, h *index.Hive, k *index.Worker, another bool, now time.Time) (n int) {
	if k != nil {
		return w.addWorker(v, h, k, another, now)
	}
	if w.filter.FreeVRAM > 0 || w.filter.ofMachine() { // the hive decides which workers fit
		for _, k := range h.Workers() {
			n += w.addWorker(v, h, k, true, now)
		}
	}
	return n + w.addHive(v, h, another, now)
}

// volatile reports whether numbers decide which items fit.
func (f *filter) volatile() bool {
	return f.FreeSlots > 0 || f.FreeVRAM > 0 || f.MaxAge > 0 || f.ofMachine()
}

func (w *Watch) addHive(v *index.Index, h *index.Hive, another bool, now time.Time) int {
	f := &w.filter
	if !w.only.hives || h.Live() == "" {
		return 0
	}
	if fits, _ := f.hiveFits(h, now); fits {
		w.answer.Hives = append(w.answer.Hives, HiveInfo(v, h, now))
		return 1
	}
	if w.all || !another && !f.volatile() && !f.needsWorkers() {
		return 0
	}
	w.answer.Gone = append(w.answer.Gone, idOf(h.ID(), ""))
	return 1
}

func (w *Watch) addWorker(v *index.Index, h *index.Hive, k *index.Worker, another bool, now time.Time) int {
	switch f := &w.filter; {
	case !w.only.workers:
		return 0
	case f.worker(h, k, now):
		w.answer.Workers = append(w.answer.Workers, WorkerInfo(v, k, now))
		return 1
	case !another && !f.volatile():
		return 0
	}
	w.answer.Gone = append(w.answer.Gone, idOf(h.ID(), k.Record().Worker))
	return 1
}

func (w *Watch) addGone(g *index.Tombstone) bool {
	return (w.filter.hive == "" || w.filter.hive == g.Hive) && (g.Worker == "" && w.only.hives || g.Worker != "" && w.only.workers)
}

func (w *Watch) addEvent(e *Arrival) bool {
	d := &e.Happened.Data
	if len(w.kinds) > 0 && !slices.Contains(w.kinds, d.Kind) {
		return false
	}
	f := &w.filter
	return (f.hive == "" || f.hive == d.Hive) && f.model(d.Model)
}

func idOf(hive, worker string) string {
	if worker == "" {
		return hive
	}
	return hive + "/" + worker
}
