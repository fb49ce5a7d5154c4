package hive

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/beatfabric/hivebeat"
	"github.com/beatfabric/hivebeat/internal/bustest"
	"github.com/beatfabric/hivebeat/internal/gpu"
)

const gib = 1 << 30

// driver is a reader whose answers a test sets.
type driver struct {
	mu     sync.Mutex
	answer func(context.Context) (gpu.Reading, error)
	calls  int
	report func(gpu.Incident)
}

func (*driver) Name() string { return "driver" }

func (d *driver) Read(ctx context.Context) (gpu.Reading, error) {
	d.mu.Lock()
	d.calls++
	f := d.answer
	d.mu.Unlock()
	return f(ctx)
}

func (d *driver) Watch(ctx context.Context, report func(gpu.Incident)) error {
	d.mu.Lock()
	d.report = report
	d.mu.Unlock()
	<-ctx.Done()
	return nil
}

func (d *driver) set(f func(context.Context) (gpu.Reading, error)) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.answer = f
}

func (d *driver) says(r gpu.Reading, err error) {
	d.set(func(context.Context) (gpu.Reading, error) { return r, err })
}

// two is a reading of two GPUs.
func two() gpu.Reading {
	r := gpu.Reading{Driver: "590.48.01"}
	for i := range uint64(2) {
		r.Devices = append(r.Devices, gpu.Device{GPU: hivebeat.GPU{
			UUID: fmt.Sprintf("GPU-%d", i), Index: i, Name: "H100", Bus: fmt.Sprintf("0000:%02x:00.0", 0x1a+i), Total: 80 * gib, Used: 30 * gib, Reserved: gib,
		}})
	}
	return r
}

// driven configures a hive whose GPUs d reads, and returns its log.
func driven(d *driver) (Config, *text) {
	log := &text{}
	cfg := quickConfig()
	cfg.GPUs, cfg.readers, cfg.Logger = nil, []gpu.Reader{d}, log.Logger(slog.LevelInfo)
	return cfg, log
}

func states(s said) (list []string) {
	for _, g := range s.GPUs {
		list = append(list, string(g.State))
	}
	return list
}

// told returns the transitions of all snapshots, each once.
func (q *queen) told() (list []string) {
	last := uint64(0)
	for _, s := range q.all() {
		for _, tr := range s.GPUTr {
			if tr.N > last {
				last = tr.N
				list = append(list, fmt.Sprintf("%d %s %s", tr.N, tr.Kind, tr.GPU))
			}
		}
	}
	return list
}

func count(log *text, what string) int { return strings.Count(log.String(), what) }

func TestAGPUDisappearsAndComesBack(t *testing.T) {
	d := &driver{}
	d.says(two(), nil)
	cfg, log := driven(d)
	virtual(t, cfg, func(t *testing.T, _ *Hive, q *queen, _ func(*fake), _ *nats.Conn) {
		pass(3 * second)
		s, _ := q.last()
		if diff := cmp.Diff([]string{"ok", "ok"}, states(s)); diff != "" || s.Collect[sourceGPU] != "ok" || s.Host.Driver != "590.48.01" || len(s.GPUTr) != 0 {
			t.Errorf("two GPUs: %v, driver %q, %s, %+v", s.Collect, s.Host.Driver, diff, s.GPUTr)
		}
		r := two()
		r.Devices, r.Present = r.Devices[:1], 1
		d.says(r, nil)
		pass(10 * second)
		s = q.await(t, "a GPU that is gone", func(s said) bool { return len(s.GPUs) == 2 && s.GPUs[1].State == hivebeat.GPUGone })
		if !strings.Contains(s.Collect[sourceGPU], "error: driver") && !strings.Contains(s.Collect[sourceGPU], "GPU 1 (GPU-1) is gone") || s.GPUs[1].Since > 1000 {
			t.Errorf("gone: %v %+v", s.Collect, s.GPUs[1])
		}
		d.says(two(), nil)
		pass(time.Minute)
		s, _ = q.last()
		if diff := cmp.Diff([]string{"1 gpu-lost GPU-1", "2 gpu-recovered GPU-1"}, q.told()); diff != "" || s.Collect[sourceGPU] != "ok" || s.GPUN != 2 {
			t.Errorf("back: %v, number %d, %s", s.Collect, s.GPUN, diff)
		}
		if count(log, "GPU is gone") != 1 || count(log, "GPU works again") != 1 || count(log, "cannot collect") != 0 {
			t.Errorf("logged:\n%s", log)
		}
	})
}

