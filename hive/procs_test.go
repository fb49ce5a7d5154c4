package hive

import (
	"context"
	"errors"
	"os"
	"runtime"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/nats.go"

	"github.com/beatfabric/hivebeat"
	"github.com/beatfabric/hivebeat/internal/bootid"
	"github.com/beatfabric/hivebeat/internal/core"
	"github.com/beatfabric/hivebeat/internal/detector"
	"github.com/beatfabric/hivebeat/internal/hivecore"
)

// readProcess agrees with the facts of this process.
func TestReadProcess(t *testing.T) {
	r, err := readProcess(t.Context(), uint64(os.Getpid()))
	if err != nil {
		t.Fatal(err)
	}
	if age := time.Since(time.UnixMilli(r.began)); age < -startSlack || age > time.Hour {
		t.Errorf("this process began %s ago", age)
	}
	if r.bytes == 0 && runtime.GOOS == "linux" {
		t.Errorf("it has read nothing: %+v", r)
	}
	if r.rss < 1<<20 || r.rss > 1<<40 {
		t.Errorf("it holds %d bytes", r.rss)
	}
	for _, pid := range []uint64{1 << 31, 1<<31 - 1} {
		if r, err := readProcess(t.Context(), pid); err == nil {
			t.Errorf("process %d: %+v", pid, r)
		}
	}
}

func BenchmarkReadProcess(b *testing.B) {
	for b.Loop() {
		if _, err := readProcess(b.Context(), uint64(os.Getpid())); err != nil {
			b.Fatal(err)
		}
	}
}

