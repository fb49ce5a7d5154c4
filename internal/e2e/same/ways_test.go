//go:build e2e

package same

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/beatfabric/hivebeat"
	"github.com/beatfabric/hivebeat/internal/e2e/rig"
	"github.com/beatfabric/hivebeat/queen/api"
	"github.com/beatfabric/hivebeat/queen/client"
)

// question is one question, as each way asks it.
type question struct {
	name string
	verb string      // for the client, and for the nats CLI unless raw overrides it
	req  api.Request // for both as well
	raw  string      // JSON that req cannot express
	http string      // method and path: GET /v1/summary
	body string
	cli  []string // command; none if it has no such question
	exit int      // its exit code
	doc  []string // fields of its document that are the answer; the others are extra
}

// way asks a question and returns the answer, which may contain an error. It returns nil if
// it cannot ask the question.
type way struct {
	name string
	ask  func(t *testing.T, q *question) *api.Answer
}

// ways are the ways to ask one queen.
type ways struct {
	url    string // of NATS
	base   string // of HTTP
	nats   string // the CLI
	client *client.Client
}

func newWays(t *testing.T, nc *nats.Conn, url, base string) *ways {
	t.Helper()
	c, err := client.New(nc, client.Config{Timeout: moment})
	if err != nil {
		t.Fatal(err)
	}
	return &ways{url: url, base: base, nats: rig.Install(t, rig.NATSCLI), client: c}
}

func (w *ways) all() []way {
	return []way{{"client", w.byClient}, {"http", w.byHTTP}, {"cli", w.byCLI}, {"nats", w.byNATS}}
}

// strict reads JSON that contains no fields unknown to v.
func strict(b []byte, v any) error {
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		return fmt.Errorf("%w in %.300q", err, b)
	}
	if d.More() {
		return fmt.Errorf("more than one value in %.300q", b)
	}
	return nil
}

func (w *ways) byClient(t *testing.T, q *question) *api.Answer {
	t.Helper()
	if q.raw != "" {
		return nil // the client cannot express it
	}
	a, err := w.client.Ask(t.Context(), q.verb, q.req)
	if e, ok := errors.AsType[*client.Error](err); ok {
		if a == nil || a.Error == nil || e.Code != a.Error.Code || e.Unwrap() == nil {
			t.Errorf("the client's error is %v, the answer's %+v", err, a)
		}
		return a
	}
	if err != nil {
		t.Fatalf("client: %v", err)
	}
	return a
}

func (w *ways) byHTTP(t *testing.T, q *question) *api.Answer {
	t.Helper()
	if q.http == "" {
		return nil
	}
	method, path, _ := strings.Cut(q.http, " ")
	ctx, cancel := context.WithTimeout(t.Context(), moment)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, method, w.base+path, strings.NewReader(q.body))
	if err != nil {
		t.Fatal(err)
	}
	if q.body != "" {
		r.Header.Set("Content-Type", "application/json")
	}
	res, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	var a api.Answer
	if err := strict(b, &a); err != nil {
		t.Fatalf("%s: %v", q.http, err)
	}
	code := ""
	if a.Error != nil {
		code = a.Error.Code
	}
	if want := map[string]int{"": 200, api.CodeBadRequest: 400, api.CodeNotFound: 404, api.CodeUnavailable: 503}[code]; res.StatusCode != want {
		t.Errorf("%s: status %d with the code %q", q.http, res.StatusCode, code)
	}
	return &a
}

func (w *ways) byNATS(t *testing.T, q *question) *api.Answer {
	t.Helper()
	payload := []byte(q.raw)
	if q.raw == "" {
		var err error
		if payload, err = json.Marshal(q.req); err != nil {
			t.Fatal(err)
		}
	}
	var s hivebeat.Subjects
	out, errs, code := rig.Run(t, []string{"NATS_URL=" + w.url}, w.nats, "req", s.API(q.verb), string(payload), "--raw", "--timeout", moment.String())
	if code != 0 {
		t.Fatalf("nats req %s %s: exit code %d\n%s%s", s.API(q.verb), payload, code, out, errs)
	}
	var a api.Answer
	if err := strict([]byte(out), &a); err != nil {
		t.Fatalf("nats req %s %s: %v", s.API(q.verb), payload, err)
	}
	return &a
}

// document is the output of hivebeat with -o json.
type document struct {
	Hive     *api.HiveInfo    `json:"hive"`
	Hives    []api.HiveInfo   `json:"hives"`
	Worker   *api.WorkerInfo  `json:"worker"`
	Workers  []api.WorkerInfo `json:"workers"`
	Summary  *api.Summary     `json:"summary"`
	Events   []api.Happened   `json:"events"`
	Picks    []api.Pick       `json:"picks"`
	Passed   map[string]int   `json:"passed"`
	Released []api.Hold       `json:"released"`

	Directive *api.Directive `json:"directive"`

	Status api.Status `json:"status"`
}

func (w *ways) byCLI(t *testing.T, q *question) *api.Answer {
	t.Helper()
	if q.cli == nil {
		return nil
	}
	args := append([]string{q.cli[0], "-o", "json"}, q.cli[1:]...)
	out, errs, exit := rig.CLI(t, []string{"HIVEBEAT_NATS=" + w.url}, args...)
	if exit != q.exit {
		t.Fatalf("hivebeat %s: exit code %d, want %d\n%s%s", strings.Join(args, " "), exit, q.exit, out, errs)
	}
	if q.doc == nil {
		if out != "" || !strings.Contains(errs, "\nhint: ") {
			t.Errorf("hivebeat %s: printed %q, and %q", strings.Join(args, " "), out, errs)
		}
		return &api.Answer{Error: &api.Error{Code: codeOf(errs, exit), Message: errs}}
	}
	var d document
	if err := strict([]byte(out), &d); err != nil {
		t.Fatalf("hivebeat %s: %v", strings.Join(args, " "), err)
	}
	a := api.Answer{Status: d.Status}
	for _, key := range q.doc {
		switch key {
		case "hive":
			a.Hives = []api.HiveInfo{*d.Hive}
		case "hives":
			a.Hives = d.Hives
		case "worker":
			a.Workers = []api.WorkerInfo{*d.Worker}
		case "workers":
			a.Workers = d.Workers
		case "summary":
			a.Summary = d.Summary
		case "events":
			a.Events = d.Events
		case "picks":
			a.Picks, a.Passed = d.Picks, d.Passed
		case "directive":
			a.Directive = d.Directive
		case "released":
			a.Holds = d.Released
		}
	}
	return &a
}

// codeOf is the code that an error of the command stands for. If the command rejects a
// question before it asks, the code is that of a bad request.
func codeOf(stderr string, exit int) string {
	line, _, _ := strings.Cut(stderr, "\n")
	line = strings.TrimPrefix(line, "hivebeat: ")
	if exit == 2 {
		return api.CodeBadRequest
	}
	if strings.HasPrefix(line, "not found: ") {
		return api.CodeNotFound
	}
	if rest, ok := strings.CutPrefix(line, "the queen says "); ok {
		code, _, _ := strings.Cut(rest, ":")
		return code
	}
	return "none: " + line
}

const moment = 20 * time.Second