// A reader that hangs is one finding, and delays no snapshot.
func TestAReaderOfGPUsHangs(t *testing.T) {
	d := &driver{}
	d.says(two(), nil)
	cfg, log := driven(d)
	virtual(t, cfg, func(t *testing.T, _ *Hive, q *queen, _ func(*fake), _ *nats.Conn) {
		pass(3 * second)
		release := make(chan struct{})
		d.set(func(context.Context) (gpu.Reading, error) { <-release; return two(), nil })
		begun, before := time.Now(), len(q.all())
		pass(30 * second)
		if s, _ := q.last(); s.GPUs[0].State != hivebeat.GPUOK {
			t.Errorf("after 30 s: %v", states(s))
		}
		pass(10 * time.Minute)
		s, _ := q.last()
		if diff := cmp.Diff([]string{"unknown", "unknown"}, states(s)); diff != "" || !strings.Contains(s.Collect[sourceGPU], "no answer within 30s") {
			t.Errorf("it hangs: %v %s", s.Collect, diff)
		}
		if n, least := len(q.all())-before, int(time.Since(begun)/hivebeat.HiveEvery); n < least {
			t.Errorf("%d snapshots, want %d at least", n, least)
		}
		if count(log, "cannot collect") != 1 || count(log, "GPUs cannot be read") != 1 || d.calls != 2 {
			t.Errorf("%d calls; logged:\n%s", d.calls, log)
		}
		close(release)
		pass(15 * second)
		s, _ = q.last()
		if diff := cmp.Diff([]string{"ok", "ok"}, states(s)); diff != "" || len(q.told()) != 0 {
			t.Errorf("it ends: %s, %q", diff, q.told())
		}
	})
}

// Slow is slow, not absent; and it is not called again sooner than its last call took.
func TestAReaderOfGPUsTakes12Seconds(t *testing.T) {
	d := &driver{}
	d.set(func(context.Context) (gpu.Reading, error) { time.Sleep(12 * second); return two(), nil })
	cfg, _ := driven(d)
	virtual(t, cfg, func(t *testing.T, h *Hive, q *queen, _ func(*fake), _ *nats.Conn) {
		pass(13 * second)
		for range 20 {
			pass(30 * second)
			if s, _ := q.last(); len(s.GPUs) != 2 || s.GPUs[0].State != hivebeat.GPUOK || s.Collect[sourceGPU] != "ok" {
				t.Fatalf("%v %v", s.Collect, states(s))
			}
		}
		if got := h.Report().Readings["driver"]; got != 12*second || d.calls > 27 {
			t.Errorf("a reading took %s, %d calls in 10 minutes", got, d.calls)
		}
	})
}

