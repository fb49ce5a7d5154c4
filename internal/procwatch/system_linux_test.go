package procwatch

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"testing"
	"time"
)

func descriptors(t testing.TB) int {
	t.Helper()
	list, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(list)
}

// A process may be watched under many keys; each is a watch, and its descriptors are
// closed with it.
func TestManyAreWatchedAndNothingStaysOpen(t *testing.T) {
	h := newHelper(t)
	before := descriptors(t)
	w := New[string](Config{})
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() { defer close(ended); w.Run(ctx) }()
	const n = 1000
	watch := func(what string) {
		for i := range n {
			if !w.Watch(fmt.Sprint(what, i), h.pid, time.Now()) {
				t.Fatal("refused")
			}
		}
		opened(t, w)
	}
	watch("forgotten")
	if got := descriptors(t) - before; got < n || got > n+10 {
		t.Errorf("%d file descriptors for %d", got, n)
	}
	for i := range n {
		w.Forget(fmt.Sprint("forgotten", i))
	}
	if got := descriptors(t) - before; got > 10 {
		t.Errorf("%d file descriptors stay when all are forgotten", got)
	}
	watch("again")
	h.kill(t)
	await(t, w, n)
	if got := descriptors(t) - before; got > 10 {
		t.Errorf("%d file descriptors stay when all have ended", got)
	}
	other := newHelper(t)
	for i := range n {
		w.Watch(fmt.Sprint("until the end", i), other.pid, time.Now())
	}
	cancel() // some are open, some are not
	<-ended
	other.kill(t)
	other.reap()
	h.reap()
	if got := descriptors(t) - before; got > 4 { // the pipes of the helpers
		t.Errorf("%d file descriptors stay when it is over", got)
	}
}

// The orderly end of a watcher is not a failure of the system, and logs no warning.
func TestAnEndIsNoWarning(t *testing.T) {
	h := newHelper(t)
	var said bytes.Buffer // read after all goroutines of the watcher have ended
	w := New[string](Config{Logger: slog.New(slog.NewTextHandler(&said, nil))})
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() { defer close(ended); w.Run(ctx) }()
	if !w.Watch("one", h.pid, time.Now()) {
		t.Fatal("refused")
	}
	opened(t, w)
	cancel()
	<-ended
	if said.Len() > 0 {
		t.Errorf("it said %s", said.String())
	}
}

// The descriptors of a watcher leave some for the process itself; the other processes are
// polled.
func TestFileDescriptorsAreLeftOver(t *testing.T) {
	sys := thisSystem()
	sys.exits = func() (exits, error) {
		x, err := newPidfds()
		if err == nil {
			x.(*pidfds).room.Store(3)
		}
		return x, err
	}
	w := running(t, newWatcher[string](quick, sys))
	h, other := newHelper(t), newHelper(t)
	for i := range 5 {
		w.Watch(fmt.Sprint(i), h.pid, time.Now())
	}
	awaitStats(t, w, func(s Stats) bool { return s.Polled == 2 })
	h.kill(t)
	await(t, w, 5)
	for i := range 3 { // released descriptors are available again
		w.Watch(fmt.Sprint(i), other.pid, time.Now())
	}
	opened(t, w)
	if s := w.Stats(); s.Polled != 0 {
		t.Errorf("%+v", s)
	}
}

func TestParseStat(t *testing.T) {
	const rest = " 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 %d 0 1234 5 6"
	for _, c := range []struct {
		name, stat string
		began      int64
		there      bool
	}{
		{"running", "42 (sleep) R" + fmt.Sprintf(rest, 1), 1234 * tick, true},
		{"a name with everything in it", "42 (a) Z b)) S" + fmt.Sprintf(rest, 1), 1234 * tick, true},
		{"stopped", "42 (sleep) T" + fmt.Sprintf(rest, 1), 1234 * tick, true},
		{"a zombie", "42 (sleep) Z" + fmt.Sprintf(rest, 1), 0, false},
		{"its first thread ended", "42 (sleep) Z" + fmt.Sprintf(rest, 3), 1234 * tick, true},
		{"dead", "42 (sleep) X" + fmt.Sprintf(rest, 0), 0, false},
		{"empty", "", 0, true},
		{"short", "42 (sleep) R 1 2 3", 0, true},
		{"no number", "42 (sleep) R 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 x", 0, true},
		{"negative", "42 (sleep) R 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 -1", 0, true},
		{"beyond all times", "42 (sleep) R 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 9223372036854775807", 0, true},
	} {
		if began, there := parseStat([]byte(c.stat)); began != c.began || there != c.there {
			t.Errorf("%s: began %d, there %t", c.name, began, there)
		}
	}
}

// BenchmarkEnd measures the time from kill -9 until the end is reported.
func BenchmarkEnd(b *testing.B) {
	w := running(b, New[string](Config{}))
	var all []time.Duration
	for b.Loop() {
		b.StopTimer()
		h := newHelper(b)
		w.Watch("h", h.pid, time.Now())
		opened(b, w)
		begun := time.Now()
		b.StartTimer()
		h.kill(b)
		e := await(b, w, 1)[0]
		b.StopTimer()
		all = append(all, e.At.Sub(begun))
		h.reap()
		b.StartTimer()
	}
	slices.Sort(all)
	b.ReportMetric(float64(all[len(all)/2].Microseconds()), "p50-µs")
	b.ReportMetric(float64(all[len(all)*99/100].Microseconds()), "p99-µs")
}
