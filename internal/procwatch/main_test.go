package procwatch

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"os/exec"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/beatfabric/hivebeat/internal/bustest"
)

const asHelper = "PROCWATCH_TEST_HELPER"

func TestMain(m *testing.M) {
	if os.Getenv(asHelper) != "" {
		fmt.Println("here")
		_, _ = io.Copy(io.Discard, os.Stdin) // until it is killed, or its parent is
		os.Exit(0)
	}
	goleak.VerifyTestMain(m)
}

// helper is a process that waits until it is killed.
type helper struct {
	*exec.Cmd
	pid    uint64
	reaped bool
}

func newHelper(t testing.TB) *helper {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), asHelper+"=1")
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	h := &helper{Cmd: cmd, pid: uint64(cmd.Process.Pid)}
	t.Cleanup(func() {
		_ = in.Close()
		h.kill(t)
		h.reap()
	})
	if _, err := bufio.NewReader(out).ReadString('\n'); err != nil {
		t.Fatal(err)
	}
	return h
}

func (h *helper) kill(t testing.TB) {
	if err := h.Process.Kill(); err != nil && !h.reaped {
		t.Errorf("kill: %v", err)
	}
}

// reap waits for a killed process: until then it is a zombie.
func (h *helper) reap() {
	if !h.reaped {
		_ = h.Wait()
		h.reaped = true
	}
}

// running runs a watcher until the test ends.
func running(t testing.TB, w *Watcher[string]) *Watcher[string] {
	t.Helper()
	ctx, ended := t.Context(), make(chan struct{}) // ctx ends before cleanups run
	go func() { defer close(ended); w.Run(ctx) }()
	t.Cleanup(func() { <-ended })
	return w
}

const patience = 20 * time.Second

// await waits for n ends.
func await(t testing.TB, w *Watcher[string], n int) []End[string] {
	t.Helper()
	limit := time.After(patience)
	var list []End[string]
	for {
		if list = append(list, w.Take()...); len(list) >= n {
			return list
		}
		select {
		case <-w.Ready():
		case <-limit:
			t.Fatalf("%d of %d ends were told: %+v; %+v", len(list), n, list, w.Stats())
		}
	}
}

// awaitStats waits until ok returns true.
func awaitStats(t testing.TB, w *Watcher[string], ok func(Stats) bool) {
	t.Helper()
	bustest.Eventually(t, patience, func() (bool, string) {
		s := w.Stats()
		return ok(s), fmt.Sprintf("%+v", s)
	})
}

// opened waits until the watcher has opened all queued processes.
func opened(t testing.TB, w *Watcher[string]) {
	t.Helper()
	bustest.Eventually(t, patience, func() (bool, string) {
		w.mu.Lock()
		defer w.mu.Unlock()
		open := 0
		for _, e := range w.entries {
			if e.handle != nil || e.polled {
				open++
			}
		}
		return open == len(w.entries), fmt.Sprintf("%d of %d are watched", open, len(w.entries))
	})
}
