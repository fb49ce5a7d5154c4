package hive

import (
	"context"
	"errors"
	"fmt"
	"math"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/beatfabric/hivebeat"
	"github.com/beatfabric/hivebeat/internal/gpu"
	"github.com/beatfabric/hivebeat/internal/wire"
)

// stored records what a collector stored, in order.
type stored struct {
	mu   sync.Mutex
	list []string
}

func (s *stored) add(_ time.Time, v int, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err != nil {
		s.list = append(s.list, err.Error())
	} else {
		s.list = append(s.list, strings.Repeat("x", v))
	}
}

func (s *stored) get() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]string{}, s.list...)
}

func TestCollectorKeepsItsPace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var s stored
		n := 0
		c := collector[int]{every: 10 * second, limit: 5 * second, store: s.add, read: func(context.Context) (int, error) {
			n++
			if n == 2 {
				return 0, errors.New("broken")
			}
			return n, nil
		}}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { c.run(ctx); close(done) }()
		time.Sleep(25 * second)
		cancel()
		<-done
		if diff := cmp.Diff([]string{"x", "broken", "xxx"}, s.get()); diff != "" {
			t.Error(diff)
		}
	})
}

func TestAReadingThatTakesTooLongIsEnded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var s stored
		c := collector[int]{every: 10 * second, limit: 5 * second, store: s.add, read: func(ctx context.Context) (int, error) {
			<-ctx.Done()
			return 0, ctx.Err()
		}}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { c.run(ctx); close(done) }()
		time.Sleep(21 * second) // the first runs until 5 s, the second from 15 to 20 s
		cancel()
		<-done
		if diff := cmp.Diff([]string{"no answer within 5s", "no answer within 5s"}, s.get()); diff != "" {
			t.Error(diff)
		}
	})
}

// A process in uninterruptible sleep does not end when it is killed.
func TestAReadingThatCanNotBeEndedIsNotRepeated(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var s stored
		var begun atomic.Int32
		release := make(chan struct{})
		c := collector[int]{every: 10 * second, limit: 5 * second, store: s.add, read: func(context.Context) (int, error) {
			if begun.Add(1) == 1 {
				<-release
			}
			return 1, nil
		}}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { c.run(ctx); close(done) }()
		time.Sleep(time.Hour)
		if n := begun.Load(); n != 1 {
			t.Errorf("%d readings begun while the first hangs", n)
		}
		if got := s.get(); len(got) != 1 || !strings.Contains(got[0], "cannot be stopped") {
			t.Errorf("told %q", got)
		}
		close(release)
		time.Sleep(11 * second)
		if got := s.get(); begun.Load() != 2 || got[len(got)-1] != "x" {
			t.Errorf("%d readings, told %q: it should go on once it ended", begun.Load(), got)
		}
		cancel()
		<-done
	})
}

func TestAReadingThatHangsDoesNotKeepTheHive(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var s stored
		release := make(chan struct{})
		c := collector[int]{every: 10 * second, limit: 5 * second, store: s.add, read: func(context.Context) (int, error) { <-release; return 1, nil }}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { c.run(ctx); close(done) }()
		time.Sleep(time.Minute)
		cancel()
		begun := time.Now()
		<-done
		if took := time.Since(begun); took > collectEnd {
			t.Errorf("took %s to leave", took)
		}
		close(release)
	})
}

