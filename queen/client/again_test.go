package client

import (
	"errors"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/beatfabric/hivebeat/internal/bustest"
	"github.com/beatfabric/hivebeat/queen/api"
)

// count is how often it was asked.
func (f *fake) count() int { return len(f.questions()) }

func mute(asked) *api.Answer { return nil }

// Of two queens one is stopped: NATS gives it half of the questions, and still each of
// them has an answer long before its time is up.
func TestAMuteQueenIsAskedAround(t *testing.T) {
	srv := server(t)
	stopped := serveFake(t, srv, "q1", "", mute)
	serveFake(t, srv, "q2", "", func(asked) *api.Answer { return &api.Answer{} })
	c := newClient(t, srv, Config{Timeout: patience}) // whoever waits for that, waits in vain
	c.again = 5 * time.Millisecond
	const least = 5 // questions that the mute one got; by chance, so that it is asked until then
	bustest.Eventually(t, patience, func() (bool, string) {
		a, err := c.Summary(t.Context())
		if err != nil || a.Status.Queen != "q2" {
			t.Fatalf("%+v, %v", a, err)
		}
		return stopped.count() >= least, "the mute one was never asked"
	})
}

// A late answer to the first question is an answer, however often it was asked since,
// and the answers that come after it are of no interest.
func TestALateAnswerCounts(t *testing.T) {
	srv := server(t)
	asks := make(chan struct{}, 64)
	enough := make(chan struct{})
	f := serveFake(t, srv, "q1", "", func(asked) *api.Answer {
		select {
		case asks <- struct{}{}:
		default: // a slow machine: it was asked often by now
		}
		<-enough
		return &api.Answer{}
	})
	c := newClient(t, srv, Config{Timeout: time.Hour})
	c.again = 5 * time.Millisecond
	came := make(chan outcome, 1)
	go func() {
		a, err := c.Summary(t.Context())
		came <- outcome{a, err}
	}()
	for range 3 {
		arrives(t, "the question", asks)
	}
	close(enough)
	if got := arrives(t, "the answer", came); got.err != nil || got.answer.Status.Queen != "q1" {
		t.Errorf("%+v, %v", got.answer, got.err)
	}
	if f.count() < 3 {
		t.Errorf("asked %d times", f.count())
	}
}

// What changes something is asked once.
func TestWhatActsIsAskedOnce(t *testing.T) {
	srv := server(t)
	f := serveFake(t, srv, "q1", "", mute)
	c := newClient(t, srv, Config{Timeout: 200 * time.Millisecond})
	c.again = 5 * time.Millisecond
	for _, q := range []asked{
		{api.VerbRelease, api.Request{Hold: "job"}},
		{api.VerbHold, api.Request{Hold: "job"}},
	} {
		before := f.count()
		if _, err := c.Ask(t.Context(), q.verb, q.req); !errors.Is(err, ErrNoQueen) {
			t.Errorf("%s: %v", q.verb, err)
		}
		bustest.Flush(t, f.nc)
		if n := f.count() - before; n > 1 { // none, where the machine takes longer than the timeout
			t.Errorf("%s was asked %d times", q.verb, n)
		}
	}
	// A pick may be.
	patient := newClient(t, srv, Config{Timeout: patience})
	patient.again = 5 * time.Millisecond
	before := f.count()
	came := make(chan outcome, 1)
	go func() {
		a, err := patient.Pick(t.Context(), api.Request{})
		came <- outcome{a, err}
	}()
	bustest.Eventually(t, patience, func() (bool, string) { return f.count()-before > 1, "asked once" })
	f.leave(t) // and all that is asked now finds nobody: the mute one may answer still
	serveFake(t, srv, "q2", "", func(asked) *api.Answer { return &api.Answer{} })
	if got := arrives(t, "the answer", came); got.err != nil || got.answer.Status.Queen != "q2" {
		t.Errorf("%+v, %v", got.answer, got.err)
	}
}

// A question that found nobody the second time is not lost: the queen that has it takes
// no more, and answers.
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
		_ = m.Respond([]byte(`{"status":{"queen":"q1"}}`))
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
		came <- outcome{a, err}
	}()
	arrives(t, "the question", asks)
	if err := sub.Drain(); err != nil { // it is told no more, and what it has is done
		t.Fatal(err)
	}
	bustest.Flush(t, nc)
	bustest.Eventually(t, patience, func() (bool, string) { // the client was told that nobody is there
		select {
		case got := <-came:
			t.Fatalf("%+v, %v", got.answer, got.err)
		default:
		}
		return c.nc.Stats().InMsgs > 0, "asked once"
	})
	close(enough)
	if got := arrives(t, "the answer", came); got.err != nil || got.answer.Status.Queen != "q1" {
		t.Errorf("%+v, %v", got.answer, got.err)
	}
}

// One that waits for a change is not asked so often that they crowd a queen.
func TestHowLongAQuestionWaits(t *testing.T) {
	c := &Client{timeout: 5 * time.Second, again: askAgain}
	for _, tt := range []struct {
		verb string
		req  api.Request
		want time.Duration
	}{
		{api.VerbSummary, api.Request{}, 500 * time.Millisecond},
		{api.VerbPick, api.Request{}, 500 * time.Millisecond},
		{api.VerbHold, api.Request{Hold: "job"}, 0},
		{api.VerbRelease, api.Request{Hold: "job"}, 0},
		{api.VerbWatch, api.Request{}, 500 * time.Millisecond},
		{api.VerbWatch, api.Request{Wait: 60_000}, 6500 * time.Millisecond},
	} {
		if got := c.waits(tt.verb, &tt.req); got != tt.want {
			t.Errorf("%s %+v: %v, not %v", tt.verb, tt.req, got, tt.want)
		}
	}
}
