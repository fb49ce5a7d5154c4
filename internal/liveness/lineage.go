package liveness

import (
	"fmt"
	"math/bits"
	"slices"
	"strings"
	"time"

	"github.com/beatfabric/hivebeat"
	"github.com/beatfabric/hivebeat/verdict"
)

// Outcome classifies a message for its receiver: an outcome of verdict.Guard, or one
// that only the history of the incarnations shows.
type Outcome uint8

// The outcomes. Lineage.Hear returns those of verdict.Guard.Hear.
const (
	First     = Outcome(verdict.First)
	Next      = Outcome(verdict.Next)
	Restarted = Outcome(verdict.Restarted)
	TakenOver = Outcome(verdict.TakenOver)
	Same      = Outcome(verdict.Same)
	Stale     = Outcome(verdict.Stale)
	Older     = Outcome(verdict.Older)

	Conflict = Outcome(64) // only from Insists: refused like the two above, and reported once: two incarnations that both advance
	Back     = Outcome(65) // only from Insists: the known incarnation continues from a lower seq; the higher one is reported like a Conflict
)

// Accepted reports whether the message is accepted: First, Next, Restarted, TakenOver
// or Back.
func (o Outcome) Accepted() bool { return o == Back || verdict.Outcome(o).Accepted() }

// Begins reports whether the message is the first one of its incarnation here.
func (o Outcome) Begins() bool { return verdict.Outcome(o).Begins() }

// String returns the outcome in words.
func (o Outcome) String() string {
	switch o {
	case Conflict:
		return "conflict"
	case Back:
		return "back"
	}
	return verdict.Outcome(o).String()
}

const (
	// reorder is how many messages late a message may arrive. A seq that is still
	// missing when the eighth one after it is heard was lost on the wire.
	reorder = 8
	// rounds is how often two incarnations must advance in turn to be in conflict, if
	// the messages do not say when they were sent (Beside). Beats of the old one that
	// were in flight when the new one began arrive in a bunch, which counts as one
	// round or none.
	rounds = 3
	// insists is how often a refused incarnation must advance, at a slower pace than a
	// bunch of waiting messages, to be in conflict: it lives.
	insists = 3
	// inARow is the number of gaps within which it must advance again. A message that
	// is late now and then does not show a live sender.
	inARow = 8
	// leap is how far a seq may lie above the last one for the messages in between to
	// count as late, if they arrive. No network holds back more.
	leap = 1000
)

const wholeWindow = 1<<reorder - 1

// Lineage decides which incarnation of one id is the valid one, and which of its
// messages are accepted, as its verdict.Guard does. It also counts the messages lost on
// the wire, and finds the senders that the guard refuses although they live. The zero
// value knows no incarnation. Hear allocates only when an incarnation is superseded or
// refused for the first time.
type Lineage struct {
	guard   verdict.Guard
	sent    int64  // when seq was sent, as in Message; 0: unknown
	window  uint16 // bit i: seq - i was heard, or cannot count as lost
	lower   bool   // it was never seen before and replaced a higher one, which was not alive
	died    bool   // its process ended
	leapt   uint64 // the seq before the last leap; 0: none
	lost    uint64
	others  []other // those that the guard remembers, oldest first
	refused refused
	ref     ref // of the valid one (Beside)
	twin    twin
}

// refused is an incarnation that continues although it is refused.
type refused struct {
	inc, seq uint64
	since    time.Time // start of the row
	at       time.Time // last advance
	n        uint8     // advances in a row, up to insists
	alone    uint8     // advances since the valid incarnation's last one, up to insists
	mark     uint64    // seq of the valid incarnation at the last advance
	top      uint64    // seq of the valid incarnation at the start of the row
	told     bool
}

// other is what a guard does not know of an incarnation that is not the valid one.
type other struct {
	inc      uint64
	mark     uint64 // seq of the valid one when this one last advanced
	rounds   uint8  // advances in turn; at rounds the conflict is reported
	over     bool   // it said goodbye, or its process ended
	advanced bool   // its last message was an advance
	ref      ref
}

// Inc returns the valid incarnation, and 0 if none was heard yet.
func (l *Lineage) Inc() uint64 { return l.guard.Inc() }

// Seq returns the highest seq heard of the valid incarnation.
func (l *Lineage) Seq() uint64 { return l.guard.Seq() }

