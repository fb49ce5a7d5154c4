// Package liveness holds what hives and queens share when they judge their senders
// (docs/PROTOCOL.md, sections 3 and 5), beyond the rule of package verdict: whether the
// observer itself can hear, connections that closed, two processes with one id, and
// when a sender must be checked again. It is pure: time comes in as an argument, there
// is no clock, goroutine or lock here, and no type is safe for concurrent use.
package liveness

import (
	"time"

	"github.com/beatfabric/hivebeat/verdict"
)

// LateAfter is verdict.LateAfter.
func LateAfter(every, quiet time.Duration) time.Duration { return verdict.LateAfter(every, quiet) }

// LostAfter is verdict.LostAfter.
func LostAfter(every, quiet time.Duration) time.Duration { return verdict.LostAfter(every, quiet) }

// Missed is verdict.Missed.
func Missed(age, every, quiet time.Duration) uint64 { return verdict.Missed(age, every, quiet) }
