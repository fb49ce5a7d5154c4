package fleet

import (
	"strings"
	"testing"
	"time"

	"github.com/beatfabric/hivebeat"
	"github.com/beatfabric/hivebeat/internal/index"
	"github.com/beatfabric/hivebeat/internal/ledger"
	"github.com/beatfabric/hivebeat/internal/wire"
)

// TestWhatIsReadInDoubt: for a queen that was stopped from 10 s to 40 s, the messages that
// waited count as heard at 10 s, and no hive is lost.
func TestWhatIsReadInDoubt(t *testing.T) {
	v := New(45 * time.Second)
	for _, id := range []string{"a", "b"} {
		mustFeed(t, v, snapshotOf(id, 100, 1, workersOf(3)...), at(0))
	}
	v.Take()
	v.Doubt(at(10))
	v.Doubt(at(12)) // a later start does not make the doubt shorter
	mustFeed(t, v, snapshotOf("a", 100, 2, workersOf(2)...), at(40))
	a, b := v.Hive("a"), v.Hive("b")
	if age := index.EffectiveAge(0, a.received, at(40)); age != 30_000 {
		t.Errorf("what may be 30 s old is shown %d ms old", age)
	}
	if got := lives(v, "a"); got != "w00=alive w01=alive w02=alive" || len(v.Take().Events) > 0 {
		t.Errorf("given up by what waited: %s", got)
	}
	settleChecks(v, at(100))
	if _, due := v.Next(); due || a.Live() != hivebeat.Alive || b.Live() != hivebeat.Alive {
		t.Errorf("judged in doubt: %s, %s, due %t", a.Live(), b.Live(), due)
	}
	v.BlindFor(90 * time.Second) // from 10 s to 100 s
	settleChecks(v, at(112.4))   // b was silent for 22.4 s that count
	if b.Live() != hivebeat.Alive {
		t.Errorf("b is %s before its deadline", b.Live())
	}
	settleChecks(v, at(112.5))
	if b.Live() != hivebeat.Late || a.Live() != hivebeat.Alive {
		t.Errorf("b is %s and a %s", b.Live(), a.Live())
	}
	settleChecks(v, at(122.5)) // a counts from 10 s
	settleChecks(v, at(135))
	if b.Live() != hivebeat.Lost || a.Live() != hivebeat.Late {
		t.Errorf("b is %s and a %s", b.Live(), a.Live())
	}
}

func TestACheckIsNotAnsweredInDoubt(t *testing.T) {
	v := New(45 * time.Second)
	mustFeed(t, v, snapshotOf("h", 100, 1), at(0))
	v.Tick(at(22.5))
	c := v.Take().Checks[0]
	v.Doubt(at(22.6))
	v.Checked(c, 0, 0, at(23))
	if l := v.Hive("h").Live(); l != hivebeat.Alive {
		t.Errorf("%s by an answer that came in doubt", l)
	}
	v.BlindFor(time.Second)
	settleChecks(v, at(30))
	if l := v.Hive("h").Live(); l != hivebeat.Late {
		t.Errorf("%s: the check was lost", l)
	}
}

// TestTheGraceOfARestartIsItsOwn: hive a restarts over and over, and is never warm. Hive b
// is judged at its own time, and so is a at last.
func TestTheGraceOfARestartIsItsOwn(t *testing.T) {
	v := New(45 * time.Second)
	mustFeed(t, v, snapshotOf("a", 100, 1, workersOf(3)...), at(0))
	mustFeed(t, v, snapshotOf("b", 100, 1, workersOf(3)...), at(0))
	v.Take()
	a, b := v.Hive("a"), v.Hive("b")
	for i := range uint64(6) {
		s := snapshotOf("a", 200+i, 1)
		s.Warm = false
		now := at(10 * float64(i+1))
		settleChecks(v, now)
		mustFeed(t, v, s, now)
		want := hivebeat.Alive
		switch {
		case i >= 4:
			want = hivebeat.Lost // 50 s
		case i >= 2:
			want = hivebeat.Late // 30 s
		}
		if i == 4 { // late at 22.5 s by the look at 30 s: lost at 45 s
			settleChecks(v, now)
		}
		if b.Live() != want || a.Live() != hivebeat.Alive {
			t.Errorf("at %d s: b is %s, want %s; a is %s", 10*(i+1), b.Live(), want, a.Live())
		}
	}
	if got := lives(v, "a"); got != "w00=alive w01=alive w02=alive" {
		t.Errorf("who is absent while the hive is not warm: %s", got)
	}
	settleChecks(v, at(60+22.5))
	settleChecks(v, at(60+45))
	if a.Live() != hivebeat.Lost {
		t.Errorf("a fell silent and is %s", a.Live())
	}
}

