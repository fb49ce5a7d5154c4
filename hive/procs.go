package hive

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"github.com/beatfabric/hivebeat"
	"github.com/beatfabric/hivebeat/internal/bootid"
	"github.com/beatfabric/hivebeat/internal/detector"
	"github.com/beatfabric/hivebeat/internal/gpu"
	"github.com/beatfabric/hivebeat/internal/proctree"
)

// This file reads what the operating system reports about the processes of workers, next
// to what workers report themselves, and knows whose each process of the machine is.
// Package proctree has the rules.

// processes is the access to the processes of the machine.
type processes interface {
	Scan(ctx context.Context, near map[uint64]bool) (proctree.Scan, error)
	proctree.Source
}

// procFacts are the latest facts of the processes of a worker.
type procFacts struct {
	proctree.Facts
	read time.Time
}

// procReading is the result of one round.
type procReading struct {
	facts  map[proctree.Key]procFacts
	owners *proctree.Owners
}

// procReader reads the processes of the machine. It is not safe for concurrent use.
type procReader struct {
	whom   func() []detector.Running
	sys    processes
	table  *procTable
	forest *proctree.Forest
	ns     string
	self   uint64
	last   *proctree.Owners
}

// readAll returns the latest facts of each worker whose processes can be read. It returns
// an error if there are workers in this pid namespace, and none could be read, and errNone
// if there is no worker's process to read. The owners are valid in both cases.
func (r *procReader) readAll(ctx context.Context) (procReading, error) {
	whom := r.whom()
	near, ends := r.table.take()
	for pid := range r.last.Owned() {
		near[pid] = true
	}
	for _, w := range whom {
		if w.NS == r.ns {
			near[w.PID] = true
		}
	}
	s, err := r.sys.Scan(ctx, near)
	if err != nil {
		return procReading{}, err
	}
	now := time.Now()
	list := make([]proctree.Worker, len(whom))
	var first uint64
	for i, w := range whom {
		key := proctree.Key{Worker: w.Worker, Inc: w.Inc, PID: w.PID, NS: w.NS}
		list[i] = proctree.Worker{Key: key, Ended: w.Ended, EndedAt: ends[key]}
		if s.Clock > 0 {
			list[i].Known = s.Clock - min(s.Clock, uint64(max(0, now.Sub(w.Known).Milliseconds())))
		}
		if first == 0 && w.NS == r.ns && w.PID != r.self && !w.Ended {
			first = w.PID
		}
	}
	r.forest.Update(now, s, r.sys, list)
	got := procReading{facts: make(map[proctree.Key]procFacts), owners: r.forest.Owners()}
	r.last = got.owners
	for _, f := range r.forest.Measure(now, r.sys) {
		got.facts[f.Key] = procFacts{f, now}
	}
	switch {
	case len(got.facts) > 0:
		return got, nil
	case first > 0:
		return got, fmt.Errorf("process %d: it is not visible, or began after its worker", first)
	}
	return got, errNone
}

// procTable holds the latest readings. It is safe for concurrent use.
type procTable struct {
	mu     sync.Mutex
	procs  map[proctree.Key]procFacts
	before map[proctree.Key]procFacts // the reading before
	owners *proctree.Owners
	asked  map[uint64]bool         // processes whose owner was asked for since the last scan
	ends   map[proctree.Key]uint64 // when processes ended since, by the clock of the scan
}

func (t *procTable) set(procs map[proctree.Key]procFacts) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.procs, t.before = procs, t.procs
}

func (t *procTable) setOwners(o *proctree.Owners) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.owners = o
}

// owner returns whose process pid is, and the worker that it belongs to or belonged to. It
// is as of the last scan, which is 10 s old at most: a process that began since is
// unattributed.
func (t *procTable) owner(pid uint64) (gpu.Owner, string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.asked == nil {
		t.asked = make(map[uint64]bool)
	}
	if len(t.asked) < maxAsked {
		t.asked[pid] = true
	}
	return t.owners.Of(pid)
}

