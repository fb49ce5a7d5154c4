package gpu

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/beatfabric/hivebeat"
)

// again returns the same machine after a restart of its hive, and of the machine.
func (p *play) again(t *testing.T, rebooted bool) *play {
	t.Helper()
	var m Memory
	for _, g := range p.f.GPUs(p.now) {
		m.GPUs = append(m.GPUs, Keep(&g))
	}
	b, err := m.Encode()
	if err == nil {
		m, err = DecodeMemory(b)
	}
	if err != nil {
		t.Fatal(err)
	}
	next := &play{f: New(Config{Sources: []string{"nvidia"}}), now: p.now.Add(time.Minute)}
	next.f.Recall(next.now, m, time.Minute, rebooted)
	return next
}

func TestRestartsOfTheHive(t *testing.T) {
	for _, c := range []struct {
		name     string
		before   func(p *play)
		rebooted bool
		at       string // states at the start
		after    func(p *play)
		states   string
		events   string // of the second hive
	}{
		{"all is well", func(*play) {}, false, "unknown unread, unknown unread", func(p *play) { p.good(2) }, "ok, ok", ""},
		{"one disappears meanwhile", func(*play) {}, true, "unknown unread, unknown unread", func(p *play) { p.good(1) }, "ok, gone missing", "gpu-lost 1"},
		{"all disappear", func(*play) {}, true, "unknown unread, unknown unread", func(p *play) { p.read(Reading{}) }, "gone missing, gone missing", "gpu-lost 0, gpu-lost 1"},
		{"the driver is not there yet", func(*play) {}, true, "unknown unread, unknown unread", func(p *play) { p.f.Fail(p.now, "nvidia", ErrNone) }, "unknown unread, unknown unread", ""},
		{"gone before", func(p *play) { p.good(1) }, false, "unknown unread, gone missing", func(p *play) { p.good(1) }, "ok, gone missing", ""},
		{"and back", func(p *play) { p.good(1) }, true, "unknown unread, gone missing", func(p *play) { p.good(2) }, "ok, ok", "gpu-recovered 1"},
		{"failing", func(p *play) { p.read(Reading{Devices: []Device{card(0, reset), card(1)}}) }, false, "failing reset reset, unknown unread", func(*play) {}, "failing reset reset, unknown unread", ""},
		{"until a good reading", func(p *play) { p.read(Reading{Devices: []Device{card(0, reset), card(1)}}) }, false, "failing reset reset, unknown unread", func(p *play) { p.good(2) }, "ok, ok", "gpu-recovered 0"},
		{
			"reboot, and none came", func(p *play) { p.read(Reading{Devices: []Device{card(0, reboot), card(1)}}) }, false,
			"failing driver reboot, failing machine reboot", func(*play) {}, "failing driver reboot, failing machine reboot", "",
		},
		{
			"reboot, and it came", func(p *play) { p.read(Reading{Devices: []Device{card(0, reboot), card(1)}}) }, true,
			"unknown unread, unknown unread", func(p *play) { p.good(2) }, "ok, ok", "gpu-recovered 0, gpu-recovered 1",
		},
		{
			"an XID, and no reboot", func(p *play) { p.f.Incident(p.now, Incident{UUID: "GPU-0", Fault: xid48}, nil) }, false,
			"failing xid reset, unknown unread", func(p *play) { p.good(2) }, "failing xid reset, ok", "",
		},
		{
			"to be replaced", func(p *play) { p.read(Reading{Devices: []Device{card(0, norows), card(1)}}) }, true,
			"failing remap replace, unknown unread", func(p *play) { p.good(2) }, "failing remap replace, ok", "",
		},
		{
			"to be replaced, and an operator says that it is", func(p *play) { p.read(Reading{Devices: []Device{card(0, norows), card(1)}}) }, true,
			"failing remap replace, unknown unread", func(p *play) {
				if err := p.f.Forget(p.now, "GPU-0", "ann"); err != nil {
					panic(err)
				}
				p.good(2)
			}, "ok, ok", "gpu-forgotten 0",
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := &play{f: New(Config{Sources: []string{"nvidia"}}), now: t0}
			p.good(2)
			c.before(p)
			p = p.again(t, c.rebooted)
			if got := p.states(); got != c.at {
				t.Errorf("at the start: %s\nwant %s", got, c.at)
			}
			c.after(p)
			if diff := cmp.Diff([]string{c.states, c.events}, []string{p.states(), p.events()}); diff != "" {
				t.Errorf("states and events (-want +got):\n%s", diff)
			}
		})
	}
}

