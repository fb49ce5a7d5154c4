package hive

import (
	"context"
	"errors"
	"os"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/nats.go"

	"github.com/beatfabric/hivebeat"
	"github.com/beatfabric/hivebeat/internal/bootid"
	"github.com/beatfabric/hivebeat/internal/core"
	"github.com/beatfabric/hivebeat/internal/detector"
	"github.com/beatfabric/hivebeat/internal/gpu"
	"github.com/beatfabric/hivebeat/internal/hivecore"
	"github.com/beatfabric/hivebeat/internal/proctree"
)

// fakeProcesses are processes that a test makes up.
type fakeProcesses struct {
	scan   func(ctx context.Context, near map[uint64]bool) (proctree.Scan, error)
	limits proctree.Limits
	cgroup func(pid uint64) string
}

func (f *fakeProcesses) Scan(ctx context.Context, near map[uint64]bool) (proctree.Scan, error) {
	return f.scan(ctx, near)
}

func (f *fakeProcesses) Cgroup(id proctree.ID) proctree.Cgroup {
	if f.cgroup == nil {
		return proctree.Cgroup{}
	}
	return proctree.Cgroup{Path: f.cgroup(id.PID)}
}

func (f *fakeProcesses) Namespace(proctree.ID) (proctree.Namespace, bool) {
	return proctree.Namespace{}, false
}

func (f *fakeProcesses) Usage(id proctree.ID) proctree.Usage {
	return proctree.Usage{Read: 1000 * id.PID, HasIO: true, Files: 3}
}
func (f *fakeProcesses) Limits(proctree.Cgroup) proctree.Limits { return f.limits }

// procsOf returns a reader of processes that sys makes up, for a hive with the pid 99 in
// the namespace boot/1.
func procsOf(sys processes, whom *[]detector.Running) *procReader {
	return &procReader{
		sys: sys, table: &procTable{}, forest: proctree.NewForest(99, "boot/1"), ns: "boot/1", self: 99,
		whom: func() []detector.Running { return *whom },
	}
}

func process1(pid, start, parent uint64) proctree.Process {
	return proctree.Process{ID: proctree.ID{PID: pid, Start: start}, Parent: parent, RSS: 4096, Threads: 2, CPU: 7000}
}

func TestProcReader(t *testing.T) {
	now := time.Now()
	run := func(worker string, pid uint64, known time.Duration) detector.Running {
		return detector.Running{Process: detector.Process{Worker: worker, Inc: 1, PID: pid}, NS: "boot/1", Known: now.Add(-known)}
	}
	var whom []detector.Running
	var asked map[uint64]bool
	scan := proctree.Scan{Clock: 1_000_000}
	var failed error
	r := procsOf(&fakeProcesses{scan: func(_ context.Context, near map[uint64]bool) (proctree.Scan, error) {
		asked = near
		return scan, failed
	}}, &whom)
	if got, err := r.readAll(t.Context()); !errors.Is(err, errNone) || got.owners == nil {
		t.Errorf("nobody to read: %v, want none", err)
	}
	whom = []detector.Running{run("a", 10, time.Minute), run("gone", 12, time.Minute), run("reused", 13, time.Minute), run("inside", 99, time.Minute)}
	scan.Procs = []proctree.Process{process1(10, 800_000, 1), process1(11, 900_000, 10), process1(13, 970_000, 1), process1(99, 100, 1)}
	r.table.owner(4711)
	got, err := r.readAll(t.Context())
	if err != nil || len(got.facts) != 1 {
		t.Fatalf("%+v, %v: want one worker", got, err)
	}
	key := proctree.Key{Worker: "a", Inc: 1, PID: 10, NS: "boot/1"}
	if f := got.facts[key]; f.RSS != 8192 || f.Procs != 2 || f.Up != 200_000 || f.Read != 21_000 || f.WorkRead != 21_000 {
		t.Errorf("%+v", f)
	}
	if !asked[10] || !asked[4711] || asked[11] {
		t.Errorf("read closely: %v; want workers, and those whose owner was asked for", asked)
	}
	r.table.setOwners(got.owners)
	for pid, want := range map[uint64]gpu.Owner{10: gpu.Ours, 11: gpu.Ours, 13: gpu.Foreign, 99: gpu.Ours, 12: gpu.Unattributed} {
		if owner, worker := r.table.owner(pid); owner != want || pid == 11 && worker != "a" {
			t.Errorf("process %d: owner %d, worker %q, want %d", pid, owner, worker, want)
		}
	}
	if _, err = r.readAll(t.Context()); err != nil || !asked[11] || asked[4711] || !asked[13] {
		t.Errorf("read closely: %v, %v; want all of a tree, and those asked for since", asked, err)
	}
	whom = whom[1:2]
	if got, err = r.readAll(t.Context()); err == nil || errors.Is(err, errNone) || len(got.facts) != 0 {
		t.Errorf("%+v, %v: none can be read", got, err)
	}
	failed = os.ErrPermission
	if _, err = r.readAll(t.Context()); !errors.Is(err, os.ErrPermission) {
		t.Errorf("%v: no scan", err)
	}
}