func TestProcReader(t *testing.T) {
	now := time.Now()
	run := func(worker string, pid uint64, known time.Duration) detector.Running {
		return detector.Running{Process: detector.Process{Worker: worker, Inc: 1, PID: pid}, Known: now.Add(-known)}
	}
	var whom []detector.Running
	table := map[uint64]reading{}
	r := procReader{
		whom: func() []detector.Running { return whom },
		read: func(_ context.Context, pid uint64) (reading, error) {
			if got, ok := table[pid]; ok {
				return got, nil
			}
			return reading{}, os.ErrNotExist
		},
	}
	if _, err := r.readAll(t.Context()); !errors.Is(err, errNone) {
		t.Errorf("nobody to read: %v, want none", err)
	}
	whom = []detector.Running{run("a", 10, time.Minute), run("reused", 11, time.Minute), run("gone", 12, time.Minute), run("same", 10, time.Second)}
	began := now.Add(-2 * time.Minute).UnixMilli()
	table[10] = reading{began: began, rss: 4096, cpu: 7}
	table[11] = reading{began: now.Add(-30 * time.Second).UnixMilli(), rss: 1}
	got, err := r.readAll(t.Context())
	if err != nil || len(got) != 2 {
		t.Fatalf("%+v, %v: want two workers of one process", got, err)
	}
	a := got[whom[0].Process]
	if a.rss != 4096 || a.percent != 0 || a.up < 2*time.Minute || a.up > 3*time.Minute {
		t.Errorf("%+v", a)
	}
	// Since the previous reading it used three quarters of a CPU.
	a.read = a.read.Add(-8 * time.Second)
	r.last[whom[0].Process] = a
	table[10] = reading{began: began, rss: 8192, cpu: 13}
	got, _ = r.readAll(t.Context())
	if p := got[whom[0].Process].percent; p < 70 || p > 75 {
		t.Errorf("%v percent, want 75", p)
	}
	// Another process has the same id.
	table[10] = reading{began: began + 20, rss: 8192, cpu: 1}
	if got, _ = r.readAll(t.Context()); got[whom[0].Process].percent != 0 {
		t.Errorf("%+v: of two processes", got[whom[0].Process])
	}
	whom = whom[2:3]
	if got, err = r.readAll(t.Context()); !errors.Is(err, os.ErrNotExist) || len(got) != 0 {
		t.Errorf("%+v, %v: none can be read", got, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err = r.readAll(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("%v: the time was over", err)
	}
}

// If there are too many processes, they take turns.
func TestProcReaderOfMany(t *testing.T) {
	now := time.Now()
	reads := map[uint64]int{}
	var whom []detector.Running
	for i := range uint64(2*readMost + readMost/2) {
		whom = append(whom, detector.Running{Process: detector.Process{Worker: "w", Inc: 1, PID: i + 1}, Known: now})
	}
	r := procReader{
		whom: func() []detector.Running { return whom },
		read: func(_ context.Context, pid uint64) (reading, error) {
			reads[pid]++
			return reading{began: now.UnixMilli(), rss: pid}, nil
		},
	}
	for round, want := range []int{readMost, 2 * readMost, len(whom), len(whom)} {
		if got, err := r.readAll(t.Context()); err != nil || len(got) != want || len(reads) != want {
			t.Fatalf("round %d: %d are known, %d were read, %v; want %d", round, len(got), len(reads), err, want)
		}
	}
	for pid, n := range reads {
		if n < 1 || n > 2 {
			t.Errorf("process %d was read %d times", pid, n)
		}
	}
	whom = whom[:10] // the others are gone
	if got, err := r.readAll(t.Context()); err != nil || len(got) != 10 {
		t.Errorf("%d are known, %v", len(got), err)
	}
}

func TestProcTable(t *testing.T) {
	now := time.Now()
	rec := func(worker, ns string, pid uint64, live hivebeat.Live) hivebeat.Record {
		return hivebeat.Record{Worker: worker, Live: live, Facts: hivebeat.Facts{Inc: 1, PID: pid, NS: ns}}
	}
	list := func() []hivebeat.Record {
		restarted := rec("w", "here", 10, hivebeat.Alive)
		restarted.Inc++
		return []hivebeat.Record{
			rec("w", "here", 10, hivebeat.Alive), rec("w", "there", 10, hivebeat.Alive), rec("w", "here", 11, hivebeat.Alive),
			rec("w", "here", 10, hivebeat.Lost), rec("w", "here", 10, hivebeat.Left), rec("x", "here", 10, hivebeat.Late), restarted,
		}
	}
	var table procTable
	table.set(map[detector.Process]procFacts{
		{Worker: "w", Inc: 1, PID: 10}: {reading: reading{rss: 5}, read: now, up: time.Minute, percent: 12.5},
		{Worker: "x", Inc: 1, PID: 10}: {reading: reading{rss: 1<<64 - 1}, read: now.Add(-time.Second), up: time.Minute},
	})
	fill := func(ns string, now time.Time) (got []hivebeat.Proc) {
		l := list()
		table.fill(l, ns, now)
		for _, r := range l {
			got = append(got, r.Proc)
		}
		return got
	}
	want := []hivebeat.Proc{
		{RSS: 5, CPU: 12.5, Up: 62_000}, {}, {}, {}, {}, {RSS: hivebeat.MaxInt, Up: 63_000}, {},
	}
	if d := cmp.Diff(want, fill("here", now.Add(2*time.Second))); d != "" {
		t.Errorf("-want +got:\n%s", d)
	}
	none := make([]hivebeat.Proc, len(want))
	if d := cmp.Diff(none, fill("", now)); d != "" {
		t.Errorf("without a namespace of its own -want +got:\n%s", d)
	}
	if d := cmp.Diff(none, fill("here", now.Add(hivebeat.Fresh+time.Second))); d != "" {
		t.Errorf("when it is old -want +got:\n%s", d)
	}
}

// A process that cannot be read delays no snapshot, and its earlier facts expire.
func TestVirtualHungProcess(t *testing.T) {
	ns := bootid.Namespace()
	if ns == "" {
		t.Skip("no pid namespace is known here")
	}
	var calls atomic.Int64
	release := make(chan chan struct{}, 1)
	cfg := quickConfig()
	cfg.NoExitWatch = true // the process does not exist
	cfg.readProcess = func(_ context.Context, pid uint64) (reading, error) {
		if calls.Add(1) == 3 {
			<-<-release // ignores its context
		}
		return reading{began: time.Now().Add(-time.Hour).UnixMilli(), rss: pid}, nil
	}
	virtual(t, cfg, func(t *testing.T, _ *Hive, q *queen, beat func(*fake), _ *nats.Conn) {
		hang := make(chan struct{})
		release <- hang
		w, other := newFake("w"), newFake("other")
		w.NS = ns // the other worker is in another namespace
		live := func(d time.Duration) {
			for end := time.Now().Add(d); time.Now().Before(end); {
				beat(w)
				beat(other)
				pass(5 * second)
			}
		}
		live(30 * second) // two readings, and a third one that hangs
		s, _ := q.last()
		if r, _ := worker1(s, "w"); r.Proc.RSS != 4711 || r.Proc.Up < 3_600_000 || s.Collect[sourceOS] != "ok" {
			t.Errorf("at first: %v %+v", s.Collect, r.Proc)
		}
		if r, _ := worker1(s, "other"); r.Proc != (hivebeat.Proc{}) {
			t.Errorf("of another namespace: %+v", r.Proc)
		}
		live(2 * time.Minute)
		var last time.Time
		for _, s := range q.all() {
			if !last.IsZero() && s.at.Sub(last) > hivebeat.HiveEvery {
				t.Errorf("no snapshot for %s", s.at.Sub(last))
			}
			last = s.at
		}
		s, _ = q.last()
		if r, _ := worker1(s, "w"); r.Proc != (hivebeat.Proc{}) || r.Live != hivebeat.Alive || calls.Load() != 3 {
			t.Errorf("while it hangs: %+v after %d calls", r, calls.Load())
		}
		if s.Collect[sourceOS] != "error: no answer within 5s, and the call cannot be stopped; the source is not read again until it returns" || s.Collect[sourceHost] != "ok" {
			t.Errorf("collect %v", s.Collect)
		}
		close(hang)
		live(30 * second)
		if s, _ = q.last(); s.Collect[sourceOS] != "ok" {
			t.Errorf("when it answers again: %v", s.Collect)
		}
		if r, _ := worker1(s, "w"); r.Proc.RSS != 4711 {
			t.Errorf("when it answers again: %+v", r.Proc)
		}
	})
}

// Readings of a silent worker's process reach the core: it is loading, and not lost.
func TestProgressIsTold(t *testing.T) {
	l, _ := turning(t)
	if l.procs == nil {
		t.Skip("no processes are watched here")
	}
	f := newFake("w")
	f.NS, f.PID = l.ns, uint64(os.Getppid())
	l.core = hivecore.New(hivecore.Config{ID: l.cfg.ID, Subject: beats, NS: l.ns, PID: l.self()}) // connected 50 s ago
	at := time.Now().Add(-50 * second)
	l.core.Connection(at, core.Connection{Up: true})
	l.core.Beat(at, beats, f.Next(t))
	for other := newFake("other"); at.Before(time.Now()); at = at.Add(second) {
		l.core.Beat(at, beats, other.Next(t))
	}
	if err := l.turn(t.Context(), l.core.Tick); err != nil {
		t.Fatal(err)
	}
	process := detector.Process{Worker: f.Worker, Inc: f.Inc, PID: f.PID}
	for _, bytes := range []uint64{0, 1 << 30, 2 << 30} { // the loop misses the second reading
		l.tellProgress(map[detector.Process]procFacts{process: {reading: reading{bytes: bytes}}})
		if bytes == 1<<30 {
			continue
		}
		list := <-l.readings
		if err := l.turn(t.Context(), func(now time.Time, _ uint64) { l.core.Progress(now, list) }); err != nil {
			t.Fatal(err)
		}
	}
	if r := l.Snapshot().Workers[1]; r.Worker != "w" || r.Live != hivebeat.Late || r.Cause != hivebeat.CauseLoads {
		t.Errorf("%s, cause %s, want late, cause loads", r.Live, r.Cause)
	}
}
