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
// the call (ref). One whose messages do not say when they were sent is in conflict when
// both have advanced in turn some times.

const (
	// twice is how often both must have answered: one old message may look like an
	// answer, where all that came before it was on its way for as long.
	twice = 2
	// takenEvery is how often a roll is called because a place was taken alone: a worker
	// that crashes in a loop is no reason to call all others each time.
	takenEvery = time.Minute
	// drift is by how many parts of the time that passed two clocks may come apart.
	drift = 1000
	// maxApart bounds the time between two messages by the clock of their sender.
	maxApart = 7 * 24 * time.Hour
)

// Message is what Beside has to know of a message.
type Message struct {
	Inc, Seq uint64
	Sent     int64     // by a clock of its sender, in ms; 0: it does not say
	Heard    time.Time // when it was read. What may have waited before is not for Beside
}

// ref is the message of an incarnation that was on its way for the least time, as far as
// one can tell. It translates the clock of the sender.
type ref struct {
	inc   uint64
	sent  int64
	heard time.Time
}

// after reports whether m was sent after t: not before, if the message of r was not on
// its way at all.
func (r *ref) after(m *Message, t time.Time) bool {
	d := m.Sent - r.sent
	return r.inc == m.Inc && r.sent > 0 && d > 0 && d < maxApart.Milliseconds() && r.heard.Add(time.Duration(d)*time.Millisecond).After(t)
}

// note remembers m, if it was on its way for no longer, or if its clock was set back.
func (r *ref) note(m *Message) {
	d := m.Sent - r.sent
	apart := m.Heard.Sub(r.heard)
	if r.inc != m.Inc || d < 0 || d > maxApart.Milliseconds() || apart-time.Duration(d)*time.Millisecond <= apart/drift {
		*r = ref{m.Inc, m.Sent, m.Heard}
	}
}

// twin is the incarnation that may live beside the valid one.
type twin struct {
	inc          uint64    // 0: there is none
	since        time.Time // what both say that they sent after this is an answer; zero: the roll is to be called first
	valid, other bool      // has answered
	both         uint8     // roll calls that both answered
	asks         bool      // a roll call is wanted
	called       time.Time // when the last one was
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
		l.ref, l.sent = ref{m.Inc, m.Sent, m.Heard}, m.Sent
		if n := len(l.others); alive && o != First && !l.others[n-1].over {
			t.inc, t.since = l.others[n-1].inc, m.Heard
			t.asks = t.called.IsZero() || m.Heard.Sub(t.called) >= takenEvery
		}
		return 0, 0
	case o == Next:
		t.valid = t.valid || t.asked() && l.ref.after(&m, t.since)
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
		if t.inc != m.Inc {
			*t = twin{inc: m.Inc, since: m.Heard, asks: true, called: t.called}
			x.ref.note(&m)
			return 0, 0
		}
		t.other = t.other || t.asked() && x.ref.after(&m, t.since)
		t.asks = t.asks || t.asked() && t.called.Before(t.since)
		x.ref.note(&m)
	default:
		return 0, 0
	}
	if !t.valid || !t.other {
		return 0, 0
	}
	t.valid, t.other, t.since = false, false, time.Time{}
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

// asked reports whether a message may be an answer.
func (t *twin) asked() bool { return !t.since.IsZero() }

// Asks reports whether the roll is to be called, so that the valid incarnation and
// another one show that they live.
func (l *Lineage) Asks() bool { return l.twin.asks }

// Sure reports whether both have answered once: the next call decides.
func (l *Lineage) Sure() bool { return l.twin.both > 0 }

// Asked says that the roll is called now.
func (l *Lineage) Asked(now time.Time) {
	t := &l.twin
	t.asks, t.called = false, now
	if !t.asked() {
		t.since = now
	}
}

// other returns what is known of an incarnation that is not the valid one.
func (l *Lineage) other(inc uint64) *other {
	if i := slices.IndexFunc(l.others, func(o other) bool { return o.inc == inc }); i >= 0 {
		return &l.others[i]
	}
	return nil
}