// TestNotWarmIsNoEvidence, however long the hive has been at it.
func TestNotWarmIsNoEvidence(t *testing.T) {
	v := New(45 * time.Second)
	mustFeed(t, v, snapshotOf("h", 100, 1, workersOf(3)...), at(0))
	for seq := range uint64(30) {
		s := snapshotOf("h", 200, seq+1)
		s.Warm = false
		mustFeed(t, v, s, at(10*float64(seq+1)))
	}
	if got := lives(v, "h"); got != "w00=alive w01=alive w02=alive" {
		t.Errorf("by a hive that is not warm: %s", got)
	}
	mustFeed(t, v, snapshotOf("h", 200, 31), at(310))
	if got := lives(v, "h"); got != "w00=lost w01=lost w02=lost" {
		t.Errorf("by a hive that is warm: %s", got)
	}
}

// A queen that slept knows from the roster which incarnation lives. Then it reads messages
// of a duplicate that came and went meanwhile: the duplicate does not become valid. If it
// still ran, it would be heard again after the doubt.
func TestABacklogIsNoNewsToTheRoster(t *testing.T) {
	v := New(45 * time.Second)
	mustFeed(t, v, snapshotOf("h", 100, 5), at(0))
	v.LearnKey("h", rosterOf(1, hivebeat.Alive, 100, 5), at(1))
	v.Doubt(at(2))
	item := rosterOf(5, hivebeat.Alive, 100, 13)
	item.Stored = 40 * time.Second // after the duplicate was given up for it
	v.LearnKey("h", item, at(120))
	if err := feed(t, v, snapshotOf("h", 200, 1), at(120)); hivebeat.ReasonOf(err) != hivebeat.RefusedStale {
		t.Errorf("%v, want stale", err)
	}
	if err := feed(t, v, snapshotOf("h", 100, 14), at(120)); err != nil {
		t.Errorf("who lives is refused: %v", err)
	}
	v.BlindFor(118 * time.Second)
	if h := v.Hive("h"); h.Inc() != 100 || h.Live() != hivebeat.Alive {
		t.Errorf("%s, incarnation %d", h.Live(), h.Inc())
	}
	mustFeed(t, v, snapshotOf("h", 200, 9), at(130))
	if h := v.Hive("h"); h.Inc() != 200 {
		t.Error("a restart after the doubt is not heard")
	}

	// An incarnation that began after the entry was put is accepted in doubt too.
	v.Doubt(at(200))
	if err := feed(t, v, snapshotOf("h", 300, 1), at(210)); err != nil {
		t.Error(err)
	}
}

// A duplicate was lost while a queen slept. Messages that the original had sent before that
// prove nothing, because it may be gone too. Later messages do.
func TestOldMailRevivesNobody(t *testing.T) {
	v := New(45 * time.Second)
	mustFeed(t, v, snapshotOf("h", 100, 1), at(0))
	mustFeed(t, v, snapshotOf("h", 200, 1), at(5))
	v.LearnKey("h", rosterOf(2, hivebeat.Alive, 200, 1), at(6))
	v.Doubt(at(7))
	v.LearnKey("h", rosterOf(4, hivebeat.Lost, 200, 2), at(100))
	if err := feed(t, v, snapshotOf("h", 100, 5), at(100)); hivebeat.ReasonOf(err) != hivebeat.RefusedStale {
		t.Errorf("%v, want stale", err)
	}
	v.BlindFor(93 * time.Second)
	mustFeed(t, v, snapshotOf("h", 100, 6), at(101))
	if h := v.Hive("h"); h.Inc() != 100 || h.Live() != hivebeat.Alive {
		t.Errorf("%s, incarnation %d", h.Live(), h.Inc())
	}
}

