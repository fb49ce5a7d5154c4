package liveness

import (
	"fmt"
	"math/bits"
	"slices"
	"strings"
	"time"

	"github.com/beatfabric/hivebeat"
)

// Outcome says what a message is to the one who heard it.
type Outcome uint8

// The outcomes of Lineage.Hear.
const (
	First     Outcome = iota + 1 // nobody was known: taken as it is
	Next                         // the known incarnation went on
	Restarted                    // a higher incarnation took over
	TakenOver                    // a lower one that was never seen took over from one that is not alive: a clock was set back
	Same                         // the last seq again: a page of it, where messages have pages, else stale
	Stale                        // refused: seq not above the last, a superseded incarnation, or after its goodbye
	Older                        // refused: a lower incarnation, while the known one is alive
	Conflict                     // of Insists: refused as one of the two above, and told once: two incarnations that both advance
	Back                         // of Insists: the known incarnation goes on from a lower seq: the higher one is told as Conflict is
)

// Accepted reports whether the message is news: First, Next, Restarted, TakenOver or
// Back.
func (o Outcome) Accepted() bool { return o >= First && o <= TakenOver || o == Back }

// Begins reports whether the message is the first one of its incarnation here.
func (o Outcome) Begins() bool { return o == First || o == Restarted || o == TakenOver }

func (o Outcome) String() string {
	names := [...]string{"none", "first", "next", "restarted", "taken over", "same", "stale", "older", "conflict", "back"}
	if int(o) < len(names) {
		return names[o]
	}
	return "unknown"
}

const (
	remembered = 8 // superseded incarnations kept
	rivals     = 4 // lower incarnations watched while they are refused

	// reorder is how many messages later one may still come in. A seq that is
	// missing when the eighth after it is heard was lost on the wire.
	reorder = 8
	// rounds is how often two incarnations must have advanced in turn before
	// that is a conflict, where nothing says when the old one sent them (Beside). Beats
	// of it that were in flight when the new one began come in a bunch, which is one
	// round, or none.
	rounds = 3
	// insists is how often one must have advanced, at a pace that no bunch of waiting
	// messages has, before its refusal is a conflict: it lives.
	insists = 3
	// inARow is within how many gaps it has to advance again. What was late now and then
	// is no sender that goes on.
	inARow = 8
	// leap is by how much a seq may lie above the last one, so that those in between, if
	// they come, are late. No network keeps back so many.
	leap = 1000
)

const wholeWindow = 1<<reorder - 1

// Lineage guards what is heard under one id: which incarnation is the valid one,
// and which of its messages are news. The zero value knows nobody. Hear
// allocates only when an incarnation is superseded or refused for the first
// time.
type Lineage struct {
	inc, seq uint64
	sent     int64  // when seq was, as Message has it; 0: unknown
	window   uint16 // bit i: seq - i was heard, or is none of our business
	ended    bool   // it said goodbye
	lower    bool   // it took the place of a higher one, which was not alive, and was never seen before
	died     bool   // its process ended
	leapt    uint64 // the seq before the last leap; 0: there was none
	lost     uint64
	others   []other // the superseded, oldest first, and rivals
	refused  refused
	ref      ref // of the valid one (Beside)
	twin     twin
}

// refused is an incarnation that goes on though it is refused.
type refused struct {
	inc, seq uint64
	since    time.Time // when it was refused first, in a row
	at       time.Time // when it advanced last
	n        uint8     // how often, in a row, up to insists
	alone    uint8     // how often since the valid incarnation did, up to insists
	mark     uint64    // seq of that one then
	top      uint64    // and when this was refused first
	told     bool
}

// other is an incarnation that is not the valid one.
type other struct {
	inc, seq   uint64
	mark       uint64 // seq of the valid one when this one advanced last
	rounds     uint8  // in turn; rounds: the conflict is told
	superseded bool
	over       bool // it said goodbye, or its process ended
	advanced   bool // by the last message of it
	ref        ref
}

