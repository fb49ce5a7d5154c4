package queencore

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/beatfabric/hivebeat"
	"github.com/beatfabric/hivebeat/internal/core"
	"github.com/beatfabric/hivebeat/internal/fleet"
	"github.com/beatfabric/hivebeat/internal/ledger"
)

// entry returns a roster entry that another queen put, of the hive h at seq 1.
func (r *rig) entry(n, inc uint64, live hivebeat.Live) ledger.RosterItem {
	r.t.Helper()
	ev := r.c.cfg.Subjects.NewEvent(hivebeat.HiveEventID("h", n), r.now, hivebeat.EventData{Hive: "h", N: n, Inc: inc, To: string(live)})
	body, err := ev.Encode()
	if err != nil {
		r.t.Fatal(err)
	}
	return ledger.RosterItem{
		RosterEntry: ledger.RosterEntry{N: n, Live: live, Inc: inc, Seq: 1, Every: 15000, Event: body}, Revision: n, Epoch: 1,
	}
}

// asks returns the requests of one kind to carry out now.
func (r *rig) asks(kind OpKind) (list []*Op) {
	r.t.Helper()
	for _, op := range r.c.Ready(r.now).Ops {
		if op.Kind == kind {
			list = append(list, op)
		}
	}
	return list
}

// The queen that put an entry may have died before it published the event. The event goes
// out before the next entry replaces this one, or no queen would know it any more.
func TestTheEventBeforeGoesOutFirst(t *testing.T) {
	r := newRig(t, Config{})
	r.roster["h"] = r.entry(1, 100, hivebeat.Alive)
	r.rev = 1
	r.c.Roster(r.now, "h", r.roster["h"])
	r.snapshot("h", 200, 1)
	id := hivebeat.HiveEventID("h", 1)
	ops := r.asks(OpPublish)
	if len(ops) != 1 || len(ops[0].Msgs) != 1 || ops[0].Msgs[0].ID != id {
		t.Fatalf("%d requests to publish before the entry is advanced, want one, of %s", len(ops), id)
	}
	ops[0].Errs = []error{errAway}
	r.c.Done(r.now, ops[0])
	if n := len(r.asks(OpAdvance)); n > 0 || r.c.StoreThere() {
		t.Errorf("the entry is advanced %d times, and %s is not stored; JetStream is there: %t", n, id, r.c.StoreThere())
	}
	r.pass(30 * time.Second)
	for n := uint64(1); n <= 2; n++ {
		if id := hivebeat.HiveEventID("h", n); r.ids[id] == 0 {
			t.Errorf("%s was not published", id)
		}
	}
}

// An event whose publish got no answer is published again, until that succeeds.
func TestAnEventIsPublishedUntilItIsStored(t *testing.T) {
	r := newRig(t, Config{})
	r.c.Roster(r.now, "h", r.entry(1, 100, hivebeat.Lost))
	r.pass(time.Second)
	r.broken = true
	r.pass(20 * time.Second)
	r.broken = false
	r.pass(20 * time.Second)
	if id := hivebeat.HiveEventID("h", 1); r.ids[id] == 0 || !r.c.StoreThere() {
		t.Errorf("%s was stored %d times; JetStream is there: %t", id, r.ids[id], r.c.StoreThere())
	}
}

// The entry is there, but publishing its event failed: this queen must publish it again
// itself.
func TestAnEventOfItsOwnIsPublishedAgain(t *testing.T) {
	r := newRig(t, Config{})
	r.snapshot("h", 100, 1)
	put := r.asks(OpAdvance)[0]
	r.answer(put)
	r.c.Done(r.now, put)
	tell := r.asks(OpPublish)[0]
	tell.Errs = []error{errAway}
	r.c.Done(r.now, tell)
	r.pass(20 * time.Second)
	if id := hivebeat.HiveEventID("h", 1); r.ids[id] == 0 {
		t.Errorf("%s was not stored", id)
	}
}

