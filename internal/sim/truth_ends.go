package sim

import (
	"time"

	"github.com/beatfabric/hivebeat"
	"github.com/beatfabric/hivebeat/internal/detector"
	"github.com/beatfabric/hivebeat/internal/hivecore"
)

// heardClosing is a disconnect that a hive has heard of.
type heardClosing struct {
	at time.Duration
	connection
	evidence bool
	counts   bool // it is known to count against its server
	may      bool // it may
}

// heardClosings are those that an observer has heard of.
type heardClosings struct {
	list []heardClosing
	from int // those before were forgotten: it was cut off, or doubts what it hears
	deaf int // so many faults keep it from hearing
}

// hear notes a closing. known says that the observer knows for certain whose
// connection it was.
func (h *heardClosings) hear(at time.Duration, c closing, known bool) {
	passing := c.reason == "Client Closed" && c.lived < 10*time.Second
	h.list = append(h.list, heardClosing{at, c.connection, c.evidence, known || !passing, c.of != nil || !passing})
}

// linkedTo reports whether the observer knows for certain that the connection is one
// of those that it judges: nothing else can be in its records.
func (t *truth) linkedTo(o *proc, known sightings, c closing) bool {
	if c.of == nil {
		return false
	}
	l := life{c.of.ident, c.of.inc}
	a, ok := t.last[hearing{o, l}]
	if _, queen := o.self.(*queen); queen {
		a, ok = t.linked[hearing{o, l}]
	}
	s := known.of(l.ident)
	return ok && a.conn == c.String() && a.at < t.w.now-readTime && s.inc == l.inc && (s.live == hivebeat.Alive || s.live == hivebeat.Late)
}

func (h *heardClosings) forget() { h.from = len(h.list) }

// of returns when it heard first that a connection closed, if it did not forget it.
func (h *heardClosings) of(conn string) (time.Duration, bool) {
	for _, c := range h.list[h.from:] {
		if c.evidence && c.String() == conn {
			return c.at, true
		}
	}
	return 0, false
}

// mass is how many clients of one server disconnected within a second, where that
// closes a window which opened then: of those that count, or that may, where it is
// not certain.
func (h *heardClosings) mass(server string, opened time.Duration, certain bool) int {
	counts := func(c *heardClosing) bool {
		return c.server == server && (c.counts || c.may && !certain)
	}
	for at := h.from; at < len(h.list); at++ {
		first := &h.list[at]
		if first.at > opened {
			break
		}
		if !counts(first) {
			continue
		}
		n := 0
		var last time.Duration
		for i := at; i < len(h.list) && h.list[i].at-first.at <= time.Second; i++ {
			if counts(&h.list[i]) {
				n++
				last = h.list[i].at
			}
		}
		if n > 3 && last >= opened {
			return n
		}
	}
	return 0
}

// exitBound is how long after the end of a process its hive may take to say so: to
// see it, and to wait for its last words.
const exitBound = exitSeenMax + hivecore.LastWordsWithin + readTime

// How long a hive may keep the end of a worker to itself, whatever else it has to
// tell: it gathers ends, and of more than 20 in 10 s it tells two a second.
const (
	endGathered = 50 * time.Millisecond
	endPaced    = time.Second / 2
)

// endIsSaid looks whether an end that h has found leaves it in time.
func (t *truth) endIsSaid(h *hive) {
	w, found, recent := t.w, t.w.now, 0
	for _, at := range h.gone {
		if found-at < 10*time.Second {
			recent++
		}
	}
	bound := endGathered
	if recent >= 20 {
		bound = endPaced
	}
	w.at(found+bound, func() {
		if h.alive() && h.said < found && !h.bothered(found-time.Second, w.now, true) {
			w.breaks(DeathTold, "%s found %v ago that a worker is gone, and has told nobody", h.name, bound)
		}
	})
}

// lostByExit holds a verdict by the end of a process against the truth.
func (t *truth) lostByExit(h *hive, l life) {
	if p := t.procs[l]; p == nil || p.alive() {
		t.w.breaks(NoFalseDeath, "%s incarnation %d is given up by %s as its process ended, and it runs", l.ident, l.inc, h.name)
	}
}

