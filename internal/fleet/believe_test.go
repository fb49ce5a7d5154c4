package fleet

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/beatfabric/hivebeat"
	"github.com/beatfabric/hivebeat/internal/ledger"
	"github.com/beatfabric/hivebeat/internal/wire"
)

// lostAsAnother is the roster entry of another queen, which heard the connection of h
// close: h is lost.
func lostAsAnother(n, seq uint64) ledger.RosterItem {
	item := rosterOf(n, hivebeat.Lost, 100, seq)
	item.Cause = hivebeat.CauseDisconnect
	return item
}

// stepsOf returns the steps of h since the last call.
func stepsOf(v *View) []string { return stepsIn(v.Take()) }

func stepsIn(r *Ready) (list []string) {
	for _, s := range r.Steps {
		list = append(list, fmt.Sprintf("%s %s>%s %s", s.Kind, s.From, s.To, s.Cause))
	}
	return list
}

// A queen that has heard nothing since accepts that a hive is lost, as if it had found
// that itself, and announces nothing. A hive that is heard again has recovered.
func TestAHiveIsLostAsAnotherFound(t *testing.T) {
	v := New(45 * time.Second)
	w := workerOf("w")
	w.Slots = 4
	mustFeed(t, v, snapshotOf("h", 100, 5, w), at(0))
	h := v.Hive("h")
	v.LearnKey("h", rosterOf(1, hivebeat.Alive, 100, 1), at(0))
	stepsOf(v)
	if !h.Worker("w").Fit() {
		t.Fatal("its worker can not be picked")
	}

	v.LearnKey("h", lostAsAnother(2, 5), at(3))
	r := v.Take()
	if diff := cmp.Diff([]string{"lost alive>lost disconnect"}, stepsIn(r)); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
	if h.Worker("w").Fit() {
		t.Error("its worker is picked")
	}
	if live, _, _ := v.index.Shown(h.Worker("w"), at(3)); live != hivebeat.Late || h.Worker("w").Via() != hivebeat.ViaQueen {
		t.Errorf("its worker is %s via %s", live, h.Worker("w").Via())
	}
	if !v.Adopted("h") || !slices.Equal(r.Adoptions, []string{"h"}) || len(r.Calls) != 1 {
		t.Error("its workers are not adopted, or not called")
	}
	if s, ok := h.Announce(at(3)); ok {
		t.Errorf("and then it says %+v", s)
	}
	if err := verify(v, at(3)); err != nil {
		t.Error(err)
	}

	mustFeed(t, v, snapshotOf("h", 100, 6, w), at(4))
	if diff := cmp.Diff([]string{"recovered lost>alive "}, stepsOf(v)); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
	if !h.Worker("w").Fit() || h.Worker("w").Via() != hivebeat.ViaHive || v.Adopted("h") {
		t.Error("its worker did not go back")
	}
	s, ok := h.Announce(at(4))
	if !ok || len(s.Events) != 1 || s.Events[0].Data.Kind != hivebeat.KindRecovered || s.Events[0].Data.N != 3 {
		t.Fatalf("%+v, %v", s, ok)
	}
	v.LearnKey("h", lostAsAnother(2, 5), at(5)) // as it is read once more, before that is put
	if l := h.Live(); l != hivebeat.Alive {
		t.Errorf("%s, by a word that was disproved", l)
	}
	v.LearnKey("h", ledger.RosterItem{RosterEntry: s.Next, Revision: 3, Epoch: 1}, at(5)) // by the other, which heard it too
	if s, ok := h.Announce(at(5)); ok {
		t.Errorf("and then it says %+v", s)
	}
}

// The message that a verdict is about decides, not a clock: a queen that has heard a later
// message keeps its verdict, whenever the entry of the other arrives.
func TestWhoHearsAHiveIsNotTalkedDown(t *testing.T) {
	for _, c := range []struct {
		name string
		word ledger.RosterItem
		then func(t *testing.T, v *View) // after the word
		want hivebeat.Live
	}{
		{"it heard less", lostAsAnother(9, 4), nil, hivebeat.Alive},
		{"it heard as much", lostAsAnother(9, 5), nil, hivebeat.Lost},
		{"and the next one was on its way", lostAsAnother(9, 5), func(t *testing.T, v *View) {
			mustFeed(t, v, snapshotOf("h", 100, 6), at(1))
		}, hivebeat.Alive},
		{"or is in the bucket", lostAsAnother(9, 5), func(_ *testing.T, v *View) {
			v.LearnKey("h", rosterOf(10, hivebeat.Alive, 100, 6), at(1))
		}, hivebeat.Alive},
		{"or began anew", lostAsAnother(9, 5), func(t *testing.T, v *View) {
			v.BlindFor(0) // or it may be old mail
			mustFeed(t, v, snapshotOf("h", 200, 1), at(1))
		}, hivebeat.Alive},
		{"one that came again is no sign of life", lostAsAnother(9, 5), func(t *testing.T, v *View) {
			_ = feed(t, v, snapshotOf("h", 100, 5), at(1))
		}, hivebeat.Lost},
		{"by one of before, which puts no ages", func() ledger.RosterItem {
			item := lostAsAnother(9, 5)
			item.Age, item.Every, item.Cause = 0, 0, hivebeat.CauseMissed
			return item
		}(), nil, hivebeat.Lost},
		{"one that can not be read", ledger.RosterItem{Revision: 9, Epoch: 1}, nil, hivebeat.Alive},
	} {
		for _, doubt := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, in doubt %v", c.name, doubt), func(t *testing.T) {
				v := New(45 * time.Second)
				mustFeed(t, v, snapshotOf("h", 100, 5, workerOf("w")), at(0))
				if doubt {
					v.Doubt(at(0))
				}
				v.LearnKey("h", c.word, at(1))
				if c.then != nil {
					c.then(t, v)
				}
				v.BlindFor(0)
				if l := v.Hive("h").Live(); l != c.want {
					t.Errorf("%s, want %s", l, c.want)
				}
				if err := verify(v, at(1)); err != nil {
					t.Error(err)
				}
			})
		}
	}
}

