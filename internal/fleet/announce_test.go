package fleet

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/beatfabric/hivebeat"
	"github.com/beatfabric/hivebeat/internal/ledger"
)

// rosterOf returns an entry as it is read from the roster.
func rosterOf(n uint64, live hivebeat.Live, inc, seq uint64) ledger.RosterItem {
	return ledger.RosterItem{Revision: n, Epoch: 1, RosterEntry: ledger.RosterEntry{
		V: 1, N: n, Live: live, Inc: inc, Seq: seq, Every: 15000,
	}}
}

// TestDifference checks what a queen announces for each verdict and each roster entry.
// The queen heard incarnation 100 up to seq 5.
func TestDifference(t *testing.T) {
	const none = ""
	for _, c := range []struct {
		name   string
		live   hivebeat.Live
		roster ledger.RosterItem
		want   hivebeat.Kind
		to     hivebeat.Live
	}{
		{"nobody spoke of it", hivebeat.Alive, ledger.RosterItem{}, "joined", "alive"},
		{"nobody spoke of it, and it is late", hivebeat.Late, ledger.RosterItem{}, "joined", "alive"},
		{"nobody spoke of it, and it is lost", hivebeat.Lost, ledger.RosterItem{}, "lost", "lost"},
		{"nobody spoke of it, and it left", hivebeat.Left, ledger.RosterItem{}, "left", "left"},
		{"all agree", hivebeat.Alive, rosterOf(1, hivebeat.Alive, 100, 1), none, ""},
		{"late", hivebeat.Late, rosterOf(1, hivebeat.Alive, 100, 1), "late", "late"},
		{"late and lost at once", hivebeat.Lost, rosterOf(1, hivebeat.Alive, 100, 1), "lost", "lost"},
		{"lost", hivebeat.Lost, rosterOf(2, hivebeat.Late, 100, 5), "lost", "lost"},
		{"lost, as another said", hivebeat.Lost, rosterOf(3, hivebeat.Lost, 100, 5), none, ""},
		{"lost, but another heard more", hivebeat.Lost, rosterOf(3, hivebeat.Alive, 100, 6), none, ""},
		{"recovered from late", hivebeat.Alive, rosterOf(2, hivebeat.Late, 100, 4), "recovered", "alive"},
		{"recovered from lost", hivebeat.Alive, rosterOf(3, hivebeat.Lost, 100, 4), "recovered", "alive"},
		{"recovered and late again", hivebeat.Late, rosterOf(3, hivebeat.Lost, 100, 4), "recovered", "alive"},
		{"recovered from unverified", hivebeat.Alive, rosterOf(3, hivebeat.Unverified, 100, 4), "recovered", "alive"},
		{"another waited longer for the same", hivebeat.Alive, rosterOf(2, hivebeat.Late, 100, 5), none, ""},
		{"another gave up on the same", hivebeat.Late, rosterOf(3, hivebeat.Lost, 100, 5), none, ""},
		{"left", hivebeat.Left, rosterOf(1, hivebeat.Alive, 100, 1), "left", "left"},
		{"left, found after it was lost", hivebeat.Left, rosterOf(3, hivebeat.Lost, 100, 4), "left", "left"},
		{"a goodbye is final", hivebeat.Lost, rosterOf(2, hivebeat.Left, 100, 5), none, ""},
		{"restarted", hivebeat.Alive, rosterOf(1, hivebeat.Alive, 90, 70), "restarted", "alive"},
		{"restarted after it was lost", hivebeat.Alive, rosterOf(3, hivebeat.Lost, 90, 70), "restarted", "alive"},
		{"restarted after it left", hivebeat.Alive, rosterOf(3, hivebeat.Left, 90, 70), "restarted", "alive"},
		{"restarted and late", hivebeat.Late, rosterOf(1, hivebeat.Alive, 90, 70), "restarted", "alive"},
		{"restarted and lost, untold", hivebeat.Lost, rosterOf(1, hivebeat.Alive, 90, 70), "lost", "lost"},
		{"another knows a newer incarnation", hivebeat.Lost, rosterOf(4, hivebeat.Alive, 110, 1), none, ""},
		{"known from memory alone", hivebeat.Unverified, rosterOf(4, hivebeat.Alive, 100, 5), none, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			v := New(45 * time.Second)
			mustFeed(t, v, snapshotOf("h", 100, 5), at(0))
			h := v.hives["h"]
			h.live, h.since, h.roster.Item = c.live, at(0), c.roster
			kind, to, ok := h.Difference(at(60))
			if !ok {
				kind, to = none, ""
			}
			if kind != c.want || to != c.to {
				t.Errorf("%q to %q, want %q to %q", kind, to, c.want, c.to)
			}
			if ok {
				d, next := h.Next(kind, to, at(0))
				if d.N != c.roster.N+1 || next.N != d.N || next.Live != to || d.From != string(c.roster.Live) || d.Hive != "h" || d.Inc != 100 || d.Seq != 5 {
					t.Errorf("%+v %+v", d, next)
				}
			}
		})
	}
}

