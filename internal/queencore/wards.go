package queencore

import (
	"log/slog"
	"time"

	"github.com/beatfabric/hivebeat/internal/fleet"
)

// How a queen listens for the workers of hives that were lost (internal/fleet adopts
// and judges them).

// wards are the hives whose workers' beats this queen receives, and those that wait
// for it. A server takes in two subscriptions about as slowly as a whole event, and
// where very many hives are lost at once the subscriptions would go before the events
// on the same connection. So after the first wardsBurst of them the queen tells for
// wardsPause who is lost, and then the others follow. The last of 10,000 hives is
// heard after 3.5 s; its workers have 5 s and the spread of their roll call, which is
// as long again, until one is lost.
type wards struct {
	heard   map[string]bool
	waiting []string
	calls   map[string]time.Duration // rolls to be called once they are heard: the spread
	full    time.Time                // when the burst is whole again
	paused  bool                     // since nobody waited last
}

const (
	wardsBurst = 64
	wardsPause = time.Second
	wardsPace  = time.Second / 4000
	wardsWake  = 10 * time.Millisecond // and then some are due together
)

// listen follows which hives' workers are to be heard, and passes roll calls on: a
// hive whose workers are not heard yet is called when they are.
func (c *Core) listen(r *fleet.Ready, now time.Time) {
	w := &c.wards
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
	c.listenMore(now) // before those that are called now
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

// listenMore listens for those whose turn it is. It returns when it has more to do;
// zero is not before something else happens.
func (c *Core) listenMore(now time.Time) (next time.Time) {
	w := &c.wards
	for {
		if len(w.waiting) == 0 {
			w.waiting, w.paused = nil, false
			for id := range w.calls { // of hives that nobody waits for
				if !w.heard[id] {
					delete(w.calls, id)
				}
			}
			return time.Time{}
		}
		if w.full.Sub(now) > (wardsBurst-1)*wardsPace {
			if !w.paused {
				w.paused, w.full = true, w.full.Add(wardsPause)
			}
			return now.Add(wardsWake)
		}
		id := w.waiting[0]
		w.waiting = w.waiting[1:]
		spread := w.calls[id]
		delete(w.calls, id)
		if w.heard[id] || !c.view.Adopted(id) {
			continue // it came and went, and came
		}
		if w.full.Before(now) {
			w.full = now
		}
		w.full = w.full.Add(wardsPace)
		w.heard[id] = true
		c.ready.Listen = append(c.ready.Listen, id)
		c.ready.Logs.Add(slog.LevelInfo, "hears the workers of a hive that was lost", slog.String("hive", id))
		if spread > 0 {
			c.ready.Calls = append(c.ready.Calls, fleet.RollCall{Hive: id, Workers: true, Spread: spread})
		}
	}
}
