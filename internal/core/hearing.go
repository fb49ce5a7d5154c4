package core

import (
	"log/slog"
	"time"

	"github.com/beatfabric/hivebeat/internal/liveness"
)

// Judge is who judges by silence and by closed connections: the registry of a hive,
// the view of a queen.
type Judge interface {
	// Doubt says that whatever is received until the next credit may have waited
	// since that time.
	Doubt(since time.Time)
	// Disconnect is told of a connection that closed, whoever's it was.
	Disconnect(now time.Time, d liveness.Disconnect) liveness.Noted
	// SettleDisconnects says that what was sent before upTo has been received. It
	// reports whether there is a later window that waits for the same.
	SettleDisconnects(upTo time.Time) (more bool)
	// VouchDisconnects says that a token that was sent at upTo returned by that path.
	VouchDisconnects(upTo time.Time, by liveness.Path)
	// ForgetDisconnects closes all windows: nobody hears of closed connections now.
	ForgetDisconnects()
}

// Signals are what a Hearing asks of the shell.
type Signals struct {
	// Token, if not 0, is to be sent now, in such a way that it returns after
	// everything that NATS had for this observer before: TokenBack. A PING does that.
	Token uint64
	// Settle asks for a call of Settled once everything that NATS had for this
	// observer until now has been received, or after SettleWithin.
	Settle bool
}

// Connection is what a connection says of itself.
type Connection struct {
	Up     bool
	Closed bool // for good
	// Flapped says that the connection was gone since it was last asked, though it
	// may be Up again.
	Flapped bool
	// Unnoticed is how long the connection may have been dead before its client
	// notices: so many pings without an answer.
	Unnoticed time.Duration
}

// Turn is what a Connection meant to a Hearing.
type Turn struct {
	Cut   bool // the observer has just learnt that it is cut off
	First bool // it is connected for the first time
	Back  bool // it is connected again
}

// Hearing is how an observer knows what it hears: the state of its connection, the
// messages that were dropped, the token by which it doubts itself
// (liveness.Observer), and what the system account says of closed connections. Both
// cores have one in front of their judgement, and tell the Judge what follows.
type Hearing struct {
	judge        Judge
	self, judged string

	sight   liveness.Observer
	counted time.Time // when Drops was called last
	up      time.Time // since when there is a connection; the last one if it is gone
	since   time.Time // since when there is none; zero while there is one
	roll    bool      // the roll is to be called when the doubt is over
	lost    uint64    // dropped messages that no line in the log counts
	dropped uint64

	settling bool
	unproved bool // a token is due by which to settle, with the next Drops: the last one did not return
	settleAt time.Time
	ignored  liveness.Ignored

	Limiter Limiter
	logs    *Logs
	out     Signals
}

// NewHearing returns a Hearing that was never connected. self and judged name the
// roles for the log, for instance "hive" and "worker". Lines for the log go to logs.
func NewHearing(self, judged string, judge Judge, logs *Logs) *Hearing {
	return &Hearing{self: self, judged: judged, judge: judge, logs: logs}
}

// TakeSignals returns what the shell is asked for, once.
func (h *Hearing) TakeSignals() Signals {
	s := h.out
	h.out = Signals{}
	return s
}

// Trusts reports whether silence is evidence now.
func (h *Hearing) Trusts() bool { return h.sight.Trusts() }

// Connected reports whether NATS is there, as far as is known.
func (h *Hearing) Connected() bool { return h.sight.Connected() }

// Hears reports whether something proved of late that the observer hears. Where not,
// a token is due, and nobody is to be judged by silence until it is back.
func (h *Hearing) Hears(now time.Time) bool { return h.sight.Hears(now) }

// Prove notes that a message came in.
func (h *Hearing) Prove(now time.Time) { h.sight.Prove(now) }

// Doubts returns since when the observer doubts itself, and whether it does.
func (h *Hearing) Doubts() (since time.Time, ok bool) { return h.sight.Doubts() }

// Paused returns for how long the observer was stopped or starved, in all.
func (h *Hearing) Paused() time.Duration { return h.sight.Paused() }

// Blind returns how much time was credited to all deadlines, in all.
func (h *Hearing) Blind() time.Duration { return h.sight.Blind() }

// UpSince returns since when there is a connection, or was.
func (h *Hearing) UpSince() time.Time { return h.up }

// CutSince returns since when there is no connection, and whether there is none. One
// that was never there is gone since the first look.
func (h *Hearing) CutSince() (since time.Time, cut bool) { return h.since, !h.since.IsZero() }

// Ignored returns how many closed connections were taken for their server's.
func (h *Hearing) Ignored() uint64 { return h.ignored.Total() }

// Dropped returns how many messages were dropped so far, as of the last Drops.
func (h *Hearing) Dropped() uint64 { return h.dropped }

