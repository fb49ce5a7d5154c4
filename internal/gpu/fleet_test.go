package gpu

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/beatfabric/hivebeat"
)

var t0 = time.Date(2026, 11, 30, 0, 0, 0, 0, time.UTC)

const gib = 1 << 30

// card returns GPU i of a machine, with faults.
func card(i uint64, faults ...Fault) Device {
	return Device{GPU: hivebeat.GPU{
		UUID: fmt.Sprintf("GPU-%d", i), Index: i, Name: "H100", Bus: fmt.Sprintf("00000000:%02X:00.0", 0x18+i), Total: 80 * gib, Used: 10 * gib,
	}, Faults: faults}
}

func cards(n uint64) (r Reading) {
	for i := range n {
		r.Devices = append(r.Devices, card(i))
	}
	return r
}

var (
	lost        = Fault{hivebeat.GPUFailing, hivebeat.CauseLostGPU, "GPU is lost", hivebeat.ActionReboot}
	reset       = Fault{hivebeat.GPUFailing, hivebeat.CauseReset, "GPU requires reset", hivebeat.ActionReset}
	reboot      = Fault{hivebeat.GPUFailing, hivebeat.CauseDriver, "the driver's recovery action is Reboot", hivebeat.ActionReboot}
	drain       = Fault{hivebeat.GPUFailing, hivebeat.CauseDriver, "the driver's recovery action is Drain P2P", hivebeat.ActionDrain}
	remap       = Fault{hivebeat.GPUDegraded, hivebeat.CauseRemap, "rows are remapped at the next reset", hivebeat.ActionReset}
	norows      = Fault{hivebeat.GPUFailing, hivebeat.CauseRemap, "a row could not be remapped", hivebeat.ActionReplace}
	hot         = Fault{State: hivebeat.GPUDegraded, Cause: hivebeat.CauseThrottle, Evidence: "slower because of heat"}
	xid48       = Fault{hivebeat.GPUFailing, hivebeat.CauseXID, "XID 48: uncorrectable memory error", hivebeat.ActionReset}
	errMismatch = errors.New("nvidia-smi: exit status 18: Failed to initialize NVML: Driver/library version mismatch")
)

// play is one machine with the readers nvidia and amdgpu; the latter finds nothing.
type play struct {
	f   *Fleet
	now time.Time
	log []string // transitions
}

func (p *play) read(r Reading) { p.f.Read(p.now, "nvidia", r, nil) }
func (p *play) good(n uint64)  { p.read(cards(n)) }

// during reads n GPUs every 10 s.
func (p *play) during(d time.Duration, n uint64) {
	for end := p.now.Add(d); p.now.Before(end); {
		p.after(10 * time.Second)
		p.good(n)
	}
}

func (p *play) after(d time.Duration) {
	end := p.now.Add(d)
	for {
		at, ok := p.f.Next()
		if !ok || at.After(end) {
			break
		}
		p.now = at
		p.f.Tick(p.now)
	}
	p.now = end
}

// with reads 4 GPUs, the first with faults.
func (p *play) with(faults ...Fault) {
	r := cards(4)
	r.Devices[0].Faults = faults
	p.read(r)
}

// states describes all GPUs.
func (p *play) states() string {
	var list []string
	for _, g := range p.f.GPUs(p.now) {
		s := string(g.State)
		if g.Cause != "" {
			s += " " + string(g.Cause)
		}
		if g.Action != "" {
			s += " " + g.Action
		}
		list = append(list, s)
	}
	return strings.Join(list, ", ")
}

func (p *play) events() string {
	for _, c := range p.f.TakeChanges() {
		if c.Kind != "" {
			p.log = append(p.log, fmt.Sprintf("%s %d", c.Kind, c.Index))
		}
	}
	return strings.Join(p.log, ", ")
}

func (p *play) collect() string {
	if err := p.f.Collect(); err != nil {
		return err.Error()
	}
	return "ok"
}

