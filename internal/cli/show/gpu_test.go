package show

import (
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/beatfabric/hivebeat"
	"github.com/beatfabric/hivebeat/queen/api"
)

const mib = 1 << 20

// gpuMachine is a machine with a GPU of each kind.
func gpuMachine() api.HiveInfo {
	h100 := func(i uint64) hivebeat.GPU {
		return hivebeat.GPU{
			UUID: "GPU-" + strconv.FormatUint(i, 10), Index: i, Name: "NVIDIA H100 80GB HBM3", State: hivebeat.GPUOK, Total: 81559 * mib, Reserved: 551 * mib,
			Used: 70 * gib, Ours: 60 * gib, Util: 71, Temp: 62, Power: 498_000, Age: 4000,
		}
	}
	ok, slow, failing, gone, unread, orphan, mig := h100(0), h100(1), h100(2), h100(3), h100(4), h100(5), h100(6)
	slow.State, slow.Cause, slow.Evidence, slow.Since = hivebeat.GPUDegraded, hivebeat.CauseThrottle, "slowed down by the power brake", 300_000
	failing.State, failing.Cause, failing.Action, failing.Since = hivebeat.GPUFailing, hivebeat.CauseXID, hivebeat.ActionReset, 720_000
	failing.Evidence = "XID 95: uncontained memory error"
	gone.State, gone.Cause, gone.Age, gone.Since = hivebeat.GPUGone, hivebeat.CauseMissing, 840_000, 830_000
	gone.Evidence = "missing from a good reading of 7 GPUs"
	unread.State, unread.Cause, unread.Age, unread.Since, unread.Err = hivebeat.GPUUnknown, hivebeat.CauseUnread, 95_000, 50_000, "nvidia-smi: no answer within 30s"
	orphan.Used, orphan.Ours, orphan.Orphaned, orphan.Unattributed = 75*gib, 0, 72*gib+gib/2, gib/2
	mig.MIG, mig.Used, mig.Ours, mig.Total = true, 3*gib, 3*gib, 80*gib
	mig.Instances = []hivebeat.GPUInstance{
		{UUID: "MIG-a", Profile: "1g.10gb", Total: 10 * gib, Used: 3 * gib, Ours: 3 * gib},
		{UUID: "MIG-b", Profile: "4g.40gb", Total: 40 * gib, Reserved: gib / 4},
	}
	unified := hivebeat.GPU{
		UUID: "GPU-7", Index: 7, Name: "NVIDIA GB10", State: hivebeat.GPUOK, Unified: true, Total: 119 * gib, Used: 20 * gib, Ours: 12 * gib, Unattributed: 8 * gib, Age: 1000,
	}
	return api.HiveInfo{
		Hive: "gpu-09", Live: hivebeat.Alive, Inc: 1_764_000_000_000_000, Every: 15_000, Age: 1000, Fresh: true, Warm: true,
		Host: hivebeat.Host{
			Name: "gpu-09", CPUs: 64, CPU: 3, MemTotal: 512 * gib, MemUsed: 9 * gib, Kernel: "6.8.0-49-generic", Driver: "550.54.15",
			CacheTotal: 1800 * gib, CacheFree: 312 * gib, StoreTotal: 100 * gib, StoreFree: 99 * gib,
		},
		GPUs:     []hivebeat.GPU{ok, slow, failing, gone, unread, orphan, mig, unified},
		FreeVRAM: 50 * gib, Held: 20 * gib, Loading: 13 * gib, VRAMBudget: 400 * gib, VRAMStale: 3 * 81559 * mib,
	}
}

func TestGPUsOfAHive(t *testing.T) {
	h := gpuMachine()
	lost := h
	lost.Fresh, lost.Live, lost.GPUs, lost.Age = false, hivebeat.Lost, h.GPUs[:1], 600_000
	golden(t, "gpus.golden", text(Hive(&h, &sure, false))+"\n"+text(NewHives(false, 0).Lines(true, hiveRows([]api.HiveInfo{h})))+"\n"+
		text(NewGPUs(false, 0).Lines(true, gpuRows(&h)))+"\n"+text(Hive(&lost, &sure, false)))
}

func gpuRows(h *api.HiveInfo) (rows [][]Cell) {
	for i := range h.GPUs {
		rows = append(rows, GPURows(&h.GPUs[i], 0, false)...)
	}
	return rows
}

