package client

import (
	"context"
	"fmt"
	"sync"
	"testing"

	"github.com/nats-io/nats.go"

	"github.com/beatfabric/hivebeat"
	"github.com/beatfabric/hivebeat/bus/embedded"
	"github.com/beatfabric/hivebeat/internal/bustest"
	"github.com/beatfabric/hivebeat/internal/wire"
	"github.com/beatfabric/hivebeat/queen"
	"github.com/beatfabric/hivebeat/queen/api"
)

// runQueen runs a real queen until stop is called, or the end of the test.
func runQueen(t *testing.T, srv *embedded.Server, id string) (q *queen.Queen, stop func()) {
	t.Helper()
	q, err := queen.New(bustest.Conn(t, srv), queen.Config{ID: id})
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- q.Run(context.Background()) }()
	stop = sync.OnceFunc(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		if err := q.Stop(ctx); err != nil {
			t.Error(err)
		}
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(stop)
	return q, stop
}

// hive sends snapshots of one hive with n workers.
type hive struct {
	t   *testing.T
	nc  *nats.Conn
	seq uint64
}

func (h *hive) send(workers int, state hivebeat.State) {
	h.t.Helper()
	h.seq++
	s := hivebeat.Snapshot{V: 1, Hive: "gpu-01", Inc: 7, Every: 3_600_000, Seq: h.seq, Warm: true, Pages: 1}
	for i := range workers {
		s.Workers = append(s.Workers, hivebeat.Record{
			Worker: fmt.Sprintf("w%03d", i), Live: hivebeat.Alive, Facts: hivebeat.Facts{Inc: 7, Every: 3_600_000, Seq: h.seq, State: state, Model: "m"},
		})
	}
	b, err := wire.EncodeSnapshot(&s)
	if err == nil {
		err = h.nc.Publish(hivebeat.Subjects{}.Hives(), b)
	}
	if err != nil {
		h.t.Fatal(err)
	}
}

// states is what a watcher knows of workers: the sum of all its answers.
type states map[string]hivebeat.State

func (s states) take(a Changes) {
	if a.Resync != "" {
		clear(s)
	}
	for _, w := range a.Workers {
		s[w.Cursor()] = w.State
	}
	for _, id := range a.Gone {
		delete(s, id)
	}
}

func (s states) all(n int, state hivebeat.State) bool {
	for _, of := range s {
		if of != state {
			return false
		}
	}
	return len(s) == n
}

// A watch of real queens: its answers add up to the fleet, through changes, and through
// the end of the queen that it followed.
func TestRealQueens(t *testing.T) {
	srv := bustest.Server(t)
	q1, stop1 := runQueen(t, srv, "q1")
	h := &hive{t: t, nc: bustest.Conn(t, srv)}
	const workers = 450 // more than a page
	warm := func(q *queen.Queen) {
		t.Helper()
		bustest.Eventually(t, patience, func() (bool, string) {
			h.send(workers, hivebeat.Ready)
			a := q.Answer(t.Context(), api.VerbSummary, api.Request{})
			return a.Status.Warm && a.Summary != nil && a.Summary.Workers[hivebeat.Alive] == workers, fmt.Sprintf("%+v", a)
		})
	}
	warm(q1)
	c := newClient(t, srv, Config{})
	bustest.Eventually(t, patience, func() (bool, string) { // a queen is warm a moment before it accepts requests
		_, err := c.Summary(t.Context())
		return err == nil, fmt.Sprint(err)
	})

	n := 0
	for a, err := range c.WorkerPages(t.Context(), Query{PageSize: 100}) {
		if err != nil {
			t.Fatal(err)
		}
		n += len(a.Rows)
	}
	if n != workers {
		t.Errorf("%d workers in pages", n)
	}

	know := states{}
	next := pull(t, c.Watch(t.Context(), WatchQuery{Only: []string{"workers"}}))
	until := func(state hivebeat.State) (last Changes) {
		t.Helper()
		for !know.all(workers, state) {
			a, err := next()
			if err != nil && !passes(err) {
				t.Fatal(err)
			}
			if err == nil {
				know.take(a)
				last = a
			}
		}
		return last
	}
	if a := until(hivebeat.Ready); a.Status.Queen != "q1" {
		t.Errorf("%+v", a.Status)
	}
	h.send(workers, hivebeat.Degraded)
	until(hivebeat.Degraded)

	q2, _ := runQueen(t, srv, "q2")
	warm(q2)
	bustest.Eventually(t, patience, func() (bool, string) {
		a, err := c.Summary(t.Context())
		return err == nil && a.Status.Queen == "q2", fmt.Sprintf("%+v, %v", a, err)
	})
	stop1()
	h.send(workers, hivebeat.Draining)
	if a := until(hivebeat.Draining); a.Status.Queen != "q2" {
		t.Errorf("%+v", a.Status)
	}
}
