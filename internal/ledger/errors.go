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
	// ErrAway means that JetStream does not answer now, or that the bucket, stream or
	// consumer no longer exists. The request may have taken effect all the same. Try again
	// later.
	ErrAway = errors.New("JetStream is away")
	// ErrNoJetStream means that the server has no JetStream, that this account may not use
	// it, or that it is not available yet.
	ErrNoJetStream = errors.New("no JetStream")
	// ErrDiffers means that a bucket or the stream exists with other settings.
	ErrDiffers = errors.New("exists with other settings")
	// ErrServerTooOld means that the server lacks a feature that the buckets need.
	ErrServerTooOld = errors.New("server is too old")
	// ErrNoSpace means that JetStream is out of space: its limits are reached or the disk
	// is full.
	ErrNoSpace = errors.New("JetStream has no space")
	// ErrConflict means that another queen changed the entry first. Read it and decide
	// again.
	ErrConflict = errors.New("another queen was first")
	// ErrStale means that the bucket already holds this snapshot or a newer one.
	ErrStale = errors.New("the bucket holds this snapshot or a newer one")
	// ErrTooOld means that an event or a snapshot is too old to be stored now.
	ErrTooOld = errors.New("too old")
)

// Error codes of nats-server that nats.go does not name.
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

// conflict reports whether err says that the last sequence of a subject differs from the
// expected one.
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

// away reports whether err means that no answer came, as opposed to a negative answer.
func away(err error) bool {
	for _, target := range []error{
		nats.ErrNoResponders, nats.ErrTimeout, nats.ErrDisconnected, nats.ErrConnectionReconnecting,
		nats.ErrConnectionClosed, nats.ErrConnectionDraining, nats.ErrReconnectBufExceeded, nats.ErrStaleConnection,
		ErrAway, context.DeadlineExceeded, context.Canceled, // Canceled comes from whileConnected
		jetstream.ErrNoStreamResponse, jetstream.ErrStreamNotFound, jetstream.ErrBucketNotFound,
		jetstream.ErrJetStreamNotEnabled, jetstream.ErrConnectionClosed, jetstream.ErrNoHeartbeat,
		jetstream.ErrAsyncPublishTimeout, jetstream.ErrTooManyStalledMsgs, jetstream.ErrJetStreamPublisherClosed,
		jetstream.ErrServerShutdown, jetstream.ErrConsumerDeleted, jetstream.ErrConsumerNotFound,
	} {
		if errors.Is(err, target) {
			return true
		}
	}
	je, ok := errors.AsType[jetstream.JetStreamError](err)
	return ok && je.APIError() != nil && je.APIError().Code == 503 && !outOfSpace(err)
}

// wrap adds the failed operation and the matching sentinel to err. If the caller canceled
// ctx, the error wraps context.Canceled and no sentinel.
func wrap(ctx context.Context, what string, err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(context.Cause(ctx), ErrAway): // set by whileConnected
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