func TestADeathOfLongAgoIsNotTold(t *testing.T) {
	v := New(45 * time.Second)
	mustFeed(t, v, snapshotOf("h", 100, 5), at(0))
	settleChecks(v, at(23))
	settleChecks(v, at(46))
	if _, _, ok := v.hives["h"].Difference(at(46).Add(TooOld)); ok {
		t.Error("told after 50 minutes")
	}
	if _, _, ok := v.hives["h"].Difference(at(46).Add(TooOld - time.Second)); !ok {
		t.Error("not told within 50 minutes")
	}
}

func TestLearnFromTheRoster(t *testing.T) {
	for _, c := range []struct {
		name   string
		before hivebeat.Live // of (100, 5); empty: not known
		roster ledger.RosterItem
		want   hivebeat.Live
		inc    uint64
		seq    uint64
	}{
		{"a queen that starts does not remember it", "", rosterOf(1, hivebeat.Alive, 100, 5), hivebeat.Unverified, 100, 5},
		{"nor a late one", "", rosterOf(2, hivebeat.Late, 100, 5), hivebeat.Unverified, 100, 5},
		{"but the dead are dead", "", rosterOf(3, hivebeat.Lost, 100, 5), hivebeat.Lost, 100, 5},
		{"and gone is gone", "", rosterOf(2, hivebeat.Left, 100, 5), hivebeat.Left, 100, 5},
		{"what we know", hivebeat.Alive, rosterOf(1, hivebeat.Alive, 100, 3), hivebeat.Alive, 100, 5},
		{"lost by who heard no more than we", hivebeat.Alive, rosterOf(3, hivebeat.Lost, 100, 5), hivebeat.Lost, 100, 5},
		{"which is late to us", hivebeat.Late, rosterOf(3, hivebeat.Lost, 100, 5), hivebeat.Lost, 100, 5},
		{"which is unverified to us", hivebeat.Unverified, rosterOf(3, hivebeat.Lost, 100, 5), hivebeat.Lost, 100, 5},
		{"lost by who heard less than we", hivebeat.Alive, rosterOf(3, hivebeat.Lost, 100, 4), hivebeat.Alive, 100, 5},
		{"late to who heard no more than we", hivebeat.Alive, rosterOf(2, hivebeat.Late, 100, 5), hivebeat.Alive, 100, 5},
		{"held by who heard no more than we", hivebeat.Alive, rosterOf(2, hivebeat.Unverified, 100, 5), hivebeat.Alive, 100, 5},
		{"lost by who heard more", hivebeat.Alive, rosterOf(3, hivebeat.Lost, 100, 7), hivebeat.Lost, 100, 7},
		{"alive by who heard more", hivebeat.Lost, rosterOf(4, hivebeat.Alive, 100, 7), hivebeat.Alive, 100, 7},
		{"left, which we did not hear", hivebeat.Alive, rosterOf(2, hivebeat.Left, 100, 6), hivebeat.Left, 100, 6},
		{"left, with the seq that we heard", hivebeat.Alive, rosterOf(2, hivebeat.Left, 100, 5), hivebeat.Left, 100, 5},
		{"a restart that we did not hear", hivebeat.Lost, rosterOf(4, hivebeat.Alive, 110, 1), hivebeat.Alive, 110, 1},
		{"an incarnation before ours", hivebeat.Alive, rosterOf(4, hivebeat.Lost, 90, 100), hivebeat.Alive, 100, 5},
	} {
		t.Run(c.name, func(t *testing.T) {
			v := New(45 * time.Second)
			if c.before != "" {
				mustFeed(t, v, snapshotOf("h", 100, 5), at(0))
				v.hives["h"].live = c.before
			}
			v.LearnKey("h", c.roster, at(1))
			h := v.hives["h"]
			if h.live != c.want || h.line.Inc() != c.inc || h.line.Seq() != c.seq {
				t.Errorf("%s at (%d, %d), want %s at (%d, %d)", h.live, h.line.Inc(), h.line.Seq(), c.want, c.inc, c.seq)
			}
			if kind, _, ok := h.Difference(at(2)); ok && c.before != hivebeat.Alive {
				t.Errorf("and then says %s", kind)
			}
		})
	}
	t.Run("unverified becomes lost", func(t *testing.T) {
		v := New(45 * time.Second)
		v.LearnKey("h", rosterOf(1, hivebeat.Alive, 100, 5), at(0))
		settleChecks(v, at(44.9))
		if l := v.hives["h"].live; l != hivebeat.Unverified {
			t.Errorf("%s", l)
		}
		settleChecks(v, at(45))
		h := v.hives["h"]
		if kind, to, ok := h.Difference(at(45)); h.live != hivebeat.Lost || !ok || kind != hivebeat.KindLost || to != hivebeat.Lost {
			t.Errorf("%s, %s %v", h.live, kind, ok)
		}
	})
	t.Run("older revisions, and those of another bucket", func(t *testing.T) {
		v := New(45 * time.Second)
		v.LearnKey("h", rosterOf(7, hivebeat.Alive, 100, 5), at(0))
		v.LearnKey("h", rosterOf(6, hivebeat.Lost, 100, 5), at(0))
		if n := v.hives["h"].roster.Item.N; n != 7 {
			t.Errorf("an older revision was taken: %d", n)
		}
		again := rosterOf(1, hivebeat.Alive, 100, 5)
		again.Epoch = 2
		v.LearnKey("h", again, at(0))
		if n := v.hives["h"].roster.Item.N; n != 1 {
			t.Errorf("the bucket made anew was not taken: %d", n)
		}
	})
	t.Run("removed by hand", func(t *testing.T) {
		v := New(45 * time.Second)
		v.LearnKey("dead", rosterOf(3, hivebeat.Lost, 100, 5), at(0))
		mustFeed(t, v, snapshotOf("h", 100, 5), at(0))
		v.LearnKey("h", rosterOf(4, hivebeat.Alive, 100, 1), at(0))
		v.UnlearnKey("dead", true, at(0))
		v.UnlearnKey("h", true, at(0))
		if v.hives["dead"] != nil {
			t.Error("a dead hive is not forgotten")
		}
		if h := v.hives["h"]; h == nil || h.roster.Item.Revision != 0 || h.roster.Item.N != 4 {
			t.Error("of a hive that lives the entry is to be made again")
		}
	})
	t.Run("an entry that can not be read", func(t *testing.T) {
		v := New(45 * time.Second)
		v.LearnKey("h", ledger.RosterItem{Revision: 9, Epoch: 1}, at(0))
		if h := v.Hive("h"); h.Live() != "" {
			t.Errorf("%s", h.Live())
		}
		mustFeed(t, v, snapshotOf("h", 100, 5), at(1))
		if kind, _, ok := v.hives["h"].Difference(at(1)); !ok || kind != hivebeat.KindJoined || v.hives["h"].roster.Item.Revision != 9 {
			t.Errorf("%s %v", kind, ok)
		}
	})
}

