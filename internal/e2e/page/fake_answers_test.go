//go:build e2e

package page

import (
	"cmp"
	"context"
	"fmt"
	"math/rand/v2"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/beatfabric/hivebeat"
	"github.com/beatfabric/hivebeat/queen/api"
)

// Answer answers like a queen, for the requests that the page sends.
func (q *fakeQueen) Answer(ctx context.Context, verb string, r api.Request) api.Answer {
	if verb == api.VerbWatch {
		return q.watch(ctx, r)
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	now := time.Now()
	a := api.Answer{Status: q.status(now)}
	if r.Offset > 100_000 && r.Sort != "" && strings.TrimPrefix(r.Sort, "-") != "id" { // like a queen
		a.Error = &api.Error{Code: api.CodeBadRequest, Message: "offset is too large for a sorted list"}
		return a
	}
	if q.refused != "" {
		a.Error = &api.Error{Code: api.CodeUnavailable, Message: q.refused}
		return a
	}
	switch verb {
	case api.VerbSummary:
		a.Summary = q.summary()
	case api.VerbHives, api.VerbHive:
		var all []*fakeHive
		for _, h := range q.hives {
			if (r.Hive == "" || h.Hive == r.Hive) && fits(r, h.Live, "", h.Zone, "", h.Hive) {
				all = append(all, h)
			}
		}
		switch strings.TrimPrefix(r.Sort, "-") {
		case "vram_free":
			turn(r.Sort, all, func(h *fakeHive) uint64 { return h.show(now).FreeVRAM })
		case "live":
			turn(r.Sort, all, func(h *fakeHive) hivebeat.Live { return h.Live })
		case "cpu":
			turn(r.Sort, all, func(h *fakeHive) float64 { return h.Host.CPU })
		case "age":
			turn(r.Sort, all, func(h *fakeHive) hivebeat.Millis { return h.show(now).Age })
		default:
			turn(r.Sort, all, func(h *fakeHive) string { return h.Hive })
		}
		a.Hives, a.Next, a.Total = window(r, all, func(h *fakeHive) api.HiveInfo { return h.show(now) })
		if verb == api.VerbHive && len(a.Hives) == 0 {
			a.Error = &api.Error{Code: api.CodeNotFound, Message: "no hive " + r.Hive}
		}
	case api.VerbWorkers, api.VerbWorker:
		var all []*fakeWorker
		for _, h := range q.hives {
			if r.Hive != "" && h.Hive != r.Hive {
				continue
			}
			for _, w := range h.workers {
				if (r.Worker == "" || w.Worker == r.Worker) && fits(r, w.Live, w.State, w.Zone, w.Model, w.Hive, w.Worker) {
					all = append(all, w)
				}
			}
		}
		switch strings.TrimPrefix(r.Sort, "-") {
		case "live":
			turn(r.Sort, all, func(w *fakeWorker) hivebeat.Live { return w.Live })
		case "state":
			turn(r.Sort, all, func(w *fakeWorker) hivebeat.State { return w.State })
		case "model":
			turn(r.Sort, all, func(w *fakeWorker) string { return w.Model })
		case "busy":
			turn(r.Sort, all, func(w *fakeWorker) uint64 { return w.Busy })
		case "queue":
			turn(r.Sort, all, func(w *fakeWorker) uint64 { return w.Queue })
		case "vram":
			turn(r.Sort, all, func(w *fakeWorker) uint64 { return w.VRAM })
		case "done":
			turn(r.Sort, all, func(w *fakeWorker) uint64 { return w.Done })
		case "age":
			turn(r.Sort, all, func(w *fakeWorker) hivebeat.Millis { return w.show(now, q.began).Age })
		default:
			if strings.HasPrefix(r.Sort, "-") {
				slices.Reverse(all)
			}
		}
		a.Workers, a.Next, a.Total = window(r, all, func(w *fakeWorker) api.WorkerInfo { return w.show(now, q.began) })
		if verb == api.VerbWorker && len(a.Workers) == 0 {
			a.Error = &api.Error{Code: api.CodeNotFound, Message: "no worker " + r.Hive + "/" + r.Worker}
		}
	case api.VerbEvents:
		a.Events, a.Next = q.past(r)
	case api.VerbHistory:
		a.History = q.history(now, r)
	default:
		a.Error = &api.Error{Code: api.CodeBadRequest, Message: "the fake queen has no " + verb}
	}
	return a
}

func (q *fakeQueen) status(now time.Time) api.Status {
	return api.Status{AsOf: now.UTC(), Queen: "queen-1", Warm: true, JetStream: !q.away, Unsure: q.unsure, Brake: q.brake}
}

func (q *fakeQueen) summary() *api.Summary {
	s := &api.Summary{Hives: map[hivebeat.Live]int{}, Workers: map[hivebeat.Live]int{}, States: map[hivebeat.State]int{}}
	for _, h := range q.hives {
		s.Hives[h.Live]++
		for _, w := range h.workers {
			s.Workers[w.Live]++
			if w.Live == hivebeat.Alive {
				s.States[w.State]++
			}
		}
		for _, g := range h.GPUs {
			s.GPUs++
			s.VRAMTotal += g.Total
			s.VRAMUsed += g.Used
			s.VRAMOurs += g.Ours
		}
	}
	return s
}

// watch returns the summary and the events since a cursor; it waits for a change.
func (q *fakeQueen) watch(ctx context.Context, r api.Request) api.Answer {
	// A cursor is fake.<revision>.<number of events sent>.
	cursor := strings.Split(r.After, ".")
	ok := len(cursor) == 3 && cursor[0] == "fake"
	var rev uint64
	var told int
	if ok {
		rev, _ = strconv.ParseUint(cursor[1], 10, 64)
		told, _ = strconv.Atoi(cursor[2])
	}
	q.mu.Lock()
	for ok && rev == q.rev && r.Wait > 0 {
		changed := q.changed
		q.mu.Unlock()
		select {
		case <-changed:
		case <-time.After(r.Wait.Duration()):
			r.Wait = 0
		case <-ctx.Done():
			r.Wait = 0
		}
		q.mu.Lock()
	}
	defer q.mu.Unlock()
	if q.refused != "" {
		return api.Answer{Status: q.status(time.Now()), Error: &api.Error{Code: api.CodeUnavailable, Message: q.refused}}
	}
	a := api.Answer{Status: q.status(time.Now()), Next: fmt.Sprintf("fake.%d.%d", q.rev, len(q.events)), Summary: q.summary()}
	if ok {
		a.Events = slices.Clone(q.events[min(told, len(q.events)):])
	}
	return a
}

func (q *fakeQueen) past(r api.Request) (out []api.Happened, next string) {
	before := len(q.events)
	if r.After != "" {
		before, _ = strconv.Atoi(r.After)
	}
	for i := min(before, len(q.events)) - 1; i >= 0; i-- {
		d := q.events[i].Data
		if r.Hive != "" && d.Hive != r.Hive || r.Worker != "" && d.Worker != r.Worker || len(r.Kinds) > 0 && !slices.Contains(r.Kinds, d.Kind) {
			continue
		}
		if len(out) == cmp.Or(r.Limit, 200) {
			return out, strconv.Itoa(i + 1)
		}
		out = append(out, q.events[i])
	}
	return out, ""
}

// history generates the last hours, with a gap.
func (q *fakeQueen) history(now time.Time, r api.Request) *api.History {
	n := int(cmp.Or(r.Since, 3600000) / 60000)
	workers := 0.0
	for _, h := range q.hives {
		workers += float64(len(h.workers))
	}
	s := q.summary()
	h := &api.History{End: now.Truncate(time.Minute).UnixMilli(), Step: 60000, Series: map[string][]*float64{}}
	rng := rand.New(rand.NewPCG(3, 3))
	level := 0.5
	for i := range n {
		level = min(0.95, max(0.15, level+(rng.Float64()-0.5)*0.12))
		at := func(key string, v float64) {
			if i > n/4 && i < n/4+6 {
				h.Series[key] = append(h.Series[key], nil)
				return
			}
			h.Series[key] = append(h.Series[key], &v)
		}
		down := 0.0
		if workers > 0 && rng.IntN(12) == 0 {
			down = float64(int(workers/40) + 1)
		}
		at(api.SeriesWorkersAlive, workers-down)
		at(api.SeriesWorkersLate, float64(int(down/2)))
		at(api.SeriesWorkersDown, down-float64(int(down/2)))
		at(api.SeriesHivesAlive, float64(len(q.hives)))
		at(api.SeriesHivesLate, 0)
		at(api.SeriesHivesDown, 0)
		at(api.SeriesSlots, workers*8)
		at(api.SeriesBusy, float64(int(workers*8*level)))
		at(api.SeriesQueue, float64(int(workers*level*level)))
		at(api.SeriesVRAMTotal, float64(s.VRAMTotal))
		at(api.SeriesVRAMUsed, float64(s.VRAMUsed)*(0.85+level*0.15))
		at(api.SeriesVRAMOurs, float64(s.VRAMOurs)*(0.85+level*0.15))
		at(api.SeriesCPU, 100*level*0.6)
		at(api.SeriesMemUsed, 80*gib*(0.9+level*0.2))
	}
	return h
}

func fits(r api.Request, live hivebeat.Live, state hivebeat.State, zone, model string, ids ...string) bool {
	if len(r.Live) > 0 && !slices.Contains(r.Live, live) || len(r.State) > 0 && !slices.Contains(r.State, state) || r.Zone != "" && r.Zone != zone {
		return false
	}
	if r.Model != "" {
		if ok, _ := path.Match(r.Model, strings.ReplaceAll(model, "/", ":")); !ok && r.Model != model {
			return false
		}
	}
	text := strings.ToLower(r.Text)
	return text == "" || slices.ContainsFunc(append(ids, zone, model), func(s string) bool { return strings.Contains(strings.ToLower(s), text) })
}

func turn[T any, K cmp.Ordered](by string, all []T, key func(T) K) {
	slices.SortStableFunc(all, func(a, b T) int {
		if strings.HasPrefix(by, "-") {
			a, b = b, a
		}
		return cmp.Compare(key(a), key(b))
	})
}

func window[T, O any](r api.Request, all []T, show func(T) O) (out []O, next string, total *int) {
	n := len(all)
	from := min(r.Offset, n)
	if r.After != "" {
		from, _ = strconv.Atoi(r.After)
		from = min(from, n)
	}
	to := min(from+cmp.Or(r.Limit, 200), n)
	for _, t := range all[from:to] {
		out = append(out, show(t))
	}
	if to < n {
		next = strconv.Itoa(to)
	}
	return out, next, &n
}
