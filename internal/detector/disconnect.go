package detector

import (
	"fmt"
	"time"

	"github.com/beatfabric/hivebeat"
	"github.com/beatfabric/hivebeat/internal/liveness"
)

// This file judges workers by their connections. liveness.Closings keeps the windows.

// Disconnect records that a client of a server disconnected, whether or not it is a
// worker. Everything that arrived before must have been received first.
func (r *Registry) Disconnect(now time.Time, d liveness.Disconnect) liveness.Noted {
	return r.closings.Disconnect(now, d, func(w *worker) time.Duration {
		if !w.counted() {
			return 0
		}
		return liveness.WindowOf(w.facts.RW.Duration())
	})
}

// KnowsConn reports whether any beat or record has named the connection.
func (r *Registry) KnowsConn(conn string) bool { return r.closings.Knows(conn) }

// counted reports whether w can still be lost.
func (w *worker) counted() bool { return w.live == hivebeat.Alive || w.live == hivebeat.Late }

// SettleDisconnects records that everything in flight at upTo has been received. It
// reports whether later windows need another call.
func (r *Registry) SettleDisconnects(upTo time.Time) (more bool) { return r.closings.Settle(upTo) }

// ForgetDisconnects closes all windows, and no worker is lost for them. The owner calls
// it when it was cut off from the disconnect events.
func (r *Registry) ForgetDisconnects() { r.closings.Forget() }

// VouchDisconnects records that a token which the owner sent at upTo returned by the
// path by.
func (r *Registry) VouchDisconnects(upTo time.Time, by liveness.Path) { r.closings.Vouch(upTo, by) }

// SetOwn names the server that runs in the owner's process.
func (r *Registry) SetOwn(server string) { r.closings.SetOwn(server) }

// TakeClosed reports whether, since the last call, Closed was set in any record, or
// cleared in any. Neither makes a step.
func (r *Registry) TakeClosed() (set, cleared bool) {
	for _, w := range r.closings.TakeMoved() {
		if r.closings.Has(w) {
			set = true
		} else if w.counted() {
			cleared = true
		}
	}
	return set, cleared
}

// TakeAsk reports whether, since the last call, workers became due to be asked for a
// beat.
func (r *Registry) TakeAsk() bool { return len(r.closings.TakeAsk()) > 0 }

// link follows the connection of w after a beat.
func (r *Registry) link(w *worker, begins bool) {
	if w.conn != w.facts.Conn {
		r.closings.Move(w, w.conn, w.facts.Conn)
		w.conn = w.facts.Conn
	}
	r.closings.Heard(w, w.conn, begins || w.facts.State.Goodbye())
}

// unlink drops the window and the connection of w.
func (r *Registry) unlink(w *worker) {
	r.closings.Close(w)
	r.closings.Move(w, w.conn, "")
	w.conn = ""
}

// DetectClosed declares each worker lost whose window has ended. It is the part of Detect
// that does not depend on silence.
func (r *Registry) DetectClosed(now time.Time) {
	for w, win := range r.closings.Due(now) {
		if !w.counted() { // meanwhile lost or left for another cause
			continue
		}
		w.lostAt = win.Over
		s := r.become(now, w, hivebeat.Lost, hivebeat.CauseDisconnect, hivebeat.KindLost, now.Sub(w.heard))
		s.Reason = fmt.Sprintf("its connection closed (%.80s) and it did not reconnect within %s", win.Reason, win.Length)
		r.sawEnd(w, s, now.Sub(win.At))
		r.deadlines.Set(w, now.Add(hivebeat.KeepGone))
	}
}
