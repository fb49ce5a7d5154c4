package queen

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/beatfabric/hivebeat"
	"github.com/beatfabric/hivebeat/internal/bustest"
	"github.com/beatfabric/hivebeat/internal/wire"
	"github.com/beatfabric/hivebeat/queen/api"
)

// patience bounds what should take a second or two, on a machine that is busy with
// other tests.
const patience = 60 * time.Second

// runningQueen is a queen under test.
type runningQueen struct {
	*Queen
	t    testing.TB
	log  *bustest.Log
	done chan error
}

// startQueen runs a queen until the test ends, or stop is called.
func startQueen(t testing.TB, nc *nats.Conn, cfg Config) *runningQueen {
	t.Helper()
	log := &bustest.Log{}
	cfg.Logger = log.Logger(slog.LevelDebug)
	q, err := New(nc, cfg)
	if err != nil {
		t.Fatal(err)
	}
	r := &runningQueen{q, t, log, make(chan error, 1)}
	go func() { r.done <- q.Run(context.Background()) }()
	t.Cleanup(func() {
		r.stop()
		if t.Failed() {
			t.Logf("log of %s:\n%s", q.cfg.ID, log)
		}
	})
	return r
}

func (r *runningQueen) stop() {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := r.Stop(ctx); err != nil {
		r.t.Errorf("stop: %v", err)
	}
}

func (r *runningQueen) ask(verb string, req api.Request) api.Answer {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	return r.Answer(ctx, verb, req)
}

// eventually waits until cond holds.
func (r *runningQueen) eventually(what string, cond func() bool) {
	r.t.Helper()
	bustest.Eventually(r.t, patience, func() (bool, string) { return cond(), what })
}

func (r *runningQueen) warm() {
	r.t.Helper()
	r.eventually("warm", func() bool { s := r.ask(api.VerbSummary, api.Request{}).Status; return s.Warm && s.JetStream })
	_ = r.nc.FlushTimeout(patience) // now the server knows its subscriptions
}

// live returns the queen's verdict on a hive, or "" if it does not know the hive.
func (r *runningQueen) live(id string) hivebeat.Live {
	a := r.ask(api.VerbHive, api.Request{Hive: id})
	if len(a.Hives) != 1 {
		return ""
	}
	return a.Hives[0].Live
}

func (r *runningQueen) logged(text string) {
	r.t.Helper()
	r.eventually("in the log: "+text, func() bool { return strings.Contains(r.log.String(), text) })
}

// testHive sends snapshots as a hive does, with the contents that the test puts into
// snap.
type testHive struct {
	t    testing.TB
	nc   *nats.Conn
	stop chan struct{}
	wg   sync.WaitGroup

	mu   sync.Mutex
	snap hivebeat.Snapshot
}

// startHive sends a snapshot every `every` until kill, or the end of the test.
func startHive(t testing.TB, nc *nats.Conn, id string, every time.Duration, workers ...hivebeat.Record) *testHive {
	t.Helper()
	h := &testHive{t: t, nc: nc, stop: make(chan struct{})}
	h.snap = *snapshotOf(id, uint64(time.Now().UnixMicro()), 0, workers...)
	h.snap.Every = hivebeat.MillisOf(every)
	h.send(nil)
	h.beat(h.stop)
	t.Cleanup(h.kill)
	return h
}

func (h *testHive) beat(stop <-chan struct{}) {
	every := h.snap.Every.Duration()
	h.wg.Go(func() {
		tick := time.NewTicker(every * 9 / 10)
		defer tick.Stop()
		for {
			select {
			case <-stop:
				return
			case <-tick.C:
				h.send(nil)
			}
		}
	})
}

// revive lets a killed hive continue: it was only stopped, or cut off.
func (h *testHive) revive() {
	h.send(nil)
	h.mu.Lock()
	defer h.mu.Unlock()
	h.stop = make(chan struct{})
	h.beat(h.stop)
}

