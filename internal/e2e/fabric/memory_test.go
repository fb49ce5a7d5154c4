//go:build e2e

package fabric

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/beatfabric/hivebeat"
	"github.com/beatfabric/hivebeat/internal/e2e/rig"
	"github.com/beatfabric/hivebeat/queen/api"
)

// A killed worker, and one that left, stay in the list with their times when their hive is
// upgraded. They also stay when the queen restarts, and when the hive is away until only the
// roster still knows it.
func TestTheGoneOutliveTheirHive(t *testing.T) {
	f := start(t)
	events := rig.Listen(t, f.nc)
	hive := func() *rig.Proc { // its key lives long enough for a busy machine to start a process
		return f.hivebeat("hive gpu-01", "hive", "--id", "gpu-01", "--every", "3s")
	}
	q, h := f.queen("q1"), hive()
	lives, crashed, left := f.worker("gpu-01", "lives"), f.worker("gpu-01", "crashed"), f.worker("gpu-01", "left")
	f.sees(rig.Fleet{"gpu-01/lives": hivebeat.Alive, "gpu-01/crashed": hivebeat.Alive, "gpu-01/left": hivebeat.Alive})
	crashed.Kill()
	events.Wait(t, moment, hivebeat.KindLost, "gpu-01/crashed")
	left.Interrupt()
	events.Wait(t, moment, hivebeat.KindLeft, "gpu-01/left")
	ended := time.Now()
	gone := rig.Fleet{"gpu-01": hivebeat.Alive, "gpu-01/lives": hivebeat.Alive, "gpu-01/crashed": hivebeat.Lost, "gpu-01/left": hivebeat.Left}
	f.sees(gone)

	// check compares the fleet once the current hive was heard more than once.
	before := uint64(0)
	check := func(what string, begins bool) {
		t.Helper()
		rig.Until(t, moment, what, func() (bool, string) {
			a, err := rig.Ask(f.nc, api.VerbHive, api.Request{Hive: "gpu-01"})
			ok := err == nil && len(a.Hives) == 1 && a.Hives[0].Live == hivebeat.Alive && a.Hives[0].Seq > 1 && (!begins || a.Hives[0].Inc != before)
			if ok {
				before = a.Hives[0].Inc
			}
			return ok, fmt.Sprintf("%+v, %v", a.Hives, err)
		})
		f.sees(gone)
		for id, cause := range map[string]hivebeat.Cause{"crashed": hivebeat.CauseExit, "left": hivebeat.CauseGoodbye} {
			a, err := rig.Ask(f.nc, api.VerbWorker, api.Request{Hive: "gpu-01", Worker: id})
			if err != nil || len(a.Workers) != 1 {
				t.Fatalf("%s: %+v, %v", what, a, err)
			}
			w := &a.Workers[0]
			if past := time.Since(ended) - w.Since.Duration(); w.Cause != cause || past > 3*time.Second || past < -3*time.Second {
				t.Errorf("%s: %s is gone for %s, cause %s; want %s, %s", what, id, w.Since.Duration(), w.Cause, time.Since(ended), cause)
			}
		}
		t.Logf("%.1f s after they ended: %s", time.Since(ended).Seconds(), what)
		out, _ := f.cli(0, "get", "gpu-01/crashed")
		if !strings.Contains(out, "lost for ") || !strings.Contains(out, "cause exit") {
			t.Errorf("%s: get says\n%s", what, out)
		}
	}
	check("at the beginning", true)
	h.Interrupt()
	h = hive()
	check("the hive is upgraded", true)

	h.Kill()
	q.Kill()
	q, h = f.queen("q2"), hive()
	check("hive and queen are killed and started again", true)

	h.Kill()
	events.Wait(t, moment, hivebeat.KindLost, "gpu-01")
	rig.Until(t, moment, "the key of the hive to expire", func() (bool, string) {
		there, state := f.key("gpu-01")
		return !there, state
	})
	q.Kill()
	q = f.queen("q3")
	f.sees(rig.Fleet{"gpu-01": hivebeat.Lost, "gpu-01/lives": hivebeat.Alive, "gpu-01/crashed": hivebeat.Lost, "gpu-01/left": hivebeat.Left})
	hive()
	check("the hive was away for long, and the queen began again", true)
	q.Kill()
	f.queen("q4")
	check("and once more", false)

	for _, of := range []struct {
		kind hivebeat.Kind
		id   string
	}{
		{hivebeat.KindJoined, "gpu-01/lives"},
		{hivebeat.KindJoined, "gpu-01/crashed"},
		{hivebeat.KindJoined, "gpu-01/left"},
		{hivebeat.KindLost, "gpu-01/crashed"},
		{hivebeat.KindLeft, "gpu-01/left"},
	} {
		f.once(of.kind, of.id)
	}
	for _, ev := range events.Of(hivebeat.KindLost, "gpu-01/lives") {
		t.Errorf("it lives, and was told as lost: %+v", ev)
	}
	if ids := events.Doubled(); len(ids) > 0 {
		t.Errorf("told twice: %v", ids)
	}
	lives.Interrupt()
}

