package queen

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/beatfabric/hivebeat"
	"github.com/beatfabric/hivebeat/internal/ledger"
)

const (
	outboxMax   = 10_000 // worker transitions that wait while they can not be published
	outboxBatch = 256    // taken at once
	outboxLanes = 16     // published at once
)

// outbox holds the events of workers until they are published: in order for one
// worker, and side by side for different ones. It never blocks who pushes: of what
// waits the newest are kept, and what had to go becomes a gap. It is safe for
// concurrent use.
type outbox struct {
	subjects hivebeat.Subjects
	wake     chan struct{} // has one where there may be something to do

	mu        sync.Mutex
	publish   func(context.Context, hivebeat.Event) error // nil while it is not possible
	queue     []happened
	gaps      map[gapKey]*hivebeat.EventData // told before the queue: all that went is older
	busy      bool
	published uint64
	dropped   uint64
}

type gapKey struct {
	hive, worker string
	hiveInc      uint64
}

func newOutbox(s hivebeat.Subjects) *outbox {
	return &outbox{subjects: s, wake: make(chan struct{}, 1), gaps: make(map[gapKey]*hivebeat.EventData)}
}

func (o *outbox) signal() {
	select {
	case o.wake <- struct{}{}:
	default:
	}
}

// open lets events out by publish; nil holds them back.
func (o *outbox) open(publish func(context.Context, hivebeat.Event) error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.publish = publish
	o.signal()
}

// push adds events, and drops the oldest where they are too many.
func (o *outbox) push(list []happened) {
	if len(list) == 0 {
		return
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	o.queue = append(o.queue, list...)
	if n := len(o.queue) - outboxMax; n > 0 {
		for i := range o.queue[:n] {
			o.drop(&o.queue[i])
		}
		o.queue = append(o.queue[:0:0], o.queue[n:]...)
	}
	o.signal()
}

// drop turns an event into part of a gap. The lock is held.
func (o *outbox) drop(h *happened) {
	o.dropped++
	key := gapKey{h.data.Hive, h.data.Worker, h.data.HiveInc}
	missing := max(1, h.data.Missing)
	g := o.gaps[key]
	if g == nil {
		if len(o.gaps) >= outboxMax {
			return // counted, and the worker's next event shows the hole in n
		}
		g = &hivebeat.EventData{Hive: h.data.Hive, Worker: h.data.Worker, HiveInc: h.data.HiveInc}
		o.gaps[key] = g
	}
	g.Inc, g.N, g.Model = h.data.Inc, max(g.N, h.data.N), h.data.Model
	g.Missing += missing
}

// take returns the next events to be published, and how. It returns none where
// that is not possible now.
func (o *outbox) take(now time.Time) ([]happened, func(context.Context, hivebeat.Event) error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.publish == nil {
		return nil, nil
	}
	old := 0
	for old < len(o.queue) && now.Sub(o.queue[old].at) > tooOld {
		o.drop(&o.queue[old])
		old++
	}
	o.queue = o.queue[old:]
	var batch []happened
	for key, g := range o.gaps {
		delete(o.gaps, key)
		d := gapOf(*g)
		batch = append(batch, happened{
			data: d, at: now,
			id: hivebeat.WorkerEventID(d.Hive, d.HiveInc, d.Worker, d.Inc, d.Kind, d.N),
		})
		if len(batch) == outboxBatch {
			break
		}
	}
	n := min(outboxBatch-len(batch), len(o.queue))
	batch = append(batch, o.queue[:n]...)
	o.queue = o.queue[n:]
	o.busy = len(batch) > 0
	return batch, o.publish
}

// done returns what could not be published to the front.
func (o *outbox) done(published int, failed []happened) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.published += uint64(published)
	o.queue = append(failed, o.queue...)
	o.busy = false
}

// idle reports whether nothing waits that could go out now.
func (o *outbox) idle() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.publish == nil || !o.busy && len(o.queue) == 0 && len(o.gaps) == 0
}

func (o *outbox) counts() (waiting int, published, dropped uint64) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return len(o.queue), o.published, o.dropped
}

// run publishes until ctx ends. failed gets the first error of a batch of which
// something could not be published; those events wait for the next try.
func (o *outbox) run(ctx context.Context, failed func(error)) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-o.wake:
		}
		for {
			batch, publish := o.take(time.Now())
			if len(batch) == 0 {
				break
			}
			n, back, err := o.send(ctx, batch, publish)
			o.done(n, back)
			if err != nil {
				if ctx.Err() == nil {
					failed(err)
				}
				select {
				case <-ctx.Done():
					return
				case <-time.After(time.Second):
				}
			}
		}
	}
}

// send publishes a batch, each worker's events in order. It returns how many
// went out, and those that are to be tried again.
func (o *outbox) send(ctx context.Context, batch []happened, publish func(context.Context, hivebeat.Event) error) (int, []happened, error) {
	type lane struct{ at []int }
	byWorker := make(map[gapKey]*lane)
	var lanes []*lane
	for i := range batch {
		key := gapKey{hive: batch[i].data.Hive, worker: batch[i].data.Worker}
		l := byWorker[key]
		if l == nil {
			l = &lane{}
			byWorker[key] = l
			lanes = append(lanes, l)
		}
		l.at = append(l.at, i)
	}
	var (
		wg    sync.WaitGroup
		mu    sync.Mutex
		next  int
		count int
		first error
		again = make([]bool, len(batch))
	)
	for range min(outboxLanes, len(lanes)) {
		wg.Go(func() {
			for {
				mu.Lock()
				if next == len(lanes) {
					mu.Unlock()
					return
				}
				l := lanes[next]
				next++
				mu.Unlock()
				n, err := o.sendLane(ctx, batch, l.at, publish)
				mu.Lock()
				count += n
				if err != nil {
					if first == nil {
						first = err
					}
					for _, i := range l.at[n:] {
						again[i] = true
					}
				}
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	var back []happened
	for i, a := range again {
		if a {
			back = append(back, batch[i])
		}
	}
	return count, back, first
}

// sendLane publishes one worker's events. It returns how many of them are done
// with: published, or refused for good.
func (o *outbox) sendLane(ctx context.Context, batch []happened, at []int, publish func(context.Context, hivebeat.Event) error) (int, error) {
	for n, i := range at {
		ev := o.subjects.NewEvent(batch[i].id, time.Now(), batch[i].data)
		if err := publish(ctx, ev); err != nil && !errors.Is(err, ledger.ErrTooOld) {
			return n, err
		}
	}
	return len(at), nil
}
