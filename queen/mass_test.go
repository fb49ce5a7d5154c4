package queen

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/beatfabric/hivebeat"
	"github.com/beatfabric/hivebeat/internal/bustest"
	"github.com/beatfabric/hivebeat/internal/ledger"
	"github.com/beatfabric/hivebeat/internal/wire"
	"github.com/beatfabric/hivebeat/queen/api"
)

// Hives come and go in numbers that need several batches, and two queens announce them
// at once. Each event is stored once, and both queens know it was announced.
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
	const hives = 612 // more than two batches of announcements
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

// A queen died after a step with three events, and published none. The queen that
// announces the hive's next event publishes all of them first, in order.
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
	advance(t, l, ledger.Step{Key: "h", Next: next})
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

// More hives are lost at once than the queen can subscribe to at once. Each has a
// worker that is silent unless called: all workers are called, and their answers are
// received.
func TestManyHivesDieAndTheirWorkersLiveOn(t *testing.T) {
	t.Parallel()
	srv := bustest.Server(t)
	nc := bustest.Conn(t, srv)
	q := startQueen(t, bustest.Conn(t, srv), Config{ID: "q", BrakeOff: true})
	q.warm()
	const hives = 640 // ten times as many as are subscribed to at once
	var none hivebeat.Subjects
	called := map[string]bool{}
	answer := func(m *nats.Msg) {
		id := strings.Split(m.Subject, ".")[1]
		if called[id] {
			return // one call must suffice
		}
		called[id] = true
		b, err := wire.EncodeBeat(&hivebeat.Beat{V: 1, Hive: id, Worker: "w", Facts: hivebeat.Facts{Inc: 7, Seq: 11, Every: 30_000, State: hivebeat.Ready}})
		if err != nil {
			t.Error(err)
		}
		if err := nc.Publish(none.Workers(id), b); err != nil {
			t.Error(err)
		}
	}
	if _, err := nc.Subscribe("hive.*.rollcall", answer); err != nil {
		t.Fatal(err)
	}
	bustest.Flush(t, nc)
	for i := range hives {
		s := snapshotOf(fmt.Sprintf("h%03d", i), 100, 1, workerOf("w"))
		s.Every = 500
		s.Workers[0].Age, s.Workers[0].N = 0, 0
		if err := nc.Publish(none.Hives(), encode(t, s)); err != nil {
			t.Fatal(err)
		}
	}
	q.eventually("all workers answer to the queen", func() bool {
		s := q.ask(api.VerbSummary, api.Request{}).Summary
		workers := q.ask(api.VerbWorkers, api.Request{Filter: api.Filter{Live: []hivebeat.Live{hivebeat.Alive}}, Limit: 1000}).Workers
		n := 0
		for _, w := range workers {
			if w.Via == hivebeat.ViaQueen {
				n++
			}
		}
		return s.Hives[hivebeat.Lost] == hives && n == hives
	})
	for _, ev := range storedEvents(t, nc) {
		if ev.Data.Worker != "" && ev.Data.Kind != hivebeat.KindJoined {
			t.Errorf("%s of %s is told", ev.Data.Kind, ev.Subject)
		}
	}
}
