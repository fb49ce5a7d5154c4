package ledger

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/nats-io/nats.go"
)

// Pauses of a watch between a failed read and the next.
const (
	watchFirst = 20 * time.Millisecond
	watchMost  = time.Second
)

// WatchRoster calls fn with every entry there is, and then with every change, in
// order and from one goroutine at a time, until ctx ends: then it returns nil, or
// the error that the connection is closed for good. It goes on by itself after
// cuts and restarts. Where the bucket was lost and made again it begins anew,
// with another Epoch; nothing is said of the entries that are gone. It does not
// make a bucket that is missing: that is Keep's work.
func (l *Ledger) WatchRoster(ctx context.Context, fn func(hive string, item RosterItem)) error {
	return l.watch(ctx, atRoster, func() {}, func(f found, epoch int64) {
		if checkKey(f.key) == nil {
			fn(f.key, l.item(f.message, f.key, f.age, epoch))
		}
	})
}

// watch reads a bucket for as long as ctx lives. anew is called before one that is
// another than before is read.
func (l *Ledger) watch(ctx context.Context, at int, anew func(), fn func(f found, epoch int64)) error {
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
				anew()
				continue
			}
			l.cfg.Logger.Debug("watch of a bucket interrupted", slog.String("bucket", l.bucketOf(at)), slog.Any("cause", err))
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
