package hive

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math"
	"sync"
	"time"

	"github.com/beatfabric/hivebeat"
	"github.com/beatfabric/hivebeat/internal/gpu"
	"github.com/beatfabric/hivebeat/internal/plaintext"
)

// Sources of facts, as named in a snapshot's collect.
const (
	sourceHost  = "host"
	sourceGPU   = "gpu"
	sourceProcs = "procs" // how much GPU memory each process holds
	sourceOS    = "os"    // the processes of workers
)

const (
	collectEvery = 10 * time.Second // pause between the end of a reading and the next one
	collectLimit = 5 * time.Second  // timeout of one reading
	collectEnd   = time.Second      // how long run waits for an unfinished reading once ctx ended
)

// errNone says that a source has nothing to collect.
var errNone = errors.New(hivebeat.CollectNone)

var errPending = errors.New("not read yet")

// collector reads one source repeatedly, and pauses for at least as long as the last
// reading took, up to limit. A reading that ignores its deadline is reported as an error, and no
// further reading starts until it has returned: processes in uninterruptible sleep must
// not pile up.
type collector[T any] struct {
	every, limit time.Duration
	read         func(context.Context) (T, error)
	store        func(at time.Time, v T, err error) // called by one goroutine only
}

// run collects until ctx ends. It abandons a reading that still hangs collectEnd later.
func (c *collector[T]) run(ctx context.Context) {
	type reading struct {
		v   T
		err error
	}
	wait := time.NewTimer(0)
	defer wait.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-wait.C:
		}
		begun := time.Now()
		bounded, cancel := context.WithTimeout(ctx, c.limit)
		done := make(chan reading, 1)
		go func() {
			defer cancel()
			v, err := c.read(bounded)
			done <- reading{v, err}
		}()
		var (
			got  reading
			over bool
		)
		grace := time.NewTimer(c.limit + c.limit/4) // after its context ended, the reading has some time to return its own error
		for !over {
			select {
			case got = <-done:
				over = true
			case <-grace.C:
				var zero T
				c.store(time.Now(), zero, fmt.Errorf("no answer within %s, and the call cannot be stopped; the source is not read again until it returns", c.limit))
			case <-ctx.Done():
				end := time.NewTimer(collectEnd)
				defer end.Stop()
				defer grace.Stop()
				select {
				case <-done:
				case <-end.C:
				}
				return
			}
		}
		grace.Stop()
		switch {
		case ctx.Err() != nil:
			return
		case got.err != nil && errors.Is(bounded.Err(), context.DeadlineExceeded):
			got.err = fmt.Errorf("no answer within %s", c.limit)
		}
		now := time.Now()
		c.store(now, got.v, got.err)
		wait.Reset(max(c.every, min(now.Sub(begun), c.limit)))
	}
}

// machine holds the latest facts of the machine. Snapshots take them from here and
// never wait for a reading. It is safe for concurrent use.
type machine struct {
	mu      sync.Mutex
	host    hivebeat.Host
	disks   disks
	fleet   *gpu.Fleet               // nil: no GPUs are read
	took    map[string]time.Duration // how long the last call of each reader of GPUs took
	lives   map[string]life          // of workers, by id
	collect map[string]string
}

// set records the state of a source, and reports whether it changed. It needs m.mu.
func (m *machine) set(source string, err error) bool {
	word := hivebeat.CollectOK
	switch {
	case errors.Is(err, errNone):
		word = hivebeat.CollectNone
	case err != nil:
		word = clip("error: "+err.Error(), hivebeat.MaxHostText)
	}
	was := m.collect[source]
	if was == word {
		return false
	}
	next := maps.Clone(m.collect) // snapshots hold the old one
	if next == nil {
		next = map[string]string{}
	}
	next[source] = word
	m.collect = next
	return true
}

// note calls set for a source that stores no facts here.
func (m *machine) note(source string, err error) (news bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.set(source, err)
}

// storeHost stores a reading of the host. After a failed reading the previous facts
// stay.
func (m *machine) storeHost(h hivebeat.Host, err error) (news bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err == nil {
		h.Name, h.OS, h.Arch = clip(h.Name, hivebeat.MaxHostText), clip(h.OS, hivebeat.MaxHostText), clip(h.Arch, hivebeat.MaxHostText)
		h.Kernel = clip(h.Kernel, hivebeat.MaxHostText)
		h.CacheTotal, h.CacheFree, h.StoreTotal, h.StoreFree = small(h.CacheTotal), small(h.CacheFree), small(h.StoreTotal), small(h.StoreFree)
		h.Load1, h.CPU = hundredths(finite(h.Load1)), hundredths(finite(h.CPU))
		h.CPUs, h.MemTotal, h.MemUsed, h.Uptime = small(h.CPUs), small(h.MemTotal), small(h.MemUsed), small(h.Uptime)
		m.host = h
		if m.fleet != nil {
			m.fleet.Host(h.MemTotal, h.MemUsed)
		}
	}
	return m.set(sourceHost, err)
}

// fill copies the facts of the machine into s.
func (m *machine) fill(s *hivebeat.Snapshot, now time.Time) {
	m.mu.Lock()
	defer m.mu.Unlock()
	s.Host, s.Collect = m.host, m.collect
	m.disks.fill(&s.Host)
	if m.fleet == nil {
		return
	}
	s.GPUs, s.GPUN, s.GPUTr = m.fleet.GPUs(now), m.fleet.N(), m.fleet.Transitions(now)
	if driver := m.fleet.Driver(); driver != "" {
		s.Host.Driver = driver
	}
}

// clip returns s as a single line of valid UTF-8, at most n bytes long.
func clip(s string, n int) string { return plaintext.Clip(s, n) }

// finite returns f, or 0 if f is NaN, infinite or negative.
func finite(f float64) float64 {
	if math.IsNaN(f) || math.IsInf(f, 0) || f < 0 {
		return 0
	}
	return f
}

// hundredths rounds f to two decimals. A load needs no more, and each answer's JSON
// carries them.
func hundredths(f float64) float64 {
	if f > 1<<40 { // a double this large has no further decimals, and an even larger one would overflow
		return f
	}
	return math.Round(f*100) / 100
}

// small returns n, limited to the largest integer on the wire.
func small(n uint64) uint64 { return min(n, hivebeat.MaxInt) }

func (h *Hive) collectHost(ctx context.Context, wg *sync.WaitGroup) {
	read := h.cfg.Host
	if read == nil {
		read = new(hostReader).read
	}
	c := collector[hivebeat.Host]{
		every: collectEvery, limit: collectLimit, read: read,
		store: func(_ time.Time, v hivebeat.Host, err error) {
			if h.machine.storeHost(v, err) {
				h.collected(sourceHost, err)
			}
		},
	}
	wg.Go(func() { c.run(ctx) })
}

// collected logs the changed state of a source, and asks for a snapshot that carries
// it.
func (h *Hive) collected(source string, err error, more ...slog.Attr) {
	h.pulse.Touch()
	level := slog.LevelInfo
	if source == sourceOS { // it changes with the first worker and after the last one
		level = slog.LevelDebug
	}
	attrs := append([]slog.Attr{slog.String("source", source)}, more...)
	switch {
	case errors.Is(err, errNone):
		h.log.LogAttrs(context.Background(), level, "nothing to collect", attrs...)
	case err != nil:
		h.log.LogAttrs(context.Background(), slog.LevelWarn, "cannot collect", append(attrs, slog.Any("err", err))...)
	default:
		h.log.LogAttrs(context.Background(), level, "collecting", attrs...)
	}
}
