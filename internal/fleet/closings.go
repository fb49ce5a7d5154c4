package fleet

import (
	"fmt"
	"slices"
	"time"

	"github.com/beatfabric/hivebeat"
	"github.com/beatfabric/hivebeat/internal/liveness"
)

// How a hive is lost by its connection. A queen that hears disconnects opens a
// window when that of a hive closes, as hives do for workers (liveness.Closings).
// What follows at its end is what follows a silence: the key is read, the brake
// counts it. A hive that the brake holds is judged by its silence from then on.

// closed is what the connection of a hive, h.conn, tells.
type closed struct {
	conn string // by which View.closings knows the hive
	over bool   // a window is over, and the verdict waits for the key of the hive
	win  liveness.Closing
}

// Disconnect notes that a client of a server disconnected, whoever it is. All that
// was heard before must have been applied. A window that it opened may be that of a
// hive, or of a worker that this queen judges: then SettleDisconnects is to follow. A
// queen that doubts itself opens none.
func (v *View) Disconnect(now time.Time, d liveness.Disconnect) liveness.Noted {
	if !v.doubt.IsZero() {
		return liveness.Noted{}
	}
	d.Passing = d.Passing && !v.knowsConn(d.Conn)
	n := v.closings.Disconnect(now, d, func(h *Hive) time.Duration {
		if !h.Up() || h.closed.over {
			return 0
		}
		return liveness.WindowOf(h.head.RW.Duration())
	})
	for h := range v.adoptedHives {
		own := h.adopted.reg.Disconnect(now, d)
		if own.Opened {
			n.Opened = true
			v.watch(h, now)
		}
		n.Ignored = n.Ignored || own.Ignored
	}
	return n
}

// knowsConn reports whether the connection is one of a hive, or of a worker that is
// judged here. Those of other workers are looked up by nobody: they would be as many
// as the fleet has workers, and whoever stayed is counted anyway.
func (v *View) knowsConn(conn string) bool {
	if v.closings.Knows(conn) {
		return true
	}
	for h := range v.adoptedHives {
		if h.adopted.reg.KnowsConn(conn) {
			return true
		}
	}
	return false
}

// SettleDisconnects says that what was on its way at the given time has been applied: a
// snapshot that comes now was sent after each disconnect up to then. It reports
// whether there are later windows, which need another of it.
func (v *View) SettleDisconnects(upTo time.Time) (more bool) {
	more = v.closings.Settle(upTo)
	for h := range v.adoptedHives {
		more = h.adopted.reg.SettleDisconnects(upTo) || more
	}
	return more
}

// ForgetDisconnects closes all windows, and nobody is lost for them: who hears of
// disconnects was cut off itself, or doubts what it hears.
func (v *View) ForgetDisconnects() {
	v.closings.Forget()
	for h := range v.adoptedHives {
		h.adopted.reg.ForgetDisconnects()
	}
	for _, h := range v.order {
		if h.closed.over && h.check != 0 { // its silence is to be judged after all
			h.check = 0
			v.rearm(h)
		}
		h.closed.over = false
	}
}

// VouchDisconnects says that a token which was sent at the given time returned. That
// proves nothing of the path by which hives and workers come, which are elsewhere: the
// windows of a batch stay held.
func (v *View) VouchDisconnects(upTo time.Time, _ liveness.Path) {
	v.closings.Vouch(upTo, liveness.Path{})
	for h := range v.adoptedHives {
		h.adopted.reg.VouchDisconnects(upTo, liveness.Path{})
	}
}

// SetOwn names the NATS server that runs in the process of this queen, before the first
// input.
func (v *View) SetOwn(server string) {
	v.own = server
	v.closings.SetOwn(server)
}

// InDoubt returns how many hives there are whose connection closed, and that were not
// heard since.
func (v *View) InDoubt() int { return len(v.inDoubt) }

// doubtClosed keeps up to now which hives have a window, or a verdict that waits for
// their key: neither they nor their workers are picked.
func (v *View) doubtClosed(now time.Time) {
	turn := func(h *Hive, doubtful bool) {
		if h.inDoubt = doubtful; v.hives[h.id] == h {
			v.resum(h, another, now)
			v.reshowAll(h, now)
		}
	}
	v.inDoubt = slices.DeleteFunc(v.inDoubt, func(h *Hive) bool {
		over := !v.closings.Has(h) && !h.closed.over
		if over {
			turn(h, false)
		}
		return over
	})
	for _, h := range v.closings.TakeMoved() {
		if !h.inDoubt && v.closings.Has(h) {
			turn(h, true)
			v.inDoubt = append(v.inDoubt, h)
		}
	}
}

// link follows the connection of h, of which a page was taken over.
func (v *View) link(h *Hive, o liveness.Outcome) {
	if h.conn != h.head.Conn {
		v.closings.Move(h, h.conn, h.head.Conn)
		h.conn = h.head.Conn
	}
	v.closings.Heard(h, h.conn, o.Begins() || h.head.Bye != "")
}

// unlinkOld forgets the connection that h had, where a later message of it is known
// from elsewhere: over which one that came nobody here knows. That the old one closes,
// or has closed, proves nothing any more.
func (v *View) unlinkOld(h *Hive, o liveness.Outcome) {
	if o.Accepted() {
		v.unlink(h)
	}
}

// unlink lets h go.
func (v *View) unlink(h *Hive) {
	v.closings.Close(h)
	v.closings.Move(h, h.conn, "")
	h.closed = closed{}
}

// endWindows has the keys read of those whose window is over.
func (v *View) endWindows(now time.Time) {
	for h, win := range v.closings.Due(now) {
		if h.Up() {
			h.closed.over, h.closed.win = true, win
			v.ask(h)
		}
	}
}

// rearm sets the deadline of the silence of h, which is up.
func (v *View) rearm(h *Hive) {
	after := liveness.LateAfter(h.every, 0)
	if h.live == hivebeat.Late {
		after = liveness.LostAfter(h.every, 0)
	}
	v.due.Set(h, h.judged.Add(after+v.blind-h.blind))
}

// closedFor is the evidence of a connection that closed.
func (v *View) closedFor(h *Hive, now time.Time) evidence {
	win := &h.closed.win
	detect := max(1, hivebeat.MillisOf(now.Sub(win.At)+time.Millisecond-1))
	return evidence{
		age:    EffectiveAge(0, h.received, now),
		reason: fmt.Sprintf("its connection closed (%.80s) and it did not come back within %s", win.Reason, win.Length),
		detect: &detect,
	}
}