// TestOvertaken: a queen that heard a duplicate, and then nothing for a long time, learns
// that the other queens went back to the hive that lives.
func TestOvertaken(t *testing.T) {
	for _, c := range []struct {
		name   string
		epoch  int64
		n      uint64
		live   hivebeat.Live
		stored time.Duration // at 60 s; the duplicate was heard at 10 s at last
		heard  bool          // it was heard at 55 s too
		follow bool
	}{
		{"the roster was created again, and its numbers continue", 2, 5, hivebeat.Alive, 5 * time.Second, false, true},
		{"created again by a queen that knows less", 2, 2, hivebeat.Alive, 5 * time.Second, false, false},
		{"told before it was heard", 2, 5, hivebeat.Alive, 55 * time.Second, false, false},
		{"of one that is gone", 2, 5, hivebeat.Lost, 5 * time.Second, false, false},
		{"it still beats", 2, 5, hivebeat.Alive, 3 * time.Second, true, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			v := New(45 * time.Second)
			mustFeed(t, v, snapshotOf("h", 100, 5), at(0))
			mustFeed(t, v, snapshotOf("h", 200, 1), at(10))
			v.LearnKey("h", rosterOf(3, hivebeat.Alive, 200, 1), at(11))
			settleChecks(v, at(50))
			if c.heard {
				mustFeed(t, v, snapshotOf("h", 200, 2), at(55))
			}
			item := rosterOf(c.n, c.live, 100, 9)
			item.Epoch, item.Stored = c.epoch, c.stored
			v.LearnKey("h", item, at(60))
			h := v.Hive("h")
			if got := h.Inc() == 100; got != c.follow {
				t.Errorf("incarnation %d", h.Inc())
			}
			if kind, _, ok := h.Difference(at(60)); c.follow && ok {
				t.Errorf("and then says %s", kind)
			}
		})
	}
}