// NextLook returns when Look and Drops are to be called at the latest. Messages call
// Look all the time, so it is counted from the last Drops: what is dropped comes when
// there are many.
func (h *Hearing) NextLook() time.Time { return h.counted.Add(liveness.LookEvery) }

// Look comes first in every turn: it returns for how long the observer did not run,
// where that is so long that what it receives now may be as old.
func (h *Hearing) Look(now time.Time) (paused time.Duration) {
	if paused = h.sight.Look(now); paused == 0 {
		return 0
	}
	h.logs.Add(slog.LevelWarn, "this "+h.self+" was stopped or starved: what it hears now may be as old, and nobody is judged until that is known",
		slog.Duration("paused", paused))
	h.roll = true
	h.doubt()
	return paused
}

// doubt tells the judge since when what it is fed may have waited.
func (h *Hearing) doubt() {
	if since, ok := h.sight.Doubts(); ok {
		h.judge.Doubt(since)
	}
}

// Drops is told how many messages were dropped so far because they came faster than
// they were handled.
func (h *Hearing) Drops(now time.Time, total uint64) {
	h.counted, h.dropped = now, total
	if h.unproved && h.sight.Connected() {
		h.unproved = false
		h.settle(now)
	}
	news := h.sight.Dropped(now, total)
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

// Connection follows the connection.
func (h *Hearing) Connection(now time.Time, c Connection) (t Turn) {
	switch {
	case c.Up && !(c.Flapped && h.sight.Connected()):
	case h.sight.Cut(now, c.Unnoticed):
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
	if !c.Up || h.sight.Connected() {
		return t
	}
	var away time.Duration
	if !h.since.IsZero() {
		away = now.Sub(h.since)
	}
	h.since, h.up = time.Time{}, now
	t.First = h.sight.Connect(now)
	t.Back = !t.First
	switch {
	case t.Back:
		h.logs.Add(slog.LevelInfo, "NATS is back", slog.Duration("after", away))
	case away > 0:
		h.logs.Add(slog.LevelInfo, "NATS is there", slog.Duration("after", away))
	}
	return t
}

// Ask ends every turn: it asks for the token that is due, if there is one.
func (h *Hearing) Ask(now time.Time) {
	_, doubted := h.sight.Doubts()
	token, ok := h.sight.Token(now)
	if !ok {
		return
	}
	if since, doubts := h.sight.Doubts(); doubts && !doubted {
		h.logs.Add(slog.LevelWarn, "nobody is heard, and NATS does not answer: nobody is judged by silence until it does",
			slog.Duration("since", now.Sub(since)))
		h.roll = true
		h.doubt()
	}
	h.out.Token = token
}

// TokenBack ends the doubt if the token proves that everything before it was
// received. Then ok is set, blind is the time to credit all deadlines with, and roll
// says whether the roll is to be called: not for what was dropped, as the answers
// would come on top.
func (h *Hearing) TokenBack(now time.Time, token uint64) (blind time.Duration, roll, ok bool) {
	if blind, ok = h.sight.Back(now, token); !ok {
		return 0, false, false
	}
	if roll, h.roll = h.roll, false; roll {
		h.logs.Add(slog.LevelInfo, "this "+h.self+" hears again, and knows it", slog.Duration("credited", blind))
	}
	return blind, roll, true
}

// Closed is told of a client's connection that closed, whoever's it was. Everything
// that was received before has to be handled first. It reports whether a window
// opened.
func (h *Hearing) Closed(now time.Time, d liveness.Disconnect) (opened bool) {
	if !h.sight.Connected() {
		return false
	}
	noted := h.judge.Disconnect(now, d)
	if noted.Ignored {
		if tell := h.ignored.Count(now, d.Server); tell > 0 {
			h.logs.Add(slog.LevelWarn, "connections of a NATS server close many at once: no "+h.judged+" there is picked until it is heard, and it is lost by its silence, or where this "+h.self+" reaches that server from the same address",
				slog.Uint64("ignored", tell), slog.String("server", d.Server), slog.String("name", d.Name), slog.String("reason", d.Reason))
		}
	}
	if noted.Held { // a token that is sent now proves that the server lives
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

// settle finds out when everything that was sent until now has been received: what a
// client said before its connection closed may still be on its way.
func (h *Hearing) settle(now time.Time) {
	if h.settling {
		return // and then again
	}
	h.settling, h.settleAt = true, now
	h.out.Settle = true
}

// Settled says that everything that NATS had for this observer when Signals.Settle
// was returned has been handled, and by which path the token returned that tells so;
// none where it did not return in time.
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

// System follows the connection to the system account. Whoever was cut off together
// with it is not lost for that: perhaps the server is gone.
func (h *Hearing) System(up bool) {
	if up {
		h.logs.Add(slog.LevelDebug, "listens again for connections that close")
		return
	}
	h.judge.ForgetDisconnects()
}
