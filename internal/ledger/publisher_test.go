package ledger

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/beatfabric/hivebeat"
	"github.com/beatfabric/hivebeat/internal/bustest"
)

func publisher(t testing.TB, l *Ledger) *Publisher {
	t.Helper()
	p, err := NewPublisher(l)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Close)
	return p
}

// eventMsgsOf returns events 1 to n of a hive.
func eventMsgsOf(t testing.TB, l *Ledger, hive string, n uint64) []EventMsg {
	t.Helper()
	var list []EventMsg
	for i := range n {
		ev := event(l, hive, i+1, time.Now())
		body, err := ev.Encode()
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, NewEventMsg(&ev, body, time.Now()))
	}
	return list
}

// Three queens publish the same events, each queen all of its events at once: each event is
// stored once, and in order.
func TestPublisherStoresOnceInOrder(t *testing.T) {
	srv := bustest.Server(t)
	const n = 500
	var ledgers []*Ledger
	for range 3 {
		ledgers = append(ledgers, opened(t, srv, Config{Timeout: patience}))
	}
	var wg sync.WaitGroup
	for _, l := range ledgers {
		p, events := publisher(t, l), eventMsgsOf(t, l, "gpu-01", n)
		wg.Go(func() {
			for i, err := range p.Publish(ctxOf(t), events) {
				if err != nil {
					t.Errorf("event %d: %v", i+1, err)
				}
			}
		})
	}
	wg.Wait()
	if got := storedEvents(t, ledgers[0]); got != n {
		t.Fatalf("%d were stored, want %d", got, n)
	}
	st, err := ledgers[0].js.Stream(ctxOf(t), "QUEEN_EVENTS")
	if err != nil {
		t.Fatal(err)
	}
	for i := range uint64(n) {
		m, err := st.GetMsg(ctxOf(t), i+1)
		if err != nil {
			t.Fatal(err)
		}
		if want := hivebeat.HiveEventID("gpu-01", i+1); m.Header.Get("Nats-Msg-Id") != want {
			t.Fatalf("%s is stored as %d. of all", m.Header.Get("Nats-Msg-Id"), i+1)
		}
	}
}

func TestPublisherTellsOfEach(t *testing.T) {
	l := opened(t, bustest.Server(t), Config{})
	p := publisher(t, l)
	events := eventMsgsOf(t, l, "gpu-01", 4)
	events[0].Hive = "no id"
	events[1].Age = 51 * time.Minute
	events[2].Body = make([]byte, l.nc.MaxPayload()+1)
	errs := p.Publish(ctxOf(t), events)
	for i, want := range []error{hivebeat.ErrID, ErrTooOld, nats.ErrMaxPayload, nil} {
		if !errors.Is(errs[i], want) {
			t.Errorf("event %d: %v, want %v", i+1, errs[i], want)
		}
	}
	if n := storedEvents(t, l); n != 1 {
		t.Errorf("%d were stored, want 1", n)
	}
	if errs := p.Publish(ctxOf(t), nil); len(errs) != 0 {
		t.Errorf("of nothing: %v", errs)
	}
}

// An event that another queen is publishing at this moment is tried again, alone.
func TestPublisherWaitsOutInProcess(t *testing.T) {
	l := opened(t, bustest.Server(t), Config{Timeout: 300 * time.Millisecond})
	p := publisher(t, l)
	busy := &jetstream.APIError{Code: 400, ErrorCode: codeDuplicateInProgress, Description: "duplicate message id is in process"}
	var sizes []int
	p.together = func(ctx context.Context, msgs []*nats.Msg) []ack {
		sizes = append(sizes, len(msgs))
		acks := p.send(ctx, msgs)
		if len(sizes) < 3 {
			acks[0].err = busy
		}
		return acks
	}
	for i, err := range p.Publish(ctxOf(t), eventMsgsOf(t, l, "gpu-01", 3)) {
		if err != nil {
			t.Errorf("event %d: %v", i+1, err)
		}
	}
	if diff := cmp.Diff([]int{3, 1, 1}, sizes); diff != "" {
		t.Error(diff)
	}
	p.together = func(_ context.Context, msgs []*nats.Msg) []ack { return []ack{{err: busy}, {}}[:len(msgs)] }
	errs := p.Publish(ctxOf(t), eventMsgsOf(t, l, "gpu-02", 2))
	if !errors.Is(errs[0], ErrAway) || errs[1] != nil {
		t.Errorf("for ever in process: %v, want ErrAway of the first", errs)
	}
}

