package discover

import (
	"context"
	"log/slog"
	"net/netip"
	"net/url"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"go.uber.org/goleak"

	"github.com/beatfabric/hivebeat"
	"github.com/beatfabric/hivebeat/internal/bustest"
	"github.com/beatfabric/hivebeat/internal/life"
	"github.com/beatfabric/hivebeat/internal/probe"
	"github.com/beatfabric/hivebeat/internal/probe/enginetest"
	"github.com/beatfabric/hivebeat/internal/wire"
	"github.com/beatfabric/hivebeat/worker"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const patience = 20 * time.Second

// computer is a machine whose processes the test makes up. Its engines are real servers.
type computer struct {
	t     *testing.T
	mu    sync.Mutex
	procs map[uint64]Process
	ends  map[uint64]chan life.End
}

func newComputer(t *testing.T) *computer {
	return &computer{t: t, procs: map[uint64]Process{}, ends: map[uint64]chan life.End{}}
}

func (c *computer) begin(pid uint64, kind probe.Kind, command string) *enginetest.Engine {
	c.t.Helper()
	e := enginetest.New(c.t, kind)
	u, err := url.Parse(e.URL)
	if err != nil {
		c.t.Fatal(err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.procs[pid] = Process{PID: pid, Start: pid, Net: "host", Args: strings.Fields(command), Listen: []netip.AddrPort{netip.MustParseAddrPort(u.Host)}}
	c.ends[pid] = make(chan life.End, 1)
	return e
}

func (c *computer) kill(pid uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.procs, pid)
	c.ends[pid] <- life.End{How: "signal 9", Final: true}
}

func (c *computer) scan(context.Context) (*Scan, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := &Scan{Net: "host", Parents: map[uint64]uint64{uint64(os.Getpid()): 1}} // that of the sidecars of the test
	for pid, p := range c.procs {
		s.Procs = append(s.Procs, p)
		s.Parents[pid] = 1
	}
	return s, nil
}

// follow yields one process.
func (c *computer) follow(pid uint64) (life.Source, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return &source{life.Process{PID: pid, Ended: c.ends[pid]}, false}, nil
}

type source struct {
	p    life.Process
	over bool
}

func (s *source) Next(context.Context) (life.Process, error) {
	if s.over {
		return life.Process{}, life.ErrOver
	}
	s.over = true
	return s.p, nil
}

func (*source) Waiting() string { return "" }

// heard is the last beat of each worker.
type heard struct {
	t    *testing.T
	mu   sync.Mutex
	last map[string]hivebeat.Beat
}

func listen(t *testing.T, nc *nats.Conn) *heard {
	t.Helper()
	h := &heard{t: t, last: map[string]hivebeat.Beat{}}
	_, err := nc.Subscribe("hive.h.workers", func(m *nats.Msg) {
		b, err := wire.DecodeBeat(m.Data)
		if err != nil {
			t.Errorf("beat: %v", err)
			return
		}
		h.mu.Lock()
		defer h.mu.Unlock()
		h.last[b.Worker] = b
	})
	if err != nil {
		t.Fatal(err)
	}
	bustest.Flush(t, nc)
	return h
}

func (h *heard) until(id, what string, is func(hivebeat.Beat) bool) (b hivebeat.Beat) {
	h.t.Helper()
	bustest.Eventually(h.t, patience, func() (bool, string) {
		h.mu.Lock()
		defer h.mu.Unlock()
		b = h.last[id]
		return b.Worker != "" && is(b), id + " is not " + what
	})
	return b
}

func (h *heard) ids() (ids []string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for id, b := range h.last {
		if !b.State.Goodbye() && b.Exit == "" {
			ids = append(ids, id)
		}
	}
	slices.Sort(ids)
	return ids
}

func run(t *testing.T, nc *nats.Conn, c *computer, log *bustest.Log) *Discovery {
	t.Helper()
	d, err := New(nc, Config{Hive: "h", Every: 100 * time.Millisecond, Follow: c.follow, Logger: log.Logger(slog.LevelInfo), scan: c.scan})
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- d.Run(context.WithoutCancel(t.Context())) }()
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		if err := d.Stop(ctx); err != nil {
			t.Errorf("Stop: %v", err)
		}
		if err := <-ended; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	return d
}

func is(s hivebeat.State) func(hivebeat.Beat) bool {
	return func(b hivebeat.Beat) bool { return b.State == s }
}

func TestDiscovery(t *testing.T) {
	srv := bustest.Server(t, bustest.NoJetStream())
	h := listen(t, bustest.Conn(t, srv))
	c := newComputer(t)
	vllm := c.begin(7, probe.VLLM, "vllm serve --max-num-seqs 16")
	vllm.SetBusy(3)
	c.begin(8, probe.LlamaCPP, "llama-server")
	var log bustest.Log
	d := run(t, bustest.Conn(t, srv), c, &log)
	id := "vllm-" + vllm.URL[strings.LastIndexByte(vllm.URL, ':')+1:]
	b := h.until(id, "busy", is(hivebeat.Busy))
	if b.PID != 7 || b.Slots != 16 || b.Busy != 3 || b.Engine != "vllm" || b.Model == "" || b.Endpoint != vllm.URL {
		t.Errorf("pid %d, slots %d, busy %d, engine %q, model %q, endpoint %q", b.PID, b.Slots, b.Busy, b.Engine, b.Model, b.Endpoint)
	}
	bustest.Eventually(t, patience, func() (bool, string) { return len(h.ids()) == 2, strings.Join(h.ids(), " ") })
	if f := d.Findings(); len(f) != 2 || !f[0].Beats || f[1].ID != id || !strings.Contains(f[1].What, "its command is vllm serve") {
		t.Errorf("findings %+v", f)
	}

	// It is killed, and starts again.
	c.kill(7)
	if end := h.until(id, "ended", func(b hivebeat.Beat) bool { return b.Exit != "" }); end.Exit != "signal 9" {
		t.Errorf("exit %q", end.Exit)
	}
	vllm.Close()
	other := c.begin(17, probe.VLLM, "vllm serve")
	h.until("vllm-"+other.URL[strings.LastIndexByte(other.URL, ':')+1:], "ready", is(hivebeat.Ready))
	if n := strings.Count(log.String(), "msg=\"engine found\""); n != 3 {
		t.Errorf("the log says %d times that an engine was found:\n%s", n, log.String())
	}
}

// A sidecar that appears takes its engine over, and gives it back when it leaves.
func TestSidecarAndDiscovery(t *testing.T) {
	srv := bustest.Server(t, bustest.NoJetStream())
	h := listen(t, bustest.Conn(t, srv))
	c := newComputer(t)
	early, late := c.begin(7, probe.VLLM, "vllm serve"), c.begin(8, probe.LlamaCPP, "llama-server")
	sidecar := func(id, endpoint string) *worker.Worker {
		w, err := worker.New(bustest.Conn(t, srv), worker.Config{Hive: "h", ID: id, Model: "m", Endpoint: endpoint, Every: 30 * time.Second})
		if err != nil {
			t.Fatal(err)
		}
		go func() { _ = w.Run(context.WithoutCancel(t.Context())) }()
		t.Cleanup(func() { _ = w.Stop(context.Background()) })
		h.until(id, "ready", is(hivebeat.Ready))
		return w
	}
	first := sidecar("first", early.URL) // before discovery begins
	var log bustest.Log
	d := run(t, bustest.Conn(t, srv), c, &log)
	id := "llamacpp-" + late.URL[strings.LastIndexByte(late.URL, ':')+1:]
	h.until(id, "ready", is(hivebeat.Ready))
	if got := h.ids(); len(got) != 2 {
		t.Errorf("workers %q, want first and %s", got, id)
	}
	sidecar("second", late.URL)
	h.until(id, "stopped", is(hivebeat.Stopped))
	bustest.Eventually(t, patience, func() (bool, string) {
		f := d.Findings()
		said := ""
		for i := range f {
			said += f[i].What + "; "
		}
		return len(f) == 2 && strings.Contains(said, "worker first beats for") && strings.Contains(said, "worker second beats for"), said
	})
	if err := first.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	h.until("vllm-"+early.URL[strings.LastIndexByte(early.URL, ':')+1:], "ready", is(hivebeat.Ready))
}

// Look says what there is, and beats for nothing.
func TestLook(t *testing.T) {
	c := newComputer(t)
	c.begin(7, probe.LlamaCPP, "llama-server")
	c.begin(8, probe.VLLM, "vllm serve").Fail(500, "CUDA error")
	c.procs[9] = Process{PID: 9, Start: 9, Net: "host", Args: []string{"ollama", "serve"}}
	list, err := Look(t.Context(), Config{scan: c.scan})
	if err != nil || len(list) != 3 {
		t.Fatalf("%+v, %v", list, err)
	}
	for i, want := range []string{"llamacpp at http://127.0.0.1:", "does not answer as an engine yet: ", "listens on no port yet"} {
		if !strings.Contains(list[i].What, want) {
			t.Errorf("finding %d: %q, want %q", i, list[i].What, want)
		}
	}
}

func TestConfig(t *testing.T) {
	nc := bustest.Conn(t, bustest.Server(t, bustest.NoJetStream()))
	for _, tt := range []struct {
		cfg  Config
		want string
	}{
		{Config{}, "Config.Hive"},
		{Config{Hive: "a.b"}, "Config.Hive"},
		{Config{Hive: "h", Prefix: "a.b"}, "Config.Prefix"},
		{Config{Hive: "h", Every: time.Millisecond}, "Config.Every"},
	} {
		if _, err := New(nc, tt.cfg); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%+v: %v, want one that names %s", tt.cfg, err, tt.want)
		}
	}
}
