package client

import (
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/beatfabric/hivebeat/internal/bustest"
	"github.com/beatfabric/hivebeat/queen/api"
)

// count returns how often the fake was asked.
func (f *fake) count() int { return len(f.questions()) }

func mute(asked) *api.Answer { return nil }

// One of two queens is stopped. NATS gives it half of the requests, and still every
// request is answered long before its timeout.
func TestAMuteQueenIsAskedAround(t *testing.T) {
	srv := server(t)
	stopped := serveFake(t, srv, "q1", "", mute)
	serveFake(t, srv, "q2", "", agrees)
	c := newClient(t, srv, Config{Timeout: patience}) // a request that waits that long has failed
	c.again = 5 * time.Millisecond
	const least = 5 // requests that the mute queen got; that is random, so ask until it got them
	bustest.Eventually(t, patience, func() (bool, string) {
		a, err := c.Summary(t.Context())
		if err != nil || a.Status.Queen != "q2" {
			t.Fatalf("%+v, %v", a, err)
		}
		return stopped.count() >= least, "the mute one was never asked"
	})
}

// A late answer to the first attempt is an answer, however often the request was sent
// since. The answers that come after it are ignored.
func TestALateAnswerCounts(t *testing.T) {
	srv := server(t)
	asks := make(chan struct{}, 64)
	enough := make(chan struct{})
	f := serveFake(t, srv, "q1", "", func(asked) *api.Answer {
		select {
		case asks <- struct{}{}:
		default: // a slow machine: it has been asked often by now
		}
		<-enough
		return agrees(asked{})
	})
	c := newClient(t, srv, Config{Timeout: time.Hour})
	c.again = 5 * time.Millisecond
	came := make(chan outcome, 1)
	go func() {
		a, err := c.Summary(t.Context())
		came <- outcome{a.Status, err}
	}()
	for range 3 {
		arrives(t, "the question", asks)
	}
	close(enough)
	if got := arrives(t, "the answer", came); got.err != nil || got.status.Queen != "q1" {
		t.Errorf("%+v, %v", got.status, got.err)
	}
	if f.count() < 3 {
		t.Errorf("asked %d times", f.count())
	}
}

// One of two queens is stopped and does not answer pings either. The second attempt of
// each request, holds included, goes to the other queen by its id.
func TestTheSecondQuestionGoesToAQueenThatLives(t *testing.T) {
	srv := server(t)
	stopped := serveFake(t, srv, "q1", "", mute)
	lives := serveFake(t, srv, "q2", "", agrees)
	lives.pong(t)
	c := newClient(t, srv, Config{Timeout: patience})
	c.again = time.Second // enough time for a ping on a slow machine
	for _, q := range []asked{
		{api.VerbSummary, api.Request{}},
		{api.VerbHold, api.Request{Hold: "job"}},
		{api.VerbRelease, api.Request{Hold: "job"}},
	} {
		for stopped.count() == 0 { // NATS chooses at random which queen gets a request
			before := lives.count()
			a, err := c.Ask(t.Context(), q.verb, q.req)
			if err != nil || a.Status.Queen != "q2" {
				t.Fatalf("%s: %+v, %v", q.verb, a, err)
			}
			at := lives.subjects()[before:]
			if stopped.count() > 0 && (stopped.count() > 1 || len(at) != 1 || at[0] != "queen.api."+q.verb+".q2") {
				t.Errorf("%s: the stopped queen was asked at %v, and then the other one at %v", q.verb, stopped.subjects(), at)
			}
		}
		stopped.forget()
	}
}

// A request whose second attempt finds no queen is not lost: the queen that has it
// accepts no more requests, but answers.
func TestAQueenThatLeavesAnswers(t *testing.T) {
	srv := server(t)
	asks, enough := make(chan struct{}, 1), make(chan struct{})
	nc := bustest.Conn(t, srv)
	sub, err := nc.QueueSubscribe("queen.api.summary", "q", func(m *nats.Msg) {
		select {
		case asks <- struct{}{}:
		default:
		}
		<-enough
		_ = m.Respond([]byte(`{"status":{"queen":"q1"},"summary":{}}`))
	})
	if err != nil {
		t.Fatal(err)
	}
	bustest.Flush(t, nc)
	c := newClient(t, srv, Config{Timeout: time.Hour})
	c.again = 20 * time.Millisecond
	came := make(chan outcome, 1)
	go func() {
		a, err := c.Summary(t.Context())
		came <- outcome{a.Status, err}
	}()
	arrives(t, "the question", asks)
	if err := sub.Drain(); err != nil { // it receives no more, and finishes what it has
		t.Fatal(err)
	}
	bustest.Flush(t, nc)
	bustest.Eventually(t, patience, func() (bool, string) { // the client has received a no-responders message
		select {
		case got := <-came:
			t.Fatalf("%+v, %v", got.status, got.err)
		default:
		}
		return c.nc.Stats().InMsgs > 0, "asked once"
	})
	close(enough)
	if got := arrives(t, "the answer", came); got.err != nil || got.status.Queen != "q1" {
		t.Errorf("%+v, %v", got.status, got.err)
	}
}

// A request that waits for a change is not sent so often that its copies crowd a queen.
func TestHowLongAQuestionWaits(t *testing.T) {
	c := &Client{timeout: 5 * time.Second, again: askAgain}
	for _, tt := range []struct {
		req  api.Request
		want time.Duration
	}{
		{api.Request{}, 500 * time.Millisecond},
		{api.Request{Hold: "job"}, 500 * time.Millisecond},
		{api.Request{Wait: 60_000}, 6500 * time.Millisecond},
	} {
		if got := c.waits(&tt.req); got != tt.want {
			t.Errorf("%+v: %v, not %v", tt.req, got, tt.want)
		}
	}
}
