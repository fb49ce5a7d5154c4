package gpu

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/beatfabric/hivebeat"
)

// byPID makes pids from 100 ours, from 200 orphaned and from 300 foreign.
func byPID(pid uint64) (Owner, string) {
	switch pid / 100 {
	case 1:
		return Ours, fmt.Sprintf("w%d", pid%100)
	case 2:
		return Orphaned, fmt.Sprintf("dead%d", pid%100)
	case 3:
		return Foreign, ""
	}
	return Unattributed, ""
}

func TestPartsOfMemory(t *testing.T) {
	mib := func(n uint64) uint64 { return n << 20 }
	for _, c := range []struct {
		name  string
		gpu   hivebeat.GPU
		procs []Proc
		err   error
		want  [6]uint64 // ours, orphaned, foreign, unattributed, reserved, free
	}{
		{"nothing is held", hivebeat.GPU{Total: 100}, nil, nil, [6]uint64{0, 0, 0, 0, 0, 100}},
		{
			"all kinds",
			hivebeat.GPU{Total: 100, Used: 80, Reserved: 5},
			[]Proc{{"GPU-0", 100, 30}, {"GPU-0", 101, 10}, {"GPU-0", 200, 20}, {"GPU-0", 300, 7}, {"GPU-0", 1, 3}},
			nil,
			[6]uint64{40, 20, 7, 13, 5, 15},
		},
		{"the processes are not known", hivebeat.GPU{Total: 100, Used: 80}, []Proc{{"GPU-0", 100, 30}}, errors.New("no"), [6]uint64{0, 0, 0, 80, 0, 20}},
		{"the driver does not say how much", hivebeat.GPU{Total: 100, Used: 80}, []Proc{{"GPU-0", 100, 0}}, nil, [6]uint64{0, 0, 0, 80, 0, 20}},
		{"more is held than used", hivebeat.GPU{Total: 100, Used: 50}, []Proc{{"GPU-0", 100, 40}, {"GPU-0", 200, 30}, {"GPU-0", 300, 30}}, nil, [6]uint64{40, 10, 0, 0, 0, 50}},
		{"more is used than there is", hivebeat.GPU{Total: 100, Used: 150, Reserved: 9}, []Proc{{"GPU-0", 300, 150}}, nil, [6]uint64{0, 0, 100, 0, 0, 0}},
		{"sums do not overflow", hivebeat.GPU{Total: mib(1), Used: 9}, []Proc{{"GPU-0", 100, math.MaxUint64}, {"GPU-0", 101, math.MaxUint64}}, nil, [6]uint64{9, 0, 0, 0, 0, mib(1) - 9}},
		{"a GPU that shares the machine's memory", hivebeat.GPU{Unified: true}, []Proc{{"GPU-0", 100, 30}}, nil, [6]uint64{30, 0, 0, 70, 0, 900}},
		{"the source has the parts itself", hivebeat.GPU{Total: 100, Used: 80, Ours: 50, Unattributed: 10}, nil, ErrNone, [6]uint64{50, 0, 20, 10, 0, 20}},
	} {
		f := New(Config{Sources: []string{"nvidia"}})
		f.Host(1000, 100)
		c.gpu.UUID = "GPU-0"
		f.Read(t0, "nvidia", Reading{Devices: []Device{{GPU: c.gpu}}, Procs: c.procs, ProcsErr: c.err}, byPID)
		g := f.GPUs(t0)[0]
		got := [6]uint64{g.Ours, g.Orphaned, g.Foreign(), g.Unattributed, g.Reserved, g.Free()}
		if got != c.want {
			t.Errorf("%s: %v, want %v", c.name, got, c.want)
		}
	}
}

