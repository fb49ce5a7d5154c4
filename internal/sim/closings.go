package sim

import (
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/beatfabric/hivebeat"
	"github.com/beatfabric/hivebeat/internal/core"
	"github.com/beatfabric/hivebeat/internal/link"
	"github.com/beatfabric/hivebeat/internal/liveness"
)

// A server reports closed connections to the observers that subscribe in its system account.
// This file simulates that, and checks the verdicts that follow from it. Plans without
// Closings simulate silence alone.

// connection is a client's connection to a server.
type connection struct {
	name   string
	server int
	of     *proc // nil: of a foreign client
	since  time.Duration
	closed time.Duration // when it closed with evidence that its client ended; 0: it did not
}

// dial makes a connection of a process, or of a foreign client if of is nil.
func (w *world) dial(of *proc) *connection {
	w.dialed++
	return &connection{name: fmt.Sprintf("s%d/%d", w.server, w.dialed), server: w.server, of: of, since: w.now}
}

// connect gives p a new connection.
func (p *proc) connect() {
	p.conn = p.w.dial(p)
	p.w.conns[p.conn.name] = p.conn
}

// closing is a server's report of a closed connection.
type closing struct {
	*connection
	reason   string
	evidence bool
	lived    time.Duration
}

// said returns the closing as package link parses it.
func (c closing) said() liveness.Disconnect {
	d, host := link.Disconnect{Reason: c.reason, Lived: c.lived}, "elsewhere"
	if c.of != nil {
		host = c.of.slot.machine().name
	}
	return liveness.Disconnect{Server: fmt.Sprintf("s%d", c.server), Conn: c.name, Host: host, Reason: c.reason, Evidence: c.evidence, Passing: d.Passing()}
}

// closes makes the server report that the connection of a process closed, and why. The
// message may be late, overtaken or lost.
func (w *world) closes(c *connection, reason string, evidence bool) {
	if w.plan.Closings == 0 {
		return
	}
	if evidence {
		c.closed = w.now
	}
	w.trace("server", "connection %s of %s closed: %s", c.name, c.of.name, reason)
	w.advise(w.ends, closing{c, reason, evidence, w.now - c.since})
}

// strangers makes foreign clients come and go, for the duration of a fault.
func (w *world) strangers(r *rand.Rand, f *Fault) {
	end := min(w.now+f.For.D(), w.ending())
	for at := w.now; at < end; at += between(r, 0, 2*time.Second/time.Duration(max(1, f.N))) + 1 {
		lived, reason := between(r, time.Millisecond, f.By.D()), "Client Closed"
		if r.IntN(20) == 0 {
			reason = []string{"Authentication Failure", "Read Error", "Protocol Violation"}[r.IntN(3)]
		}
		w.at(at, func() {
			if w.serverGone > 0 {
				return
			}
			c := w.dial(nil)
			w.at(w.now+lived, func() {
				if c.server == w.server {
					w.advise(r, closing{c, reason, true, lived})
				}
			})
		})
	}
}

// advise sends a closing to the observers that subscribe in the system account.
func (w *world) advise(r *rand.Rand, c closing) {
	listening := w.observers()
	if !w.plan.HiveClosings {
		listening = listening[:len(w.hives)] // no queen
	}
	for _, o := range listening {
		late := between(r, 500*time.Microsecond, 5*time.Millisecond)
		if r.IntN(10) == 0 {
			late = between(r, 0, 3*time.Second)
		}
		if r.Float64() < w.net.Loss {
			continue
		}
		w.at(w.now+late, func() {
			if o.cuts == 0 && !o.noticed && o.deaf == 0 {
				o.after(0, func() { o.hears(c) })
			}
		})
	}
}

// stale makes the server find out after a while that the client of p does not answer.
func (w *world) stale(p *proc) {
	c := p.conn
	w.at(w.now+between(w.ends, 10*time.Second, pingLimit), func() {
		if p.conn != c || p.cuts > 0 || !p.alive() { // it has another connection by now, or still does not answer
			w.closes(c, "Stale Connection", false)
		}
	})
}

