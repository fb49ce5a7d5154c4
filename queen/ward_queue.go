package queen

import "time"

// wardQueue holds the hives whose workers are to be heard, where very many are lost
// at once: a server takes in two subscriptions about as slowly as a whole event, and
// they would go before the events on the same connection. So after the first of them
// it is told for a second who is lost, and then the others follow. The last of 10,000
// is heard after 3.5 s; its workers have 5 s and the spread of their roll call, which
// is as long again, until one is lost. It is pure. The zero value is empty.
type wardQueue struct {
	waiting []string
	calls   map[string]time.Duration // rolls to be called once they are heard: the spread
	full    time.Time                // when the burst is whole again
	paused  bool                     // since the queue was empty last
}

const (
	wardsBurst = 64
	wardsPause = time.Second
	wardsPace  = time.Second / 4000
	wardsWake  = 10 * time.Millisecond // and then some are due together
)

func (w *wardQueue) push(id string) { w.waiting = append(w.waiting, id) }

// call has the roll of a hive called when its turn comes.
func (w *wardQueue) call(id string, spread time.Duration) {
	if w.calls == nil {
		w.calls = make(map[string]time.Duration)
	}
	w.calls[id] = spread
}

// pop returns the next one that may be heard now. spread is 0 where its roll is not
// to be called. took counts it.
func (w *wardQueue) pop(now time.Time) (id string, spread time.Duration, ok bool) {
	if len(w.waiting) == 0 {
		w.waiting, w.calls, w.paused = nil, nil, false // calls of hives that nobody waits for
		return "", 0, false
	}
	if w.full.Sub(now) > (wardsBurst-1)*wardsPace {
		if !w.paused {
			w.paused, w.full = true, w.full.Add(wardsPause)
		}
		return "", 0, false
	}
	id, w.waiting = w.waiting[0], w.waiting[1:]
	spread = w.calls[id]
	delete(w.calls, id)
	return id, spread, true
}

func (w *wardQueue) took(now time.Time) {
	if w.full.Before(now) {
		w.full = now
	}
	w.full = w.full.Add(wardsPace)
}

// next is when pop is to be called again; zero where nobody waits.
func (w *wardQueue) next(now time.Time) time.Time {
	if len(w.waiting) == 0 {
		return time.Time{}
	}
	return now.Add(wardsWake)
}
