package queen

import (
	"fmt"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/beatfabric/hivebeat"
	"github.com/beatfabric/hivebeat/internal/bustest"
	"github.com/beatfabric/hivebeat/internal/ledger"
	"github.com/beatfabric/hivebeat/internal/wire"
)

// Hives come and go in numbers that need several batches, and two queens tell of
// them at once: each event is stored once, and both queens know what was told.
func TestMassIsToldOnce(t *testing.T) {
	t.Parallel()
	srv := bustest.Server(t)
	events := subscribeEvents(t, bustest.Conn(t, srv))
	queens := []*runningQueen{
		startQueen(t, bustest.Conn(t, srv), Config{ID: "q0"}),
		startQueen(t, bustest.Conn(t, srv), Config{ID: "q1"}),
	}
	for _, q := range queens {
		q.warm()
	}
	const hives = 2*announceBatch + 100
	nc := bustest.Conn(t, srv)
	inc := uint64(time.Now().UnixMicro())
	var none hivebeat.Subjects
	say := func(seq uint64, bye string) {
		for i := range hives {
			s := snapshotOf(fmt.Sprintf("h%04d", i), inc, seq)
			s.Bye = bye
			b, err := wire.EncodeSnapshot(s)
			if err != nil {
				t.Fatal(err)
			}
			if err := nc.Publish(none.Hives(), b); err != nil {
				t.Fatal(err)
			}
		}
		bustest.Flush(t, nc)
	}
	told := func(kind hivebeat.Kind) {
		t.Helper()
		bustest.Eventually(t, patience, func() (bool, string) {
			events.mu.Lock()
			defer events.mu.Unlock()
			n := 0
			for i := range events.evs {
				if events.evs[i].Data.Kind == kind {
					n++
				}
			}
			return n == hives, fmt.Sprintf("%d of %d are told %s", n, hives, kind)
		})
	}
	say(1, "")
	told(hivebeat.KindJoined)
	say(2, "test")
	told(hivebeat.KindLeft)
	for _, q := range queens {
		q.eventually("all of the roster is known", func() bool {
			behind := 0
			if err := q.do(t.Context(), func(time.Time) {
				behind = hives - q.view.Len()
				for _, h := range q.view.Hives() {
					if b := h.Roster(); b.Item.N != 2 || b.Item.Revision == 0 || b.Item.Epoch == 0 || b.Item.Live != hivebeat.Left || b.Busy {
						behind++
					}
				}
			}); err != nil {
				t.Fatal(err)
			}
			return behind == 0
		})
	}
	events.once(t)
	stored := storedEvents(t, nc)
	for i := range hives {
		id := fmt.Sprintf("h%04d", i)
		first, second := stored[hivebeat.HiveEventID(id, 1)], stored[hivebeat.HiveEventID(id, 2)]
		if first.Data.Kind != hivebeat.KindJoined || second.Data.Kind != hivebeat.KindLeft {
			t.Errorf("%s: %s, then %s", id, first.Data.Kind, second.Data.Kind)
		}
	}
	if len(stored) != 2*hives {
		t.Errorf("%d events are stored, want %d", len(stored), 2*hives)
	}
}

// A queen died after a step that tells three events, and published none: whoever
// says the next thing publishes all of them first, in order.
func TestAQueenDiesWithSeveralEventsToPublish(t *testing.T) {
	t.Parallel()
	srv := bustest.Server(t)
	nc := bustest.Conn(t, srv)
	q := startQueen(t, bustest.Conn(t, srv), Config{ID: "q1"})
	q.warm()
	l, err := ledger.Open(t.Context(), nc, ledger.Config{})
	if err != nil {
		t.Fatal(err)
	}
	next := ledger.RosterEntry{N: 3, Live: hivebeat.Alive, Inc: 100, Seq: 1, Every: 1000}
	for n, worker := range []string{"a", "b", "c"} {
		id := hivebeat.HiveEventID("h", uint64(n+1))
		ev := hivebeat.Subjects{}.NewEvent(id, time.Now(), hivebeat.EventData{
			Hive: "h", Worker: worker, Inc: 7, HiveInc: 100, N: uint64(n + 1), Kind: hivebeat.KindRecovered, Via: hivebeat.ViaQueen,
		})
		body, err := ev.Encode()
		if err != nil {
			t.Fatal(err)
		}
		if n < 2 {
			next.Events = append(next.Events, body)
		} else {
			next.Event = body
		}
	}
	if _, err := l.Advance(t.Context(), "h", 0, next); err != nil {
		t.Fatal(err)
	}
	waitStored(t, nc, hivebeat.KindLost, "h", "") // it was never heard
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	st, err := js.Stream(t.Context(), hivebeat.StreamEvents)
	if err != nil {
		t.Fatal(err)
	}
	for n := uint64(1); n <= 4; n++ {
		m, err := st.GetMsg(t.Context(), n)
		if err != nil {
			t.Fatal(err)
		}
		if id := m.Header.Get(jetstream.MsgIDHeader); id != hivebeat.HiveEventID("h", n) {
			t.Errorf("%s is stored as %d. of all", id, n)
		}
	}
}

// The answer to an advance is lost, and the watch brings what it wrote while that
// is not known yet: there is no difference left to be told, but the event was
// never published.
func TestTheAnswerToAnAdvanceIsLost(t *testing.T) {
	q, err := New(bustest.Conn(t, bustest.Server(t)), Config{})
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	mustFeed(t, view{q.view}, snapshotOf("h", 100, 1), now)
	h := q.view.Hive("h")
	a := q.announcement(h, now)
	if a == nil {
		t.Fatal("there is nothing to tell")
	}
	h.Roster().Busy, q.working = true, 1
	q.rosterItem("h", ledger.RosterItem{RosterEntry: a.next, Revision: 1, Epoch: 1}, now, time.Second)
	if n := q.store.unsure.Len(); n != 0 {
		t.Fatalf("%d are to be looked after while it is under way", n)
	}
	a.err = ledger.ErrAway
	q.finishOne(a, now)
	if q.announcement(h, now) != nil {
		t.Error("it is told again")
	}
	if n := q.store.unsure.Len(); n != 1 {
		t.Errorf("%d are to be looked after, want 1", n)
	}
}
