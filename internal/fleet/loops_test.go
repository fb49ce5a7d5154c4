package fleet

import (
	"testing"
	"time"

	"github.com/beatfabric/hivebeat"
)

// A queen that judges the workers of a lost hive announces nothing about a looping one,
// because its hive has reported the loop. Once the worker was calm for a while, the queen
// announces its state.
func TestAdoptedWorkersThatLoop(t *testing.T) {
	o := newAdoptionRig(t, 2, 2)
	o.hive.Workers[0].Looping, o.hive.Workers[0].Restarts = true, 9
	o.snapshot(1)
	o.pass(1, 46)
	o.told = nil
	again := func(b *hivebeat.Beat) { b.Inc, b.Seq = b.Inc+1, 1 }
	for i := range 4 {
		now := 46.5 + float64(i)
		o.beat(now, "w0", 0, again)
		o.beat(now, "w1", 0, again)
		o.tell(now)
	}
	o.expect("only one of them loops", "w1 restarted", "w1 restarted", "w1 restarted", "w1 restarted")
	for _, v := range o.views {
		if r := v.Hive("h").Worker("w0").Record(); !r.Looping || r.Restarts != 13 || r.Live != hivebeat.Alive || r.Inc != o.inc["w0"] {
			t.Errorf("%+v", r)
		}
		if r := v.Hive("h").Worker("w1").Record(); r.Looping || r.Restarts != 4 {
			t.Errorf("%+v", r)
		}
		if err := verify(v, at(50)); err != nil {
			t.Error(err)
		}
	}
	o.pass(51, 140)
	o.expectShown(140, "w0", "lost via queen")
	o.expect("it is lost, and that is damped", "w1 late missed", "w1 lost missed")
	o.pass(141, 49.5+(10*time.Minute).Seconds()-1)
	o.expect("it is not calm yet")
	o.pass(49.5+(10*time.Minute).Seconds(), 660)
	o.expect("what became of it", "w0 lost missed")
}

// The index lists looping workers, and the change log shows when that changes.
func TestWhoLoopsIsKept(t *testing.T) {
	v, w := New(45*time.Second), workerOf("w")
	w.Slots, w.Restarts = 4, 3
	s := snapshotOf("h", 100, 1, w)
	say := func(now float64, looping bool) {
		t.Helper()
		s.Seq++
		s.Workers[0].Looping, s.Workers[0].Seq = looping, s.Workers[0].Seq+1
		mustFeed(t, v, s, at(now))
		if err := verify(v, at(now)); err != nil {
			t.Error(err)
		}
		cells := 0
		for _, c := range v.index.Last().Pools() {
			cells += c.Len()
		}
		want := map[bool]int{true: 1}[looping]
		if n := v.index.Totals().Looping; n != want || cells != want {
			t.Errorf("%d loop, %d are listed, want %d", n, cells, want)
		}
	}
	say(0, false)
	say(1, true)
	rev := v.index.Rev()
	say(2, false)
	if v.index.Rev() == rev {
		t.Error("its end is told to nobody")
	}
	rev = v.index.Rev()
	s.Workers[0].Restarts = 2 // as one is an hour ago
	say(3, false)
	if v.index.Rev() != rev {
		t.Error("a restart that is an hour ago is told")
	}
	say(4, true)
}