// What processes hold is added up for each GPU and instance, and for each worker.
func TestMemoryInASnapshot(t *testing.T) {
	d := &driver{}
	r := two()
	r.Devices[1].GPU = hivebeat.GPU{UUID: "GPU-1", Index: 1, MIG: true, Total: 80 * gib, Used: 30 * gib, Instances: []hivebeat.GPUInstance{
		{UUID: "MIG-a", Profile: "4g.40gb", Total: 40 * gib, Used: 20 * gib}, {UUID: "MIG-b", Profile: "1g.10gb", Total: 10 * gib, Used: 10 * gib},
	}}
	r.Devices = append(r.Devices, gpu.Device{GPU: hivebeat.GPU{UUID: "GPU-2", Index: 2, Name: "NVIDIA GB10", Unified: true}})
	r.Procs = []gpu.Proc{
		{UUID: "GPU-0", PID: 10, Used: 8 * gib},
		{UUID: "GPU-0", PID: 11, Used: 4 * gib},
		{UUID: "GPU-0", PID: 12, Used: 6 * gib},
		{UUID: "GPU-0", PID: 13, Used: 2 * gib},
		{UUID: "MIG-a", PID: 10, Used: 15 * gib},
		{UUID: "GPU-2", PID: 12, Used: 5 * gib},
	}
	d.says(r, nil)
	cfg, log := driven(d)
	cfg.VRAMBudget, cfg.GPUsExpected = 100*gib, 3
	cfg.Host = func(context.Context) (hivebeat.Host, error) {
		return hivebeat.Host{Name: "machine", MemTotal: 119 * gib, MemUsed: 20 * gib}, nil
	}
	cfg.owners = func() gpu.OwnerOf {
		return func(pid uint64) (gpu.Owner, string) {
			switch pid {
			case 10, 11: // 11 is a child of 10
				return gpu.Ours, "w"
			case 12:
				return gpu.Orphaned, "dead"
			}
			return gpu.Foreign, ""
		}
	}
	virtual(t, cfg, func(t *testing.T, h *Hive, q *queen, beat func(*fake), _ *nats.Conn) {
		beat(newFake("w"))
		pass(15 * second)
		d.report(gpu.Incident{PID: 11, Note: "XID 31: the program accessed memory that is not its own"})
		pass(15 * second)
		s, _ := q.last()
		g := s.GPUs
		for i := range g {
			g[i].Age, g[i].Since = 0, 0
		}
		if g[0].Ours != 12*gib || g[0].Orphaned != 6*gib || g[0].Foreign() != 2*gib || g[0].Unattributed != 10*gib || g[0].Free() != 49*gib {
			t.Errorf("GPU 0: %+v", g[0])
		}
		if g[1].Ours != 15*gib || g[1].Unattributed != 15*gib || g[1].Instances[0].Ours != 15*gib || g[1].Instances[0].Unattributed != 5*gib || g[1].Instances[1].Unattributed != 10*gib {
			t.Errorf("GPU 1, split: %+v", g[1])
		}
		if g[2].Total != 119*gib || g[2].Used != 20*gib || g[2].Orphaned != 5*gib || g[2].Unattributed != 15*gib {
			t.Errorf("GPU 2, memory of the machine: %+v", g[2])
		}
		w, _ := worker1(s, "w")
		if diff := cmp.Diff([]string{"GPU-0", "MIG-a"}, w.On); diff != "" || w.Proc.VRAM != 27*gib || !strings.HasPrefix(w.Fault, "XID 31") {
			t.Errorf("worker: %+v, %+v %s", w.Fault, w.Proc, diff)
		}
		if diff := cmp.Diff([]string{"1 gpu-orphan GPU-0", "2 gpu-orphan GPU-2"}, sorted(q.told())); diff != "" || s.VRAMBudget != 100*gib || s.Collect[sourceProcs] != "ok" {
			t.Errorf("orphans: budget %d, %v %s", s.VRAMBudget, s.Collect, diff)
		}
		if count(log, "6.0 GiB held by process 12") != 1 {
			t.Errorf("logged:\n%s", log)
		}

		// A new incarnation is not joined with what the old one held.
		d.says(gpu.Reading{}, errors.New("it fails"))
		pass(11 * second)
		again := newFake("w")
		again.Inc++
		beat(again)
		pass(time.Minute)
		s, _ = q.last()
		if w, _ := worker1(s, "w"); w.Inc != again.Inc || w.On != nil || w.Fault != "" {
			t.Errorf("restarted: %+v", w)
		}
		_ = h
	})
}

