package sidecar

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/nats-io/nats.go"
	"go.uber.org/goleak"

	"github.com/beatfabric/hivebeat"
	"github.com/beatfabric/hivebeat/internal/bustest"
	"github.com/beatfabric/hivebeat/internal/life"
	"github.com/beatfabric/hivebeat/internal/probe"
	"github.com/beatfabric/hivebeat/internal/wire"
	"github.com/beatfabric/hivebeat/worker"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// beats receives what workers of hive h send, by worker.
type beats struct {
	t  *testing.T
	ch chan *nats.Msg
	by map[string][]hivebeat.Beat
}

func listen(t *testing.T, nc *nats.Conn) *beats {
	b := &beats{t: t, ch: make(chan *nats.Msg, 1000), by: make(map[string][]hivebeat.Beat)}
	if _, err := nc.ChanSubscribe("hive.h.workers", b.ch); err != nil {
		t.Fatal(err)
	}
	bustest.Flush(t, nc)
	return b
}

// until waits for a beat of the worker that is as wanted, and returns it.
func (b *beats) until(worker, what string, is func(hivebeat.Beat) bool) hivebeat.Beat {
	b.t.Helper()
	for i, beat := range b.by[worker] {
		if is(beat) {
			b.by[worker] = b.by[worker][i+1:]
			return beat
		}
	}
	b.by[worker] = nil
	late := time.After(10 * time.Second)
	var last hivebeat.Beat
	for {
		select {
		case m := <-b.ch:
			beat, err := wire.DecodeBeat(m.Data)
			if err != nil {
				b.t.Fatal(err)
			}
			if beat.Worker != worker {
				b.by[beat.Worker] = append(b.by[beat.Worker], beat)
				continue
			}
			if last = beat; is(beat) {
				return beat
			}
		case <-late:
			b.t.Fatalf("no beat of %s that is %s; the last one: %+v", worker, what, last)
		}
	}
}

// fakeSource yields what the test sends.
type fakeSource struct{ next chan life.Process }

func (s fakeSource) Next(ctx context.Context) (life.Process, error) {
	select {
	case p, ok := <-s.next:
		if !ok {
			return p, life.ErrOver
		}
		return p, nil
	case <-ctx.Done():
		return life.Process{}, ctx.Err()
	}
}

func (fakeSource) Waiting() string { return "no process yet" }

// ollama is a server that has some models loaded.
type ollama struct {
	*httptest.Server
	mu     sync.Mutex
	loaded []string
	fails  bool
}

func newOllama(t *testing.T, loaded ...string) *ollama {
	o := &ollama{loaded: loaded}
	list := func(names []string) string {
		s := ""
		for _, n := range names {
			s += fmt.Sprintf(`,{"name":%q,"model":%q,"size_vram":5000000000,"context_length":4096}`, n, n)
		}
		return `{"models":[` + s[min(1, len(s)):] + `]}`
	}
	o.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		o.mu.Lock()
		defer o.mu.Unlock()
		switch {
		case o.fails:
			http.Error(w, "CUDA error: device lost", http.StatusInternalServerError)
		case r.URL.Path == "/api/version":
			fmt.Fprint(w, `{"version":"0.12.0"}`)
		case r.URL.Path == "/api/ps":
			fmt.Fprint(w, list(o.loaded))
		case r.URL.Path == "/api/tags":
			fmt.Fprint(w, list([]string{"llama3.2:3b", "qwen3:8b", "gemma3:27b"}))
		case r.URL.Path == "/":
			fmt.Fprint(w, "Ollama is running")
		default:
			http.NotFound(w, r)
		}
	}))
	t.Cleanup(o.Close)
	return o
}

func (o *ollama) set(fails bool, loaded ...string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.fails, o.loaded = fails, loaded
}

func begin(t *testing.T, cfg Config) *Engine {
	srv := bustest.Server(t)
	return beginOn(t, bustest.Conn(t, srv), cfg)
}

func beginOn(t *testing.T, nc *nats.Conn, cfg Config) *Engine {
	cfg.Worker.Hive = "h"
	e, err := New(nc, cfg)
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- e.Run(context.WithoutCancel(t.Context())) }()
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		if err := e.Stop(ctx); err != nil {
			t.Errorf("Stop: %v", err)
		}
		if err := <-ended; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	return e
}

