package demo

import (
	"fmt"
	"math/rand/v2"
	"runtime"
	"sync"
	"time"

	"github.com/beatfabric/hivebeat"
)

// load is the current work of one worker.
type load struct {
	served
	up    bool // its process is running
	state hivebeat.State
	vram  uint64
	busy  uint64
	queue uint64
	done  uint64
}

// step simulates a second of work: requests arrive, are served, and wait.
func (l *load) step(r *rand.Rand) {
	if !l.up || !l.state.SameAs(hivebeat.Ready) {
		return
	}
	finished := uint64(r.IntN(int(l.busy) + 1))
	l.busy -= finished
	l.done += finished
	l.queue += uint64(r.IntN(int(l.slots)/2 + 2))
	if r.IntN(6) == 0 { // sometimes there are no requests
		l.queue = 0
	}
	start := min(l.queue, l.slots-l.busy)
	l.queue, l.busy = l.queue-start, l.busy+start
	l.queue = min(l.queue, 4*l.slots)
	l.state = hivebeat.Ready
	if l.busy > 0 {
		l.state = hivebeat.Busy
	}
	// The memory that a model takes grows and shrinks with its requests.
	l.vram = l.served.vram + l.served.vram/16*l.busy/l.slots
}

// grow simulates a second of loading: a part of the model gets into memory.
func (l *load) grow(parts uint64) {
	l.vram = min(l.vram+l.served.vram/parts+1, l.served.vram)
}

// end is the end of the process.
func (l *load) end() {
	l.up, l.vram, l.busy, l.queue = false, 0, 0, 0
}

// box is a running simulated machine. It is safe for concurrent use.
type box struct {
	machine
	began time.Time // long before this program
	start time.Time
	seed  uint64

	mu    sync.Mutex
	loads map[string]*load
}

// newBox returns a machine that has been running for a while: its models are loaded.
func newBox(m machine, now time.Time, r *rand.Rand) *box {
	b := &box{machine: m, began: now.Add(-time.Duration(1+r.IntN(400)) * time.Hour), start: now, seed: r.Uint64(), loads: map[string]*load{}}
	for _, s := range m.workers {
		b.loads[s.id] = &load{served: s, up: true, state: hivebeat.Ready, vram: s.vram}
	}
	return b
}

// with calls do with a worker's load, under the lock.
func (b *box) with(id string, do func(*load)) {
	b.mu.Lock()
	defer b.mu.Unlock()
	do(b.loads[id])
}

// look returns a copy of a worker's load.
func (b *box) look(id string) load {
	b.mu.Lock()
	defer b.mu.Unlock()
	return *b.loads[id]
}

func (b *box) uuid(gpu int) string {
	return fmt.Sprintf("GPU-%08x-%04x-4000-8000-%012x", uint32(b.seed), gpu, b.seed>>16)
}

func (b *box) uuids(gpus []int) []string {
	out := make([]string, len(gpus))
	for i, g := range gpus {
		out[i] = b.uuid(g)
	}
	return out
}

// A GPU that fails does so after failAfter, for failFor, and again in each failEvery.
const (
	failAfter = 90 * time.Second
	failFor   = time.Minute
	failEvery = 6 * time.Minute
)

// judge sets the state of a GPU, as the hive of a real one would conclude it.
func (c *card) judge(g *hivebeat.GPU, up time.Duration) {
	switch {
	case c.slow:
		g.State, g.Cause, g.Since = hivebeat.GPUDegraded, hivebeat.CauseThrottle, hivebeat.MillisOf(up)
		g.Evidence = "clocks are slowed down because of heat"
	case c.fails && up >= failAfter && (up-failAfter)%failEvery < failFor:
		g.State, g.Cause, g.Since = hivebeat.GPUFailing, hivebeat.CauseXID, hivebeat.MillisOf((up-failAfter)%failEvery)
		g.Evidence, g.Action = "XID 95: uncontained memory error", hivebeat.ActionReset
	default:
		g.State = hivebeat.GPUOK
	}
}

// gpuFacts returns what a driver would report.
func (b *box) gpuFacts(now time.Time) []hivebeat.GPU {
	b.mu.Lock()
	defer b.mu.Unlock()
	out := make([]hivebeat.GPU, len(b.gpus))
	for i, c := range b.gpus {
		out[i] = hivebeat.GPU{UUID: b.uuid(i), Index: uint64(i), Name: c.name, Total: c.memory, Reserved: gib / 4}
		c.judge(&out[i], now.Sub(b.start))
		var busy, slots uint64
		for _, s := range b.workers {
			l := b.loads[s.id]
			for _, g := range s.gpus {
				if g == i && l.up {
					out[i].Ours += l.vram / uint64(len(s.gpus))
					busy, slots = busy+l.busy, slots+l.slots
				}
			}
		}
		if slots > 0 {
			out[i].Util = 100 * busy / slots
		}
		out[i].Used = min(out[i].Ours+c.foreign, c.memory-gib/4)
		out[i].Temp = 34 + int64(out[i].Util*2/5)
		out[i].Power = c.watts * (80 + out[i].Util*9) // mW: 8 % idle, 98 % at full load
	}
	return out
}

// hostFacts returns what the operating system would report.
func (b *box) hostFacts(now time.Time) hivebeat.Host {
	b.mu.Lock()
	defer b.mu.Unlock()
	h := hivebeat.Host{
		Name: b.hive, OS: "linux", Arch: runtime.GOARCH, CPUs: b.cpus, MemTotal: b.memory,
		MemUsed: b.memory / 8, Uptime: uint64(now.Sub(b.began) / time.Second),
		Kernel: "6.8.0-49-generic", Driver: "550.127.05", CacheTotal: 2048 * gib, CacheFree: b.memory * 3, StoreTotal: 256 * gib, StoreFree: 201 * gib,
	}
	for _, l := range b.loads {
		if l.up {
			h.MemUsed += l.vram / 4
			h.Load1 += 0.2 + float64(l.busy)/2
		}
	}
	h.CPU = min(100, 100*h.Load1/float64(b.cpus))
	return h
}
