package query

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/beatfabric/hivebeat"
	"github.com/beatfabric/hivebeat/internal/fleet"
	"github.com/beatfabric/hivebeat/internal/index"
	"github.com/beatfabric/hivebeat/queen/api"
)

const giB = uint64(1) << 30

// card returns GPU i of 80 GiB, of which used GiB are in use, in a state.
func card(i, used uint64, state hivebeat.GPUState) hivebeat.GPU {
	return hivebeat.GPU{UUID: fmt.Sprint("GPU-", i), Index: i, Total: 80 * giB, Used: used * giB, State: state, Age: 1000, Evidence: "as the driver says"}
}

// split returns a GPU with MIG set and instances of these sizes in GiB, all empty.
func split(i uint64, sizes ...uint64) hivebeat.GPU {
	g := hivebeat.GPU{UUID: fmt.Sprint("GPU-", i), Index: i, Total: 140 * giB, State: hivebeat.GPUOK, MIG: true}
	for k, n := range sizes {
		g.Instances = append(g.Instances, hivebeat.GPUInstance{UUID: fmt.Sprintf("MIG-%d-%d", i, k), Profile: fmt.Sprintf("%dg", n), Total: n * giB})
	}
	return g
}

// loader returns a worker that loads and needs this many GiB, on these GPUs.
func loader(id string, need uint64, gpus ...string) hivebeat.Record {
	w := workerOf(id, "big", 4, 0)
	w.State, w.Need, w.GPUs = hivebeat.Loading, need*giB, gpus
	return w
}

// on returns a ready worker of the model llama that names these GPUs.
func on(id string, gpus ...string) hivebeat.Record {
	w := workerOf(id, "llama", 4, 0)
	w.GPUs = gpus
	return w
}

// machine returns a view of one hive, gpu-01.
func machine(t failer, gpus []hivebeat.GPU, change func(*hivebeat.Snapshot), workers ...hivebeat.Record) *fleet.View {
	t.Helper()
	v := newView()
	s := snapshotOf("gpu-01", "", 1, workers...)
	s.GPUs = gpus
	if change != nil {
		change(s)
	}
	feed(t, v, s, at(0))
	return v
}

// picked returns the places of an answer in order, as <worker> or <GPU>+<GPU>, and after a bar what was passed over.
func picked(a *api.Answer) string {
	var list []string
	for _, p := range a.Picks {
		place := p.Worker + p.GPU
		if len(p.GPUs) > 0 {
			place = strings.Join(p.GPUs, "+")
		}
		list = append(list, place)
	}
	var passed []string
	for why, n := range a.Passed {
		passed = append(passed, fmt.Sprintf("%d %s", n, why))
	}
	slices.Sort(passed)
	return strings.Join(list, ", ") + " | " + strings.Join(passed, ", ")
}