func sorted(list []string) []string { // transitions of one moment come in any order
	for i := range list {
		_, rest, _ := strings.Cut(list[i], " ")
		list[i] = rest
	}
	for i := range list {
		for j := range i {
			if list[i] < list[j] {
				list[i], list[j] = list[j], list[i]
			}
		}
	}
	for i := range list {
		list[i] = fmt.Sprint(i+1, " ", list[i])
	}
	return list
}

// A worker stays joined with a GPU that is lost.
func TestAWorkerOfALostGPU(t *testing.T) {
	d := &driver{}
	r := two()
	r.Procs = []gpu.Proc{{UUID: "GPU-1", PID: 10, Used: 8 * gib}}
	d.says(r, nil)
	cfg, _ := driven(d)
	cfg.owners = func() gpu.OwnerOf { return func(uint64) (gpu.Owner, string) { return gpu.Ours, "w" } }
	virtual(t, cfg, func(t *testing.T, _ *Hive, q *queen, beat func(*fake), _ *nats.Conn) {
		w := newFake("w")
		beat(w)
		pass(11 * second)
		d.says(gpu.Reading{Devices: two().Devices[:1]}, nil)
		for range 10 {
			pass(20 * second)
			beat(w)
		}
		s, _ := q.last()
		if got, _ := worker1(s, "w"); cmp.Diff([]string{"GPU-1"}, got.On) != "" || got.Proc.VRAM != 0 || s.GPUs[1].State != hivebeat.GPUGone {
			t.Errorf("worker on %q with %d bytes, %v", got.On, got.Proc.VRAM, states(s))
		}
	})
}

// A queen passes on that an operator forgets a GPU.
func TestForgetAGPU(t *testing.T) {
	d := &driver{}
	d.says(two(), nil)
	cfg, log := driven(d)
	virtual(t, cfg, func(t *testing.T, _ *Hive, q *queen, _ func(*fake), nc *nats.Conn) {
		pass(3 * second)
		ask := func(subject string, f hivebeat.Forget) {
			publish(t, nc, subject, f.Append(nil))
			synctest.Wait()
			pass(2 * second)
		}
		ask("queen.rollcall."+thisHive, hivebeat.Forget{GPU: "GPU-1", Asker: "ann"})
		if s, _ := q.last(); len(s.GPUs) != 2 || count(log, "a GPU is not forgotten") != 1 {
			t.Errorf("one that is there: %v\n%s", states(s), log)
		}
		d.says(gpu.Reading{Devices: two().Devices[:1]}, nil)
		pass(11 * second)
		ask("queen.rollcall", hivebeat.Forget{GPU: "GPU-1", Asker: "ann"})
		if s, _ := q.last(); len(s.GPUs) != 2 {
			t.Errorf("asked of all hives: %v", states(s))
		}
		ask("queen.rollcall."+thisHive, hivebeat.Forget{GPU: "GPU-1", Asker: "ann"})
		s, _ := q.last()
		if n := len(s.GPUTr); len(s.GPUs) != 1 || n == 0 || s.GPUTr[n-1].Kind != hivebeat.KindGPUForgotten || s.GPUTr[n-1].Asker != "ann" || s.Collect[sourceGPU] != "ok" {
			t.Errorf("forgotten: %v %+v %v", states(s), s.GPUTr, s.Collect)
		}
	})
}

