// Package verdict holds the rule by which a receiver judges a sender of pulses: how long
// a silence may last before the sender is late or lost, and which of its incarnations
// counts. A hive judges its workers by this rule and a queen its hives. A program with
// other senders, such as storage nodes, can judge them in the same way.
//
// A message to be judged carries five facts of its sender: an id; an incarnation, which
// is higher each time that the process starts; a sequence number, which grows with each
// message; the promise, which is the longest time until the next message; and an
// announced silence, if there is one. bus.Pulse keeps such a promise. The receiver
//
//   - passes incarnation and number to the sender's Guard, and ignores the message
//     unless its outcome is Accepted;
//   - measures the age of the last accepted message with its own clock, so that no two
//     clocks are compared. The sender is late once that age reaches LateAfter, and lost
//     once it reaches LostAfter;
//   - calls Guard.End when the sender says goodbye: it left and is not lost.
//
// Silence is evidence only while the receiver itself could hear: after it was cut off
// from NATS or stopped, it adds that time to each deadline.
//
// The package is pure: time comes in as an argument, and there is no clock, goroutine or
// lock. It imports only the standard library.
package verdict

import "time"

// LateAfter returns the age of the last message at which a sender becomes late: the
// longer of its promise every and its announced silence quiet, plus half a promise.
// quiet is 0 for a sender that announced none.
func LateAfter(every, quiet time.Duration) time.Duration { return max(every, quiet) + every/2 }

// LostAfter returns the age of the last message at which a sender becomes lost: the
// longer of its promise every and its announced silence quiet, plus two promises. A
// bus.Pulse sends after at most 0.95 × every, so no sender is lost while (losses in a row + 1) ×
// 0.95 × every + spread of delay < 3 × every.
func LostAfter(every, quiet time.Duration) time.Duration { return max(every, quiet) + 2*every }

// Missed returns how many messages should have arrived within age, the age of the last
// one, and did not. It is 0 for a sender without a promise.
func Missed(age, every, quiet time.Duration) uint64 {
	if every <= 0 || age <= max(every, quiet) {
		return 0
	}
	return uint64((age-max(every, quiet))/every) + 1
}
