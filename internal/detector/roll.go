package detector

import (
	"time"

	"github.com/beatfabric/hivebeat"
)

// answerSlack is how long after the spread of a roll call an answer may still be in
// flight.
const answerSlack = 250 * time.Millisecond

// roll is a roll call that waits for answers. The zero value waits for none.
type roll struct {
	until    time.Time            // end of the wait for all answers; zero: no wait
	awaited  map[*worker]struct{} // alive at the call, and not heard since
	answered bool                 // at least one worker answered
}

// heard records an answer.
func (c *roll) heard(w *worker) {
	if _, ok := c.awaited[w]; ok {
		delete(c.awaited, w)
		c.answered = true
	}
}

// AwaitAnswers starts to wait for the answers of all alive workers to a roll call with
// this spread, in place of any earlier wait. It returns when the wait for all of them
// ends, and whether there is any worker to wait for.
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

// Answered reports, once for each AwaitAnswers, that its answers can be used: all
// awaited workers were heard, or the time is over and some were. If none answered in
// time, it waits for the first answer, as workers that were cut off too may take longer
// to come back.
func (r *Registry) Answered(now time.Time) bool {
	c := &r.roll
	if !c.answered || len(c.awaited) > 0 && now.Before(c.until) {
		return false
	}
	r.roll = roll{}
	return true
}