// Two workers, and two hives, with one id and the default promises are reported within 10 s,
// with both places.
func TestTwoWithOneIDSayWhere(t *testing.T) {
	f, _ := hub(t)
	events := rig.Listen(t, f.nc)
	system := "nats://hives:hives@" + f.nats.URL[len("nats://"):]
	f.hivebeat("queen q1", "queen", "--id", "q1", "--system-nats", system).Said("receiving disconnect advisories", moment)
	hive := func(name string) *rig.Proc {
		return f.hivebeat(name, "hive", "--id", "gpu-01", "--system-nats", system, "--metrics", "off")
	}
	worker := func(name string) *rig.Proc {
		return f.hivebeat(name, "worker", "--hive", "gpu-01", "--id", "w")
	}
	h := hive("hive")
	h.Said("receiving disconnect advisories", moment)
	first := worker("first")
	f.sees(rig.Fleet{"gpu-01/w": hivebeat.Alive})

	told := func(id string, first, second *rig.Proc, began time.Time) {
		t.Helper()
		ev := events.Wait(t, moment, hivebeat.KindConflict, id)
		took := time.Since(began)
		t.Logf("two of %s: told after %.1f s: %s", id, took.Seconds(), ev.Data.Reason)
		if took > 10*time.Second {
			t.Errorf("told after %s", took)
		}
		a, b := ev.Data.Believed, ev.Data.Refused
		if a == nil || b == nil {
			t.Fatalf("no places: %+v", ev.Data)
		}
		if int(a.PID) != second.PID() || int(b.PID) != first.PID() || a.Conn == "" || b.Conn == "" || a.Conn == b.Conn || a.Host == "" || b.Host == "" ||
			!strings.HasPrefix(a.Addr, "127.0.0.1:") || !strings.HasPrefix(b.Addr, "127.0.0.1:") || a.Addr == b.Addr {
			t.Errorf("pids are %d and %d; told: %+v and %+v", second.PID(), first.PID(), a, b)
		}
		said, _ := f.cli(0, "events", "--kind", "conflict")
		got, _ := f.cli(0, "get", id)
		doc, _ := f.cli(0, "doctor", "--role", "viewer")
		for _, p := range []*hivebeat.Place{a, b} {
			for what, text := range map[string]string{"events": said, "get": got, "doctor": doc} {
				if !strings.Contains(text, fmt.Sprint("pid ", p.PID)) || !strings.Contains(text, p.Addr) {
					t.Errorf("%s does not say where pid %d runs, at %s:\n%s", what, p.PID, p.Addr, text)
				}
			}
		}
		events.Once(t, hivebeat.KindConflict, id)
	}
	began := time.Now()
	second := worker("second")
	told("gpu-01/w", first, second, began)
	first.Interrupt()
	second.Interrupt()

	began = time.Now()
	told("gpu-01", h, hive("second hive"), began)
}
