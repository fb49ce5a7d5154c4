package queen

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/beatfabric/hivebeat"
	"github.com/beatfabric/hivebeat/internal/core"
	"github.com/beatfabric/hivebeat/internal/queencore"
)

// housekeepEvery is how often the loop maintains what only queries need.
const housekeepEvery = 250 * time.Millisecond

// loop owns the core. It takes one kind of input at a time and sends whatever follows
// from it without waiting.
func (q *Queen) loop(ctx, work context.Context) {
	q.timer = time.NewTimer(0)
	defer q.timer.Stop()
	stop, stopping, left := ctx.Done(), (<-chan struct{})(q.stopping), make(chan struct{})
	leave := func() {
		stop, stopping = nil, nil
		q.core.Leave()
		close(q.leaving)
		svc := q.service
		if !q.core.Warm() { // no request was accepted yet
			svc = nil
		}
		q.wg.Go(func() { q.leave(work, svc); close(left) })
	}
	for q.fatal == nil {
		select {
		case m := <-q.msgs:
			q.receive(m, q.msgs, q.snapshot)
		case m := <-q.adopted.beats:
			q.receive(m, q.adopted.beats, q.beat)
		case f := <-q.calls:
			q.catchUp()
			now := time.Now()
			q.core.Look(now)
			f(now)
		case e := <-q.link.Events():
			q.catchUp()
			e.Feed(time.Now(), uint64(q.countDropped()), q.core)
		case <-q.timer.C:
			q.wake = time.Time{}
			q.link.Look()
			q.catchUp()
			q.tick(time.Now())
		case <-stop:
			leave()
		case <-stopping:
			leave()
		case <-left:
			return
		}
		q.turn(work)
	}
}

// receive handles a message and a batch of the messages behind it.
func (q *Queen) receive(m *nats.Msg, from <-chan *nats.Msg, handle func(time.Time, *nats.Msg)) {
	now := time.Now()
	handle(now, m)
	for range min(len(from), core.Batch-1) {
		handle(now, <-from)
	}
}

// catchUp handles the messages that are already waiting, so that every answer and every
// verdict is based on all messages received so far.
func (q *Queen) catchUp() {
	now := time.Now()
	for range len(q.adopted.beats) {
		q.beat(now, <-q.adopted.beats)
	}
	for range len(q.msgs) {
		q.snapshot(now, <-q.msgs)
	}
}

func (q *Queen) snapshot(now time.Time, m *nats.Msg) {
	if m.Subject == q.subjects.Peers() {
		q.core.Peer(now, m.Data)
		return
	}
	pinned, err := q.subjects.ParseHives(m.Subject)
	if err != nil {
		q.core.Refuse(now, m.Subject, &hivebeat.Refusal{Reason: hivebeat.RefusedForeign, Key: "hive", Detail: err.Error()})
		return
	}
	q.core.Snapshot(now, pinned, m.Data)
}

func (q *Queen) beat(now time.Time, m *nats.Msg) {
	hive, worker, err := q.subjects.ParseWorkers(m.Subject)
	if err != nil {
		return // the queen subscribes to nothing else
	}
	q.core.Beat(now, hive, worker, m.Data)
}

// tick advances the core to now and does the housekeeping when it is due.
func (q *Queen) tick(now time.Time) {
	q.core.Tick(now, uint64(q.countDropped()))
	if now.Sub(q.kept) >= housekeepEvery {
		q.kept = now
		q.countMissedEvents()
		q.holds.Expire(q.view.Index(), now)
		q.directives.Expire(q.view.Index(), now)
		q.history.Sample(q.view.Index(), q.core.Warm() && q.core.Hearing().Connected(), now)
	}
}

// turn performs what the core asks for after an input.
func (q *Queen) turn(work context.Context) {
	for again := true; again; {
		if q.core.Due(time.Now()) {
			q.catchUp()
		}
		now := time.Now()
		r := q.core.Ready(now)
		again = q.perform(work, r, now)
		if r.Err != nil {
			q.fatal = r.Err
			if errors.Is(r.Err, queencore.ErrClosed) {
				q.fatal = fmt.Errorf("queen: %w: %w", r.Err, nats.ErrConnectionClosed)
			}
			return
		}
		if q.wake.IsZero() || r.Wake.Before(q.wake) {
			q.wake = r.Wake
			q.timer.Reset(max(0, r.Wake.Sub(now)))
		}
	}
	q.wakeWatchers()
}

// leave shuts the queen down in order, beside the loop: it answers the requests that
// came in and waits until the events that wait are published, for at most lastWords.
func (q *Queen) leave(work context.Context, svc *service) {
	ctx, cancel := context.WithTimeout(work, lastWords)
	defer cancel()
	if svc != nil {
		svc.drain(ctx)
	}
	for {
		idle := false
		if q.do(ctx, func(time.Time) { idle = q.core.Idle() }) != nil || idle {
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(5 * time.Millisecond):
		}
	}
}
