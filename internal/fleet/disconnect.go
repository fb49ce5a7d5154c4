package fleet

import (
	"fmt"
	"slices"
	"time"

	"github.com/beatfabric/hivebeat"
	"github.com/beatfabric/hivebeat/internal/index"
	"github.com/beatfabric/hivebeat/internal/liveness"
	"github.com/beatfabric/hivebeat/verdict"
)

// A hive can become lost because its connection closed. A queen that hears disconnects opens a window when
// the connection of a hive closes, as hives do for workers (liveness.Closings). The end of a window is handled
// like the end of a silence: the key is read, and the brake counts the hive. A hive that the brake holds is
// judged by its silence from then on.

// Disconnect records that a client disconnected from a server. All messages that were heard before must have
// been applied. If it opened a window, of a hive or of an adopted worker, SettleDisconnects must follow. A
// queen that doubts itself opens no window.
func (v *View) Disconnect(now time.Time, d liveness.Disconnect) liveness.Noted {
	if !v.doubt.IsZero() {
		return liveness.Noted{}
	}
	d.Passing = d.Passing && !v.knowsConn(d.Conn)
	n := v.closings.Disconnect(now, d, func(h *Hive) time.Duration {
		if !h.Up() || h.windowOver {
			return 0
		}
		return liveness.WindowOf(h.head().RW.Duration())
	})
	for h := range v.adoptedHives {
		own := h.adoption.reg.Disconnect(now, d)
		if own.Opened {
			n.Opened = true
			v.watch(h, now)
		}
		n.Ignored = n.Ignored || own.Ignored
	}
	return n
}

// knowsConn reports whether the connection belongs to a hive or to an adopted worker. It does not know the
// connections of other workers: the fleet has too many, and those that stayed are counted anyway.
func (v *View) knowsConn(conn string) bool {
	if v.closings.Knows(conn) {
		return true
	}
	for h := range v.adoptedHives {
		if h.adoption.reg.KnowsConn(conn) {
			return true
		}
	}
	return false
}

// SettleDisconnects says that all messages that were in transit at upTo have been applied: a snapshot that
// arrives now was sent after every disconnect until upTo. It reports whether later windows need another call.
func (v *View) SettleDisconnects(upTo time.Time) (more bool) {
	more = v.closings.Settle(upTo)
	for h := range v.adoptedHives {
		more = h.adoption.reg.SettleDisconnects(upTo) || more
	}
	return more
}

// ForgetDisconnects closes all windows without a verdict. Call it when the queen was cut off itself, or doubts
// the messages that it hears.
func (v *View) ForgetDisconnects() {
	v.closings.Forget()
	for h := range v.adoptedHives {
		h.adoption.reg.ForgetDisconnects()
	}
	for _, h := range v.order {
		if h.windowOver && h.check != 0 { // judge it by its silence again
			h.check = 0
			v.rearm(h)
		}
		h.windowOver = false
	}
}

// VouchDisconnects says that a token sent at upTo returned. That proves nothing about the path of hives and
// workers, which run elsewhere, so the windows of a batch stay held.
func (v *View) VouchDisconnects(upTo time.Time, _ liveness.Path) {
	v.closings.Vouch(upTo, liveness.Path{})
	for h := range v.adoptedHives {
		h.adoption.reg.VouchDisconnects(upTo, liveness.Path{})
	}
}

// SetOwn sets the name of the NATS server that runs in the process of this queen. Call it before the first
// input.
func (v *View) SetOwn(server string) {
	v.own = server
	v.closings.SetOwn(server)
}

// Doubtful returns the number of hives whose connection closed and that were not heard since, as of the last
// Settle.
func (v *View) Doubtful() int { return len(v.doubtful) }

// Doubted returns about how many hives may not be alive: those whose window is open, and the unverified ones,
// including those known only from the roster.
func (v *View) Doubted() int { return v.Unverified() + v.closings.Open() }

// EachDoubted yields the hives that may not be alive: a brake holds them as unverified, or their connection
// closed and they were not heard since.
func (v *View) EachDoubted(now time.Time, yield func(*Hive)) {
	v.Settle(now)
	for _, h := range v.order {
		if h.heldBy != nil || h.isDoubtful {
			yield(h)
		}
	}
}

// settleDoubts updates which hives have a window, or a verdict that waits for their key. Neither these hives
// nor their workers are picked.
func (v *View) settleDoubts() {
	v.doubtful = slices.DeleteFunc(v.doubtful, func(h *Hive) bool {
		if h.isDoubtful = v.closings.Has(h) || h.windowOver; !h.isDoubtful {
			v.change(h)
		}
		return !h.isDoubtful
	})
	for _, h := range v.closings.TakeMoved() {
		if !h.isDoubtful && v.closings.Has(h) {
			h.isDoubtful = true
			v.change(h)
			v.doubtful = append(v.doubtful, h)
		}
	}
}

// link updates the connection of h after a page of it was applied.
func (v *View) link(h *Hive, o liveness.Outcome) {
	if h.conn != h.head().Conn {
		v.closings.Move(h, h.conn, h.head().Conn)
		h.conn = h.head().Conn
	}
	v.closings.Heard(h, h.conn, o.Begins() || h.head().Bye != "")
}

// unlink forgets the connection of h. If another queen heard a later message of h, this queen does not know the
// connection of that message, so the end of the old connection proves nothing.
func (v *View) unlink(h *Hive) {
	v.closings.Close(h)
	v.closings.Move(h, h.conn, "")
	h.conn, h.windowOver, h.window = "", false, liveness.Closing{}
}

// endWindows requests the keys of the hives whose window is over.
func (v *View) endWindows(now time.Time) {
	for h, win := range v.closings.Due(now) {
		if h.Up() {
			h.windowOver, h.window = true, win
			v.ask(h)
		}
	}
}

// rearm sets the deadline for the silence of h, which is up.
func (v *View) rearm(h *Hive) {
	after := verdict.LateAfter(h.every, 0)
	if h.live == hivebeat.Late {
		after = verdict.LostAfter(h.every, 0)
	}
	v.due.Set(h, h.judged.Add(after+v.blind-h.blind))
}

// closedFor returns the evidence for a verdict by a closed connection.
func (v *View) closedFor(h *Hive, now time.Time) evidence {
	win := &h.window
	detect := max(1, hivebeat.MillisOf(now.Sub(win.At)+time.Millisecond-1))
	return evidence{
		age:    index.EffectiveAge(0, h.received, now),
		reason: fmt.Sprintf("its connection closed (%.80s) and it did not reconnect within %s", win.Reason, win.Length),
		detect: &detect,
	}
}
