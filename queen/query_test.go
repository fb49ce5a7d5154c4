package queen

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/beatfabric/hivebeat"
	"github.com/beatfabric/hivebeat/internal/bustest"
	"github.com/beatfabric/hivebeat/internal/query"
	"github.com/beatfabric/hivebeat/queen/api"
)

func slotted(id string, slots uint64) hivebeat.Record {
	w := workerOf(id)
	w.Slots = slots
	return w
}

// Two queens that are asked at once never give one slot twice, and a hold survives the
// queen that gave it.
func TestHoldsAreGivenOnce(t *testing.T) {
	t.Parallel()
	srv := bustest.Server(t)
	q1 := startQueen(t, bustest.Conn(t, srv), Config{ID: "q1"})
	q1.warm()
	q2 := startQueen(t, bustest.Conn(t, srv), Config{ID: "q2"})
	q2.warm()
	const workers, slots, asked = 6, 2, 20
	var list []hivebeat.Record
	for i := range workers {
		list = append(list, slotted(fmt.Sprintf("w%d", i), slots))
	}
	startHive(t, bustest.Conn(t, srv), "h", time.Minute, list...)
	for _, q := range []*runningQueen{q1, q2} {
		q.eventually("heard", func() bool { return q.live("h") == hivebeat.Alive })
	}
	var mu sync.Mutex
	given, byID := make(map[string]uint64), make(map[string]string)
	var wg sync.WaitGroup
	for i := range asked {
		wg.Go(func() {
			q := []*runningQueen{q1, q2}[i%2]
			id := fmt.Sprintf("job-%d", i)
			a := q.ask(api.VerbHold, api.Request{Hold: id, HoldMS: 60_000})
			mu.Lock()
			defer mu.Unlock()
			for _, p := range a.Picks {
				given[p.Worker]++
				byID[id] = p.Worker
				if p.Hold != id {
					t.Errorf("%+v", p)
				}
			}
		})
	}
	wg.Wait()
	total := uint64(0)
	for w, n := range given {
		total += n
		if n > slots {
			t.Errorf("%s has %d slots, and was given %d times", w, slots, n)
		}
	}
	if total < workers*slots-2 { // an asker that lost many races in a row may have given up
		t.Errorf("%d of %d slots were given: %v", total, workers*slots, given)
	}
	for _, q := range []*runningQueen{q1, q2} {
		q.eventually("all holds are known", func() bool { return len(q.ask(api.VerbHolds, api.Request{}).Holds) == int(total) })
	}

	q1.stop()
	for id, w := range byID {
		a := q2.ask(api.VerbHold, api.Request{Hold: id, HoldMS: 60_000})
		if len(a.Picks) != 1 || a.Picks[0].Worker != w {
			t.Errorf("%s was %s, asked again: %+v", id, w, a.Picks)
		}
		if a := q2.ask(api.VerbRelease, api.Request{Hold: id}); a.Error != nil || len(a.Holds) != 1 || a.Holds[0].Worker != w {
			t.Errorf("release: %+v", a)
		}
		if a := q2.ask(api.VerbRelease, api.Request{Hold: id}); a.Error == nil || a.Error.Code != api.CodeNotFound {
			t.Errorf("released twice: %+v", a)
		}
	}
	if a := q2.ask(api.VerbWorkers, api.Request{Filter: api.Filter{FreeSlots: slots}}); len(a.Workers) != workers {
		t.Errorf("%d workers are free after all was released", len(a.Workers))
	}
	q3 := startQueen(t, bustest.Conn(t, srv), Config{ID: "q3"})
	q3.warm()
	if a := q3.ask(api.VerbHolds, api.Request{}); len(a.Holds) != 0 {
		t.Errorf("%+v", a.Holds)
	}
}

// A hold expires by itself, and its place is given to another asker.
func TestHoldsEndByThemselves(t *testing.T) {
	t.Parallel()
	srv := bustest.Server(t)
	q := startQueen(t, bustest.Conn(t, srv), Config{ID: "q1"})
	q.warm()
	startHive(t, bustest.Conn(t, srv), "h", time.Minute, slotted("w", 1))
	q.eventually("heard", func() bool { return q.live("h") == hivebeat.Alive })
	if a := q.ask(api.VerbHold, api.Request{Hold: "a", HoldMS: 1000}); len(a.Picks) != 1 {
		t.Fatalf("%+v", a)
	}
	if a := q.ask(api.VerbPick, api.Request{}); len(a.Picks) != 0 || a.Passed["held"] != 1 {
		t.Errorf("%+v %v", a.Picks, a.Passed)
	}
	q.eventually("given to another once it has ended", func() bool {
		return len(q.ask(api.VerbHold, api.Request{Hold: "b", HoldMS: 5000}).Picks) == 1
	})
}

