// Package life follows the processes that a worker beats for: one that another program
// started, or one after the other on the same port, under the same unit or from the same
// command.
package life

import (
	"context"
	"errors"
)

// Process is one process, from when it is known until its end.
type Process struct {
	PID uint64
	// Ended receives one End when the process has ended.
	Ended <-chan End
}

// End says how a process ended.
type End struct {
	// How is "code 3", "signal 9" or "oom"; empty if that is unknown, as for a process that
	// is not a child.
	How string
	// Reason is for people: the last line of its errors, and the next step.
	Reason string
	// Orderly says that the end was wanted: the worker said goodbye, it did not die.
	Orderly bool
	// Final says that no other process follows: Next returns ErrOver.
	Final bool
	// GivenUp says that the source, which started the process over and over, has stopped
	// trying: the worker says goodbye as failed.
	GivenUp bool
}

// ErrOver: no process follows.
var ErrOver = errors.New("no further process")

// Source yields processes, one after the other.
type Source interface {
	// Next returns the next process once it runs. It is called again only after the end of
	// the one before. Its error is that of ctx, or wraps ErrOver.
	Next(ctx context.Context) (Process, error)
	// Waiting says, for people, what Next waits for: "no process listens on port 8000". It is
	// safe for concurrent use.
	Waiting() string
}
