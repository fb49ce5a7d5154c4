package sim

import (
	"time"

	"github.com/beatfabric/hivebeat"
	"github.com/beatfabric/hivebeat/internal/fleet"
)

// hearsClosed is told by a server of a connection that closed.
func (q *queen) hearsClosed(c closing) {
	if q.noticed {
		return
	}
	q.drive(func(now time.Time) {
		q.core.Closed(now, c.said())
		if !q.view.Doubts() {
			q.heard.hear(q.w.now, c, q.w.truth.linkedTo(&q.proc, q.known, c))
			q.w.truth.hiveClosed(q, c)
		}
	})
}

// windowOf is how long somebody may take to come back, in the words of the contract.
func windowOf(rw time.Duration) time.Duration {
	if rw > 0 && rw <= 500*time.Millisecond {
		return 2 * time.Second
	}
	return 5 * time.Second
}

// hiveLostByClosing holds a queen's verdict on a hive by its connection against the
// truth.
func (t *truth) hiveLostByClosing(q *queen, l life) {
	w, now := t.w, t.w.now
	a, ok := t.linked[hearing{&q.proc, l}]
	closed, told := t.closed[a.conn]
	fail := func(format string, args ...any) {
		w.breaks(NoFalseDeath, "%s incarnation %d is given up by %s for its connection %s, "+format, append([]any{l.ident, l.inc, q.name, a.conn}, args...)...)
	}
	opened, heard := q.heard.of(a.conn)
	want := windowOf(a.rw)
	switch {
	case ok && a.at >= now-readTime: // not read yet
		return
	case !ok || !told || closed > now:
		fail("which did not close")
	case !heard:
		fail("of which it does not know that it closed")
	case now-opened < want:
		fail("after a window of %v, want %v", now-opened, want)
	}
	if n := q.heard.mass(serverOf(a.conn), opened, true); n > 0 {
		fail("though %d of that server closed within a second", n)
		return
	}
	t.cameBack(&q.proc, l, closed, want, fail)
}

// wardLostByClosing is the same of a worker that a queen judged: it is about to tell
// that.
func (t *truth) wardLostByClosing(q *queen, d *hivebeat.EventData) {
	if d.Worker == "" || d.Kind != hivebeat.KindLost || d.Cause != hivebeat.CauseDisconnect || d.Via != hivebeat.ViaQueen {
		return
	}
	w, now := t.w, t.w.now
	l := life{d.Hive + "/" + d.Worker, d.Inc}
	if t.gaveUp[l] { // its hive did, and the roster does not know
		return
	}
	a := t.last[hearing{&q.proc, l}]
	p := t.procs[l]
	for _, c := range q.heard.list {
		closed, told := t.closed[c.String()]
		if told && p != nil && t.owner[c.String()] == p && now-c.at >= windowOf(p.rw) && (a.sent <= closed || a.at >= now-readTime) {
			return
		}
	}
	w.breaks(NoFalseDeath, "%s incarnation %d is given up by %s for a connection that did not close, or was heard since", l.ident, l.inc, q.name)
}

// hiveClosed looks whether a hive whose end a queen heard of is lost by its bound.
func (t *truth) hiveClosed(q *queen, c closing) {
	w, p, heard := t.w, t.owner[c.String()], t.w.now
	if !c.evidence || p == nil || p.alive() {
		return
	}
	h, ok := p.self.(*hive)
	if !ok {
		return
	}
	l := life{h.id, h.inc}
	a, ok := t.linked[hearing{&q.proc, l}]
	if s := q.known.of(h.id); !ok || a.conn != c.String() || s.inc != h.inc || s.live != hivebeat.Alive && s.live != hivebeat.Late {
		return
	}
	// Besides the window: the key is read, and what is said to the queen is heard.
	at := heard + windowOf(p.rw) + askWithin + time.Second
	w.at(at, func() {
		s, v, n := q.known.of(h.id), q.view.Hive(h.id), w.plan.Net
		opened, known := q.heard.of(c.String())
		switch {
		case !q.alive() || v == nil || !known || opened != heard || q.bothered(heard-5*time.Second, at, true):
		case s.inc != h.inc || s.live != hivebeat.Alive && s.live != hivebeat.Late:
		case n.Loss > 0 || n.Dup > 0 || n.Reorder > 0 || n.Delay.D()+n.Jitter.D() > 100*time.Millisecond || v.Seq() != a.seq:
		case q.heard.mass(c.server, heard, false) > 0:
		default:
			w.breaks(DeathTold, "%s incarnation %d ended, %s heard %v ago that its connection closed, and says %s", h.id, h.inc, q.name, w.now-heard, s.live)
		}
	})
}

// back holds it against the truth how a queen counts a hive that it had given up,
// and that is back: as cut off, if messages of it did not come meanwhile.
func (t *truth) back(q *queen, s *fleet.Step) {
	score := q.view.Score()
	was := q.score
	q.score = score
	m := q.proc.reading
	if s.Kind != hivebeat.KindRecovered || s.From != hivebeat.Lost || m == nil || m.topic != topicSnapshot || m.hive != s.Hive || m.inc != s.Inc || q.gap == 0 {
		return
	}
	if falsely, cutOff := score.FalseDead-was.FalseDead, score.CutOff-was.CutOff; falsely+cutOff == 1 && (cutOff == 1) != (q.gap > 1) {
		t.w.breaks(Sound, "%s counts %s as cut off: %t, and %d messages of it were missing", q.name, s.Hive, cutOff == 1, q.gap-1)
	}
}
