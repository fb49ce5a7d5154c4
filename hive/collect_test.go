package hive

import (
	"context"
	"errors"
	"math"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/beatfabric/hivebeat"
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
		if got := s.get(); len(got) != 1 || !strings.Contains(got[0], "can not be ended") {
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

func TestMachineKeepsFactsAndTheirAge(t *testing.T) {
	var m machine
	g := func(uuid string, used uint64) hivebeat.GPU {
		return hivebeat.GPU{UUID: uuid, Name: "H100", Total: 80 << 30, Used: used}
	}
	at := func(s int) time.Time { return t0.Add(time.Duration(s) * second) }
	snap := func(s int) hivebeat.Snapshot {
		var out hivebeat.Snapshot
		m.fill(&out, at(s))
		return out
	}
	apps := []gpuApp{{"GPU-a", 10, 5}, {"GPU-a", 11, 6}, {"GPU-a", 99, 100}, {"GPU-b", 10, 7}}
	m.storeGPUs(at(0), gpuReading{gpus: []hivebeat.GPU{g("GPU-a", 1), g("GPU-b", 2)}, apps: apps}, nil, map[uint64]bool{10: true, 11: true})
	s := snap(3)
	if s.Collect[sourceGPU] != "ok" || s.Collect[sourceProcs] != "ok" || s.GPUs[0].Age != 3000 || s.GPUs[0].Ours != 11 || s.GPUs[1].Ours != 7 {
		t.Errorf("a good reading: %v %+v", s.Collect, s.GPUs)
	}

	before := s.Collect
	m.storeGPUs(at(10), gpuReading{}, errors.New("driver\nhangs"), nil)
	s = snap(20)
	if s.Collect[sourceGPU] != "error: driver hangs" || len(s.GPUs) != 2 || s.GPUs[0].Age != 20_000 || s.GPUs[0].Used != 1 {
		t.Errorf("a failed reading: %v %+v", s.Collect, s.GPUs)
	}
	if got := before[sourceGPU]; got != "ok" {
		t.Errorf("a snapshot that is out was changed: %q, want ok", got)
	}

	m.storeGPUs(at(30), gpuReading{gpus: []hivebeat.GPU{g("GPU-b", 3)}, partial: errors.New("lost one"), appsErr: errors.New("no")}, nil, nil)
	s = snap(31)
	if len(s.GPUs) != 2 || s.GPUs[0].UUID != "GPU-b" || s.GPUs[0].Age != 1000 || s.GPUs[1].Age != 31_000 || s.GPUs[1].Err == "" ||
		s.Collect[sourceGPU] != "error: lost one" || s.Collect[sourceProcs] != "error: no" {
		t.Errorf("a partial reading: %v %+v", s.Collect, s.GPUs)
	}

	m.storeGPUs(at(40), gpuReading{gpus: []hivebeat.GPU{g("GPU-b", 3)}}, nil, nil)
	if s = snap(40); len(s.GPUs) != 1 || s.Collect[sourceGPU] != "ok" {
		t.Errorf("a GPU that is gone: %v %+v", s.Collect, s.GPUs)
	}
	m.storeGPUs(at(50), gpuReading{}, errNone, nil)
	if s = snap(50); len(s.GPUs) != 0 || s.Collect[sourceGPU] != "none" || s.Collect[sourceProcs] != "none" {
		t.Errorf("no GPU: %v %+v", s.Collect, s.GPUs)
	}
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
	m.storeGPUs(t0, gpuReading{gpus: gpus, appsErr: errors.New(wild)}, nil, nil)
	s := hivebeat.Snapshot{V: 1, Hive: thisHive, Inc: 1, Seq: 1, Every: 15_000, Pages: 1}
	m.fill(&s, t0)
	list, err := pages(s, 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := wire.DecodeSnapshot(list[0]); err != nil {
		t.Errorf("a queen refuses it: %v", err)
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
		t.Skip("the CPU times of this machine can not be read")
	case h.CPU <= 0:
		t.Errorf("cpu is %v after the first reading", h.CPU)
	}
}
