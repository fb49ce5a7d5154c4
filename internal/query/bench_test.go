//go:build linux

package query

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/beatfabric/hivebeat"
	"github.com/beatfabric/hivebeat/internal/fleet"
	"github.com/beatfabric/hivebeat/queen/api"
)

var hivesFlag = flag.Int("hives", 10_000, "hives of the fleet of the benchmarks, with 100 workers each")

// bigFleet is created once, which takes some seconds. Its now stands still.
var bigFleet = sync.OnceValue(func() *fleet.View {
	before := heapInUse()
	v := fleet.New(45 * time.Second)
	v.Index().Begin(1)
	for i := range *hivesFlag {
		feed(panics{}, v, bigSnapshot(i, 1), at(0))
	}
	v.Take()
	bigFleetHeap = heapInUse() - before
	return v
})

// bigFleetHeap is the size of bigFleet in bytes, including the last messages of its hives,
// up to 256 MiB of them.
var bigFleetHeap uint64

func heapInUse() uint64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

type panics struct{}

func (panics) Helper()                           {}
func (panics) Fatalf(format string, args ...any) { panic(fmt.Sprintf(format, args...)) }

// bigSnapshot returns the snapshot of hive i: 100 workers with three of 20 models on 8
// GPUs, in one of 16 zones.
func bigSnapshot(i int, seq uint64) *hivebeat.Snapshot {
	r := rand.New(rand.NewPCG(uint64(i), seq))
	s := snapshotOf(fmt.Sprintf("gpu-%05d", i), fmt.Sprintf("zone-%d", i%16), seq)
	s.Labels["rack"] = fmt.Sprintf("r%d", i%100)
	s.Host = hivebeat.Host{Name: s.Hive, OS: "linux", Arch: "amd64", CPUs: 64, CPU: r.Float64() * 100, MemTotal: 512 << 30, MemUsed: 99 << 30}
	for k := range 8 {
		s.GPUs = append(s.GPUs, hivebeat.GPU{
			UUID: fmt.Sprintf("GPU-%05d-%d", i, k), Index: uint64(k), Name: "H100", Total: 80 << 30, Used: uint64(r.IntN(81)) << 30,
		})
	}
	for k := range 100 {
		w := workerOf(fmt.Sprintf("llama-%04d", k), fmt.Sprintf("model-%d", (i+k%3)%20), 16, uint64(r.IntN(17)))
		w.Age = hivebeat.Millis(r.IntN(28_000))
		w.Labels = map[string]string{"tier": "prod"}
		w.GPUs = []string{s.GPUs[k%8].UUID}
		switch r.IntN(20) {
		case 0:
			w.State = hivebeat.Draining
		case 1:
			w.Live = hivebeat.Late
		case 2:
			w.State = hivebeat.Loading
		}
		if i == *hivesFlag/2 && k == 50 {
			w.Labels["gold"] = "1"
		}
		s.Workers = append(s.Workers, w)
	}
	return s
}

// percentiles runs f as often as the benchmark asks, and reports the CPU time of its
// thread: other load on the machine does not count.
func percentiles(b *testing.B, f func()) {
	b.Helper()
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	clock := func() time.Duration {
		var t unix.Timespec
		if err := unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &t); err != nil {
			b.Fatal(err)
		}
		return time.Duration(t.Nano())
	}
	var took []time.Duration
	b.ReportAllocs()
	for b.Loop() {
		began := clock()
		f()
		took = append(took, clock()-began)
	}
	slices.Sort(took)
	for _, p := range []int{50, 99} {
		b.ReportMetric(float64(took[len(took)*p/100].Nanoseconds()), fmt.Sprintf("cpu-p%d-ns", p))
	}
}

// BenchmarkMemory reports the memory that the fleet takes, per worker.
func BenchmarkMemory(b *testing.B) {
	v := bigFleet()
	for b.Loop() {
		runtime.KeepAlive(v)
	}
	b.ReportMetric(float64(bigFleetHeap)/float64(v.Index().Totals().Workers), "B/worker")
}

func BenchmarkSummary(b *testing.B) {
	v := bigFleet()
	percentiles(b, func() { ask(b, v, api.VerbSummary, api.Request{}, at(1)) })
}

