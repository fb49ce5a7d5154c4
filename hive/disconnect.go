package hive

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/beatfabric/hivebeat"
	"github.com/beatfabric/hivebeat/bus"
	"github.com/beatfabric/hivebeat/internal/liveness"
)

// The server knows that a client is gone before anybody else does, and says so in
// its system account. What the client said before may still be on its way to this
// hive, in another connection: so a token of the hive's own connection follows each
// disconnect, and until it is back a beat over the closed one closes no window.

const (
	pendingDisconnects = 4096
	settleWithin       = 250 * time.Millisecond // bounds the wait for that token

	askEvery = 5 * time.Second // workers are asked whether they came back, at most
	askMost  = 1000            // where there are more of them, nobody is: they would all answer at once
)

// closings is how disconnects are heard. The zero value hears none.
type closings struct {
	sub      *nats.Subscription
	messages chan *nats.Msg
	status   chan nats.Status
	settled  chan time.Time
	settling bool
	asked    time.Time
}

// hearClosings begins to hear disconnects, if somebody can tell.
func (h *Hive) hearClosings() (*closings, error) {
	sys := h.cfg.System
	if sys == nil {
		return &closings{}, nil
	}
	c := &closings{messages: make(chan *nats.Msg, pendingDisconnects), settled: make(chan time.Time)}
	c.status = sys.StatusChanged()
	var err error
	if c.sub, err = sys.ChanSubscribe(bus.DisconnectSubject, c.messages); err != nil {
		sys.RemoveStatusListener(c.status)
		return nil, fmt.Errorf("hive: Config.System: subscribe to %s: %w", bus.DisconnectSubject, err)
	}
	h.log.Debug("listens for connections that close", slog.Bool("connected", sys.IsConnected()))
	return c, nil
}

func (h *Hive) endClosings(c *closings) {
	if c.sub != nil {
		_ = c.sub.Unsubscribe() // fails only on a connection that is closed
		h.cfg.System.RemoveStatusListener(c.status)
	}
}

// closed hears of one client that disconnected, whoever it was.
func (e *ear) closed(ctx context.Context, beats <-chan *nats.Msg, m *nats.Msg) {
	e.look(time.Now())
	d, err := bus.ParseDisconnect(m.Data)
	if err != nil {
		e.log.Debug("not a disconnect", slog.String("subject", m.Subject), slog.Any("error", err))
		return
	}
	if !d.OfClient() || !e.sight.Connected() {
		return
	}
	e.hearAll(beats)
	now := time.Now()
	e.mu.Lock()
	noted := e.reg.Disconnect(now, liveness.Disconnect{
		Server: d.Server, Conn: d.Conn(), Reason: d.Reason, Evidence: d.Evidence(), Passing: d.Passing(),
	})
	next, _ := e.reg.Next()
	tell := uint64(0)
	if noted.Ignored {
		tell = e.ignored.Count(now, d.Server)
	}
	e.mu.Unlock()
	if tell > 0 {
		e.log.Warn("connections of a NATS server close many at once: no worker there is lost by them, only by its process or its silence",
			slog.Uint64("ignored", tell), slog.String("server", d.Server), slog.String("name", d.Name), slog.String("reason", d.Reason))
	}
	if !noted.Opened {
		return
	}
	e.log.Debug("a worker's connection closed", slog.String("conn", d.Conn()), slog.String("name", d.Name), slog.String("reason", d.Reason))
	e.settle(ctx)
	if e.sight.Trusts() && (e.armed.IsZero() || next.Before(e.armed)) {
		e.arm(now, next)
	}
}

// settle finds out when all that was sent until now has come in. It is told by
// closings.settled.
func (e *ear) settle(ctx context.Context) {
	if e.closings.settling {
		return // and then again
	}
	e.closings.settling = true
	e.flying.Go(func() {
		at := time.Now()
		within, cancel := context.WithTimeout(ctx, settleWithin)
		defer cancel()
		_ = e.nc.FlushWithContext(within) // if NATS hangs, the window is long enough
		select {
		case e.closings.settled <- at:
		case <-ctx.Done():
		}
	})
}

func (e *ear) settled(ctx context.Context, beats <-chan *nats.Msg, at time.Time) {
	e.hearAll(beats)
	e.closings.settling = false
	e.mu.Lock()
	more := e.reg.SettleDisconnects(at)
	e.mu.Unlock()
	if more {
		e.settle(ctx)
	}
}

// systemStatus follows the connection by which disconnects are heard. Whoever was
// cut off with it is not lost for that: perhaps the server is gone.
func (e *ear) systemStatus(s nats.Status, ok bool) {
	if ok && s == nats.CONNECTED {
		e.log.Debug("listens again for connections that close")
		return
	}
	if !ok || s == nats.CLOSED {
		e.closings.status = nil
	}
	e.forgetClosings()
}

func (e *ear) forgetClosings() {
	e.mu.Lock()
	e.reg.ForgetDisconnects()
	e.mu.Unlock()
}

// ask calls the roll for those whose window is about to end: they may have come
// back, and their beat was lost.
func (e *ear) ask(now time.Time) {
	e.mu.Lock()
	workers := e.reg.Len()
	e.mu.Unlock()
	if workers > askMost || !e.closings.asked.IsZero() && now.Sub(e.closings.asked) < askEvery {
		return
	}
	e.closings.asked = now
	e.callRoll(min(workers, int(hivebeat.WorkerRollSpread/time.Millisecond)))
}

// Resend sends a fresh snapshot soon. It is for who knows that those before may not
// have arrived, though this hive's connection was there: behind a leaf node that
// was cut off its hub.
func (h *Hive) Resend() { h.pulse.Reconnected() }
