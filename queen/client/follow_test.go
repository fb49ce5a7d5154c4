package client

import (
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/beatfabric/hivebeat"
	"github.com/beatfabric/hivebeat/internal/bustest"
	"github.com/beatfabric/hivebeat/queen/api"
)

func agrees(asked) *api.Answer { return &api.Answer{Summary: &api.Summary{}, Picks: []api.Pick{{}}} }

// Three queens know different things. One of them gives all answers that are shown
// together, each in one round trip.
func TestAViewIsOfOneQueen(t *testing.T) {
	srv := server(t)
	known := map[string]int{"q1": 3, "q2": 25, "q3": 100}
	var queens []*fake
	for id, n := range known {
		queens = append(queens, serveFake(t, srv, id, "", func(q asked) *api.Answer {
			a := &api.Answer{Summary: &api.Summary{Workers: map[hivebeat.Live]int{hivebeat.Alive: n}}}
			from := 0
			_, _ = fmt.Sscanf(q.req.After, "w%d", &from)
			for i := from; q.verb == api.VerbWorkers && i < min(n, from+q.req.Limit); i++ {
				a.Workers = append(a.Workers, api.WorkerInfo{Record: hivebeat.Record{Worker: fmt.Sprint("w", i)}})
			}
			if to := from + len(a.Workers); to < n {
				a.Next = fmt.Sprint("w", to)
			}
			return a
		}))
	}
	all := newClient(t, srv, Config{})
	seen := map[string]bool{}
	bustest.Eventually(t, patience, func() (bool, string) { // the choice is random: until each was chosen
		asked := 0
		for _, q := range queens {
			asked -= q.count()
		}
		c := all.Follow()
		a, err := c.Summary(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		queen, n, pages, questions := a.Status.Queen, 0, c.WorkerPages(t.Context(), Query{PageSize: 10}), 1
		seen[queen] = true
		for page, err := range pages {
			if err != nil || page.Status.Queen != queen || len(page.Status.Unsure) != 0 {
				t.Fatalf("%+v after %s, %v", page.Status, queen, err)
			}
			n += len(page.Rows)
			questions++
		}
		if n != known[queen] || n != a.Workers[hivebeat.Alive] {
			t.Errorf("%d rows below a summary of %d, by %s", n, a.Workers[hivebeat.Alive], queen)
		}
		for _, q := range queens {
			asked += q.count()
		}
		if asked != questions {
			t.Errorf("%d requests for %d questions", asked, questions)
		}
		return len(seen) == len(known), fmt.Sprint(seen)
	})
	// A sequence of pages is also a view.
	for range 5 {
		queen, n := "", 0
		for page, err := range all.WorkerPages(t.Context(), Query{PageSize: 10}) {
			if err != nil || queen != "" && page.Status.Queen != queen {
				t.Fatalf("%+v after %s, %v", page.Status, queen, err)
			}
			queen, n = page.Status.Queen, n+len(page.Rows)
		}
		if n != known[queen] {
			t.Errorf("%d rows of %s", n, queen)
		}
	}
}

// If the followed queen no longer answers, another takes over, says so, and is followed
// from then on.
func TestAViewGoesOnWithAnother(t *testing.T) {
	const why = "queen q1 did not answer, queen q2 did"
	for name, end := range map[string]func(*testing.T, *fake){
		"gone": func(t *testing.T, f *fake) { f.leave(t) },
		"mute": func(_ *testing.T, f *fake) { f.hush() },
	} {
		t.Run(name, func(t *testing.T) {
			srv := server(t)
			q1 := serveFake(t, srv, "q1", "", agrees)
			c := newClient(t, srv, Config{Asker: "ann", Timeout: patience}).Follow()
			c.again = 5 * time.Millisecond // the mute q1 gets some of the requests at random
			for range 2 {
				if a, err := c.Summary(t.Context()); err != nil || a.Status.Queen != "q1" || len(a.Status.Unsure) != 0 {
					t.Fatalf("%+v, %v", a, err)
				}
			}
			q2 := serveFake(t, srv, "q2", "", func(asked) *api.Answer { a := agrees(asked{}); a.Status.Unsure = []string{"x"}; return a })
			end(t, q1)
			a, err := c.Summary(t.Context())
			if err != nil || a.Status.Queen != "q2" || !slices.Equal(a.Status.Unsure, []string{"x", why}) {
				t.Fatalf("%+v, %v", a, err)
			}
			c.again = time.Hour
			before := c.nc.Stats().OutMsgs
			for range 2 {
				if a, err = c.Summary(t.Context()); err != nil || a.Status.Queen != "q2" || !slices.Equal(a.Status.Unsure, []string{"x"}) {
					t.Errorf("%+v, %v", a, err)
				}
			}
			if n := c.nc.Stats().OutMsgs - before; n != 2 {
				t.Errorf("%d messages for two questions", n)
			}
			if d := cmp.Diff([]string{"queen.as.ann.summary", "queen.as.ann.summary.q2"}, slices.Compact(q2.subjects())); d != "" {
				t.Errorf("q2 was asked on (-want +got):\n%s", d)
			}
		})
	}
}

// hush makes the fake stop answering while it still receives requests.
func (f *fake) hush() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.gone = true
}