// A GPU that disappears while its hive is down is gone, not forgotten.
func TestAGPUDisappearsOverARestart(t *testing.T) {
	srv := bustest.Server(t)
	nc := bustest.Conn(t, srv)
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	kv, err := js.CreateKeyValue(t.Context(), jetstream.KeyValueConfig{Bucket: hivebeat.BucketRoster, Storage: jetstream.MemoryStorage})
	if err != nil {
		t.Fatal(err)
	}
	var m gpu.Memory
	for _, d := range two().Devices {
		d.GPU.State = hivebeat.GPUOK
		m.GPUs = append(m.GPUs, gpu.Keep(&d.GPU))
	}
	b, err := m.Encode()
	if err == nil {
		_, err = kv.Put(t.Context(), gpu.MemoryKey(thisHive), b)
	}
	if err != nil {
		t.Fatal(err)
	}
	q := listening(t, nc)
	d := &driver{}
	d.says(gpu.Reading{Devices: two().Devices[:1]}, nil)
	cfg, log := driven(d)
	running(t, nc, cfg)
	s := q.await(t, "a GPU that is gone", func(s said) bool { return len(s.GPUs) == 2 && s.GPUs[1].State == hivebeat.GPUGone })
	if len(s.GPUTr) != 1 || s.GPUTr[0].Kind != hivebeat.KindGPULost || s.GPUs[1].Name != "H100" {
		t.Errorf("%+v %+v\n%s", s.GPUs, s.GPUTr, log)
	}
}

func TestRestarted(t *testing.T) {
	for _, c := range []struct {
		boot, ns   string
		stored, up time.Duration
		want       bool
	}{
		{"a", "a/1", time.Hour, time.Minute, false},
		{"a", "b/1", time.Minute, time.Hour, true},
		{"", "b/1", time.Hour, time.Minute, true},
		{"", "b/1", time.Minute, time.Hour, false},
		{"", "", time.Hour, 0, false}, // no boot clock
	} {
		if got := restarted(c.boot, c.ns, c.stored, c.up); got != c.want {
			t.Errorf("%+v: %t", c, got)
		}
	}
}

// A function of the user that reads GPUs goes the same way.
func TestConfiguredGPUs(t *testing.T) {
	list := []hivebeat.GPU{{UUID: "GPU-a", Total: 100, Used: 30, Ours: 20}, {Index: 1, Total: 100, State: hivebeat.GPUFailing, Cause: hivebeat.CauseXID, Evidence: "XID 48"}}
	cfg := quickConfig()
	var mu sync.Mutex // of list
	cfg.GPUs = func(context.Context) ([]hivebeat.GPU, error) {
		mu.Lock()
		defer mu.Unlock()
		return list, nil
	}
	virtual(t, cfg, func(t *testing.T, _ *Hive, q *queen, _ func(*fake), _ *nats.Conn) {
		pass(3 * second)
		s, _ := q.last()
		if diff := cmp.Diff([]string{"ok", "failing"}, states(s)); diff != "" || s.GPUs[0].Ours != 20 || s.GPUs[0].Foreign() != 10 || s.Collect[sourceProcs] != "none" {
			t.Errorf("%v %+v %s", s.Collect, s.GPUs, diff)
		}
		mu.Lock()
		list = nil
		mu.Unlock()
		pass(10 * second)
		s, _ = q.last()
		if diff := cmp.Diff([]string{"gone", "gone"}, states(s)); diff != "" || s.Collect[sourceGPU] == "none" {
			t.Errorf("%v %s", s.Collect, diff)
		}
	})
}

func TestGPUConfig(t *testing.T) {
	nc := bustest.Conn(t, bustest.Server(t, bustest.NoJetStream()))
	for want, change := range map[string]func(*Config){
		"Config.GPUsExpected":       func(c *Config) { c.GPUsExpected = -1 },
		"Config.GPULimit":           func(c *Config) { c.GPULimit = time.Millisecond },
		"Config.VRAMBudget":         func(c *Config) { c.VRAMBudget = 1 << 60 },
		"Config.FaultTable: line 2": func(c *Config) { c.FaultTable = []byte("# mine\nxid 79 tired\n") },
	} {
		cfg := quickConfig()
		change(&cfg)
		if _, err := New(nc, cfg); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v does not name %s", err, want)
		}
	}
}
