package hive

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/beatfabric/hivebeat"
	"github.com/beatfabric/hivebeat/internal/bustest"
	"github.com/beatfabric/hivebeat/internal/wire"
)

const patience = 30 * time.Second

// text is a log, or another buffer that several goroutines write to.
type text = bustest.Log

// quickConfig configures a hive that does not read the facts of the machine.
func quickConfig() Config {
	return Config{
		ID:   thisHive,
		Host: func(context.Context) (hivebeat.Host, error) { return hivebeat.Host{Name: "machine", CPUs: 8}, nil },
		GPUs: func(context.Context) ([]hivebeat.GPU, error) { return nil, nil },
	}
}

// running starts a hive that runs until the test ends.
func running(t testing.TB, nc *nats.Conn, cfg Config) *Hive {
	t.Helper()
	h, err := New(nc, cfg)
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- h.Run(context.Background()) }()
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		_ = h.Stop(ctx) // fails without NATS, which would receive the goodbye
		select {
		case <-ended:
		case <-ctx.Done():
			t.Error("Run did not end")
		}
	})
	return h
}

// subscribed waits until the server knows the subscriptions of h.
func subscribed(t testing.TB, nc *nats.Conn, h *Hive) {
	t.Helper()
	bustest.Eventually(t, patience, func() (bool, string) { return h.Stats().Snapshots.Sent > 0, "not running" })
	bustest.Flush(t, nc)
}

// queen collects the snapshots of hives.
type queen struct {
	mu   sync.Mutex
	list []said
}

// said is a snapshot and when it was received.
type said struct {
	hivebeat.Snapshot
	at      time.Time
	subject string
	size    int
}

func listening(t *testing.T, nc *nats.Conn) *queen {
	t.Helper()
	q := &queen{}
	for _, subject := range []string{"queen.hives", "queen.hives.*"} {
		_, err := nc.Subscribe(subject, func(m *nats.Msg) {
			s, err := wire.DecodeSnapshot(m.Data)
			if err != nil {
				t.Errorf("a queen refuses a snapshot: %v", err)
				return
			}
			q.mu.Lock()
			defer q.mu.Unlock()
			q.list = append(q.list, said{s, time.Now(), m.Subject, len(m.Data)})
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	bustest.Flush(t, nc)
	return q
}

func (q *queen) all() []said {
	q.mu.Lock()
	defer q.mu.Unlock()
	return slices.Clone(q.list)
}

func (q *queen) last() (said, bool) {
	all := q.all()
	if len(all) == 0 {
		return said{}, false
	}
	return all[len(all)-1], true
}

// await waits for a snapshot that satisfies ok.
func (q *queen) await(t *testing.T, what string, ok func(said) bool) said {
	t.Helper()
	var found said
	bustest.Eventually(t, patience, func() (bool, string) {
		all := q.all()
		for _, s := range all {
			if ok(s) {
				found = s
				return true, ""
			}
		}
		if len(all) == 0 {
			return false, "no snapshot, waiting for one with " + what
		}
		return false, fmt.Sprintf("%d snapshots, none with %s; the last: %+v", len(all), what, all[len(all)-1].Snapshot)
	})
	return found
}

func worker1(s said, id string) (hivebeat.Record, bool) {
	for _, w := range s.Workers {
		if w.Worker == id {
			return w, true
		}
	}
	return hivebeat.Record{}, false
}

func withWorker(id string, live hivebeat.Live) func(said) bool {
	return func(s said) bool {
		w, ok := worker1(s, id)
		return ok && w.Live == live
	}
}

func publish(t testing.TB, nc *nats.Conn, subject string, b []byte) {
	t.Helper()
	if err := nc.Publish(subject, b); err != nil {
		t.Fatal(err)
	}
	bustest.Flush(t, nc)
}

// awaitBeats waits until the hive has accepted n beats.
func awaitBeats(t *testing.T, h *Hive, n uint64) {
	t.Helper()
	bustest.Eventually(t, patience, func() (bool, string) {
		s := h.Stats()
		return s.Beats >= n, fmt.Sprintf("%+v", s)
	})
}

func awaitText(t *testing.T, log *text, want string) {
	t.Helper()
	bustest.Eventually(t, patience, func() (bool, string) {
		return strings.Contains(log.String(), want), "no " + want + " in\n" + log.String()
	})
}