// A worker that ends takes its children along within seconds. An episode is one event.
func TestOrphansAreAnnouncedOnce(t *testing.T) {
	p := &play{f: New(Config{Sources: []string{"nvidia"}}), now: t0}
	read := func(procs ...Proc) {
		r := cards(2)
		r.Procs = procs
		p.f.Read(p.now, "nvidia", r, byPID)
		p.after(10 * time.Second)
	}
	read(Proc{"GPU-1", 200, 72*gib + gib/2})
	if got := p.events(); got != "" || p.f.GPUs(p.now)[1].Orphaned == 0 {
		t.Errorf("at once: %q", got)
	}
	for range 5 {
		read(Proc{"GPU-1", 200, 72*gib + gib/2}, Proc{"GPU-0", 201, 0}, Proc{"GPU-0", 201, 0})
	}
	read()
	list := p.f.Transitions(p.now)
	for i := range list {
		list[i].Ago = 0
	}
	slices.SortFunc(list, func(a, b hivebeat.GPUTransition) int { return int(b.Index) - int(a.Index) })
	want := []hivebeat.GPUTransition{
		{N: 1, Kind: hivebeat.KindGPUOrphan, GPU: "GPU-1", Index: 1, Cause: hivebeat.CauseOrphan, Evidence: "72.5 GiB held by process 200", Worker: "dead0"},
		{N: 2, Kind: hivebeat.KindGPUOrphan, GPU: "GPU-0", Cause: hivebeat.CauseOrphan, Evidence: "memory held by processes 201, 201", Worker: "dead1"},
	}
	if diff := cmp.Diff(want, list); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	read(Proc{"GPU-1", 200, 1})
	read(Proc{"GPU-1", 200, 1})
	if p.f.N() != 3 {
		t.Errorf("%d transitions after another episode, want 3", p.f.N())
	}
}

func TestProgramFaultsAreTheWorkers(t *testing.T) {
	p := &play{f: New(Config{Sources: []string{"nvidia"}}), now: t0}
	p.good(1)
	in := Incident{Bus: "0000:18:00.0", PID: 107, Note: "XID 31: page fault"}
	if !p.f.Incident(p.now, in, byPID) || p.states() != "ok" {
		t.Errorf("states %s", p.states())
	}
	if text, at := p.f.Note(p.now, "w7"); text != in.Note || !at.Equal(p.now) {
		t.Errorf("note %q at %s", text, at)
	}
	if text, _ := p.f.Note(p.now.Add(keepNote+1), "w7"); text != "" {
		t.Errorf("a day later: %q", text)
	}
	in.PID = 300
	if p.f.Incident(p.now, in, byPID) {
		t.Error("a process that is no worker's has a note")
	}
}

// For any reading, the parts of memory add up to the total, for each GPU and instance.
func TestPartsAddUp(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		size := rapid.OneOf(rapid.Uint64Range(0, 100), rapid.Uint64())
		f := New(Config{Sources: []string{"nvidia"}})
		f.Host(size.Draw(t, "host"), size.Draw(t, "host used"))
		for i := range rapid.IntRange(1, 3).Draw(t, "readings") {
			var r Reading
			for n := range uint64(rapid.IntRange(1, 4).Draw(t, "GPUs")) {
				g := hivebeat.GPU{
					UUID: fmt.Sprintf("GPU-%d", n), Index: n, Total: size.Draw(t, "total"), Used: size.Draw(t, "used"), Reserved: size.Draw(t, "reserved"),
					Ours: size.Draw(t, "ours"), Orphaned: size.Draw(t, "orphaned"), Unattributed: size.Draw(t, "unattributed"), Unified: rapid.Bool().Draw(t, "unified"),
				}
				for k := range rapid.IntRange(0, 3).Draw(t, "instances") {
					g.Instances = append(g.Instances, hivebeat.GPUInstance{UUID: fmt.Sprintf("MIG-%d-%d", n, k), Total: size.Draw(t, "total"), Used: size.Draw(t, "used"), Reserved: size.Draw(t, "reserved")})
				}
				d := Device{GPU: g}
				if rapid.Bool().Draw(t, "fails") {
					d.Faults = []Fault{reset}
				}
				r.Devices = append(r.Devices, d)
			}
			for range rapid.IntRange(0, 8).Draw(t, "processes") {
				uuid := rapid.SampledFrom([]string{"GPU-0", "GPU-1", "MIG-0-0", "MIG-1-2", "GPU-9"}).Draw(t, "uuid")
				r.Procs = append(r.Procs, Proc{uuid, rapid.SampledFrom([]uint64{0, 100, 101, 200, 300}).Draw(t, "pid"), size.Draw(t, "bytes")})
			}
			r.ProcsErr = rapid.SampledFrom([]error{nil, ErrNone, errors.New("no")}).Draw(t, "processes are known")
			now := t0.Add(time.Duration(i) * time.Second)
			f.Read(now, "nvidia", r, byPID)
			for _, g := range f.GPUs(now) {
				check := func(what string, total uint64, parts ...uint64) {
					s := uint64(0)
					for _, p := range parts {
						s += p
					}
					if total > 0 && s != total {
						t.Fatalf("%s: %v make %d of %d", what, parts, s, total)
					}
				}
				check(g.UUID, g.Total, g.Ours, g.Orphaned, g.Foreign(), g.Unattributed, g.Reserved, g.Free())
				for _, n := range g.Instances {
					check(n.UUID, n.Total, n.Ours, n.Orphaned, n.Foreign(), n.Unattributed, n.Reserved, n.Free())
				}
			}
		}
	})
}

