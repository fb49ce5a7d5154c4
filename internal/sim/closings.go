package sim

import (
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/beatfabric/hivebeat"
	"github.com/beatfabric/hivebeat/bus"
	"github.com/beatfabric/hivebeat/internal/liveness"
)

// How a server tells all who listen to its system account of connections that close,
// and what is held against observers that judge by that. It is optional in a plan, so
// that silence is simulated alone too.

// connection is one of a client to a server.
type connection struct {
	name   string
	server int
	of     *proc // nil: of a stranger
	since  time.Duration
	closed time.Duration // when it closed with evidence that its client ended; 0: it did not
}

// dial makes a connection for a process, or for a stranger where that is nil.
func (w *world) dial(of *proc) *connection {
	w.dialed++
	return &connection{name: fmt.Sprintf("s%d/%d", w.server, w.dialed), server: w.server, of: of, since: w.now}
}

// connect gives p a connection of its own name.
func (p *proc) connect() {
	p.conn = p.w.dial(p)
	p.w.conns[p.conn.name] = p.conn
}

// closing is what a server tells of a connection that closed.
type closing struct {
	*connection
	reason   string
	evidence bool
	lived    time.Duration
}

// said is that as package bus reads it.
func (c closing) said() liveness.Disconnect {
	d := bus.Disconnect{Reason: c.reason, Lived: c.lived}
	return liveness.Disconnect{Server: fmt.Sprintf("s%d", c.server), Conn: c.name, Reason: c.reason, Evidence: c.evidence, Passing: d.Passing()}
}

// closes lets the server tell that the connection of a process closed, and for which
// reason. What it tells may be late, overtaken or lost.
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