// What a pick for a GPU gives, by what the machine is.
func TestPlacesOfAMachine(t *testing.T) {
	gpu := func(gib uint64, more ...func(*api.Request)) api.Request {
		r := api.Request{For: api.ForGPU, N: 9, Filter: api.Filter{FreeVRAM: gib * giB}}
		for _, f := range more {
			f(&r)
		}
		return r
	}
	two := func(r *api.Request) { r.GPUs = 2 }
	budget := func(gib uint64) func(*hivebeat.Snapshot) {
		return func(s *hivebeat.Snapshot) { s.VRAMBudget = gib * giB }
	}
	type cards = []hivebeat.GPU
	for _, c := range []struct {
		name    string
		gpus    cards
		change  func(*hivebeat.Snapshot)
		workers []hivebeat.Record
		r       api.Request
		want    string
		says    string // one of the reasons of the first pick
	}{
		{name: "a whole GPU", gpus: cards{card(0, 0, "ok")}, r: gpu(79), want: "GPU-0 | ", says: "80.0 of 80.0 GiB free"},
		{name: "the driver keeps some", gpus: cards{{UUID: "GPU-0", Total: 80 * giB, Reserved: 2 * giB}}, r: gpu(79), want: " | 1 too little free memory"},
		{name: "a card that is split is no place", gpus: cards{split(0, 18, 71)}, r: gpu(72), want: " | 2 too little free memory"},
		{name: "an instance of a card that is split", gpus: cards{split(0, 18, 71)}, r: gpu(20), want: "MIG-0-1 | 1 too little free memory", says: "71.0 of 71.0 GiB free"},
		{name: "split without instances", gpus: cards{split(0), card(1, 79, "ok")}, r: gpu(20), want: " | 1 split: no instance, 1 too little free memory"},
		{name: "an instance of a card that fails", gpus: cards{func() hivebeat.GPU { g := split(0, 71); g.State = "failing"; return g }()}, r: gpu(1), want: " | 1 failing"},
		{
			name: "only ok and degraded ones", gpus: cards{card(0, 0, "failing"), card(1, 0, "gone"), card(2, 0, "unknown"), card(3, 0, "odd"), card(4, 0, "degraded"), card(5, 0, "ok")},
			r: gpu(1), want: "GPU-5, GPU-4 | 1 failing, 1 gone, 2 cannot be read",
		},
		{name: "a degraded one is enough", gpus: cards{card(0, 79, "ok"), card(1, 0, "degraded")}, r: gpu(40), want: "GPU-1 | 1 too little free memory", says: "GPU 1 is degraded: as the driver says"},
		{name: "an older hive that reports an error", gpus: cards{{UUID: "GPU-0", Total: 80 * giB, Err: "lost"}}, r: gpu(1), want: " | 1 cannot be read"},
		{
			name: "a load that names its GPU", gpus: cards{card(0, 0, "ok"), card(1, 0, "ok")}, workers: []hivebeat.Record{loader("w", 70, "GPU-0")},
			r: gpu(40), want: "GPU-1 | 1 too little free memory",
		},
		{
			name: "a load is said", gpus: cards{card(0, 0, "ok")}, workers: []hivebeat.Record{loader("w", 70, "GPU-0")},
			r: gpu(10), want: "GPU-0 | ", says: "70.0 GiB announced by loading workers",
		},
		{
			name: "two loads do not share gigabytes", gpus: cards{card(0, 0, "ok")}, workers: []hivebeat.Record{loader("w1", 30, "GPU-0"), loader("w2", 30, "GPU-0")},
			r: gpu(21), want: " | 1 too little free memory",
		},
		{
			name: "a load of two GPUs takes half of each", gpus: cards{card(0, 0, "ok"), card(1, 0, "ok")}, workers: []hivebeat.Record{loader("w", 100, "GPU-0", "GPU-1")},
			r: gpu(31), want: " | 2 too little free memory",
		},
		{
			name: "a load that names none may land anywhere", gpus: cards{card(0, 0, "ok"), card(1, 0, "ok")}, workers: []hivebeat.Record{loader("w", 70, "GPU-elsewhere")},
			r: gpu(11), want: " | 2 too little free memory",
		},
		{
			name: "a load is where its processes are", gpus: cards{card(0, 0, "ok"), card(1, 0, "ok")},
			workers: []hivebeat.Record{func() hivebeat.Record { w := loader("w", 70); w.On = []string{"GPU-1"}; return w }()},
			r:       gpu(40), want: "GPU-0 | 1 too little free memory",
		},
		{
			name: "what it holds already counts once", gpus: cards{card(0, 60, "ok")},
			workers: []hivebeat.Record{func() hivebeat.Record { w := loader("w", 70, "GPU-0"); w.Proc.VRAM = 60 * giB; return w }()},
			r:       gpu(10), want: "GPU-0 | ",
		},
		{
			name: "a worker that is ready has loaded", gpus: cards{card(0, 70, "ok")},
			workers: []hivebeat.Record{func() hivebeat.Record { w := loader("w", 75, "GPU-0"); w.State = hivebeat.Ready; return w }()},
			r:       gpu(10), want: "GPU-0 | ",
		},
		{
			name: "a worker that is lost loads nothing", gpus: cards{card(0, 0, "ok")},
			workers: []hivebeat.Record{func() hivebeat.Record { w := loader("w", 75, "GPU-0"); w.Live = hivebeat.Lost; return w }()},
			r:       gpu(40), want: "GPU-0 | ",
		},
		{name: "within the budget", gpus: cards{card(0, 0, "ok"), card(1, 0, "ok")}, change: budget(100), r: gpu(40), want: "GPU-0, GPU-1 | "},
		{name: "the places together keep to the budget", gpus: cards{card(0, 0, "ok"), card(1, 0, "ok")}, change: budget(70), r: gpu(40), want: "GPU-0 | 1 over the machine's VRAM budget"},
		{
			name: "the budget less what workers hold and load", gpus: cards{func() hivebeat.GPU { g := card(0, 40, "ok"); g.Ours = 40 * giB; return g }(), card(1, 0, "ok")}, change: budget(100),
			workers: []hivebeat.Record{loader("w", 30, "GPU-0")}, r: gpu(31), want: " | 2 over the machine's VRAM budget",
		},
		{name: "two at once", gpus: cards{card(0, 0, "ok"), card(1, 50, "ok"), card(2, 0, "ok")}, r: gpu(40, two), want: "GPU-0+GPU-2 | 1 too little free memory", says: "2 GPUs, 80.0 GiB free on each"},
		{name: "two at once, twice", gpus: cards{card(0, 0, "ok"), card(1, 0, "ok"), card(2, 0, "ok"), card(3, 0, "ok")}, r: gpu(40, two), want: "GPU-0+GPU-1, GPU-2+GPU-3 | "},
		{name: "all or none", gpus: cards{card(0, 0, "ok"), card(1, 79, "ok")}, r: gpu(40, two), want: " | 1 too few such GPUs on its machine, 1 too little free memory"},
		{name: "two, one of them degraded", gpus: cards{card(0, 0, "degraded"), card(1, 0, "ok")}, r: gpu(40, two), want: "GPU-1+GPU-0 | ", says: "GPU 0 is degraded: as the driver says"},
		{name: "two instances are no two GPUs", gpus: cards{split(0, 71, 71)}, r: gpu(40, two), want: " | 2 split: no whole GPU"},
		{name: "two within the budget", gpus: cards{card(0, 0, "ok"), card(1, 0, "ok")}, change: budget(79), r: gpu(40, two), want: " | 2 over the machine's VRAM budget"},
		{name: "free disk", gpus: cards{card(0, 0, "ok")}, change: func(s *hivebeat.Snapshot) { s.Host.CacheFree = 200 * giB }, r: gpu(1, func(r *api.Request) { r.FreeDisk = 300 * giB }), want: " | 1 too little free disk"},
		{name: "the driver", gpus: cards{card(0, 0, "ok")}, change: func(s *hivebeat.Snapshot) { s.Host.Driver = "550.54.14" }, r: gpu(1, func(r *api.Request) { r.Driver = "550*" }), want: "GPU-0 | "},
		{name: "another driver", gpus: cards{card(0, 0, "ok")}, change: func(s *hivebeat.Snapshot) { s.Host.Driver = "565.1" }, r: gpu(1, func(r *api.Request) { r.Driver = "550*" }), want: " | 1 another driver"},
	} {
		v := machine(t, c.gpus, c.change, c.workers...)
		a := find(t, v, c.r, at(1))
		if !strings.Contains(fmt.Sprint(a.Picks), "degraded") { // equal ones come in any order
			slices.SortFunc(a.Picks, func(a, b api.Pick) int { return strings.Compare(a.GPU, b.GPU) })
		}
		got := picked(&a)
		if strings.HasPrefix(c.name, "the places together") {
			got = strings.Replace(got, "GPU-1 |", "GPU-0 |", 1)
		}
		if got != c.want {
			t.Errorf("%s: %s, not %s", c.name, got, c.want)
		}
		if c.says != "" && (len(a.Picks) == 0 || !slices.Contains(a.Picks[0].Reasons, c.says)) {
			t.Errorf("%s: %+v does not say %q", c.name, a.Picks, c.says)
		}
		if err := verify(v, at(1)); err != nil {
			t.Errorf("%s: %v", c.name, err)
		}
	}
}

