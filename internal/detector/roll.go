package detector

import (
	"time"

	"github.com/beatfabric/hivebeat"
)

// answerSlack is how long after the spread of a roll call an answer may still be on
// its way.
const answerSlack = 250 * time.Millisecond

// roll is a roll call whose answers are awaited. The zero value awaits none.
type roll struct {
	until    time.Time            // so long all are waited for; zero: nobody is
	awaited  map[*worker]struct{} // who was alive, and was not heard since
	answered bool                 // somebody was
}

// heard takes an answer.
func (c *roll) heard(w *worker) {
	if _, ok := c.awaited[w]; ok {
		delete(c.awaited, w)
		c.answered = true
	}
}

// AwaitAnswers begins to wait for the answers to a roll call with this spread, of all
// who are alive, in place of any that it waits for. It returns when it waits for all
// no longer, and whether there is anybody to wait for.
func (r *Registry) AwaitAnswers(now time.Time, spread time.Duration) (until time.Time, ok bool) {
	r.roll = roll{until: now.Add(spread + answerSlack), awaited: make(map[*worker]struct{})}
	for _, w := range r.sorted {
		if w.live == hivebeat.Alive {
			r.roll.awaited[w] = struct{}{}
		}
	}
	if len(r.roll.awaited) == 0 {
		r.roll = roll{}
	}
	return r.roll.until, !r.roll.until.IsZero()
}

// Answered reports, once for each AwaitAnswers, that there is something to tell of it:
// all who were awaited were heard, or the time is over and some were. Where none was
// by then the first one is awaited, as whoever was cut off too may take longer to
// come back.
func (r *Registry) Answered(now time.Time) bool {
	c := &r.roll
	if !c.answered || len(c.awaited) > 0 && now.Before(c.until) {
		return false
	}
	r.roll = roll{}
	return true
}
