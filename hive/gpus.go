package hive

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/beatfabric/hivebeat"
	"github.com/beatfabric/hivebeat/internal/gpu"
)

// watchAgain is the pause after a reader could not report errors as they happen.
const watchAgain = time.Minute

// newReaders returns the readers of this machine's GPUs, each for GPUs that no other one
// reads. Its error names the field of cfg that is invalid.
func newReaders(cfg Config) ([]gpu.Reader, error) {
	faults, err := gpu.LoadFaults(bytes.NewReader(cfg.FaultTable))
	switch {
	case err != nil:
		return nil, fmt.Errorf("hive: Config.FaultTable: %w", err)
	case cfg.GPUs != nil:
		return []gpu.Reader{configured{cfg.GPUs}}, nil
	}
	nvml, smi, amd := gpu.NewNVML(), gpu.NewSMI(""), gpu.NewAMD()
	nvml.Faults, smi.Faults, amd.Faults = faults, faults, faults
	return []gpu.Reader{gpu.First("nvidia", nvml, smi), amd}, nil
}

func newFleet(cfg Config, readers []gpu.Reader) *gpu.Fleet {
	names := make([]string, len(readers))
	for i, r := range readers {
		names[i] = r.Name()
	}
	return gpu.New(gpu.Config{Sources: names, Expected: cfg.GPUsExpected})
}

// configured reads with Config.GPUs.
type configured struct {
	read func(context.Context) ([]hivebeat.GPU, error)
}

func (configured) Name() string { return "Config.GPUs" }

func (c configured) Read(ctx context.Context) (gpu.Reading, error) {
	list, err := c.read(ctx)
	r := gpu.Reading{ProcsErr: gpu.ErrNone} // the list itself says what workers hold
	for _, g := range list {
		d := gpu.Device{GPU: g}
		if g.State != "" && g.State != hivebeat.GPUOK {
			d.Faults = []gpu.Fault{{State: g.State, Cause: g.Cause, Evidence: g.Evidence, Action: g.Action}}
		}
		r.Devices = append(r.Devices, d)
	}
	return r, err
}

// collectGPUs reads the GPUs until ctx ends, each reader in a goroutine of its own.
func (h *Hive) collectGPUs(ctx context.Context, wg *sync.WaitGroup) {
	for _, r := range h.readers {
		name := r.Name()
		c := collector[gpu.Reading]{
			every: collectEvery, limit: h.cfg.GPULimit,
			read: func(ctx context.Context) (gpu.Reading, error) {
				begun := time.Now()
				got, err := r.Read(ctx)
				took := time.Since(begun)
				if got.Took == 0 {
					got.Took = took
				}
				h.machine.tookFor(name, took)
				return got, err
			},
			store: func(at time.Time, v gpu.Reading, err error) {
				owner := h.owners()
				h.judgeGPUs(func(f *gpu.Fleet) {
					if err != nil {
						f.Fail(at, name, err)
					} else {
						f.Read(at, name, v, owner)
					}
				})
			},
		}
		wg.Go(func() { c.run(ctx) })
		if w, ok := r.(gpu.Watcher); ok {
			wg.Go(func() { h.watchGPUs(ctx, name, w) })
		}
	}
	wg.Go(func() { h.ageGPUs(ctx) })
}

// watchGPUs takes errors of GPUs as they happen.
func (h *Hive) watchGPUs(ctx context.Context, name string, w gpu.Watcher) {
	for ctx.Err() == nil {
		err := w.Watch(ctx, func(in gpu.Incident) {
			owner := h.owners()
			h.judgeGPUs(func(f *gpu.Fleet) {
				if !f.Incident(time.Now(), in, owner) {
					h.log.Debug("an error of no known GPU or worker", slog.String("evidence", in.Fault.Evidence), slog.String("note", in.Note))
				}
			})
		})
		if ctx.Err() != nil || errors.Is(err, gpu.ErrNone) {
			return
		}
		h.log.Debug("errors of GPUs are not reported as they happen", slog.String("source", name), slog.Any("err", err))
		select {
		case <-time.After(watchAgain):
		case <-ctx.Done():
		}
	}
}

// ageGPUs passes the time, and requests to forget a GPU, to the fleet.
func (h *Hive) ageGPUs(ctx context.Context) {
	wake := time.NewTimer(0)
	defer wake.Stop()
	for {
		h.machine.mu.Lock()
		next, ok := h.machine.fleet.Next()
		h.machine.mu.Unlock()
		if wake.Stop(); ok {
			wake.Reset(time.Until(next))
		}
		select {
		case <-ctx.Done():
			return
		case <-h.wakeGPUs:
		case <-wake.C:
			h.judgeGPUs(func(f *gpu.Fleet) { f.Tick(time.Now()) })
		case r := <-h.forgets:
			h.judgeGPUs(func(f *gpu.Fleet) {
				if err := f.Forget(time.Now(), r.GPU, r.Asker); err != nil {
					h.log.Warn("a GPU is not forgotten", slog.String("asker", r.Asker), slog.Any("err", err))
				}
			})
		}
	}
}