// A worker is as good as its GPU: which of a worker on GPU-0, in some state, and one on a good GPU is picked, in which
// order.
func TestWorkersAreJoinedWithTheirGPUs(t *testing.T) {
	for _, c := range []struct {
		name   string
		gpu    hivebeat.GPU
		worker hivebeat.Record
		want   string
		unsure bool
	}{
		{"ok", card(0, 0, "ok"), on("w", "GPU-0"), "good, w | ", false},
		{"failing", card(0, 0, "failing"), on("w", "GPU-0"), "good | 1 its GPU is failing", false},
		{"gone", card(0, 0, "gone"), on("w", "GPU-0"), "good | 1 its GPU is gone", false},
		{"gone, by its processes", card(0, 0, "gone"), func() hivebeat.Record { w := on("w"); w.On = []string{"GPU-0"}; return w }(), "good | 1 its GPU is gone", false},
		{"gone, but it uses another one", card(0, 0, "gone"), func() hivebeat.Record { w := on("w", "GPU-1"); w.On = []string{"GPU-0"}; return w }(), "good, w | ", false},
		{"one of two fails", card(0, 0, "failing"), on("w", "GPU-1", "GPU-0"), "good | 1 its GPU is failing", false},
		{"unknown", card(0, 0, "unknown"), on("w", "GPU-0"), "good, w | ", true},
		{"a word of a later version", card(0, 0, "resting"), on("w", "GPU-0"), "good, w | ", true},
		{"degraded", card(0, 0, "degraded"), on("w", "GPU-0"), "good, w | ", false},
		{"an instance of a card that fails", func() hivebeat.GPU { g := split(0, 71); g.State = "failing"; return g }(), on("w", "MIG-0-0"), "good | 1 its GPU is failing", false},
		{"a name that the hive does not list", card(0, 0, "failing"), on("w", "GPU-9"), "good, w | ", false},
	} {
		v := machine(t, []hivebeat.GPU{c.gpu, card(1, 0, "ok")}, nil, c.worker, on("good", "GPU-1"))
		for range 5 { // equal ones come in any order
			a := find(t, v, api.Request{N: 2, Filter: api.Filter{Model: "llama"}}, at(60-59))
			last := c.unsure || c.gpu.State == "degraded"
			if !last {
				slices.SortFunc(a.Picks, func(a, b api.Pick) int { return strings.Compare(a.Worker, b.Worker) })
			}
			if got := picked(&a); got != c.want {
				t.Errorf("%s: %s, not %s", c.name, got, c.want)
			}
			if unsure := slices.Contains(a.Status.Unsure, "gpu-01/w: GPU 0 was not read for 2s"); unsure != c.unsure {
				t.Errorf("%s: unsure is %q", c.name, a.Status.Unsure)
			}
		}
		w := ask(t, v, api.VerbWorker, api.Request{Hive: "gpu-01", Worker: "w"}, at(1)).Workers[0]
		bad := c.gpu.State != "ok" && !slices.Contains([]string{"GPU-1", "GPU-9"}, append(c.worker.GPUs, "")[0]) || c.name == "one of two fails"
		if (w.GPUFault != nil) != bad || bad && (w.GPUFault.GPU != "GPU-0" || w.GPUFault.State != c.gpu.State || w.GPUFault.Evidence == "" && !c.gpu.MIG) {
			t.Errorf("%s: %+v", c.name, w.GPUFault)
		}
		if err := verify(v, at(1)); err != nil {
			t.Errorf("%s: %v", c.name, err)
		}
	}
}