// Two hives had one id, and the younger was lost. The key of the elder revives it only if it
// was put after that: the elder may be gone too.
func TestAKeyRevivesNobody(t *testing.T) {
	adopt := func(age time.Duration) *Hive {
		v := New(45 * time.Second)
		mustFeed(t, v, snapshotOf("h", 100, 1), at(0))
		mustFeed(t, v, snapshotOf("h", 200, 1), at(5))
		settleChecks(v, at(28))
		settleChecks(v, at(50))
		var page wire.SnapshotView
		if err := wire.ParseSnapshot(encode(t, snapshotOf("h", 100, 5)), &page); err != nil {
			t.Fatal(err)
		}
		v.Adopt(&page, age, at(60))
		return v.Hive("h")
	}
	if h := adopt(11 * time.Second); h.Inc() != 200 || h.Live() != hivebeat.Lost {
		t.Errorf("put before the younger was lost: %s, incarnation %d", h.Live(), h.Inc())
	}
	if h := adopt(9 * time.Second); h.Inc() != 100 || h.Live() != hivebeat.Alive {
		t.Errorf("put since: %s, incarnation %d", h.Live(), h.Inc())
	}
}

// A hive restarts and is lost, and then a message from before the restart arrives. Without
// the sender's clock, only the time since the restart distinguishes that message from one of
// a hive that never ended: no message is expected to be on its way for longer than it takes
// to lose a hive.
func TestMailFromBeforeTheRestart(t *testing.T) {
	for name, c := range map[string]struct {
		restarts, lost, arrives float64 // lost: when another queen saw its connection close; 0: never
		seq                     uint64
		taken                   bool
	}{
		"the new incarnation is alive":      {2, 0, 20, 2, false},
		"the new incarnation is late":       {2, 0, 40, 2, false},
		"it is lost":                        {2, 0, 60, 2, true},
		"it is lost, and began just before": {48, 50, 60, 2, false},
		"it is lost, and the seq is known":  {2, 0, 60, 1, false},
	} {
		t.Run(name, func(t *testing.T) {
			v := New(45 * time.Second)
			mustFeed(t, v, snapshotOf("h", 100, 1), at(0))
			mustFeed(t, v, snapshotOf("h", 101, 1), at(c.restarts))
			for s := c.restarts; s < c.arrives; s++ {
				settleChecks(v, at(s))
			}
			if c.lost > 0 {
				v.LearnKey("h", rosterOf(4, hivebeat.Lost, 101, 1), at(c.lost))
			}
			err := feed(t, v, snapshotOf("h", 100, c.seq), at(c.arrives))
			want := uint64(101)
			if c.taken {
				want = 100
			}
			if got := v.Hive("h").Inc(); got != want || (err == nil) != c.taken {
				t.Errorf("incarnation %d counts, want %d (%v)", got, want, err)
			}
			if !c.taken {
				return
			}
			// If the message was late after all, the newer incarnation comes back in the same way.
			if err := feed(t, v, snapshotOf("h", 101, 2), at(c.arrives+1)); hivebeat.ReasonOf(err) != hivebeat.RefusedStale {
				t.Errorf("the newer incarnation at once: %v, want stale", err)
			}
			for s := c.arrives; s < c.arrives+60; s++ {
				settleChecks(v, at(s))
			}
			mustFeed(t, v, snapshotOf("h", 101, 3), at(c.arrives+60))
		})
	}
}

// An entry may have no promises. A worker that is known only from such an entry is not lost
// within the default promise, because its own may be longer.
func TestAbsenceByTheRosterAlone(t *testing.T) {
	v := New(45 * time.Second)
	item := rosterOf(2, hivebeat.Left, 100, 5)
	item.Workers = map[string]ledger.RosterWorker{"slow": {Inc: 7, Live: hivebeat.Alive, Seq: 3}}
	v.LearnKey("h", item, at(0))
	live := func() hivebeat.Live { return v.Hive("h").Worker("slow").Record().Live }
	for seq := uint64(1); seq < 41; seq++ {
		mustFeed(t, v, snapshotOf("h", 200, seq), at(float64(15*seq)))
		if live() != hivebeat.Alive {
			t.Fatalf("%s after %d s", live(), 15*(seq-1))
		}
	}
	mustFeed(t, v, snapshotOf("h", 200, 41), at(15*41))
	if live() != hivebeat.Lost {
		t.Errorf("%s after 10 minutes", live())
	}
}