func BenchmarkPage(b *testing.B) {
	v := bigFleet()
	for _, c := range []struct {
		name, verb string
		r          api.Request
	}{
		{"workers", api.VerbWorkers, api.Request{After: "gpu-05000/llama-0050"}},
		{"workers-model", api.VerbWorkers, api.Request{Filter: api.Filter{Model: "model-7"}}},
		{"workers-glob-zone", api.VerbWorkers, api.Request{Filter: api.Filter{Model: "*-1?", Zone: "zone-3"}}},
		{"workers-late", api.VerbWorkers, api.Request{Filter: api.Filter{Live: []hivebeat.Live{hivebeat.Late}}}},
		{"workers-none", api.VerbWorkers, api.Request{Filter: api.Filter{Model: "none"}}},
		{"workers-offset", api.VerbWorkers, api.Request{Offset: 900_000}},
		{"workers-selector", api.VerbWorkers, api.Request{Filter: api.Filter{Selector: "tier=prod,rack=r50"}}},
		{"workers-selector-rare", api.VerbWorkers, api.Request{Filter: api.Filter{Selector: "gold"}}},
		{"workers-text", api.VerbWorkers, api.Request{Filter: api.Filter{Text: "0099"}}},
		{"workers-by-live", api.VerbWorkers, api.Request{Sort: "-live"}},
		{"workers-by-busy", api.VerbWorkers, api.Request{Sort: "-busy"}},
		{"hives", api.VerbHives, api.Request{}},
		{"hives-zone", api.VerbHives, api.Request{Filter: api.Filter{Zone: "zone-3", Model: "model-7"}}},
		{"hives-by-free-memory", api.VerbHives, api.Request{Sort: "-vram_free"}},
		{"hives-text", api.VerbHives, api.Request{Filter: api.Filter{Text: "999"}}},
	} {
		c.r.Limit = 100
		b.Run(c.name, func(b *testing.B) { percentiles(b, func() { ask(b, v, c.verb, c.r, at(1)) }) })
	}
}

// BenchmarkStep measures how long one step of a long question holds the view.
func BenchmarkStep(b *testing.B) {
	v := bigFleet()
	var job Job
	percentiles(b, func() {
		if job == nil {
			job = Page(api.VerbWorkers, api.Request{Sort: "-busy"})
		}
		if job.Step(v.Index(), at(1)) {
			job = nil
		}
	})
}

// BenchmarkWatch measures a watcher that catches up on this many changes.
func BenchmarkWatch(b *testing.B) {
	v := bigFleet()
	seq := uint64(1)
	for _, c := range []struct {
		name string
		r    api.Request
	}{
		{"nothing", api.Request{}},
		{"hive-of-one", api.Request{}},
		{"other-model", api.Request{Filter: api.Filter{Model: "none"}}},
	} {
		b.Run(c.name, func(b *testing.B) {
			w := NewWatch("q", c.r)
			for w.Step(v.Index(), nil, at(1)); w.Answer().More; w.Step(v.Index(), nil, at(1)) {
				w.answer = api.Answer{}
			}
			if c.name != "nothing" {
				seq++
				feed(b, v, bigSnapshot(0, seq), at(1))
			}
			c.r.After = w.next()
			if c.name != "nothing" {
				seq++
				feed(b, v, bigSnapshot(0, seq), at(1))
			}
			percentiles(b, func() { NewWatch("q", c.r).Step(v.Index(), nil, at(1)) })
		})
	}
}

func BenchmarkPick(b *testing.B) {
	v := bigFleet()
	for _, c := range []struct {
		name string
		r    api.Request
	}{
		{"model", api.Request{Filter: api.Filter{Model: "model-7"}}},
		{"model-20", api.Request{N: 20, Filter: api.Filter{Model: "model-7"}}},
		{"model-zone", api.Request{Filter: api.Filter{Model: "model-7", Zone: "zone-3"}}},
		{"any", api.Request{}},
		{"glob-selector", api.Request{Filter: api.Filter{Model: "model-1*", Selector: "rack in (r1,r2,r3,r4,r5,r6,r7,r8,r9)"}}},
		{"rare-selector", api.Request{Filter: api.Filter{Model: "model-7", Selector: "rack=r50"}}},
		{"none", api.Request{Filter: api.Filter{Model: "none"}}},
		{"gpu", api.Request{For: api.ForGPU, Filter: api.Filter{FreeVRAM: 40 << 30}}},
		{"gpu-model", api.Request{For: api.ForGPU, Filter: api.Filter{FreeVRAM: 40 << 30, Model: "model-7"}}},
	} {
		b.Run(c.name, func(b *testing.B) {
			percentiles(b, func() {
				v.Settle(at(1))
				f := NewFinder(c.r, nil)
				for !f.Step(v.Index(), at(1)) {
				}
			})
		})
	}
}