// Each scene is one row. A machine with 4 good GPUs is read at the start, unless the scene
// says otherwise.
func TestScenes(t *testing.T) {
	const ok4 = "ok, ok, ok, ok"
	for _, c := range []struct {
		name    string
		n       uint64 // GPUs at the start
		cfg     Config
		play    func(p *play)
		states  string
		events  string
		collect string // a part of it
	}{
		{"all is well", 4, Config{}, func(p *play) { p.during(time.Hour, 4) }, ok4, "", "ok"},
		{"there never was a GPU", 0, Config{}, func(p *play) { p.f.Fail(p.now, "nvidia", ErrNone) }, "", "", "no GPU"},
		{
			"one is missing from a good reading", 4,
			Config{},
			func(p *play) { p.good(3) },
			"ok, ok, ok, gone missing", "gpu-lost 3", "GPU 3 (GPU-3) is gone: missing from a good reading of nvidia, which has 3 GPUs",
		},
		{
			"the bus still has it", 4,
			Config{},
			func(p *play) { r := cards(3); r.Present = 4; p.read(r) },
			"ok, ok, ok, gone missing", "gpu-lost 3", "nvidia answers for 3 of the 4 GPUs on the PCI bus",
		},
		{"it comes back", 4, Config{}, func(p *play) { p.good(3); p.after(time.Minute); p.good(4) }, ok4, "gpu-lost 3, gpu-recovered 3", "ok"},
		{
			"the only one is gone: no devices were found", 1,
			Config{},
			func(p *play) { p.read(Reading{}) },
			"gone missing", "gpu-lost 0", "GPU 0 (GPU-0) is gone",
		},
		{
			"one that was never seen: the bus has more", 0,
			Config{},
			func(p *play) { p.read(Reading{Present: 1}) },
			"", "", "nvidia answers for 0 of the 1 GPU on the PCI bus",
		},
		{"one that was never seen: more are expected", 4, Config{Expected: 8}, func(*play) {}, ok4, "", "4 of 8 expected GPUs answer"},
		{
			"one of four is lost, and nothing is said of the others", 4,
			Config{},
			func(p *play) {
				p.read(Reading{Partial: errors.New("exit status 15"), Mentions: []Mention{{Bus: "0000:18:00.0", Index: -1, Fault: lost}}})
			},
			"failing gpu_lost reboot, ok, ok, ok", "gpu-failing 0", "exit status 15",
		},
		{
			"and after 45 s", 4,
			Config{},
			func(p *play) {
				for range 5 {
					p.after(10 * time.Second)
					p.read(Reading{Partial: errors.New("exit status 15"), Mentions: []Mention{{Bus: "0000:18:00.0", Index: -1, Fault: lost}}})
				}
			},
			"failing gpu_lost reboot, unknown unread, unknown unread, unknown unread", "gpu-failing 0", "exit status 15",
		},
		{
			"a message about a GPU that is not known", 4,
			Config{},
			func(p *play) {
				p.read(Reading{Partial: errors.New("GPU 0000:ff:00.0 is lost"), Mentions: []Mention{{Bus: "0000:FF:00.0", Index: -1, Fault: lost}}})
			},
			"unknown unread, unknown unread, unknown unread, unknown unread", "", "GPU 0000:ff:00.0 is lost",
		},
		{
			"a message that names it by index, beside good rows", 4,
			Config{},
			func(p *play) {
				r := cards(4)
				r.Mentions = []Mention{{Index: 2, Fault: lost}}
				p.read(r)
			},
			"ok, ok, failing gpu_lost reboot, ok", "gpu-failing 2", "GPU 2 (GPU-2) is failing: GPU is lost",
		},
		{
			"a message, and a good reading that lacks it", 4,
			Config{},
			func(p *play) {
				r := cards(3)
				r.Mentions = []Mention{{Bus: "0000:1b:00.0", Index: -1, Fault: lost}}
				p.read(r)
			},
			"ok, ok, ok, gone missing reboot", "gpu-lost 3", "GPU is lost",
		},
		{
			"a row of [Unknown Error] between good rows", 4,
			Config{},
			func(p *play) {
				r := cards(3)
				r.Partial, r.Mentions = errors.New("exit status 15"), []Mention{{Index: -1, Fault: lost}}
				p.read(r)
			},
			"ok, ok, ok, failing gpu_lost reboot", "gpu-failing 3", "exit status 15",
		},
		{
			"two such rows: which GPUs they are of is not known", 4,
			Config{},
			func(p *play) {
				r := cards(2)
				r.Partial, r.Mentions = errors.New("exit status 15"), []Mention{{Index: -1, Fault: lost}, {Index: -1, Fault: lost}}
				p.read(r)
			},
			"ok, ok, unknown unread, unknown unread", "", "exit status 15",
		},
		{
			"a row is missing from a partial reading", 4,
			Config{},
			func(p *play) { r := cards(3); r.Partial = errors.New("one row of [Unknown Error]"); p.read(r) },
			ok4, "", "one row of [Unknown Error]",
		},
		{"requires a reset, said in fields", 4, Config{}, func(p *play) { p.with(reset) }, "failing reset reset, ok, ok, ok", "gpu-failing 0", "GPU requires reset"},
		{
			"drain, then a good reading", 4,
			Config{},
			func(p *play) { p.with(drain); p.after(time.Minute); p.good(4) },
			ok4, "gpu-failing 0, gpu-recovered 0", "ok",
		},
		{
			"reboot holds for the machine", 4,
			Config{},
			func(p *play) { p.with(reboot) },
			"failing driver reboot, failing machine reboot, failing machine reboot, failing machine reboot",
			"gpu-failing 0, gpu-failing 1, gpu-failing 2, gpu-failing 3", "GPU 1 (GPU-1) is failing: GPU 0 (GPU-0) needs a reboot",
		},
		{
			"and ends for all with a good reading of the one", 4,
			Config{},
			func(p *play) { p.with(reboot); p.events(); p.log = nil; p.good(4) },
			ok4, "gpu-recovered 0, gpu-recovered 1, gpu-recovered 2, gpu-recovered 3", "ok",
		},
		{"pending row remap", 4, Config{}, func(p *play) { p.with(remap) }, "degraded remap reset, ok, ok, ok", "gpu-degraded 0", "ok"},
		{"the worst fault counts", 4, Config{}, func(p *play) { p.with(hot, reset) }, "failing reset reset, ok, ok, ok", "gpu-failing 0", "requires reset"},
		{
			"row remap failure does not end by itself", 4,
			Config{},
			func(p *play) { p.with(norows); p.during(48*time.Hour, 4) },
			"failing remap replace, ok, ok, ok", "gpu-failing 0", "could not be remapped",
		},
		{
			"driver mismatch: for 40 s nothing is concluded", 4,
			Config{},
			func(p *play) { p.f.Fail(p.now, "nvidia", errMismatch); p.after(40 * time.Second) },
			ok4, "", "Driver/library version mismatch",
		},
		{
			"and then they are unknown", 4,
			Config{},
			func(p *play) { p.f.Fail(p.now, "nvidia", errMismatch); p.after(14 * time.Minute) },
			"unknown unread, unknown unread, unknown unread, unknown unread", "", "Driver/library version mismatch",
		},
		{
			"a fault outlasts a reader that hangs", 4,
			Config{},
			func(p *play) {
				p.with(reset)
				p.f.Fail(p.now, "nvidia", errors.New("no answer within 30s"))
				p.after(time.Hour)
			},
			"failing reset reset, unknown unread, unknown unread, unknown unread", "gpu-failing 0", "no answer within 30s",
		},
		{
			"the driver is gone: that is not none", 4,
			Config{},
			func(p *play) { p.f.Fail(p.now, "nvidia", ErrNone); p.after(time.Minute) },
			"unknown unread, unknown unread, unknown unread, unknown unread", "", "no driver answers for the 4 GPUs that this machine had",
		},
		{
			"12 s for a reading are not too long", 1,
			Config{},
			func(p *play) {
				for range 100 {
					r := cards(1)
					r.Took = 12 * time.Second
					p.read(r)
					p.after(24 * time.Second)
				}
			},
			"ok", "", "ok",
		},
		{
			"nor 20 s, which is unknown after a minute", 1,
			Config{},
			func(p *play) {
				r := cards(1)
				r.Took = 20 * time.Second
				p.read(r)
				p.after(59 * time.Second)
			},
			"ok", "", "ok",
		},
		{
			"an XID stays for a minute and two readings", 4,
			Config{},
			func(p *play) {
				p.f.Incident(p.now, Incident{Bus: "0000:18:00", Fault: xid48}, nil)
				p.during(50*time.Second, 4)
			},
			"failing xid reset, ok, ok, ok", "gpu-failing 0", "XID 48",
		},
		{
			"and then ends", 4,
			Config{},
			func(p *play) {
				p.f.Incident(p.now, Incident{Bus: "0000:18:00", Fault: xid48}, nil)
				p.during(80*time.Second, 4)
			},
			ok4, "gpu-failing 0, gpu-recovered 0", "ok",
		},
		{
			"it flaps: one event at the start, none between", 1,
			Config{},
			func(p *play) {
				for range 10 {
					p.read(Reading{Devices: []Device{card(0, reset)}})
					p.after(10 * time.Second)
					p.good(1)
					p.after(10 * time.Second)
				}
			},
			"degraded flapping", "gpu-failing 0, gpu-recovered 0, gpu-failing 0, gpu-recovered 0, gpu-failing 0", "ok",
		},
		{
			"until it was good for 10 minutes", 1,
			Config{},
			func(p *play) {
				for range 10 {
					p.read(Reading{Devices: []Device{card(0, reset)}})
					p.after(10 * time.Second)
					p.good(1)
					p.after(10 * time.Second)
				}
				p.during(11*time.Minute, 1)
			},
			"ok", "gpu-failing 0, gpu-recovered 0, gpu-failing 0, gpu-recovered 0, gpu-failing 0, gpu-recovered 0", "ok",
		},
		{
			"heat that comes and goes makes few events", 1,
			Config{},
			func(p *play) {
				for range 100 {
					p.read(Reading{Devices: []Device{card(0, hot)}})
					p.after(10 * time.Second)
					p.good(1)
					p.after(10 * time.Second)
				}
			},
			"ok", "gpu-degraded 0, gpu-recovered 0, gpu-degraded 0, gpu-recovered 0, gpu-degraded 0", "ok",
		},
		{
			"but a fault among them is announced", 1,
			Config{},
			func(p *play) {
				for range 10 {
					p.read(Reading{Devices: []Device{card(0, hot)}})
					p.after(10 * time.Second)
					p.good(1)
					p.after(10 * time.Second)
				}
				p.events()
				p.log = nil
				p.read(Reading{Devices: []Device{card(0, reset)}})
			},
			"failing reset reset", "gpu-failing 0", "requires reset",
		},
		{"gone for 7 days", 4, Config{}, func(p *play) { p.during(7*24*time.Hour+time.Minute, 3) }, "ok, ok, ok", "gpu-lost 3", "ok"},
		{
			"forgotten", 4,
			Config{},
			func(p *play) {
				p.good(3)
				if err := p.f.Forget(p.now, "GPU-3", "ann"); err != nil {
					panic(err)
				}
			},
			"ok, ok, ok", "gpu-lost 3, gpu-forgotten 3", "ok",
		},
		{
			"one that is there cannot be forgotten", 4,
			Config{},
			func(p *play) {
				if err := p.f.Forget(p.now, "GPU-3", "ann"); !errors.Is(err, ErrPresent) {
					panic(err)
				}
			},
			ok4, "", "ok",
		},
		{
			"facts of one cannot be read", 4,
			Config{},
			func(p *play) {
				for range 5 {
					r := cards(4)
					r.Devices[1].GPU = hivebeat.GPU{UUID: "GPU-1", Index: 1, Err: "total: ERR!"}
					p.read(r)
					p.after(10 * time.Second)
				}
			},
			"ok, unknown unread, ok, ok", "", "GPU 1 (GPU-1) is unknown: total: ERR!",
		},
		{
			"GPUs without UUIDs", 0,
			Config{},
			func(p *play) {
				p.read(Reading{Devices: []Device{{GPU: hivebeat.GPU{Index: 0, Total: 1}}, {GPU: hivebeat.GPU{Index: 1, Total: 1}}}})
				p.read(Reading{Devices: []Device{{GPU: hivebeat.GPU{Index: 0, Total: 1}}}})
			},
			"ok, gone missing", "gpu-lost 1", "GPU 1 (#1) is gone",
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			c.cfg.Sources = []string{"nvidia", "amdgpu"}
			p := &play{f: New(c.cfg), now: t0}
			p.f.Fail(p.now, "amdgpu", ErrNone)
			if c.n > 0 {
				p.good(c.n)
			}
			c.play(p)
			if diff := cmp.Diff(c.states, p.states()); diff != "" {
				t.Errorf("states (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(c.events, p.events()); diff != "" {
				t.Errorf("events (-want +got):\n%s", diff)
			}
			if got := p.collect(); !strings.Contains(got, c.collect) || (c.collect == "ok") != (got == "ok") {
				t.Errorf("collect is %q, want %q", got, c.collect)
			}
		})
	}
}