func TestPublisherAdvances(t *testing.T) {
	l := opened(t, bustest.Server(t), Config{Timeout: patience})
	p := publisher(t, l)
	lost := advance(t, l, "lost", 0, entry(1))
	advance(t, l, "removed", 0, entry(4))
	kv, err := l.js.KeyValue(ctxOf(t), "queen_roster")
	if err != nil {
		t.Fatal(err)
	}
	if err := kv.Delete(ctxOf(t), "removed"); err != nil {
		t.Fatal(err)
	}
	next := entry(2)
	next.Event, _ = json.Marshal(event(l, "new", 1, time.Now()))
	out := p.Advance(ctxOf(t), []Step{
		{"new", 0, next}, {"lost", lost - 1, next}, {"lost2", 7, next}, {"removed", 0, next}, {"no id", 0, next}, {"brake.eu", 0, next},
	})
	for i, want := range []error{nil, ErrConflict, ErrConflict, nil, hivebeat.ErrID, nil} {
		if !errors.Is(out[i].Err, want) {
			t.Errorf("%d: %v, want %v", i, out[i].Err, want)
		}
	}
	all, err := l.Roster(ctxOf(t), nil)
	if err != nil {
		t.Fatal(err)
	}
	next.V = 1
	for i, key := range map[int]string{0: "new", 3: "removed", 5: "brake.eu"} {
		if item := all[key]; item.Revision != out[i].Revision || cmp.Diff(next, item.RosterEntry) != "" {
			t.Errorf("%s: %+v, want revision %d and\n%+v", key, item, out[i].Revision, next)
		}
	}
	if all["lost"].N != 1 || len(all) != 4 {
		t.Errorf("a conflict wrote: %v", all)
	}
	// The next advance continues from there.
	if out := p.Advance(ctxOf(t), []Step{{"new", out[0].Revision, entry(3)}}); out[0].Err != nil {
		t.Error(out[0].Err)
	}
}

// The splicing of the event into its entry must not be visible from outside.
func TestRosterEntryEncodes(t *testing.T) {
	full := entry(7)
	full.Event = json.RawMessage(`{"id":"a","data":{"n":7}}`)
	more := full
	more.Events = []json.RawMessage{json.RawMessage(`{"id":"b"}`), json.RawMessage(`{"id":"c","data":{}}`)}
	for _, e := range []RosterEntry{{}, entry(1), full, {Event: full.Event}, more} {
		got, err := e.encode()
		if err != nil {
			t.Fatal(err)
		}
		e.V = 1
		want, err := json.Marshal(e)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(string(want), string(got)); diff != "" {
			t.Error(diff)
		}
	}
}

func TestPublisherAway(t *testing.T) {
	srv := bustest.Server(t)
	proxy := bustest.NewProxy(t, srv.URL())
	l, err := Open(ctxOf(t), bustest.Dial(t, proxy.URL()), Config{})
	if err != nil {
		t.Fatal(err)
	}
	p := publisher(t, l)
	events := eventMsgsOf(t, l, "gpu-01", 20)
	if errs := p.Publish(ctxOf(t), events[:1]); errs[0] != nil {
		t.Fatal(errs[0])
	}
	// In flight when the connection stalls, and when it is gone.
	proxy.Stall()
	done := make(chan []error)
	go func() { done <- p.Publish(context.WithoutCancel(t.Context()), events) }()
	bustest.Eventually(t, patience, func() (bool, string) {
		n := p.js.PublishAsyncPending()
		return n == len(events), fmt.Sprint(n, " under way")
	})
	proxy.Cut()
	for i, err := range <-done {
		if !errors.Is(err, ErrAway) {
			t.Errorf("event %d: %v, want ErrAway", i+1, err)
		}
	}
	bustest.Eventually(t, patience, func() (bool, string) { return !l.nc.IsConnected(), "connected" })
	if out := p.Advance(ctxOf(t), []Step{{"a", 0, entry(1)}}); !errors.Is(out[0].Err, ErrAway) {
		t.Errorf("not connected: %v, want ErrAway", out[0].Err)
	}
	proxy.Resume()
	proxy.Restore()
	bustest.Eventually(t, patience, func() (bool, string) { return l.nc.IsConnected(), "not connected" })
	for i, err := range p.Publish(ctxOf(t), events) {
		if err != nil {
			t.Errorf("event %d: %v", i+1, err)
		}
	}
	if n := storedEvents(t, l); n != uint64(len(events)) {
		t.Errorf("%d were stored, want %d", n, len(events))
	}
}

