//go:build e2e

package engines

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/beatfabric/hivebeat"
	"github.com/beatfabric/hivebeat/internal/e2e/rig"
	"github.com/beatfabric/hivebeat/queen/api"
)

// row is an engine, and what happens to it.
type row struct {
	name  string
	kind  string
	args  []string // of the fake engine
	env   []string
	first want // soon after the hive began
	steps []step
}

// step is a part of a scene: what is done, and what is said once that is seen.
type step struct {
	name string
	do   func(*engine)
	want []want // one after the other
}

var (
	kill  = func(e *engine) { e.Kill() }
	start = func(e *engine) { e.begin() }
	hup   = func(e *engine) { e.Signal(syscall.SIGHUP) } // it fails with 500, or works again
	stop  = func(e *engine) { e.Signal(syscall.SIGSTOP) }
	cont  = func(e *engine) { e.Signal(syscall.SIGCONT) }
)

// scenes is what happens to engines on a machine where "hivebeat up --discover" runs, and what the
// queen says. Nothing else is configured.
var scenes = []row{
	{
		name: "vLLM under load", kind: "vllm", args: []string{"--busy", "2", "--queue", "1"},
		first: want{live: hivebeat.Alive, state: hivebeat.Busy, slots: 16, busy: 2, queue: 1, pick: "self", also: ofEngine("vllm")},
	},
	{
		name: "llama.cpp says how many slots it has", kind: "llamacpp", args: []string{"--slots", "3"},
		first: want{live: hivebeat.Alive, state: hivebeat.Ready, slots: 3, pick: "self", also: ofEngine("llamacpp")},
	},
	{
		name: "Ollama: a worker for each loaded model", kind: "ollama", env: []string{"OLLAMA_NUM_PARALLEL=4"},
		first: want{live: hivebeat.Alive, state: hivebeat.Ready, also: ofEngine("ollama")},
		steps: []step{{name: "the model is a worker of its own", want: []want{
			{id: "self-ollama-llama", live: hivebeat.Alive, slots: 4, pick: "self-ollama-llama"},
		}}},
	},
	{
		name: "killed, and started again", kind: "vllm",
		first: want{live: hivebeat.Alive, state: hivebeat.Ready, pick: "self"},
		steps: []step{
			{name: "kill -9", do: kill, want: []want{{live: hivebeat.Lost, cause: hivebeat.CauseExit, pick: "none"}}},
			{name: "start", do: start, want: []want{{live: hivebeat.Alive, state: hivebeat.Ready, pick: "self"}}},
		},
	},
	{
		name: "answers 500 to everything, and works again", kind: "vllm",
		first: want{live: hivebeat.Alive, state: hivebeat.Ready, pick: "self"},
		steps: []step{
			{name: "500", do: hup, want: []want{{live: hivebeat.Alive, state: hivebeat.Degraded, reason: "500", pick: "none"}}},
			{name: "200", do: hup, want: []want{{live: hivebeat.Alive, state: hivebeat.Ready, pick: "self"}}},
		},
	},
	{
		name: "hangs under load: it is alive, and no longer picked", kind: "vllm", args: []string{"--busy", "2"},
		first: want{live: hivebeat.Alive, state: hivebeat.Busy, pick: "self"},
		steps: []step{
			{name: "SIGSTOP", do: stop, want: []want{{live: hivebeat.Alive, state: hivebeat.Degraded, reason: "no answer|timeout|time", pick: "none"}}},
			{name: "SIGCONT", do: cont, want: []want{{live: hivebeat.Alive, state: hivebeat.Busy, pick: "self"}}},
		},
	},
	{
		name: "its parent dies, and a child keeps the port", kind: "vllm", args: []string{"--child"},
		first: want{live: hivebeat.Alive, state: hivebeat.Ready, pick: "self"},
		steps: []step{{name: "kill -9 of the parent", do: kill, want: []want{
			{live: hivebeat.Lost, cause: hivebeat.CauseExit},
			{live: hivebeat.Alive, state: hivebeat.Ready, pick: "self", also: func(e *engine, w *api.WorkerInfo) string {
				if w.PID == uint64(e.PID()) {
					return "its pid is that of the parent"
				}
				return ""
			}},
		}}},
	},
	{
		name: "loads, and says so", kind: "llamacpp", args: []string{"--load-for", "12s"},
		first: want{live: hivebeat.Alive, state: hivebeat.Loading, model: "-", pick: "none"},
		steps: []step{{name: "loaded", want: []want{{live: hivebeat.Alive, state: hivebeat.Ready, pick: "self"}}}},
	},
	{
		name: "loads, and does not listen before it is done", kind: "vllm", args: []string{"--load-for", "12s"},
		steps: []step{{name: "loaded", want: []want{{live: hivebeat.Alive, state: hivebeat.Ready, pick: "self"}}}},
	},
	{
		name: "a sidecar watches it too: one record", kind: "vllm",
		first: want{live: hivebeat.Alive, state: hivebeat.Ready, pick: "self"},
		steps: []step{
			{name: "the sidecar begins", do: (*engine).sidecar, want: []want{
				{id: "mine-self", live: hivebeat.Alive, state: hivebeat.Ready},
				{live: hivebeat.Left, pick: "mine-self"},
			}},
			{name: "the sidecar leaves", do: func(e *engine) { e.side.Interrupt() }, want: []want{
				{id: "mine-self", live: hivebeat.Left},
				{live: hivebeat.Alive, state: hivebeat.Ready, pick: "self"},
			}},
		},
	},
	{
		name: "wants credentials, which discovery has not", kind: "llamacpp", args: []string{"--token", "0123456789abcdef"},
		first: want{live: hivebeat.Alive, state: hivebeat.Degraded, model: "-", reason: "credentials refused", pick: "none"},
	},
	{
		name: "wants credentials, but not for its metrics", kind: "vllm", args: []string{"--token", "0123456789abcdef"},
		first: want{live: hivebeat.Alive, state: hivebeat.Ready, pick: "self"},
	},
}