// Ended reports whether the valid incarnation said goodbye.
func (l *Lineage) Ended() bool { return l.guard.Ended() }

// End makes the goodbye of the valid incarnation final: none of its later messages is
// accepted.
func (l *Lineage) End() {
	l.guard.End()
	l.closeWindow()
}

// Died records that the process of the valid incarnation ended, or with false that this
// was wrong. An incarnation that ended does not come back once it is superseded.
func (l *Lineage) Died(yes bool) { l.died = yes }

// TakeLost returns how many messages were proved lost on the wire since the last call.
// A gap in seq is proved when the eighth message after it is heard, or when the
// incarnation is over; messages that arrive out of order until that point are not lost.
func (l *Lineage) TakeLost() uint64 {
	n := l.lost
	l.lost = 0
	return n
}

// Hear judges a message as verdict.Guard.Hear does.
func (l *Lineage) Hear(inc, seq uint64, alive bool) Outcome {
	if inc == l.Inc() && inc != 0 {
		return l.same(inc, seq)
	}
	was := l.valid()
	heard, _, known := l.guard.Other(inc)
	o := Outcome(l.guard.Hear(inc, seq, alive))
	switch {
	case o.Accepted():
		l.supersede(was)
		l.lower = o == TakenOver
	case known:
		l.other(inc).advanced = seq > heard
	default:
		l.remember(other{inc: inc, mark: l.Seq(), advanced: true})
	}
	return o
}

// Take makes inc the valid incarnation, whatever is remembered of it: another observer,
// which may have heard more, decided this.
func (l *Lineage) Take(inc, seq uint64) {
	was := l.valid()
	l.guard.Take(inc, seq)
	l.supersede(was)
}

// Revive makes the incarnation of m, which Hear has just refused as Stale, the valid one
// again and returns TakenOver, if it was superseded and never ended. Otherwise it
// returns Stale. The incarnation must have advanced with m, and one of these must hold:
//
//   - The valid one is gone: it has left or is lost, and m cannot have been sent before
//     that. It began at began, more than lostAfter ago, and by the clock of its sender,
//     if known, m was sent after that: few messages of a process that ended before are
//     in flight for longer. So a duplicate was started beside the superseded process,
//     and is gone.
//   - A delayed message created the valid one (misled).
//
// A superseded process that is known to have ended stays refused, as its message was in
// flight for longer after all.
//
// Revive also undoes a goodbye that the process did not send itself, if the process
// continues after it, as Insists has found.
func (l *Lineage) Revive(m Message, gone bool, began time.Time, lostAfter time.Duration) Outcome {
	gone = gone && m.Heard.Sub(began) > lostAfter && !l.outdated(m, began)
	if !gone && !l.misled(m, began) {
		return Stale
	}
	heard, superseded, _ := l.guard.Other(m.Inc)
	x, r := l.other(m.Inc), &l.refused
	switch {
	case m.Inc == l.Inc() && l.Ended() && r.inc == m.Inc && r.told && m.Seq > r.seq:
	case superseded && heard == m.Seq && x.advanced && !x.over:
	default:
		return Stale
	}
	l.Take(m.Inc, m.Seq)
	return TakenOver
}

// misled reports whether m shows that a delayed message created the valid incarnation,
// which began at began. The valid one is then a lower incarnation whose first message
// came when the higher one was not alive, and the higher one sent m after that. Only
// messages from before that can serve as the reference: it is unknown how long a later
// one was delayed itself.
func (l *Lineage) misled(m Message, began time.Time) bool {
	x := l.other(m.Inc)
	return l.lower && m.Inc > l.Inc() && x != nil && x.ref.first.Before(began) && x.ref.after(&m, began)
}

// outdated reports whether m was sent before the valid incarnation began at began, by
// the clock of its sender. It is false if nothing translates that clock.
func (l *Lineage) outdated(m Message, began time.Time) bool {
	x := l.other(m.Inc)
	return x != nil && x.ref.inc == m.Inc && m.Sent > 0 && !x.ref.after(&m, began)
}