// Inc returns the valid incarnation, and 0 if nobody was heard yet.
func (l *Lineage) Inc() uint64 { return l.inc }

// Seq returns the highest seq heard of the valid incarnation.
func (l *Lineage) Seq() uint64 { return l.seq }

// Ended reports whether the valid incarnation said goodbye.
func (l *Lineage) Ended() bool { return l.ended }

// End makes the goodbye of the valid incarnation final: nothing of it is news
// any more.
func (l *Lineage) End() {
	l.ended = true
	l.closeWindow()
}

// Died says that the process of the valid incarnation ended, or that this turned out to
// be wrong: one that ended does not come back once its place is taken.
func (l *Lineage) Died(yes bool) { l.died = yes }

// TakeLost returns how many messages were proved lost on the wire since the last
// call. A gap in seq is proved when the eighth message after it is heard, or the
// incarnation is over; what came out of order in the meantime is not lost.
func (l *Lineage) TakeLost() uint64 {
	n := l.lost
	l.lost = 0
	return n
}

// Hear judges a message with a valid (inc, seq), both above 0. alive says
// whether the one known so far is alive now. Unless the outcome is Accepted the
// message must change nothing.
func (l *Lineage) Hear(inc, seq uint64, alive bool) Outcome {
	if inc == l.inc && l.inc != 0 {
		return l.same(seq)
	}
	if l.inc == 0 {
		l.begin(inc, seq)
		return First
	}
	at := -1
	for i := range l.others {
		if l.others[i].inc == inc {
			at = i
		}
	}
	switch {
	case at >= 0 && l.others[at].superseded:
		return l.aside(at, seq, Stale)
	case inc > l.inc:
		l.supersede(inc, seq)
		return Restarted
	case !alive:
		if at >= 0 && seq <= l.others[at].seq {
			return Stale // one that was refused before does not come back by a replay
		}
		l.supersede(inc, seq)
		l.lower = true
		return TakenOver
	case at >= 0:
		return l.aside(at, seq, Older)
	}
	l.remember(other{inc: inc, seq: seq, mark: l.seq, advanced: true})
	return Older
}

// Take makes inc the valid one, whatever is remembered of it: somebody else, who
// may have heard more, decided so.
func (l *Lineage) Take(inc, seq uint64) {
	if l.inc == 0 {
		l.begin(inc, seq)
		return
	}
	l.supersede(inc, seq)
}

// Revive makes a superseded incarnation the valid one again, and returns
// TakenOver, if the message with this (inc, seq), which Hear has just refused,
// was an advance of it; otherwise it returns Stale. It is for who sees that the
// valid one has left or is lost, and that it began longer ago than any message of a
// process that ended before it can have been under way (LostAfter): then the
// superseded process did not end, unless it is known to have: then its message was
// under way for longer. A duplicate was started beside it, and is gone.
//
// It is the way back from a goodbye too that the process did not say itself: after that
// it goes on, as Insists has found.
func (l *Lineage) Revive(inc, seq uint64) Outcome {
	if inc == l.inc && l.ended && l.refused.inc == inc && l.refused.told && seq > l.refused.seq {
		l.begin(inc, seq)
		return TakenOver
	}
	for _, o := range l.others {
		if o.inc == inc && o.seq == seq && o.superseded && o.advanced && !o.over {
			l.supersede(inc, seq)
			return TakenOver
		}
	}
	return Stale
}

// Misled reports whether m, which Hear refused as Stale, shows that late mail made the
// valid incarnation, which began then: that is a lower one, whose first message came when
// the higher one was not alive, and the higher one sent m after that. Then it is for Revive.
// What first came after the valid one began does not tell by how much it was late itself.
func (l *Lineage) Misled(m Message, began time.Time) bool {
	x := l.other(m.Inc)
	return l.lower && m.Inc > l.inc && x != nil && x.ref.first.Before(began) && x.ref.after(&m, began)
}

