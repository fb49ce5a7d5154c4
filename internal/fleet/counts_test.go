package fleet

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/beatfabric/hivebeat"
)

func TestTransitionCounts(t *testing.T) {
	v := New(45 * time.Second)
	w := workerOf("w")
	mustFeed(t, v, snapshotOf("h", 100, 1, w), at(0))
	lost := w
	lost.Live, lost.Cause, lost.N, lost.Age = hivebeat.Lost, hivebeat.CauseMissed, 2, 92_000
	lost.Tr = []hivebeat.Transition{{N: 2, Kind: hivebeat.KindLost, From: "late", To: "lost", Cause: hivebeat.CauseMissed, Inc: 7, Ago: 2000}}
	mustFeed(t, v, snapshotOf("h", 100, 2, lost), at(15))
	back := w
	back.N, back.Seq = 4, 11
	back.Tr = append(lost.Tr,
		hivebeat.Transition{N: 3, Kind: hivebeat.KindRecovered, From: "lost", To: "alive", Inc: 7},
		hivebeat.Transition{N: 4, Kind: "levitates", Inc: 7})
	mustFeed(t, v, snapshotOf("h", 100, 3, back), at(20))
	settleChecks(v, at(42.5))
	settleChecks(v, at(65))

	got := v.TransitionCounts()
	want := map[hivebeat.Kind]uint64{hivebeat.KindGap: 1, hivebeat.KindLost: 1, hivebeat.KindRecovered: 1, "other": 1} // gap: it had joined before
	if d := cmp.Diff(want, got.Workers.Kinds); d != "" {
		t.Errorf("workers:\n%s", d)
	}
	want = map[hivebeat.Kind]uint64{hivebeat.KindJoined: 1, hivebeat.KindLate: 1, hivebeat.KindLost: 1}
	if d := cmp.Diff(want, got.Hives.Kinds); d != "" {
		t.Errorf("hives:\n%s", d)
	}
	if got.Workers.Disproved != 1 || got.Hives.Disproved != 0 {
		t.Errorf("disproved: %d, %d", got.Workers.Disproved, got.Hives.Disproved)
	}
	if h := got.Hives.Detection[hivebeat.CauseMissed]; h.N != 1 || h.Sum != 45*time.Second {
		t.Errorf("detection of a hive: %+v", h)
	}
	got.Hives.Kinds[hivebeat.KindLost] = 100
	if v.TransitionCounts().Hives.Kinds[hivebeat.KindLost] != 1 {
		t.Error("a counts is not its owner's")
	}
}

// Detection counts from an end that was seen. An end that was not seen, and was not by
// silence, does not count.
func TestDetection(t *testing.T) {
	var c LevelCounts
	for _, d := range []hivebeat.EventData{
		{Kind: hivebeat.KindLost, Cause: hivebeat.CauseExit, AgeMS: 20_000, DetectMS: new(hivebeat.Millis(12))},
		{Kind: hivebeat.KindLost, Cause: hivebeat.CauseExit, AgeMS: 20_000},
		{Kind: hivebeat.KindLost, Cause: "bad luck", AgeMS: 1000},
		{Kind: hivebeat.KindLost, Cause: hivebeat.CauseHive, AgeMS: 90_000},
		{Kind: hivebeat.KindLate, Cause: hivebeat.CauseMissed, AgeMS: 45_000},
	} {
		c.add(&d)
	}
	if h := c.Detection[hivebeat.CauseExit]; h.N != 1 || h.Max != 12*time.Millisecond {
		t.Errorf("exit: %+v", h)
	}
	if h := c.Detection[hivebeat.CauseHive]; h.N != 1 || h.Max != 90*time.Second {
		t.Errorf("hive: %+v", h)
	}
	if len(c.Detection) != 2 {
		t.Errorf("%+v", c.Detection)
	}
	if d := cmp.Diff(map[hivebeat.Cause]uint64{hivebeat.CauseExit: 2, "other": 1, hivebeat.CauseHive: 1}, c.Lost); d != "" {
		t.Error(d)
	}
}
