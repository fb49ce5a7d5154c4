package bus

import "time"

// Why is the reason why a pulse is due.
type Why uint8

// The reasons for a pulse.
const (
	WhyStart       Why = iota + 1 // the first one
	WhyInterval                   // the promise
	WhyEnded                      // Ended: a worker is gone
	WhyChanged                    // Changed: another change that cannot wait
	WhyTouched                    // Touch: facts changed
	WhyCalled                     // Call: a roll call
	WhyReconnected                // Reconnected
	WhyAsked                      // Now: a caller waits for it
	WhyLast                       // Stop, or the end of Run's context
)

var whyWords = [...]string{
	WhyStart: "start", WhyInterval: "interval", WhyEnded: "ended", WhyChanged: "changed", WhyTouched: "touched",
	WhyCalled: "called", WhyReconnected: "reconnected", WhyAsked: "asked", WhyLast: "last",
}

func (w Why) String() string {
	if int(w) < len(whyWords) && whyWords[w] != "" {
		return whyWords[w]
	}
	return "none"
}

// The pace of pulses, whatever the number of callers and calls.
const (
	jitterLow  = 0.85 // an interval is the promise × a random jitterLow to jitterHigh
	jitterHigh = 0.95

	urgentGather = 50 * time.Millisecond // requests within this time after an urgent pulse are gathered
	changedBurst = 5                     // this many pulses in a row, and then
	changedPace  = time.Second           // one in this time
	endedBurst   = 20                    // the same for ends: roughly the number of workers on a machine,
	endedPace    = time.Second / 2       // and a rate that a queen can bear from all hives at once
	factsPace    = time.Second           // facts are sent no sooner than this after the pulse before
	askedPace    = 100 * time.Millisecond
	backPace     = time.Second            // one pulse for all reconnects within this time
	backSpread   = 250 * time.Millisecond // reconnected senders spread over this, or every/20
	retryPace    = time.Second            // or every, if that is less
	rollPace     = time.Second            // default of RollGap
)

// Schedule decides when the next pulse is due. It is pure: it has no clock, no timer
// and no lock, and every method takes the current time. Times must not go backwards
// from call to call; time.Now in one process does not.
//
// A pulse carries everything, so the next pulse answers every outstanding request,
// whatever it was sent for. These rules hold together:
//
//   - the next pulse is due every × 0.85–0.95 after the start of the one before, never
//     later than promised, and no extra pulse makes up for a late one;
//   - a change is due at once, but no sooner than 50 ms after the last change that was
//     sent, and at most 5 + 1 a second of them are sent in any stretch of time;
//   - an end is due at once, but no sooner than 50 ms after the last end that was sent,
//     and at most 20 + 2 a second of them are sent: an end does not wait for changes
//     that were sent before it, however many there were;
//   - facts are due a second after the last pulse;
//   - a roll call is due after a random wait within its spread, and no sooner than the
//     roll gap after the last pulse that answered a roll call;
//   - a reconnect is due after a short random wait, once a second at most;
//   - a failure is tried again after 0.85–0.95 s (or × every, if that is less), or once
//     reconnected, and nothing is due before.
type Schedule struct {
	every, rollGap time.Duration
	rand           func() float64

	regular   time.Time // the next pulse that the promise requires
	notBefore time.Time // after a failure
	failing   bool

	last      time.Time // when the last pulse that was sent began; zero before the first
	ends      bucket
	changes   bucket
	lastAsked time.Time
	lastRoll  time.Time
	lastBack  time.Time

	waiting  marks // requested since the last pulse began
	inFlight marks // requests carried by the pulse between Begin and Sent or Failed
	why      Why   // why that pulse was sent
	began    time.Time
}

// marks are the earliest request times for each kind of pulse; zero means not
// requested.
type marks struct{ ended, changed, touched, called, back, asked time.Time }

func (m *marks) add(o marks) {
	earliest(&m.ended, o.ended)
	earliest(&m.changed, o.changed)
	earliest(&m.touched, o.touched)
	earliest(&m.called, o.called)
	earliest(&m.back, o.back)
	earliest(&m.asked, o.asked)
}

func earliest(t *time.Time, o time.Time) {
	if !o.IsZero() && (t.IsZero() || o.Before(*t)) {
		*t = o
	}
}

// bucket paces the pulses of one kind of urgency. The zero value is full.
type bucket struct {
	last time.Time // when the last pulse of this kind that was sent began
	full time.Time // when the whole burst is available again: a token bucket as one time
}

// free returns when the next pulse may be sent: burst in a row, then one per pace.
func (b *bucket) free(burst int, pace time.Duration) time.Time {
	gathered, paced := after(b.last, urgentGather), after(b.full, -time.Duration(burst-1)*pace)
	if paced.After(gathered) {
		return paced
	}
	return gathered
}

