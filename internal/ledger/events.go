package ledger

import (
	"context"
	"errors"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/beatfabric/hivebeat"
)

const eventsFetch = 500

// EventsHeld returns the sequence numbers of the oldest and the newest event in the stream.
// newest is 0 if the stream never held an event. Its errors are those of Open.
func (l *Ledger) EventsHeld(ctx context.Context) (oldest, newest uint64, err error) {
	ctx, cancel := context.WithTimeout(ctx, l.cfg.Timeout)
	defer cancel()
	name := l.cfg.Subjects.Stream(hivebeat.StreamEvents)
	info, err := l.info(ctx, name)
	if err != nil {
		return 0, 0, wrap(ctx, human(name), err)
	}
	return info.State.FirstSeq, info.State.LastSeq, nil
}

// EachEvent calls fn with the events in the stream that have sequence numbers from through
// to, oldest first. If hive is set, it selects the events of that hive and its workers; if
// worker is set too, those of the worker. fn may keep body. An error usually wraps ErrAway;
// fn may have been called before it.
func (l *Ledger) EachEvent(ctx context.Context, from, to uint64, hive, worker string, fn func(seq uint64, body []byte)) error {
	name := l.cfg.Subjects.Stream(hivebeat.StreamEvents)
	what := "read " + human(name)
	if from > to {
		return nil
	}
	ctx, cancel := l.whileConnected(ctx)
	defer cancel()
	cons, err := l.js.CreateConsumer(ctx, name, jetstream.ConsumerConfig{
		DeliverPolicy:     jetstream.DeliverByStartSequencePolicy,
		OptStartSeq:       max(1, from),
		FilterSubject:     l.cfg.Subjects.EventLogsOf(hive, worker),
		AckPolicy:         jetstream.AckNonePolicy,
		MemoryStorage:     true,
		Replicas:          1,
		InactiveThreshold: readIdle,
	})
	if err != nil {
		return wrap(ctx, what, err)
	}
	defer l.forget(name, cons.CachedInfo().Name)
	for left := cons.CachedInfo().NumPending; left > 0; {
		n, over, err := l.fetchEvents(ctx, cons, int(min(left, eventsFetch)), to, &left, fn)
		switch {
		case err != nil:
			return wrap(ctx, what, err)
		case over, n == 0: // n == 0: the pending events were removed meanwhile
			return nil
		}
	}
	return nil
}

// fetchEvents fetches up to most events. It returns how many it received, and whether it
// has passed the sequence number to.
func (l *Ledger) fetchEvents(ctx context.Context, cons jetstream.Consumer, most int, to uint64, left *uint64, fn func(uint64, []byte)) (n int, over bool, err error) {
	fctx, cancel := context.WithTimeout(ctx, l.cfg.Timeout)
	defer cancel()
	batch, err := cons.Fetch(most, jetstream.FetchContext(fctx))
	if err != nil {
		return 0, false, err
	}
	for m := range batch.Messages() {
		meta, err := m.Metadata()
		if err != nil {
			return n, false, err
		}
		n++
		if *left = meta.NumPending; meta.Sequence.Stream > to {
			over = true
			continue // the rest of the batch must still be read
		}
		fn(meta.Sequence.Stream, m.Data())
	}
	if ctx.Err() != nil {
		return n, over, context.Cause(ctx)
	}
	if err := batch.Error(); err != nil && !errors.Is(err, context.DeadlineExceeded) {
		return n, over, err
	}
	return n, over, nil
}
