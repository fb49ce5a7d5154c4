package liveness

import (
	"slices"
	"time"
)

// Where two processes have one id, the one that began later takes the place of the
// other, and both go on. An observer that sees the place of a living incarnation taken,
// or hears one that it does not believe, calls their roll. Where both answer, twice, they
// are two: a conflict.
//
// What was on its way is no answer: by the clock of its sender an answer was sent after
// the call, and did not come before that (ref); and it comes soon. One whose messages do
// not say when they were sent is in conflict when both have advanced in turn some times.

const (
	// twice is how often both must have answered: one old message may look like an
	// answer, where all that came before it was on its way for as long.
	twice = 2
	// early is by how much an answer may seem to come before it was sent: its sender was
	// never heard sooner. More than that says that all before were on their way for long.
	early = 500 * time.Millisecond
	// seldom is how often a roll is called because a place was taken alone, or after inVain
	// calls that not both answered: a worker that crashes in a loop is no reason to call all
	// others each time, and neither is old mail.
	seldom = time.Minute
	inVain = 5
	// drift is by how many parts of the time that passed two clocks may come apart.
	drift = 1000
	// maxApart bounds the time between two messages by the clock of their sender.
	maxApart = 7 * 24 * time.Hour
)

// Message is what Beside and Insists have to know of a message.
type Message struct {
	Inc, Seq uint64
	Sent     int64     // by a clock of its sender, in ms; 0: it does not say
	Heard    time.Time // when it was read. What may have waited before is for neither
}

// ref is the message of an incarnation that was on its way for the least time, as far as
// one can tell. It translates the clock of the sender.
type ref struct {
	inc   uint64
	sent  int64
	heard time.Time
	first time.Time // when the first one was heard that this one, and those before, were on their way for no longer than
}

// after reports whether m was sent after t: not before, if the message of r was not on
// its way at all, which is not so where m seems to be heard before it was sent.
func (r *ref) after(m *Message, t time.Time) bool {
	d := m.Sent - r.sent
	if r.inc != m.Inc || r.sent <= 0 || d <= 0 || d > maxApart.Milliseconds() {
		return false
	}
	sent := r.heard.Add(time.Duration(d) * time.Millisecond)
	return sent.After(t) && sent.Sub(m.Heard) <= early
}

// note remembers m, if it was on its way for no longer, or if its clock was set back.
func (r *ref) note(m *Message) {
	d := m.Sent - r.sent
	apart := m.Heard.Sub(r.heard)
	if r.inc != m.Inc || d < 0 || d > maxApart.Milliseconds() || apart-time.Duration(d)*time.Millisecond <= apart/drift {
		first := m.Heard
		if r.inc == m.Inc && d >= 0 && d <= maxApart.Milliseconds() {
			first = r.first
		}
		*r = ref{m.Inc, m.Sent, m.Heard, first}
	}
}

// twin is the incarnation that may live beside the valid one.
type twin struct {
	inc          uint64    // 0: there is none
	called       time.Time // when the last roll call was
	until        time.Time // so long its answers are awaited
	valid, other bool      // has answered it
	both         uint8     // roll calls that both answered
	calls        uint8     // all of them, up to inVain
	asks         bool      // a roll call is wanted
}

// Beside finds out whether the incarnation that is not believed lives beside the valid
// one. It comes after Hear, and what followed it, with the outcome o for m. alive says
// whether the one known before was alive. Where both have answered often enough it
// returns the one that is not believed, and its last seq: that is a conflict, told once
// for the pair.
func (l *Lineage) Beside(o Outcome, m Message, alive bool) (inc, seq uint64) {
	t := &l.twin
	switch {
	case o.Begins():
		l.ref, l.sent = ref{m.Inc, m.Sent, m.Heard, m.Heard}, m.Sent
		if n := len(l.others); alive && o != First && !l.others[n-1].over {
			t.inc = l.others[n-1].inc
			t.asks = t.called.IsZero() || m.Heard.Sub(t.called) >= seldom
		}
		return 0, 0
	case o == Next:
		t.valid = t.valid || t.awaits(&m) && l.ref.after(&m, t.called)
		l.ref.note(&m)
		l.sent = m.Sent
	case o == Stale || o == Older:
		x := l.other(m.Inc)
		if x == nil || !x.advanced || x.over || x.rounds >= rounds {
			return 0, 0
		}
		if m.Sent <= 0 {
			return l.inTurn(x)
		}
		switch {
		case t.inc != m.Inc:
			*t = twin{inc: m.Inc, asks: true, called: t.called}
		case t.awaits(&m):
			t.other = t.other || x.ref.after(&m, t.called)
		default:
			t.asks = t.calls < inVain || m.Heard.Sub(t.called) >= seldom
		}
		x.ref.note(&m)
	default:
		return 0, 0
	}
	if !t.valid || !t.other {
		return 0, 0
	}
	t.valid, t.other, t.until = false, false, time.Time{}
	if t.both++; t.both < twice {
		t.asks = true
		return 0, 0
	}
	x := l.other(t.inc)
	if x == nil || x.rounds >= rounds {
		return 0, 0
	}
	x.rounds = rounds
	return x.inc, x.seq
}

// inTurn counts that x went on after the valid one did.
func (l *Lineage) inTurn(x *other) (inc, seq uint64) {
	if l.seq <= x.mark {
		return 0, 0
	}
	x.mark = l.seq
	if x.rounds++; x.rounds < rounds {
		return 0, 0
	}
	return x.inc, x.seq
}

// awaits reports whether m may be an answer.
func (t *twin) awaits(m *Message) bool { return !m.Heard.After(t.until) }

// Asks reports whether the roll is to be called, so that the valid incarnation and
// another one show that they live.
func (l *Lineage) Asks() bool { return l.twin.asks }

// Sure reports whether both have answered once: the next call decides.
func (l *Lineage) Sure() bool { return l.twin.both > 0 }

// Asked says that the roll is called now, and that the answers come within that time.
func (l *Lineage) Asked(now time.Time, within time.Duration) {
	t := &l.twin
	t.asks, t.called, t.until, t.valid, t.other = false, now, now.Add(within), false, false
	t.calls = min(t.calls+1, inVain)
}

// other returns what is known of an incarnation that is not the valid one.
func (l *Lineage) other(inc uint64) *other {
	if i := slices.IndexFunc(l.others, func(o other) bool { return o.inc == inc }); i >= 0 {
		return &l.others[i]
	}
	return nil
}
