package liveness

import (
	"slices"
	"time"
)

// If two processes have one id, the one that began later supersedes the other, and both
// continue. An observer that sees a living incarnation superseded, or hears one that it
// refuses, calls their roll. If both answer, twice, there are two processes: a
// conflict.
//
// A message that was already in flight is no answer. An answer arrives soon. By the
// clock of its sender (ref), it was sent after the call, and did not arrive before that
// send time. If the messages of the refused incarnation do not say when they were sent,
// it is in conflict once both have advanced in turn rounds times.

const (
	// twice is how often both must answer: one old message may look like an answer if
	// all earlier messages were delayed equally.
	twice = 2
	// early is how far before its estimated send time an answer may arrive, if it is
	// the fastest message of its sender so far. A larger difference shows that all
	// earlier messages were delayed for a long time.
	early = 500 * time.Millisecond
	// seldom is the least time between roll calls if the only reason is that an
	// incarnation was superseded, or after inVain calls that were not answered by both.
	// Neither a worker that crashes in a loop nor old messages are a reason to call all
	// others each time.
	seldom = time.Minute
	inVain = 5
	// drift limits how far two clocks may diverge: by 1/drift of the time that passed.
	drift = 1000
	// maxApart bounds the time between two messages by the clock of their sender.
	maxApart = 7 * 24 * time.Hour
)

// Message holds the data of a message that Beside and Insists need.
type Message struct {
	Inc, Seq uint64
	Sent     int64     // by a clock of the sender, in ms; 0: unknown
	Heard    time.Time // when it was read. Do not pass a message that may have waited before
}

// ref is the message of an incarnation that was in flight for the shortest time, as far
// as the observer knows. It translates the clock of the sender.
type ref struct {
	inc   uint64
	sent  int64
	heard time.Time
	first time.Time // when the first one was heard that this one, and those before, were on their way for no longer than
}

// after reports whether m was sent after t, on the assumption that the message of r
// arrived without delay. It returns false if m would then have arrived more than early
// before it was sent, as the assumption is wrong.
func (r *ref) after(m *Message, t time.Time) bool {
	d := m.Sent - r.sent
	if r.inc != m.Inc || r.sent <= 0 || d <= 0 || d > maxApart.Milliseconds() {
		return false
	}
	sent := r.heard.Add(time.Duration(d) * time.Millisecond)
	return sent.After(t) && sent.Sub(m.Heard) <= early
}

// note remembers m if it was in flight for no longer, or if the sender's clock was set
// back.
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
	inc          uint64    // 0: none
	called       time.Time // last roll call
	until        time.Time // end of the wait for its answers
	valid, other bool      // has answered it
	both         uint8     // roll calls that both answered
	calls        uint8     // all roll calls, up to inVain
	asks         bool      // a roll call is wanted
}

// Beside checks whether the refused incarnation lives beside the valid one. Call it
// after Hear and the calls that follow it, with the outcome o for m. alive says whether
// the incarnation known before was alive. Once both have answered often enough, Beside
// returns the refused incarnation and its last seq: that is a conflict, reported once
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
	return l.pair(x)
}

// inTurn counts an advance of x that follows one of the valid incarnation.
func (l *Lineage) inTurn(x *other) (inc, seq uint64) {
	if l.Seq() <= x.mark {
		return 0, 0
	}
	x.mark = l.Seq()
	if x.rounds++; x.rounds < rounds {
		return 0, 0
	}
	return l.pair(x)
}

// pair returns the refused incarnation of a conflict, and its last seq.
func (l *Lineage) pair(x *other) (inc, seq uint64) {
	seq, _, _ = l.guard.Other(x.inc)
	return x.inc, seq
}

// awaits reports whether m may be an answer.
func (t *twin) awaits(m *Message) bool { return !m.Heard.After(t.until) }

// Asks reports whether a roll call is wanted, so that the valid incarnation and another
// one can show that they live.
func (l *Lineage) Asks() bool { return l.twin.asks }

// Sure reports whether both have answered once: the next call decides.
func (l *Lineage) Sure() bool { return l.twin.both > 0 }

// Asked records that the roll is called now, and that answers arrive within that time.
func (l *Lineage) Asked(now time.Time, within time.Duration) {
	t := &l.twin
	t.asks, t.called, t.until, t.valid, t.other = false, now, now.Add(within), false, false
	t.calls = min(t.calls+1, inVain)
}

// other returns the record of an incarnation that is not the valid one, or nil.
func (l *Lineage) other(inc uint64) *other {
	if i := slices.IndexFunc(l.others, func(o other) bool { return o.inc == inc }); i >= 0 {
		return &l.others[i]
	}
	return nil
}
