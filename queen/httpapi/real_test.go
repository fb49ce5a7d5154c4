package httpapi

import (
	"bufio"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/beatfabric/hivebeat"
	"github.com/beatfabric/hivebeat/internal/bustest"
	"github.com/beatfabric/hivebeat/internal/wire"
	"github.com/beatfabric/hivebeat/queen"
	"github.com/beatfabric/hivebeat/queen/api"
)

const patience = 30 * time.Second

// realQueen runs a queen that has heard one hive with a worker and a GPU, until the
// test ends.
func realQueen(t *testing.T) (*queen.Queen, *nats.Conn) {
	t.Helper()
	srv := bustest.Server(t)
	nc := bustest.Conn(t, srv)
	q, err := queen.New(nc, queen.Config{ID: "q1"})
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- q.Run(context.Background()) }()
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		if err := q.Stop(ctx); err != nil {
			t.Error(err)
		}
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	bustest.Eventually(t, patience, func() (bool, string) {
		send(t, nc, 1, hivebeat.Busy)
		a := q.Answer(t.Context(), api.VerbWorkers, api.Request{})
		return a.Status.Warm && a.Status.JetStream && len(a.Workers) == 1, "it has not heard the hive"
	})
	return q, nc
}

// send publishes snapshot seq of the hive, with its worker in the given state.
func send(t *testing.T, nc *nats.Conn, seq uint64, state hivebeat.State) {
	t.Helper()
	const gpu = "GPU-5f1a2b3c-0d4e-5f60-7182-93a4b5c6d7e8"
	s := hivebeat.Snapshot{
		V: 1, Hive: "gpu-01", Inc: 1795435200000000, Every: 3_600_000, Seq: seq, Warm: true, Pages: 1,
		Labels: map[string]string{"zone": "eu"}, Collect: map[string]string{"host": "ok", "gpu": "ok"},
		Host: hivebeat.Host{Name: "gpu-01", OS: "linux", CPUs: 64, Load1: 3.25, CPU: 12, MemTotal: 512 << 30, MemUsed: 99 << 30, Uptime: 86400},
		GPUs: []hivebeat.GPU{{UUID: gpu, Name: "H100", Total: 80 << 30, Used: 30 << 30, Ours: 20 << 30, Util: 88, Temp: 61, Power: 612000}},
		Workers: []hivebeat.Record{{
			Worker: "llama", Live: hivebeat.Alive, N: 1, Age: 10, Since: 20, Proc: hivebeat.Proc{RSS: 1 << 30, CPU: 101.5},
			Tr: []hivebeat.Transition{{N: 1, Kind: hivebeat.KindJoined, To: "alive", Inc: 7, Ago: 20}},
			Facts: hivebeat.Facts{
				Inc: 7, Every: 3_600_000, Seq: 10 + seq, State: state, Model: "llama-3.3-70b", Endpoint: "http://10.0.0.1:8000/v1", GPUs: []string{gpu},
				Slots: 4, Busy: 1, VRAM: 20 << 30, Labels: map[string]string{"tier": "prod"}, Data: []byte{0, 255, 1}, Done: 12,
			},
		}},
	}
	b, err := wire.EncodeSnapshot(&s)
	if err != nil {
		t.Fatal(err)
	}
	if err := nc.Publish(hivebeat.Subjects{}.Hives(), b); err != nil {
		t.Fatal(err)
	}
}

