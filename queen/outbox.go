package queen

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/beatfabric/hivebeat"
	"github.com/beatfabric/hivebeat/internal/fleet"
	"github.com/beatfabric/hivebeat/internal/ledger"
)

// outboxLanes is how many workers are published at once: each waits for a round
// trip, and ten thousand that die together are to be told within 2 s.
const outboxLanes = 256

// outbox publishes the events of workers: in order for one worker, and side by
// side for different ones. It never blocks who pushes. It is safe for concurrent
// use.
type outbox struct {
	subjects hivebeat.Subjects
	wake     chan struct{} // has one where there may be something to do

	mu      sync.Mutex
	publish func(context.Context, hivebeat.Event) error // nil while it is not possible
	waiting fleet.Outbox
}

func newOutbox(s hivebeat.Subjects) *outbox {
	return &outbox{subjects: s, wake: make(chan struct{}, 1)}
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

func (o *outbox) push(list []fleet.Happened) {
	if len(list) == 0 {
		return
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	o.waiting.Push(list)
	o.signal()
}

// take returns the next events to be published, and how. It returns none where
// that is not possible now.
func (o *outbox) take(now time.Time) ([]fleet.Happened, func(context.Context, hivebeat.Event) error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.publish == nil {
		return nil, nil
	}
	return o.waiting.Take(now), o.publish
}

// done returns what could not be published to the front.
func (o *outbox) done(published int, failed []fleet.Happened) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.waiting.Done(published, failed)
}

// idle reports whether nothing waits that could go out now.
func (o *outbox) idle() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.publish == nil || o.waiting.Idle()
}

func (o *outbox) counts() (waiting int, published, dropped uint64) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.waiting.Counts()
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
func (o *outbox) send(ctx context.Context, batch []fleet.Happened, publish func(context.Context, hivebeat.Event) error) (int, []fleet.Happened, error) {
	type lane struct{ at []int }
	type worker struct{ hive, id string }
	byWorker := make(map[worker]*lane)
	var lanes []*lane
	for i := range batch {
		key := worker{batch[i].Data.Hive, batch[i].Data.Worker}
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
	var back []fleet.Happened
	for i, a := range again {
		if a {
			back = append(back, batch[i])
		}
	}
	return count, back, first
}

// sendLane publishes one worker's events. It returns how many of them are done
// with: published, or refused for good.
func (o *outbox) sendLane(ctx context.Context, batch []fleet.Happened, at []int, publish func(context.Context, hivebeat.Event) error) (int, error) {
	for n, i := range at {
		ev := o.subjects.NewEvent(batch[i].ID, time.Now(), batch[i].Data)
		if err := publish(ctx, ev); err != nil && !errors.Is(err, ledger.ErrTooOld) {
			return n, err
		}
	}
	return len(at), nil
}
