package ledger

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/beatfabric/hivebeat"
	"github.com/beatfabric/hivebeat/internal/bustest"
)

func storedEvents(t testing.TB, l *Ledger) uint64 {
	t.Helper()
	info, err := l.info(ctxOf(t), l.cfg.Subjects.Stream(hivebeat.StreamEvents))
	if err != nil {
		t.Fatal(err)
	}
	return info.State.Msgs
}

func TestPublishRepublishes(t *testing.T) {
	srv := bustest.Server(t)
	l := opened(t, srv, prefixed(t, "acme"))
	got := make(chan *nats.Msg, 10)
	nc := bustest.Conn(t, srv)
	if _, err := nc.ChanSubscribe("acme.queen.events.>", got); err != nil {
		t.Fatal(err)
	}
	bustest.Flush(t, nc)
	for _, d := range []hivebeat.EventData{
		{Hive: "gpu-01", Worker: "llama", Kind: hivebeat.KindJoined},
		{Hive: "gpu-01", Kind: hivebeat.KindLate},
		{Kind: hivebeat.KindBrake},
	} {
		ev := l.cfg.Subjects.NewEvent("id-"+string(d.Kind), time.Now(), d)
		if err := publish(ctxOf(t), t, l, ev); err != nil {
			t.Fatal(err)
		}
		m := <-got
		if want := l.cfg.Subjects.Event(d.Hive, d.Worker, d.Kind); m.Subject != want {
			t.Errorf("it came on %s, want %s", m.Subject, want)
		}
		var back hivebeat.Event
		if err := json.Unmarshal(m.Data, &back); err != nil || back.ID != ev.ID || back.Data != ev.Data {
			t.Errorf("%s: %v", m.Data, err)
		}
		if id := m.Header.Get("Nats-Msg-Id"); id != ev.ID {
			t.Errorf("Nats-Msg-Id is %q, want %q", id, ev.ID)
		}
	}
}