// exitIsTold looks whether a hive that watches p says in time that it has ended.
func (t *truth) exitIsTold(h *hive, p *proc) {
	w, died, bound := t.w, t.w.now, exitBound
	if p.byBye {
		bound += max(0, p.flushed-died)
	}
	w.at(died+bound, func() {
		if !h.alive() || h.bothered(died, w.now, true) {
			return
		}
		s := h.known.of(p.ident)
		if s.inc == p.inc && (s.live == hivebeat.Alive || s.live == hivebeat.Late) && h.gone[p] == 0 {
			w.breaks(DeathTold, "the process of %s incarnation %d ended %v ago, and is %s to %s, which watches it", p.ident, p.inc, bound, s.live, h.name)
		}
	})
}

// lostByClosing holds a verdict by a connection that closed against the truth.
func (t *truth) lostByClosing(h *hive, l life, s *detector.Step) {
	w, now := t.w, t.w.now
	a, ok := t.last[hearing{&h.proc, l}]
	closed, told := t.closed[a.conn]
	fail := func(format string, args ...any) {
		w.breaks(NoFalseDeath, "%s incarnation %d is given up by %s for its connection %s, "+format, append([]any{l.ident, l.inc, h.name, a.conn}, args...)...)
	}
	opened := now - s.Detect
	want := 5 * time.Second
	if a.rw > 0 && a.rw <= 500*time.Millisecond {
		want = 2 * time.Second
	}
	switch {
	case !ok || !told || closed > now:
		fail("which did not close")
	case s.Detect < want:
		fail("after a window of %v, want %v", s.Detect, want)
	case a.sent > closed && a.at < now-readTime:
		fail("which closed %v ago, and sent since what came in %v ago", now-closed, now-a.at)
	}
	for i := range h.proc.troubles { // who is cut off himself closes all windows
		if t := &h.proc.troubles[i]; !t.pause && t.noticed > opened && t.noticed < now {
			fail("which closed, and was itself cut off %v ago", now-t.noticed)
		}
	}
	if n := h.heard.mass(serverOf(a.conn), opened, true); n > 0 {
		fail("though %d of that server closed within a second", n)
		return
	}
	t.cameBack(&h.proc, l, closed, want, fail)
}

// workerClosed looks whether a worker whose end its hive heard of is lost by its
// bound, whoever else comes and goes at that server.
func (t *truth) workerClosed(h *hive, c closing) {
	w, p, heard := t.w, c.of, t.w.now
	if !c.evidence || p == nil || p.alive() || !t.linkedTo(&h.proc, h.known, c) {
		return
	}
	l := life{p.ident, p.inc}
	a, s := t.last[hearing{&h.proc, l}], h.known.of(p.ident)
	if s.inc != l.inc || s.live != hivebeat.Alive && s.live != hivebeat.Late {
		return
	}
	at := heard + windowOf(p.rw) + 100*time.Millisecond
	w.at(at, func() {
		n := w.plan.Net
		opened, known := h.heard.of(c.String())
		switch {
		case !h.alive() || !known || opened != heard || h.bothered(heard-5*time.Second, at, true):
		case s.inc != l.inc || s.live != hivebeat.Alive && s.live != hivebeat.Late:
		case n.Loss > 0 || n.Dup > 0 || n.Reorder > 0 || n.Delay.D()+n.Jitter.D() > 100*time.Millisecond || t.last[hearing{&h.proc, l}].seq != a.seq:
		case h.heard.mass(c.server, heard, false) > 0:
		default:
			w.breaks(DeathTold, "%s incarnation %d ended, %s heard %v ago that its connection closed, and says %s", p.ident, l.inc, h.name, w.now-heard, s.live)
		}
	})
}

func serverOf(conn string) string {
	for i := range conn {
		if conn[i] == '/' {
			return conn[:i]
		}
	}
	return conn
}

// cameBack breaks where somebody who was back in time is given up: its messages had
// a second and a network that loses nothing.
func (t *truth) cameBack(h *proc, l life, closed, window time.Duration, fail func(string, ...any)) {
	n, p := t.w.plan.Net, t.procs[l]
	if p == nil || !p.alive() || n.Loss > 0 || n.Delay.D()+n.Jitter.D() > 100*time.Millisecond || h.bothered(closed, t.w.now, true) || t.usurped(l) {
		return
	}
	for i := range p.troubles {
		switch tr := &p.troubles[i]; {
		case tr.end(t.w.now) < closed:
		case tr.pause, tr.to < 0, tr.to > closed+window-time.Second:
			return
		}
	}
	fail("which closed %v ago, and it was back a second before its window was over", t.w.now-closed)
}