// When a GPU fails, the workers on it are no longer picked, though nothing of them changed; and it has an end. A hold
// on one is not given again.
func TestAGPUFailsUnderAWorker(t *testing.T) {
	v := newView()
	seq := uint64(0)
	send := func(state hivebeat.GPUState) {
		seq++
		s := snapshotOf("gpu-01", "", seq, on("w", "GPU-0"))
		s.GPUs = []hivebeat.GPU{card(0, 0, state)}
		feed(t, v, s, at(float64(seq)))
	}
	for _, c := range []struct {
		state hivebeat.GPUState
		picks int
	}{{"ok", 1}, {"failing", 0}, {"failing", 0}, {"ok", 1}, {"degraded", 1}, {"gone", 0}, {"unknown", 1}, {"ok", 1}} {
		send(c.state)
		rev := v.Index().Rev()
		now := at(float64(seq))
		a := find(t, v, api.Request{}, now)
		held, _, others := Held(v.Index(), api.Request{}, HoldID{"ann", "job"}, []index.Place{{Hive: "gpu-01", Worker: "w"}}, now)
		if len(a.Picks) != c.picks || len(held) != c.picks || len(others) != 1-c.picks {
			t.Errorf("%s: %s, held %d and not %d", c.state, picked(&a), len(held), len(others))
		}
		w := v.Index().Hive("gpu-01").Worker("w")
		if _, key := w.Revision(); key > rev {
			t.Errorf("%s: revision %d of %d", c.state, key, rev)
		}
		if err := verify(v, now); err != nil {
			t.Error(err)
		}
	}
}

