package client

import (
	"context"
	"encoding/json"
	"errors"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/micro"

	"github.com/beatfabric/hivebeat/bus/embedded"
	"github.com/beatfabric/hivebeat/internal/bustest"
	"github.com/beatfabric/hivebeat/queen/api"
)

// starts simulates a queen that is present but answers no requests yet. The channel
// reports each ping.
func starts(t *testing.T, srv *embedded.Server, id, prefix string) (knocks <-chan struct{}) {
	t.Helper()
	nc, told := bustest.Conn(t, srv), make(chan struct{}, 64)
	ping := micro.Ping{ServiceIdentity: micro.ServiceIdentity{Name: "queen", ID: id, Metadata: map[string]string{"prefix": prefix}}}
	if _, err := nc.Subscribe("$SRV.PING.queen", func(m *nats.Msg) {
		b, _ := json.Marshal(ping)
		_ = m.Respond(b)
		select {
		case told <- struct{}{}:
		default:
		}
	}); err != nil {
		t.Fatal(err)
	}
	bustest.Flush(t, nc)
	return told
}

// outcome is what a call returned.
type outcome struct {
	status api.Status
	err    error
}

func arrives[T any](t *testing.T, what string, c <-chan T) T {
	t.Helper()
	select {
	case v := <-c:
		return v
	case <-time.After(patience):
		t.Fatalf("%s did not come", what)
	}
	panic("unreachable")
}

// A queen that is present and does not answer yet is waited for by every method.
func TestAQueenThatStartsIsWaitedFor(t *testing.T) {
	for name, ask := range map[string]func(context.Context, *Client) outcome{
		"Ask": func(ctx context.Context, c *Client) outcome {
			a, err := c.Ask(ctx, api.VerbSummary, api.Request{})
			if err != nil {
				return outcome{err: err}
			}
			return outcome{a.Status, nil}
		},
		"Pages": func(ctx context.Context, c *Client) outcome {
			for p, err := range c.HivePages(ctx, Query{}) {
				return outcome{p.Status, err}
			}
			return outcome{err: errors.New("nothing came")}
		},
		"Watch": func(ctx context.Context, c *Client) outcome {
			for ch, err := range c.Watch(ctx, WatchQuery{After: "gone.7"}) { // the cursor of a queen that is gone
				return outcome{ch.Status, err}
			}
			return outcome{err: errors.New("nothing came")}
		},
	} {
		t.Run(name, func(t *testing.T) {
			srv := server(t)
			knocks := starts(t, srv, "q1", "acme")
			c := newClient(t, srv, Config{Prefix: "acme", Timeout: patience})
			came := make(chan outcome, 1)
			go func() { came <- ask(t.Context(), c) }()
			arrives(t, "the question for a queen", knocks)
			serveFake(t, srv, "q1", "acme.", func(asked) *api.Answer { return &api.Answer{Next: "x"} })
			if got := arrives(t, "the answer", came); got.err != nil || got.status.Queen != "q1" {
				t.Errorf("%+v, %v", got.status, got.err)
			}
		})
	}
}

// The wait is bounded by the timeout and by the caller's context, and happens only if a
// queen of this fabric is present.
func TestWaitingForAQueenIsBounded(t *testing.T) {
	srv := server(t)
	knocks := starts(t, srv, "q1", "acme")

	var starting *StartingError
	brief := newClient(t, srv, Config{Prefix: "acme", Timeout: 100 * time.Millisecond})
	bustest.Eventually(t, patience, func() (bool, string) { // on a slow machine the ping may not be answered in time
		_, err := brief.Summary(t.Context())
		if !errors.Is(err, ErrNoQueen) {
			t.Fatalf("%v", err)
		}
		return errors.As(err, &starting), err.Error()
	})
	if want := "queen q1 has just started and does not answer yet"; starting.Queen != "q1" || starting.Error() != want {
		t.Errorf("%q", starting)
	}
	for len(knocks) > 0 {
		<-knocks
	}

	why := errors.New("enough")
	ctx, cancel := context.WithCancelCause(t.Context())
	defer cancel(nil)
	came := make(chan outcome, 1)
	c := newClient(t, srv, Config{Prefix: "acme", Timeout: time.Hour})
	go func() {
		a, err := c.Summary(ctx)
		came <- outcome{a.Status, err}
	}()
	arrives(t, "the question for a queen", knocks)
	cancel(why)
	if got := arrives(t, "the end", came); !errors.Is(got.err, why) || errors.Is(got.err, ErrNoQueen) {
		t.Errorf("%v", got.err)
	}

	_, err := newClient(t, srv, Config{Timeout: time.Hour}).Summary(t.Context())
	if !errors.Is(err, ErrNoQueen) || errors.As(err, &starting) {
		t.Errorf("of another prefix: %v", err)
	}
}

// Watch reports that it waits, and continues.
func TestWatchGoesOnWhileAQueenStarts(t *testing.T) {
	srv := server(t)
	starts(t, srv, "q1", "")
	c := newClient(t, srv, Config{Timeout: 20 * time.Millisecond})
	told := false
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	for a, err := range c.Watch(ctx, WatchQuery{}) {
		var starting *StartingError
		switch {
		case err == nil:
			if a.Status.Queen != "q1" || !told {
				t.Errorf("%+v, told that she starts: %v", a, told)
			}
			return
		case errors.As(err, &starting) && !told:
			told = true
			serveFake(t, srv, "q1", "", func(asked) *api.Answer { return &api.Answer{Next: "q1.1"} })
		case !errors.Is(err, ErrNoQueen): // as happens on a slow machine
			t.Fatalf("%v", err)
		}
	}
	t.Error("it ended")
}
