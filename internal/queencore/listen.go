package queencore

import (
	"log/slog"
	"time"

	"github.com/beatfabric/hivebeat/internal/fleet"
)

// How a queen listens for the workers of hives that were lost (internal/fleet adopts and
// judges them).

// listening tracks the hives whose workers this queen listens for, and the hives that wait for their
// subscriptions. A server handles two subscriptions about as slowly as a whole event. If very many
// hives are lost at once, the subscriptions would go before the events on the same
// connection. So after the first listenBurst hives the queen only announces lost hives for
// listenPause, and the other subscriptions follow. The last of 10,000 hives is heard after
// 3.5 s. Its workers have 5 s and the spread of their roll call, another 5 s, until one is
// lost.
type listening struct {
	heard   map[string]bool
	waiting []string
	calls   map[string]time.Duration // spread of the roll calls to send once they are heard
	full    time.Time                // when the burst is available in full again
	paused  bool                     // the pause was taken since the queue was last empty
}

const (
	listenBurst = 64
	listenPause = time.Second
	listenPace  = time.Second / 4000
	listenWake  = 10 * time.Millisecond // so that some are due together
)

// listen tracks the hives whose workers must be heard, and passes roll calls on: a hive
// whose workers are not heard yet is called once they are.
func (c *Core) listen(r *fleet.Ready, now time.Time) {
	w := &c.listening
	for _, id := range r.Adoptions {
		switch adopted := c.view.Adopted(id); {
		case adopted && !w.heard[id]:
			w.waiting = append(w.waiting, id)
		case !adopted && w.heard[id]:
			delete(w.heard, id)
			c.ready.Unlisten = append(c.ready.Unlisten, id)
			c.ready.Logs.Add(slog.LevelInfo, "a hive judges its workers again, or is gone", slog.String("hive", id))
		}
	}
	c.listenMore(now) // before the hives that are called now
	for _, call := range r.Calls {
		if !call.Workers || w.heard[call.Hive] {
			c.ready.Calls = append(c.ready.Calls, call)
			continue
		}
		if w.calls == nil {
			w.calls = make(map[string]time.Duration)
		}
		w.calls[call.Hive] = call.Spread
	}
}

// listenMore listens for the workers of the hives whose turn it is. It returns when it has
// more to do; zero means not before something else happens.
func (c *Core) listenMore(now time.Time) (next time.Time) {
	w := &c.listening
	for {
		if len(w.waiting) == 0 {
			w.waiting, w.paused = nil, false
			for id := range w.calls { // hives that no longer wait
				if !w.heard[id] {
					delete(w.calls, id)
				}
			}
			return time.Time{}
		}
		if w.full.Sub(now) > (listenBurst-1)*listenPace {
			if !w.paused {
				w.paused, w.full = true, w.full.Add(listenPause)
			}
			return now.Add(listenWake)
		}
		id := w.waiting[0]
		w.waiting = w.waiting[1:]
		spread := w.calls[id]
		delete(w.calls, id)
		if w.heard[id] || !c.view.Adopted(id) {
			continue // its adoption ended or was repeated meanwhile
		}
		if w.full.Before(now) {
			w.full = now
		}
		w.full = w.full.Add(listenPace)
		w.heard[id] = true
		c.ready.Listen = append(c.ready.Listen, id)
		c.ready.Logs.Add(slog.LevelInfo, "hears the workers of a hive that was lost", slog.String("hive", id))
		if spread > 0 {
			c.ready.Calls = append(c.ready.Calls, fleet.RollCall{Hive: id, Workers: true, Spread: spread})
		}
	}
}