func TestModelsOfOneEngine(t *testing.T) {
	nc := bustest.Conn(t, bustest.Server(t))
	b := listen(t, nc)
	o := newOllama(t, "llama3.2:3b")
	beginOn(t, nc, Config{
		Worker: worker.Config{ID: "ollama"},
		Probe:  &probe.Config{Kind: probe.Ollama, URL: o.URL, Every: 100 * time.Millisecond},
	})
	base := b.until("ollama", "ready", func(f hivebeat.Beat) bool { return f.State == hivebeat.Ready })
	if base.Model != "" || base.Engine != "ollama" || base.Ver != "0.12.0" || !slices.Equal(base.Cold, []string{"qwen3:8b", "gemma3:27b"}) || base.Endpoint != o.URL || base.Probed == 0 {
		t.Errorf("the engine: model %q, engine %q %q, cold %q, endpoint %q, probed %d", base.Model, base.Engine, base.Ver, base.Cold, base.Endpoint, base.Probed)
	}
	llama := b.until("ollama-llama3-2-3b", "known", func(f hivebeat.Beat) bool { return f.Ctx > 0 })
	if llama.Model != "llama3.2:3b" || llama.State != hivebeat.Ready || llama.VRAM != 5_000_000_000 || llama.Ctx != 4096 {
		t.Errorf("its model: %q %s, vram %d, ctx %d", llama.Model, llama.State, llama.VRAM, llama.Ctx)
	}
	o.set(false, "qwen3:8b")
	b.until("ollama-qwen3-8b", "loaded", func(f hivebeat.Beat) bool { return f.Model == "qwen3:8b" })
	b.until("ollama-llama3-2-3b", "a goodbye", func(f hivebeat.Beat) bool { return f.State == hivebeat.Stopped })

	o.set(true)
	bad := b.until("ollama", "degraded", func(f hivebeat.Beat) bool { return f.State == hivebeat.Degraded })
	if bad.Reason != "500: CUDA error: device lost" {
		t.Errorf("reason %q", bad.Reason)
	}
	b.until("ollama-qwen3-8b", "degraded as well", func(f hivebeat.Beat) bool { return f.State == hivebeat.Degraded })
}

func TestLives(t *testing.T) {
	nc := bustest.Conn(t, bustest.Server(t))
	b := listen(t, nc)
	src := fakeSource{make(chan life.Process)}
	e := beginOn(t, nc, Config{Worker: worker.Config{ID: "w", Model: "m", State: hivebeat.Ready}, Source: src})
	wait := b.until("w", "waiting", func(f hivebeat.Beat) bool { return f.State == hivebeat.Starting })
	if wait.Reason != "no process yet" {
		t.Errorf("reason %q", wait.Reason)
	}
	ended := make(chan life.End, 1)
	src.next <- life.Process{PID: 4711, Ended: ended}
	up := b.until("w", "ready", func(f hivebeat.Beat) bool { return f.State == hivebeat.Ready && f.PID == 4711 })
	if up.Inc != wait.Inc {
		t.Errorf("the first process is another incarnation than the wait for it: %d and %d", up.Inc, wait.Inc)
	}
	ended <- life.End{How: "code 3", Reason: "boom; starts again in 1s"}
	last := b.until("w", "the last", func(f hivebeat.Beat) bool { return f.Exit != "" })
	if last.Exit != "code 3" || last.Reason != "boom; starts again in 1s" || last.Inc != up.Inc {
		t.Errorf("exit %q, reason %q, inc %d, want that of inc %d", last.Exit, last.Reason, last.Inc, up.Inc)
	}
	src.next <- life.Process{PID: 4712, Ended: ended}
	next := b.until("w", "ready again", func(f hivebeat.Beat) bool { return f.State == hivebeat.Ready && f.PID == 4712 })
	if next.Inc <= up.Inc || next.Exit != "" {
		t.Errorf("inc %d, exit %q: want a higher incarnation than %d, and no exit", next.Inc, next.Exit, up.Inc)
	}
	ended <- life.End{How: "code 3", Reason: "given up", Final: true, GivenUp: true}
	b.until("w", "failed", func(f hivebeat.Beat) bool { return f.State == hivebeat.Failed && f.Reason == "given up" })
	select {
	case <-e.ended:
	case <-time.After(10 * time.Second):
		t.Fatal("Run does not end after the last process")
	}
	if got := e.Last(); got.Reason != "given up" {
		t.Errorf("last end %+v", got)
	}
}

