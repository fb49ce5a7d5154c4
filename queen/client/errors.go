package client

import (
	"errors"

	"github.com/beatfabric/hivebeat/queen/api"
)

// Errors of requests, besides those of ctx and of NATS. Compare them with errors.Is.
var (
	// ErrNoQueen means that no queen listens, so that no queen received the request. A
	// *StartingError wraps it.
	ErrNoQueen = errors.New("no queen answers")
	// ErrNoAnswer means that the request was sent and no answer came within Config.Timeout.
	// A queen may have received it, and a hold may have been made. A request that NATS does
	// not permit also ends this way: NATS reports the refusal to the error handler of the
	// connection, and to nothing else.
	ErrNoAnswer = errors.New("no answer")
	// ErrBadRequest means that the queen refuses the request: a value is not valid, or the
	// queen is too old to know a key. The message names it.
	ErrBadRequest = errors.New("bad request")
	// ErrNotFound means that the queen knows no such hive or worker, or that the asker has
	// no such hold.
	ErrNotFound = errors.New("not found")
	// ErrNothingFits means that no worker or GPU can take the work that Pick or Hold
	// describes. Pick.Passed counts why.
	ErrNothingFits = errors.New("nothing fits")
	// ErrTooLarge means that a single record does not fit into a message.
	ErrTooLarge = errors.New("too large")
	// ErrUnavailable means that the queen cannot answer now: it stops, it is overloaded, or
	// a hold needs JetStream, which is away. The same request may succeed later.
	ErrUnavailable = errors.New("unavailable")
	// ErrUnreadable means that the message received is no answer that this package
	// understands.
	ErrUnreadable = errors.New("the answer cannot be read")
)

// Error is the error that a queen answered with. It wraps ErrBadRequest, ErrNotFound,
// ErrTooLarge or ErrUnavailable.
type Error struct {
	Verb    string // the request, one of api.Verbs
	Code    string // one of the codes in package api, or of a later version
	Message string // for people
}

// Error returns the meaning of the code and the queen's message.
func (e *Error) Error() string {
	if err := e.Unwrap(); err != nil {
		return err.Error() + ": " + e.Message
	}
	return e.Code + ": " + e.Message
}

// Unwrap returns the error of the code, or nil for a code that this version does not
// know.
func (e *Error) Unwrap() error {
	switch e.Code {
	case api.CodeBadRequest:
		return ErrBadRequest
	case api.CodeNotFound:
		return ErrNotFound
	case api.CodeTooLarge:
		return ErrTooLarge
	case api.CodeUnavailable:
		return ErrUnavailable
	}
	return nil
}
