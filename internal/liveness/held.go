package liveness

import "time"

// WasHeld reports whether the first message after a verdict was already in flight at
// the verdict: something held it, such as a link that was cut. from and to are the send
// times of the previous message and of this one, in ms of the sender's clock, 0 where
// unknown; apart is the time between their receipts, and since is the time from the
// verdict to the receipt of this one.
//
//	apart - (to - from)
//
// is how much longer this message was in flight, whatever time the sender's clock
// shows. If that is since or more, it was sent before the verdict. A sender that was
// stopped sends when it resumes, and that message is not delayed. WasHeld decides only
// how a verdict is counted, as a clock that is set meanwhile may mislead it.
func WasHeld(from, to int64, apart, since time.Duration) bool {
	return from > 0 && to > from && apart-time.Duration(to-from)*time.Millisecond >= since
}
