package fleet

import (
	"maps"
	"slices"
	"testing"
	"time"

	"github.com/beatfabric/hivebeat"
	"github.com/beatfabric/hivebeat/internal/ledger"
)

// goneOn are the workers of h whose record is one of an end, and since when, in s.
func goneOn(v *View, h string, now float64) map[string]int {
	m := make(map[string]int)
	for w := range v.Hive(h).inOrder() {
		if isGone(w.rec().Live) {
			m[w.rec().Worker] = int(w.goneFor(at(now)) / 1000)
		}
	}
	return m
}

// A lost or left worker stays in the list for 10 minutes, even if its hive restarts and
// does not know it, and even if the queen restarts after that.
func TestTheGoneOutliveTheirHiveAndTheQueen(t *testing.T) {
	// told puts the announcements of v about h into the roster, and returns the entry.
	told := func(t *testing.T, v *View, kind hivebeat.Kind, now float64) ledger.RosterItem {
		t.Helper()
		h := v.Hive("h")
		s, ok := h.Announce(at(now))
		if !ok || s.Events[0].Data.Kind != kind {
			t.Fatalf("says %+v, %t; want %s", s, ok, kind)
		}
		item := ledger.RosterItem{RosterEntry: s.Next, Revision: h.roster.Item.Revision + 1, Epoch: 1}
		v.LearnOwn(h, item, &s.Events[0].Data, at(now))
		return item
	}
	check := func(t *testing.T, v *View, what string, now float64, want map[string]int) {
		t.Helper()
		if got := goneOn(v, "h", now); !maps.Equal(got, want) {
			t.Errorf("%s: gone are %v, want %v", what, got, want)
		}
		if err := verify(v, at(now)); err != nil {
			t.Errorf("%s: %v", what, err)
		}
	}

	v := New(45 * time.Second)
	mustFeed(t, v, snapshotOf("h", 100, 1, workersOf(3)...), at(0))
	told(t, v, hivebeat.KindJoined, 0)
	list := workersOf(4)
	list[1].Live, list[1].Cause, list[1].Since = hivebeat.Lost, hivebeat.CauseExit, 20_000
	list[2].Live, list[2].Cause, list[2].Since = hivebeat.Left, hivebeat.CauseGoodbye, 10_000
	list[3].Live, list[3].Cause, list[3].Since = hivebeat.Lost, hivebeat.CauseExit, 500_000
	bye := snapshotOf("h", 100, 2, list...)
	bye.Bye = "stopped"
	mustFeed(t, v, bye, at(30))
	left := told(t, v, hivebeat.KindLeft, 30)
	if w := left.Workers; w["w01"].Since != 20_000 || w["w02"].Since != 10_000 || w["w00"].Since != 0 {
		t.Errorf("put as %+v", w)
	}
	v.ready.Events = nil

	// The hive restarts, and does not know them.
	list[0].N = 0
	mustFeed(t, v, snapshotOf("h", 200, 1, list[0]), at(100))
	check(t, v, "the hive began again", 100, map[string]int{"w01": 90, "w02": 80, "w03": 570})
	back := told(t, v, hivebeat.KindRestarted, 110)
	if got := slices.Sorted(maps.Keys(back.Workers)); !slices.Equal(got, []string{"w01", "w02", "w03"}) || back.Workers["w01"].Since != 100_000 {
		t.Errorf("put as %+v", back.Workers)
	}
	mustFeed(t, v, snapshotOf("h", 200, 2, list[0]), at(115))
	check(t, v, "and says so again", 115, map[string]int{"w01": 105, "w02": 95, "w03": 585})
	mustFeed(t, v, snapshotOf("h", 200, 3, list[0]), at(130))
	check(t, v, "one is gone for 10 minutes", 130, map[string]int{"w01": 120, "w02": 110})
	if len(v.ready.Events) > 0 {
		t.Errorf("told %+v", v.ready.Events)
	}

	// Another queen starts after the hive's key in the bucket has expired.
	late := left
	late.Stored = 70 * time.Second
	q := New(45 * time.Second)
	q.LearnKey("h", late, at(100))
	check(t, q, "by the roster of a hive that left", 100, map[string]int{"w01": 90, "w02": 80, "w03": 570})
	mustFeed(t, q, snapshotOf("h", 200, 1, list[0]), at(101))
	mustFeed(t, q, snapshotOf("h", 200, 2, list[0]), at(116))
	check(t, q, "and then it began again", 116, map[string]int{"w01": 106, "w02": 96, "w03": 586})

	// A third queen starts when the hive is back.
	back.Stored = 200 * time.Second
	q = New(45 * time.Second)
	q.LearnKey("h", back, at(310))
	check(t, q, "by the roster of a hive that is there", 310, map[string]int{"w01": 300, "w02": 290})
	mustFeed(t, q, snapshotOf("h", 200, 15, list[0]), at(311))
	check(t, q, "and heard", 311, map[string]int{"w01": 301, "w02": 291})
	mustFeed(t, q, snapshotOf("h", 200, 16, list[0]), at(615))
	check(t, q, "for 10 minutes", 615, map[string]int{"w02": 595})
	if len(q.ready.Events) > 0 {
		t.Errorf("told %+v", q.ready.Events)
	}
}

