package ledger

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/beatfabric/hivebeat"
)

const (
	eventsFetch = 500
	eventsWait  = 2 * time.Second
)

// EventsHeld returns the sequence numbers of the oldest and the newest event in the
// stream; newest is 0 where there never was one. Its errors are those of Open.
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

// EachEvent calls fn with the events in the stream whose sequence numbers are from
// and to, or between them, oldest first: those of a hive and its workers, or of one
// of them, where they are named. body is fn's to keep. On an error, which wraps
// ErrAway as a rule, it may have seen some.
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
		batch, err := cons.Fetch(int(min(left, eventsFetch)), jetstream.FetchMaxWait(eventsWait), jetstream.FetchContext(ctx))
		if err != nil {
			return wrap(ctx, what, err)
		}
		n := 0
		for m := range batch.Messages() {
			meta, err := m.Metadata()
			if err != nil {
				return fmt.Errorf("ledger: %s: %w", what, err)
			}
			n++
			if left = meta.NumPending; meta.Sequence.Stream > to {
				return nil
			}
			fn(meta.Sequence.Stream, m.Data())
		}
		switch err := batch.Error(); {
		case err != nil && !errors.Is(err, context.DeadlineExceeded):
			return wrap(ctx, what, err)
		case ctx.Err() != nil:
			return wrap(ctx, what, context.Cause(ctx))
		case n == 0: // what was pending was removed since
			return nil
		}
	}
	return nil
}
