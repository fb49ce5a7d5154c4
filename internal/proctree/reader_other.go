//go:build !linux

package proctree

import (
	"context"
	"errors"
	"math"
	"slices"
	"time"

	"github.com/shirou/gopsutil/v4/process"
)

// Reader reads the processes in near with gopsutil, and no others: parents and cgroups are
// those of Linux. Use NewReader.
type Reader struct{ usage map[uint64]Usage }

// NewReader returns a reader of this machine.
func NewReader() *Reader { return &Reader{} }

// Scan reads the processes in near. It returns an error if there are some, and none could
// be read.
func (r *Reader) Scan(ctx context.Context, near map[uint64]bool) (Scan, error) {
	r.usage = make(map[uint64]Usage, len(near))
	s := Scan{Clock: uint64(time.Now().UnixMilli())}
	var failed error
	for pid := range near {
		if err := ctx.Err(); err != nil {
			return Scan{}, err
		}
		p, u, err := readProcess(ctx, pid)
		if err != nil {
			if failed == nil && !errors.Is(err, process.ErrorProcessNotRunning) {
				failed = err
			}
			continue
		}
		s.Procs = append(s.Procs, p)
		r.usage[pid] = u
	}
	if len(s.Procs) == 0 && failed != nil {
		return Scan{}, failed
	}
	slices.SortFunc(s.Procs, func(a, b Process) int {
		if a.PID < b.PID {
			return -1
		}
		return 1
	})
	return s, nil
}

func readProcess(ctx context.Context, pid uint64) (r Process, u Usage, err error) {
	if pid > math.MaxInt32 {
		return r, u, process.ErrorProcessNotRunning
	}
	p := process.Process{Pid: int32(pid)}
	began, err := p.CreateTimeWithContext(ctx)
	if err != nil {
		return r, u, err
	}
	mem, err := p.MemoryInfoWithContext(ctx)
	if err != nil {
		return r, u, err
	}
	times, err := p.TimesWithContext(ctx)
	if err != nil {
		return r, u, err
	}
	r = Process{ID: ID{PID: pid, Start: uint64(max(0, began))}, RSS: mem.RSS, CPU: uint64(1000 * (times.User + times.System))}
	if n, err := p.NumThreadsWithContext(ctx); err == nil && n > 0 {
		r.Threads = uint64(n)
	}
	if io, err := p.IOCountersWithContext(ctx); err == nil {
		u.Read, u.HasIO = max(io.ReadBytes, io.DiskReadBytes), true
	}
	if n, err := p.NumFDsWithContext(ctx); err == nil && n > 0 {
		u.Files = uint64(n)
	}
	return r, u, nil
}

// Cgroup returns none.
func (r *Reader) Cgroup(ID) Cgroup { return Cgroup{} }

// Namespace returns none.
func (r *Reader) Namespace(ID) (Namespace, bool) { return Namespace{}, false }

// Usage returns what a process of the last scan has read.
func (r *Reader) Usage(id ID) Usage { return r.usage[id.PID] }

// Limits returns none.
func (r *Reader) Limits(Cgroup) Limits { return Limits{} }
