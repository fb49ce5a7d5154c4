package detector

import (
	"fmt"
	"time"

	"github.com/beatfabric/hivebeat"
	"github.com/beatfabric/hivebeat/internal/liveness"
)

// How a worker is lost by its connection: the windows are those of
// liveness.Closings.

// Disconnect notes that a client of a server disconnected, whoever it is. All that
// was heard before must have been received.
func (r *Registry) Disconnect(now time.Time, d liveness.Disconnect) liveness.Noted {
	return r.closings.Disconnect(now, d, func(w *worker) time.Duration {
		if !w.counted() {
			return 0
		}
		return liveness.WindowOf(w.facts.RW.Duration())
	})
}

// KnowsConn reports whether a beat or a record ever named the connection.
func (r *Registry) KnowsConn(conn string) bool { return r.closings.Knows(conn) }

// counted reports whether w can still be lost.
func (w *worker) counted() bool { return w.live == hivebeat.Alive || w.live == hivebeat.Late }

// SettleDisconnects says that what was on its way at the given time has been received. It
// reports whether there are later windows, which need another of it.
func (r *Registry) SettleDisconnects(upTo time.Time) (more bool) { return r.closings.Settle(upTo) }

// ForgetDisconnects closes all windows, and nobody is lost for them: who hears of
// disconnects was cut off itself.
func (r *Registry) ForgetDisconnects() { r.closings.Forget() }

// VouchDisconnects says that a token of the owner, sent at the given time, returned by
// that path.
func (r *Registry) VouchDisconnects(upTo time.Time, by liveness.Path) { r.closings.Vouch(upTo, by) }

// SetOwn names the server that runs in the owner's process.
func (r *Registry) SetOwn(server string) { r.closings.SetOwn(server) }

// TakeClosed reports whether Closed of a record changed since the last call, without a
// step: some were set, some were cleared.
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

// TakeAsk reports whether workers are to be asked to beat now, since the last call.
func (r *Registry) TakeAsk() bool { return len(r.closings.TakeAsk()) > 0 }

// link follows the connection of w, which was heard.
func (r *Registry) link(w *worker, begins bool) {
	if w.conn != w.facts.Conn {
		r.closings.Move(w, w.conn, w.facts.Conn)
		w.conn = w.facts.Conn
	}
	r.closings.Heard(w, w.conn, begins || w.facts.State.Goodbye())
}

// unlink lets w go.
func (r *Registry) unlink(w *worker) {
	r.closings.Close(w)
	r.closings.Move(w, w.conn, "")
	w.conn = ""
}

// DetectClosed judges those whose window is over. It is Detect without silence.
func (r *Registry) DetectClosed(now time.Time) {
	for w, win := range r.closings.Due(now) {
		if !w.counted() { // lost or left for another cause meanwhile
			continue
		}
		w.lostAt = win.Over
		s := r.become(now, w, hivebeat.Lost, hivebeat.CauseDisconnect, hivebeat.KindLost, now.Sub(w.heard))
		s.Reason = fmt.Sprintf("its connection closed (%.80s) and it did not come back within %s", win.Reason, win.Length)
		r.sawEnd(w, s, now.Sub(win.At))
		r.deadlines.Set(w, now.Add(hivebeat.KeepGone))
	}
}