// A queen that stops and a queen that starts later are two queens, even if no queen
// answered in between.
func TestAViewAfterASilence(t *testing.T) {
	srv := server(t)
	q1 := serveFake(t, srv, "q1", "", agrees)
	c := newClient(t, srv, Config{Timeout: 50 * time.Millisecond}).Follow()
	bustest.Eventually(t, patience, func() (bool, string) { // on a slow machine this takes longer than the timeout
		a, err := c.Summary(t.Context())
		return err == nil && a.Status.Queen == "q1", fmt.Sprint(err)
	})
	q1.leave(t)
	if _, err := c.Summary(t.Context()); !errors.Is(err, ErrNoQueen) {
		t.Fatalf("%v", err)
	}
	serveFake(t, srv, "q2", "", agrees)
	bustest.Eventually(t, patience, func() (bool, string) {
		a, err := c.Summary(t.Context())
		if err != nil {
			return false, err.Error()
		}
		if !slices.Equal(a.Status.Unsure, []string{"queen q1 did not answer, queen q2 did"}) {
			t.Errorf("%+v", a.Status)
		}
		return true, ""
	})
}

// A queen that is about to stop answers that it is unavailable. A request that changes
// something is not repeated for that.
func TestAViewOfAQueenThatStops(t *testing.T) {
	srv := server(t)
	var stops atomic.Bool
	q1 := serveFake(t, srv, "q1", "", func(asked) *api.Answer {
		if stops.Load() {
			return &api.Answer{Error: &api.Error{Code: api.CodeUnavailable, Message: "stopped"}}
		}
		return agrees(asked{})
	})
	c := newClient(t, srv, Config{}).Follow()
	if _, err := c.Summary(t.Context()); err != nil {
		t.Fatal(err)
	}
	stops.Store(true)
	q2 := serveFake(t, srv, "q2", "", agrees)
	if _, err := c.Hold(t.Context(), HoldRequest{ID: "job"}); !errors.Is(err, ErrUnavailable) || q2.count() != 0 {
		t.Errorf("%v, and another was asked %d times", err, q2.count())
	}
	_ = q1.subs[2].Unsubscribe() // from the group, which a stopping queen leaves
	bustest.Flush(t, q1.nc)
	if a, err := c.Summary(t.Context()); err != nil || a.Status.Queen != "q2" || len(a.Status.Unsure) != 1 {
		t.Errorf("%+v, %v", a, err)
	}
	// If the queen is gone, no queen got the request, so any other may carry it out.
	q1.leave(t)
	c2 := newClient(t, srv, Config{}).Follow()
	c2.followed.id = "q1"
	if a, err := c2.Hold(t.Context(), HoldRequest{ID: "job"}); err != nil || a.Status.Queen != "q2" {
		t.Errorf("%+v, %v", a, err)
	}
}
