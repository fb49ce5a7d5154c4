package hive

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"slices"
	"sync"
	"time"

	psutil "github.com/shirou/gopsutil/v4/process"

	"github.com/beatfabric/hivebeat"
	"github.com/beatfabric/hivebeat/internal/detector"
)

// This file reads what the operating system reports about the processes of workers,
// next to what workers report themselves. It reads only processes that this hive may
// watch: an id from another pid namespace is another process here.

// startSlack is how far the reported start of a process may be off.
const startSlack = 2 * time.Second

// readMost bounds how many processes are read per round: each takes about 0.3 ms of
// CPU. If there are more, they take turns.
const readMost = 1000

// reading holds the values read of one process.
type reading struct {
	began int64   // start, in ms of the wall clock; distinguishes processes with the same id
	rss   uint64  // bytes
	bytes uint64  // read from files and disks in total; 0 where unavailable
	cpu   float64 // CPU seconds used in total
}

// readProcess reads one process with gopsutil.
func readProcess(ctx context.Context, pid uint64) (r reading, err error) {
	if pid > math.MaxInt32 {
		return r, fmt.Errorf("pid %d: %w", pid, psutil.ErrorProcessNotRunning)
	}
	p := psutil.Process{Pid: int32(pid)}
	if r.began, err = p.CreateTimeWithContext(ctx); err != nil {
		return r, err
	}
	mem, err := p.MemoryInfoWithContext(ctx)
	if err != nil {
		return r, err
	}
	times, err := p.TimesWithContext(ctx)
	if err != nil {
		return r, err
	}
	r.rss, r.cpu = mem.RSS, times.User+times.System
	if io, err := p.IOCountersWithContext(ctx); err == nil { // fails for a process of another user
		r.bytes = max(io.ReadBytes, io.DiskReadBytes) // DiskReadBytes includes mapped files, but not cached data
	}
	return r, nil
}

// procFacts are the latest facts of one process.
type procFacts struct {
	reading
	read    time.Time
	up      time.Duration // at read
	percent float64       // of one CPU, since the previous reading
}

// procReader reads the processes of workers, one after the other. It is not safe for
// concurrent use.
type procReader struct {
	whom func() []detector.Running
	read func(ctx context.Context, pid uint64) (reading, error)
	last map[detector.Process]procFacts
	turn int // index in whom of the first process to read
}

// readAll returns the latest facts of each process, and reads those again whose turn it
// is. It returns an error if none could be read, and errNone if there are no processes.
func (r *procReader) readAll(ctx context.Context) (map[detector.Process]procFacts, error) {
	whom := r.whom()
	if len(whom) == 0 {
		r.last = nil
		return nil, errNone
	}
	next := make(map[detector.Process]procFacts, len(whom))
	var first error
	if len(whom) <= readMost {
		r.turn = 0
	}
	for i := range whom {
		w := whom[(r.turn+i)%len(whom)]
		if i >= readMost {
			if f, ok := r.last[w.Process]; ok {
				next[w.Process] = f
			}
			continue
		}
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		got, err := r.read(ctx, w.PID)
		if err != nil {
			if first == nil {
				first = fmt.Errorf("process %d: %w", w.PID, err)
			}
			continue
		}
		now := time.Now()
		f := procFacts{reading: got, read: now, up: max(0, time.Duration(now.UnixMilli()-got.began)*time.Millisecond)}
		if f.up+startSlack < now.Sub(w.Known) {
			continue // it started after the worker did: the id now belongs to another process
		}
		if was, ok := r.last[w.Process]; ok && was.began == got.began {
			if d := now.Sub(was.read).Seconds(); d > 0 {
				f.percent = hundredths(finite(100 * (got.cpu - was.cpu) / d))
			}
		}
		next[w.Process] = f
	}
	r.turn += readMost
	r.last = next
	if len(next) == 0 && first != nil {
		return nil, first
	}
	return next, nil
}

// procTable holds the latest readings. It is safe for concurrent use.
type procTable struct {
	mu    sync.Mutex
	procs map[detector.Process]procFacts
}

func (t *procTable) set(procs map[detector.Process]procFacts) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.procs = procs
}

// fill adds the facts of their processes to the records of workers in the pid namespace
// ns. It omits facts that are older than hivebeat.Fresh.
func (t *procTable) fill(list []hivebeat.Record, ns string, now time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if ns == "" || len(t.procs) == 0 {
		return
	}
	for i := range list {
		r := &list[i]
		if r.NS != ns || r.PID == 0 || r.Live != hivebeat.Alive && r.Live != hivebeat.Late {
			continue
		}
		if f, ok := t.procs[detector.Process{Worker: r.Worker, Inc: r.Inc, PID: r.PID}]; ok && now.Sub(f.read) <= hivebeat.Fresh {
			r.Proc.RSS, r.Proc.CPU, r.Proc.Read = small(f.rss), f.percent, small(f.bytes)
			r.Proc.Up = hivebeat.MillisOf(f.up + now.Sub(f.read))
		}
	}
}

// tellProgress passes readings to the loop. They replace readings that the loop has not
// taken yet.
func (h *Hive) tellProgress(procs map[detector.Process]procFacts) {
	list := make([]detector.Reading, 0, len(procs))
	for p, f := range procs {
		list = append(list, detector.Reading{Process: p, Read: f.bytes, RSS: f.rss})
	}
	select {
	case <-h.readings:
	default:
	}
	h.readings <- list // there is no other sender, so this does not block
}

func (h *Hive) collectProcs(ctx context.Context, wg *sync.WaitGroup) {
	r := &procReader{read: h.cfg.readProcess, whom: func() []detector.Running {
		h.mu.Lock()
		defer h.mu.Unlock()
		self := uint64(os.Getpid()) // a worker inside the hive's process has no process to read
		return slices.DeleteFunc(h.core.Running(), func(r detector.Running) bool { return r.PID == self })
	}}
	c := collector[map[detector.Process]procFacts]{
		every: collectEvery, limit: collectLimit, read: r.readAll,
		store: func(_ time.Time, v map[detector.Process]procFacts, err error) {
			if err == nil || errors.Is(err, errNone) { // otherwise the previous readings stay, and age
				h.table.set(v)
				h.tellProgress(v)
			}
			if h.machine.note(sourceOS, err) {
				h.collected(sourceOS, err)
			}
		},
	}
	wg.Go(func() { c.run(ctx) })
}
