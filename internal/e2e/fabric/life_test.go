//go:build e2e

package fabric

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/beatfabric/hivebeat"
	"github.com/beatfabric/hivebeat/internal/e2e/rig"
)

// The first steps of a user: up in one terminal, a worker in the next, ls, watch, Ctrl-C.
func TestUpAndAWorker(t *testing.T) {
	port := rig.Port(t)
	url := fmt.Sprintf("nats://127.0.0.1:%d", port)
	store := t.TempDir()
	at := []string{"HIVEBEAT_NATS=" + url}
	up := rig.Start(t, "up", nil, rig.Hivebeat(t), "up", "--port", fmt.Sprint(port), "--store", store, "--id", "desk")
	up.Said("hivebeat is up", moment)
	nc := rig.Connect(t, url)
	events := rig.Listen(t, nc)
	watch := rig.Start(t, "watch", at, rig.Hivebeat(t), "watch", "-o", "json")

	// With the default promise of half a minute, only a goodbye can make a worker leave
	// within this test.
	worker := rig.Start(t, "worker", at, rig.Hivebeat(t), "worker", "--hive", "desk", "--id", "llama", "--model", "llama-3.3-70b")
	rig.Sees(t, nc, moment, rig.Fleet{"desk": hivebeat.Alive, "desk/llama": hivebeat.Alive})
	out, errs, code := rig.CLI(t, at, "ls")
	if code != 0 || !strings.Contains(out, "desk/llama") || !strings.Contains(out, "llama-3.3-70b") {
		t.Errorf("ls: exit code %d\n%s%s", code, out, errs)
	}

	interrupted := time.Now()
	worker.Interrupt()
	left := events.Wait(t, moment, hivebeat.KindLeft, "desk/llama")
	t.Logf("Ctrl-C to the event left: %d ms, the process's own end included", time.Since(interrupted).Milliseconds())
	if left.Data.Cause != hivebeat.CauseGoodbye || left.Data.To != string(hivebeat.Left) {
		t.Errorf("left, but: %+v", left.Data)
	}
	rig.Sees(t, nc, moment, rig.Fleet{"desk/llama": hivebeat.Left})
	watch.Said(`"type":"hivebeat\.worker\.left\.v1"`, moment)
	watch.Interrupt()

	t.Run("a second one on the same port", func(t *testing.T) {
		_, errs, code := rig.CLI(t, nil, "up", "--port", fmt.Sprint(port), "--store", t.TempDir())
		if code != 1 || !strings.Contains(errs, "--port") {
			t.Errorf("exit code %d, want 1 and a word about --port:\n%s", code, errs)
		}
	})
	t.Run("a second one on the same store", func(t *testing.T) {
		_, errs, code := rig.CLI(t, nil, "up", "--port", "0", "--store", store)
		if code != 1 || !strings.Contains(errs, "--store") {
			t.Errorf("exit code %d, want 1 and a word about --store:\n%s", code, errs)
		}
	})
	up.Interrupt()
}

func TestUpDemo(t *testing.T) {
	port := rig.Port(t)
	up := rig.Start(t, "up --demo", nil, rig.Hivebeat(t), "up", "--demo", "--port", fmt.Sprint(port))
	up.Said("hivebeat is up", moment)
	nc := rig.Connect(t, fmt.Sprintf("nats://127.0.0.1:%d", port))
	events := rig.Listen(t, nc)
	rig.Until(t, moment, "a fleet", func() (bool, string) {
		fleet, err := rig.Look(nc)
		return err == nil && len(fleet) > 6, fmt.Sprint(fleet, err)
	})
	rig.Until(t, 2*moment, "something to change", func() (bool, string) {
		return len(events.Of(hivebeat.KindState, "")) > 0, events.String()
	})
	up.Interrupt()
}

// NATS is not available when everything starts.
func TestNATSComesLast(t *testing.T) {
	f := start(t)
	f.nats.Kill()
	queen, hive, worker := f.queen("q1"), f.hive("gpu-01"), f.worker("gpu-01", "w1")
	for _, p := range []*rig.Proc{queen, hive, worker} {
		p.Said("(?i)level=(WARN|INFO)", moment) // it logs something instead of ending
		if p.Ended() {
			t.Fatalf("%s ended:\n%s", p.Name, p.Output())
		}
	}
	if _, errs := f.cli(1, "ls", "--timeout", "1s"); !strings.Contains(errs, "hint:") {
		t.Errorf("ls without a server gives no hint:\n%s", errs)
	}
	f.nats.Start()
	f.connected()
	f.sees(rig.Fleet{"gpu-01": hivebeat.Alive, "gpu-01/w1": hivebeat.Alive})
}

// Two processes with one id: neither wins silently.
func TestTwoHivesWithOneID(t *testing.T) {
	f := start(t)
	events := rig.Listen(t, f.nc)
	f.queen("q1")
	f.hive("gpu-01")
	f.sees(rig.Fleet{"gpu-01": hivebeat.Alive})
	second := f.hive("gpu-01")
	events.Wait(t, moment, hivebeat.KindConflict, "gpu-01")
	rig.Until(t, moment, "ls to tell the conflict", func() (bool, string) {
		out, _ := f.cli(0, "ls")
		return strings.Contains(out, "conflict"), out
	})
	second.Kill()
}

// The worker of examples/python, which uses only the standard library.
func TestPythonWorker(t *testing.T) {
	python, err := exec.LookPath("python3")
	if err != nil {
		t.Skip("no python3 here")
	}
	scripts, err := filepath.Glob(filepath.Join(rig.Root(), "examples", "python", "*.py"))
	if err != nil || len(scripts) == 0 {
		t.Fatalf("no script in examples/python (%v)", err)
	}
	f := start(t)
	events := rig.Listen(t, f.nc)
	f.queen("q1")
	f.hive("gpu-01")
	p := rig.Start(t, "python", []string{"HIVEBEAT_NATS=" + f.nats.URL}, python, scripts[0], "gpu-01", "py", "tiny-model", "1000")
	joined := events.Wait(t, moment, hivebeat.KindJoined, "gpu-01/py")
	if joined.Data.Model != "tiny-model" {
		t.Errorf("joined with model %q", joined.Data.Model)
	}
	f.sees(rig.Fleet{"gpu-01/py": hivebeat.Alive})
	p.Signal(syscall.SIGINT)
	events.Wait(t, moment, hivebeat.KindLeft, "gpu-01/py")
}

// localhost is not an id: two machines would collide.
func TestLocalhostIsNoID(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("a host name of its own needs root")
	}
	unshare, err := exec.LookPath("unshare")
	if err != nil {
		t.Skip("no unshare here")
	}
	for _, role := range [][]string{{"hive"}, {"worker", "--hive", "gpu-01"}} {
		ctx, cancel := context.WithTimeout(t.Context(), moment)
		defer cancel()
		cmd := exec.CommandContext(ctx, unshare, append([]string{"--uts", "sh", "-c", `hostname localhost && exec "$@"`, "sh", rig.Hivebeat(t)}, role...)...)
		cmd.Env = rig.Env(t)
		out, _ := cmd.CombinedOutput()
		if code := cmd.ProcessState.ExitCode(); code != 2 || !strings.Contains(string(out), "--id") {
			t.Errorf("hivebeat %s on localhost: exit code %d, want 2 and a word about --id:\n%s", role[0], code, out)
		}
	}
}
