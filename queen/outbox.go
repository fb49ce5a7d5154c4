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

// publishing publishes events, all at once, and returns the error of each.
type publishing func(context.Context, []hivebeat.Event) []error

// outbox publishes the events of workers: in order for one worker, and side by
// side for different ones. It never blocks who pushes. It is safe for concurrent
// use.
type outbox struct {
	subjects hivebeat.Subjects
	wake     chan struct{} // has one where there may be something to do

	mu      sync.Mutex
	publish publishing // nil while it is not possible
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
func (o *outbox) open(publish publishing) {
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
func (o *outbox) take(now time.Time) ([]fleet.Happened, publishing) {
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

// Who is told waits for who is heard: a snapshot that has no room is dropped, an
// event is only late. So a batch waits while hearing is behind, but not for ever.
const (
	yieldStep = 2 * time.Millisecond
	yieldMost = 100 * time.Millisecond
)

// yield waits while behind says that hearing is, for yieldMost at most.
func yield(ctx context.Context, behind func() bool) {
	for waited := time.Duration(0); waited < yieldMost && behind() && ctx.Err() == nil; waited += yieldStep {
		time.Sleep(yieldStep)
	}
}

// run publishes until ctx ends. failed gets the first error of a batch of which
// something could not be published; those events wait for the next try. behind
// reports whether this queen has to catch up with what it hears.
func (o *outbox) run(ctx context.Context, behind func() bool, failed func(error)) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-o.wake:
		}
		for {
			yield(ctx, behind)
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

// send publishes a batch, each worker's events in order: the first of each worker
// together, then the second of each whose first is stored, and so on. It returns
// how many went out, and those that are to be tried again.
func (o *outbox) send(ctx context.Context, batch []fleet.Happened, publish publishing) (int, []fleet.Happened, error) {
	type worker struct{ hive, id string }
	var (
		rounds [][]int // of indices in batch
		nth    = make(map[worker]int, len(batch))
		failed = make(map[worker]bool)
		again  = make([]bool, len(batch))
		count  int
		first  error
	)
	key := func(i int) worker { return worker{batch[i].Data.Hive, batch[i].Data.Worker} }
	for i := range batch {
		n := nth[key(i)]
		nth[key(i)]++
		if n == len(rounds) {
			rounds = append(rounds, nil)
		}
		rounds[n] = append(rounds[n], i)
	}
	for _, round := range rounds {
		events, of := make([]hivebeat.Event, 0, len(round)), make([]int, 0, len(round))
		for _, i := range round {
			if failed[key(i)] {
				again[i] = true
				continue
			}
			events = append(events, o.subjects.NewEvent(batch[i].ID, time.Now(), batch[i].Data))
			of = append(of, i)
		}
		if len(events) == 0 {
			continue
		}
		for k, err := range publish(ctx, events) {
			i := of[k]
			if err == nil || errors.Is(err, ledger.ErrTooOld) {
				count++
				continue
			}
			again[i], failed[key(i)] = true, true
			if first == nil {
				first = err
			}
		}
	}
	var back []fleet.Happened
	for i, a := range again {
		if a {
			back = append(back, batch[i])
		}
	}
	return count, back, first
}
