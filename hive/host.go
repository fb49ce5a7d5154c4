package hive

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"time"

	"github.com/shirou/gopsutil/v4/cpu"
	"github.com/shirou/gopsutil/v4/host"
	"github.com/shirou/gopsutil/v4/load"
	"github.com/shirou/gopsutil/v4/mem"

	"github.com/beatfabric/hivebeat"
)

// firstCPU is how long the first reading measures the CPU usage. It has no earlier
// reading to compare with, and 0 would say that the machine is idle.
const firstCPU = 200 * time.Millisecond

// hostReader reads the facts of this machine. It keeps the CPU times of its previous
// reading and shares them with no other reader, so cpu is the average since that reading.
type hostReader struct {
	last  cpu.TimesStat
	known bool
}

// read returns the facts that it can read. It returns an error, which names the missing
// facts, only if all of them are missing. The first call takes firstCPU longer.
func (r *hostReader) read(ctx context.Context) (hivebeat.Host, error) {
	h := hivebeat.Host{OS: runtime.GOOS, Arch: runtime.GOARCH, CPUs: uint64(runtime.NumCPU())}
	h.Name, _ = os.Hostname()
	var errs []error
	note := func(what string, err error) bool {
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", what, err))
		}
		return err == nil
	}
	if runtime.GOOS != "windows" { // Windows has none; gopsutil would start a goroutine that never ends
		if l, err := load.AvgWithContext(ctx); note("load", err) {
			h.Load1 = l.Load1
		}
	}
	if m, err := mem.VirtualMemoryWithContext(ctx); note("memory", err) {
		h.MemTotal, h.MemUsed = m.Total, m.Total-min(m.Available, m.Total)
	}
	if up, err := host.UptimeWithContext(ctx); note("uptime", err) {
		h.Uptime = up
	}
	if !r.known {
		first, _, err := cpuTimes(ctx)
		r.last, r.known = first, err == nil
		select {
		case <-time.After(firstCPU):
		case <-ctx.Done(): // the second reading fails, and reports it
		}
	}
	if t, n, err := cpuTimes(ctx); note("cpu", err) {
		h.CPUs = uint64(n)
		if r.known {
			h.CPU = busy(r.last, t)
		}
		r.last, r.known = t, true
	}
	if k, err := host.KernelVersionWithContext(ctx); err == nil {
		h.Kernel = k
	}
	if len(errs) == 4 {
		return h, errors.Join(errs...)
	}
	return h, nil
}

// busy returns the percentage of time between two readings that the CPUs were not idle,
// averaged over all CPUs.
func busy(from, to cpu.TimesStat) float64 {
	total := func(t cpu.TimesStat) float64 {
		// User and Nice include guest time.
		return t.User + t.System + t.Idle + t.Nice + t.Iowait + t.Irq + t.Softirq + t.Steal
	}
	all := total(to) - total(from)
	idle := to.Idle + to.Iowait - from.Idle - from.Iowait
	if all <= 0 {
		return 0
	}
	return min(100, max(0, 100*(all-idle)/all))
}

// cpuTimes returns the times of all n CPUs together since the machine started. It does not
// count the CPUs in /proc/cpuinfo, which takes milliseconds on a machine with many.
func cpuTimes(ctx context.Context) (sum cpu.TimesStat, n int, err error) {
	list, err := cpu.TimesWithContext(ctx, true)
	switch {
	case err != nil:
		return sum, 0, err
	case len(list) == 0:
		return sum, 0, errNone
	}
	for i := range list {
		t := &list[i]
		sum.User, sum.System, sum.Idle, sum.Nice = sum.User+t.User, sum.System+t.System, sum.Idle+t.Idle, sum.Nice+t.Nice
		sum.Iowait, sum.Irq, sum.Softirq, sum.Steal = sum.Iowait+t.Iowait, sum.Irq+t.Irq, sum.Softirq+t.Softirq, sum.Steal+t.Steal
	}
	return sum, len(list), nil
}
