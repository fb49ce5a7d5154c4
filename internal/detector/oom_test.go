package detector

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/beatfabric/hivebeat"
)

// A process that the kernel killed for want of memory has ended like any other. Only the
// cause tells them apart.
func TestKilledForWantOfMemory(t *testing.T) {
	b, f := watching(t), newFake("w")
	if err := b.sendsNow(f); err != nil {
		t.Fatal(err)
	}
	b.after(second)
	late := f.Next(t) // sent before the end, and still on its way
	if !b.Exit(b.now, Exit{Process: Process{f.Worker, f.Inc, f.PID}, At: b.now.Add(-11 * time.Millisecond), Boot: b.boot(), OOM: true}) {
		t.Fatal("the verdict did not change")
	}
	s := b.TakeSteps()
	if len(s) != 2 || s[1].Kind != hivebeat.KindLost || s[1].Cause != hivebeat.CauseOOM || s[1].Reason != "process 4711 was killed for want of memory" || s[1].Transition.Detect != 11 {
		t.Errorf("steps %+v", s)
	}
	if h := b.Score().Detect[hivebeat.CauseOOM]; h.N != 1 || b.Lost()[hivebeat.CauseOOM] != 1 {
		t.Errorf("score %+v, lost %v", b.Score(), b.Lost())
	}
	if r, _ := b.record("w"); r.Live != hivebeat.Lost || r.Cause != hivebeat.CauseOOM || r.Ended == 0 {
		t.Errorf("record %+v", r)
	}
	if err := b.feed(late); hivebeat.ReasonOf(err) != hivebeat.RefusedStale {
		t.Errorf("what was sent before brings it back: %v, want stale", err)
	}
	b.after(second)
	if err := b.sendsNow(f); err != nil { // sent after: the worker lives on in another process
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"recovered:lost>alive"}, b.told()); diff != "" {
		t.Errorf("transitions (-want +got):\n%s", diff)
	}
}

// Another observer that takes the worker over knows the end from the cause alone.
func TestKilledForWantOfMemoryIsRecalled(t *testing.T) {
	b, f := newBench(t), newFake("w")
	f.Seq = 17
	recall(b, f, lost(hivebeat.CauseOOM, 0))
	if err := b.feed(f.Next(t)); hivebeat.ReasonOf(err) != hivebeat.RefusedStale {
		t.Errorf("its incarnation comes back: %v, want stale", err)
	}
	f.Seq, f.Inc = 0, f.Inc+1
	b.mustFeed(f.Next(t))
	tells(t, b, "restarted:lost>alive")
}

// Running lists each worker of this boot, and says which have ended.
func TestRunning(t *testing.T) {
	b := watching(t)
	for id, ns := range map[string]string{"a": here, "b": "boot/200", "c": "other/4026531836", "d": here, "e": here} {
		f := newFake(id)
		f.NS = ns
		b.mustFeed(f.Next(t))
		switch id {
		case "d":
			b.ends(f)
		case "e":
			f.State = hivebeat.Stopped
			b.mustFeed(f.Next(t))
		}
	}
	got := map[string]bool{}
	for _, r := range b.Running(here) {
		got[r.Worker+" "+r.NS] = r.Ended
	}
	want := map[string]bool{"a " + here: false, "b boot/200": false, "d " + here: true, "e " + here: true}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("ended (-want +got):\n%s", diff)
	}
	if n := len(b.Running("")); n != 0 {
		t.Errorf("%d without a namespace", n)
	}
}