func TestPublisherEnds(t *testing.T) {
	srv := bustest.Server(t)
	proxy := bustest.NewProxy(t, srv.URL())
	l, err := Open(ctxOf(t), bustest.Dial(t, proxy.URL()), Config{Timeout: patience})
	if err != nil {
		t.Fatal(err)
	}
	p := publisher(t, l)
	proxy.Stall()
	defer proxy.Resume()
	underWay := func(n int) {
		t.Helper()
		bustest.Eventually(t, patience, func() (bool, string) {
			got := p.js.PublishAsyncPending()
			return got == n, fmt.Sprint(got, " under way")
		})
	}
	ctx, cancel := contextWithCancel(t)
	done := make(chan []error, 2)
	go func() { done <- p.Publish(ctx, eventMsgsOf(t, l, "gpu-01", 3)) }()
	underWay(3)
	cancel()
	for i, err := range <-done {
		if !errors.Is(err, context.Canceled) || errors.Is(err, ErrAway) {
			t.Errorf("event %d, canceled: %v", i+1, err)
		}
	}
	go func() { done <- p.Publish(ctxOf(t), eventMsgsOf(t, l, "gpu-01", 3)) }()
	underWay(6)
	p.Close()
	p.Close()
	for i, err := range <-done {
		if err == nil {
			t.Errorf("event %d is said to be stored", i+1)
		}
	}
	if errs := p.Publish(ctxOf(t), eventMsgsOf(t, l, "gpu-01", 1)); !errors.Is(errs[0], ErrAway) {
		t.Errorf("closed: %v, want ErrAway", errs[0])
	}
}

// A watch does not decode again an entry that its own ledger put, but reports its position.
// It decodes the entries of others, even in a bucket with the same sequences.
func TestWatchKnowsItsOwn(t *testing.T) {
	srv := bustest.Server(t)
	mine, other := opened(t, srv, Config{}), opened(t, srv, Config{})
	p, q := publisher(t, mine), publisher(t, other)
	type seen struct {
		key  string
		item RosterItem
	}
	saw := make(chan seen, 100)
	running(t, func(ctx context.Context) error {
		return mine.WatchRoster(ctx, func(key string, item RosterItem) { saw <- seen{key, item} }, nil)
	})
	step := func(p *Publisher, rev, n uint64) uint64 {
		t.Helper()
		out := p.Advance(ctxOf(t), []Step{{"gpu-01", rev, entry(n)}})
		if out[0].Err != nil {
			t.Fatal(out[0].Err)
		}
		return out[0].Revision
	}
	rev := step(p, 0, 1)
	first := <-saw
	// The watch may see it before the answer to the advance, and decodes it in that case.
	if first.item.Revision != rev || first.item.Epoch == 0 || first.item.Own != (first.item.N == 0) {
		t.Fatalf("%+v", first)
	}
	own := 0
	for n := uint64(2); n <= 40; n++ {
		rev = step(p, rev, n)
		s := <-saw
		if s.item.Revision != rev || s.item.Epoch != first.item.Epoch || s.item.Own != (s.item.N == 0) || !s.item.Own && s.item.N != n {
			t.Fatalf("%d: %+v", n, s)
		}
		if s.item.Own {
			own++
		}
	}
	t.Logf("%d of 39 were known", own)
	rev = step(q, rev, 41)
	if s := <-saw; s.item.Own || s.item.N != 41 || s.item.Revision != rev {
		t.Fatalf("another's: %+v", s)
	}

	var w writes
	for _, sees := range [][]struct {
		key  string
		rev  uint64
		body string
		own  bool
	}{
		{{"a", 4, "before", false}, {"b", 5, "mine", false}, {"a", 5, "mine", true}, {"a", 5, "mine", false}},
		{{"a", 5, "not mine", false}, {"a", 5, "mine", false}}, // the same sequence in another bucket
	} {
		w.set("a", 5, []byte("mine"))
		for i, s := range sees {
			if got := w.saw(s.key, s.rev, []byte(s.body)); got != s.own {
				t.Errorf("%d of %+v is its own: %t", i, sees, got)
			}
		}
	}
}