// Whatever happened, each state has an end: after a time of good readings all GPUs are
// ok, except those that must be replaced.
func TestEveryStateHasAnEnd(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p := &play{f: New(Config{Sources: []string{"nvidia"}}), now: t0}
		replace := false
		for range rapid.IntRange(1, 40).Draw(t, "steps") {
			switch rapid.IntRange(0, 5).Draw(t, "step") {
			case 0:
				p.after(time.Duration(rapid.IntRange(1, 3000).Draw(t, "seconds")) * time.Second)
			case 1:
				p.f.Fail(p.now, "nvidia", rapid.SampledFrom([]error{errMismatch, ErrNone}).Draw(t, "error"))
			case 2:
				r := cards(uint64(rapid.IntRange(0, 4).Draw(t, "GPUs")))
				if rapid.Bool().Draw(t, "partial") {
					r.Partial = errors.New("partial")
				}
				p.read(r)
			case 3:
				f := rapid.SampledFrom([]Fault{lost, reset, reboot, drain, remap, hot, norows}).Draw(t, "fault")
				replace = replace || f == norows
				p.with(f)
			case 4:
				p.read(Reading{Partial: errors.New("lost"), Mentions: []Mention{{Bus: "0000:19:00.0", Index: -1, Fault: lost}}})
			case 5:
				p.f.Incident(p.now, Incident{UUID: "GPU-2", Fault: xid48}, nil)
			}
		}
		told := map[string]bool{}
		p.during(12*time.Minute, 4)
		for _, c := range p.f.TakeChanges() {
			if c.Kind != "" {
				told[c.GPU] = c.Kind == hivebeat.KindGPULost || c.Kind == hivebeat.KindGPUFailing || c.Kind == hivebeat.KindGPUDegraded
			}
		}
		for _, g := range p.f.GPUs(p.now) {
			stuck := replace && g.Index == 0 && g.Action == hivebeat.ActionReplace
			if g.State != hivebeat.GPUOK && !stuck {
				t.Errorf("GPU %d is %s: %s", g.Index, g.State, g.Evidence)
			}
			if told[g.UUID] != stuck {
				t.Errorf("GPU %d is %s, and its last event says that it fails: %t", g.Index, g.State, told[g.UUID])
			}
		}
		if err := p.f.Collect(); err != nil && !replace {
			t.Errorf("collect: %v", err)
		}
		if at, ok := p.f.Next(); ok && !at.After(p.now) {
			t.Errorf("next is %s, %s ago", at, p.now.Sub(at))
		}
	})
}

func TestMemoryOfFailingGPUsKeepsItsWorkers(t *testing.T) {
	p := &play{f: New(Config{Sources: []string{"nvidia"}}), now: t0}
	r := cards(2)
	r.Procs = []Proc{{"GPU-0", 107, 3 * gib}, {"GPU-1", 107, 4 * gib}, {"GPU-1", 107, gib}}
	p.f.Read(p.now, "nvidia", r, byPID)
	if u := p.f.Uses(p.now)["w7"]; u.VRAM != 8*gib || strings.Join(u.On, " ") != "GPU-0 GPU-1" {
		t.Errorf("at first: %+v", u)
	}
	p.after(30 * time.Second)
	p.read(Reading{Devices: []Device{card(0), card(1, reset)}}) // and no processes
	p.after(30 * time.Second)
	if u := p.f.Uses(p.now)["w7"]; u.VRAM != 0 || strings.Join(u.On, " ") != "GPU-1" {
		t.Errorf("GPU 1 fails: %+v", u)
	}
	p.good(2)
	if u, ok := p.f.Uses(p.now)["w7"]; ok {
		t.Errorf("it works again, without processes: %+v", u)
	}
}
