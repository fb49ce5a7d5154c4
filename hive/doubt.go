package hive

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/beatfabric/hivebeat"
)

// A hive doubts itself before its workers (liveness.Observer): here is what it
// learns of its own troubles, and what follows.
//
// The token is a PING of NATS. Its PONG comes back in the one stream in which the
// beats come: what the server had for this hive before is in the channel by then,
// and is read first. It needs no permission and no subject, and can not be dropped
// where a channel is full.

// tokenWithin bounds the wait for one token.
const tokenWithin = 10 * time.Second

// dropReason is what the limiter knows drops by.
const dropReason hivebeat.Reason = "dropped"

// look is the first thing in every turn: was this hive stopped or starved?
func (e *ear) look(now time.Time) {
	paused := e.sight.Look(now)
	if paused == 0 {
		return
	}
	e.mu.Lock()
	e.reg.Paused(paused)
	e.mu.Unlock()
	e.log.Warn("this hive was stopped or starved: what it hears now may be as old, and nobody is judged until that is known",
		slog.Duration("paused", paused))
	e.roll = true
	e.doubt()
}

// countDrops follows the messages that came faster than they were heard.
func (e *ear) countDrops(now time.Time) {
	e.mu.Lock()
	e.reg.Ran(now)
	dropped := e.droppedLocked()
	e.mu.Unlock()
	news := e.sight.Dropped(now, dropped)
	if news == 0 {
		return
	}
	if e.lost += news; e.limiter.allow(dropReason, now) > 0 {
		e.log.Warn("messages came faster than they were heard, some were dropped", slog.Uint64("dropped", e.lost))
		e.lost = 0
	}
	e.doubt()
}

// status follows the connection.
func (e *ear) status(now time.Time, s nats.Status, ok bool) error {
	e.look(now)
	switch {
	case !ok || s == nats.CLOSED:
		e.open.Store(false)
		return fmt.Errorf("hive: %w", nats.ErrConnectionClosed)
	case s != nats.CONNECTED || e.sight.Connected(): // connected, and we thought it was: it was gone in between
		e.close(now)
	}
	// The last word is the connection's own: of many changes some are not told.
	if e.nc.IsConnected() {
		e.reopen(now)
	}
	return nil
}

func (e *ear) close(now time.Time) {
	e.open.Store(false)
	// nats.go gives a peer up when so many pings were not answered.
	unnoticed := e.nc.Opts.PingInterval * time.Duration(e.nc.Opts.MaxPingsOut+1)
	if e.sight.Cut(now, unnoticed) {
		e.log.Warn("NATS is away: nobody is judged by silence until it is back")
		e.forgetClosings()
		e.roll = true
		e.doubt()
	}
}

func (e *ear) reopen(now time.Time) {
	if e.sight.Connected() {
		return
	}
	first := e.sight.Connect(now)
	e.open.Store(true)
	if !first {
		e.log.Info("NATS is back")
		e.pulse.Reconnected()
		return // the token goes on
	}
	e.mu.Lock()
	e.reg.Start(now)
	workers := e.reg.Len()
	e.mu.Unlock()
	e.log.Info("hears workers", slog.String("subject", e.subjects.Workers(e.cfg.ID)))
	e.callRoll(workers)
	e.detect(now)
}

// doubt tells the registry since when what it is fed may have waited.
func (e *ear) doubt() {
	if since, ok := e.sight.Doubts(); ok {
		e.mu.Lock()
		e.reg.Doubt(since)
		e.mu.Unlock()
	}
}

// sendToken sends the token that is due, if there is one.
func (e *ear) sendToken(ctx context.Context, now time.Time) {
	_, doubted := e.sight.Doubts()
	token, ok := e.sight.Token(now)
	if !ok {
		return
	}
	if since, doubts := e.sight.Doubts(); doubts && !doubted {
		e.log.Warn("nobody is heard, and NATS does not answer: nobody is judged by silence until it does", slog.Duration("since", now.Sub(since)))
		e.roll = true
		e.doubt()
	}
	e.flying.Go(func() {
		within, cancel := context.WithTimeout(ctx, tokenWithin)
		defer cancel()
		if e.nc.FlushWithContext(within) != nil {
			return // the next one is sent in a while, or once NATS is back
		}
		select {
		case e.tokens <- token:
		case <-ctx.Done():
		}
	})
}

// tokenBack ends the doubt, once all that came before the token was heard.
func (e *ear) tokenBack(beats <-chan *nats.Msg, token uint64) {
	e.look(time.Now())
	e.hearAll(beats)
	now := time.Now()
	e.countDrops(now)
	blind, ok := e.sight.Back(now, token)
	if !ok {
		return
	}
	e.mu.Lock()
	e.reg.Credit(blind)
	workers := e.reg.Len()
	e.mu.Unlock()
	if e.roll { // not for what was dropped: the answers would come on top
		e.roll = false
		e.log.Info("hears again, and knows it", slog.Duration("credited", blind), slog.Int("workers", workers))
		e.awaitAnswers(now, e.callRoll(workers))
	}
	e.detect(now)
}