// Insists takes a message that Hear refused as o, Stale or Older, and returns its final
// outcome. That is Conflict, once, if this incarnation has advanced three times in a
// row, gap apart or more: a single forged message can silence a live sender. If the
// forged message belonged to the valid incarnation, with a seq far ahead, and no higher
// seq was heard since the three began, the incarnation continues from here: Back, or
// Next if the conflict was already reported. Do not pass messages that may have waited
// before they were read.
//
// A message sent before the row began is no advance; for a superseded incarnation, the
// clock of its sender decides this. A lower incarnation that was never seen must wait
// until the valid one is late: it counts if it continues for hivebeat.KeepGone, or if
// both answer (Beside). A lower seq of the valid incarnation may just be late. It
// counts if the seq leapt over it, in a message that was heard here and not elsewhere.
// It also counts after hivebeat.KeepGone if each message was sent after the one with
// the highest seq, or has a seq that is not above the highest one heard when the row
// began: all earlier messages have arrived by that time.
func (l *Lineage) Insists(m Message, gap time.Duration, heard bool, o Outcome) Outcome {
	x, r, now := l.other(m.Inc), &l.refused, m.Heard
	valid, last := l.Inc(), l.Seq()
	late := m.Inc == valid && m.Seq < last && !(heard && l.leapt > 0 && m.Seq > l.leapt)
	switch {
	case m.Inc != valid && (x == nil || !x.advanced):
		return o
	case r.inc != m.Inc || now.Sub(r.at) > inARow*gap || late && m.Seq > r.top && (l.sent <= 0 || m.Sent <= l.sent):
		*r = refused{inc: m.Inc, seq: m.Seq, since: now, at: now, n: 1, alone: 1, mark: last, top: last}
		return o
	case m.Seq <= r.seq || now.Sub(r.at) < gap:
		return o
	case l.Superseded(m.Inc) && x.ref.inc == m.Inc && m.Sent > 0 && !x.ref.after(&m, r.since):
		return o
	}
	if r.mark != last {
		r.alone, r.mark = 0, last
	}
	r.seq, r.at, r.n, r.alone = m.Seq, now, min(r.n+1, insists), min(r.alone+1, insists)
	if (late || o == Older) && now.Sub(r.since) < hivebeat.KeepGone {
		return o
	}
	tell := r.n == insists && !r.told && (x == nil || x.rounds < rounds)
	if tell {
		r.told = true
		if x != nil {
			x.rounds = rounds
		}
	}
	back := m.Inc == valid && !l.Ended() && r.alone == insists
	if back {
		l.Rewind(m.Seq)
		r.alone, r.mark = 0, m.Seq
	}
	switch {
	case back && tell:
		return Back
	case back:
		return Next
	case tell:
		return Conflict
	}
	return o
}

// Rewind makes seq the last one of the valid incarnation, although a higher one was
// heard.
func (l *Lineage) Rewind(seq uint64) {
	ended := l.Ended()
	l.guard.Take(l.Inc(), seq)
	if ended {
		l.guard.End()
	}
	l.sent, l.window, l.leapt = 0, wholeWindow, 0
}

var (
	refusedAhead = &hivebeat.Refusal{Reason: hivebeat.RefusedLimit, Key: "inc", Detail: "more than 7 days ahead of the clock and of the incarnation that is alive"}
	refusedLeaps = &hivebeat.Refusal{Reason: hivebeat.RefusedLimit, Key: "seq", Detail: "more than 1000000 above the last seq of an incarnation that is alive"}
)

// Implausible returns the refusal of a message with this (inc, seq) that arrives while
// the valid incarnation is alive, or nil if the numbers may be true. An incarnation is
// refused if it is more than hivebeat.MaxAhead ahead both of now and of the valid one,
// whose clock may be right when the caller's is wrong. A seq is refused if it is more
// than hivebeat.MaxLeap above the last one: no sender sends so many messages meanwhile.
func (l *Lineage) Implausible(now time.Time, inc, seq uint64) *hivebeat.Refusal {
	most := uint64(max(0, now.Add(hivebeat.MaxAhead).UnixMicro()))
	switch {
	case inc > most && inc > l.Inc()+uint64(hivebeat.MaxAhead.Microseconds()):
		return refusedAhead
	case inc == l.Inc() && seq > l.Seq()+hivebeat.MaxLeap:
		return refusedLeaps
	}
	return nil
}

// Superseded reports whether inc is remembered as superseded.
func (l *Lineage) Superseded(inc uint64) bool {
	_, superseded, _ := l.guard.Other(inc)
	return superseded
}