// The answers of a real queen over HTTP match their description, and equal those in the
// process.
func TestRealAnswersAreAsDescribed(t *testing.T) {
	q, _ := realQueen(t)
	_, base := serve(t, q, Config{})
	d := described(t)
	const body = "Content-Type: application/json"
	for _, c := range []struct {
		method, route, path, body string
		has                       string // key of the answer
	}{
		{"GET", "/v1/summary", "/v1/summary", "", "summary"},
		{"GET", "/v1/hives", "/v1/hives", "", "hives"},
		{"GET", "/v1/hives", "/v1/hives?limit=1", "", "hives"},
		{"GET", "/v1/hives/{hive}", "/v1/hives/gpu-01", "", "hives"},
		{"GET", "/v1/hives/{hive}", "/v1/hives/nobody", "", "error"},
		{"GET", "/v1/hives/{hive}", "/v1/hives/a.b", "", "error"},
		{"GET", "/v1/workers", "/v1/workers", "", "workers"},
		{"GET", "/v1/workers", "/v1/workers?limit=1001", "", "error"},
		{"GET", "/v1/hives/{hive}/workers", "/v1/hives/gpu-01/workers", "", "workers"},
		{"GET", "/v1/hives/{hive}/workers/{worker}", "/v1/hives/gpu-01/workers/llama", "", "workers"},
		{"GET", "/v1/events", "/v1/events", "", "events"},
		{"GET", "/v1/history", "/v1/history", "", "history"},
		{"GET", "/v1/history", "/v1/history?hive=gpu-01", "", "history"},
		{"GET", "/v1/pick", "/v1/pick?model=llama*", "", "picks"},
		{"GET", "/v1/pick", "/v1/pick?for=gpu&free_vram=1", "", "picks"},
		{"POST", "/v1/hold", "/v1/hold", `{"model":"llama*","hold":"job","hold_for":60000}`, "picks"},
		{"POST", "/v1/hold", "/v1/hold", `{"model":"llama*"}`, "error"},
		{"GET", "/v1/holds", "/v1/holds", "", "holds"},
		{"POST", "/v1/release", "/v1/release", `{"hold":"job"}`, "holds"},
		{"POST", "/v1/release", "/v1/release", `{"hold":"job"}`, "error"},
	} {
		a := ask(t, c.method, base+c.path, c.body, body)
		v, err := value(a.body)
		if err != nil {
			t.Errorf("%s %s: %d %s", c.method, c.path, a.code, a.body)
			continue
		}
		var got api.Answer
		if err := json.Unmarshal([]byte(a.body), &got); err != nil {
			t.Fatal(err)
		}
		schema := d.Paths[c.route][strings.ToLower(c.method)].Responses[strconv.Itoa(a.code)].Content["application/json"].Schema
		if schema == nil {
			t.Errorf("%s %s: status %d is not described: %s", c.method, c.path, a.code, a.body)
			continue
		}
		for _, wrong := range d.check(schema, v, c.path) {
			t.Error(wrong)
		}
		if _, ok := v.(map[string]any)[c.has]; !ok && c.has != "" {
			t.Errorf("%s %s: %d has no %s: %s", c.method, c.path, a.code, c.has, a.body)
		}
	}
	a := ask(t, "GET", base+"/v1/workers", "")
	var got api.Answer
	if err := json.Unmarshal([]byte(a.body), &got); err != nil || len(got.Workers) != 1 || got.Workers[0].VRAM != 20<<30 || string(got.Workers[0].Data) != "\x00\xff\x01" {
		t.Errorf("%v %s", err, a.body)
	}
}

// A real queen accepts every parameter of its routes.
func TestRealQueenTakesTheParameters(t *testing.T) {
	q, _ := realQueen(t)
	values := map[string]string{
		"hive": "gpu-01", "live": "alive", "state": "ready", "selector": "tier=prod", "kinds": "lost", "only": "hives", "sort": "id", "for": "worker", "spread": "zone",
		"model": "m", "zone": "eu", "text": "x", "stalled": "true", "hold_for": "1000", "worker": "llama", "hold": "job",
	}
	for _, r := range verbRoutes() {
		for _, key := range r.keys {
			value := cmp.Or(values[key], "1")
			if key == "after" {
				continue // the form of a cursor is known only to the queen
			}
			query := key + "=" + value
			switch key {
			case "worker":
				query += "&hive=gpu-01"
			case "gpus":
				query += "&for=gpu"
			}
			var req api.Request
			if err := parseQuery(query, r.keys, &req); err != nil {
				t.Errorf("%s?%s: %v", r.path, query, err)
			}
			req.Hive, req.Worker = cmp.Or(req.Hive, pathValue(r, "hive", values)), cmp.Or(req.Worker, pathValue(r, "worker", values))
			a := q.Answer(t.Context(), r.verb, req)
			switch {
			case a.Error == nil || a.Error.Code == api.CodeNotFound:
			default:
				t.Errorf("%s?%s: %s: %s", r.path, query, a.Error.Code, a.Error.Message)
			}
		}
	}
}

func pathValue(r route, name string, values map[string]string) string {
	if strings.Contains(r.path, "{"+name+"}") {
		return values[name]
	}
	return ""
}