// A worker that is stopped while its next process is awaited says goodbye: its last beat said that
// the process starts again.
func TestStoppedBetweenTwoLives(t *testing.T) {
	nc := bustest.Conn(t, bustest.Server(t))
	b := listen(t, nc)
	src := fakeSource{make(chan life.Process)}
	e := beginOn(t, nc, Config{Worker: worker.Config{ID: "w"}, Source: src})
	ended := make(chan life.End, 1)
	src.next <- life.Process{PID: 4711, Ended: ended}
	ended <- life.End{How: "code 3", Reason: "starts again in 9s"}
	last := b.until("w", "the last", func(f hivebeat.Beat) bool { return f.Exit != "" })
	if err := e.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	bye := b.until("w", "a goodbye", func(f hivebeat.Beat) bool { return f.State == hivebeat.Stopped })
	if bye.Inc <= last.Inc || bye.Reason == "" {
		t.Errorf("goodbye of inc %d with reason %q, want a higher one than %d, and a reason", bye.Inc, bye.Reason, last.Inc)
	}
}

// An engine that cannot be reached at first is starting; the sidecar stops in order.
func TestNobodyListens(t *testing.T) {
	nc := bustest.Conn(t, bustest.Server(t))
	b := listen(t, nc)
	dead := httptest.NewServer(http.NotFoundHandler())
	url := dead.URL
	dead.Close()
	e := begin(t, Config{Worker: worker.Config{ID: "other"}, Probe: &probe.Config{Kind: probe.VLLM, URL: url}}) // on another server: only its shutdown is of interest
	_ = e
	w := beginOn(t, nc, Config{Worker: worker.Config{ID: "w", Slots: 4}, Probe: &probe.Config{Kind: probe.VLLM, URL: url, Every: 100 * time.Millisecond}})
	b.until("w", "starting", func(f hivebeat.Beat) bool { return f.State == hivebeat.Starting && f.Reason != "" && f.Slots == 4 })
	if err := w.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	b.until("w", "stopped", func(f hivebeat.Beat) bool { return f.State == hivebeat.Stopped })
}

// The process of an engine in another container cannot be found: it is beaten for as its answers
// show it, and with its process once that is found.
func TestProcessThatCannotBeFound(t *testing.T) {
	nc := bustest.Conn(t, bustest.Server(t))
	b := listen(t, nc)
	o := newOllama(t, "llama3.2:3b")
	src := fakeSource{make(chan life.Process)}
	beginOn(t, nc, Config{
		Worker: worker.Config{ID: "w"}, Source: src, Guessed: true,
		Probe: &probe.Config{Kind: probe.Ollama, URL: o.URL, Every: 100 * time.Millisecond},
	})
	up := b.until("w", "ready", func(f hivebeat.Beat) bool { return f.State == hivebeat.Ready })
	if up.PID == 4711 {
		t.Errorf("pid %d before a process was found", up.PID)
	}
	o.set(true)
	b.until("w", "degraded", func(f hivebeat.Beat) bool { return f.State == hivebeat.Degraded })
	o.set(false)
	src.next <- life.Process{PID: 4711, Ended: make(chan life.End)}
	if is := b.until("w", "with its process", func(f hivebeat.Beat) bool { return f.PID == 4711 && f.State == hivebeat.Ready }); is.Inc != up.Inc {
		t.Errorf("another incarnation, %d and %d, once its process is found", up.Inc, is.Inc)
	}
}

// A version that is too long for a beat is cut between two characters: otherwise no fact of the
// engine would arrive.
func TestLongVersion(t *testing.T) {
	g := &group{Engine: &Engine{}}
	r := probe.Report{Reading: probe.Reading{Engine: "vllm", Version: "x" + strings.Repeat("é", 40)}}
	if f := g.facts(&r); !utf8.ValidString(f.Version) || len(f.Version) > hivebeat.MaxEngine || f.Version == "" {
		t.Errorf("version %q of %d bytes", f.Version, len(f.Version))
	}
}

func TestModelIDs(t *testing.T) {
	g := &group{Engine: &Engine{cfg: Config{Worker: worker.Config{ID: "ollama"}}}, models: map[string]*member{}}
	for _, c := range []struct{ model, want string }{
		{"llama3.2:3b", "ollama-llama3-2-3b"},
		{"llama3-2:3b", "ollama-llama3-2-3b-c90c7fb3"},
		{"hf.co/unsloth/Qwen3-Coder-480B-A35B-Instruct-1M-GGUF:UD-Q4_K_XL", "ollama-hf-co-unsloth-Qwen3-Coder-480B-A35B-Instruct-1M-"},
	} {
		id := g.modelID(c.model)
		if !hivebeat.ValidID(id) || id[:min(len(id), len(c.want))] != c.want[:min(len(id), len(c.want))] {
			t.Errorf("%s: id %q, want %q", c.model, id, c.want)
		}
		g.models[c.model] = &member{id: id}
	}
}
