package fleet

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/beatfabric/hivebeat"
	"github.com/beatfabric/hivebeat/internal/ledger"
	"github.com/beatfabric/hivebeat/internal/wire"
)

// A hive or worker that is known only from the roster is lost by the promise in the entry.
func TestAbsenceByThePromiseInTheRoster(t *testing.T) {
	for _, c := range []struct {
		every, quiet hivebeat.Millis
		after        int // s
	}{{10_000, 0, 30}, {120_000, 0, 360}, {30_000, 300_000, 360}} {
		v := New(45 * time.Second)
		item := rosterOf(2, hivebeat.Left, 100, 5)
		item.Workers = map[string]ledger.RosterWorker{"w": {Inc: 7, Live: hivebeat.Alive, Seq: 3, Every: c.every, Quiet: c.quiet}}
		v.LearnKey("h", item, at(0))
		seq := uint64(0)
		live := func(s int) hivebeat.Live {
			seq++
			mustFeed(t, v, snapshotOf("h", 200, seq), at(float64(s)))
			return v.Hive("h").Worker("w").Record().Live
		}
		for s := 1; s < c.after; s += 15 {
			if l := live(s); l != hivebeat.Alive {
				t.Fatalf("%v, quiet %v: %s %d s after the hive began", c.every.Duration(), c.quiet.Duration(), l, s-1)
			}
		}
		if l := live(c.after + 1); l != hivebeat.Lost {
			t.Errorf("%v, quiet %v: %s after %d s", c.every.Duration(), c.quiet.Duration(), l, c.after)
		}
	}
}

// A queen puts no promise that it only guesses.
func TestPromisesThatArePut(t *testing.T) {
	slow := workerOf("slow")
	slow.Every, slow.Quiet = 120_000, 60_000
	a := New(45 * time.Second)
	mustFeed(t, a, snapshotOf("h", 100, 5, slow, workerOf("w")), at(0))
	bye := snapshotOf("h", 100, 6, slow, workerOf("w"))
	bye.Bye = "stopped"
	mustFeed(t, a, bye, at(10))
	s, ok := a.Hive("h").Announce(at(70))
	if !ok || s.Next.Live != hivebeat.Left {
		t.Fatalf("%+v, %v", s, ok)
	}
	if w := s.Next.Workers; w["slow"].Every != 120_000 || w["slow"].Quiet != 60_000 || w["w"].Every != 30_000 || w["w"].Quiet != 0 {
		t.Errorf("put: %+v", w)
	}
	if s.Next.Age != 60_000 {
		t.Errorf("its last message is put as %v old, want 1m", s.Next.Age.Duration())
	}

	// A worker that another queen heard, which puts no promises.
	v := New(45 * time.Second)
	item := rosterOf(3, hivebeat.Lost, 100, 5)
	item.Workers = map[string]ledger.RosterWorker{"w": {Inc: 7, Live: hivebeat.Alive, Seq: 3}}
	v.LearnKey("h", item, at(0))
	item.N, item.Revision = 4, item.Revision+1
	item.Workers = map[string]ledger.RosterWorker{"w": {Inc: 7, Live: hivebeat.Alive, Seq: 4, Via: hivebeat.ViaQueen}}
	v.LearnKey("h", item, at(1))
	settleChecks(v, at(2))
	for now := 3.0; now < 300; now++ {
		settleChecks(v, at(now))
	}
	s, ok = v.Hive("h").Announce(at(300))
	if w := s.Next.Workers["w"]; !ok || w.Live != hivebeat.Lost || w.Every != 0 {
		t.Errorf("put: %+v, %v", w, ok)
	}
}

// An entry is put, and put again, long after the hive was heard: its ages are as of the
// put.
func TestAgesOfTheRoster(t *testing.T) {
	v := New(45 * time.Second)
	item := rosterOf(2, hivebeat.Lost, 100, 5)
	item.Stored, item.Age = 10*time.Second, 300_000
	item.Workers = map[string]ledger.RosterWorker{
		"w": {Inc: 7, Live: hivebeat.Alive, Seq: 3, Every: 120_000}, "gone": {Inc: 7, Live: hivebeat.Lost, Seq: 3, Every: 30_000},
	}
	v.LearnKey("h", item, at(0))
	h := v.Hive("h")
	for id, want := range map[string]hivebeat.Millis{"w": 310_000 + 360_000, "gone": 310_000 + 90_000 + 600_000} {
		if _, age, _ := v.index.Shown(h.Worker(id), at(0)); age != want {
			t.Errorf("%s is shown as %v old, want %v", id, age.Duration(), want.Duration())
		}
	}
	if e := h.roster.Restored(at(20)); e.Age != 330_000 {
		t.Errorf("put again with the age %v, want 5m30s", e.Age.Duration())
	}
}

