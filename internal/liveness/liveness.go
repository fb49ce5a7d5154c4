// Package liveness holds the rules that a hive applies to its workers and a queen to
// its hives (docs/PROTOCOL.md, sections 3 and 5): how long a silence may be, which
// message is accepted, and when a sender must be checked again. It is pure: time comes
// in as an argument, there is no clock, goroutine or lock here, and no type is safe for
// concurrent use.
package liveness

import "time"

// LateAfter returns how long a sender may be silent before it is late: the longer of
// its promise and its announced silence, plus half a promise.
func LateAfter(every, quiet time.Duration) time.Duration { return max(every, quiet) + every/2 }

// LostAfter returns how long a sender may be silent before it is lost: the longer of
// its promise and its announced silence, plus two promises. Senders beat after at most
// 0.95 × every, so no sender is lost while (losses in a row + 1) × 0.95 × every +
// spread of delay < 3 × every.
func LostAfter(every, quiet time.Duration) time.Duration { return max(every, quiet) + 2*every }

// Missed returns how many messages should have arrived in a silence of age, and did
// not.
func Missed(age, every, quiet time.Duration) uint64 {
	if every <= 0 || age <= max(every, quiet) {
		return 0
	}
	return uint64((age-max(every, quiet))/every) + 1
}
