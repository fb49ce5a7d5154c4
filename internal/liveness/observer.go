package liveness

import "time"

const (
	// MaxPause is how long an observer may not have run before it doubts itself: it
	// was stopped or starved, and what it reads now may have waited as long.
	MaxPause = 2 * time.Second
	// LookEvery is how often an observer without anything to do is to look at
	// itself, so that it knows to within this since when it did not run.
	LookEvery = time.Second
	// BackGrace is added to the time that an observer was cut off: those who were
	// cut off with it need some to come back themselves (nats.go's default takes
	// 2.1 s) and to answer a roll call.
	BackGrace = 5 * time.Second

	tokenAgain = 2 * time.Second // a token that is not back by then is sent again

	// proofHolds is how long something heard proves that more would be: half of the
	// promise of a worker that beats each second. Who is late or lost then has not
	// been heard over a connection that was good when the next beat was due.
	proofHolds = 500 * time.Millisecond
)

// Observer is what somebody who judges by silence knows of his own hearing. One
// that was stopped or starved, cut off from NATS, or told of dropped messages is
// in doubt: it sends itself a token, in the order of the messages, and until that
// is back
//
//   - what it reads counts as heard when the doubt began (HeardAt): it may have
//     waited as long;
//   - it judges nobody (Trusts).
//
// Then all deadlines are credited with the time that Back returns.
//
// A connection may be dead and nobody knows (no FIN arrives where packets vanish).
// So silence is a verdict only where something was just heard: else the observer
// asks for a token first (Hears), and is in doubt since it last heard something if
// that does not come back.
//
//	          Look, Cut, Dropped
//	trusts ─────────────────────▶ in doubt ──┐ again: the token that is out
//	  ▲                            │   ▲─────┘ proves nothing any more
//	  └──────── Back ◀── Token ────┘
//
// It is pure. The zero value was never connected, and trusts nothing.
type Observer struct {
	ran   time.Time // when it last ran
	clean time.Time // when it last knew that nothing was dropped
	drops uint64
	proof time.Time // when something last proved the connection to be good

	ever  bool // it was connected once
	cut   bool
	doubt time.Time     // since when what it reads may have waited; zero: it is not in doubt
	grace time.Duration // to be added to the credit

	asked bool   // a token is to prove that there is nothing to doubt
	token uint64 // the last one
	out   bool   // it was sent, and proves something once it is back
	sent  time.Time

	paused time.Duration
	blind  time.Duration
}

// Trusts reports whether silence is evidence: the observer hears, and knows it.
func (o *Observer) Trusts() bool { return o.ever && !o.cut && o.doubt.IsZero() }

// Connected reports whether NATS is there, as far as is known.
func (o *Observer) Connected() bool { return o.ever && !o.cut }

// HeardAt returns when what is read at now counts as heard.
func (o *Observer) HeardAt(now time.Time) time.Time {
	if o.doubt.IsZero() || o.doubt.After(now) {
		return now
	}
	return o.doubt
}

// Doubts returns since when the observer is in doubt, and whether it is.
func (o *Observer) Doubts() (since time.Time, ok bool) { return o.doubt, !o.doubt.IsZero() }

// Paused returns for how long the observer was stopped or starved, in all.
func (o *Observer) Paused() time.Duration { return o.paused }

// Blind returns how much was credited, in all.
func (o *Observer) Blind() time.Duration { return o.blind }

// Look is to be called first, whatever the observer is about to do, and at least
// every LookEvery. It returns for how long the observer did not run, where that
// is too long.
func (o *Observer) Look(now time.Time) (paused time.Duration) {
	ran := o.ran
	o.ran = now
	if ran.IsZero() || now.Sub(ran) <= MaxPause {
		return 0
	}
	paused = now.Sub(ran)
	o.paused += paused
	if o.ever {
		o.begin(ran)
	}
	return paused
}

// Prove notes that a message came in.
func (o *Observer) Prove(now time.Time) { o.proof = now }

// Hears reports whether something proved of late that the observer hears. If it
// was not so, a token is due now: nobody is to be judged by silence before it is
// back.
func (o *Observer) Hears(now time.Time) bool {
	if now.Sub(o.proof) <= proofHolds {
		return true
	}
	o.asked = true
	return false
}

// Dropped is told how many messages were dropped so far, as it is now. It returns
// how many of them are news.
func (o *Observer) Dropped(now time.Time, total uint64) (news uint64) {
	clean := o.clean
	o.clean = now
	if total <= o.drops {
		return 0
	}
	news, o.drops = total-o.drops, total
	if clean.IsZero() {
		clean = now
	}
	o.begin(clean)
	return news
}

// Cut notes that the connection is gone, and reports whether that is news. It can
// not have been gone for longer than unnoticed without being missed, by who runs: if
// the observer was stopped meanwhile, unnoticed counts up to then.
func (o *Observer) Cut(now time.Time, unnoticed time.Duration) (news bool) {
	if !o.ever || o.cut {
		return false
	}
	from := now
	if !o.doubt.IsZero() && o.doubt.Before(now) {
		from = o.doubt
	}
	if from = from.Add(-unnoticed); o.proof.After(from) {
		from = o.proof
	}
	o.begin(from)
	o.cut, o.grace = true, BackGrace
	return true
}

// Connect notes that the connection is there. It reports whether that is so for
// the first time, when there is nothing to doubt.
func (o *Observer) Connect(now time.Time) (first bool) {
	first = !o.ever
	o.ever, o.cut, o.proof = true, false, now
	return first
}

// begin begins the doubt, or lets it go on: a token that is under way may be
// before what waits now.
func (o *Observer) begin(from time.Time) {
	if o.doubt.IsZero() || from.Before(o.doubt) {
		o.doubt = from
	}
	o.out = false
}

// Token returns the token that is to be sent now, if there is one: it must come
// back after all that was sent to the observer before.
func (o *Observer) Token(now time.Time) (token uint64, ok bool) {
	if o.doubt.IsZero() && !o.asked || o.cut || o.out && now.Sub(o.sent) < tokenAgain {
		return 0, false
	}
	if o.out && o.doubt.IsZero() { // asked, and no answer
		o.begin(o.proof)
		o.grace = BackGrace
	}
	o.token++
	o.out, o.sent = true, now
	return o.token, true
}

// Back notes that a token is back, and ends the doubt if it is the one that
// proves something. It returns the time to be credited to all deadlines: none
// where there was no doubt.
func (o *Observer) Back(now time.Time, token uint64) (blind time.Duration, ok bool) {
	if !o.out || token != o.token {
		return 0, false
	}
	if !o.doubt.IsZero() {
		blind = max(0, now.Sub(o.doubt)) + o.grace
	}
	o.blind += blind
	o.doubt, o.out, o.asked, o.grace, o.proof = time.Time{}, false, false, 0, now
	return blind, true
}
