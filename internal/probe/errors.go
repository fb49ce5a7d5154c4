package probe

import (
	"errors"
	"fmt"
)

// Errors of [Prober.Read] and [Detect], for errors.Is. Their texts are for people.
var (
	ErrRefused      = errors.New("connection refused")
	ErrTimeout      = errors.New("no answer in time")
	ErrUnauthorized = errors.New("credentials refused")     // 401 or 403
	ErrBusy         = errors.New("too many requests (429)") // the engine refuses probes because it is busy
	ErrAnswer       = errors.New("not the answer of this engine")
)

// StatusError is an answer with a status that is none of the above, such as 500.
type StatusError struct {
	Code int
	Line string // the first line of the answer, short and printable; may be empty
}

func (e *StatusError) Error() string {
	if e.Line == "" {
		return fmt.Sprintf("status %d", e.Code)
	}
	return fmt.Sprintf("status %d: %s", e.Code, e.Line)
}