func TestHoldsWithoutJetStream(t *testing.T) {
	t.Parallel()
	t.Run("none by choice", func(t *testing.T) {
		srv := bustest.Server(t, bustest.NoJetStream())
		q := startQueen(t, bustest.Conn(t, srv), Config{ID: "q1", NoJetStream: true})
		startHive(t, bustest.Conn(t, srv), "h", time.Minute, slotted("w", 1))
		q.eventually("heard", func() bool { return q.live("h") == hivebeat.Alive })
		a := q.ask(api.VerbHold, api.Request{Hold: "a"})
		if len(a.Picks) != 1 || len(a.Status.Unsure) == 0 {
			t.Fatalf("%+v", a)
		}
		if a := q.ask(api.VerbHold, api.Request{Hold: "b"}); len(a.Picks) != 0 {
			t.Errorf("given twice: %+v", a)
		}
		if a := q.ask(api.VerbRelease, api.Request{Hold: "a"}); a.Error != nil {
			t.Errorf("%+v", a.Error)
		}
		if a := q.ask(api.VerbHold, api.Request{Hold: "b"}); len(a.Picks) != 1 {
			t.Errorf("%+v", a)
		}
		if a := q.ask(api.VerbEvents, api.Request{}); len(a.Status.Unsure) == 0 {
			t.Errorf("sure of events without a stream: %+v", a.Status)
		}
	})
	t.Run("away", func(t *testing.T) {
		srv := bustest.Server(t, bustest.NoJetStream())
		q := startQueen(t, bustest.Conn(t, srv), Config{ID: "q1"})
		startHive(t, bustest.Conn(t, srv), "h", time.Minute, slotted("w", 1))
		q.eventually("heard", func() bool { return q.live("h") == hivebeat.Alive })
		if a := q.ask(api.VerbHold, api.Request{Hold: "a"}); a.Error == nil || a.Error.Code != api.CodeUnavailable {
			t.Errorf("%+v", a)
		}
		if a := q.ask(api.VerbPick, api.Request{}); len(a.Picks) != 1 {
			t.Errorf("a pick without a hold goes on: %+v", a)
		}
	})
}

// A watcher waits for a match, gets it, and is released when the queen stops.
func TestWatchWaits(t *testing.T) {
	t.Parallel()
	srv := bustest.Server(t)
	nc := bustest.Conn(t, srv)
	q := startQueen(t, bustest.Conn(t, srv), Config{ID: "q1"})
	q.warm()
	h := startHive(t, bustest.Conn(t, srv), "h", time.Minute, slotted("w", 4), slotted("x", 4))
	q.eventually("heard", func() bool { return q.live("h") == hivebeat.Alive })
	r := api.Request{Only: []string{"workers"}, Filter: api.Filter{FreeSlots: 5}}
	a := request(t, nc, api.VerbWatch, r)
	if a.Error != nil || len(a.Workers) != 0 || a.Next == "" || a.More {
		t.Fatalf("%+v", a)
	}
	r.After, r.Wait = a.Next, 60_000
	r.Filter = api.Filter{State: []hivebeat.State{hivebeat.Draining}}
	got := make(chan api.Answer, 1)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	go func() { got <- q.Answer(ctx, api.VerbWatch, r) }()
	q.eventually("it waits", func() bool { return len(q.watchers) == 1 })
	// A change that does not match does not end the wait: the answer has the one that
	// does.
	h.send(func(s *hivebeat.Snapshot) { s.Workers[0].Busy = 2 })
	h.send(func(s *hivebeat.Snapshot) { s.Workers[1].State = hivebeat.Draining })
	select {
	case a = <-got:
	case <-time.After(patience):
		t.Fatal("the change was not told")
	}
	if len(a.Workers) != 1 || a.Workers[0].Worker != "x" || len(a.Gone) != 0 {
		t.Fatalf("%+v", a)
	}
	h.send(func(s *hivebeat.Snapshot) { s.Workers[1].State = hivebeat.Ready })
	r.After = a.Next
	if a = q.ask(api.VerbWatch, r); len(a.Gone) != 1 || a.Gone[0] != "h/x" {
		t.Errorf("what fits no more: %+v", a)
	}
	r.After = a.Next
	m, err := nc.Request("queen.api.watch.q1", []byte(`{"after":"`+a.Next+`"}`), patience)
	if err != nil {
		t.Errorf("at its queen: %v", err)
	} else if len(m.Data) == 0 {
		t.Error("an empty answer")
	}
	if _, err := nc.Request("queen.api.watch.q2", nil, patience); err == nil {
		t.Error("a queen that is not there answers")
	}
	go func() { got <- q.Answer(ctx, api.VerbWatch, r) }()
	q.eventually("it waits", func() bool { return len(q.watchers) == 1 })
	q.stop()
	select {
	case a = <-got:
		if a.Error != nil || a.Next == "" {
			t.Errorf("%+v", a)
		}
	case <-time.After(patience):
		t.Fatal("a queen that stops keeps its watchers")
	}
}

