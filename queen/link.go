package queen

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/beatfabric/hivebeat/internal/liveness"
)

// link is what the loop knows of its connection to NATS, and of its own hearing:
// a queen doubts itself before the hives (liveness.Observer). While it does,
// nobody is judged, what it reads counts as heard when the doubt began, and goes
// into no bucket (fleet.View.Doubt).
//
// The token is a PING of NATS. Its PONG comes back in the one stream in which the
// snapshots come: what the server had for this queen before is in the channel by
// then, and is read first. It needs no permission and no subject, and can not be
// dropped where the channel is full.
type link struct {
	status chan nats.Status
	sight  liveness.Observer
	up     time.Time // since when there is a connection
	since  time.Time // since when there is none; zero while there is one
	roll   bool      // the roll is to be called when the doubt is over
}

// tokenWithin bounds the wait for one token.
const tokenWithin = 10 * time.Second

func (l *link) watch(nc *nats.Conn) {
	l.status = nc.StatusChanged(nats.CONNECTED, nats.RECONNECTING, nats.DISCONNECTED, nats.CLOSED)
}

func (l *link) isCut() bool { return !l.since.IsZero() }

// unnoticed returns how long a connection may be dead before nats.go sees it.
func unnoticed(nc *nats.Conn) time.Duration {
	return nc.Opts.PingInterval * time.Duration(nc.Opts.MaxPingsOut+1)
}

// now begins every turn of the loop: was this queen stopped or starved?
func (q *Queen) now() time.Time {
	now := time.Now()
	if paused := q.conn.sight.Look(now); paused > 0 {
		q.log.Warn("this queen was stopped or starved: what it hears now may be as old, and nobody is judged until that is known",
			slog.Duration("paused", paused))
		q.conn.roll = true
		q.doubt()
	}
	return now
}

// doubt tells the view since when what it is fed may have waited.
func (q *Queen) doubt() {
	if since, ok := q.conn.sight.Doubts(); ok {
		q.view.Doubt(since)
	}
}

// sendToken sends the token that is due, if there is one.
func (q *Queen) sendToken(work context.Context, now time.Time) {
	token, ok := q.conn.sight.Token(now)
	q.doubt() // where the one before did not come back
	if !ok {
		return
	}
	q.wg.Go(func() {
		ctx, cancel := context.WithTimeout(work, tokenWithin)
		defer cancel()
		if q.nc.FlushWithContext(ctx) != nil {
			return // the next one is sent in a while, or once NATS is back
		}
		_ = q.post(work, func(now time.Time) { q.tokenBack(token, now) })
	})
}

// tokenBack ends the doubt: the loop has read all that came before the token.
func (q *Queen) tokenBack(token uint64, now time.Time) {
	q.countDrops(now)
	blind, ok := q.conn.sight.Back(now, token)
	if !ok {
		return
	}
	q.view.BlindFor(blind)
	q.wake = time.Time{} // all deadlines are others now
	if q.conn.roll {     // not for what was dropped: the answers would come on top
		q.conn.roll = false
		q.log.Info("this queen hears again, and knows it", slog.Duration("credited", blind))
		q.callAll(now)
	}
}

// statusChanged follows the connection. A change that got lost on the way is seen
// by the next: what the connection says of itself counts.
func (q *Queen) statusChanged(work context.Context, _ nats.Status, now time.Time) {
	connected := q.nc.IsConnected()
	switch {
	case q.nc.IsClosed():
		q.fatal = fmt.Errorf("queen: the connection it was given is closed: %w", nats.ErrConnectionClosed)
	case connected && q.conn.isCut():
		away := now.Sub(q.conn.since)
		q.conn.since, q.conn.up = time.Time{}, now
		first := q.conn.sight.Connect(now)
		if first {
			q.log.Info("NATS is there", slog.Duration("after", away))
		} else {
			q.log.Info("NATS is back", slog.Duration("after", away))
		}
		q.cold.connected(now)
		if q.cfg.NoJetStream {
			if first {
				q.callAll(now)
			}
			q.openStraight()
		}
		q.startAnnouncements(work, now)
	case !connected && !q.conn.isCut():
		q.conn.since = now
		q.conn.sight.Cut(now, unnoticed(q.nc))
		q.conn.roll = true
		q.doubt()
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