// Figures of a GPU that is not read, or is bad, are in no sum.
func TestSummaryLeavesOutOldFigures(t *testing.T) {
	full := card(0, 60, "ok")
	full.Ours, full.Orphaned, full.Unattributed, full.Reserved = 40*giB, 5*giB, 3*giB, giB
	v := machine(t, []hivebeat.GPU{full, card(1, 10, "degraded"), card(2, 10, "unknown"), card(3, 10, "gone"), card(4, 10, "failing"), card(5, 10, "odd")}, nil)
	s := *ask(t, v, api.VerbSummary, api.Request{}, at(1)).Summary
	if s.GPUs != 2 || s.VRAMTotal != 160*giB || s.VRAMUsed != 70*giB || s.VRAMOurs != 40*giB || s.VRAMOrphaned != 5*giB || s.VRAMForeign != 22*giB ||
		s.VRAMUnattributed != 3*giB || s.VRAMReserved != giB || s.VRAMStale != 320*giB {
		t.Errorf("%+v", s)
	}
	if sum := s.VRAMOurs + s.VRAMOrphaned + s.VRAMForeign + s.VRAMUnattributed; sum != s.VRAMUsed {
		t.Errorf("the parts add up to %d of %d", sum, s.VRAMUsed)
	}
	if got := fmt.Sprint(s.GPUStates); got != "map[degraded:1 failing:1 gone:1 ok:1 unknown:2]" {
		t.Error(got)
	}
	h := ask(t, v, api.VerbHive, api.Request{Hive: "gpu-01"}, at(1)).Hives[0]
	if h.FreeVRAM != 70*giB || h.VRAMStale != 320*giB {
		t.Errorf("%d free, %d stale", h.FreeVRAM, h.VRAMStale)
	}
	// A hive that is not heard for long: all its figures are old.
	pass(v, at(46))
	if s := *ask(t, v, api.VerbSummary, api.Request{}, at(46)).Summary; s.GPUs != 0 || s.VRAMTotal != 0 {
		t.Errorf("%+v", s)
	}
}

