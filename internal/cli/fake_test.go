package cli

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/nats-io/nats.go"

	"github.com/beatfabric/hivebeat"
	"github.com/beatfabric/hivebeat/internal/bustest"
	"github.com/beatfabric/hivebeat/queen/api"
)

// fakeQueen answers for one hive with any number of workers, and counts the requests.
type fakeQueen struct {
	workers int

	mu     sync.Mutex
	silent bool
	asked  map[string]int
	most   int // workers in one answer
}

func serveFake(t *testing.T, workers int) (url string, nc *nats.Conn, q *fakeQueen) {
	t.Helper()
	srv := bustest.Server(t, bustest.NoJetStream())
	nc = bustest.Conn(t, srv)
	q = &fakeQueen{workers: workers, asked: map[string]int{}}
	var s hivebeat.Subjects
	once := onceEach()
	subscribeAs(t, nc, "fake", func(m *nats.Msg) {
		_, verb, _, _ := s.ParseAPI(m.Subject)
		if !once(m) {
			return
		}
		if a, ok := q.answer(verb, m.Data); ok {
			b, _ := json.Marshal(a)
			_ = m.Respond(b)
		}
	})
	return srv.URL(), nc, q
}

// subscribeAs subscribes to all verbs, as the only queen.
func subscribeAs(t *testing.T, nc *nats.Conn, queen string, hear nats.MsgHandler) {
	t.Helper()
	var s hivebeat.Subjects
	for _, subject := range []string{s.API("*"), s.Ask("", "*", queen)} {
		if _, err := nc.Subscribe(subject, hear); err != nil {
			t.Fatal(err)
		}
	}
	bustest.Flush(t, nc)
}

// onceEach reports whether a message is a new request. A slow machine may repeat a request
// before the answer arrives.
func onceEach() func(*nats.Msg) bool {
	var mu sync.Mutex
	seen := map[string]bool{}
	return func(m *nats.Msg) bool {
		mu.Lock()
		defer mu.Unlock()
		was := seen[m.Reply]
		seen[m.Reply] = true
		return !was
	}
}

func (q *fakeQueen) answer(verb string, data []byte) (a api.Answer, ok bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.silent {
		return a, false
	}
	q.asked[verb]++
	var r api.Request
	if err := json.Unmarshal(data, &r); err != nil {
		a.Error = &api.Error{Code: api.CodeBadRequest, Message: err.Error()}
		return a, true
	}
	a.Status = api.Status{Queen: "fake", Warm: true, JetStream: true}
	switch verb {
	case api.VerbSummary:
		a.Summary = &api.Summary{Hives: map[hivebeat.Live]int{hivebeat.Alive: 1}, Workers: map[hivebeat.Live]int{hivebeat.Alive: q.workers}}
	case api.VerbHives, api.VerbHive:
		a.Hives = []api.HiveInfo{{Hive: "h", Live: hivebeat.Alive, Fresh: true}}
	case api.VerbWorkers:
		from := 0
		if r.After != "" {
			_, _ = fmt.Sscanf(r.After, "h/w%d", &from)
			from++
		}
		for i := from; i < q.workers && len(a.Workers) < r.Limit; i++ {
			a.Workers = append(a.Workers, api.WorkerInfo{Hive: "h", Fresh: true, Record: hivebeat.Record{
				Worker: fmt.Sprintf("w%06d", i), Live: hivebeat.Alive, Facts: hivebeat.Facts{State: hivebeat.Ready, Model: "m"},
			}})
		}
		if from+len(a.Workers) < q.workers {
			a.Next = "h/" + a.Workers[len(a.Workers)-1].Worker
		}
		if from > 0 { // a later page may be less sure than the first
			a.Status.Unsure = []string{"one hive is unverified"}
		}
		q.most = max(q.most, len(a.Workers))
	}
	return a, true
}

func (q *fakeQueen) hush(silent bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.silent = silent
}

// pageSize is the default of client.Query.
const pageSize = 500

// A long list arrives page by page, complete and in order, and is only as sure as its least
// sure page.
func TestLsPages(t *testing.T) {
	const workers = 3210
	url, _, q := serveFake(t, workers)
	code, out, errs := run(t, nil, "ls", "--nats", url)
	if code != ExitDone || errs != "" {
		t.Fatalf("exit code %d, %s", code, errs)
	}
	var ids []string
	for line := range strings.Lines(out) {
		if strings.HasPrefix(line, "h/w") {
			ids = append(ids, strings.Fields(line)[0])
		}
	}
	if len(slices.Compact(ids)) != workers || !slices.IsSorted(ids) {
		t.Errorf("%d workers are listed, sorted %v", len(ids), slices.IsSorted(ids))
	}
	if n := strings.Count(out, "WORKER "); n != 1 {
		t.Errorf("%d headings", n)
	}
	if !strings.HasSuffix(out, "1 hive: 1 alive · 3,210 workers: 3,210 alive · not sure: one hive is unverified\n") {
		t.Errorf("it ends with %q", out[strings.LastIndexByte(out[:len(out)-1], '\n'):])
	}
	if q.most > pageSize || q.asked[api.VerbWorkers] != (workers+pageSize-1)/pageSize {
		t.Errorf("asked %v, %d workers in one answer", q.asked, q.most)
	}

	code, out, errs = run(t, nil, "ls", "workers", "-o", "json", "--nats", url)
	var doc struct {
		Hives   []api.HiveInfo
		Workers []api.WorkerInfo
		Summary *api.Summary
		Status  api.Status
	}
	if err := json.Unmarshal([]byte(out), &doc); err != nil || code != ExitDone || errs != "" {
		t.Fatalf("exit code %d, %v, %s", code, err, errs)
	}
	if len(doc.Workers) != workers || doc.Hives != nil || doc.Summary == nil || len(doc.Status.Unsure) != 1 {
		t.Errorf("%d workers, %d hives, %v, %v", len(doc.Workers), len(doc.Hives), doc.Summary, doc.Status)
	}
}

// A queen that is running and does not answer is an error after --timeout.
func TestQueenThatDoesNotAnswer(t *testing.T) {
	url, _, q := serveFake(t, 1)
	q.hush(true)
	code, out, errs := run(t, nil, "ls", "--nats", url, "--timeout", "50ms")
	if code != ExitFailed || out != "" || !strings.Contains(errs, "no queen answers") || !strings.Contains(errs, "within 50ms") || !strings.Contains(errs, "\nhint: ") {
		t.Errorf("exit code %d, %q, %s", code, out, errs)
	}
}

// An answer that cannot be read is reported as such.
func TestAnswerThatIsNone(t *testing.T) {
	srv := bustest.Server(t, bustest.NoJetStream())
	nc := bustest.Conn(t, srv)
	var s hivebeat.Subjects
	if _, err := nc.Subscribe(s.API("*"), func(m *nats.Msg) { _ = m.Respond([]byte("hello\x1b[2J")) }); err != nil {
		t.Fatal(err)
	}
	bustest.Flush(t, nc)
	code, _, errs := run(t, nil, "get", "x", "--nats", srv.URL())
	if code != ExitFailed || !strings.Contains(errs, "cannot be read") || strings.Contains(errs, "\x1b") {
		t.Errorf("exit code %d, %q", code, errs)
	}
}
