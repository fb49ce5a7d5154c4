package procwatch

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"runtime"
	"testing"
	"time"

	"github.com/beatfabric/hivebeat/internal/bustest"
)

// polling returns a system that does not report ends.
func polling() system {
	s := thisSystem()
	s.exits = func() (exits, error) { return nil, errors.New("forbidden here") }
	return s
}

var quick = Config{Poll: 10 * time.Millisecond}

// watchers returns the kinds of watcher that this system supports.
func watchers() map[string]func() *Watcher[string] {
	return map[string]func() *Watcher[string]{
		"told":   func() *Watcher[string] { return New[string](quick) },
		"polled": func() *Watcher[string] { return newWatcher[string](quick, polling()) },
		"portable": func() *Watcher[string] {
			s := polling()
			s.look, s.now = lookPortable, func() int64 { return 0 }
			return newWatcher[string](quick, s)
		},
	}
}

func TestAKilledProcessIsToldOnce(t *testing.T) {
	for name, make := range watchers() {
		t.Run(name, func(t *testing.T) {
			w := running(t, make())
			dies, stays := newHelper(t), newHelper(t)
			for key, pid := range map[string]uint64{"dies": dies.pid, "stays": stays.pid} {
				if !w.Watch(key, pid, time.Now()) {
					t.Fatalf("%s, pid %d, is not watched: %+v", key, pid, w.Stats())
				}
			}
			opened(t, w)
			dies.kill(t)
			if name == "portable" {
				dies.reap() // for the portable look, a zombie still exists
			}
			list := await(t, w, 1)
			if e := list[0]; e.Key != "dies" || e.PID != dies.pid || e.Reused || e.At.IsZero() || len(list) != 1 {
				t.Errorf("told %+v", list)
			}
			dies.reap()
			bustest.Never(t, 3*quick.Poll, func() (bool, string) { // a duplicate report would arrive by then
				s, more := w.Stats(), w.Take()
				return s.Watched != 1 || s.Ended != 1 || len(more) != 0, fmt.Sprintf("%+v, then told %+v", s, more)
			})
		})
	}
}

func TestAProcessThatIsGoneAlready(t *testing.T) {
	for name, make := range watchers() {
		t.Run(name, func(t *testing.T) {
			gone, zombie := newHelper(t), newHelper(t)
			gone.kill(t)
			gone.reap()
			zombie.kill(t)
			w := running(t, make())
			w.Watch("gone", gone.pid, time.Now())
			want := 1
			if name != "portable" {
				w.Watch("zombie", zombie.pid, time.Now())
				want = 2
			}
			list := await(t, w, want)
			if len(list) != want || list[0].Reused {
				t.Errorf("told %+v", list)
			}
		})
	}
}

// A process id that was known before its process started belonged to another process.
func TestAReusedProcessID(t *testing.T) {
	if thisSystem().now() == 0 {
		t.Skip("no clock of start times")
	}
	for _, name := range []string{"told", "polled"} {
		t.Run(name, func(t *testing.T) {
			known := time.Now().Add(-50 * time.Millisecond) // start times are rounded down to 10 ms
			h := newHelper(t)
			w := running(t, watchers()[name]())
			w.Watch("before", h.pid, known)
			if e := await(t, w, 1)[0]; e.Key != "before" || !e.Reused {
				t.Errorf("told %+v", e)
			}
			w.Watch("since", h.pid, time.Now())
			opened(t, w)
			if s := w.Stats(); s.Watched != 1 || s.Ended != 1 {
				t.Errorf("the process itself was taken for another one: %+v", s)
			}
		})
	}
}

// The same, if the id is reused between two polls.
func TestAProcessIDThatIsReusedWhilePolled(t *testing.T) {
	s, began := polling(), make(chan int64, 1)
	began <- 5
	s.look = func(int) (int64, bool) { b := <-began; began <- b; return b, true }
	w := running(t, newWatcher[string](quick, s))
	w.Watch("w", uint64(os.Getppid()), time.Now())
	opened(t, w)
	<-began
	began <- 0 // /proc hides it for a while, which is no evidence
	awaitStats(t, w, func(Stats) bool { return true })
	bustest.Never(t, 3*quick.Poll, func() (bool, string) {
		s := w.Stats()
		return s.Ended != 0, fmt.Sprintf("%+v", s)
	})
	<-began
	began <- 7
	if e := await(t, w, 1)[0]; !e.Reused {
		t.Errorf("told %+v", e)
	}
}