// A claim that the driver contradicts is shown, and not averaged.
func TestMemoryConflict(t *testing.T) {
	for _, c := range []struct {
		claims, seen uint64 // GiB
		procs        string // of collect
		watched      bool   // the hive sees its processes
		want         string
	}{
		{40, 40, "ok", true, ""},
		{40, 35, "ok", true, ""},
		{40, 3, "ok", true, "it claims 40.0 GiB, and the driver sees 3.0 GiB in its processes"},
		{3, 40, "ok", true, "it claims 3.0 GiB, and the driver sees 40.0 GiB in its processes"},
		{2, 1, "ok", true, ""},
		{0, 40, "ok", true, ""},
		{40, 0, "ok", true, "it claims 40.0 GiB, and the driver sees none in its processes"},
		{40, 0, "error: no permission", true, ""},
		{40, 0, "", true, ""},
		{40, 0, "ok", false, ""},
	} {
		w := on("w")
		w.VRAM, w.Proc.VRAM = c.claims*giB, c.seen*giB
		if c.watched {
			w.Proc.RSS = giB
		}
		v := machine(t, []hivebeat.GPU{card(0, 0, "ok")}, func(s *hivebeat.Snapshot) {
			if c.procs != "" {
				s.Collect = map[string]string{"procs": c.procs}
			}
		}, w)
		if got := ask(t, v, api.VerbWorker, api.Request{Hive: "gpu-01", Worker: "w"}, at(1)).Workers[0].MemoryConflict; got != c.want {
			t.Errorf("%+v: %q", c, got)
		}
		if old := ask(t, v, api.VerbWorker, api.Request{Hive: "gpu-01", Worker: "w"}, at(50)).Workers[0]; old.MemoryConflict != "" {
			t.Errorf("%+v: old facts are in conflict: %q", c, old.MemoryConflict)
		}
	}
}

// Which machines still run driver 550 is a question, and so are the kernel and the free disk.
func TestMachinesByDriverKernelAndDisk(t *testing.T) {
	v := newView()
	for i, host := range []hivebeat.Host{
		{Driver: "550.54.14", Kernel: "6.8.0-45-generic", CacheFree: 100 * giB},
		{Driver: "565.57.01", Kernel: "6.8.0-45-generic", CacheFree: 900 * giB},
		{Kernel: "5.15.0", CacheFree: 10 * giB},
	} {
		s := snapshotOf(fmt.Sprint("h", i), "", 1, workerOf("w", "llama", 4, 0))
		s.Host = host
		feed(t, v, s, at(0))
	}
	for _, c := range []struct {
		f    api.Filter
		want string
	}{
		{api.Filter{Driver: "550*"}, "h0"},
		{api.Filter{Driver: "*"}, "h0 h1 h2"},
		{api.Filter{Driver: "550"}, ""},
		{api.Filter{Kernel: "6.8.*"}, "h0 h1"},
		{api.Filter{Kernel: "6.8.*", FreeDisk: 500 * giB}, "h1"},
		{api.Filter{FreeDisk: 50 * giB}, "h0 h1"},
		{api.Filter{Driver: "5?0*", Model: "llama"}, "h0"},
	} {
		var hives, workers, picks []string
		a := ask(t, v, api.VerbHives, api.Request{Filter: c.f}, at(1))
		for _, h := range a.Hives {
			hives = append(hives, h.Hive)
		}
		if a.Total == nil && c.f.Model == "" || a.Total != nil && *a.Total != len(hives) {
			t.Errorf("%+v: total is %v", c.f, a.Total)
		}
		sorted := ask(t, v, api.VerbHives, api.Request{Filter: c.f, Sort: "vram_free"}, at(1))
		for _, w := range ask(t, v, api.VerbWorkers, api.Request{Filter: c.f}, at(1)).Workers {
			workers = append(workers, w.Hive)
		}
		for _, p := range find(t, v, api.Request{N: 9, Filter: c.f}, at(1)).Picks {
			picks = append(picks, p.Hive)
		}
		slices.Sort(picks)
		for what, got := range map[string]string{"hives": strings.Join(hives, " "), "workers": strings.Join(workers, " "), "picks": strings.Join(picks, " ")} {
			if got != c.want {
				t.Errorf("%+v: %s are %q, not %q", c.f, what, got, c.want)
			}
		}
		if len(sorted.Hives) != len(hives) {
			t.Errorf("%+v: %d sorted, %d by id", c.f, len(sorted.Hives), len(hives))
		}
	}
}