// Whatever a source returns, a queen accepts the snapshot.
func TestWildFactsFitTheWire(t *testing.T) {
	var m machine
	wild := "\xff\xfe" + strings.Repeat("ä\n", 400)
	m.storeHost(hivebeat.Host{
		Name: wild, OS: wild, Arch: wild, CPUs: math.MaxUint64, Load1: math.NaN(), CPU: math.Inf(1),
		MemTotal: math.MaxUint64, MemUsed: math.MaxUint64, Uptime: math.MaxUint64,
	}, nil)
	gpus := make([]hivebeat.GPU, 100)
	for i := range gpus {
		gpus[i] = hivebeat.GPU{
			UUID: wild, Name: wild, Err: wild, Index: math.MaxUint64, Total: math.MaxUint64, Used: math.MaxUint64,
			Ours: math.MaxUint64, Util: math.MaxUint64, Power: math.MaxUint64, Age: math.MaxUint64, Temp: math.MinInt64,
		}
	}
	r := gpu.Reading{Driver: wild, ProcsErr: errors.New(wild), Partial: errors.New(wild), Mentions: []gpu.Mention{{Index: 0, Bus: wild, Fault: gpu.Fault{State: hivebeat.GPUState(wild)}}}}
	for i, g := range gpus {
		g.UUID = fmt.Sprint(i, wild)
		if i%3 == 0 {
			g.Err = ""
		}
		for range 20 {
			g.Instances = append(g.Instances, hivebeat.GPUInstance{UUID: wild, Profile: wild, Total: math.MaxUint64, Used: math.MaxUint64, Reserved: math.MaxUint64})
		}
		r.Devices = append(r.Devices, gpu.Device{GPU: g, Faults: []gpu.Fault{{
			State: hivebeat.GPUFailing, Cause: hivebeat.Cause(wild), Evidence: wild, Action: wild,
		}}})
	}
	m.fleet = gpu.New(gpu.Config{Sources: []string{wild}})
	m.fleet.Read(t0, wild, r, nil)
	m.set(sourceGPU, m.fleet.Collect())
	s := hivebeat.Snapshot{V: 1, Hive: thisHive, Inc: 1, Seq: 1, Every: 15_000, Pages: 1}
	m.fill(&s, t0)
	list, err := pages(s, 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	got, err := wire.DecodeSnapshot(list[0])
	if err != nil {
		t.Fatalf("a queen refuses it: %v", err)
	}
	if len(got.GPUs) != hivebeat.MaxGPUs || len(got.GPUTr) != hivebeat.MaxGPUTransitions || got.GPUN != hivebeat.MaxGPUs {
		t.Errorf("%d GPUs, %d of %d transitions", len(got.GPUs), len(got.GPUTr), got.GPUN)
	}
}

func TestHostFactsHaveTwoDecimals(t *testing.T) {
	var m machine
	for in, want := range map[float64]float64{1.0999999999999999: 1.1, 7.246: 7.25, 0.1 + 0.2: 0.3, 99.999: 100, math.MaxFloat64: math.MaxFloat64} {
		m.storeHost(hivebeat.Host{Load1: in, CPU: in}, nil)
		if m.host.Load1 != want || m.host.CPU != want {
			t.Errorf("%v is kept as %v and %v, want %v", in, m.host.Load1, m.host.CPU, want)
		}
	}
}

func TestClip(t *testing.T) {
	for _, c := range []struct {
		in   string
		n    int
		want string
	}{
		{"short", 10, "short"},
		{" a\r\n b\t", 10, "a b"},
		{"äöü", 5, "äö"},
		{"a\xffb", 10, "a?b"},
		{"\xff\xff", 1, "?"},
		{"", 3, ""},
	} {
		if got := clip(c.in, c.n); got != c.want {
			t.Errorf("clip(%q, %d) = %q, want %q", c.in, c.n, got, c.want)
		}
	}
}

func TestHostFacts(t *testing.T) {
	var r hostReader
	if _, err := r.read(t.Context()); err != nil {
		t.Fatal(err)
	}
	h, err := r.read(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if h.Name == "" || h.OS == "" || h.Arch == "" || h.CPUs == 0 || h.MemTotal == 0 || h.MemUsed == 0 || h.MemUsed > h.MemTotal || h.Uptime == 0 || h.CPU < 0 || h.CPU > 100 {
		t.Errorf("host facts %+v", h)
	}
}

// The first reading reports how busy the machine is, and not that it is idle.
func TestTheFirstReadingKnowsTheCPU(t *testing.T) {
	var stop atomic.Bool
	var wg sync.WaitGroup
	wg.Go(func() { // keep one CPU busy
		for !stop.Load() {
		}
	})
	defer func() { stop.Store(true); wg.Wait() }()
	var r hostReader
	h, err := r.read(t.Context())
	switch {
	case err != nil:
		t.Fatal(err)
	case !r.known:
		t.Skip("the CPU times of this machine cannot be read")
	case h.CPU <= 0:
		t.Errorf("cpu is %v after the first reading", h.CPU)
	}
}
