package queen

import (
	"slices"
	"sort"
	"strings"
	"time"

	"github.com/beatfabric/hivebeat"
)

const (
	defaultLimit = 200
	maxLimit     = 1000
)

// answer fills what a verb was asked for. It copies all that the view changes in
// place, so that the answer may leave the goroutine that owns the view.
func (v *view) answer(verb string, r Request, now time.Time) Answer {
	if e := r.check(verb); e != nil {
		return Answer{Error: e}
	}
	switch verb {
	case VerbSummary:
		s := v.summary(now)
		return Answer{Summary: &s}
	case VerbHives:
		return v.listHives(r, now)
	case VerbWorkers:
		return v.listWorkers(r, now)
	}
	h, ok := v.hives[r.Hive]
	if !ok || h.live == "" {
		return Answer{Error: &Error{CodeNotFound, "no hive " + r.Hive + " is known"}}
	}
	if verb == VerbHive {
		return Answer{Hives: []HiveInfo{v.hiveInfo(h, now)}}
	}
	w, ok := h.workers[r.Worker]
	if !ok {
		return Answer{Error: &Error{CodeNotFound, "no worker " + r.Worker + " is known on hive " + r.Hive}}
	}
	return Answer{Workers: []WorkerInfo{v.workerInfo(h, w, now)}}
}

// check returns what is wrong with a request.
func (r *Request) check(verb string) *Error {
	bad := func(err error) *Error { return &Error{CodeBadRequest, err.Error()} }
	needHive, needWorker := verb == VerbHive || verb == VerbWorker, verb == VerbWorker
	switch verb {
	case VerbSummary, VerbHives, VerbWorkers, VerbHive, VerbWorker:
	default:
		return &Error{CodeBadRequest, "unknown verb " + verb}
	}
	if needHive || r.Hive != "" {
		if err := hivebeat.CheckID("hive", r.Hive); err != nil {
			return bad(err)
		}
	}
	if needWorker || r.Worker != "" {
		if err := hivebeat.CheckID("worker", r.Worker); err != nil {
			return bad(err)
		}
	}
	if r.Limit < 0 || r.Limit > maxLimit {
		return &Error{CodeBadRequest, "limit must be 1 to 1000"}
	}
	hive, worker, both := strings.Cut(r.After, "/")
	if r.After != "" && (!hivebeat.ValidID(hive) || both && !hivebeat.ValidID(worker)) {
		return &Error{CodeBadRequest, "after must be the next of the answer before"}
	}
	return nil
}

func (r *Request) limit() int {
	if r.Limit == 0 {
		return defaultLimit
	}
	return r.Limit
}

func (v *view) listHives(r Request, now time.Time) (a Answer) {
	at, found := v.find(r.After)
	if found {
		at++
	}
	for _, h := range v.order[at:] {
		if h.live == "" {
			continue
		}
		if len(a.Hives) == r.limit() {
			a.Next = a.Hives[len(a.Hives)-1].Hive
			break
		}
		a.Hives = append(a.Hives, v.hiveInfo(h, now))
	}
	return a
}

func (v *view) listWorkers(r Request, now time.Time) (a Answer) {
	hives := v.order
	if r.Hive != "" {
		h, ok := v.hives[r.Hive]
		if !ok {
			return Answer{Error: &Error{CodeNotFound, "no hive " + r.Hive + " is known"}}
		}
		hives = []*hive{h}
	}
	afterHive, afterWorker, _ := strings.Cut(r.After, "/")
	from, _ := slices.BinarySearchFunc(hives, afterHive, func(h *hive, id string) int { return strings.Compare(h.id, id) })
	for _, h := range hives[from:] {
		list := h.byID()
		if h.id == afterHive {
			list = list[sort.Search(len(list), func(i int) bool { return list[i].rec.Worker > afterWorker }):]
		}
		for _, w := range list {
			if len(a.Workers) == r.limit() {
				a.Next = a.Workers[len(a.Workers)-1].cursor()
				return a
			}
			a.Workers = append(a.Workers, v.workerInfo(h, w, now))
		}
	}
	return a
}

func (w *WorkerInfo) cursor() string { return w.Hive + "/" + w.Worker }