// An announcement that failed is repeated later, even without any other input.
func TestAnAnnouncementThatFailedIsRepeated(t *testing.T) {
	r := newRig(t, Config{})
	r.snapshot("h", 100, 1)
	op := r.asks(OpAdvance)[0]
	op.Advanced = []ledger.Advanced{{Err: errAway}}
	r.c.Done(r.now, op)
	r.pass(10 * time.Second)
	if e := r.roster["h"]; e.N != 1 || e.Inc != 100 {
		t.Errorf("the roster has number %d, incarnation %d", e.N, e.Inc)
	}
}

// Another queen was faster: its entry is learned, and the event in it looked after.
func TestAnotherQueenWasFaster(t *testing.T) {
	r := newRig(t, Config{})
	r.snapshot("h", 100, 1)
	other := r.entry(1, 300, hivebeat.Alive)
	r.roster["h"], r.rev = other, 1
	r.turn()
	if h := r.c.view.Hive("h"); h.Inc() != 300 || h.Roster().Item.Revision != 1 {
		t.Errorf("it is known as %d, at revision %d of the roster", h.Inc(), h.Roster().Item.Revision)
	}
	r.pass(20 * time.Second)
	if id := hivebeat.HiveEventID("h", 1); r.ids[id] == 0 {
		t.Errorf("%s was not published", id)
	}
}

// A read that failed is repeated, and one is due whenever the bucket may have changed.
func TestTheRosterIsRead(t *testing.T) {
	r := newRig(t, Config{})
	reads := func() (n int) {
		t.Helper()
		for range 100 {
			if r.c.Ready(r.now).Read {
				n++
				r.c.ReadDone(r.now, errAway)
			}
			r.now = r.now.Add(100 * time.Millisecond)
		}
		return n
	}
	if n := reads(); n != 0 {
		t.Errorf("read %d times, and it was read", n)
	}
	r.c.Renewed(r.now)
	if n := reads(); n < 2 || n > 6 {
		t.Errorf("a read that fails is tried %d times within 10 s", n)
	}
}

// The roster was lost: its entries are put again, with their numbers.
func TestTheRosterIsLost(t *testing.T) {
	r := newRig(t, Config{})
	r.snapshot("h", 100, 1)
	r.pass(time.Second)
	n := r.roster["h"].N
	delete(r.roster, "h")
	r.c.Renewed(r.now)
	r.pass(time.Second)
	if e := r.roster["h"]; e.N != n || e.Inc != 100 || e.Live != hivebeat.Alive {
		t.Errorf("the roster has number %d, incarnation %d, %s", e.N, e.Inc, e.Live)
	}
}

// The watch brings an entry that this queen put only with its epoch.
func TestTheEpochOfItsOwnEntry(t *testing.T) {
	r := newRig(t, Config{})
	r.snapshot("h", 100, 1)
	r.pass(time.Second)
	r.c.Roster(r.now, "h", ledger.RosterItem{Revision: 1, Epoch: 7, Own: true})
	if b := r.c.view.Hive("h").Roster(); b.Item.Epoch != 7 || b.Item.N != 1 {
		t.Errorf("the entry is known as number %d of epoch %d", b.Item.N, b.Item.Epoch)
	}
}

// A hive in the bucket is known before it is heard, with the highest age that its key
// allows.
func TestAHiveInTheBucketIsKnown(t *testing.T) {
	r := newRig(t, Config{})
	r.c.Renewed(r.now)
	if !r.c.Ready(r.now).Read {
		t.Fatal("nothing is read")
	}
	r.c.RosterRead(r.now, nil)
	r.c.Kept(r.now, &ledger.Entry{Hive: "h", Inc: 100, Seq: 2, Payload: encodeFor(t, 2, worker("w")), Stored: 4 * time.Second, TTL: 41 * time.Second})
	r.c.ReadDone(r.now, nil)
	r.turn()
	h := r.c.view.Index().Hive("h")
	if h == nil || h.Live() != hivebeat.Alive || len(h.Workers()) != 1 {
		t.Fatalf("the hive is known as %+v", h)
	}
	if _, age, _ := r.c.view.Index().Shown(h.Workers()[0], r.now); age.Duration() < 8*time.Second { // 45 s less the TTL, which is in whole seconds
		t.Errorf("its worker is shown as %v old", age.Duration())
	}
	call := fleet.RollCall{Hive: "h", Spread: r.c.view.Spread()}
	if last := r.calls[len(r.calls)-1]; last != call {
		t.Errorf("called last: %+v, want %+v", last, call)
	}
}