// strangers are clients that are no processes of the fabric, for as long as a fault
// says.
func (w *world) strangers(r *rand.Rand, f *Fault) {
	if w.plan.Closings == 0 {
		return
	}
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

// advise has all who listen to the system account hear of a connection that closed.
func (w *world) advise(r *rand.Rand, c closing) {
	listening := w.observers()
	if !w.plan.HiveClosings {
		listening = listening[:len(w.hives)]
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

// stale lets the server find out after a while that nobody answers.
func (w *world) stale(p *proc) {
	c := p.conn
	w.at(w.now+between(w.ends, 10*time.Second, pingLimit), func() {
		if p.conn != c || p.cuts > 0 || !p.alive() { // it has another one by now, or still does not answer
			w.closes(c, "Stale Connection", false)
		}
	})
}

// heardClosing is a closing that an observer has heard of.
type heardClosing struct {
	closing
	at     time.Duration
	counts bool // it is known to count against its server
	may    bool // it may
}

// hears tells the core of a connection that closed.
func (o *observer) hears(c closing) {
	o.drive(func(now time.Time) {
		o.judge.Closed(now, c.said())
		if o.noticed || o.doubt() {
			return
		}
		var a arrival
		ours := false // it is one of those that the observer judges
		if c.of != nil {
			s := o.known.of(c.of.ident)
			a = o.linked[c.of.life]
			ours = a.conn == c.name && s.inc == c.of.inc && s.lives()
		}
		certain := ours && a.at < o.w.now-readTime // nothing else can be in its records
		passing := c.reason == "Client Closed" && c.lived < 10*time.Second
		o.closings = append(o.closings, heardClosing{c, o.w.now, certain || !passing, c.of != nil || !passing})
		if ours && c.evidence && !c.of.alive() {
			o.checkEndIsTold(c, a.seq)
		}
	})
}

// heardOf returns when the observer heard first that a connection closed, if it did
// not forget it.
func (o *observer) heardOf(conn string) (at time.Duration, ok bool) {
	for _, c := range o.closings[o.forgotten:] {
		if c.evidence && c.name == conn {
			return c.at, true
		}
	}
	return 0, false
}

// mass is how many clients of one server disconnected within a second, where that
// closes a window which opened then: of those that count, or that may, where it is
// not certain.
func (o *observer) mass(server int, opened time.Duration, certain bool) int {
	counts := func(c *heardClosing) bool {
		return c.server == server && (c.counts || c.may && !certain)
	}
	for at := o.forgotten; at < len(o.closings) && o.closings[at].at <= opened; at++ {
		first, n, last := &o.closings[at], 0, time.Duration(0)
		if !counts(first) {
			continue
		}
		for i := at; i < len(o.closings) && o.closings[i].at-first.at <= time.Second; i++ {
			if counts(&o.closings[i]) {
				n++
				last = o.closings[i].at
			}
		}
		if n > 3 && last >= opened {
			return n
		}
	}
	return 0
}

// windowOf is how long a process may take to come back, in the words of the contract.
func windowOf(rw time.Duration) time.Duration {
	if rw > 0 && rw <= 500*time.Millisecond {
		return 2 * time.Second
	}
	return 5 * time.Second
}

// lostByClosing holds it against the truth that the observer gives l up for its
// connection, whose window was open for that long.
func (o *observer) lostByClosing(l life, open time.Duration) {
	w, now, a := o.w, o.w.now, o.linked[l]
	fail := func(format string, args ...any) {
		o.wrongly(l, " for its connection %s, "+format, append([]any{a.conn}, args...)...)
	}
	p, c := w.lives[l], w.conns[a.conn]
	opened, heard := o.heardOf(a.conn)
	switch {
	case a.at >= now-readTime && a.seq > o.knows(l): // not read yet
		return
	case p == nil || c == nil || c.closed == 0:
		fail("which did not close")
		return
	case !heard: // or forgot, as it was cut off itself, or in doubt
		fail("of which it does not know that it closed")
	case open < windowOf(p.rw):
		fail("after a window of %v, want %v", open, windowOf(p.rw))
	case a.sent > c.closed && a.at < now-readTime:
		fail("which closed %v ago, and sent since what came in %v ago", now-c.closed, now-a.at)
	}
	if n := o.mass(c.server, opened, true); n > 0 {
		fail("though %d of that server closed within a second", n)
	}
	// It was back in time if its messages had a second, and a network that loses nothing.
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

// wardLostByClosing is the same of a worker that a queen judged: it is about to tell
// that.
func (q *queen) wardLostByClosing(d *hivebeat.EventData) {
	w, now, l := q.w, q.w.now, life{d.Hive + "/" + d.Worker, d.Inc}
	if d.Worker == "" || d.Kind != hivebeat.KindLost || d.Cause != hivebeat.CauseDisconnect || d.Via != hivebeat.ViaQueen ||
		w.gaveUp[l] { // its hive did, and the roster does not know
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

// checkEndIsTold looks later whether a process that ended, and whose connection the
// observer just heard close, is given up by its bound, whatever else comes and goes at
// that server. seq is of its newest message.
func (o *observer) checkEndIsTold(c closing, seq uint64) {
	w, l, s, heard := o.w, c.of.life, o.known.of(c.of.ident), o.w.now
	bound := 100 * time.Millisecond
	if o.asking > 0 { // the key is read, and what is said to the observer is heard
		bound = o.asking + time.Second
	}
	at := heard + windowOf(c.of.rw) + bound
	w.at(at, func() {
		n := w.plan.Net
		opened, known := o.heardOf(c.name)
		switch {
		case !o.alive() || !known || opened != heard || o.bothered(heard-5*time.Second, at, true):
		case s.inc != l.inc || !s.lives():
		case n.Loss > 0 || n.Dup > 0 || n.Reorder > 0 || n.Delay.D()+n.Jitter.D() > 100*time.Millisecond || o.knows(l) != seq:
		case o.mass(c.server, heard, false) > 0:
		default:
			w.breaks(DeathTold, "%s incarnation %d ended, %s heard %v ago that its connection closed, and says %s", l.ident, l.inc, o.name, w.now-heard, s.live)
		}
	})
}