// A worker whose process ended was killed for want of memory if something in its own cgroup
// was, since the reading before the last one.
func TestProcTableKnowsWhoWasKilled(t *testing.T) {
	key := proctree.Key{Worker: "w", Inc: 1, PID: 10, NS: "boot/1"}
	own := proctree.Cgroup{Path: "/docker/a"}
	at := func(kills uint64, of proctree.Cgroup) map[proctree.Key]procFacts {
		return map[proctree.Key]procFacts{key: {Facts: proctree.Facts{Key: key, Cgroup: of, Limits: proctree.Limits{Kills: kills, Counted: of.Path != ""}}}}
	}
	for _, c := range []struct {
		name     string
		readings []map[proctree.Key]procFacts
		at       proctree.Limits // when it ended
		want     bool
	}{
		{"no kill", []map[proctree.Key]procFacts{at(3, own), at(3, own)}, proctree.Limits{Kills: 3, Counted: true}, false},
		{"a kill", []map[proctree.Key]procFacts{at(3, own), at(3, own)}, proctree.Limits{Kills: 4, Counted: true}, true},
		{"a kill after the first reading", []map[proctree.Key]procFacts{at(0, own)}, proctree.Limits{Kills: 1, Counted: true}, true},
		{"a kill that the last reading has", []map[proctree.Key]procFacts{at(3, own), at(4, own)}, proctree.Limits{Kills: 4, Counted: true}, true},
		{"a kill before", []map[proctree.Key]procFacts{at(3, own), at(4, own), at(4, own)}, proctree.Limits{Kills: 4, Counted: true}, false},
		{"its process is not in the last reading", []map[proctree.Key]procFacts{at(3, own), {}}, proctree.Limits{Kills: 4, Counted: true}, true},
		{"the cgroup is gone", []map[proctree.Key]procFacts{at(3, own), at(3, own)}, proctree.Limits{}, false},
		{"the cgroup is not its own", []map[proctree.Key]procFacts{at(3, proctree.Cgroup{}), at(3, proctree.Cgroup{})}, proctree.Limits{Kills: 9, Counted: true}, false},
		{"never read", nil, proctree.Limits{Kills: 9, Counted: true}, false},
	} {
		var table procTable
		for _, r := range c.readings {
			table.set(r)
		}
		got := table.exited(key, time.Second, func(of proctree.Cgroup) proctree.Limits {
			if of != own {
				t.Errorf("%s: reads %+v", c.name, of)
			}
			return c.at
		})
		if got != c.want {
			t.Errorf("%s: %v, want %v", c.name, got, c.want)
		}
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
			rec("c", "there", 7, hivebeat.Alive),
		}
	}
	var table procTable
	facts := func(worker, ns string, pid uint64, read time.Time, f proctree.Facts) {
		f.Key = proctree.Key{Worker: worker, Inc: 1, PID: pid, NS: ns}
		table.procs[f.Key] = procFacts{f, read}
	}
	table.set(map[proctree.Key]procFacts{})
	facts("w", "here", 10, now, proctree.Facts{RSS: 5, Up: 60_000, CPU: 12.5, Procs: 2, Threads: 9, Files: 4, Limits: proctree.Limits{Max: 100, Kills: 1}})
	facts("x", "here", 10, now.Add(-time.Second), proctree.Facts{RSS: 1<<64 - 1, Up: 60_000})
	facts("c", "there", 7, now, proctree.Facts{RSS: 6})
	fill := func(ns string, now time.Time) (got []hivebeat.Proc) {
		l := list()
		table.fill(l, ns, now)
		for _, r := range l {
			got = append(got, r.Proc)
		}
		return got
	}
	want := []hivebeat.Proc{
		{RSS: 5, CPU: 12.5, Up: 62_000, Procs: 2, Threads: 9, Files: 4, MemMax: 100, OOM: 1},
		{},
		{},
		{},
		{},
		{RSS: hivebeat.MaxInt, Up: 63_000},
		{},
		{RSS: 6},
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
	cfg.processes = &fakeProcesses{scan: func(_ context.Context, near map[uint64]bool) (proctree.Scan, error) {
		if calls.Add(1) == 4 { // the first one comes before any worker
			<-<-release // ignores its context
		}
		s := proctree.Scan{Clock: 4_000_000}
		for pid := range near {
			s.Procs = append(s.Procs, proctree.Process{ID: proctree.ID{PID: pid, Start: 1000}, RSS: pid})
		}
		return s, nil
	}}
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
		if r, _ := worker1(s, "w"); r.Proc != (hivebeat.Proc{}) || r.Live != hivebeat.Alive || calls.Load() != 4 {
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
		key := proctree.Key{Worker: process.Worker, Inc: process.Inc, PID: process.PID, NS: f.NS}
		l.tellProgress(map[proctree.Key]procFacts{key: {Facts: proctree.Facts{WorkRead: bytes}}})
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
