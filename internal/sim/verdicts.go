package sim

import (
	"slices"
	"strings"
	"time"

	"github.com/beatfabric/hivebeat"
	"github.com/beatfabric/hivebeat/internal/detector"
	"github.com/beatfabric/hivebeat/internal/fleet"
)

// wrongly reports that the observer declares l lost, and why it must not.
func (o *observer) wrongly(l life, format string, args ...any) {
	o.w.breaks(NoFalseDeath, "%s incarnation %d is given up by %s"+format, append([]any{l.ident, l.inc, o.name}, args...)...)
}

// judged checks a hive's verdict on a worker.
func (h *hive) judged(s *detector.Step) {
	h.moves[move{s.Worker, s.N}] = h.w.now
	l := life{h.id + "/" + s.Worker, s.Inc}
	x := h.recalled(s.Worker)
	switch r, _ := h.core.Record(h.w.time(), s.Worker); s.Kind {
	case hivebeat.KindStalled:
		h.judgedStalled(x, s)
		return
	case hivebeat.KindConflict:
		h.together(x.id, s.Inc, r.Inc) // there is no event for a worker that it knew before it started again
		return
	case hivebeat.KindState:
		return
	case hivebeat.KindLooping:
		x.looping = s.To != ""
		if n := len(x.restarts); n < 3 || x.looping && x.restarts[n-1]-x.restarts[n-3] > 5*time.Minute || !x.looping && h.w.now-x.restarts[n-1] < 10*time.Minute {
			h.w.breaks(EventsOnce, "%s reports looping of %s as %t, but it restarted after %v", h.name, x.id, x.looping, x.restarts)
		}
		return
	case hivebeat.KindRestarted:
		if x.restarts = append(x.restarts, h.w.now); s.Damped != x.looping {
			h.w.breaks(EventsOnce, "%s restarted, and %s reports looping as %t: damped is %t", x.id, h.name, x.looping, s.Damped)
		}
		x.stalled = false
	case hivebeat.KindLost, hivebeat.KindLeft:
		if x.stalled = false; x.live == hivebeat.Live(s.To) { // without an event; the end was damped, and is published now
			return
		}
	case hivebeat.KindJoined: // its record was dropped, with its earlier incarnations
		x.before = nil
	}
	h.turns(x, hivebeat.Live(s.To), s.Inc)
	p := h.w.lives[l]
	if s.Kind == hivebeat.KindRecovered && h.ended[l] {
		h.w.breaks(NoResurrection, "%s incarnation %d recovered at %s, which saw its process end, by a message sent before", l.ident, l.inc, h.name)
	}
	if p != nil && (s.Kind == hivebeat.KindLost || s.Kind == hivebeat.KindLeft) {
		h.gone[p] = h.w.now
	}
	switch {
	case s.Kind != hivebeat.KindLost:
	case s.Cause == hivebeat.CauseMissed || s.Cause == hivebeat.CauseSilent:
		h.lostBySilence(l)
		if s.Cause == hivebeat.CauseSilent && p != nil && !p.alive() && h.w.now-p.died > exitBound && !h.bothered(p.died, h.w.now, true) {
			h.wrongly(l, " because its process runs, but it has ended")
		}
	case s.Cause == hivebeat.CauseExit || s.Cause == hivebeat.CauseOOM:
		h.ended[l] = true
		if p == nil || p.alive() {
			h.wrongly(l, " because its process ended, but it runs")
		}
	case s.Cause == hivebeat.CauseDisconnect:
		h.w.gaveUp[l] = true
		h.lostByClosing(l, s.Detect)
	}
}

// judged checks a queen's verdict on a hive.
func (q *queen) judged(s *fleet.Step) {
	l := life{s.Hive, s.Inc}
	if s.Kind == hivebeat.KindConflict {
		q.together(s.Hive, q.view.Hive(s.Hive).Conflicting(q.w.time()), s.Inc)
		return
	}
	q.turns(q.known.of(s.Hive), s.To, s.Inc)
	q.checkCutOff(s)
	switch {
	case s.Kind != hivebeat.KindLost:
	case strings.HasPrefix(s.Reason, "another queen found"):
		q.talkedDown(l)
	case s.Cause == hivebeat.CauseMissed:
		if a, st := q.last[l], q.w.store; q.w.plan.Replicas > 1 && st.away > 0 && st.turned < a.at+a.every {
			q.wrongly(l, ", which got no acknowledgement from a store of %d servers during the silence", q.w.plan.Replicas)
		}
		q.lostBySilence(l)
	case s.Cause == hivebeat.CauseDisconnect:
		opened, _ := q.heardOf(q.linked[l].conn)
		q.lostByClosing(l, q.w.now-opened)
	}
}

// judgedAdopted traces an event about a worker that a queen will publish, and checks the queen's
// verdict on a worker that its hive does not list.
func (q *queen) judgedAdopted(e *fleet.Happened) {
	d := &e.Data
	q.w.trace(q.name, "will publish %s: %s is %s, %s to %s", e.ID, d.Worker, d.Kind, d.From, d.To)
	if d.Kind != hivebeat.KindLost || d.Via != hivebeat.ViaQueen || d.Cause != hivebeat.CauseMissed {
		return
	}
	// The worker is missing in a complete snapshot. Its hive must have been able to hear it
	// for long enough.
	if p := q.w.lives[life{d.Hive, d.HiveInc}]; p != nil && p.alive() {
		q.lostByAbsence(p.self.(*hive), d)
	}
}

