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

// What the operating system says of the workers' processes, beside what they say
// themselves. Only those are asked for that this hive may watch: an id of another
// pid namespace is another process here.

// startSlack is by how much the start of a process, as it is told, may be off.
const startSlack = 2 * time.Second

// readMost bounds how many processes are read at a time: each takes some 0.3 ms of
// CPU. Where there are more, they take turns.
const readMost = 1000

// reading is what was read of one process.
type reading struct {
	began int64   // ms of the wall clock: an identity, and its age
	rss   uint64  // bytes
	cpu   float64 // seconds that it ran on CPUs, in all
}

// readProcess reads one process by gopsutil.
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
	return r, nil
}

// procFacts are what is known of one process.
type procFacts struct {
	reading
	read    time.Time
	up      time.Duration // when it was read
	percent float64       // of one CPU, since the reading before
}

// procReader reads the processes of workers, one after the other. It is used by
// one goroutine at a time.
type procReader struct {
	whom func() []detector.Running
	read func(ctx context.Context, pid uint64) (reading, error)
	last map[detector.Process]procFacts
	turn int // of whom is first
}

// readAll returns what is known of each, and reads it anew where it is its turn. It is an error if none
// could; errNone where nobody is to be read.
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
			continue // it began after the worker did: another process has its id
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

// procTable holds what was read last. It is safe for concurrent use.
type procTable struct {
	mu    sync.Mutex
	procs map[detector.Process]procFacts
	vram  map[uint64]uint64 // by pid, bytes on all GPUs
	at    time.Time         // when vram was read
}

func (t *procTable) set(procs map[detector.Process]procFacts) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.procs = procs
}

// setVRAM takes what the processes pids hold on GPUs.
func (t *procTable) setVRAM(at time.Time, apps []gpuApp, pids map[uint64]bool) {
	held := make(map[uint64]uint64)
	for _, a := range apps {
		if pids[a.pid] {
			held[a.pid] = small(small(held[a.pid]) + small(a.used))
		}
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.vram, t.at = held, at
}

// fill gives the records of workers in the pid namespace ns what is known of their
// processes. What is older than a record may be says nothing any more.
func (t *procTable) fill(list []hivebeat.Record, ns string, now time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if ns == "" || len(t.procs) == 0 && len(t.vram) == 0 {
		return
	}
	for i := range list {
		r := &list[i]
		if r.NS != ns || r.PID == 0 || r.Live != hivebeat.Alive && r.Live != hivebeat.Late {
			continue
		}
		if f, ok := t.procs[detector.Process{Worker: r.Worker, Inc: r.Inc, PID: r.PID}]; ok && now.Sub(f.read) <= hivebeat.Fresh {
			r.Proc.RSS, r.Proc.CPU = small(f.rss), f.percent
			r.Proc.Up = hivebeat.MillisOf(f.up + now.Sub(f.read))
		}
		if now.Sub(t.at) <= hivebeat.Fresh {
			r.Proc.VRAM = t.vram[r.PID]
		}
	}
}

func (h *Hive) collectProcs(ctx context.Context, wg *sync.WaitGroup) {
	r := &procReader{read: h.cfg.readProcess, whom: func() []detector.Running {
		h.mu.Lock()
		defer h.mu.Unlock()
		self := uint64(os.Getpid()) // a worker within the hive's process has none of its own
		return slices.DeleteFunc(h.core.Running(), func(r detector.Running) bool { return r.PID == self })
	}}
	c := collector[map[detector.Process]procFacts]{
		every: collectEvery, limit: collectLimit, read: r.readAll,
		store: func(_ time.Time, v map[detector.Process]procFacts, err error) {
			if err == nil || errors.Is(err, errNone) { // else those of before stay, and age
				h.table.set(v)
			}
			if h.machine.note(sourceOS, err) {
				h.collected(sourceOS, err)
			}
		},
	}
	wg.Go(func() { c.run(ctx) })
}