// The note of a hive names what is wrong, worst first, in few words however many GPUs it has.
func TestGPUNotes(t *testing.T) {
	gpu := func(index uint64, s hivebeat.GPUState, c hivebeat.Cause, action string) hivebeat.GPU {
		return hivebeat.GPU{Index: index, State: s, Cause: c, Action: action, Evidence: "never in a note"}
	}
	many := func(n int, g hivebeat.GPU) (out []hivebeat.GPU) {
		for range n {
			out = append(out, g)
		}
		return out
	}
	ok, degraded := gpu(0, hivebeat.GPUOK, "", ""), gpu(1, hivebeat.GPUDegraded, hivebeat.CauseThrottle, "")
	failing, gone := gpu(3, hivebeat.GPUFailing, hivebeat.CauseXID, hivebeat.ActionReset), gpu(2, hivebeat.GPUGone, hivebeat.CauseMissing, "")
	unknown := gpu(4, hivebeat.GPUUnknown, hivebeat.CauseUnread, "")
	for _, c := range []struct {
		gpus  []hivebeat.GPU
		want  string
		style Style
	}{
		{[]hivebeat.GPU{ok, {Index: 1}}, "", Plain},
		{[]hivebeat.GPU{ok, failing}, "GPU 3 failing: reset", Bad},
		{[]hivebeat.GPU{gone, ok, gone}, "2 GPUs gone", Bad},
		{[]hivebeat.GPU{degraded, unknown, gone, failing}, "GPU 3 failing: reset; GPU 2 gone; GPU 4 unknown: not read; GPU 1 degraded: throttle", Bad},
		{many(64, gpu(0, hivebeat.GPUFailing, hivebeat.CauseMachine, hivebeat.ActionReboot)), "64 GPUs failing: reboot", Bad},
		{[]hivebeat.GPU{failing, gpu(0, hivebeat.GPUFailing, hivebeat.CauseECC, hivebeat.ActionReplace)}, "2 GPUs failing", Bad},
		{[]hivebeat.GPU{degraded}, "GPU 1 degraded: throttle", Warn},
		{[]hivebeat.GPU{{Index: 5, Err: "not in the last reading"}}, "GPU 5 unknown", Warn}, // of a hive that does not judge
		{[]hivebeat.GPU{{Index: 5, State: "melting"}}, "GPU 5 melting", Warn},
	} {
		notes, style := gpuNotes(c.gpus)
		if got := strings.Join(notes, "; "); got != c.want || style != c.style {
			t.Errorf("%q in style %d, want %q in %d", got, style, c.want, c.style)
		}
	}
}

// Foreign is only what no worker ever owned.
func TestWhoseMemoryIsNoted(t *testing.T) {
	for _, c := range []struct {
		gpu  hivebeat.GPU
		want string
	}{
		{hivebeat.GPU{Total: 80 * gib, Used: 75 * gib, Ours: 75 * gib}, ""}, // with the children of its workers
		{hivebeat.GPU{Total: 80 * gib, Used: 75 * gib, Orphaned: 72*gib + gib/2}, "72.5 GiB orphaned; 2.5 GiB by others"},
		{hivebeat.GPU{Total: 80 * gib, Used: 75 * gib, Unattributed: 75 * gib}, ""},
		{hivebeat.GPU{Total: 80 * gib, Used: 75 * gib}, "75 GiB by others"},
		{hivebeat.GPU{Total: 80 * gib, Used: 75 * gib, State: hivebeat.GPUGone}, "GPU 0 gone"}, // an old figure
	} {
		h := api.HiveInfo{Hive: "h", Live: hivebeat.Alive, Fresh: true, Warm: true, GPUs: []hivebeat.GPU{c.gpu}}
		if got := hiveNote(&h, 0).Text; got != c.want {
			t.Errorf("%+v: %q, want %q", c.gpu, got, c.want)
		}
	}
}

// The printed parts add up to the printed total.
func TestPartsAddUp(t *testing.T) {
	number := regexp.MustCompile(`(\d+(?:\.\d)?) [a-z]+`)
	for total := uint64(7 * gib); total < 200*gib; total += 3*gib + 77*mib {
		parts := []part{{"ours", total / 7 * 2}, {"orphaned", total / 11}, {"foreign", total / 13}, {"unattributed", total / 17}, {"reserved", 551 * mib}}
		free := total
		for _, q := range parts {
			free -= q.bytes
		}
		line := addUp(total, append(parts, part{"free", free}))
		sum := 0.0
		for _, m := range number.FindAllStringSubmatch(line, -1) {
			v, err := strconv.ParseFloat(m[1], 64)
			if err != nil {
				t.Fatal(err)
			}
			sum += v
		}
		if got := strconv.FormatFloat(sum, 'f', 1, 64); strings.TrimSuffix(got, ".0") != GiB(total) {
			t.Errorf("%s: adds up to %s of %s", line, got, GiB(total))
		}
	}
	if got, want := addUp(80*gib, []part{{"ours", 80*gib - 30*mib}, {"orphaned", 30 * mib}, {"free", 0}}), "80 ours + 30 MiB orphaned"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
}