// A delayed page of a snapshot from before the verdict is no sign of life.
func TestALatePageRevivesNobody(t *testing.T) {
	page := func(n, seq uint64) *hivebeat.Snapshot {
		s := snapshotOf("h", 100, seq, workerOf(fmt.Sprint("w", n)))
		s.Page, s.Pages = n, 2
		return s
	}
	for _, who := range []string{"another queen's", "its own"} {
		v := New(45 * time.Second)
		mustFeed(t, v, page(0, 5), at(0))
		if who == "its own" {
			settleChecks(v, at(23))
			settleChecks(v, at(45))
		} else {
			v.LearnKey("h", lostAsAnother(2, 5), at(45))
		}
		_ = feed(t, v, page(1, 5), at(46))
		h := v.Hive("h")
		if h.Live() != hivebeat.Lost {
			t.Errorf("%s verdict: %s", who, h.Live())
		}
		for _, id := range []string{"w0", "w1"} { // it is heard for itself, and judged
			if w := h.workers[id]; w == nil || w.adopted == nil {
				t.Errorf("%s verdict: nobody looks after %s", who, id)
			}
		}
		if err := verify(v, at(46)); err != nil {
			t.Error(err)
		}
		mustFeed(t, v, page(0, 6), at(47))
		if h.Live() != hivebeat.Alive {
			t.Errorf("%s verdict: %s, and it was heard", who, h.Live())
		}
	}
}

// A queen that starts finds a hive lost in the roster, and its last snapshot still in the
// bucket. That snapshot ends no adoption.
func TestTheBucketGivesNobodyBack(t *testing.T) {
	v := New(45 * time.Second)
	item := lostAsAnother(2, 5)
	item.Workers = map[string]ledger.RosterWorker{"w": {Inc: 7, Live: hivebeat.Alive, Seq: 10, Every: 30000}}
	v.LearnKey("h", item, at(0))
	var kept wire.SnapshotView
	if err := wire.ParseSnapshot(encode(t, snapshotOf("h", 100, 5, workerOf("w"))), &kept); err != nil {
		t.Fatal(err)
	}
	v.Adopt(&kept, 10*time.Second, at(1))
	h := v.Hive("h")
	if h.Live() != hivebeat.Lost || !v.Adopted("h") || h.workers["w"].adopted == nil {
		t.Fatalf("%s, adopted %v", h.Live(), v.Adopted("h"))
	}
	for s := 2.0; s < 120; s++ {
		settleChecks(v, at(s))
	}
	if r := h.Worker("w").Record(); r.Live != hivebeat.Lost || r.Cause != hivebeat.CauseHive {
		t.Errorf("who does not answer is %s, cause %q", r.Live, r.Cause)
	}
}

// Only the brake of this queen releases a hive that it holds.
func TestTheBrakeKeepsWhomAnotherLost(t *testing.T) {
	s := newStage(t, BrakeRule{}).add("eu", 10).run(40*time.Second).silence("eu", 0, 8)
	s.until("it brakes", 2*time.Minute, s.braking)
	held := 0
	for _, h := range s.v.Hives() {
		if h.Live() != hivebeat.Unverified {
			continue
		}
		held++
		s.v.LearnKey(h.ID(), rosterOf(9, hivebeat.Lost, h.Inc(), h.Seq()), s.now)
		if l := h.Live(); l != hivebeat.Unverified {
			t.Errorf("%s is %s", h.ID(), l)
		}
	}
	if held == 0 {
		t.Fatal("none is held")
	}
	s.until("all are lost", 5*time.Minute, func() bool { return s.count("eu", hivebeat.Lost) == 8 })
	for _, h := range s.v.Hives() {
		if kind, _, ok := h.Difference(s.now); ok && h.Live() == hivebeat.Lost && h.roster.Item.Live == hivebeat.Lost {
			t.Errorf("%s: it says %s", h.ID(), kind)
		}
	}
}

// Another queen may reach its verdict before this queen's deadline: no margin is negative.
func TestTheMarginOfWhatAnotherFound(t *testing.T) {
	v := New(45 * time.Second)
	mustFeed(t, v, snapshotOf("h", 100, 5), at(2)) // which it heard two seconds before
	item := lostAsAnother(2, 5)
	item.Cause = hivebeat.CauseMissed
	v.LearnKey("h", item, at(45))
	mustFeed(t, v, snapshotOf("h", 100, 6), at(46))
	d, _ := v.Hive("h").Next(hivebeat.KindRecovered, hivebeat.Alive, at(46))
	if d.MarginMS == nil || *d.MarginMS != 0 || strings.Contains(d.Reason, "-") {
		t.Errorf("margin: %v, as %q", d.MarginMS, d.Reason)
	}
}
