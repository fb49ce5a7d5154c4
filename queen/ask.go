package queen

import (
	"slices"
	"sort"
	"strings"
	"time"

	"github.com/beatfabric/hivebeat"
	"github.com/beatfabric/hivebeat/internal/fleet"
	"github.com/beatfabric/hivebeat/queen/api"
)

const (
	defaultLimit = 200
	maxLimit     = 1000
)

// view adds to the fleet what is asked of it.
type view struct{ *fleet.View }

// answer fills what a verb was asked for. It copies all that the view changes in
// place, so that the answer may leave the goroutine that owns the view.
func (v view) answer(verb string, r api.Request, now time.Time) api.Answer {
	if e := check(&r, verb); e != nil {
		return api.Answer{Error: e}
	}
	switch verb {
	case api.VerbSummary:
		s := v.summary(now)
		return api.Answer{Summary: &s}
	case api.VerbHives:
		return v.listHives(r, now)
	case api.VerbWorkers:
		return v.listWorkers(r, now)
	}
	h := v.Hive(r.Hive)
	if h == nil || h.Live() == "" {
		return api.Answer{Error: &api.Error{Code: api.CodeNotFound, Message: "no hive " + r.Hive + " is known"}}
	}
	if verb == api.VerbHive {
		return api.Answer{Hives: []api.HiveInfo{v.hiveInfo(h, now)}}
	}
	w := h.Worker(r.Worker)
	if w == nil {
		return api.Answer{Error: &api.Error{Code: api.CodeNotFound, Message: "no worker " + r.Worker + " is known on hive " + r.Hive}}
	}
	return api.Answer{Workers: []api.WorkerInfo{v.workerInfo(h, w, now)}}
}

// check returns what is wrong with a request.
func check(r *api.Request, verb string) *api.Error {
	bad := func(err error) *api.Error { return &api.Error{Code: api.CodeBadRequest, Message: err.Error()} }
	needHive, needWorker := verb == api.VerbHive || verb == api.VerbWorker, verb == api.VerbWorker
	switch verb {
	case api.VerbSummary, api.VerbHives, api.VerbWorkers, api.VerbHive, api.VerbWorker:
	default:
		return &api.Error{Code: api.CodeBadRequest, Message: "unknown verb " + verb}
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
		return &api.Error{Code: api.CodeBadRequest, Message: "limit must be 1 to 1000"}
	}
	hive, worker, both := strings.Cut(r.After, "/")
	if r.After != "" && (!hivebeat.ValidID(hive) || both && !hivebeat.ValidID(worker)) {
		return &api.Error{Code: api.CodeBadRequest, Message: "after must be the next of the answer before"}
	}
	return nil
}

func limit(r *api.Request) int {
	if r.Limit == 0 {
		return defaultLimit
	}
	return r.Limit
}

func (v view) listHives(r api.Request, now time.Time) (a api.Answer) {
	for _, h := range v.After(r.After) {
		if h.Live() == "" {
			continue
		}
		if len(a.Hives) == limit(&r) {
			a.Next = a.Hives[len(a.Hives)-1].Hive
			break
		}
		a.Hives = append(a.Hives, v.hiveInfo(h, now))
	}
	return a
}

func (v view) listWorkers(r api.Request, now time.Time) (a api.Answer) {
	hives := v.Hives()
	if r.Hive != "" {
		h := v.Hive(r.Hive)
		if h == nil {
			return api.Answer{Error: &api.Error{Code: api.CodeNotFound, Message: "no hive " + r.Hive + " is known"}}
		}
		hives = []*fleet.Hive{h}
	}
	afterHive, afterWorker, _ := strings.Cut(r.After, "/")
	from, _ := slices.BinarySearchFunc(hives, afterHive, func(h *fleet.Hive, id string) int { return strings.Compare(h.ID(), id) })
	for _, h := range hives[from:] {
		list := h.Workers()
		if h.ID() == afterHive {
			list = list[sort.Search(len(list), func(i int) bool { return list[i].Record().Worker > afterWorker }):]
		}
		for _, w := range list {
			if len(a.Workers) == limit(&r) {
				a.Next = a.Workers[len(a.Workers)-1].Cursor()
				return a
			}
			a.Workers = append(a.Workers, v.workerInfo(h, w, now))
		}
	}
	return a
}

