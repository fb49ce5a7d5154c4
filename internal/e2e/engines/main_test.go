//go:build e2e

// Package engines plays what happens to inference engines that know nothing of hivebeat: found by
// a hive, watched by a sidecar, killed, stopped, failing and upgraded. The engines are processes
// that answer as the real ones do (package enginetest).
package engines

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/beatfabric/hivebeat"
	"github.com/beatfabric/hivebeat/internal/e2e/rig"
	"github.com/beatfabric/hivebeat/queen/api"
)

func TestMain(m *testing.M) {
	flag.Parse()
	if err := flag.Set("test.parallel", "64"); err != nil { // rows wait, and compute little
		panic(err)
	}
	rig.Main(m)
}

// moment is how long anything may take that needs a look of discovery, 10 s apart, or a few
// readings, 5 s apart. It is generous, because all rows run at once.
const moment = 60 * time.Second

const hive = "gpu-01"

// programs are the fake engines, under the names that real ones have.
var programs = map[string]string{"vllm": "vllm", "llamacpp": "llama-server", "ollama": "ollama"}

// machine is one with engines, on which "hivebeat up --discover" runs.
type machine struct {
	t      testing.TB
	bin    string // folder of the engines
	url    string
	up     *rig.Proc
	nc     *nats.Conn
	events *rig.Events
}

// build makes the fake engines.
func build(tb testing.TB) (dir string) {
	tb.Helper()
	dir = tb.TempDir()
	engine := filepath.Join(dir, "fakeengine")
	cmd := exec.Command("go", "build", "-o", engine, "./internal/probe/enginetest/fakeengine")
	cmd.Dir = rig.Root()
	if b, err := cmd.CombinedOutput(); err != nil {
		tb.Fatalf("go build: %v\n%s", err, b)
	}
	for _, name := range programs {
		if err := os.Symlink(engine, filepath.Join(dir, name)); err != nil {
			tb.Fatal(err)
		}
	}
	return dir
}

// start starts NATS, a queen and a hive in one process, which looks for engines or does not.
func (m *machine) start(flags ...string) {
	m.t.Helper()
	port := rig.Port(m.t)
	m.url = fmt.Sprintf("nats://127.0.0.1:%d", port)
	m.up = rig.Start(m.t, "up", nil, append([]string{
		rig.Hivebeat(m.t), "up", "--port", strconv.Itoa(port), "--http", "off", "--metrics", "off", "--store", m.t.TempDir(), "--id", hive,
	}, flags...)...)
	m.up.Said("hivebeat is up", moment)
	m.nc = rig.Connect(m.t, m.url)
	m.events = rig.Listen(m.t, m.nc)
}

// engine is one of the machine.
type engine struct {
	*rig.Proc
	m     *machine
	kind  string
	port  int
	model string
	id    string // of the worker that discovery makes of it
	args  []string
	env   []string
	side  *rig.Proc // the sidecar that watches it too
}

// begin starts an engine, and again on the same port.
func (e *engine) begin() {
	t := e.m.t
	t.Helper()
	args := []string{filepath.Join(e.m.bin, programs[e.kind]), "--kind", e.kind, "--port", strconv.Itoa(e.port), "--model", e.model, "--lifetime", "5m"}
	args = append(append(args, e.args...), "serve", "--max-num-seqs", "16") // the engine stops reading at serve
	e.Proc = rig.Start(t, e.kind+" "+e.model, e.env, args...)
	t.Cleanup(func() { // a stopped one does not hear anything else
		_ = e.signal(syscall.SIGKILL)
	})
}

func (e *engine) signal(s syscall.Signal) error { return syscall.Kill(e.PID(), s) }

// endChild ends the child that keeps the port.
func (e *engine) endChild() {
	if f := regexp.MustCompile(`(?m)^child (\d+)$`).FindStringSubmatch(e.Output()); f != nil {
		if pid, err := strconv.Atoi(f[1]); err == nil {
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
	}
}

// worker asks the queen for one worker.
func (m *machine) worker(id string) (api.WorkerInfo, error) {
	a, err := rig.Ask(m.nc, api.VerbWorkers, api.Request{Limit: 1000})
	if err != nil {
		return api.WorkerInfo{}, err
	}
	for _, w := range a.Workers {
		if w.Worker == id {
			return w, nil
		}
	}
	return api.WorkerInfo{}, fmt.Errorf("no worker %s", id)
}

// picks returns the workers that pick offers for a model.
func (m *machine) picks(model string) string {
	a, err := rig.Ask(m.nc, api.VerbPick, api.Request{Filter: api.Filter{Model: model}, N: 10})
	if err != nil {
		return err.Error()
	}
	var list []string
	for _, p := range a.Picks {
		list = append(list, p.Worker)
	}
	if list == nil {
		return "none"
	}
	return strings.Join(list, " ")
}

// want is what is said of a worker. An empty field is not checked.
type want struct {
	id     string // default: the engine's
	live   hivebeat.Live
	cause  hivebeat.Cause
	state  hivebeat.State
	reason string // a regular expression
	model  string // default: the engine's; "-" is any
	slots  uint64
	busy   uint64
	queue  uint64
	pick   string // the workers that pick offers for the model of the engine; "self" is its own, "none" is none
	also   func(*engine, *api.WorkerInfo) string
}

// look returns what of w does not hold now.
func (e *engine) look(w want) string {
	id := w.id
	if id == "" {
		id = e.id
	}
	got, err := e.m.worker(id)
	if err != nil && w.live != "" {
		return err.Error()
	}
	no := func(what string, got, want any) string {
		return fmt.Sprintf("%s: %s is %v, want %v", id, what, got, want)
	}
	switch {
	case w.live != "" && got.Live != w.live:
		return no("live", got.Live, w.live)
	case w.cause != "" && got.Cause != w.cause:
		return no("cause", got.Cause, w.cause)
	case w.state != "" && got.State != w.state:
		return no("state", string(got.State)+" ("+got.Reason+")", w.state)
	case w.reason != "" && !regexp.MustCompile(w.reason).MatchString(got.Reason):
		return no("reason", got.Reason, w.reason)
	case w.model != "" && w.model != "-" && got.Model != w.model:
		return no("model", got.Model, w.model)
	case w.slots != 0 && got.Slots != w.slots:
		return no("slots", got.Slots, w.slots)
	case w.busy != 0 && got.Busy != w.busy:
		return no("busy", got.Busy, w.busy)
	case w.queue != 0 && got.Queue != w.queue:
		return no("queue", got.Queue, w.queue)
	}
	if w.also != nil {
		if wrong := w.also(e, &got); wrong != "" {
			return wrong
		}
	}
	if w.pick != "" {
		wanted := strings.ReplaceAll(w.pick, "self", e.id)
		if p := e.m.picks(e.model); p != wanted {
			return no("pick of "+e.model, p, wanted)
		}
	}
	return ""
}