// heardClosing is a closing that an observer has received.
type heardClosing struct {
	closing
	at       time.Duration
	counts   bool // the observer certainly counts it against its server
	mayCount bool // the observer may count it
}

// hears reports a closed connection to the core.
func (o *observer) hears(c closing) {
	o.drive(func(now time.Time) {
		o.judge.Closed(now, c.said())
		if o.noticed || o.doubt() {
			return
		}
		var a arrival
		ours := false // the connection belongs to a process that the observer believes is alive
		if c.of != nil {
			s := o.known.of(c.of.ident)
			a = o.linked[c.of.life]
			ours = a.conn == c.name && s.inc == c.of.inc && s.lives()
		}
		certain := ours && a.at < o.w.now-readTime // it has read any newer record
		passing := c.reason == "Client Closed" && c.lived < 10*time.Second
		o.closings = append(o.closings, heardClosing{c, o.w.now, certain || !passing, c.of != nil || !passing})
		if ours && c.evidence && !c.of.alive() {
			o.checkEndIsTold(c, a.seq)
		}
	})
}

// heardOf returns when the observer first received the closing of a connection, unless it
// has forgotten it.
func (o *observer) heardOf(conn string) (at time.Duration, ok bool) {
	for _, c := range o.closings[o.forgotten:] {
		if c.evidence && c.name == conn {
			return c.at, true
		}
	}
	return 0, false
}

// shares reports whether o may believe that c, one of a batch, ended. It may after a longer
// window, if it is on the machine of c and connected to the same server.
func (o *observer) shares(c *connection, open time.Duration) bool {
	_, isHive := o.self.(*hive)
	return isHive && c.of.slot.machine() == o.slot.machine() && o.conn.server == c.server && open >= windowOf(c.of.rw)+2*time.Second
}

// mass returns how many connections of one server closed within a second, if that is enough
// to close a window that opened at opened. It counts those that certainly count, or all that
// may count.
func (o *observer) mass(server int, opened time.Duration, certain bool) int {
	counts := func(c *heardClosing) bool {
		return c.server == server && (c.counts || c.mayCount && !certain)
	}
	for at := o.forgotten; at < len(o.closings) && o.closings[at].at <= opened; at++ {
		before := opened // a pause after the window opened ends the batch
		first, n := &o.closings[at], 0
		if !counts(first) {
			continue
		}
		for i := at; i < len(o.closings) && o.closings[i].at-first.at <= time.Second; i++ {
			if counts(&o.closings[i]) {
				if certain && o.closings[i].at-max(before, opened) >= 250*time.Millisecond {
					break
				}
				n, before = n+1, o.closings[i].at
			}
		}
		if n > 3 && before >= opened {
			return n
		}
	}
	return 0
}

// windowOf is how long a process may take to come back, computed as in the protocol.
func windowOf(rw time.Duration) time.Duration {
	if rw > 0 && rw <= 500*time.Millisecond {
		return 2 * time.Second
	}
	return 5 * time.Second
}