// Insists takes a message that Hear refused as o, Stale or Older, and says what it is
// after all: Conflict, once, if this incarnation has advanced three times in a row, gap
// apart or more. One message that was forged silences a sender that lives. Where that one
// was of the valid incarnation, with a seq far ahead, and nothing above was heard since
// the three began, the incarnation goes on from here: Back, or Next where the conflict was
// told before. Messages that may have waited somewhere are not for Insists.
//
// What was sent before the row began is no advance: of an incarnation whose place was
// taken, the clock of its sender says so. A lower incarnation than the valid one, which
// was never seen, waits for that one to be late: it goes on for hivebeat.KeepGone, or
// both answer (Beside). What has a lower seq of the valid incarnation may just be late. It
// is not where the seq leapt, as was heard here and not elsewhere, or where for
// hivebeat.KeepGone each was sent after the one with the highest seq, or has none above
// what had been heard when that began: all mail from before has come.
func (l *Lineage) Insists(m Message, gap time.Duration, heard bool, o Outcome) Outcome {
	x, r, now := l.other(m.Inc), &l.refused, m.Heard
	late := m.Inc == l.inc && m.Seq < l.seq && !(heard && l.leapt > 0 && m.Seq > l.leapt)
	switch {
	case m.Inc != l.inc && (x == nil || !x.advanced):
		return o
	case r.inc != m.Inc || now.Sub(r.at) > inARow*gap || late && m.Seq > r.top && (l.sent <= 0 || m.Sent <= l.sent):
		*r = refused{inc: m.Inc, seq: m.Seq, since: now, at: now, n: 1, alone: 1, mark: l.seq, top: l.seq}
		return o
	case m.Seq <= r.seq || now.Sub(r.at) < gap:
		return o
	case x != nil && x.superseded && x.ref.inc == m.Inc && m.Sent > 0 && !x.ref.after(&m, r.since):
		return o
	}
	if r.mark != l.seq {
		r.alone, r.mark = 0, l.seq
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
	back := m.Inc == l.inc && !l.ended && r.alone == insists
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

// Rewind makes seq the last one of the valid incarnation, though a higher one was heard.
func (l *Lineage) Rewind(seq uint64) {
	l.seq, l.sent, l.window, l.leapt = seq, 0, wholeWindow, 0
}

var (
	refusedAhead = &hivebeat.Refusal{Reason: hivebeat.RefusedLimit, Key: "inc", Detail: "more than 7 days ahead of the clock and of the incarnation that is alive"}
	refusedLeaps = &hivebeat.Refusal{Reason: hivebeat.RefusedLimit, Key: "seq", Detail: "more than 1000000 above the last one of an incarnation that is alive"}
)

// Implausible returns the refusal of a message with this (inc, seq), which comes while the
// valid incarnation is alive, and nil where its numbers may be true. An incarnation is
// not hivebeat.MaxAhead ahead both of now and of the valid one, whose clock may be right
// where that of the caller is not: one that no clock says is to take no place. And no
// sender has sent hivebeat.MaxLeap more meanwhile.
func (l *Lineage) Implausible(now time.Time, inc, seq uint64) *hivebeat.Refusal {
	most := uint64(max(0, now.Add(hivebeat.MaxAhead).UnixMicro()))
	switch {
	case inc > most && inc > l.inc+uint64(hivebeat.MaxAhead.Microseconds()):
		return refusedAhead
	case inc == l.inc && seq > l.seq+hivebeat.MaxLeap:
		return refusedLeaps
	}
	return nil
}

// Superseded reports whether the place of inc is remembered to have been taken.
func (l *Lineage) Superseded(inc uint64) bool {
	return slices.ContainsFunc(l.others, func(o other) bool { return o.inc == inc && o.superseded })
}

// same judges a message of the valid incarnation.
func (l *Lineage) same(seq uint64) Outcome {
	switch {
	case seq == l.seq:
		return Same
	case seq < l.seq:
		if back := l.seq - seq; back < reorder {
			l.window |= 1 << back
		}
		return Stale
	case l.ended:
		return Stale
	}
	if seq-l.seq > leap {
		l.leapt = l.seq
	}
	l.advance(seq - l.seq)
	l.seq, l.sent = seq, 0
	return Next
}

// advance moves the window by d: what falls out of it unheard is lost, unless that is
// more than anybody sends.
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

// closeWindow counts the gaps that nothing can fill any more.
func (l *Lineage) closeWindow() {
	if l.inc != 0 {
		l.addLost(reorder - uint64(bits.OnesCount16(l.window)))
		l.window = wholeWindow
	}
}

func (l *Lineage) addLost(n uint64) {
	if l.lost += n; l.lost < n {
		l.lost = 1<<64 - 1
	}
}

// begin makes inc the valid one. What it sent before is not missed: we may have
// come later than it did.
func (l *Lineage) begin(inc, seq uint64) {
	l.inc, l.seq, l.sent, l.window, l.ended, l.lower, l.died, l.leapt = inc, seq, 0, wholeWindow, false, false, false, 0
	l.refused, l.ref, l.twin = refused{}, ref{}, twin{called: l.twin.called}
	for i := range l.others { // each is half of a new pair
		l.others[i].mark, l.others[i].rounds = seq, 0
	}
}

// supersede makes inc the valid one and remembers the one before.
func (l *Lineage) supersede(inc, seq uint64) {
	l.closeWindow()
	l.others = slices.DeleteFunc(l.others, func(o other) bool { return o.inc == inc })
	was := other{inc: l.inc, seq: l.seq, superseded: true, over: l.ended || l.died, ref: l.ref}
	l.begin(inc, seq)
	was.mark = seq
	l.remember(was)
}

// remember adds o, and forgets the oldest of its sort where there are too many.
func (l *Lineage) remember(o other) {
	keep, oldest := rivals, -1
	if o.superseded {
		keep = remembered
	}
	for i := len(l.others) - 1; i >= 0; i-- {
		if l.others[i].superseded == o.superseded {
			keep--
			oldest = i
		}
	}
	if keep <= 0 {
		l.others = slices.Delete(l.others, oldest, oldest+1)
	}
	l.others = append(l.others, o)
}

const (
	// NoticeEvery is how often a sender is told that it is refused, while it goes on.
	NoticeEvery = time.Minute
	// ConflictHint says what to do about two processes of one id. A reason ends with it.
	ConflictHint = "stop one of them, or give it another id"
)

// ConflictReason says in words which incarnations of one id both go on, each a "hive" or
// a "worker", and what to do. Where it is one, something else sent as it, a goodbye or a
// high seq, or it has its id back by now.
func ConflictReason(what, id string, believed, refused hivebeat.Place) string {
	if believed.Inc == refused.Inc {
		return fmt.Sprintf("messages of incarnation %d (%s) of %s %q were refused, and it goes on: something else uses its id", believed.Inc, where(believed), what, id)
	}
	return fmt.Sprintf("two %ss beat as %q: incarnation %d (%s) is believed, %d (%s) is not; "+ConflictHint,
		what, id, believed.Inc, where(believed), refused.Inc, where(refused))
}

// where says when a process began, by the clock of its machine, and where it runs.
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

// began says when an incarnation began, by the clock of its machine.
func began(inc uint64) string {
	return "began " + time.UnixMicro(int64(min(inc, 1<<53))).UTC().Format("2006-01-02 15:04:05 UTC")
}

// aside notes whether a refused incarnation goes on.
func (l *Lineage) aside(at int, seq uint64, refused Outcome) Outcome {
	o := &l.others[at]
	if o.advanced = seq > o.seq; o.advanced {
		o.seq = seq
	}
	return refused
}