// The headline leaves out old figures, and says how much that is.
func TestSummaryOfGPUs(t *testing.T) {
	states := map[hivebeat.GPUState]int{hivebeat.GPUOK: 6, hivebeat.GPUDegraded: 1, hivebeat.GPUFailing: 1}
	for _, c := range []struct {
		s    api.Summary
		want string
	}{
		{api.Summary{GPUs: 8, VRAMTotal: 640 * gib, VRAMUsed: 310 * gib}, "8 GPUs · VRAM 310/640 GiB"}, // an older queen
		{api.Summary{GPUs: 8, VRAMTotal: 640 * gib, VRAMUsed: 310 * gib, GPUStates: map[hivebeat.GPUState]int{hivebeat.GPUOK: 8}}, "8 GPUs · VRAM 310/640 GiB"},
		{
			api.Summary{GPUs: 7, VRAMTotal: 560 * gib, VRAMUsed: 310 * gib, VRAMStale: 80 * gib, GPUStates: states},
			"8 GPUs: 6 ok 1 degraded 1 failing · VRAM 310/560 GiB, 80 GiB of 1 GPU not known",
		},
		{api.Summary{VRAMStale: 80 * gib, GPUStates: map[hivebeat.GPUState]int{hivebeat.GPUGone: 1}}, "1 GPU: 1 gone · 80 GiB of 1 GPU not known"},
		{api.Summary{GPUStates: map[hivebeat.GPUState]int{hivebeat.GPUUnknown: 2}}, "2 GPUs: 2 unknown · 2 GPUs not known"},
	} {
		if got := strings.Join(counts(&c.s, false)[2:], " · "); got != c.want {
			t.Errorf("%q, want %q", got, c.want)
		}
	}
	s := &api.Summary{GPUs: 7, VRAMTotal: 560 * gib, VRAMUsed: 310 * gib, VRAMOurs: 300 * gib, VRAMReserved: 5 * gib, VRAMStale: 80 * gib, GPUStates: states}
	for width, want := range map[int]string{
		120: "VRAM [████████████████▒·············]  █ ours 300  ▒ others 15  · free 245 of 560 GiB, 80 GiB of 1 GPU not known, 7 GPUs",
		78:  "VRAM █ ours 300  ▒ others 15  · free 245 of 560 GiB, 80 GiB of 1 GPU not known",
		60:  "VRAM █ ours 300  ▒ others 15  · free 245 of 560 GiB, 7 GPUs",
	} {
		if got := VRAM(s, width, false); got != want {
			t.Errorf("%d: %q, want %q", width, got, want)
		}
	}
	if got := VRAM(&api.Summary{VRAMStale: 80 * gib}, 80, false); got != "VRAM 80 GiB not known" {
		t.Errorf("%q", got)
	}
}

// A worker says what is wrong with its GPU, its memory and its processes.
func TestWorkerOnAFailingGPU(t *testing.T) {
	w := sampleWorkers()[0]
	w.Need, w.On, w.Fault = 60*gib, []string{"GPU-5d1f"}, "XID 31: GPU memory page fault"
	w.MemoryConflict = "it reports 43 GiB, and the driver sees none of it"
	w.GPUFault = &api.GPUFault{GPU: "GPU-5d1f", Index: 3, State: hivebeat.GPUFailing, Cause: hivebeat.CauseXID, Evidence: "XID 79: the GPU has fallen off the bus", Action: hivebeat.ActionReboot}
	w.Proc.Procs, w.Proc.Threads, w.Proc.Files, w.Proc.MemMax, w.Proc.OOM = 3, 120, 1, 64*gib, 2
	w.Live, w.Cause = hivebeat.Lost, hivebeat.CauseOOM
	got := text(Worker(&w, &sure, false, noon))
	for _, want := range []string{
		"  live      lost for 95s · cause oom: killed because memory ran out\n",
		"  vram      43 GiB reported by itself · 44 GiB by the driver · 60 GiB needed once loaded\n",
		"            it reports 43 GiB, and the driver sees none of it\n",
		"  memory on GPU-5d1f\n",
		"  gpu fault GPU 3 is failing: XID 79: the GPU has fallen off the bus · to do: reboot the machine · not picked · GPU-5d1f\n",
		"  fault     XID 31: GPU memory page fault\n",
		"3 processes · 3 GiB of 64 GiB allowed · 140% of a CPU · 120 threads · 1 open file · up 2h · 2 processes killed because memory ran out\n",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("no %q in\n%s", want, got)
		}
	}
	if note := workerNote(&w, 0, noon); note.Style != Bad || note.Text != "oom: killed because memory ran out; GPU 3 failing: reboot; it reports 43 GiB, and the driver sees none of it" {
		t.Errorf("%+v", note)
	}
	w.GPUFault.State, w.GPUFault.Action = hivebeat.GPUUnknown, ""
	if got := text(Worker(&w, &sure, false, noon)); !strings.Contains(got, "GPU 3 is unknown: XID 79: the GPU has fallen off the bus · picked only after all others · GPU-5d1f\n") {
		t.Errorf("%s", got)
	}
}