// judgeGPUs passes an input to the fleet, and reports what changed.
func (h *Hive) judgeGPUs(input func(f *gpu.Fleet)) {
	m := &h.machine
	m.mu.Lock()
	input(m.fleet)
	changes := m.fleet.TakeChanges()
	gpus, procs := m.fleet.Collect(), m.fleet.Procs()
	news := m.set(sourceGPU, wordOf(gpus))
	touch := m.set(sourceProcs, wordOf(procs)) || len(changes) > 0
	m.mu.Unlock()
	h.logGPUs(changes)
	switch {
	case news && len(changes) == 0:
		h.collected(sourceGPU, wordOf(gpus))
	case news || touch:
		h.pulse.Touch()
	}
	select {
	case h.wakeGPUs <- struct{}{}:
	default:
	}
}

func wordOf(err error) error {
	switch {
	case errors.Is(err, gpu.ErrNone):
		return errNone
	case errors.Is(err, gpu.ErrPending):
		return errPending
	}
	return err
}

// logGPUs logs changes. GPUs of one reader become unknown together, for one reason: that is
// one line.
func (h *Hive) logGPUs(changes []gpu.Change) {
	unread := slices.DeleteFunc(slices.Clone(changes), func(c gpu.Change) bool { return c.Kind != "" || c.To != hivebeat.GPUUnknown })
	together := len(unread) > 1
	if together {
		h.log.Warn("GPUs cannot be read", slog.Int("gpus", len(unread)), slog.String("evidence", unread[0].Evidence))
	}
	for i := range changes {
		if c := &changes[i]; !together || c.Kind != "" || c.To != hivebeat.GPUUnknown {
			h.logGPU(c)
		}
	}
}

// logGPU logs a change of a GPU.
func (h *Hive) logGPU(c *gpu.Change) {
	level, text := slog.LevelDebug, "GPU changed" // and changes often: its events are damped
	switch {
	case c.Kind == hivebeat.KindGPULost:
		level, text = slog.LevelWarn, "GPU is gone"
	case c.Kind == hivebeat.KindGPUFailing:
		level, text = slog.LevelWarn, "GPU fails"
	case c.Kind == hivebeat.KindGPUDegraded:
		level, text = slog.LevelWarn, "GPU is degraded"
	case c.Kind == hivebeat.KindGPURecovered:
		level, text = slog.LevelInfo, "GPU works again"
	case c.Kind == hivebeat.KindGPUOrphan:
		level, text = slog.LevelWarn, "processes of a worker that has ended hold GPU memory"
	case c.Kind == hivebeat.KindGPUForgotten:
		level, text = slog.LevelInfo, "GPU is forgotten"
	case c.To == hivebeat.GPUUnknown:
		level, text = slog.LevelWarn, "GPU cannot be read"
	case c.From == hivebeat.GPUUnknown:
		level, text = slog.LevelInfo, "GPU is read again"
	}
	list := []slog.Attr{slog.Uint64("gpu", c.Index), slog.String("uuid", c.GPU), slog.String("state", string(c.To))}
	for _, a := range [][2]string{
		{"cause", string(c.Cause)}, {"evidence", c.Evidence}, {"action", c.Action}, {"worker", c.Worker}, {"asker", c.Asker},
	} {
		if a[1] != "" {
			list = append(list, slog.String(a[0], a[1]))
		}
	}
	h.log.LogAttrs(context.Background(), level, text, list...) //nolint:sloglint // texts are constants of this function
}

// ownPids says whose each process is: as of the last scan of the machine's processes, and
// of workers that began since, by the pids in their beats.
func (h *Hive) ownPids() gpu.OwnerOf {
	h.mu.Lock()
	running := h.core.Running()
	h.mu.Unlock()
	names := make(map[uint64]string, len(running))
	for i := range running {
		if r := &running[i]; r.NS == h.ns && !r.Ended {
			names[r.PID] = r.Worker
		}
	}
	return func(pid uint64) (gpu.Owner, string) {
		owner, worker := h.table.owner(pid)
		if name, ok := names[pid]; ok && owner != gpu.Ours {
			return gpu.Ours, name
		}
		return owner, worker
	}
}

func (m *machine) tookFor(reader string, took time.Duration) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.took == nil {
		m.took = make(map[string]time.Duration)
	}
	m.took[reader] = took
}

func (m *machine) readings() map[string]time.Duration {
	m.mu.Lock()
	defer m.mu.Unlock()
	return maps.Clone(m.took)
}

// life is the incarnation of a worker that snapshots carried last, and since when. since
// is zero for the first one that this hive knew.
type life struct {
	inc   uint64
	since time.Time
}

// fillWorkers adds to the records of workers what the driver reports about their
// processes. What it reported before an incarnation began is of an earlier one.
func (m *machine) fillWorkers(list []hivebeat.Record, now time.Time) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.fleet == nil {
		return
	}
	uses := m.fleet.Uses(now)
	next := make(map[string]life, len(list))
	for i := range list {
		r := &list[i]
		l := life{inc: r.Inc}
		if was, ok := m.lives[r.Worker]; ok {
			if l = was; was.inc != r.Inc {
				l = life{r.Inc, now}
			}
		}
		next[r.Worker] = l
		if text, at := m.fleet.Note(now, r.Worker); !at.Before(l.since) {
			r.Fault = text
		}
		if u, ok := uses[r.Worker]; ok && !u.At.Before(l.since) && (r.Live == hivebeat.Alive || r.Live == hivebeat.Late) {
			r.On, r.Proc.VRAM = u.On, u.VRAM
		}
	}
	m.lives = next
}
