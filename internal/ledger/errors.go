package ledger

import (
	"context"
	"errors"
	"fmt"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// Errors that callers branch on; compare with errors.Is.
var (
	// ErrAway: JetStream does not answer now, or what was asked for is not there
	// any more. What was sent may have been done all the same. Try again later.
	ErrAway = errors.New("JetStream is away")
	// ErrNoJetStream: the server has no JetStream, not for this account, or it is
	// not there yet.
	ErrNoJetStream = errors.New("no JetStream")
	// ErrDiffers: a bucket or the stream exists with other settings.
	ErrDiffers = errors.New("exists with other settings")
	// ErrServerTooOld: the server lacks what the buckets need.
	ErrServerTooOld = errors.New("server is too old")
	// ErrNoSpace: JetStream has no room: its limits or the disk.
	ErrNoSpace = errors.New("JetStream has no space")
	// ErrConflict: another queen advanced the roster first. Read it and judge again.
	ErrConflict = errors.New("another queen was first")
	// ErrStale: the bucket holds a snapshot as new already.
	ErrStale = errors.New("a snapshot as new is there")
	// ErrTooOld: too long ago to be written down now.
	ErrTooOld = errors.New("too old")
)

// Error codes of nats-server that nats.go has no names for.
const (
	codeAccountResources    jetstream.ErrorCode = 10002
	codeInsufficient        jetstream.ErrorCode = 10023
	codeMemoryResources     jetstream.ErrorCode = 10028
	codeStorageResources    jetstream.ErrorCode = 10047
	codeSubjectOverlap      jetstream.ErrorCode = 10065
	codeCreateFailed        jetstream.ErrorCode = 10049
	codeStoreFailed         jetstream.ErrorCode = 10077
	codeDuplicateInProgress jetstream.ErrorCode = 10158
)

// codeOf returns the code of JetStream's own error in err, or 0.
func codeOf(err error) jetstream.ErrorCode {
	if je, ok := errors.AsType[jetstream.JetStreamError](err); ok && je.APIError() != nil {
		return je.APIError().ErrorCode
	}
	return 0
}

// conflict reports whether err says that the last sequence of a subject is not
// the expected one.
func conflict(err error) bool {
	switch codeOf(err) {
	case jetstream.JSErrCodeStreamWrongLastSequence, jetstream.JSErrCodeStreamWrongLastSequenceConstant:
		return true
	}
	return false
}

func outOfSpace(err error) bool {
	switch codeOf(err) {
	case codeAccountResources, codeInsufficient, codeMemoryResources, codeStorageResources, codeStoreFailed:
		return true
	}
	return false
}

// away reports whether err says that nobody answered, as opposed to that the
// answer was no.
func away(err error) bool {
	for _, target := range []error{
		nats.ErrNoResponders, nats.ErrTimeout, nats.ErrDisconnected, nats.ErrConnectionReconnecting,
		nats.ErrConnectionClosed, nats.ErrConnectionDraining, nats.ErrReconnectBufExceeded, nats.ErrStaleConnection,
		ErrAway, context.DeadlineExceeded, context.Canceled, // the latter by whileConnected
		jetstream.ErrNoStreamResponse, jetstream.ErrStreamNotFound, jetstream.ErrBucketNotFound,
		jetstream.ErrJetStreamNotEnabled, jetstream.ErrConnectionClosed, jetstream.ErrNoHeartbeat,
		jetstream.ErrAsyncPublishTimeout,
		jetstream.ErrServerShutdown, jetstream.ErrConsumerDeleted, jetstream.ErrConsumerNotFound,
	} {
		if errors.Is(err, target) {
			return true
		}
	}
	je, ok := errors.AsType[jetstream.JetStreamError](err)
	return ok && je.APIError() != nil && je.APIError().Code == 503 && !outOfSpace(err)
}

// wrap tells what failed, and with which of the sentinels. A context that the
// caller ended stays what it is.
func wrap(ctx context.Context, what string, err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(context.Cause(ctx), ErrAway): // by whileConnected
		return fmt.Errorf("ledger: %s: %w", what, context.Cause(ctx))
	case errors.Is(ctx.Err(), context.Canceled):
		return fmt.Errorf("ledger: %s: %w", what, context.Canceled)
	case outOfSpace(err):
		return fmt.Errorf("ledger: %s: %w: %w", what, ErrNoSpace, err)
	case away(err):
		return fmt.Errorf("ledger: %s: %w: %w", what, ErrAway, err)
	}
	return fmt.Errorf("ledger: %s: %w", what, err)
}