// hiveInfo describes h as of now.
func (v *view) hiveInfo(h *hive, now time.Time) HiveInfo {
	age := effectiveAge(0, h.received, now)
	i := HiveInfo{
		Hive: h.id, Live: h.live, Cause: h.cause, Conflict: h.conflicting(now) != 0,
		Inc: h.line.Inc(), Seq: h.line.Seq(), Every: hivebeat.MillisOf(h.every),
		Age: age, Fresh: h.head.Inc != 0 && age <= hivebeat.MillisOf(v.fresh), Since: hivebeat.MillisOf(now.Sub(h.since)),
		Warm: h.head.Warm, Bye: h.left, Zone: h.zone(), Labels: h.head.Labels,
		Host: h.head.Host, GPUs: slices.Clone(h.head.GPUs), Collect: h.head.Collect, Stats: h.head.Stats,
		Workers: make(map[hivebeat.Live]int),
	}
	for k := range i.GPUs {
		i.GPUs[k].Age = effectiveAge(i.GPUs[k].Age, h.received, now)
	}
	v.countWorkers(h, now, func(live hivebeat.Live, _ hivebeat.State, n int) { i.Workers[live] += n })
	return i
}

// workerInfo describes w as of now.
func (v *view) workerInfo(h *hive, w *worker, now time.Time) WorkerInfo {
	i := WorkerInfo{Hive: h.id, Zone: h.zone(), Via: w.via, Record: w.rec}
	i.Live, i.Age, i.Fresh = v.shown(h, w, now)
	i.Since = effectiveAge(w.rec.Since, w.received, now)
	if i.Live != w.rec.Live {
		i.Since = v.lateFor(h, i.Age, now)
	}
	i.Tr = slices.Clone(w.rec.Tr)
	for k := range i.Tr {
		i.Tr[k].Ago = effectiveAge(i.Tr[k].Ago, w.received, now)
	}
	return i
}

// shown returns what a record is worth now. One past the limit of freshness, or
// of a hive that is gone, is shown as at best late; that is no transition.
func (v *view) shown(h *hive, w *worker, now time.Time) (live hivebeat.Live, age hivebeat.Millis, fresh bool) {
	live, age = w.rec.Live, effectiveAge(w.rec.Age, w.received, now)
	fresh = age <= hivebeat.MillisOf(v.fresh)
	if live == hivebeat.Alive && (!fresh || !h.up()) {
		live = hivebeat.Late
	}
	return live, age, fresh
}

// lateFor returns for how long a record of this age has been shown as late, which
// its hive does not say of it: since it grew too old, or its hive was given up.
func (v *view) lateFor(h *hive, age hivebeat.Millis, now time.Time) hivebeat.Millis {
	var since hivebeat.Millis
	if fresh := hivebeat.MillisOf(v.fresh); age > fresh {
		since = age - fresh
	}
	if !h.up() {
		since = max(since, hivebeat.MillisOf(now.Sub(h.since)))
	}
	return since
}

// up reports whether h still speaks for its workers.
func (h *hive) up() bool { return h.live == hivebeat.Alive || h.live == hivebeat.Late }

// countWorkers yields how many workers of h are shown with which verdict and
// state; a verdict that nobody knows counts as late. It looks at each worker
// only where one of them may have become too old since it was counted.
func (v *view) countWorkers(h *hive, now time.Time, yield func(hivebeat.Live, hivebeat.State, int)) {
	if h.up() && h.asm.complete() && h.asm.listed == len(h.workers) &&
		effectiveAge(h.asm.oldest, h.asm.began, now) <= hivebeat.MillisOf(v.fresh) {
		for m, n := range h.mixes {
			yield(counted(m.live), m.state, n)
		}
		return
	}
	for _, w := range h.workers {
		live, _, _ := v.shown(h, w, now)
		yield(counted(live), w.rec.State, 1)
	}
}

func counted(l hivebeat.Live) hivebeat.Live {
	switch l {
	case hivebeat.Alive, hivebeat.Late, hivebeat.Lost, hivebeat.Left:
		return l
	}
	return hivebeat.Late
}

// summary counts the fleet.
func (v *view) summary(now time.Time) Summary {
	s := Summary{
		Hives: make(map[hivebeat.Live]int), Workers: make(map[hivebeat.Live]int), States: make(map[hivebeat.State]int),
	}
	for _, h := range v.order {
		if h.live == "" {
			continue
		}
		s.Hives[h.live]++
		v.countWorkers(h, now, func(live hivebeat.Live, state hivebeat.State, n int) {
			s.Workers[live] += n
			if live == hivebeat.Alive {
				s.States[state] += n
			}
		})
		if h.head.Inc == 0 || now.Sub(h.received) > v.fresh || !h.up() {
			continue
		}
		s.GPUs += len(h.head.GPUs)
		for i := range h.head.GPUs {
			g := &h.head.GPUs[i]
			s.VRAMTotal += g.Total
			s.VRAMUsed += g.Used
			s.VRAMOurs += g.Ours
		}
	}
	return s
}
