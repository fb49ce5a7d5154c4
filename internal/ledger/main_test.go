package ledger

import (
	"context"
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