func TestCollectBeforeTheFirstReadings(t *testing.T) {
	p := &play{f: New(Config{Sources: []string{"nvidia", "amdgpu"}}), now: t0}
	if got := p.f.Collect(); !errors.Is(got, ErrPending) {
		t.Errorf("nothing was read: %v", got)
	}
	p.f.Fail(p.now, "amdgpu", ErrNone)
	if got := p.f.Collect(); !errors.Is(got, ErrPending) {
		t.Errorf("one reader has not answered: %v", got)
	}
	p.f.Fail(p.now, "nvidia", ErrNone)
	if got := p.f.Collect(); !errors.Is(got, ErrNone) {
		t.Errorf("no reader finds a GPU: %v", got)
	}
}

// Transitions are carried for 60 s, with their numbers.
func TestTransitionsAreCarried(t *testing.T) {
	p := &play{f: New(Config{Sources: []string{"nvidia"}}), now: t0}
	p.good(2)
	p.good(1)
	p.after(40 * time.Second)
	p.good(2)
	got := p.f.Transitions(p.now)
	want := []hivebeat.GPUTransition{
		{N: 1, Kind: hivebeat.KindGPULost, GPU: "GPU-1", Index: 1, From: "ok", To: "gone", Cause: "missing", Evidence: "missing from a good reading of nvidia, which has 1 GPU", Ago: 40_000},
		{N: 2, Kind: hivebeat.KindGPURecovered, GPU: "GPU-1", Index: 1, From: "gone", To: "ok"},
	}
	if diff := cmp.Diff(want, got); diff != "" || p.f.N() != 2 {
		t.Errorf("number %d, (-want +got):\n%s", p.f.N(), diff)
	}
	if got := p.f.Transitions(p.now.Add(21 * time.Second)); len(got) != 1 || got[0].N != 2 {
		t.Errorf("after a minute: %+v", got)
	}
}

