package worker

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/beatfabric/hivebeat"
	"github.com/beatfabric/hivebeat/bus"
	"github.com/beatfabric/hivebeat/internal/bustest"
)

const patience = 20 * time.Second

// listener records all beats, and fails the test for one that the strict parser refuses.
type listener struct {
	t     testing.TB
	mu    sync.Mutex
	beats []heard
}

type heard struct {
	hivebeat.Beat
	subject string
	at      time.Time
}

func listen(t testing.TB, nc *nats.Conn) *listener {
	t.Helper()
	e := &listener{t: t}
	sub, err := nc.Subscribe("hive.*.workers", e.hear)
	if err != nil {
		t.Fatal(err)
	}
	pinned, err := nc.Subscribe("hive.*.workers.*", e.hear)
	if err != nil {
		t.Fatal(err)
	}
	if nc.IsConnected() {
		if err := nc.Flush(); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() { _, _ = sub.Unsubscribe(), pinned.Unsubscribe() })
	return e
}

func (e *listener) hear(m *nats.Msg) {
	h := heard{subject: m.Subject, at: time.Now()}
	if err := bus.Decode(m.Data, &h.Beat); err != nil {
		e.t.Errorf("a beat of %d bytes is refused: %v", len(m.Data), err)
		return
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.beats = append(e.beats, h)
}

func (e *listener) all() []heard {
	e.mu.Lock()
	defer e.mu.Unlock()
	return append([]heard(nil), e.beats...)
}

func (e *listener) String() string {
	var s strings.Builder
	for _, h := range e.all() {
		fmt.Fprintf(&s, "%s seq %d %s %q quiet %d busy %d; ", h.Worker, h.Seq, h.State, h.Reason, h.Quiet, h.Busy)
	}
	return s.String()
}

// wait returns the first beat at or after index from that ok accepts.
func (e *listener) wait(from int, what string, ok func(heard) bool) (got heard) {
	e.t.Helper()
	bustest.Eventually(e.t, patience, func() (bool, string) {
		for _, h := range e.all()[from:] {
			if ok(h) {
				got = h
				return true, ""
			}
		}
		return false, fmt.Sprintf("%s was not heard, but: %s", what, e)
	})
	return got
}

func anyBeat(heard) bool { return true }

func in(s hivebeat.State) func(heard) bool { return func(h heard) bool { return h.State == s } }

// run runs a worker until the end of the test.
func run(t testing.TB, nc *nats.Conn, cfg Config) *Worker {
	t.Helper()
	if cfg.Hive == "" {
		cfg.Hive = "gpu-01"
	}
	if cfg.ID == "" {
		cfg.ID = "llama"
	}
	w, err := New(nc, cfg)
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- w.Run(context.Background()) }()
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		_ = w.Stop(ctx)
		select {
		case err := <-ended:
			if err != nil && !errors.Is(err, hivebeat.ErrStopped) && !errors.Is(err, nats.ErrConnectionClosed) {
				t.Errorf("Run: %v", err)
			}
		case <-ctx.Done():
			t.Error("Run did not end")
		}
	})
	return w
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