// same judges a message of the valid incarnation.
func (l *Lineage) same(inc, seq uint64) Outcome {
	last := l.Seq()
	o := Outcome(l.guard.Hear(inc, seq, true))
	switch {
	case o == Next:
		if seq-last > leap {
			l.leapt = last
		}
		l.advance(seq - last)
		l.sent = 0
	case seq < last && last-seq < reorder:
		l.window |= 1 << (last - seq)
	}
	return o
}

// advance moves the window by d. Messages that leave it unheard are lost, unless d is
// more than any sender sends.
func (l *Lineage) advance(d uint64) {
	if d > hivebeat.MaxLeap {
		l.closeWindow()
		return
	}
	if d < reorder {
		out := l.window >> (reorder - d)
		l.addLost(d - uint64(bits.OnesCount16(out)))
		l.window = (l.window<<d | 1) & wholeWindow
		return
	}
	l.addLost(reorder - uint64(bits.OnesCount16(l.window)) + d - reorder)
	l.window = 1
}

// closeWindow counts the gaps that no message can fill any more.
func (l *Lineage) closeWindow() {
	if l.Inc() != 0 {
		l.addLost(reorder - uint64(bits.OnesCount16(l.window)))
		l.window = wholeWindow
	}
}

func (l *Lineage) addLost(n uint64) {
	if l.lost += n; l.lost < n {
		l.lost = 1<<64 - 1
	}
}

// valid returns the record of the valid incarnation, for the time when it is not.
func (l *Lineage) valid() other {
	return other{inc: l.Inc(), over: l.Ended() || l.died, ref: l.ref}
}

// supersede follows the guard, which has made another incarnation the valid one and
// remembers was. Earlier messages of the new one are not missed: we may have started
// later than it did.
func (l *Lineage) supersede(was other) {
	if was.inc != 0 {
		l.closeWindow()
	}
	l.sent, l.window, l.lower, l.died, l.leapt = 0, wholeWindow, false, false, 0
	l.refused, l.ref, l.twin = refused{}, ref{}, twin{called: l.twin.called}
	for i := range l.others { // each forms a new pair
		l.others[i].mark, l.others[i].rounds = l.Seq(), 0
	}
	if was.mark = l.Seq(); was.inc != 0 {
		l.remember(was)
	}
}

// remember adds o if the guard remembers it, and forgets those that it has forgotten.
func (l *Lineage) remember(o other) {
	l.others = slices.DeleteFunc(append(l.others, o), func(o other) bool {
		_, _, ok := l.guard.Other(o.inc)
		return !ok
	})
}

const (
	// NoticeEvery is the least time between two notices to a refused sender that
	// continues.
	NoticeEvery = time.Minute
	// ConflictHint says what to do about two processes with one id. A reason ends with
	// it.
	ConflictHint = "stop one of them, or give it another id"
)

// ConflictReason describes the two incarnations of one id that both advance, each a
// "hive" or a "worker", and what to do. If both are the same incarnation, another
// process sent a message as it (a goodbye or a high seq), or it has its id back by now.
func ConflictReason(what, id string, believed, refused hivebeat.Place) string {
	if believed.Inc == refused.Inc {
		return fmt.Sprintf("messages of incarnation %d (%s) of %s %q were refused, but it keeps sending: another process uses its id", believed.Inc, where(believed), what, id)
	}
	return fmt.Sprintf("two %ss beat as %q: incarnation %d (%s) is accepted, %d (%s) is refused; "+ConflictHint,
		what, id, believed.Inc, where(believed), refused.Inc, where(refused))
}

// where describes when a process began, by the clock of its machine, and where it runs.
func where(p hivebeat.Place) string {
	parts := []string{began(p.Inc)}
	add := func(format string, v any, known bool) {
		if known {
			parts = append(parts, fmt.Sprintf(format, v))
		}
	}
	add("host %.80s", p.Host, p.Host != "")
	add("pid %d", p.PID, p.PID != 0)
	add("connection %.130s", p.Conn, p.Conn != "")
	add("from %.80s", p.Addr, p.Addr != "")
	return strings.Join(parts, ", ")
}

// began describes when an incarnation began, by the clock of its machine.
func began(inc uint64) string {
	return "began " + time.UnixMicro(int64(min(inc, 1<<53))).UTC().Format("2006-01-02 15:04:05 UTC")
}
