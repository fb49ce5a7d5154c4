package detector

import (
	"testing"
	"time"

	"github.com/beatfabric/hivebeat"
)

func TestAnswersToARollCall(t *testing.T) {
	const spread = 500 * time.Millisecond
	for _, c := range []struct {
		name     string
		workers  int
		answers  int
		after    time.Duration // since the call
		want     bool
		awaiting bool // there are workers to wait for
	}{
		{"nobody is there", 0, 0, time.Hour, false, false},
		{"none yet", 2, 0, spread, false, true},
		{"none at all", 2, 0, spread + answerSlack, false, true},
		{"some, and others may follow", 2, 1, spread, false, true},
		{"some, and the time is over", 2, 1, spread + answerSlack, true, true},
		{"all", 2, 2, 10 * time.Millisecond, true, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newBench(t)
			gone := newFake("gone") // its answer is not awaited
			gone.State = hivebeat.Stopped
			r.mustFeed(gone.Next(t))
			fakes := make([]*fake, c.workers)
			for i := range fakes {
				fakes[i] = newFake(string(rune('a' + i)))
				r.mustFeed(fakes[i].Next(t))
			}
			r.now = t0.Add(second)
			called := r.now
			until, ok := r.AwaitAnswers(called, spread)
			if ok != c.awaiting || ok && !until.Equal(called.Add(spread+answerSlack)) {
				t.Fatalf("awaits answers until %s: %t", until.Sub(called), ok)
			}
			for _, f := range fakes[:c.answers] {
				r.mustFeed(f.Next(t))
				r.mustFeed(f.Next(t)) // a worker that beats twice answers once
			}
			if got := r.Answered(called.Add(c.after)); got != c.want {
				t.Errorf("answered: %t, want %t", got, c.want)
			}
			if !c.want && c.awaiting { // the first late answer
				r.mustFeed(fakes[0].Next(t))
				early, late := r.Answered(called.Add(spread)), r.Answered(called.Add(spread+answerSlack))
				if early || !late {
					t.Errorf("a late answer is told within the spread: %t, and after the slack: %t", early, late)
				}
			}
			if c.want && r.Answered(called.Add(time.Hour)) {
				t.Error("told again after an hour")
			}
		})
	}
}

// A call replaces the previous one, whose answers are too old by that time.
func TestARollCallReplacesTheOneBefore(t *testing.T) {
	r := newBench(t)
	a, b := newFake("a"), newFake("b")
	r.mustFeed(a.Next(t)).mustFeed(b.Next(t))
	r.AwaitAnswers(r.now, second)
	r.mustFeed(a.Next(t))
	r.AwaitAnswers(r.now, second)
	if r.mustFeed(b.Next(t)).Answered(r.now) {
		t.Error("an answer to the call before counts")
	}
	if !r.mustFeed(a.Next(t)).Answered(r.now) {
		t.Error("both answered")
	}
}
