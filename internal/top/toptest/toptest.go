// Package toptest is a queen for tests of the views. It answers for a fleet of any size that
// never changes, and implements the verbs that the views use, with windows, orders and a few
// filters. It does not model a real queen.
package toptest

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/beatfabric/hivebeat"
	"github.com/beatfabric/hivebeat/queen/api"
)

const id = "q-1"

// Queen answers for Hives hives with Each workers each.
type Queen struct {
	Hives, Each int
	Now         time.Time // of its answers and events; zero: the time of the request

	mu     sync.Mutex
	silent bool
	unsure []string
	brake  []api.BrakeInfo
	asked  map[string]int
	most   int
	offset int // the highest offset asked for
}

// Hush stops or resumes its answers.
func (q *Queen) Hush(silent bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.silent = silent
}

// Doubt sets reasons why its answers are not sure, and zones whose brake is on.
func (q *Queen) Doubt(brake []api.BrakeInfo, unsure ...string) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.brake, q.unsure = brake, unsure
}

// Seen returns the number of requests of each verb, the most rows in one answer, and the
// highest offset.
func (q *Queen) Seen() (asked map[string]int, most, offset int) {
	q.mu.Lock()
	defer q.mu.Unlock()
	asked = map[string]int{}
	for k, n := range q.asked {
		asked[k] = n
	}
	return asked, q.most, q.offset
}

// Serve answers requests on nc until nc is closed.
func (q *Queen) Serve(nc *nats.Conn) error {
	var s hivebeat.Subjects
	for _, subject := range []string{s.API("*"), s.Ask("", "*", id)} {
		_, err := nc.Subscribe(subject, func(m *nats.Msg) {
			var r api.Request
			_ = json.Unmarshal(m.Data, &r)
			_, verb, _, _ := s.ParseAPI(m.Subject)
			if a := q.Answer(verb, r); a != nil {
				b, _ := json.Marshal(a)
				_ = m.Respond(b) //nolint:forbidigo // a stand-in for tests
			}
		})
		if err != nil {
			return err
		}
	}
	return nc.Flush()
}

// Answer returns the answer to r, or nil if the queen is silent.
func (q *Queen) Answer(verb string, r api.Request) *api.Answer {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.silent {
		return nil
	}
	if q.asked == nil {
		q.asked = map[string]int{}
	}
	q.asked[verb]++
	q.offset = max(q.offset, r.Offset)
	now := q.Now
	if now.IsZero() {
		now = time.Now()
	}
	a := &api.Answer{Status: api.Status{AsOf: now, Queen: id, Warm: true, JetStream: true, Unsure: q.unsure, Brake: q.brake}}
	switch verb {
	case api.VerbSummary:
		a.Summary = q.summary()
	case api.VerbHives:
		a.Hives, a.Total, a.Next = page(q.Hives, r, q.hive, func(h *api.HiveInfo) string { return h.Hive }, func(int) bool { return true }, q.fitsHive)
	case api.VerbWorkers:
		first, n := 0, q.Hives*q.Each
		if r.Hive != "" {
			h := q.find(r.Hive)
			if h < 0 {
				return missing(a, r.Hive)
			}
			first, n = h*q.Each, q.Each
		}
		a.Workers, a.Total, a.Next = page(n, r, func(i int) api.WorkerInfo { return q.worker(first + i) }, (*api.WorkerInfo).Cursor,
			func(i int) bool { return mayFit(first+i, &r) }, q.fitsWorker)
	case api.VerbHive:
		h := q.find(r.Hive)
		if h < 0 {
			return missing(a, r.Hive)
		}
		a.Hives = []api.HiveInfo{q.hive(h)}
	case api.VerbWorker:
		h, w := q.find(r.Hive), 0
		if _, err := fmt.Sscanf(r.Worker, "w%d", &w); err != nil || h < 0 || w >= q.Each {
			return missing(a, r.Hive+"/"+r.Worker)
		}
		a.Workers = []api.WorkerInfo{q.worker(h*q.Each + w)}
	case api.VerbEvents:
		a.Events, a.Next = q.events(r, now)
	default:
		a.Error = &api.Error{Code: api.CodeBadRequest, Message: "unknown verb " + verb}
	}
	q.most = max(q.most, len(a.Hives), len(a.Workers))
	return a
}

func missing(a *api.Answer, id string) *api.Answer {
	a.Error = &api.Error{Code: api.CodeNotFound, Message: "no " + id + " is known"}
	return a
}

func (q *Queen) find(id string) int {
	h := -1
	if _, err := fmt.Sscanf(id, "gpu-%d", &h); err != nil || h >= q.Hives {
		return -1
	}
	return h
}

// page returns the requested rows out of n. With an order other than id, or with a filter, it
// looks at every row.
func page[T any](n int, r api.Request, row func(int) T, id func(*T) string, may func(int) bool, fits func(*T, *api.Request) bool) (rows []T, total *int, next string) {
	limit := r.Limit
	if limit == 0 {
		limit = 200
	}
	desc := strings.HasPrefix(r.Sort, "-")
	if f := r.Filter; f.Text == "" && f.Model == "" && f.Zone == "" && f.Selector == "" && f.FreeVRAM == 0 && len(f.Live)+len(f.State) == 0 {
		for i := r.Offset; i < n && len(rows) < limit; i++ {
			at := i
			if desc {
				at = n - 1 - i
			}
			rows = append(rows, row(at))
		}
		total = &n
		if r.Offset+len(rows) < n && len(rows) > 0 {
			next = id(&rows[len(rows)-1])
		}
		return rows, total, next
	}
	for i := range n {
		if !may(i) {
			continue
		}
		x := row(i)
		if fits(&x, &r) {
			rows = append(rows, x)
		}
	}
	if desc {
		slices.Reverse(rows)
	}
	all := len(rows)
	rows = rows[min(r.Offset, all):]
	if len(rows) > limit {
		rows = rows[:limit]
		next = id(&rows[limit-1])
	}
	return rows, &all, next
}

// mayFit skips most rows of a large fleet: building a worker costs more than computing its
// verdict and model.
func mayFit(i int, r *api.Request) bool {
	return (len(r.Live) == 0 || slices.Contains(r.Live, liveOf(i))) && (r.Model == "" || strings.HasSuffix(r.Model, "*") || r.Model == models[i%len(models)])
}

func has(text string, parts ...string) bool {
	for _, p := range parts {
		if strings.Contains(strings.ToLower(p), strings.ToLower(text)) {
			return true
		}
	}
	return false
}

func (q *Queen) fitsHive(h *api.HiveInfo, r *api.Request) bool {
	return (r.Text == "" || has(r.Text, h.Hive, h.Zone)) && (r.Zone == "" || r.Zone == h.Zone) &&
		(len(r.Live) == 0 || slices.Contains(r.Live, h.Live)) && h.FreeVRAM >= r.FreeVRAM
}

func (q *Queen) fitsWorker(w *api.WorkerInfo, r *api.Request) bool {
	return (r.Text == "" || has(r.Text, w.Hive, w.Worker, w.Zone, w.Model)) && (r.Zone == "" || r.Zone == w.Zone) &&
		(len(r.Live) == 0 || slices.Contains(r.Live, w.Live)) && (len(r.State) == 0 || slices.Contains(r.State, w.State)) &&
		(r.Model == "" || r.Model == w.Model || strings.HasSuffix(r.Model, "*") && strings.HasPrefix(w.Model, strings.TrimSuffix(r.Model, "*")))
}
