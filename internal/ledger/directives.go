package ledger

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/beatfabric/hivebeat"
	"github.com/beatfabric/hivebeat/internal/directive"
)

// Directives reads what operators have said about a hive, from the leader of the stream.
func (l *Ledger) Directives(ctx context.Context, hive string) (directive.Item, error) {
	if err := hivebeat.CheckID("hive", hive); err != nil {
		return directive.Item{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, l.cfg.Timeout)
	defer cancel()
	what := "directives of " + hive
	asked := time.Now()
	info, err := l.info(ctx, bucketStream(l.bucketOf(atRoster)))
	if err != nil {
		return directive.Item{}, wrap(ctx, what, err)
	}
	m, err := l.last(ctx, atRoster, directive.Key(hive), true)
	if err != nil {
		return directive.Item{}, wrap(ctx, what, err)
	}
	return l.directives(m, hive, max(0, info.TimeStamp.Add(time.Since(asked)).Sub(m.stored)), info.Created.UnixNano()), nil
}

func (l *Ledger) directives(m message, hive string, age time.Duration, epoch int64) directive.Item {
	item := directive.Item{Revision: m.seq, Epoch: epoch, Stored: age, Gone: m.seq == 0 || isMarker(m.header)}
	if item.Gone {
		return item
	}
	e, err := directive.Decode(m.data)
	if err != nil {
		l.cfg.Logger.Warn("cannot decode what operators said about a hive: what was known of it stays in force", slog.String("hive", hive), slog.Any("err", err))
		item.Bad = true
		return item
	}
	item.Entry = e
	return item
}

// RemoveRoster removes the entry of a hive that was read at revision. ErrConflict: another queen has put it since, and
// it was not removed.
func (l *Ledger) RemoveRoster(ctx context.Context, hive string, revision uint64) error {
	if err := hivebeat.CheckID("hive", hive); err != nil {
		return err
	}
	_, err := l.put(ctx, hive, revision, nil, nats.Header{kvOperation: {"DEL"}})
	return err
}

// removedFor is how long the marker of a removed snapshot stays in the bucket.
const removedFor = time.Minute

// RemoveSnapshot removes the last snapshot of a hive, of so many pages, from the bucket of hives.
func (l *Ledger) RemoveSnapshot(ctx context.Context, hive string, pages uint64) error {
	if err := hivebeat.CheckID("hive", hive); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, l.cfg.Timeout)
	defer cancel()
	for page := range min(max(1, pages), hivebeat.MaxPages) {
		m := &nats.Msg{
			Subject: l.subject(atHives, Snapshot{Hive: hive, Page: page}.key()),
			Header:  nats.Header{kvOperation: {"DEL"}, jetstream.MsgTTLHeader: {removedFor.String()}},
		}
		if _, err := l.publish(ctx, m, jetstream.WithRetryAttempts(0)); err != nil {
			return wrap(ctx, "remove the snapshot of "+hive, err)
		}
	}
	return nil
}

// PutDirectives replaces the entry of a hive that was read at revision, and returns the new revision. ErrConflict:
// another queen was first, and e was not written. ErrAway: it may have been written all the same.
func (l *Ledger) PutDirectives(ctx context.Context, hive string, revision uint64, e directive.Entry) (uint64, error) {
	if err := hivebeat.CheckID("hive", hive); err != nil {
		return 0, err
	}
	body, err := e.Encode()
	if err != nil {
		return 0, fmt.Errorf("ledger: %w", err)
	}
	key := directive.Key(hive)
	seq, err := l.put(ctx, key, revision, body, nil)
	if revision == 0 && errors.Is(err, ErrConflict) {
		return l.overMarker(ctx, key, body, err)
	}
	return seq, err
}
