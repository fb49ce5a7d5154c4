package ledger

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"go.uber.org/goleak"

	"github.com/beatfabric/hivebeat"
	"github.com/beatfabric/hivebeat/bus/embedded"
	"github.com/beatfabric/hivebeat/internal/bustest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m, bustest.Leaks()) }

// patience limits waits for things that take milliseconds, on a busy machine.
const patience = 30 * time.Second

func ctxOf(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), 2*patience)
	t.Cleanup(cancel)
	return ctx
}

// opened returns a ledger on a new connection.
func opened(t testing.TB, srv *embedded.Server, cfg Config) *Ledger {
	t.Helper()
	l, err := Open(ctxOf(t), bustest.Conn(t, srv), cfg)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func prefixed(t testing.TB, prefix string) Config {
	t.Helper()
	s, err := hivebeat.NewSubjects(prefix)
	if err != nil {
		t.Fatal(err)
	}
	return Config{Subjects: s}
}

// snap returns a snapshot received now.
func snap(hive string, inc, seq uint64) Snapshot {
	return Snapshot{
		Hive: hive, Inc: inc, Seq: seq, Every: 15 * time.Second, Received: time.Now(),
		Payload: fmt.Appendf(nil, "%s %d %d", hive, inc, seq),
	}
}

func put(t testing.TB, l *Ledger, s Snapshot) {
	t.Helper()
	if err := l.PutSnapshot(ctxOf(t), s, time.Now()); err != nil {
		t.Fatal(err)
	}
}

// publish publishes one event.
func publish(ctx context.Context, t testing.TB, l *Ledger, ev hivebeat.Event) error {
	t.Helper()
	body, err := ev.Encode()
	if err != nil {
		t.Fatal(err)
	}
	return publishMsgs(ctx, t, l, NewEventMsg(&ev, body, time.Now()))
}

// publishMsgs publishes events by a publisher of their own.
func publishMsgs(ctx context.Context, t testing.TB, l *Ledger, msgs ...EventMsg) error {
	t.Helper()
	p, err := NewPublisher(l)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	return errors.Join(p.Publish(ctx, msgs)...)
}

// tryAdvance advances one entry by a publisher of its own.
func tryAdvance(t testing.TB, l *Ledger, hive string, rev uint64, e RosterEntry) (uint64, error) {
	t.Helper()
	p, err := NewPublisher(l)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	out := p.Advance(ctxOf(t), []Step{{hive, rev, e}})[0]
	return out.Revision, out.Err
}

func rosterOf(t testing.TB, l *Ledger, hive string) (RosterItem, bool, error) {
	r := l.RostersOf(ctxOf(t), []string{hive})[0]
	return r.Item, r.OK, r.Err
}

func headOf(t testing.TB, l *Ledger, hive string) (inc, seq uint64, ok bool, err error) {
	h := l.Heads(ctxOf(t), []string{hive})[0]
	return h.Inc, h.Seq, h.OK, h.Err
}

// hivesOf returns every page of every hive in the bucket.
func hivesOf(t testing.TB, l *Ledger) (all []Entry, err error) {
	err = l.EachHive(ctxOf(t), func(e Entry) { all = append(all, e) })
	return all, err
}

// running runs f until the test ends, and waits for its end.
func running(t testing.TB, f func(ctx context.Context) error) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- f(ctx) }()
	t.Cleanup(func() {
		cancel()
		select {
		case err := <-done:
			if err != nil {
				t.Errorf("it ended with %v", err)
			}
		case <-time.After(patience):
			t.Error("it did not end")
		}
	})
}

// counted counts the messages on a subject.
func counted(t testing.TB, nc *nats.Conn, subject string) *atomic.Int64 {
	t.Helper()
	n := new(atomic.Int64)
	if _, err := nc.Subscribe(subject, func(*nats.Msg) { n.Add(1) }); err != nil {
		t.Fatal(err)
	}
	bustest.Flush(t, nc)
	return n
}

func event(l *Ledger, hive string, n uint64, at time.Time) hivebeat.Event {
	return l.cfg.Subjects.NewEvent(hivebeat.HiveEventID(hive, n), at,
		hivebeat.EventData{Hive: hive, N: n, Kind: hivebeat.KindLost, From: "late", To: "lost", Cause: hivebeat.CauseMissed, Via: hivebeat.ViaQueen})
}

func contextWithCancel(t testing.TB) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(context.Background())
	t.Cleanup(cancel)
	return ctx, cancel
}
