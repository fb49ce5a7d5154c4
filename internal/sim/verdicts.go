package sim

import (
	"strings"
	"time"

	"github.com/beatfabric/hivebeat"
	"github.com/beatfabric/hivebeat/internal/detector"
	"github.com/beatfabric/hivebeat/internal/fleet"
)

// judged holds a hive's verdict on a worker against the truth.
func (t *truth) judged(h *hive, s *detector.Step) {
	t.moves[move{&h.proc, s.Worker, s.N}] = t.w.now
	switch s.Kind {
	case hivebeat.KindStalled:
		t.toldStalled(h, s)
		return
	case hivebeat.KindState, hivebeat.KindConflict:
		return
	case hivebeat.KindLost, hivebeat.KindLeft, hivebeat.KindRestarted:
		h.known.of(h.id + "/" + s.Worker).stalled = false // without a word
	}
	id := h.id + "/" + s.Worker
	if s.Kind == hivebeat.KindJoined { // its record was gone, and with it what was known of others
		h.known.of(id).before = nil
	}
	t.turns(&h.proc, h.known.of(id), hivebeat.Live(s.To), s.Inc)
	l := life{id, s.Inc}
	if p := t.procs[l]; p != nil && (s.Kind == hivebeat.KindLost || s.Kind == hivebeat.KindLeft) {
		h.gone[p] = t.w.now
	}
	if s.Kind != hivebeat.KindLost {
		return
	}
	switch s.Cause {
	case hivebeat.CauseMissed:
		t.lost(&h.proc, l, h.born)
	case hivebeat.CauseExit:
		t.lostByExit(h, l)
	case hivebeat.CauseDisconnect:
		t.gaveUp[l] = true
		t.lostByClosing(h, l, s)
	}
}

// judgedHive holds a queen's verdict on a hive against the truth.
func (t *truth) judgedHive(q *queen, s *fleet.Step) {
	if s.Kind == hivebeat.KindConflict {
		return
	}
	t.turns(&q.proc, q.known.of(s.Hive), s.To, s.Inc)
	t.back(q, s)
	if s.Kind != hivebeat.KindLost {
		return
	}
	if strings.HasPrefix(s.Reason, "as another queen") {
		t.talkedDown(q, s)
		return
	}
	switch s.Cause {
	case hivebeat.CauseMissed:
		t.lost(&q.proc, life{s.Hive, s.Inc}, q.born)
	case hivebeat.CauseDisconnect:
		t.hiveLostByClosing(q, life{s.Hive, s.Inc})
	}
}

// told holds a queen's own verdict on a worker that its hive does not list against
// the truth.
func (t *truth) told(q *queen, e *fleet.Happened) {
	d := &e.Data
	t.w.trace(q.name, "has to tell %s: %s is %s, %s to %s", e.ID, d.Worker, d.Kind, d.From, d.To)
	if d.Kind != hivebeat.KindLost || d.Via != hivebeat.ViaQueen || d.Cause != hivebeat.CauseMissed {
		return
	}
	// Not in a complete snapshot: its hive had to be able to hear it for as long.
	for _, h := range t.w.hives {
		if h.id == d.Hive && h.inc == d.HiveInc {
			t.absent(q, h, d)
		}
	}
}

// absent is about a worker that a snapshot of h does not list.
func (t *truth) absent(q *queen, h *hive, d *hivebeat.EventData) {
	l := life{d.Hive + "/" + d.Worker, d.Inc}
	built := t.built[lifeSeq{life{h.id, h.inc}, q.view.Hive(h.id).Head().Seq}]
	if at, ok := t.first[hearing{&h.proc, l}]; ok && at < built-h.blind(at, built)-unseen {
		t.w.breaks(NoFalseDeath, "%s incarnation %d is given up by %s for not being listed by its hive, which heard it %v before that", l.ident, l.inc, q.name, built-at)
		return
	}
	// What of it the queen knows last is what it has to wait for.
	r := q.view.Hive(d.Hive).Worker(d.Worker).Record()
	a := arrival{every: t.w.plan.WorkerEvery.D(), quiet: t.quiets[lifeSeq{l, r.Seq}]}
	_, heard := t.seqs[heardSeq{hearing{&q.proc, l}, r.Seq, 0}]
	if r.Seq == 0 || t.w.plan.Before > 0 && !heard { // by the roster, where one of before may not have said
		a.quiet = r.Quiet.Duration()
	}
	if waited := t.w.now - h.born; waited < lostAfter(a.every, a.quiet)-readTime {
		t.w.breaks(NoFalseDeath, "%s incarnation %d is given up by %s for not being listed by its hive, which began %v ago, want %v",
			l.ident, l.inc, q.name, waited, lostAfter(a.every, a.quiet))
	}
}

// lost holds it against the truth that by gave somebody up for silence.
func (t *truth) lost(by *proc, l life, since time.Duration) {
	a, ok := t.last[hearing{by, l}]
	if !ok { // known from memory alone
		a = arrival{at: since, every: t.w.plan.HiveEvery.D()}
	}
	t.lostBy(by, l, since, a)
}

// lostAfter is how long a silence has to be, in the words of the contract and not
// of the code that is looked at.
func lostAfter(every, quiet time.Duration) time.Duration { return max(every, quiet) + 2*every }

// deafFor is how long a connection may have been dead, and nobody knows, when
// somebody is given up for silence: half a second passes before who judges asks
// whether he hears, and what was on its way may still come in.
const deafFor = 500*time.Millisecond + readTime

// readTime is how long what is in a socket may take to be read.
const readTime = 30 * time.Millisecond

func (t *truth) lostBy(by *proc, l life, began time.Duration, a arrival) {
	now := t.w.now
	if b, ok := t.last[hearing{by, l}]; ok {
		began = max(began, b.at)
	}
	from := max(a.at, began)
	deaf := deafFor
	if _, ok := by.self.(*queen); ok {
		deaf += askWithin // the key is read meanwhile
	}
	if by.deaf() > deaf {
		t.w.breaks(NoFalseDeath, "%s incarnation %d is given up by %s, whose connection has been dead for %v", l.ident, l.inc, by.name, by.deaf())
		return
	}
	patience := lostAfter(a.every, a.quiet)
	silent := now - from - by.blind(from, now)
	if silent < patience-readTime {
		t.w.breaks(NoFalseDeath, "%s incarnation %d is given up by %s after a silence of %v that it could have heard, want %v",
			l.ident, l.inc, by.name, silent, patience)
		return
	}
	p := t.procs[l]
	if p == nil || !p.alive() || !t.w.plan.Guaranteed() {
		return
	}
	window := now - patience - 2*time.Second
	if by.born > window || p.born > window || p.bothered(window, now, true) || by.bothered(window, now, false) || t.usurped(l) {
		return
	}
	t.w.breaks(NoFalseDeath, "%s incarnation %d is given up by %s and lives: it had no trouble, and neither had the network", l.ident, l.inc, by.name)
}

// usurped reports whether more than one process uses this id, or the place of this
// one was taken by another: what it sends is refused.
func (t *truth) usurped(l life) bool {
	n := 0
	for k := range t.procs {
		if k.ident == l.ident && k.inc != l.inc && t.procs[k].born >= t.procs[l].born {
			n++
		}
	}
	if n > 0 {
		return true
	}
	for k, p := range t.procs { // one that still lives
		if k.ident == l.ident && k.inc != l.inc && (p.alive() || k.inc > l.inc) {
			return true
		}
	}
	return false
}