// TestBackWhileTheStoreWasAway: a duplicate took the place of a hive, also in the roster.
// Then JetStream was away, the duplicate died, and this queen heard the hive again. It
// ignores an entry from before that, and follows one from after it.
func TestBackWhileTheStoreWasAway(t *testing.T) {
	for _, c := range []struct {
		stored time.Duration // at 70 s
		want   uint64
	}{{60 * time.Second, 100}, {5 * time.Second, 200}} {
		v := New(45 * time.Second)
		mustFeed(t, v, snapshotOf("h", 100, 1), at(0))
		v.LearnKey("h", rosterOf(1, hivebeat.Alive, 100, 1), at(0))
		mustFeed(t, v, snapshotOf("h", 200, 1), at(10))
		settleChecks(v, at(33))
		settleChecks(v, at(56))
		mustFeed(t, v, snapshotOf("h", 100, 5), at(60))
		item := rosterOf(2, hivebeat.Alive, 200, 1)
		item.Stored = c.stored
		v.LearnKey("h", item, at(70))
		h := v.Hive("h")
		if h.Inc() != c.want {
			t.Errorf("put %v before: incarnation %d, want %d", c.stored, h.Inc(), c.want)
		}
		if kind, _, ok := h.Difference(at(70)); ok != (c.want == 100) || ok && kind != hivebeat.KindRestarted {
			t.Errorf("put %v before: and then says %q", c.stored, kind)
		}
	}
}

// TestTwoQueensAgree lets two queens that hear different messages announce in turn. They
// end in agreement with the roster, and never argue in circles.
func TestTwoQueensAgree(t *testing.T) {
	a, b := New(45*time.Second), New(45*time.Second)
	roster := ledger.RosterItem{Epoch: 1}
	var kinds []hivebeat.Kind
	turn := func(v *View, now time.Time) bool {
		if roster.Revision > 0 {
			v.LearnKey("h", roster, now)
		}
		kind, to, ok := v.hives["h"].Difference(now)
		if !ok {
			return false
		}
		_, next := v.hives["h"].Next(kind, to, at(0))
		roster.RosterEntry, roster.Revision = next, roster.Revision+1
		kinds = append(kinds, kind)
		return true
	}
	agree := func(now time.Time) {
		t.Helper()
		for i := 0; turn(a, now) || turn(b, now); i++ {
			if i > 10 {
				t.Fatalf("no end: %v", kinds)
			}
		}
	}
	mustFeed(t, a, snapshotOf("h", 100, 1), at(0))
	mustFeed(t, b, snapshotOf("h", 100, 1), at(0))
	agree(at(0))
	for seq := uint64(2); seq < 12; seq++ { // b hears nothing from now on, and cannot read the keys
		now := at(14 * float64(seq-1))
		mustFeed(t, a, snapshotOf("h", 100, seq), now)
		settleChecks(a, now)
		settleChecks(b, now)
		agree(now)
		if l := a.hives["h"].live; l != hivebeat.Alive {
			t.Errorf("who hears it is told that it is %s, at %v", l, now)
		}
	}
	if len(kinds) > 12 || a.hives["h"].live != hivebeat.Alive {
		t.Errorf("%s after %v", a.hives["h"].live, kinds)
	}
	for s := 140.0; s < 240; s++ { // and now it dies
		settleChecks(a, at(s))
		settleChecks(b, at(s))
		agree(at(s))
	}
	if last := kinds[len(kinds)-1]; last != hivebeat.KindLost || roster.Live != hivebeat.Lost {
		t.Errorf("%v", kinds)
	}
}