// maxAsked bounds how many processes are read in each scan only because they hold memory of
// a GPU.
const maxAsked = 4096

// take returns, once, the processes to read closely, and those that ended.
func (t *procTable) take() (near map[uint64]bool, ends map[proctree.Key]uint64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	near, ends = t.asked, t.ends
	t.asked, t.ends = nil, nil
	if near == nil {
		near = make(map[uint64]bool)
	}
	return near, ends
}

// end notes that the process of a worker ended ago, and reports whether the kernel killed
// it for want of memory: then a process was killed in the worker's own cgroup since the
// reading before the last one. The last one may be later than the kill, as a large process
// needs a while to end. A cgroup that is gone already says nothing.
func (t *procTable) end(key proctree.Key, ago time.Duration, limits func(proctree.Cgroup) proctree.Limits) bool {
	t.mu.Lock()
	if boot := bootid.Clock(); boot > 0 {
		if t.ends == nil {
			t.ends = make(map[proctree.Key]uint64)
		}
		t.ends[key] = boot - min(boot, uint64(max(0, ago.Milliseconds())))
	}
	was, ok := t.before[key]
	if !ok {
		was = t.procs[key]
	}
	t.mu.Unlock()
	if was.Cgroup.Path == "" || !was.Counted {
		return false
	}
	l := limits(was.Cgroup)
	return l.Counted && l.Kills > was.Kills
}

// fill adds the facts of their processes to the records of workers. It omits facts that are
// older than hivebeat.Fresh.
func (t *procTable) fill(list []hivebeat.Record, ns string, now time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if ns == "" || len(t.procs) == 0 {
		return
	}
	for i := range list {
		r := &list[i]
		if r.PID == 0 || r.Live != hivebeat.Alive && r.Live != hivebeat.Late {
			continue
		}
		if f, ok := t.procs[proctree.Key{Worker: r.Worker, Inc: r.Inc, PID: r.PID, NS: r.NS}]; ok && now.Sub(f.read) <= hivebeat.Fresh {
			p := &r.Proc
			p.RSS, p.CPU, p.Read = small(f.RSS), hundredths(finite(f.CPU)), small(f.Read)
			p.Procs, p.Threads, p.Files = small(f.Procs), small(f.Threads), small(f.Files)
			p.MemMax, p.OOM = small(f.Max), small(f.Kills)
			if f.Up > 0 {
				p.Up = hivebeat.Millis(small(f.Up)) + hivebeat.MillisOf(now.Sub(f.read))
			}
		}
	}
}

// tellProgress passes readings to the loop. They replace readings that the loop has not
// taken yet.
func (h *Hive) tellProgress(procs map[proctree.Key]procFacts) {
	list := make([]detector.Reading, 0, len(procs))
	for k, f := range procs {
		list = append(list, detector.Reading{Process: detector.Process{Worker: k.Worker, Inc: k.Inc, PID: k.PID}, Read: f.WorkRead, RSS: f.WorkRSS})
	}
	select {
	case <-h.readings:
	default:
	}
	h.readings <- list // there is no other sender, so this does not block
}

func (h *Hive) collectProcs(ctx context.Context, wg *sync.WaitGroup) {
	self := uint64(os.Getpid())
	r := &procReader{
		sys: h.cfg.processes, table: &h.table, forest: proctree.NewForest(self, h.ns), ns: h.ns, self: self,
		whom: func() []detector.Running {
			h.mu.Lock()
			defer h.mu.Unlock()
			return h.core.Running()
		},
	}
	c := collector[procReading]{
		every: collectEvery, limit: collectLimit, read: r.readAll,
		store: func(_ time.Time, v procReading, err error) {
			if v.owners != nil {
				h.table.setOwners(v.owners)
			}
			if err == nil || errors.Is(err, errNone) { // otherwise the previous readings stay, and age
				h.table.set(v.facts)
				h.tellProgress(v.facts)
			}
			if h.machine.note(sourceOS, err) {
				h.collected(sourceOS, err)
			}
		},
	}
	wg.Go(func() { c.run(ctx) })
}
