package ledger

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/beatfabric/hivebeat/internal/directive"
)

// Pauses of a watch between a failed read and the next.
const (
	watchFirst = 20 * time.Millisecond
	watchMost  = time.Second
)

// WatchRoster calls fn with every entry, and after that with every change, in order and
// from one goroutine at a time. It returns nil when ctx ends, or an error if the connection
// is closed for good. It resumes by itself after disconnects and restarts. If the bucket
// was lost and created again, it starts over with another Epoch, and does not report the
// entries that are gone. It does not create a missing bucket: that is Keep's work. An entry
// that a Publisher of this ledger put usually arrives as Own, without its content: its
// author knows it. It calls directives, unless that is nil, with what operators say about hives, in the same order.
func (l *Ledger) WatchRoster(ctx context.Context, fn func(hive string, item RosterItem), directives func(hive string, item directive.Item)) error {
	return l.watch(ctx, atRoster, func() {}, func(f found, epoch int64) {
		switch {
		case checkKey(f.key) != nil:
			if hive, ok := directive.HiveOf(f.key); ok && directives != nil {
				directives(hive, l.directives(f.message, hive, f.age, epoch))
			}
		case l.wrote.saw(f.key, f.seq, f.data):
			fn(f.key, RosterItem{Revision: f.seq, Epoch: epoch, Stored: f.age, Own: true})
		default:
			fn(f.key, l.item(f.message, f.key, f.age, epoch))
		}
	})
}

// watch reads a bucket until ctx ends. It calls recreated before it reads a bucket that was
// created again.
func (l *Ledger) watch(ctx context.Context, at int, recreated func(), fn func(f found, epoch int64)) error {
	status := l.nc.StatusChanged(nats.CONNECTED, nats.CLOSED)
	defer l.nc.RemoveStatusListener(status)
	r := new(reader)
	for pause := watchFirst; ; pause = min(2*pause, watchMost) {
		if l.nc.IsConnected() {
			before := *r
			err := r.read(ctx, l, at, false, func(f found) { fn(f, r.epoch) })
			if *r != before {
				pause = watchFirst
			}
			if ctx.Err() != nil {
				return nil
			}
			if errors.Is(err, errRenewed) {
				l.doubt()
				*r = reader{}
				recreated()
				continue
			}
			l.cfg.Logger.Debug("watch of a bucket interrupted", slog.String("bucket", l.bucketOf(at)), slog.Any("err", err))
		}
		if l.nc.IsClosed() {
			return fmt.Errorf("ledger: %w", nats.ErrConnectionClosed)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-status:
			pause = watchFirst
		case <-time.After(pause):
		}
	}
}