// A starting queen answers once it has heard the hives whose keys are in the bucket, or has
// waited for them.
func TestAQueenThatBeginsWaitsForItsHives(t *testing.T) {
	for _, heard := range []bool{false, true} {
		c := New(Config{ID: "q", Fresh: hivebeat.Fresh, Random: func() float64 { return 0.5 }}, epoch)
		c.Connection(epoch, core.Connection{Up: true})
		c.StoreOpened(epoch)
		if !c.Ready(epoch).Read {
			t.Fatal("nothing is read")
		}
		c.RosterRead(epoch, nil)
		c.Kept(epoch, &ledger.Entry{Hive: "h", Inc: 100, Seq: 2, Payload: encodeFor(t, 2, worker("w")), Stored: 4 * time.Second, TTL: 41 * time.Second})
		c.ReadDone(epoch, nil)
		if c.Ready(epoch).Serve || c.Warm() {
			t.Error("it answers at once")
		}
		now := epoch.Add(startupWait - time.Millisecond)
		if heard {
			c.Snapshot(now, "", encodeFor(t, 3, worker("w")))
		}
		if c.Ready(now).Serve != heard {
			t.Errorf("after %v it answers: %t, its hive was heard: %t", now.Sub(epoch), !heard, heard)
		}
		if now = epoch.Add(startupWait); c.Ready(now).Serve == heard || !c.Warm() {
			t.Errorf("after %v it is warm: %t", now.Sub(epoch), c.Warm())
		}
	}
}

// A message read in doubt may have waited: it is not put into the bucket, where others
// would take it for new.
func TestNothingOldIsKept(t *testing.T) {
	r := newRig(t, Config{})
	r.pass(time.Second)
	r.mute = true
	r.now = r.now.Add(time.Minute) // the queen was stopped
	r.snapshot("h", 100, 1)
	if r.turn(); len(r.puts) != 0 {
		t.Error("a snapshot that may be a minute old is kept")
	}
	r.mute = false
	r.pass(3 * time.Second)
	r.snapshot("h", 100, 2)
	if r.turn(); len(r.puts) != 1 {
		t.Errorf("%d snapshots are kept, want the second", len(r.puts))
	}
}

// The first event of a worker got no answer: the second must not overtake it.
func TestNoEventOvertakesTheOneBefore(t *testing.T) {
	r := newRig(t, Config{})
	r.c.out.Push([]fleet.Happened{eventOf("a", 1), eventOf("b", 1), eventOf("a", 2), eventOf("b", 2)})
	ops := r.asks(OpPublish)
	if len(ops) != 1 || len(ops[0].Msgs) != 2 {
		t.Fatalf("%d requests", len(ops))
	}
	ops[0].Errs = []error{errAway, nil}
	r.c.Done(r.now, ops[0])
	if ops := r.asks(OpPublish); len(ops) > 0 {
		t.Errorf("%d requests at once after the failure", len(ops))
	}
	r.pass(5 * time.Second) // the store answers again
	var ids []string
	for _, ev := range r.stored {
		ids = append(ids, ev.ID)
	}
	if diff := cmp.Diff([]string{eventOf("a", 1).ID, eventOf("b", 2).ID, eventOf("a", 2).ID}, ids); diff != "" {
		t.Errorf("published next (-want +got):\n%s", diff)
	}
}