// lostByClosing checks a verdict that l is lost because of its connection, after a window of
// the given length.
func (o *observer) lostByClosing(l life, open time.Duration) {
	w, now, a := o.w, o.w.now, o.linked[l]
	fail := func(format string, args ...any) {
		o.wrongly(l, " for its connection %s, "+format, append([]any{a.conn}, args...)...)
	}
	p, c := w.lives[l], w.conns[a.conn]
	opened, heard := o.heardOf(a.conn)
	switch {
	case a.at >= now-readTime && a.seq > o.knows(l): // the observer has not read it yet
		return
	case p == nil || c == nil || c.closed == 0:
		fail("which did not close")
		return
	case !heard: // or it forgot the closing, because it was cut off, deaf or in doubt since
		fail("which it does not know to have closed")
	case open < windowOf(p.rw):
		fail("after a window of %v, want %v", open, windowOf(p.rw))
	case a.sent > c.closed && a.at < now-readTime:
		fail("which closed %v ago, but a message sent since came in %v ago", now-c.closed, now-a.at)
	}
	if n := o.mass(c.server, opened, true); n > 0 && !o.shares(c, open) {
		fail("though %d of that server closed within a second", n)
	}
	// It was back in time if its messages had a second to arrive on a network without loss.
	if n := w.plan.Net; !p.alive() || n.Loss > 0 || n.Delay.D()+n.Jitter.D() > 100*time.Millisecond || o.bothered(c.closed, now, true) || w.usurped(l) {
		return
	}
	for _, t := range p.troubles {
		if t.end(now) >= c.closed && (t.pause || t.to < 0 || t.to > c.closed+windowOf(p.rw)-time.Second) {
			return
		}
	}
	fail("which closed %v ago, and it was back a second before its window was over", now-c.closed)
}

// adoptedLostByClosing checks an event of a queen, which judges the workers of a lost hive,
// before it is published: the worker is declared lost because of its connection.
func (q *queen) adoptedLostByClosing(d *hivebeat.EventData) {
	w, now, l := q.w, q.w.now, life{d.Hive + "/" + d.Worker, d.Inc}
	if d.Worker == "" || d.Kind != hivebeat.KindLost || d.Cause != hivebeat.CauseDisconnect || d.Via != hivebeat.ViaQueen ||
		w.gaveUp[l] { // its hive declared it lost, and the roster does not know
		return
	}
	p, a := w.lives[l], q.last[l]
	for _, c := range q.closings {
		if p != nil && c.of == p && c.closed > 0 && now-c.at >= windowOf(p.rw) && (a.sent <= c.closed || a.at >= now-readTime) {
			return
		}
	}
	q.wrongly(l, " for a connection that did not close, or was heard since")
}

// checkEndIsTold checks later whether a process that ended is declared lost within its bound,
// whatever else connects to or disconnects from that server. The observer has just received
// the closing of its connection. seq is that of its newest message.
func (o *observer) checkEndIsTold(c closing, seq uint64) {
	w, l, s, heard := o.w, c.of.life, o.known.of(c.of.ident), o.w.now
	bound := 100 * time.Millisecond
	batch := func() bool { return o.mass(c.server, heard, false) > 0 }
	if o.shares(c.connection, time.Hour) {
		bound, batch = bound+2*time.Second+core.SettleWithin, func() bool { return false }
	}
	if h, ok := o.self.(*hive); ok && o.known.of(c.of.ident).lives() && !o.bothered(heard-time.Second, heard, true) { // otherwise it may not have read which worker has the connection
		if rec, known := h.core.Record(w.time(), c.of.self.(*worker).id); known && rec.Inc == l.inc && !rec.Closed {
			w.breaks(DeathTold, "%s incarnation %d ended, %s heard that its connection closed, but its record does not show it", l.ident, l.inc, o.name)
		}
	}
	if o.asking > 0 { // the queen reads the key, maybe after another read that times out, and receives messages sent before that
		bound = 2*o.asking + time.Second
	}
	at := heard + windowOf(c.of.rw) + bound
	w.at(at, func() {
		n := w.plan.Net
		opened, known := o.heardOf(c.name)
		switch {
		case !o.alive() || !known || opened != heard || o.bothered(heard-5*time.Second, at, true), s.inc != l.inc || !s.lives():
		case n.Loss > 0 || n.Dup > 0 || n.Reorder > 0 || n.Delay.D()+n.Jitter.D() > 100*time.Millisecond || o.knows(l) != seq, batch():
		default:
			w.breaks(DeathTold, "%s incarnation %d ended, %s heard %v ago that its connection closed, but reports it as %s", l.ident, l.inc, o.name, w.now-heard, s.live)
		}
	})
}