// take counts one pulse that was sent.
func (b *bucket) take(now time.Time, pace time.Duration) {
	b.last = now
	if b.full.Before(now) {
		b.full = now
	}
	b.full = b.full.Add(pace)
}

// NewSchedule returns a schedule whose first pulse is due now. every is the promise.
// rollGap is the least time between two answers to roll calls; 0 means 1 s. rand
// returns random numbers in [0, 1).
func NewSchedule(now time.Time, every, rollGap time.Duration, rand func() float64) *Schedule {
	if rollGap <= 0 {
		rollGap = rollPace
	}
	return &Schedule{every: every, rollGap: rollGap, rand: rand, regular: now}
}

// Ended requests a pulse at once, because a worker is gone: a reader may be about to
// route work to it.
func (s *Schedule) Ended(now time.Time) { earliest(&s.waiting.ended, now) }

// Changed requests a pulse at once.
func (s *Schedule) Changed(now time.Time) { earliest(&s.waiting.changed, now) }

// Touch requests a pulse within a second of the one before.
func (s *Schedule) Touch(now time.Time) { earliest(&s.waiting.touched, now) }

// Call requests a pulse after a random wait within spread. A spread longer than the
// promise is cut to it, because a pulse is due by then anyway.
func (s *Schedule) Call(now time.Time, spread time.Duration) {
	earliest(&s.waiting.called, now.Add(s.random(min(max(spread, 0), s.every))))
}

// Ask requests a pulse at once, because a caller waits for it.
func (s *Schedule) Ask(now time.Time) { earliest(&s.waiting.asked, now) }

// Reconnected requests one pulse, and ends the wait after a failure.
func (s *Schedule) Reconnected(now time.Time) {
	at := now.Add(s.random(min(backSpread, s.every/20)))
	earliest(&s.waiting.back, at)
	if s.failing && at.Before(s.notBefore) {
		s.notBefore = at
	}
}

// Next returns when the next pulse is due, which may be in the past, and why.
func (s *Schedule) Next() (time.Time, Why) {
	at, why := s.regular, WhyInterval
	if s.last.IsZero() {
		why = WhyStart
	}
	consider := func(asked time.Time, w Why, notBefore time.Time) {
		if asked.IsZero() {
			return
		}
		if notBefore.After(asked) {
			asked = notBefore
		}
		if asked.Before(at) {
			at, why = asked, w
		}
	}
	w := &s.waiting
	consider(w.ended, WhyEnded, s.ends.free(endedBurst, endedPace))
	consider(w.changed, WhyChanged, s.changes.free(changedBurst, changedPace))
	consider(w.asked, WhyAsked, after(s.lastAsked, askedPace))
	consider(w.back, WhyReconnected, after(s.lastBack, backPace))
	consider(w.called, WhyCalled, after(s.lastRoll, s.rollGap))
	consider(w.touched, WhyTouched, after(s.last, factsPace))
	if s.notBefore.After(at) {
		at = s.notBefore
	}
	return at, why
}

// after returns t + d, or the zero time for the zero time.
func after(t time.Time, d time.Duration) time.Time {
	if t.IsZero() {
		return t
	}
	return t.Add(d)
}

// Begin must be called when a pulse is about to be built. Requests from now on are for
// the next pulse. late reports that the promise was broken: the pulse before is longer
// ago than every.
func (s *Schedule) Begin(now time.Time) (why Why, late bool) {
	_, s.why = s.Next()
	s.began, s.inFlight, s.waiting = now, s.waiting, marks{}
	return s.why, !s.last.IsZero() && now.Sub(s.last) > s.every
}

// Sent must be called when the pulse that began last was sent. All waits are measured
// from its start.
func (s *Schedule) Sent() {
	now := s.began
	switch s.why {
	case WhyEnded:
		s.ends.take(now, endedPace)
	case WhyChanged:
		s.changes.take(now, changedPace)
	case WhyAsked:
		s.lastAsked = now
	}
	if !s.inFlight.called.IsZero() {
		s.lastRoll = now
	}
	if !s.inFlight.back.IsZero() {
		s.lastBack = now
	}
	s.inFlight, s.notBefore, s.failing = marks{}, time.Time{}, false
	s.last = now
	s.regular = now.Add(s.jitter(s.every))
}

// Failed must be called instead of Sent if the pulse could not be built or sent. The
// requests that it carried remain outstanding.
func (s *Schedule) Failed(now time.Time) {
	s.waiting.add(s.inFlight)
	s.inFlight = marks{}
	s.failing = true
	s.notBefore = now.Add(s.jitter(min(retryPace, s.every)))
}

func (s *Schedule) random(d time.Duration) time.Duration {
	return time.Duration(s.rand() * float64(d))
}

func (s *Schedule) jitter(d time.Duration) time.Duration {
	return time.Duration((jitterLow + (jitterHigh-jitterLow)*s.rand()) * float64(d))
}
