package life

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"
)

func must(t *testing.T) func(Source, error) Source {
	return func(s Source, err error) Source {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
}

func TestPID(t *testing.T) {
	h := newHelper(t, "wait")
	s := must(t)(PID(h.pid, Config{Poll: poll}))
	p := next(t, s)
	if p.PID != h.pid {
		t.Fatalf("pid %d, want %d", p.PID, h.pid)
	}
	still(t, p)
	h.kill()
	if e := end(t, p); !e.Final || e.Orderly || e.How != "" {
		t.Errorf("%+v", e)
	}
	if _, err := s.Next(t.Context()); !errors.Is(err, ErrOver) {
		t.Error(err)
	}
	for _, pid := range []uint64{0, 1 << 40, h.pid} {
		if _, err := PID(pid, Config{}); err == nil {
			t.Errorf("%d is a process", pid)
		}
	}
}

// A process that began after the source was made is another one with the same id.
func TestPIDReused(t *testing.T) {
	before := time.Now().Add(-time.Second) // starts are rounded
	h := newHelper(t, "wait")
	s := must(t)(PID(h.pid, Config{Poll: poll})).(*attached)
	s.known = before
	if e := end(t, next(t, s)); !e.Final {
		t.Errorf("%+v", e)
	}
}

func TestPIDFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "engine.pid")
	s := must(t)(PIDFile(path, Config{Poll: poll}))
	waits(t, s, path+" does not exist")()
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("")
	waits(t, s, path+" is empty")()
	write("none")
	waits(t, s, path+" does not begin with a process id")()

	first := newHelper(t, "wait")
	write(fmt.Sprintf("%d\n", first.pid))
	p := next(t, s)
	if p.PID != first.pid {
		t.Fatalf("pid %d, want %d", p.PID, first.pid)
	}
	first.kill()
	if e := end(t, p); e.Final || e.Orderly {
		t.Errorf("%+v", e)
	}
	waits(t, s, fmt.Sprintf("process %d of %s does not run", first.pid, path))()

	second := newHelper(t, "wait")
	write(fmt.Sprintf("  %d", second.pid))
	if p := next(t, s); p.PID != second.pid {
		t.Errorf("pid %d, want %d", p.PID, second.pid)
	}
	// The file is from before a reboot: its id is another process now.
	old := time.Now().Add(-time.Hour)
	if err := os.Chtimes(path, old, old); err != nil {
		t.Fatal(err)
	}
	waits(t, s, "is another one")()
}

func TestNextEndsWithItsContext(t *testing.T) {
	s := must(t)(PIDFile(filepath.Join(t.TempDir(), "none"), Config{Poll: time.Hour}))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := s.Next(ctx); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}