func TestConflictIsToldOnce(t *testing.T) {
	v := New(45 * time.Second)
	told := 0
	for i := range uint64(20) {
		now := at(float64(i))
		_ = feed(t, v, snapshotOf("h", 100, i+1), now)
		_ = feed(t, v, snapshotOf("h", 200, i+1), now)
		for {
			kind, to, ok := v.hives["h"].Difference(now)
			if !ok {
				break
			}
			d, next := v.hives["h"].Next(kind, to, at(0))
			if kind == hivebeat.KindConflict {
				told++
				if next.Live != hivebeat.Alive || d.Inc != 200 || !strings.Contains(d.Reason, "incarnation 200 (began 1970-01-01 00:00:00 UTC) is accepted, 100 (") {
					t.Errorf("%+v %+v", d, next)
				}
			}
			ev := hivebeat.Subjects{}.NewEvent("id", now, d)
			next.Event, _ = json.Marshal(ev)
			v.LearnKey("h", ledger.RosterItem{RosterEntry: next, Revision: next.N, Epoch: 1}, now)
		}
	}
	if told != 1 {
		t.Errorf("told %d times", told)
	}
	if h := v.Hive("h"); h.Conflicting(at(20)) != 100 || h.Live() != hivebeat.Alive {
		t.Errorf("%s, conflict with %d", h.Live(), h.Conflicting(at(20)))
	}
	mustFeed(t, v, snapshotOf("h", 200, 21), at(70))
	if v.Hive("h").Conflicting(at(70)) != 0 {
		t.Error("the other one is silent, and still shown")
	}
}

// One forged snapshot silences a hive: it lives, that is a conflict, and it comes back.
func TestASilencedHiveIsAConflict(t *testing.T) {
	for name, c := range map[string]struct {
		inc, seq uint64
		bye      string
	}{
		"goodbye": {100, 6, "stopped"}, "higher incarnation": {1e15, 6, ""},
		"higher seq": {100, 1e6, ""}, "late goodbye": {100, 1e6, "stopped"},
	} {
		t.Run(name, func(t *testing.T) {
			v := New(45 * time.Second)
			v.SetBrake(BrakeRule{Off: true})
			for i := range uint64(5) {
				mustFeed(t, v, snapshotOf("h", 100, i+1), at(float64(15*i)))
			}
			forged := snapshotOf("h", c.inc, c.seq)
			forged.Bye = c.bye
			mustFeed(t, v, forged, at(61))
			told := 0
			for i := range uint64(12) {
				now := at(float64(62 + 8*i))
				_ = feed(t, v, snapshotOf("h", 100, 7+i), now)
				settleChecks(v, now)
				for _, s := range v.ready.Steps {
					if s.Kind == hivebeat.KindConflict {
						if told++; i != 2 || !strings.Contains(s.Reason, "incarnation 100") && !strings.Contains(s.Reason, ", 100 (") {
							t.Errorf("a conflict after %d snapshots: %s", i+1, s.Reason)
						}
					}
				}
				v.ready.Steps = nil
			}
			if n := v.ready.Notices; len(n) == 0 || n[0].ID != "h" || n[0].Inc != 100 {
				t.Errorf("told to itself: %+v", n)
			}
			if h := v.Hive("h"); told != 1 || h.Live() != hivebeat.Alive || h.Inc() != 100 {
				t.Errorf("%d conflicts, and it is %s as %d", told, h.Live(), h.Inc())
			}
		})
	}
}

