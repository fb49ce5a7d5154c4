package liveness

import "time"

// WasHeld reports whether the first message of a sender that was given up was under way
// when it was: something held it, such as a link that was cut. from and to are when the
// message before and this one were sent, in ms of the sender's clock, 0 where that is
// not known; apart is the time between their receipts, and since that from the verdict
// to the second.
//
//	apart - (to - from)
//
// is how much longer the second one took, whatever the sender's clock says of the time.
// If that is since or more it was sent before the verdict. A sender that was stopped
// sends when it goes on, and that took no longer. It decides how a verdict is counted
// and nothing else, as a clock that is set meanwhile may mislead it.
func WasHeld(from, to int64, apart, since time.Duration) bool {
	return from > 0 && to > from && apart-time.Duration(to-from)*time.Millisecond >= since
}