// A queen judges the workers of a hive that dies. Workers that were gone before keep the
// time of their end.
func TestTheGoneOfAHiveThatDied(t *testing.T) {
	v := New(45 * time.Second)
	list := workersOf(2)
	list[1].Live, list[1].Cause, list[1].Since = hivebeat.Lost, hivebeat.CauseExit, 20_000
	mustFeed(t, v, snapshotOf("h", 100, 1, list...), at(0))
	for now := 1.0; now < 50; now++ {
		settleChecks(v, at(now))
	}
	h := v.Hive("h")
	if h.Live() != hivebeat.Lost {
		t.Fatalf("the hive is %s", h.Live())
	}
	_, next := h.Next(hivebeat.KindLost, hivebeat.Lost, at(50))
	if w := next.Workers["w01"]; w.Live != hivebeat.Lost || w.Since != 70_000 || next.Workers["w00"].Since != 0 {
		t.Errorf("put as %+v", next.Workers)
	}
	q := New(45 * time.Second)
	q.LearnKey("h", ledger.RosterItem{RosterEntry: next, Revision: 1, Epoch: 1}, at(60))
	if got := goneOn(q, "h", 65); got["w01"] != 75 {
		t.Errorf("gone are %v", got)
	}

	// Its hive restarts, knows no worker, and is not warm yet.
	s := snapshotOf("h", 200, 1)
	s.Warm = false
	mustFeed(t, q, s, at(70))
	_, next = q.Hive("h").Next(hivebeat.KindRestarted, hivebeat.Alive, at(71))
	if w := next.Workers["w01"]; w.Live != hivebeat.Lost || w.Since != 81_000 || len(next.Workers) != 1 {
		t.Errorf("put as %+v", next.Workers)
	}
}

// The ages of workers in an entry are as of its put. A queen that puts the next entry adds
// the time since.
func TestAnEntryIsPutAgain(t *testing.T) {
	v := New(45 * time.Second)
	item := rosterOf(2, hivebeat.Lost, 100, 5)
	item.Stored, item.Age = 10*time.Second, 300_000
	item.Workers = map[string]ledger.RosterWorker{"gone": {Inc: 7, Live: hivebeat.Lost, Seq: 3, Every: 30_000, Since: 60_000}}
	v.LearnKey("h", item, at(0))
	if got := goneOn(v, "h", 20); got["gone"] != 90 {
		t.Errorf("gone for %d s, want 90", got["gone"])
	}
	if e := v.Hive("h").roster.Restored(at(20)); e.Workers["gone"].Since != 90_000 || item.Workers["gone"].Since != 60_000 {
		t.Errorf("put again with %+v, and the one that was read is %+v", e.Workers, item.Workers)
	}
}
