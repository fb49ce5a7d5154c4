package queen

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/nats-io/nats.go"
)

// link is what the loop knows of its connection to NATS.
type link struct {
	status chan nats.Status
	heard  time.Time // when the last message came
	up     time.Time // since when there is a connection
	since  time.Time // since when there is none; zero while there is one
	from   time.Time // since when nothing could be heard
}

func (l *link) watch(nc *nats.Conn) {
	l.status = nc.StatusChanged(nats.CONNECTED, nats.RECONNECTING, nats.DISCONNECTED, nats.CLOSED)
}

func (l *link) isCut() bool { return !l.since.IsZero() }

// cut notes that the connection is gone. unnoticed is how long it may have been
// dead before that was seen; whatever was heard in that time narrows it down.
func (l *link) cut(now time.Time, unnoticed time.Duration) {
	l.since, l.from = now, latest(l.heard, now.Add(-unnoticed))
}

// restore notes that the connection is there, and returns how long nothing could
// be heard: the simple, conservative form of the observer's doubt in itself.
func (l *link) restore(now time.Time) (blind time.Duration) {
	blind = now.Sub(l.from)
	l.since, l.up = time.Time{}, now
	return blind
}

// unnoticed returns how long a connection may be dead before nats.go sees it.
func unnoticed(nc *nats.Conn) time.Duration {
	return nc.Opts.PingInterval * time.Duration(nc.Opts.MaxPingsOut+1)
}

// statusChanged follows the connection. A change that got lost on the way is seen
// by the next: what the connection says of itself counts.
func (q *Queen) statusChanged(work context.Context, _ nats.Status, now time.Time) {
	connected := q.nc.IsConnected()
	switch {
	case q.nc.IsClosed():
		q.fatal = fmt.Errorf("queen: the connection it was given is closed: %w", nats.ErrConnectionClosed)
	case connected && q.conn.isCut():
		away, first := now.Sub(q.conn.since), q.conn.up.IsZero()
		blind := q.conn.restore(now)
		q.view.BlindFor(blind)
		if first {
			q.log.Info("NATS is there", slog.Duration("after", away))
		} else {
			q.log.Info("NATS is back", slog.Duration("after", away), slog.Duration("blind", blind))
		}
		q.cold.connected(now)
		if q.cfg.NoJetStream || !first {
			q.callAll(now)
		}
		if q.cfg.NoJetStream {
			q.openStraight()
		}
		q.startAnnouncements(work, now)
	case !connected && !q.conn.isCut():
		q.conn.cut(now, unnoticed(q.nc))
		q.log.Warn("NATS is away: no hive is judged until it is back", slog.String("status", q.nc.Status().String()))
		if q.cfg.NoJetStream {
			q.out.open(nil)
		}
	}
}

func latest(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}