// A seq that a hive went back from is no evidence, whether in the roster, in its key, or
// from another queen: the hive's transitions are announced as usual.
func TestAFalseSeqIsDisowned(t *testing.T) {
	a, b := New(45*time.Second), New(45*time.Second)
	a.SetBrake(BrakeRule{Off: true})
	b.SetBrake(BrakeRule{Off: true})
	var roster ledger.RosterItem
	var kinds []hivebeat.Kind
	agree := func(now time.Time) {
		t.Helper()
		for again := true; again; {
			again = false
			for _, v := range []*View{a, b} {
				v.LearnKey("h", roster, now)
				kind, to, ok := v.hives["h"].Difference(now)
				if !ok {
					continue
				}
				d, next := v.hives["h"].Next(kind, to, now)
				next.Event, _ = json.Marshal(hivebeat.Subjects{}.NewEvent("id", now, d))
				roster = ledger.RosterItem{RosterEntry: next, Revision: next.N, Epoch: 1}
				kinds, again = append(kinds, kind), true
				v.LearnKey("h", roster, now) // its own entry too
				if len(kinds) > 20 {
					t.Fatalf("they argue: %v", kinds)
				}
			}
		}
	}
	const false1 = 5000
	settle := func(now time.Time) { // the key holds the forged seq while it exists
		for _, v := range []*View{a, b} {
			v.Tick(now)
			for len(v.ready.Checks) > 0 {
				c := v.ready.Checks[0]
				v.ready.Checks = v.ready.Checks[1:]
				v.Checked(c, 100, false1, now)
			}
		}
	}
	seq, s := uint64(0), 0.0
	hear := func(n int, views ...*View) {
		for range n {
			seq++
			for end := s + 14; s < end; s++ {
				settle(at(s))
				agree(at(s))
			}
			for _, v := range views {
				_ = feed(t, v, snapshotOf("h", 100, seq), at(s))
			}
			agree(at(s))
		}
	}
	mustFeed(t, a, snapshotOf("h", 100, 1), at(0))
	mustFeed(t, b, snapshotOf("h", 100, 1), at(0))
	seq = 1
	for range 2 { // the second time, no conflict is announced
		hear(5, a, b)
		mustFeed(t, a, snapshotOf("h", 100, false1), at(s)) // b learns it
		hear(8, a, b)
		for _, v := range []*View{a, b} {
			if h := v.Hive("h"); h.Live() != hivebeat.Alive || h.Seq() != seq {
				t.Fatalf("%s at %d of %d, after %v", h.Live(), h.Seq(), seq, kinds)
			}
		}
	}
	if roster.Live != hivebeat.Alive {
		t.Errorf("told as %s: %v", roster.Live, kinds)
	}
	hear(4) // it dies
	if h := a.Hive("h"); h.Live() != hivebeat.Lost || b.Hive("h").Live() != hivebeat.Lost || roster.Live != hivebeat.Lost || kinds[len(kinds)-1] != hivebeat.KindLost {
		t.Errorf("%s and %s, told as %s: %v", h.Live(), b.Hive("h").Live(), roster.Live, kinds)
	}
	conflicts := 0
	for _, k := range kinds {
		if k == hivebeat.KindConflict {
			conflicts++
		}
	}
	if conflicts != 1 {
		t.Errorf("%d conflicts: %v", conflicts, kinds)
	}
}

func TestAnImplausibleSeqOfAHive(t *testing.T) {
	v := New(45 * time.Second)
	mustFeed(t, v, snapshotOf("h", 100, 1), at(0))
	if err := feed(t, v, snapshotOf("h", 100, hivebeat.MaxLeap+2), at(1)); hivebeat.ReasonOf(err) != hivebeat.RefusedLimit {
		t.Errorf("refused as %v", err)
	}
	mustFeed(t, v, snapshotOf("h", 100, 2), at(2))
}

func TestAnImplausibleIncarnationTakesNoHivesPlace(t *testing.T) {
	v := New(45 * time.Second)
	mustFeed(t, v, snapshotOf("h", 100, 1), at(0))
	if err := feed(t, v, snapshotOf("h", hivebeat.MaxInt, 1), at(1)); hivebeat.ReasonOf(err) != hivebeat.RefusedLimit {
		t.Errorf("refused as %v", err)
	}
	mustFeed(t, v, snapshotOf("h", uint64(at(0).Add(5*time.Hour).UnixMicro()), 1), at(2))
}