func TestHeads(t *testing.T) {
	srv := bustest.Server(t)
	l := opened(t, srv, Config{})
	var ids []string
	for i := range 100 {
		ids = append(ids, "gpu-"+strconv.Itoa(i))
		if i%3 != 0 {
			put(t, l, snap(ids[i], 5, uint64(i)))
		}
	}
	ids = append(ids, "no id")
	for i, h := range l.Heads(ctxOf(t), ids) {
		switch {
		case i == 100:
			if !errors.Is(h.Err, hivebeat.ErrID) {
				t.Errorf("%q: %v", ids[i], h.Err)
			}
		case h.Err != nil:
			t.Fatal(h.Err)
		case i%3 == 0 && h.OK, i%3 != 0 && h != Head{Inc: 5, Seq: uint64(i), OK: true}:
			t.Errorf("%s: %+v", ids[i], h)
		}
	}
	kv, err := l.js.KeyValue(ctxOf(t), "queen_hives")
	if err != nil {
		t.Fatal(err)
	}
	if err := kv.Purge(ctxOf(t), "gpu-1"); err != nil {
		t.Fatal(err)
	}
	if h := l.Heads(ctxOf(t), []string{"gpu-1", "gpu-2"}); h[0].OK || h[0].Err != nil || !h[1].OK {
		t.Errorf("a marker: %+v", h)
	}
	if h := l.Heads(ctxOf(t), nil); len(h) != 0 {
		t.Errorf("of nothing: %+v", h)
	}
}

func TestHeadsAway(t *testing.T) {
	srv := bustest.Server(t)
	proxy := bustest.NewProxy(t, srv.URL())
	l, err := Open(ctxOf(t), bustest.Dial(t, proxy.URL()), Config{Timeout: 200 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	put(t, l, snap("a", 1, 1))
	proxy.Stall()
	for i, h := range l.Heads(ctxOf(t), []string{"a", "b"}) {
		if !errors.Is(h.Err, ErrAway) || h.OK {
			t.Errorf("%d, nobody answers: %+v", i, h)
		}
	}
	proxy.Resume()
	if err := l.js.DeleteStream(ctxOf(t), "KV_queen_hives"); err != nil {
		t.Fatal(err)
	}
	if h := l.Heads(ctxOf(t), []string{"a"})[0]; !errors.Is(h.Err, ErrAway) {
		t.Errorf("no bucket: %+v", h)
	}
}

// The cost of one entry: read, advanced and announced, many at once.
func BenchmarkPublisher(b *testing.B) {
	l := opened(b, bustest.Server(b), Config{})
	p := publisher(b, l)
	const n = 256
	steps := make([]Step, n)
	ids := make([]string, n)
	for i := range steps {
		ids[i] = "gpu-" + strconv.Itoa(i)
		steps[i] = Step{Key: ids[i], Next: entry(0)}
	}
	b.ReportAllocs()
	for b.Loop() {
		l.Heads(ctxOf(b), ids)
		events := make([]EventMsg, n)
		for i := range steps {
			s := &steps[i]
			s.Next.N++
			ev := event(l, s.Key, s.Next.N, time.Now())
			s.Next.Event, _ = ev.Encode()
			events[i] = NewEventMsg(&ev, s.Next.Event, time.Now())
		}
		for i, out := range p.Advance(ctxOf(b), steps) {
			if steps[i].Revision = out.Revision; out.Err != nil {
				b.Fatal(out.Err)
			}
		}
		for _, err := range p.Publish(ctxOf(b), events) {
			if err != nil {
				b.Fatal(err)
			}
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*n), "ns/entry")
}
