package client

import (
	"cmp"
	"context"
	"errors"
	"iter"
	"math/rand/v2"
	"strings"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/beatfabric/hivebeat"
	"github.com/beatfabric/hivebeat/queen/api"
)

const (
	watchWait = 5 * time.Second        // so that a queen that died is noticed soon
	watchGap  = 100 * time.Millisecond // between two questions, where no more waits
	minAgain  = 100 * time.Millisecond // after an error, at first
	maxAgain  = 2 * time.Second
)

// Watch returns everything that fits r, then what changes, until ctx ends or the
// caller stops. An answer in which nothing changed comes after r.Wait, 5 s by
// default: it still says how sure the queen is.
//
// It asks for what changed when the caller wants more, and no sooner. A slow caller
// is never queued for: what changed meanwhile comes in one answer, as it is by
// then. Events come one by one; Missed counts those that can not be told any more.
//
// It follows one queen. When that is gone another goes on, and the first answer of
// that has Resync: all that was told is void, what follows builds it anew. So it is
// for a cursor, r.After, that can not be followed any more. To go on later with a
// new Watch, take the Next of the last answer as After.
//
// ErrNoQueen, ErrUnavailable, and a connection that is lost end nothing: the error
// is told, and where the caller goes on, it is tried again after 0.1 to 2 s. All
// other errors end it.
func (c *Client) Watch(ctx context.Context, r api.Request) iter.Seq2[*api.Answer, error] {
	return func(yield func(*api.Answer, error) bool) {
		r := r // a sequence may be walked more than once
		r.Wait = cmp.Or(r.Wait, hivebeat.MillisOf(watchWait))
		again := minAgain
		for ctx.Err() == nil {
			asked := time.Now()
			a, err := c.changes(ctx, r)
			switch {
			case ctx.Err() != nil:
				return
			case err == nil:
				again = minAgain
				r.After = cmp.Or(a.Next, r.After)
				if !yield(a, nil) {
					return
				}
				if !a.More {
					pause(ctx, watchGap-time.Since(asked))
				}
			case !yield(a, err) || !passes(err):
				return
			default:
				pause(ctx, again/2+rand.N(again/2))
				again = min(2*again, maxAgain)
			}
		}
	}
}

// changes asks the queen that the cursor is of. Where she is gone, or does not
// answer, any other is asked: she does not know the cursor, and says so by Resync.
func (c *Client) changes(ctx context.Context, r api.Request) (*api.Answer, error) {
	if queen, _, ok := strings.Cut(r.After, "."); ok && hivebeat.ValidID(queen) {
		a, err := c.ask(ctx, c.at(api.VerbWatch, queen), api.VerbWatch, r, 0) // no other hears it there
		if !errors.Is(err, ErrNoQueen) && !errors.Is(err, ErrUnavailable) {
			return a, err
		}
	}
	return c.any(ctx, api.VerbWatch, r)
}

// passes tells whether an error may be over the next time.
func passes(err error) bool {
	for _, e := range []error{
		ErrNoQueen, ErrUnavailable, nats.ErrReconnectBufExceeded, nats.ErrConnectionReconnecting, nats.ErrDisconnected,
	} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// pause waits for d, or until ctx ends.
func pause(ctx context.Context, d time.Duration) {
	if d <= 0 {
		return
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}
