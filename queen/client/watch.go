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
	watchWait = 5 * time.Second        // short, so that the client soon notices a dead queen
	watchGap  = 100 * time.Millisecond // between two requests, if no more changes are ready
	minAgain  = 100 * time.Millisecond // after an error, at first
	maxAgain  = 2 * time.Second
)

// Watch returns everything that matches r and then the changes, until ctx ends or the
// caller stops. If nothing changes, an answer comes after r.Wait, 5 s by default; it
// still says how sure the queen is.
//
// Watch asks for changes only when the caller wants more. Nothing is queued for a slow
// caller: the changes since the last answer come in one answer, in their latest state.
// Events come one by one; Missed counts those that can no longer be delivered.
//
// Watch follows one queen. If that queen is gone, another takes over, and its first
// answer has Resync: the caller must discard everything it has, and the answers from
// then on build it again. The same happens if a cursor, r.After, can no longer be
// followed. To continue later with a new Watch, use the Next of the last answer as
// After.
//
// ErrNoQueen, ErrUnavailable and a lost connection do not end the sequence. Watch
// yields the error and, if the caller continues, tries again after 0.1 to 2 s. All
// other errors end it.
func (c *Client) Watch(ctx context.Context, r api.Request) iter.Seq2[*api.Answer, error] {
	return func(yield func(*api.Answer, error) bool) {
		r := r // a sequence may be iterated more than once
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

// changes asks the queen that issued the cursor. If that queen is gone or does not
// answer, it asks any other, which does not know the cursor and says so by Resync.
func (c *Client) changes(ctx context.Context, r api.Request) (*api.Answer, error) {
	if queen, _, ok := strings.Cut(r.After, "."); ok && hivebeat.ValidID(queen) {
		a, err := c.ask(ctx, c.at(api.VerbWatch, queen), api.VerbWatch, r, 0) // only this queen listens on that subject
		if !errors.Is(err, ErrNoQueen) && !errors.Is(err, ErrUnavailable) {
			return a, err
		}
	}
	return c.any(ctx, api.VerbWatch, r)
}

// passes reports whether the next attempt may succeed after this error.
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