// A stream of a real queen sends everything, then the changes, and continues where its
// client was. Every event matches its description.
func TestRealStream(t *testing.T) {
	q, nc := realQueen(t)
	s, base := serve(t, q, Config{})
	d := described(t)
	open := func(query string, headers ...string) *watcher {
		ctx, cancel := context.WithCancel(t.Context())
		t.Cleanup(cancel)
		r, err := http.NewRequestWithContext(ctx, http.MethodGet, base+pathWatch+"?"+query, nil)
		if err != nil {
			t.Fatal(err)
		}
		for _, h := range headers {
			name, value, _ := strings.Cut(h, ": ")
			r.Header.Set(name, value)
		}
		tr := &http.Transport{}
		t.Cleanup(tr.CloseIdleConnections)
		w := &watcher{t: t, began: time.Now(), cancel: cancel}
		if w.reply, err = (&http.Client{Transport: tr}).Do(r); err != nil { //nolint:bodyclose // it is, with the test
			t.Fatal(err)
		}
		if w.reply.StatusCode != http.StatusOK {
			t.Fatalf("%d", w.reply.StatusCode)
		}
		t.Cleanup(func() { w.reply.Body.Close() })
		w.lines = bufio.NewScanner(w.reply.Body)
		w.lines.Buffer(nil, 1<<20)
		return w
	}
	until := func(w *watcher, state hivebeat.State) (id string) {
		t.Helper()
		for {
			e := w.must()
			b, _ := json.Marshal(e.answer)
			v, err := value(string(b))
			if err != nil {
				t.Fatal(err)
			}
			for _, wrong := range d.check(d.Components.Schemas["Answer"], v, "answer") {
				t.Error(wrong)
			}
			if e.id == "" || e.id != e.answer.Next {
				t.Errorf("id %q, next %q", e.id, e.answer.Next)
			}
			for _, k := range e.answer.Workers {
				if k.State == state {
					return e.id
				}
			}
		}
	}
	w := open("only=hives,workers")
	until(w, hivebeat.Busy)
	send(t, nc, 2, hivebeat.Degraded)
	id := until(w, hivebeat.Degraded)
	w.cancel()
	send(t, nc, 3, hivebeat.Draining)
	w = open("only=hives,workers", "Last-Event-ID: "+id)
	until(w, hivebeat.Draining)
	w = open("only=workers&model=other*")
	if e := w.must(); len(e.answer.Workers) != 0 || e.answer.Hives != nil {
		t.Errorf("%+v", e.answer)
	}
	w = open("after=another.17")
	if e := w.must(); e.answer.Resync == "" {
		t.Errorf("%+v", e.answer)
	}
	bustest.Eventually(t, patience, func() (bool, string) {
		st := s.Stats()
		return st.Resyncs == 1, fmt.Sprintf("%+v", st)
	})
}

// A queen that ends is not ready, and its streams say so or end.
func TestRealQueenThatEnds(t *testing.T) {
	q, nc := realQueen(t)
	_, base := serve(t, q, Config{Ready: func() []string {
		if nc.IsConnected() {
			return nil
		}
		return []string{"cut off"}
	}})
	if a := ask(t, "GET", base+"/readyz", ""); a.code != http.StatusOK {
		t.Errorf("%d %s", a.code, a.body)
	}
	if err := q.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	if a := ask(t, "GET", base+"/readyz", ""); a.code != http.StatusServiceUnavailable || !strings.Contains(a.body, `"ready":false`) {
		t.Errorf("%d %s", a.code, a.body)
	}
	for _, path := range []string{"/v1/summary", "/v1/watch"} {
		if a := ask(t, "GET", base+path, ""); a.code != http.StatusServiceUnavailable || !strings.Contains(a.body, api.CodeUnavailable) {
			t.Errorf("%s: %d %s", path, a.code, a.body)
		}
	}
	if a := ask(t, "GET", base+"/healthz", ""); a.code != http.StatusOK {
		t.Errorf("%d %s", a.code, a.body)
	}
}

// The curl commands in docs/HTTP.md do what the text says.
func TestCurlLinesOfTheDocs(t *testing.T) {
	if _, err := exec.LookPath("curl"); err != nil {
		t.Skip("there is no curl")
	}
	doc, err := os.Open("../../docs/HTTP.md")
	if err != nil {
		t.Fatal(err)
	}
	defer doc.Close()
	f := newFake()
	f.touch("gpu-01")
	_, base := serve(t, f, Config{})
	asks := regexp.MustCompile(`^curl .*\$HIVEBEAT`)
	ran := 0
	for lines := bufio.NewScanner(doc); lines.Scan(); {
		line := lines.Text()
		if !asks.MatchString(line) {
			continue
		}
		ran++
		cmd := exec.CommandContext(t.Context(), "sh", "-c", line)
		cmd.Env = append(os.Environ(), "HIVEBEAT="+base)
		out, err := cmd.Output()
		stream := strings.Contains(line, "/watch")
		if err != nil && !(stream && cmd.ProcessState.ExitCode() == 28) { // 28: its own timeout expired
			t.Errorf("%s: %v", line, err)
		}
		text := string(out)
		switch {
		case stream && !strings.Contains(text, "\nid: fake.1\nevent: changes\ndata: {\"status\":"):
			t.Errorf("%s: %s", line, text)
		case stream:
		case !json.Valid(out) || strings.Contains(text, `"error"`):
			t.Errorf("%s: %s", line, text)
		}
	}
	if ran < 5 {
		t.Errorf("%d lines ran", ran)
	}
}