// An entry that this queen put itself decides nothing once it has heard more.
func TestOwnWordIsNotFollowed(t *testing.T) {
	v := New(45 * time.Second)
	mustFeed(t, v, snapshotOf("h", 100, 5), at(0))
	v.LearnKey("h", rosterOf(1, hivebeat.Alive, 100, 5), at(0))
	v.Doubt(at(1)) // stopped meanwhile
	mustFeed(t, v, snapshotOf("h", 200, 1), at(100))
	h := v.Hive("h")
	s, ok := h.Announce(at(100))
	if !ok || s.Next.Inc != 200 {
		t.Fatalf("%+v, %v", s, ok)
	}
	mustFeed(t, v, snapshotOf("h", 300, 1), at(100))
	body, err := json.Marshal(s.Events[0].Data)
	if err != nil {
		t.Fatal(err)
	}
	s.Next.Event = body
	v.LearnOwn(h, ledger.RosterItem{RosterEntry: s.Next, Revision: 2, Epoch: 1}, &s.Events[0].Data, at(101))
	if h.Inc() != 300 {
		t.Errorf("back to incarnation %d, by its own word of before", h.Inc())
	}
	if s, ok = h.Announce(at(101)); !ok || s.Next.Inc != 300 {
		t.Errorf("it does not say so: %+v, %v", s, ok)
	}
}

// A queen that was stopped learns from the roster that a hive is gone, and then reads
// older messages of a duplicate.
func TestOldMailOfOneThatIsGone(t *testing.T) {
	for _, live := range []hivebeat.Live{hivebeat.Left, hivebeat.Lost} {
		v := New(45 * time.Second)
		mustFeed(t, v, snapshotOf("h", 100, 5), at(0))
		v.Doubt(at(1))
		v.LearnKey("h", rosterOf(7, live, 100, 47), at(100))
		if err := feed(t, v, snapshotOf("h", 200, 1), at(100)); hivebeat.ReasonOf(err) != hivebeat.RefusedStale {
			t.Errorf("%s: %v, want stale", live, err)
		}
		v.BlindFor(99 * time.Second)
		mustFeed(t, v, snapshotOf("h", 200, 2), at(110))
		if h := v.Hive("h"); h.Inc() != 200 || h.Live() != hivebeat.Alive {
			t.Errorf("%s: one that goes on is %s, incarnation %d", live, h.Live(), h.Inc())
		}
	}
}

// A page from the bucket completes a snapshot, and is older than the page that was
// heard: its workers grow too old before the others do.
func TestKeptPageIsOlder(t *testing.T) {
	page := func(n uint64, w string) *hivebeat.Snapshot {
		r := workerOf(w)
		r.Age = 0
		s := snapshotOf("h", 100, 5, r)
		s.Page, s.Pages = n, 2
		return s
	}
	v := New(45 * time.Second)
	mustFeed(t, v, page(0, "a"), at(0))
	var kept wire.SnapshotView
	if err := wire.ParseSnapshot(encode(t, page(1, "b")), &kept); err != nil {
		t.Fatal(err)
	}
	v.Adopt(&kept, 30*time.Second, at(1))
	for s := range 60 {
		if err := verify(v, at(float64(1+s))); err != nil {
			t.Fatalf("after %d s: %v", 1+s, err)
		}
	}
}

// Workers that are known from the roster grow too old as all others do.
func TestRosterGrowsOld(t *testing.T) {
	v := New(45 * time.Second)
	item := rosterOf(2, hivebeat.Left, 100, 5)
	item.Age = 1000
	item.Workers = map[string]ledger.RosterWorker{"w": {Inc: 7, Live: hivebeat.Alive, Seq: 3, Every: 5000}}
	v.LearnKey("h", item, at(0))
	for s := range 60 {
		if err := verify(v, at(float64(s))); err != nil {
			t.Fatalf("after %d s: %v", s, err)
		}
	}
}