func TestForgottenIsNotTold(t *testing.T) {
	for name, make := range watchers() {
		t.Run(name, func(t *testing.T) {
			w := running(t, make())
			h, other := newHelper(t), newHelper(t)
			w.Watch("h", h.pid, time.Now())
			opened(t, w)
			w.Forget("h")
			w.Watch("replaced", h.pid, time.Now())
			w.Watch("replaced", other.pid, time.Now())
			opened(t, w)
			h.kill(t)
			h.reap()
			other.kill(t)
			other.reap()
			if list := await(t, w, 1); len(list) != 1 || list[0].PID != other.pid {
				t.Errorf("told %+v", list)
			}
			w.Forget("h")
			w.Forget("never there")
			if s := w.Stats(); s.Watched != 0 || s.Polled != 0 || s.Ended != 1 {
				t.Errorf("%+v", s)
			}
		})
	}
}

func TestWhatCanNotBeWatchedIsRefused(t *testing.T) {
	w := newWatcher[string](Config{Max: 2}, thisSystem())
	for pid, want := range map[uint64]bool{0: false, math.MaxInt32 + 1: false, math.MaxUint64: false} {
		if w.Watch(fmt.Sprint(pid), pid, time.Now()) != want {
			t.Errorf("%d: watched %t", pid, !want)
		}
	}
	self := uint64(os.Getpid())
	if !w.Watch("a", self, time.Now()) || !w.Watch("b", self, time.Now()) || w.Watch("c", self, time.Now()) || !w.Watch("a", self, time.Now()) {
		t.Errorf("two are allowed: %+v", w.Stats())
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	w.Run(ctx)
	if w.Watch("late", self, time.Now()) {
		t.Error("watched after Run")
	}
	if s := w.Stats(); s.Watched != 0 || s.Refused != 5 {
		t.Errorf("%+v", s)
	}
}

// failing reports ends until it fails.
type failing struct {
	exits
	fail chan struct{}
}

func (f *failing) wait(func(uint64)) error {
	<-f.fail
	return errors.New("no more")
}

func TestWhatFailsToTellIsPolled(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("nothing tells here")
	}
	sys := thisSystem()
	inner, fail := sys.exits, make(chan struct{})
	sys.exits = func() (exits, error) {
		x, err := inner()
		return &failing{x, fail}, err
	}
	w := running(t, newWatcher[string](quick, sys))
	a, b := newHelper(t), newHelper(t)
	w.Watch("a", a.pid, time.Now())
	opened(t, w)
	close(fail)
	awaitStats(t, w, func(s Stats) bool { return s.Polled == 1 })
	w.Watch("b", b.pid, time.Now())
	awaitStats(t, w, func(s Stats) bool { return s.Polled == 2 })
	a.kill(t)
	b.kill(t)
	await(t, w, 2)
}

// A handle that cannot be opened, for whatever reason, is no evidence.
func TestWhatCanNotBeOpenedIsPolled(t *testing.T) {
	sys := thisSystem()
	if runtime.GOOS != "linux" {
		t.Skip("nothing tells here")
	}
	inner := sys.exits
	sys.exits = func() (exits, error) {
		x, err := inner()
		return &shut{x}, err
	}
	w := running(t, newWatcher[string](quick, sys))
	h := newHelper(t)
	w.Watch("h", h.pid, time.Now())
	awaitStats(t, w, func(s Stats) bool { return s.Polled == 1 && s.Ended == 0 })
	h.kill(t)
	await(t, w, 1)
}

type shut struct{ exits }

func (*shut) open(int) (handle, error) { return nil, errors.New("too many open files") }

func TestAge(t *testing.T) {
	h := newHelper(t)
	if age, there := Age(h.pid); !there || age < 0 || age > time.Minute {
		t.Errorf("a process that has just begun: %s, %v", age, there)
	}
	h.kill(t)
	h.reap()
	for _, pid := range []uint64{0, 1 << 40, h.pid} {
		if age, there := Age(pid); there {
			t.Errorf("%d is a process, %s old", pid, age)
		}
	}
}