// ofEngine checks which engine the worker says that it is, and where.
func ofEngine(kind string) func(*engine, *api.WorkerInfo) string {
	return func(e *engine, w *api.WorkerInfo) string {
		endpoint := fmt.Sprintf("http://127.0.0.1:%d", e.port)
		if w.Engine != kind || w.Ver == "" || w.Endpoint != endpoint || w.PID != uint64(e.PID()) {
			return fmt.Sprintf("engine %q %q at %s, pid %d; want %s at %s, pid %d", w.Engine, w.Ver, w.Endpoint, w.PID, kind, endpoint, e.PID())
		}
		return ""
	}
}

// sidecar starts one for this engine, under another id.
func (e *engine) sidecar() {
	t := e.m.t
	file := filepath.Join(t.TempDir(), "engines.yaml")
	text := fmt.Sprintf("engines:\n  - id: mine-%s\n    probe: {url: 'http://127.0.0.1:%d'}\n    attach: {port: %d}\n", e.id, e.port, e.port)
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	e.side = rig.Start(t, "sidecar", []string{"HIVEBEAT_NATS=" + e.m.url}, rig.Hivebeat(t), "sidecar", "--hive", hive, "--config", file)
}

func TestScenes(t *testing.T) {
	t.Parallel()
	m := &machine{t: t, bin: build(t)}
	rig.Hivebeat(t)
	all := make([]*engine, len(scenes))
	for i, r := range scenes {
		port := rig.Port(t)
		e := &engine{m: m, kind: r.kind, port: port, model: fmt.Sprintf("m%d", i), id: fmt.Sprintf("%s-%d", r.kind, port), args: r.args, env: r.env}
		if r.kind == "ollama" {
			e.model = "ollama-llama"
		}
		e.begin()
		t.Cleanup(func() { e.endChild() })
		all[i] = e
	}
	for i, e := range all {
		if scenes[i].first.live != "" {
			e.Said("listening|child", moment)
		}
	}
	began := time.Now()
	m.start("--discover")
	for i, e := range all {
		if scenes[i].first.live != "" {
			e.await(t, scenes[i].name, scenes[i].first)
			t.Logf("%4.1f s after the start: %s", time.Since(began).Seconds(), scenes[i].name)
		}
	}
	t.Logf("%d engines of three kinds were listed %.1f s after the start of hivebeat up", len(all), time.Since(began).Seconds())
	text, _, code := rig.CLI(t, []string{"HIVEBEAT_NATS=" + m.url}, "doctor", "--role", "hive", "--discover")
	if want := fmt.Sprintf("%s: vllm at http://127.0.0.1:%d: its command is vllm", all[0].id, all[0].port); code != 0 || !strings.Contains(text, want) {
		t.Errorf("doctor: exit code %d; want %q in\n%s", code, want, text)
	}
	t.Run("rows", func(t *testing.T) {
		for i, r := range scenes {
			t.Run(strings.ReplaceAll(r.name, " ", "-"), func(t *testing.T) {
				t.Parallel()
				all[i].play(t, r)
			})
		}
	})
	for i, r := range scenes {
		if r.name == "killed, and started again" {
			ev := m.events.Wait(t, moment, hivebeat.KindLost, hive+"/"+all[i].id)
			if ev.Data.DetectMS != nil {
				t.Logf("kill -9: lost, cause %s, %d ms after the end", ev.Data.Cause, *ev.Data.DetectMS)
			}
		}
	}
	if twice := m.events.Doubled(); len(twice) > 0 {
		t.Errorf("events that came twice: %v", twice)
	}
	m.up.Interrupt()
}

// play goes through the steps of a row.
func (e *engine) play(t *testing.T, r row) {
	for _, s := range r.steps {
		if s.do != nil {
			s.do(e)
		}
		for _, w := range s.want {
			w.id = strings.ReplaceAll(w.id, "self", e.id)
			e.await(t, s.name, w)
		}
	}
}

func (e *engine) await(t *testing.T, what string, w want) {
	t.Helper()
	if w.model == "" && e.kind != "ollama" {
		w.model = e.model
	}
	rig.Until(t, moment, what, func() (bool, string) {
		wrong := e.look(w)
		return wrong == "", wrong
	})
}