// What is known only from before keeps its age and its facts.
func TestFactsKeepTheirAge(t *testing.T) {
	p := &play{f: New(Config{Sources: []string{"nvidia"}}), now: t0}
	p.good(2)
	p.after(10 * time.Second)
	p.read(Reading{Devices: []Device{card(0)}, Partial: errors.New("cut")})
	p.after(time.Second)
	g := p.f.GPUs(p.now)
	if g[0].Age != 1000 || g[1].Age != 11_000 || g[1].Used != 10*gib || !strings.Contains(g[1].Err, "cut") || g[0].Since != 11_000 {
		t.Errorf("got %+v", g)
	}
}

func TestNormalBus(t *testing.T) {
	for in, want := range map[string]string{
		"00000000:1A:00.0": "0000:1a:00.0", "0000:1A:00.0": "0000:1a:00.0", "0000:1a:00.0": "0000:1a:00.0", "PCI:0000:1a:00": "0000:1a:00.0",
		"00010000:3B:00.1": "10000:3b:00.1", "": "", "1A": "", "GPU 3": "",
	} {
		if got := NormalBus(in); got != want {
			t.Errorf("%q is %q, want %q", in, got, want)
		}
	}
}

// A driver numbers the GPUs that it sees. While one is missing, the others keep the index
// that people know; with all there, what the driver says counts.
func TestIndexesWhileOneIsMissing(t *testing.T) {
	now := time.Unix(1_790_000_000, 0)
	f := New(Config{})
	read := func(uuids ...string) (got string) {
		now = now.Add(10 * time.Second)
		var r Reading
		for i, id := range uuids {
			r.Devices = append(r.Devices, Device{GPU: hivebeat.GPU{UUID: id, Index: uint64(i), Total: 1 << 30}})
		}
		f.Read(now, "nvidia", r, nil)
		for _, g := range f.GPUs(now) {
			got += fmt.Sprintf("%d=%s %s, ", g.Index, g.UUID, g.State)
		}
		return strings.TrimSuffix(got, ", ")
	}
	for _, c := range []struct {
		uuids []string
		want  string
	}{
		{[]string{"a", "b", "c"}, "0=a ok, 1=b ok, 2=c ok"},
		{[]string{"a", "c"}, "0=a ok, 1=b gone, 2=c ok"},
		{[]string{"a", "d", "c"}, "0=a ok, 1=b gone, 1=d ok, 2=c ok"}, // another one in its place
		{[]string{"a", "b", "c", "d"}, "0=a ok, 1=b ok, 2=c ok, 3=d ok"},
	} {
		if got := read(c.uuids...); got != c.want {
			t.Errorf("after a reading of %v: %s, want %s", c.uuids, got, c.want)
		}
	}
}