// send changes the snapshot and sends it at once.
func (h *testHive) send(change func(*hivebeat.Snapshot)) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if change != nil {
		change(&h.snap)
	}
	h.snap.Seq++
	b, err := wire.EncodeSnapshot(&h.snap)
	if err != nil {
		h.t.Error(err)
		return
	}
	subjects, _ := hivebeat.NewSubjects("")
	_ = h.nc.Publish(subjects.Hives(), b) // some tests close the connection
}

// kill ends the hive without a goodbye.
func (h *testHive) kill() {
	h.mu.Lock()
	select {
	case <-h.stop:
	default:
		close(h.stop)
	}
	h.mu.Unlock()
	h.wg.Wait()
}

// bye ends the hive in order.
func (h *testHive) bye(why string) {
	h.kill()
	h.send(func(s *hivebeat.Snapshot) { s.Bye = why })
}

// transition adds a transition to a worker's record.
func transition(r *hivebeat.Record, kind hivebeat.Kind, to string) {
	r.N++
	r.Tr = append(r.Tr, hivebeat.Transition{N: r.N, Kind: kind, From: string(r.Live), To: to, Inc: r.Inc})
}

// heardEvents collects the events that a plain subscriber receives.
type heardEvents struct {
	mu  sync.Mutex
	ids map[string]int
	evs []hivebeat.Event
}

func subscribeEvents(t testing.TB, nc *nats.Conn) *heardEvents {
	t.Helper()
	h := &heardEvents{ids: make(map[string]int)}
	var s hivebeat.Subjects
	sub, err := nc.Subscribe(s.Events(), func(m *nats.Msg) {
		var ev hivebeat.Event
		if err := json.Unmarshal(m.Data, &ev); err != nil {
			t.Errorf("event on %s: %v", m.Subject, err)
			return
		}
		if ev.IsLive() { // on a slow machine the stream may take a second
			return
		}
		h.mu.Lock()
		defer h.mu.Unlock()
		h.ids[ev.ID]++
		h.evs = append(h.evs, ev)
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = sub.Unsubscribe() })
	bustest.Flush(t, nc)
	return h
}

// of returns the events of a kind about a hive, or a worker of it.
func (h *heardEvents) of(kind hivebeat.Kind, hive, worker string) (list []hivebeat.Event) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, ev := range h.evs {
		if ev.Data.Kind == kind && ev.Data.Hive == hive && ev.Data.Worker == worker {
			list = append(list, ev)
		}
	}
	return list
}

// once fails the test if an event came twice.
func (h *heardEvents) once(t testing.TB) {
	t.Helper()
	h.mu.Lock()
	defer h.mu.Unlock()
	for id, n := range h.ids {
		if n != 1 {
			t.Errorf("event %s was heard %d times", id, n)
		}
	}
}

