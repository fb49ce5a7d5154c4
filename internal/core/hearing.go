package core

import (
	"log/slog"
	"time"

	"github.com/beatfabric/hivebeat/internal/liveness"
)

// Judge judges by silence and by closed connections: the registry of a hive, the view
// of a queen.
type Judge interface {
	// Doubt reports that whatever is received until the next credit may have waited
	// since that time.
	Doubt(since time.Time)
	// Disconnect reports a closed connection, whether or not it belonged to a known
	// sender.
	Disconnect(now time.Time, d liveness.Disconnect) liveness.Noted
	// SettleDisconnects reports that everything sent before upTo has been received. It
	// returns whether a later window waits for the same.
	SettleDisconnects(upTo time.Time) (more bool)
	// VouchDisconnects reports that a token sent at upTo returned by that path.
	VouchDisconnects(upTo time.Time, by liveness.Path)
	// ForgetDisconnects closes all windows: closed connections are not reported now.
	ForgetDisconnects()
}

// Signals are the requests of a Hearing to the shell.
type Signals struct {
	// Token, if not 0, must be sent now, in such a way that it returns (TokenBack)
	// after everything that NATS had for this observer before. A PING does that.
	Token uint64
	// Settle asks for a call of Settled once everything that NATS has for this observer
	// now has been received, or after SettleWithin.
	Settle bool
}

// Connection is the state of a connection.
type Connection struct {
	Up     bool
	Closed bool // for good
	// Flapped reports that the connection was down at some time since the last
	// Connection, though it may be Up again.
	Flapped bool
	// Unnoticed is how long the connection may have been dead before its client
	// notices: the time of the pings that may stay unanswered.
	Unnoticed time.Duration
}

// Turn is what a Connection changed for a Hearing.
type Turn struct {
	Cut   bool // the observer has just learned that it is cut off
	First bool // it is connected for the first time
	Back  bool // it is connected again
}

// Hearing determines whether messages reach an observer. It follows the state of the
// connection, the dropped messages, the token with which the observer tests itself
// (liveness.Observer), and what the system account reports of closed connections. Each
// core has one in front of its judgement. A Hearing reports the consequences to the
// Judge.
type Hearing struct {
	judge        Judge
	self, judged string

	observer liveness.Observer
	counted  time.Time // when Drops was called last
	up       time.Time // since when the observer is connected, or was last connected if it no longer is
	since    time.Time // since when the observer is not connected; zero while it is
	roll     bool      // the roll must be called when the doubt is over
	lost     uint64    // dropped messages that no log line has counted yet
	dropped  uint64

	settling bool
	unproved bool // the last token for Settle did not return: the next Drops asks again
	settleAt time.Time
	ignored  liveness.Ignored

	Limiter Limiter
	logs    *Logs
	out     Signals
}

// NewHearing returns a Hearing that was never connected. self and judged name the roles
// in log lines, for instance "hive" and "worker". Log lines are added to logs.
func NewHearing(self, judged string, judge Judge, logs *Logs) *Hearing {
	return &Hearing{self: self, judged: judged, judge: judge, logs: logs}
}

// TakeSignals returns the requests to the shell since the last call.
func (h *Hearing) TakeSignals() Signals {
	s := h.out
	h.out = Signals{}
	return s
}

// Trusts reports whether silence is evidence now.
func (h *Hearing) Trusts() bool { return h.observer.Trusts() }

// Connected reports whether the observer knows itself connected to NATS.
func (h *Hearing) Connected() bool { return h.observer.Connected() }

// Hears reports whether something proved recently that messages reach the observer. If
// not, a token is due, and nothing may be judged by silence until it is back.
func (h *Hearing) Hears(now time.Time) bool { return h.observer.Hears(now) }

// Prove records that a message arrived.
func (h *Hearing) Prove(now time.Time) { h.observer.Prove(now) }

// Doubts returns since when the observer is in doubt, and whether it is.
func (h *Hearing) Doubts() (since time.Time, ok bool) { return h.observer.Doubts() }

// Paused returns how long the observer was stopped or starved, in total.
func (h *Hearing) Paused() time.Duration { return h.observer.Paused() }

// Blind returns the total time credited to all deadlines.
func (h *Hearing) Blind() time.Duration { return h.observer.Blind() }

// UpSince returns since when the observer is connected, or was last connected.
func (h *Hearing) UpSince() time.Time { return h.up }

// CutSince returns since when the observer is not connected, and whether that is so.
// Before the first connection, that is since the first Connection.
func (h *Hearing) CutSince() (since time.Time, cut bool) { return h.since, !h.since.IsZero() }

// Ignored returns how many closed connections were attributed to their server.
func (h *Hearing) Ignored() uint64 { return h.ignored.Total() }

// Dropped returns how many messages were dropped in total, as of the last Drops.
func (h *Hearing) Dropped() uint64 { return h.dropped }

// NextLook returns the latest time for the next Look and Drops. It counts from the last
// Drops: every message calls Look, and drops happen when there are many messages.
func (h *Hearing) NextLook() time.Time { return h.counted.Add(liveness.LookEvery) }

// Look must be called first in every turn. If the observer did not run for longer than
// liveness.MaxPause, Look returns for how long: messages received now may be as old.
func (h *Hearing) Look(now time.Time) (paused time.Duration) {
	if paused = h.observer.Look(now); paused == 0 {
		return 0
	}
	h.logs.Add(slog.LevelWarn, "this "+h.self+" was stopped or starved: what it hears now may be as old, and nobody is judged until that is known",
		slog.Duration("paused", paused))
	h.roll = true
	h.doubt()
	return paused
}

