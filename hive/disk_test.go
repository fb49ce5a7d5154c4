package hive

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
)

// The cache appears with the first download: until then its parent's file system counts.
func TestSpaceOfWhatDoesNotExistYet(t *testing.T) {
	dir := t.TempDir()
	there, err := spaceOf(t.Context(), dir)
	if err != nil || there.total == 0 || there.free == 0 || there.free > there.total {
		t.Fatalf("of %s: %+v, %v", dir, there, err)
	}
	below, err := spaceOf(t.Context(), filepath.Join(dir, "hub", "models"))
	if err != nil || below.total != there.total {
		t.Errorf("below it: %+v, %v; want a total of %d", below, err, there.total)
	}
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if s, err := spaceOf(t.Context(), filepath.Join(file, "hub")); runtime.GOOS != "windows" && err == nil {
		t.Errorf("below a file: %+v, want an error", s)
	}
}

func TestDefaultCacheDir(t *testing.T) {
	for _, c := range []struct{ hf, xdg, home, want string }{
		{"/models", "/xdg", "/home/u", "/models"},
		{"", "/xdg", "/home/u", filepath.Join("/xdg", "huggingface")},
		{"", "", "/home/u", filepath.Join("/home/u", ".cache", "huggingface")},
		{"", "", "", ""},
	} {
		t.Setenv("HF_HOME", c.hf)
		t.Setenv("XDG_CACHE_HOME", c.xdg)
		t.Setenv("HOME", c.home)
		t.Setenv("USERPROFILE", c.home)
		if got := DefaultCacheDir(); got != c.want {
			t.Errorf("%+v: %q", c, got)
		}
	}
}

// A file system that does not answer is one finding per episode, and hides neither the
// other file system nor the host.
func TestHungDiskHidesNothingElse(t *testing.T) {
	var (
		calls atomic.Int64
		log   findings
	)
	release := make(chan chan struct{}, 1)
	cfg := quickConfig()
	cfg.Host, cfg.CacheDir, cfg.StoreDir, cfg.Logger = nil, "/models", "/store", slog.New(&log)
	cfg.readSpace = func(_ context.Context, dir string) (space, error) {
		if dir == "/models" {
			return space{100, 60}, nil
		}
		if calls.Add(1) == 3 {
			<-<-release // ignores its context, as statfs does
		}
		return space{50, 10}, nil
	}
	virtual(t, cfg, func(t *testing.T, _ *Hive, q *queen, _ func(*fake), _ *nats.Conn) {
		hang := make(chan struct{})
		release <- hang
		pass(15 * second)
		s, _ := q.last()
		if h := s.Host; h.CacheTotal != 100 || h.CacheFree != 60 || h.StoreTotal != 50 || h.StoreFree != 10 || h.Kernel == "" {
			t.Errorf("at first: %+v", h)
		}
		pass(2 * time.Minute)
		s, _ = q.last()
		if h := s.Host; h.CacheFree != 60 || h.StoreTotal != 0 || h.StoreFree != 0 || h.MemTotal == 0 || calls.Load() != 3 {
			t.Errorf("while the store hangs: %+v after %d calls", h, calls.Load())
		}
		if s.Collect[sourceHost] != "ok" || s.Collect[sourceCache] != "ok" || !strings.HasPrefix(s.Collect[sourceStore], "error: no answer") {
			t.Errorf("while the store hangs: %v", s.Collect)
		}
		if n := log.count.Load(); n != 1 {
			t.Errorf("%d warnings of one episode, want 1", n)
		}
		close(hang)
		pass(45 * second)
		s, _ = q.last()
		if s.Host.StoreFree != 10 || s.Collect[sourceStore] != "ok" {
			t.Errorf("when it answers again: %+v %v", s.Host, s.Collect)
		}
	})
}

// findings counts warnings about the store.
type findings struct{ count atomic.Int64 }

func (f *findings) Enabled(context.Context, slog.Level) bool { return true }
func (f *findings) WithAttrs([]slog.Attr) slog.Handler       { return f }
func (f *findings) WithGroup(string) slog.Handler            { return f }
func (f *findings) Handle(_ context.Context, r slog.Record) error {
	if r.Level == slog.LevelWarn && r.Message == "cannot collect" {
		r.Attrs(func(a slog.Attr) bool {
			if a.Key == "dir" && a.Value.String() == "/store" {
				f.count.Add(1)
			}
			return true
		})
	}
	return nil
}

// A Host of one's own may be of another machine.
func TestOwnHostHasItsOwnDisks(t *testing.T) {
	cfg := quickConfig()
	cfg.StoreDir = t.TempDir()
	cfg.readSpace = func(context.Context, string) (space, error) { return space{}, errors.New("read") }
	virtual(t, cfg, func(t *testing.T, _ *Hive, q *queen, _ func(*fake), _ *nats.Conn) {
		pass(time.Minute)
		if s, _ := q.last(); s.Collect[sourceStore] != "" || s.Collect[sourceCache] != "" {
			t.Errorf("collect %v", s.Collect)
		}
	})
}
