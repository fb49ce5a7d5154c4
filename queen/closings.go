package queen

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/beatfabric/hivebeat/bus"
	"github.com/beatfabric/hivebeat/internal/liveness"
)

// The server knows that a hive is gone before its silence tells, and says so in
// its system account. As at a hive, what was said before may still be on its way
// to this queen in another connection: a token of the queen's own follows each
// disconnect.

const (
	pendingDisconnects = 4096
	settleWithin       = 250 * time.Millisecond // bounds the wait for that token

	// askSpread is that of the roll call of one hive whose window is about to end:
	// nobody else answers, and the answer has to come in time.
	askSpread = "250"
)

// closings is how disconnects are heard. The zero value hears none.
type closings struct {
	sub      *nats.Subscription
	messages chan *nats.Msg
	status   chan nats.Status
	settling bool
	ignored  liveness.Ignored
}

// hearClosings begins to hear disconnects, if somebody can tell.
func (q *Queen) hearClosings() error {
	sys, c := q.cfg.System, &q.closings
	if sys == nil {
		return nil
	}
	c.messages = make(chan *nats.Msg, pendingDisconnects)
	var err error
	if c.sub, err = sys.ChanSubscribe(bus.DisconnectSubject, c.messages); err != nil {
		return fmt.Errorf("queen: Config.System: subscribe to %s: %w", bus.DisconnectSubject, err)
	}
	c.status = sys.StatusChanged()
	q.log.Debug("listens for connections that close", slog.Bool("connected", sys.IsConnected()))
	return nil
}

func (q *Queen) endClosings() {
	c := &q.closings
	if c.sub != nil {
		_ = c.sub.Unsubscribe() // fails only on a connection that is closed
	}
	if c.status != nil {
		q.cfg.System.RemoveStatusListener(c.status)
	}
}

// closed hears of one client that disconnected, whoever it was.
func (q *Queen) closed(work context.Context, m *nats.Msg, now time.Time) {
	d, err := bus.ParseDisconnect(m.Data)
	if err != nil {
		q.log.Debug("not a disconnect", slog.String("subject", m.Subject), slog.Any("err", err))
		return
	}
	if !d.OfClient() || q.conn.isCut() {
		return
	}
	q.catchUp(now)
	noted := q.view.Disconnect(now, liveness.Disconnect{
		Server: d.Server, Conn: d.Conn(), Reason: d.Reason, Evidence: d.Evidence(), Passing: d.Passing(),
	})
	if noted.Ignored {
		if tell := q.closings.ignored.Count(now, d.Server); tell > 0 {
			q.log.Warn("connections of a NATS server close many at once: no hive there is lost by them, only by its silence",
				slog.Uint64("ignored", tell), slog.String("server", d.Server), slog.String("name", d.Name), slog.String("reason", d.Reason))
		}
	}
	if !noted.Opened {
		return
	}
	q.log.Debug("a hive's connection closed", slog.String("conn", d.Conn()), slog.String("name", d.Name), slog.String("reason", d.Reason))
	q.settleClosings(work)
}

// settleClosings finds out when all that was sent until now has come in.
func (q *Queen) settleClosings(work context.Context) {
	if q.closings.settling {
		return // and then again
	}
	q.closings.settling = true
	q.wg.Go(func() {
		at := time.Now()
		ctx, cancel := context.WithTimeout(work, settleWithin)
		defer cancel()
		_ = q.nc.FlushWithContext(ctx)     // if NATS hangs, the window is long enough
		_ = q.post(work, func(time.Time) { // the loop has read all that came before
			q.closings.settling = false
			if q.view.SettleDisconnects(at) {
				q.settleClosings(work)
			}
		})
	})
}

// systemStatus follows the connection by which disconnects are heard. Whoever was
// cut off with it is not lost for that: perhaps the server is gone.
func (q *Queen) systemStatus(s nats.Status, ok bool) {
	if ok && s == nats.CONNECTED {
		q.log.Debug("listens again for connections that close")
		return
	}
	if !ok || s == nats.CLOSED {
		q.closings.status = nil
	}
	q.view.ForgetDisconnects()
}

// askClosing calls the roll of those whose window is about to end: they may have
// come back, and their snapshot was lost.
func (q *Queen) askClosing() {
	for _, h := range q.view.TakeAsk() {
		subject := q.subjects.HiveRollcallOf(h.ID())
		if err := q.nc.Publish(subject, []byte(askSpread)); err != nil {
			q.log.Debug("roll call failed", slog.String("subject", subject), slog.Any("err", err))
		}
	}
}