func TestWatchersAreBounded(t *testing.T) {
	t.Parallel()
	srv := bustest.Server(t)
	q := startQueen(t, bustest.Conn(t, srv), Config{ID: "q1"})
	q.warm()
	next := q.ask(api.VerbWatch, api.Request{}).Next
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	for range maxWatchers {
		wg.Go(func() {
			q.Answer(ctx, api.VerbWatch, api.Request{After: next, Wait: 60_000, Filter: api.Filter{Zone: "none"}})
		})
	}
	q.eventually("all wait", func() bool { return len(q.watchers) == maxWatchers })
	if a := q.ask(api.VerbWatch, api.Request{After: next, Wait: 60_000}); a.Error == nil || a.Error.Code != api.CodeUnavailable {
		t.Errorf("%+v", a)
	}
	cancel()
	wg.Wait()
	if n := len(q.watchers); n != 0 {
		t.Errorf("%d wait still", n)
	}
}

// Events are listed newest first, including those from before this queen started, and
// in pages from the stream if memory does not have them.
func TestEventsAreListed(t *testing.T) {
	t.Parallel()
	srv := bustest.Server(t)
	nc := bustest.Conn(t, srv)
	q1 := startQueen(t, bustest.Conn(t, srv), Config{ID: "q1"})
	q1.warm()
	h := startHive(t, bustest.Conn(t, srv), "h", time.Minute, workerOf("w"))
	for range 30 {
		h.send(func(s *hivebeat.Snapshot) {
			transition(&s.Workers[0], hivebeat.KindState, "draining")
			s.Workers[0].Tr = s.Workers[0].Tr[max(0, len(s.Workers[0].Tr)-hivebeat.MaxTransitions):]
		})
		q1.eventually("told", func() bool { return q1.Stats().EventsWaiting == 0 })
	}
	list := func(q *runningQueen, r api.Request) (evs []api.Happened) {
		for n := 0; ; n++ {
			a := q.ask(api.VerbEvents, r)
			if a.Error != nil || len(a.Status.Unsure) != 0 || n > 100 {
				t.Fatalf("%+v", a)
			}
			evs = append(evs, a.Events...)
			if r.After = a.Next; a.Next == "" {
				return evs
			}
		}
	}
	worker := api.Request{Hive: "h", Worker: "w", Kinds: []hivebeat.Kind{hivebeat.KindState}, Limit: 7}
	q1.eventually("all events came", func() bool { return len(list(q1, worker)) == 30 })
	evs := list(q1, worker)
	for i := 1; i < len(evs); i++ {
		if evs[i].StreamSeq >= evs[i-1].StreamSeq || evs[i].StreamSeq == 0 {
			t.Errorf("%d after %d", evs[i].StreamSeq, evs[i-1].StreamSeq)
		}
	}
	q2 := startQueen(t, bustest.Conn(t, srv), Config{ID: "q2"})
	q2.warm()
	h.send(nil) // it answers no roll call, and an answer is not sure until it is heard
	q2.eventually("the hive is heard", func() bool { return len(q2.ask(api.VerbSummary, api.Request{}).Status.Unsure) == 0 })
	if n := len(list(q2, worker)); n != 30 {
		t.Errorf("a queen that began later lists %d", n)
	}
	// As if memory held only the last ones.
	q2.eventually("events are read from the stream", func() bool {
		var first uint64
		_ = q2.do(context.Background(), func(time.Time) { first = q2.events.First() })
		return first > 0
	})
	before := evs[10].StreamSeq
	a := q2.ask(api.VerbEvents, api.Request{Hive: "h", Kinds: worker.Kinds, After: fmt.Sprint(before), Limit: 1000})
	if len(a.Events) != 19 {
		t.Errorf("%d before %d", len(a.Events), before)
	}
	_ = q2.do(context.Background(), func(time.Time) { q2.events = query.Events{} })
	if n := len(list(q2, worker)); n != 30 {
		t.Errorf("from the stream alone: %d", n)
	}
	if a := request(t, nc, api.VerbEvents, api.Request{After: "x"}); a.Error == nil || a.Error.Code != api.CodeBadRequest {
		t.Errorf("%+v", a)
	}
}

// The bucket of holds is among those whose settings are checked.
func TestHoldsBucketDiffers(t *testing.T) {
	t.Parallel()
	srv := bustest.Server(t)
	nc := bustest.Conn(t, srv)
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := js.CreateKeyValue(t.Context(), jetstream.KeyValueConfig{Bucket: hivebeat.BucketHolds, History: 5}); err != nil {
		t.Fatal(err)
	}
	q := startQueen(t, bustest.Conn(t, srv), Config{ID: "q1"})
	select {
	case err := <-q.done:
		if err == nil {
			t.Error("it took a bucket with other settings")
		}
	case <-time.After(patience):
		t.Error("it goes on with a bucket of other settings")
	}
}