// hiveInfo describes h as of now.
func (v view) hiveInfo(h *fleet.Hive, now time.Time) api.HiveInfo {
	age := fleet.EffectiveAge(0, h.Received(), now)
	i := api.HiveInfo{
		Hive: h.ID(), Live: h.Live(), Cause: h.Cause(), Conflict: h.Conflicting(now) != 0,
		Inc: h.Inc(), Seq: h.Seq(), Every: hivebeat.MillisOf(h.Every()),
		Age: age, Fresh: h.Head().Inc != 0 && age <= hivebeat.MillisOf(v.Fresh()), Since: hivebeat.MillisOf(now.Sub(h.Since())),
		Warm: h.Head().Warm, Bye: h.Goodbye(), Zone: h.Zone(), Labels: h.Head().Labels,
		Host: h.Head().Host, GPUs: slices.Clone(h.Head().GPUs), Collect: h.Head().Collect, Stats: h.Head().Stats,
		Workers: make(map[hivebeat.Live]int),
	}
	for k := range i.GPUs {
		i.GPUs[k].Age = fleet.EffectiveAge(i.GPUs[k].Age, h.Received(), now)
	}
	v.CountWorkers(h, now, func(live hivebeat.Live, _ hivebeat.State, n int) { i.Workers[live] += n })
	return i
}

// workerInfo describes w as of now.
func (v view) workerInfo(h *fleet.Hive, w *fleet.Worker, now time.Time) api.WorkerInfo {
	i := api.WorkerInfo{Hive: h.ID(), Zone: h.Zone(), Via: w.Via(), Record: *w.Record()}
	i.Live, i.Age, i.Fresh = v.Shown(h, w, now)
	i.Since = fleet.EffectiveAge(w.Record().Since, w.Received(), now)
	if i.Live != w.Record().Live {
		i.Since = v.LateFor(h, i.Age, now)
	}
	i.Tr = slices.Clone(w.Record().Tr)
	for k := range i.Tr {
		i.Tr[k].Ago = fleet.EffectiveAge(i.Tr[k].Ago, w.Received(), now)
	}
	return i
}

// summary counts the fleet.
func (v view) summary(now time.Time) api.Summary {
	score := v.Score()
	s := api.Summary{
		Hives: make(map[hivebeat.Live]int), Workers: make(map[hivebeat.Live]int), States: make(map[hivebeat.State]int),
		Stats: api.Score{FalseDead: score.FalseDead, CutOff: score.CutOff, Margins: score.Margins.Buckets()},
	}
	_, s.Stats.Adopted, _ = v.Adoptions()
	for _, h := range v.Hives() {
		if h.Live() == "" {
			continue
		}
		s.Hives[h.Live()]++
		told := &h.Head().Stats
		s.Stats.FalseDead += told.FalseDead
		s.Stats.CutOff += told.CutOff
		s.Stats.WireLost += told.WireLost
		s.Stats.SelfPause += told.SelfPause
		v.CountWorkers(h, now, func(live hivebeat.Live, state hivebeat.State, n int) {
			s.Workers[live] += n
			if live == hivebeat.Alive {
				s.States[state] += n
			}
		})
		if h.Head().Inc == 0 || now.Sub(h.Received()) > v.Fresh() || !h.Up() {
			continue
		}
		s.GPUs += len(h.Head().GPUs)
		for i := range h.Head().GPUs {
			g := &h.Head().GPUs[i]
			s.VRAMTotal += g.Total
			s.VRAMUsed += g.Used
			s.VRAMOurs += g.Ours
		}
	}
	return s
}