// lostByAbsence checks the verdict that a worker is lost because a snapshot of h does not
// list it.
func (q *queen) lostByAbsence(h *hive, d *hivebeat.EventData) {
	w, l := q.w, life{d.Hive + "/" + d.Worker, d.Inc}
	built := h.built[q.view.Index().Hive(d.Hive).Head().Seq]
	if at, ok := h.first[l]; ok && at < built-h.blind(at, built)-unseen {
		q.wrongly(l, " for not being listed by its hive, which heard it %v before that", built-at)
		return
	}
	// The queen must respect the silence in the newest beat that it knows.
	r := q.view.Index().Hive(d.Hive).Worker(d.Worker).Record()
	quiet := time.Duration(0)
	if b := w.beats[numbered{l, r.Seq, 0}]; b != nil {
		quiet = b.quiet
	}
	_, heard := q.seqs[numbered{l, r.Seq, 0}]
	if r.Seq == 0 || w.plan.Before > 0 && !heard { // from the roster, where an earlier version may have put no silence
		quiet = r.Quiet.Duration()
	}
	want := lostAfter(w.plan.WorkerEvery.D(), quiet)
	if waited := w.now - h.born; waited < want-readTime {
		q.wrongly(l, " for not being listed by its hive, which began %v ago, want %v", waited, want)
	}
}

// lostAfter is how much silence makes a process lost, computed as in the protocol and not
// by the code under test.
func lostAfter(every, quiet time.Duration) time.Duration { return max(every, quiet) + 2*every }

// deafFor is how long the connection of an observer may have been dead, unnoticed, when it
// declares a process lost for silence: the observer waits half a second before it checks
// that it still receives, and messages on their way may still arrive.
const deafFor = 500*time.Millisecond + readTime

// readTime is how long messages may wait in a socket before they are read.
const readTime = 30 * time.Millisecond

// lostBySilence checks a verdict that l is lost because of silence.
func (o *observer) lostBySilence(l life) {
	w, now := o.w, o.w.now
	a, ok := o.last[l]
	if !ok { // the observer knows it only from others
		a.at, a.every = o.born, w.plan.HiveEvery.D()
	}
	if t := o.lasting(false); t != nil && now-t.from > deafFor+o.asking { // the key is read in the meantime
		o.wrongly(l, ", whose connection has been dead for %v", now-t.from)
		return
	}
	from, patience := max(a.at, o.born), lostAfter(a.every, a.quiet)
	silent := now - from - o.blind(from, now)
	if silent < patience-readTime {
		o.wrongly(l, " after a silence of %v that it could have heard, want %v", silent, patience)
		return
	}
	p, window := w.lives[l], now-patience-2*time.Second
	if p == nil || !p.alive() || !w.plan.Guaranteed() ||
		o.born > window || p.born > window || p.bothered(window, now, true) || o.bothered(window, now, false) || w.usurped(l) {
		return
	}
	o.wrongly(l, " and is alive: it had no trouble, and neither had the network")
}

// talkedDown checks that the queen may adopt the verdict of another queen that a hive is
// lost: a queen that received more from the hive must not.
func (q *queen) talkedDown(l life) {
	item, a := q.w.store.roster[l.ident], q.last[l]
	switch {
	case item.Inc != l.inc || item.Live != hivebeat.Lost || a.seq <= item.Seq:
	case a.at >= q.w.now-readTime || q.bothered(a.at, q.w.now, true): // it may not have read it
	case a.at < q.known.of(l.ident).incAt: // it was replaced since, and the roster went back to it
	default:
		q.wrongly(l, " because another queen found it lost at seq %d, but it heard seq %d of it %v ago", item.Seq, a.seq, q.w.now-a.at)
	}
}

// checkCutOff checks how a queen counts a hive that is back after the queen declared it lost:
// as cut off, if messages of the hive were lost or late in the meantime.
func (q *queen) checkCutOff(s *fleet.Step) {
	was, m := q.score, q.reading
	q.score = q.view.Score()
	if s.Kind != hivebeat.KindRecovered || s.From != hivebeat.Lost || m == nil || m.topic != topicSnapshot || m.from.life != (life{s.Hive, s.Inc}) || q.gap == 0 {
		return
	}
	falsely, cutOff := q.score.FalseDead-was.FalseDead, q.score.CutOff-was.CutOff
	// If the clock of a machine is set, no message shows how long it took.
	clocked := slices.ContainsFunc(q.w.plan.Faults, func(f Fault) bool { return f.Kind == Clock })
	lost := falsely == 1 && q.gap > 1
	held := cutOff == 1 && q.gap <= 1 && q.w.now-m.sent < 50*time.Millisecond && !clocked
	if falsely+cutOff == 1 && (lost || held) {
		q.w.breaks(Sound, "%s counts %s as cut off: %t, but %d of its messages were missing", q.name, s.Hive, cutOff == 1, q.gap-1)
	}
}

// together checks that two incarnations are in conflict: both ran at the same time, or a was
// refused when b started, and is still running.
func (o *observer) together(id string, a, b uint64) {
	x, y := o.w.lives[life{id, a}], o.w.lives[life{id, b}]
	apart := x == nil || y == nil || !x.alive() && x.died < y.born || !y.alive() && y.died < x.born
	if a == b || apart && !o.outlived(id, a, b) { // no process sends in the name of another
		o.w.breaks(Sound, "%s reports that %s incarnation %d continues beside %d, which it did not", o.name, id, a, b)
	}
}

// usurped reports whether another process also uses the id of l, or has replaced it: hives
// and queens may refuse what l sends.
func (w *world) usurped(l life) bool {
	for k, p := range w.lives {
		if k.ident == l.ident && k.inc != l.inc && (p.alive() || k.inc > l.inc || p.born >= w.lives[l].born) {
			return true
		}
	}
	return false
}