// doubt reports to the judge since when its input may have waited.
func (h *Hearing) doubt() {
	if since, ok := h.observer.Doubts(); ok {
		h.judge.Doubt(since)
	}
}

// Drops takes the total number of messages dropped so far because they came faster than
// they were handled.
func (h *Hearing) Drops(now time.Time, total uint64) {
	h.counted, h.dropped = now, total
	if h.unproved && h.observer.Connected() {
		h.unproved = false
		h.settle(now)
	}
	news := h.observer.Dropped(now, total)
	if news == 0 {
		return
	}
	if h.lost += news; h.Limiter.Allow("dropped", now) > 0 {
		h.logs.Add(slog.LevelWarn, "messages came faster than they were heard, some were dropped: the next ones heal that",
			slog.Uint64("dropped", h.lost), slog.Uint64("total", total))
		h.lost = 0
	}
	h.doubt()
}

// Connection handles the state of the connection.
func (h *Hearing) Connection(now time.Time, c Connection) (t Turn) {
	switch {
	case c.Up && !(c.Flapped && h.observer.Connected()):
	case h.observer.Cut(now, c.Unnoticed):
		t.Cut = true
		h.since = now
		h.logs.Add(slog.LevelWarn, "NATS is away: nobody is judged by silence until it is back")
		h.judge.ForgetDisconnects()
		h.roll = true
		h.doubt()
	case h.since.IsZero():
		h.since = now
		h.logs.Add(slog.LevelWarn, "NATS is not there yet: waiting for it")
	}
	if !c.Up || h.observer.Connected() {
		return t
	}
	var away time.Duration
	if !h.since.IsZero() {
		away = now.Sub(h.since)
	}
	h.since, h.up = time.Time{}, now
	t.First = h.observer.Connect(now)
	t.Back = !t.First
	switch {
	case t.Back:
		h.logs.Add(slog.LevelInfo, "NATS is back", slog.Duration("after", away))
	case away > 0:
		h.logs.Add(slog.LevelInfo, "NATS is there", slog.Duration("after", away))
	}
	return t
}

// Ask must be called last in every turn. It requests the token that is due, if any.
func (h *Hearing) Ask(now time.Time) {
	_, doubted := h.observer.Doubts()
	token, ok := h.observer.Token(now)
	if !ok {
		return
	}
	if since, doubts := h.observer.Doubts(); doubts && !doubted {
		h.logs.Add(slog.LevelWarn, "nobody is heard, and NATS does not answer: nobody is judged by silence until it does",
			slog.Duration("since", now.Sub(since)))
		h.roll = true
		h.doubt()
	}
	h.out.Token = token
}

// TokenBack ends the doubt if the token proves that everything before it was received.
// Then ok is true, blind is the time to credit to all deadlines, and roll says whether
// to call the roll. After dropped messages it does not: the answers would only add to
// the load.
func (h *Hearing) TokenBack(now time.Time, token uint64) (blind time.Duration, roll, ok bool) {
	if blind, ok = h.observer.Back(now, token); !ok {
		return 0, false, false
	}
	if roll, h.roll = h.roll, false; roll {
		h.logs.Add(slog.LevelInfo, "this "+h.self+" hears again, and knows it", slog.Duration("credited", blind))
	}
	return blind, roll, true
}

// Closed handles a client's connection that closed, whether or not it belonged to a
// known sender. The caller must first handle everything that was received before. It
// reports whether a window opened.
func (h *Hearing) Closed(now time.Time, d liveness.Disconnect) (opened bool) {
	if !h.observer.Connected() {
		return false
	}
	noted := h.judge.Disconnect(now, d)
	if noted.Ignored {
		if tell := h.ignored.Count(now, d.Server); tell > 0 {
			h.logs.Add(slog.LevelWarn, "connections of a NATS server close many at once: no "+h.judged+" there is picked until it is heard, and it is lost by its silence, or where this "+h.self+" reaches that server from the same address",
				slog.Uint64("ignored", tell), slog.String("server", d.Server), slog.String("name", d.Name), slog.String("reason", d.Reason))
		}
	}
	if noted.Held { // a token sent now proves that the server lives
		h.settle(now)
	}
	if !noted.Opened {
		return false
	}
	h.logs.Add(slog.LevelDebug, "a "+h.judged+"'s connection closed",
		slog.String("conn", d.Conn), slog.String("name", d.Name), slog.String("reason", d.Reason))
	h.settle(now)
	return true
}

// settle requests to learn when everything sent until now has been received: what a
// client sent before its connection closed may still be on its way.
func (h *Hearing) settle(now time.Time) {
	if h.settling {
		return // Settled starts the next one
	}
	h.settling, h.settleAt = true, now
	h.out.Settle = true
}

// Settled reports that everything that NATS had for this observer when Signals.Settle
// was returned has been handled. by is the path of the token that proves it; it is zero
// if the token did not return in time.
func (h *Hearing) Settled(now time.Time, by liveness.Path) {
	if !h.settling {
		return
	}
	h.settling = false
	if by != (liveness.Path{}) {
		h.judge.VouchDisconnects(h.settleAt, by)
	}
	if !h.judge.SettleDisconnects(h.settleAt) {
		return
	}
	if h.unproved = by == (liveness.Path{}); !h.unproved {
		h.settle(now)
	}
}

// System handles the state of the connection to the system account. A sender that was
// cut off together with it is not lost by that: the server may be gone.
func (h *Hearing) System(up bool) {
	if up {
		h.logs.Add(slog.LevelDebug, "listens again for connections that close")
		return
	}
	h.judge.ForgetDisconnects()
}