func TestGPUEvents(t *testing.T) {
	var s hivebeat.Subjects
	at := time.Date(2026, 3, 4, 5, 6, 7, 0, time.UTC)
	for _, c := range []struct {
		d    hivebeat.EventData
		want string
	}{
		{
			hivebeat.EventData{Kind: hivebeat.KindGPUFailing, From: "ok", To: "failing", Cause: hivebeat.CauseXID, Reason: "XID 79: off the bus", Action: hivebeat.ActionReboot},
			"gpu-failing    gpu-01                    GPU 3 ok → failing · XID 79: off the bus · to do: reboot the machine",
		},
		{hivebeat.EventData{Kind: hivebeat.KindGPULost, From: "ok", To: "gone", Cause: hivebeat.CauseMissing}, "gpu-lost       gpu-01                    GPU 3 ok → gone · missing"},
		{hivebeat.EventData{Kind: hivebeat.KindGPURecovered, From: "failing", To: "ok"}, "gpu-recovered  gpu-01                    GPU 3 failing → ok"},
		{
			hivebeat.EventData{Kind: hivebeat.KindGPUOrphan, Cause: hivebeat.CauseOrphan, Owner: "llama", Reason: "72.5 GiB"},
			"gpu-orphan     gpu-01                    GPU 3 · orphan of llama · 72.5 GiB",
		},
		{hivebeat.EventData{Kind: hivebeat.KindGPUForgotten, Cause: hivebeat.CauseForgot, From: "gone", Asker: "ann"}, "gpu-forgotten  gpu-01                    GPU 3 · by ann"},
	} {
		c.d.Hive, c.d.GPU, c.d.GPUIndex = "gpu-01", "GPU-5d1f", new(uint64(3))
		ev := s.NewEvent("a", at, c.d)
		if got := Event(&ev, time.UTC, false); got != "05:06:07  "+c.want {
			t.Errorf("got  %q\nwant %q", got, "05:06:07  "+c.want)
		}
	}
}

// Text of a driver or a worker reaches the terminal as text.
func TestHostileGPUs(t *testing.T) {
	const evil = "\x1b[2J\u202e\r\nowned"
	h := gpuMachine()
	h.Host.Kernel, h.Host.Driver = evil, evil
	for i := range h.GPUs {
		g := &h.GPUs[i]
		g.Name, g.UUID, g.Evidence, g.Action, g.Err = evil, evil, evil, evil, evil
		g.State, g.Cause = hivebeat.GPUState(string(g.State)+evil), hivebeat.Cause(evil)
		for k := range g.Instances {
			g.Instances[k].UUID, g.Instances[k].Profile = evil, evil
		}
	}
	w := sampleWorkers()[0]
	w.Fault, w.MemoryConflict, w.On = evil, evil, []string{evil}
	w.GPUFault = &api.GPUFault{GPU: evil, State: hivebeat.GPUState(evil), Evidence: evil, Action: evil}
	f := Frame{Now: noon, Fleet: &Fleet{Status: sure, Hives: []api.HiveInfo{h}, Workers: []api.WorkerInfo{w}}, Zone: time.UTC}
	f.Fleet.Summary = api.Summary{Hives: map[hivebeat.Live]int{hivebeat.Alive: 1}, GPUStates: map[hivebeat.GPUState]int{evil: 1}}
	lines := append(f.Lines(2000, 60), Hive(&h, &sure, false)...)
	lines = append(lines, Worker(&w, &sure, false, noon)...)
	lines = append(lines, NewGPUs(false, 0).Lines(true, gpuRows(&h))...)
	lines = append(lines, text(NewPicks(true, false, 0).Lines(true, [][]Cell{PickRow(&api.Pick{GPU: evil, Profile: evil, GPUs: []string{evil, evil}}, true)})))
	for _, line := range lines {
		if strings.ContainsAny(line, "\x1b\r\u202e") {
			t.Errorf("%q", line)
		}
	}
}