// A filter on free memory goes by the GPU that a worker uses.
func TestFreeMemoryOfAWorkersGPU(t *testing.T) {
	v := machine(t, []hivebeat.GPU{card(0, 79, "ok"), card(1, 0, "ok"), split(2, 18), card(3, 0, "failing")}, nil,
		on("full", "GPU-0"), on("empty", "GPU-1"), on("any"), on("instance", "MIG-2-0"), on("parent", "GPU-2"), on("bad", "GPU-3"))
	for gib, want := range map[uint64]string{10: "any empty instance parent", 20: "any empty", 81: ""} {
		var got []string
		for _, w := range ask(t, v, api.VerbWorkers, api.Request{Filter: api.Filter{FreeVRAM: gib * giB}}, at(1)).Workers {
			got = append(got, w.Worker)
		}
		if strings.Join(got, " ") != want {
			t.Errorf("%d GiB: %v, not %s", gib, got, want)
		}
	}
}

func TestCheckOfGPUs(t *testing.T) {
	for _, c := range []struct {
		verb string
		r    api.Request
		want string
	}{
		{api.VerbPick, api.Request{GPUs: 2}, `gpus is how many GPUs a place has: it needs for "gpu"`},
		{api.VerbPick, api.Request{GPUs: 2, For: api.ForGPU}, ""},
		{api.VerbPick, api.Request{GPUs: 65, For: api.ForGPU}, "gpus must be 1 to 64"},
		{api.VerbHives, api.Request{GPUs: 2}, `hives does not take the key "gpus"`},
		{api.VerbHives, api.Request{Filter: api.Filter{Driver: "550*", Kernel: "6*", FreeDisk: 1}}, ""},
		{api.VerbHives, api.Request{Filter: api.Filter{Driver: strings.Repeat("x", 257)}}, "driver has more than 256 bytes"},
		{api.VerbSummary, api.Request{Filter: api.Filter{Driver: "550*"}}, `summary does not take the key "driver"`},
		{api.VerbForget, api.Request{Hive: "h"}, ""},
		{api.VerbForget, api.Request{GPU: "GPU-0"}, "hive"},
		{api.VerbForget, api.Request{Hive: "h", GPU: "GPU-0"}, ""},
		{api.VerbForget, api.Request{Hive: "h", GPU: "GPU-0", Hold: "job"}, `forget does not take the key "hold"`},
		{api.VerbHive, api.Request{Hive: "h", GPU: "GPU-0"}, `hive does not take the key "gpu"`},
	} {
		got := ""
		if e := Check(c.verb, &c.r); e != nil {
			got = e.Message
		}
		if (got == "") != (c.want == "") || !strings.Contains(got, c.want) {
			t.Errorf("%s %+v: %q, not %q", c.verb, c.r, got, c.want)
		}
	}
}

// A worker may name a GPU that its hive does not list: a wrong name, or a GPU that was
// forgotten. Whether it can serve is not known. A hive that lists no GPU says nothing.
func TestAWorkerThatNamesAnUnknownGPU(t *testing.T) {
	const says = "gpu-01/a names a GPU that its hive does not list: GPU-9"
	for _, c := range []struct {
		name string
		gpus []hivebeat.GPU
		want string
		sure bool
	}{
		{"the hive lists others", []hivebeat.GPU{card(0, 0, "ok")}, "b, a", false},
		{"the hive lists none", nil, "a, b", true},
	} {
		w := on("b", "GPU-0")
		w.Busy = 3 // it has fewer free slots, and still comes first
		v := machine(t, c.gpus, nil, on("a", "GPU-9"), w)
		a := find(t, v, api.Request{N: 2, Filter: api.Filter{Model: "llama"}}, at(1))
		if got, _, _ := strings.Cut(picked(&a), " |"); got != c.want || slices.Contains(a.Status.Unsure, says) == c.sure {
			t.Errorf("%s: picked %s, want %s; unsure: %q", c.name, got, c.want, a.Status.Unsure)
		}
	}
}
