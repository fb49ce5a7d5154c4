package fleet

import (
	"time"

	"github.com/beatfabric/hivebeat"
)

const (
	// OutboxMax is how many worker transitions wait while they can not be published.
	OutboxMax = 10_000
	// OutboxBatch is how many of them Take returns at most.
	OutboxBatch = 512
)

// Outbox holds the events of workers until they are published: of what waits the
// newest are kept, and what had to go becomes a gap. It is pure, and one goroutine
// at a time may use it.
type Outbox struct {
	queue     []Happened
	gaps      map[gapKey]*hivebeat.EventData // told before the queue: all that went is older
	busy      bool
	published uint64
	dropped   uint64
}

type gapKey struct {
	hive, worker string
	hiveInc      uint64
}

// Push adds events, and drops the oldest where they are too many.
func (o *Outbox) Push(list []Happened) {
	o.queue = append(o.queue, list...)
	if n := len(o.queue) - OutboxMax; n > 0 {
		for i := range o.queue[:n] {
			o.drop(&o.queue[i])
		}
		o.forget(n)
	}
}

// forget takes the first n out of the queue. They are not moved away: append does
// that when their room is used up, once in some thousand events.
func (o *Outbox) forget(n int) {
	clear(o.queue[:n]) // what they hold must not stay until then
	if o.queue = o.queue[n:]; len(o.queue) == 0 {
		o.queue = nil
	}
}

// drop turns an event into part of a gap.
func (o *Outbox) drop(h *Happened) {
	o.dropped++
	key := gapKey{h.Data.Hive, h.Data.Worker, h.Data.HiveInc}
	missing := max(1, h.Data.Missing)
	g := o.gaps[key]
	if g == nil {
		if len(o.gaps) >= OutboxMax {
			return // counted, and the worker's next event shows the hole in n
		}
		if o.gaps == nil {
			o.gaps = make(map[gapKey]*hivebeat.EventData)
		}
		g = &hivebeat.EventData{Hive: h.Data.Hive, Worker: h.Data.Worker, HiveInc: h.Data.HiveInc}
		o.gaps[key] = g
	}
	g.Inc, g.N, g.Model = h.Data.Inc, max(g.N, h.Data.N), h.Data.Model
	g.Missing += missing
}

// Take returns the next events to be published: those of one worker in order, one
// after the other. Done must follow before the next Take.
func (o *Outbox) Take(now time.Time) []Happened {
	old := 0
	for old < len(o.queue) && now.Sub(o.queue[old].At) > TooOld {
		o.drop(&o.queue[old])
		old++
	}
	o.forget(old)
	var batch []Happened
	for key, g := range o.gaps {
		delete(o.gaps, key)
		d := gapOf(*g)
		batch = append(batch, Happened{
			Data: d, At: now,
			ID: hivebeat.WorkerEventID(d.Hive, d.HiveInc, d.Worker, d.Inc, d.Kind, d.N),
		})
		if len(batch) == OutboxBatch {
			break
		}
	}
	n := min(OutboxBatch-len(batch), len(o.queue))
	batch = append(batch, o.queue[:n]...)
	o.forget(n)
	o.busy = len(batch) > 0
	return batch
}

// Done says how many of a batch were published, and returns what could not be to
// the front: failed is the outbox's from then on.
func (o *Outbox) Done(published int, failed []Happened) {
	o.published += uint64(published)
	if len(failed) > 0 {
		o.queue = append(failed, o.queue...)
	}
	o.busy = false
}

// Idle reports whether nothing waits and nothing is under way.
func (o *Outbox) Idle() bool { return !o.busy && len(o.queue) == 0 && len(o.gaps) == 0 }

// Counts returns how many events wait, and how many were published and dropped.
func (o *Outbox) Counts() (waiting int, published, dropped uint64) {
	return len(o.queue), o.published, o.dropped
}
