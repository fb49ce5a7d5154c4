package liveness

import "time"

const (
	// MaxPause is how long an observer may not have run before it doubts itself: it was
	// stopped or starved, and messages that it reads now may have waited for that time.
	MaxPause = 2 * time.Second
	// LookEvery is how often an idle observer must call Look, so that the start of a
	// pause is known to within this time.
	LookEvery = time.Second
	// BackGrace is added to the time that an observer was cut off: senders that were
	// cut off with it need some time to reconnect (nats.go's default takes 2.1 s) and
	// to answer a roll call.
	BackGrace = 5 * time.Second

	tokenAgain = 2 * time.Second // a token that has not returned by then is sent again

	// proofHolds is how long a received message proves the connection: half the promise
	// of a worker that beats each second. A worker that is late or lost then was not
	// heard over a connection that was good when its next beat was due.
	proofHolds = 500 * time.Millisecond
)

// Observer tracks whether a hive or a queen can rely on its connection, and so judge by
// silence. It is in doubt after it was stopped or starved, was cut off from NATS, or
// dropped messages. It then sends itself a token that travels in order with the
// messages. Until the token returns
//
//   - messages that it reads count as heard when the doubt began (HeardAt), as they may
//     have waited since then;
//   - it judges no sender (Trusts).
//
// All deadlines are then credited with the time that Back returns.
//
// A connection may be dead without notice (no FIN arrives where packets vanish). So
// silence leads to a verdict only if another message was received just before.
// Otherwise the observer asks for a token first (Hears). If that does not return, the
// observer is in doubt since it last heard something.
//
//	          Look, Cut, Dropped
//	trusts ─────────────────────▶ in doubt ──┐ again: the token in flight
//	  ▲                            │   ▲─────┘ proves nothing any more
//	  └──────── Back ◀── Token ────┘
//
// It is pure. The zero value was never connected, and trusts nothing.
type Observer struct {
	ran   time.Time // when it last ran
	clean time.Time // when it last knew that nothing was dropped
	drops uint64
	proof time.Time // when a message last proved the connection

	ever  bool // it was connected once
	cut   bool
	doubt time.Time     // start of the doubt; zero: not in doubt
	grace time.Duration // added to the credit

	asked bool   // a token must prove that there is no reason for doubt
	token uint64 // the last one
	out   bool   // it is in flight and proves something when it returns
	sent  time.Time

	paused time.Duration
	blind  time.Duration
}

// Trusts reports whether silence is evidence: the observer is connected and not in
// doubt.
func (o *Observer) Trusts() bool { return o.ever && !o.cut && o.doubt.IsZero() }

// Connected reports whether NATS is connected, to the observer's knowledge.
func (o *Observer) Connected() bool { return o.ever && !o.cut }

// HeardAt returns when a message that is read at now counts as heard.
func (o *Observer) HeardAt(now time.Time) time.Time {
	if o.doubt.IsZero() || o.doubt.After(now) {
		return now
	}
	return o.doubt
}

// Doubts returns the start of the doubt, and whether the observer is in doubt.
func (o *Observer) Doubts() (since time.Time, ok bool) { return o.doubt, !o.doubt.IsZero() }

// Paused returns the total time that the observer was stopped or starved.
func (o *Observer) Paused() time.Duration { return o.paused }

// Blind returns the total time that was credited.
func (o *Observer) Blind() time.Duration { return o.blind }

// Look must be called before anything else that the observer does, and at least every
// LookEvery. If the observer has not run for more than MaxPause, Look returns for how
// long.
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

// Prove records that a message was received.
func (o *Observer) Prove(now time.Time) { o.proof = now }

// Hears reports whether a recent message proves the connection. If not, a token is due
// now, and no sender may be judged by silence before it returns.
func (o *Observer) Hears(now time.Time) bool {
	if now.Sub(o.proof) <= proofHolds {
		return true
	}
	o.asked = true
	return false
}

// Dropped takes the total number of messages dropped up to now, and returns how many are
// new.
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

// Cut records that the connection is gone, and reports whether that is new. unnoticed
// is how long a dead connection can stay unnoticed while the observer runs; if the
// observer was stopped meanwhile, unnoticed counts back from the start of that pause.
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

// Connect records that the connection is up. It reports whether this is the first time,
// when there is nothing to doubt.
func (o *Observer) Connect(now time.Time) (first bool) {
	first = !o.ever
	o.ever, o.cut, o.proof = true, false, now
	return first
}

// begin starts or extends the doubt: a token in flight may be ahead of the messages
// that wait now.
func (o *Observer) begin(from time.Time) {
	if o.doubt.IsZero() || from.Before(o.doubt) {
		o.doubt = from
	}
	o.out = false
}

// Token returns the token to send now, if one is due. It must return after all messages
// that were sent to the observer before it.
func (o *Observer) Token(now time.Time) (token uint64, ok bool) {
	if o.doubt.IsZero() && !o.asked || o.cut || o.out && now.Sub(o.sent) < tokenAgain {
		return 0, false
	}
	if o.out && o.doubt.IsZero() { // asked, but no answer came
		o.begin(o.proof)
		o.grace = BackGrace
	}
	o.token++
	o.out, o.sent = true, now
	return o.token, true
}

// Back records that a token returned, and ends the doubt if it is the current token. It
// returns the time to credit to all deadlines, 0 without a doubt.
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