// The same fault after two reboots is not ended by a third.
func TestTheSameFaultAfterTwoReboots(t *testing.T) {
	fails := func(p *play, f Fault) { p.read(Reading{Devices: []Device{card(0, f)}}) }
	p := &play{f: New(Config{Sources: []string{"nvidia"}}), now: t0}
	fails(p, reset)
	for boots, want := range []string{"failing reset reset", "failing reset reset", "failing reset replace"} {
		if g := p.f.GPUs(p.now)[0]; p.states() != want || g.Boots != uint64(boots) {
			t.Errorf("after %d reboots: %s, boots %d", boots, p.states(), g.Boots)
		}
		p = p.again(t, true)
		fails(p, reset)
	}
	if g := p.f.GPUs(p.now)[0]; !strings.Contains(g.Evidence, "the same after 2 reboots") || p.events() != "" {
		t.Errorf("%q, events %q", g.Evidence, p.events())
	}

	p = &play{f: New(Config{Sources: []string{"nvidia"}}), now: t0}
	fails(p, reset)
	p = p.again(t, true)
	fails(p, drain)
	if g := p.f.GPUs(p.now)[0]; g.Boots != 0 {
		t.Errorf("another fault after the reboot: boots %d", g.Boots)
	}
}

func TestAgeAndSinceOverARestart(t *testing.T) {
	p := &play{f: New(Config{Sources: []string{"nvidia"}}), now: t0}
	p.read(Reading{Devices: []Device{card(0, reset)}})
	p.after(time.Hour)
	p = p.again(t, false)
	if g := p.f.GPUs(p.now)[0]; g.Age != hivebeat.MillisOf(time.Hour+time.Minute) || g.Since != g.Age || g.Total == 0 || g.Used != 0 {
		t.Errorf("%+v", g)
	}
	p.after(KeepKnown)
	if list := p.f.GPUs(p.now); len(list) != 0 {
		t.Errorf("after 7 days: %+v", list)
	}
}

func TestMemoryIsChecked(t *testing.T) {
	long := strings.Repeat("x", 300)
	for _, bad := range []string{
		``, `[]`, `{"v":2}`, `{"gpus":[]}`, `{"v":1,"gpus":[{"index":1}]}`, `{"v":1,"gpus":[{"uuid":"a","index":-1}]}`,
		`{"v":1,"gpus":[{"uuid":"a","total":9007199254740992}]}`, `{"v":1,"gpus":[{"uuid":"` + long + `"}]}`, `{"v":1,"gpus":[{"uuid":"a","evidence":"` + long + `"}]}`,
		`{"v":1,"gpus":[` + strings.Repeat(`{"uuid":"a"},`, 64) + `{"uuid":"a"}]}`, `{"v":1,"boot":"` + long + `"}`,
	} {
		if m, err := DecodeMemory([]byte(bad)); err == nil {
			t.Errorf("%.60s is %+v", bad, m)
		}
	}
	var m Memory
	for i := range hivebeat.MaxGPUs {
		text := strings.Repeat("\x01", 256) // the longest JSON
		m.GPUs = append(m.GPUs, Kept{UUID: fmt.Sprint(i), Name: text, Evidence: text, Action: text[:32], Bus: text[:64]})
	}
	b, err := m.Encode()
	if err == nil {
		_, err = DecodeMemory(b)
	}
	if err != nil {
		t.Errorf("the largest one: %d bytes, %v", len(b), err)
	}
}