// storedEvents returns the events in the stream, by id.
func storedEvents(t testing.TB, nc *nats.Conn) map[string]hivebeat.Event {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	s, err := js.Stream(ctx, hivebeat.StreamEvents)
	if err != nil {
		t.Fatal(err)
	}
	all := make(map[string]hivebeat.Event)
	for seq := s.CachedInfo().State.FirstSeq; seq != 0 && seq <= s.CachedInfo().State.LastSeq; seq++ {
		m, err := s.GetMsg(ctx, seq)
		if errors.Is(err, jetstream.ErrMsgNotFound) {
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		var ev hivebeat.Event
		if err := json.Unmarshal(m.Data, &ev); err != nil {
			t.Fatalf("stored on %s: %v", m.Subject, err)
		}
		if id := m.Header.Get(jetstream.MsgIDHeader); id != ev.ID {
			t.Errorf("event %s is stored as %s", ev.ID, id)
		}
		if _, twice := all[ev.ID]; twice {
			t.Errorf("event %s is stored twice", ev.ID)
		}
		all[ev.ID] = ev
	}
	return all
}

// waitStored waits for an event in the stream and returns it.
func waitStored(t testing.TB, nc *nats.Conn, kind hivebeat.Kind, hive, worker string) hivebeat.Event {
	t.Helper()
	var found hivebeat.Event
	bustest.Eventually(t, patience, func() (bool, string) {
		for _, ev := range storedEvents(t, nc) {
			if ev.Data.Kind == kind && ev.Data.Hive == hive && ev.Data.Worker == worker {
				found = ev
				return true, ""
			}
		}
		return false, fmt.Sprintf("no %s of %s/%s stored", kind, hive, worker)
	})
	return found
}

func countStored(t testing.TB, nc *nats.Conn, kind hivebeat.Kind, hive string) (n int) {
	t.Helper()
	for _, ev := range storedEvents(t, nc) {
		if ev.Data.Kind == kind && ev.Data.Hive == hive && ev.Data.Worker == "" {
			n++
		}
	}
	return n
}

func TestOneQueen(t *testing.T) {
	t.Parallel()
	srv := bustest.Server(t)
	nc := bustest.Conn(t, srv)
	events := subscribeEvents(t, bustest.Conn(t, srv))
	q := startQueen(t, nc, Config{ID: "q1"})
	q.warm()

	w := workerOf("w1")
	w.N = 0
	transition(&w, hivebeat.KindJoined, "alive")
	h := startHive(t, bustest.Conn(t, srv), "gpu-01", time.Second, w, workerOf("w2"))
	q.eventually("gpu-01 alive", func() bool { return q.live("gpu-01") == hivebeat.Alive })

	if joined := waitStored(t, nc, hivebeat.KindJoined, "gpu-01", ""); joined.ID != "gpu-01.1" || joined.Type != "hivebeat.hive.joined.v1" || joined.Subject != "gpu-01" {
		t.Errorf("joined: %+v", joined)
	}
	if joined := waitStored(t, nc, hivebeat.KindJoined, "gpu-01", "w1"); joined.ID != "gpu-01.w1.7.joined" || joined.Data.Via != hivebeat.ViaHive {
		t.Errorf("joined: %+v", joined)
	}
	h.send(func(s *hivebeat.Snapshot) {
		transition(&s.Workers[1], hivebeat.KindLost, "lost")
		s.Workers[1].Live, s.Workers[1].Cause, s.Workers[1].Age = hivebeat.Lost, hivebeat.CauseMissed, 90_200
		s.Workers[1].Tr[0].Cause = hivebeat.CauseMissed
	})
	lost := waitStored(t, nc, hivebeat.KindLost, "gpu-01", "w2")
	if lost.Data.Reason != "no beat for 90.2s, 3 were due" || lost.Data.AgeMS != 90_200 || lost.Data.N != 2 || lost.Data.Seq != 10 || lost.Data.Cause != hivebeat.CauseMissed {
		t.Errorf("lost: %+v", lost.Data)
	}

	h.kill()
	died := waitStored(t, nc, hivebeat.KindLost, "gpu-01", "")
	if d := died.Data; d.Cause != hivebeat.CauseMissed || d.From != "late" || d.AgeMS < 3000 || d.Via != hivebeat.ViaQueen ||
		!strings.HasPrefix(d.Reason, "no snapshot for ") || !strings.HasSuffix(d.Reason, " were due") {
		t.Errorf("lost: %+v", d)
	}
	if n := countStored(t, nc, hivebeat.KindLost, "gpu-01"); n != 1 {
		t.Errorf("%d times lost", n)
	}
	bustest.Eventually(t, patience, func() (bool, string) {
		return len(events.of(hivebeat.KindLost, "gpu-01", "")) == 1, "not heard by the subscriber"
	})
	events.once(t)
	q.logged("kind=lost")
	if a := q.ask(api.VerbWorker, api.Request{Hive: "gpu-01", Worker: "w1"}); len(a.Workers) != 1 || a.Workers[0].Live != hivebeat.Late {
		t.Errorf("worker of a lost hive: %+v", a)
	}
}