// Three queens publish the same events at the same moments.
func TestPublishOnceFromThree(t *testing.T) {
	srv := bustest.Server(t)
	var all []*Ledger
	for range 3 {
		all = append(all, opened(t, srv, Config{}))
	}
	nc := bustest.Conn(t, srv)
	heard := counted(t, nc, "queen.events.>")
	const events = 40
	now := time.Now()
	for n := uint64(1); n <= events; n++ {
		var wg sync.WaitGroup
		for _, l := range all {
			wg.Go(func() {
				if err := publish(ctxOf(t), t, l, event(l, "gpu-01", n, now)); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
	}
	if n := storedEvents(t, all[0]); n != events {
		t.Errorf("the stream holds %d events, want %d", n, events)
	}
	bustest.Eventually(t, patience, func() (bool, string) { return heard.Load() >= events, "not all heard" })
	bustest.Flush(t, nc)
	if n := heard.Load(); n != events {
		t.Errorf("a subscriber heard %d events, want %d", n, events)
	}
}

func TestPublishRefuses(t *testing.T) {
	l := opened(t, bustest.Server(t), Config{})
	now := time.Now()
	if err := publish(ctxOf(t), t, l, event(l, "gpu-01", 1, now.Add(-51*time.Minute))); !errors.Is(err, ErrTooOld) {
		t.Errorf("51 minutes old: %v", err)
	}
	for what, change := range map[string]func(*hivebeat.Event){
		"no id":      func(e *hivebeat.Event) { e.ID = "" },
		"no kind":    func(e *hivebeat.Event) { e.Data.Kind = "" },
		"bad hive":   func(e *hivebeat.Event) { e.Data.Hive = "a.b" },
		"no hive":    func(e *hivebeat.Event) { e.Data.Hive, e.Data.Worker = "", "w" },
		"bad worker": func(e *hivebeat.Event) { e.Data.Worker = "*" },
	} {
		ev := event(l, "gpu-01", 1, now)
		change(&ev)
		if err := publish(ctxOf(t), t, l, ev); !errors.Is(err, hivebeat.ErrID) {
			t.Errorf("%s: %v, want ErrID", what, err)
		}
	}
	if n := storedEvents(t, l); n != 0 {
		t.Errorf("%d were stored", n)
	}
	if err := publish(ctxOf(t), t, l, event(l, "gpu-01", 1, now.Add(-49*time.Minute))); err != nil {
		t.Errorf("49 minutes old: %v", err)
	}
}

func TestRepublish(t *testing.T) {
	srv := bustest.Server(t)
	l := opened(t, srv, Config{})
	ev := event(l, "gpu-01", 1, time.Now().Add(-2*time.Hour)) // from another queen with a wrong clock
	e := entry(1)
	e.Event, _ = ev.Encode()
	advance(t, l, "gpu-01", 0, e)
	item, _, err := rosterOf(t, l, "gpu-01")
	if err != nil {
		t.Fatal(err)
	}
	for range 3 {
		msgs, err := item.EventMsgs()
		if err = errors.Join(err, publishMsgs(ctxOf(t), t, l, msgs...)); err != nil {
			t.Fatal(err)
		}
	}
	if n := storedEvents(t, l); n != 1 {
		t.Errorf("%d were stored, want 1", n)
	}
	s, err := l.js.Stream(ctxOf(t), "QUEEN_EVENTS")
	if err != nil {
		t.Fatal(err)
	}
	if m, err := s.GetLastMsgForSubject(ctxOf(t), "queen.log.gpu-01.lost"); err != nil || string(m.Data) != string(item.Event) {
		t.Errorf("stored %v, %v", m, err)
	}
	item.Stored = 51 * time.Minute
	msgs, err := item.EventMsgs()
	if err = errors.Join(err, publishMsgs(ctxOf(t), t, l, msgs...)); !errors.Is(err, ErrTooOld) {
		t.Errorf("51 minutes old: %v", err)
	}
	if msgs, err := new(RosterItem).EventMsgs(); len(msgs) > 0 || err != nil {
		t.Errorf("without an event: %v, %v", msgs, err)
	}
}

func TestPublishAway(t *testing.T) {
	srv := bustest.Server(t)
	l := opened(t, srv, Config{})
	if err := l.js.DeleteStream(ctxOf(t), "QUEEN_EVENTS"); err != nil {
		t.Fatal(err)
	}
	ev := event(l, "gpu-01", 1, time.Now())
	if err := publish(ctxOf(t), t, l, ev); !errors.Is(err, ErrAway) {
		t.Errorf("without a stream: %v, want ErrAway", err)
	}
	if _, err := l.Reopen(ctxOf(t)); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := publish(ctx, t, l, ev); !errors.Is(err, context.Canceled) || errors.Is(err, ErrAway) {
		t.Errorf("canceled: %v", err)
	}
	if err := publish(ctxOf(t), t, l, ev); err != nil {
		t.Error(err)
	}
}

// After the whole store is gone, a running queen recovers by itself.
func TestKeepAfterWipe(t *testing.T) {
	srv := bustest.Server(t)
	l, other := opened(t, srv, Config{}), opened(t, srv, Config{}) // a watch does not decode what its own ledger wrote
	var renewed atomic.Int64
	states := make(chan error, 100)
	running(t, func(ctx context.Context) error {
		return l.Keep(ctx, func() { renewed.Add(1) }, func(err error) { states <- err }, nil)
	})
	p := NewPutter(l, PutterConfig{})
	running(t, p.Run)
	r := watched(t, l)
	rev := advance(t, other, "a", 0, entry(1))
	advance(t, other, "a", rev, entry(2))
	r.waitN(t, "a", 2)
	put(t, l, snap("gpu-01", 1, 1))

	bustest.RestartEmpty(t, srv)
	seq := uint64(1)
	bustest.Eventually(t, patience, func() (bool, string) {
		seq++
		p.Offer(snap("gpu-01", 1, seq))
		_, got, ok, err := headOf(t, l, "gpu-01")
		return ok && got > 1, errorText(err)
	})
	if renewed.Load() == 0 {
		t.Error("nobody was told")
	}
	bustest.Eventually(t, patience, func() (bool, string) {
		err := publish(ctxOf(t), t, l, event(l, "a", 3, time.Now()))
		return err == nil, errorText(err)
	})
	if item, ok, err := rosterOf(t, l, "a"); ok || err != nil {
		t.Errorf("the roster still holds %+v, %v", item, err)
	}
	advance(t, other, "a", 0, entry(3))
	r.waitN(t, "a", 3)
}

// A bucket that is removed under a running queen is soon created again.
func TestKeepAfterRemoval(t *testing.T) {
	srv := bustest.Server(t)
	l := opened(t, srv, Config{})
	var renewed atomic.Int64
	running(t, func(ctx context.Context) error { return l.Keep(ctx, func() { renewed.Add(1) }, nil, nil) })
	for i, name := range []string{"KV_queen_hives", "QUEEN_EVENTS", "KV_queen_roster"} {
		if err := l.js.DeleteStream(ctxOf(t), name); err != nil {
			t.Fatal(err)
		}
		bustest.Eventually(t, patience, func() (bool, string) {
			err := errors.Join(
				func() error {
					if err := l.PutSnapshot(ctxOf(t), snap("gpu-01", 1, uint64(time.Now().UnixMicro())), time.Now()); !errors.Is(err, ErrStale) {
						return err
					}
					return nil
				}(),
				publish(ctxOf(t), t, l, event(l, "gpu-01", uint64(i+1), time.Now())),
				func() error {
					if _, err := tryAdvance(t, l, "gpu-01", 0, entry(1)); !errors.Is(err, ErrConflict) {
						return err
					}
					return nil
				}(),
			)
			return err == nil && renewed.Load() == int64(i+1), errorText(err)
		})
	}
}

func errorText(err error) string {
	if err == nil {
		return "no error"
	}
	return err.Error()
}

// The advice to operators about --events-max depends on the size of events.
func TestWhatAnEventTakes(t *testing.T) {
	l := opened(t, bustest.Server(t), Config{})
	const workers = 300
	for i := range uint64(workers) {
		for n, d := range []hivebeat.EventData{
			{Kind: hivebeat.KindJoined, To: "alive", State: hivebeat.Loading, Reason: "loading weights"},
			{Kind: hivebeat.KindState, From: "loading", To: "ready", State: hivebeat.Ready},
			{Kind: hivebeat.KindLost, From: "alive", To: "lost", Cause: hivebeat.CauseExit, State: hivebeat.Ready, AgeMS: 2200, Reason: "process 2917422 ended"},
		} {
			d.Hive, d.Worker, d.Inc, d.HiveInc, d.N = "gpu-node-0042", fmt.Sprintf("llama-70b-%03d", i), 1_764_000_000_000, 1_764_000_000_000, uint64(n)+1
			d.Seq, d.Via, d.Model = 1000+i, hivebeat.ViaHive, "llama-3.3-70b-instruct"
			id := hivebeat.WorkerEventID(d.Hive, d.HiveInc, d.Worker, d.Inc, d.Kind, d.N)
			if err := publish(ctxOf(t), t, l, l.cfg.Subjects.NewEvent(id, time.Now(), d)); err != nil {
				t.Fatal(err)
			}
		}
	}
	st, err := l.js.Stream(ctxOf(t), "QUEEN_EVENTS")
	if err != nil {
		t.Fatal(err)
	}
	state := st.CachedInfo().State
	if told := BurstBytes(workers); state.Msgs != workers*eventsEach || uint64(told) < state.Bytes || uint64(told) > state.Bytes*6/5 {
		t.Errorf("%d events take %d bytes, %d each; BurstBytes says %d", state.Msgs, state.Bytes, state.Bytes/state.Msgs, told)
	}
}
