package detector

import (
	"fmt"
	"slices"
	"time"

	"github.com/beatfabric/hivebeat"
	"github.com/beatfabric/hivebeat/internal/liveness"
)

// A connection that closes is no death: it may have moved. Who does not come back
// within a window is lost.
//
//	                     another disconnects of that server: more than 3 within 1 s
//	        its connection closes   ┌──────────▶ (none: it was the server)
//	alive, late ──────────────▶ window ─────────────────────────▶ lost (disconnect)
//	        ▲                       │           it is over
//	        └─── any beat ──────────┘
const (
	// Window is how long a worker may take to come back after its connection
	// closed: nats.go's default takes 2.0 to 2.1 s. FastWindow is that of one whose
	// reconnect wait is at most FastReconnect.
	Window        = 5 * time.Second
	FastWindow    = 2 * time.Second
	FastReconnect = 500 * time.Millisecond

	// More than MassDisconnects of one server within MassWithin are the server's.
	MassDisconnects = 3
	MassWithin      = time.Second

	// AskBefore is how long before the end of a window those who may have come back
	// unheard are to be asked to beat: one lost beat kills nobody.
	AskBefore = 1250 * time.Millisecond

	maxServers = 64 // whose last disconnects are remembered, beyond those of the last second
)

// Disconnect says that a client's connection to a NATS server closed.
type Disconnect struct {
	Server string // its id
	Conn   string // as in the conn of beats
	Reason string // in the server's words
	// Evidence says that the client may have ended. Where not, because the server
	// did, or for silence, which has a deadline of its own, it is counted only.
	Evidence bool
}

// links is what the registry knows of its workers' connections.
type links struct {
	of     map[string][]*worker // by conn: several workers may share one
	open   map[*worker]window
	due    liveness.Deadlines[*worker] // asking, or the end of the window
	recent map[string]*recent          // by server
	ask    bool                        // nobody took it yet
}

// window is open for a worker whose connection closed.
type window struct {
	Disconnect
	at      time.Time // when it opened
	length  time.Duration
	settled bool // a beat over the closed connection can not be on its way any more
	asked   bool
}

// recent is when the last clients of a server disconnected, the oldest first.
type recent [MassDisconnects]time.Time

func (l *links) init() {
	l.of, l.open, l.recent = make(map[string][]*worker), make(map[*worker]window), make(map[string]*recent)
}

// Disconnect notes that a client of a server disconnected, whoever it is. All that
// was heard before must have been received. It reports whether it opened a window
// for a worker: then Settle is to follow.
func (r *Registry) Disconnect(now time.Time, d Disconnect) (opened bool) {
	if r.links.mass(now, d.Server) {
		for w, win := range r.links.open {
			if win.Server == d.Server && now.Sub(win.at) <= MassWithin {
				r.links.close(w)
			}
		}
		return false
	}
	if !d.Evidence {
		return false
	}
	for _, w := range r.links.of[d.Conn] {
		if _, ok := r.links.open[w]; ok || !w.counted() {
			continue
		}
		win := window{Disconnect: d, at: now, length: Window}
		if rw := w.facts.RW.Duration(); rw > 0 && rw <= FastReconnect {
			win.length = FastWindow
		}
		r.links.open[w] = win
		r.links.due.Set(w, now.Add(win.length-AskBefore))
		opened = true
	}
	return opened
}

// counted reports whether w can still be lost.
func (w *worker) counted() bool { return w.live == hivebeat.Alive || w.live == hivebeat.Late }

// mass notes a disconnect, and reports whether there were too many.
func (l *links) mass(now time.Time, server string) bool {
	last := l.recent[server]
	if last == nil {
		if len(l.recent) >= maxServers {
			for id, other := range l.recent {
				if now.Sub(other[MassDisconnects-1]) > MassWithin {
					delete(l.recent, id)
				}
			}
		}
		last = new(recent)
		l.recent[server] = last
	}
	oldest := last[0]
	copy(last[:], last[1:])
	last[MassDisconnects-1] = now
	return !oldest.IsZero() && now.Sub(oldest) <= MassWithin
}

// Settle says that what was on its way at the given time has been received: a beat
// that is heard from now on was sent after each disconnect up to then. Until that
// is known one over the closed connection proves nothing. It reports whether there
// are later windows, which need another Settle.
func (r *Registry) Settle(upTo time.Time) (more bool) {
	for w, win := range r.links.open {
		switch {
		case win.settled:
		case win.at.After(upTo):
			more = true
		default:
			win.settled = true
			r.links.open[w] = win
		}
	}
	return more
}

// ForgetDisconnects closes all windows, and nobody is lost for them: who hears of
// disconnects was cut off itself.
func (r *Registry) ForgetDisconnects() {
	for w := range r.links.open {
		r.links.close(w)
	}
	clear(r.links.recent)
	r.links.ask = false
}

// TakeAsk reports whether workers are to be asked to beat now, since the last call.
func (r *Registry) TakeAsk() bool {
	ask := r.links.ask
	r.links.ask = false
	return ask
}

// link follows the connection of w, which was heard.
func (r *Registry) link(w *worker, begins bool) {
	if w.conn != w.facts.Conn {
		r.links.unlink(w)
		if w.conn = w.facts.Conn; w.conn != "" {
			r.links.of[w.conn] = append(r.links.of[w.conn], w)
		}
	}
	if len(r.links.open) == 0 {
		return
	}
	if win, ok := r.links.open[w]; ok && (win.settled || begins || win.Conn != w.conn || w.facts.State.Goodbye()) {
		r.links.close(w)
	}
}

func (l *links) close(w *worker) {
	delete(l.open, w)
	l.due.Remove(w)
}

func (l *links) unlink(w *worker) {
	if w.conn == "" {
		return
	}
	list := slices.DeleteFunc(l.of[w.conn], func(o *worker) bool { return o == w })
	if len(list) == 0 {
		delete(l.of, w.conn)
	} else {
		l.of[w.conn] = list
	}
	w.conn = ""
}

// forget lets w go.
func (l *links) forget(w *worker) {
	l.close(w)
	l.unlink(w)
}

// detectClosed judges those whose window is over.
func (r *Registry) detectClosed(now time.Time) {
	for w, at := range r.links.due.Due(now) {
		win := r.links.open[w]
		if !win.asked {
			win.asked, r.links.ask = true, true
			if at = at.Add(AskBefore); at.After(now) {
				r.links.open[w] = win
				r.links.due.Set(w, at)
				continue
			}
		}
		delete(r.links.open, w)
		if !w.counted() { // lost or left for another cause meanwhile
			continue
		}
		w.lostAt = at
		s := r.become(now, w, hivebeat.Lost, hivebeat.CauseDisconnect, hivebeat.KindLost, now.Sub(w.heard))
		s.Reason = fmt.Sprintf("its connection closed (%.80s) and it did not come back within %s", win.Reason, win.length)
		s.Detect = now.Sub(win.at)
		r.deadlines.Set(w, now.Add(hivebeat.KeepGone))
	}
}

// next returns the earlier of two deadlines.
func (l *links) next(at time.Time, ok bool) (time.Time, bool) {
	own, is := l.due.Next()
	if is && (!ok || own.Before(at)) {
		return own, true
	}
	return at, ok
}
