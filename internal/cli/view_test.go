package cli

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"github.com/nats-io/nats.go"

	"github.com/beatfabric/hivebeat"
	"github.com/beatfabric/hivebeat/bus/embedded"
	"github.com/beatfabric/hivebeat/internal/bustest"
	"github.com/beatfabric/hivebeat/queen/api"
)

// oneOf adds a queen that answers these verbs, as one of all and by its id. It knows a number
// of workers of the hive h.
func oneOf(t *testing.T, srv *embedded.Server, id string, workers int, verbs ...string) (leave func()) {
	t.Helper()
	nc := bustest.Conn(t, srv)
	var s hivebeat.Subjects
	for _, verb := range verbs {
		for subject, group := range map[string]string{s.API(verb): "q", s.Ask("", verb, id): id} {
			if _, err := nc.QueueSubscribe(subject, group, func(m *nats.Msg) {
				q := &fakeQueen{workers: workers, asked: map[string]int{}}
				a, _ := q.answer(verb, m.Data)
				a.Status.Queen, a.Status.Unsure = id, nil
				b, _ := json.Marshal(a)
				_ = m.Respond(b)
			}); err != nil {
				t.Fatal(err)
			}
		}
	}
	bustest.Flush(t, nc)
	return nc.Close
}

type listed struct {
	Workers []api.WorkerInfo
	Summary api.Summary
	Status  api.Status
}

func runListed(t *testing.T, args ...string) (doc listed) {
	t.Helper()
	code, out, errs := run(t, nil, append(args, "-o", "json")...)
	if err := json.Unmarshal([]byte(out), &doc); err != nil || code != ExitDone || errs != "" {
		t.Fatalf("exit code %d, %v, %s", code, err, errs)
	}
	return doc
}

// Three queens know different fleets, because two have just started, and NATS sends a request
// to any of them. The rows of a list, on all its pages, and the summary still come from one.
func TestAViewIsOfOneQueen(t *testing.T) {
	srv := bustest.Server(t, bustest.NoJetStream())
	known := map[string]int{"q1": 2*pageSize + 4, "q2": 1, "q3": 7}
	for id, n := range known {
		oneOf(t, srv, id, n, api.VerbHives, api.VerbHive, api.VerbWorkers, api.VerbSummary)
	}
	for range 10 { // the chance that all come from one queen is 1 in 9
		doc := runListed(t, "ls", "--nats", srv.URL())
		if n := known[doc.Status.Queen]; len(doc.Workers) != n || doc.Summary.Workers[hivebeat.Alive] != n || len(doc.Status.Unsure) != 0 {
			t.Errorf("%d rows over %d workers, %q of %s", len(doc.Workers), doc.Summary.Workers[hivebeat.Alive], doc.Status.Unsure, doc.Status.Queen)
		}
		doc = runListed(t, "get", "h", "--nats", srv.URL())
		if n := known[doc.Status.Queen]; len(doc.Workers) != n || len(doc.Status.Unsure) != 0 {
			t.Errorf("get: %d rows, %q of %s", len(doc.Workers), doc.Status.Unsure, doc.Status.Queen)
		}
	}
}

// If a queen leaves in the middle of a view, the view is not sure.
func TestAViewOfTwoQueensSaysSo(t *testing.T) {
	srv := bustest.Server(t, bustest.NoJetStream())
	oneOf(t, srv, "q1", 4, api.VerbHives, api.VerbHive)
	oneOf(t, srv, "q2", 4, api.VerbWorkers, api.VerbSummary)
	const why = "queen q1 did not answer, queen q2 did"
	for _, cmd := range [][]string{{"ls"}, {"get", "h"}} {
		if doc := runListed(t, append(cmd, "--nats", srv.URL())...); !slices.Equal(doc.Status.Unsure, []string{why}) {
			t.Errorf("%s: %q", cmd, doc.Status.Unsure)
		}
		code, out, errs := run(t, nil, append(cmd, "--nats", srv.URL())...)
		if code != ExitDone || errs != "" || !strings.Contains(out, "not sure: "+why) {
			t.Errorf("%s: exit code %d, %s%s", cmd, code, out, errs)
		}
	}
}

// A view that continues with another queen says so.
func TestWatchSaysWhoseViewItIs(t *testing.T) {
	srv := bustest.Server(t, bustest.NoJetStream())
	verbs := []string{api.VerbHives, api.VerbWorkers, api.VerbSummary}
	leave := oneOf(t, srv, "q1", 4, verbs...)
	term, stop := startWatch(t, srv.URL())
	defer func() { _ = stop() }()
	awaitScreen(t, term, `(?s)queen q1 .*4 workers: 4 alive · sure`)
	oneOf(t, srv, "q2", 7, verbs...)
	leave()
	awaitScreen(t, term, `(?s)queen q2 .*7 workers: 7 alive · not sure: queen q1 did not answer, queen q2 did`)
	awaitScreen(t, term, `(?s)queen q2 .*7 workers: 7 alive · sure`)
	if err := stop(); err != nil {
		t.Error(err)
	}
}