// The bucket keeps the last snapshot of a hive until its key expires, even if a lower
// incarnation replaced it since. A queen that starts goes by the roster.
func TestTheBucketIsOlderThanTheRoster(t *testing.T) {
	adopt := func(stored time.Duration) *Hive {
		v := New(45 * time.Second)
		item := rosterOf(3, hivebeat.Alive, 50, 1)
		item.Stored = stored
		v.LearnKey("h", item, at(0))
		var page wire.SnapshotView
		if err := wire.ParseSnapshot(encode(t, snapshotOf("h", 100, 15)), &page); err != nil {
			t.Fatal(err)
		}
		v.Adopt(&page, 20*time.Second, at(0))
		return v.Hive("h")
	}
	if h := adopt(5 * time.Second); h.Inc() != 50 {
		t.Errorf("incarnation %d: its place was taken since", h.Inc())
	}
	if h := adopt(time.Minute); h.Inc() != 100 {
		t.Errorf("incarnation %d: a restart that the roster does not know yet", h.Inc())
	}
}

// A queen that was cut off for an hour learns of hives and workers in doubt, when it is
// back, and waits for them from then on. Only those that it waited for before get credit
// for the hour.
func TestWhatBeginsInDoubtIsNotCreditedWithIt(t *testing.T) {
	const cut = 3600
	v := New(45 * time.Second)
	fast := workersOf(1)
	fast[0].Every = 5000
	mustFeed(t, v, snapshotOf("lost", 100, 1, fast...), at(0))
	mustFeed(t, v, snapshotOf("late", 100, 1), at(0))
	v.Take()
	v.Tick(at(22.5))
	asked := v.Take().Checks // one of each hive
	v.Doubt(at(23))
	item := rosterOf(2, hivebeat.Lost, 100, 2)
	item.Stored = time.Minute
	v.LearnKey("lost", item, at(cut)) // another queen heard more of it, and gave it up
	gone := rosterOf(2, hivebeat.Lost, 100, 2)
	gone.Stored = time.Minute
	gone.Workers = map[string]ledger.RosterWorker{"w": {Inc: 7, Live: hivebeat.Alive, Seq: 3, Every: 30_000}}
	v.LearnKey("gone", gone, at(cut))
	v.LearnKey("unknown", rosterOf(1, hivebeat.Alive, 100, 1), at(cut))
	for _, c := range asked {
		v.Checked(c, 0, 0, at(cut))
	}
	v.BlindFor((cut - 23) * time.Second)
	lives := func() string {
		return strings.Join([]string{
			string(v.Hive("lost").Worker("w00").Record().Live), string(v.Hive("gone").Worker("w").Record().Live),
			string(v.Hive("unknown").Live()), string(v.Hive("late").Live()),
		}, "/")
	}
	for _, tt := range []struct {
		after float64
		want  string
	}{
		{5, "alive/alive/unverified/late"}, // the roll of the workers is called first
		{6, "lost/alive/unverified/late"},  // 5.5 s for one whose own deadline was over before
		{21, "lost/alive/unverified/late"},
		{23, "lost/alive/unverified/lost"}, // 45 s, 23 s of them before the cut
		{29, "lost/alive/unverified/lost"},
		{31, "lost/lost/unverified/lost"}, // 90 s after the entry was put
		{44, "lost/lost/unverified/lost"},
		{46, "lost/lost/lost/lost"}, // the time of one that is heard just then
	} {
		settleChecks(v, at(cut+tt.after))
		if got := lives(); got != tt.want {
			t.Errorf("%v s after the cut: %s, want %s", tt.after, got, tt.want)
		}
	}
}
