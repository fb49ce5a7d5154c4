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

// WatchQuery selects what Watch returns. The zero WatchQuery is everything.
type WatchQuery struct {
	// Hive limits the watch to this hive, its workers and their events. Default: none.
	Hive string
	// Filter selects hives and workers; of events, only its Model counts. With a filter no
	// Summary comes.
	api.Filter
	// Kinds limits the events to these kinds. Default: all.
	Kinds []hivebeat.Kind
	// Only limits the watch to some of "summary", "hives", "workers" and "events".
	// Default: all.
	Only []string
	// After continues an earlier watch: it is the Cursor of its last Changes. Default: from
	// everything that there is.
	After string
	// Wait is how long the queen waits for a change before it answers without one, at most
	// 1 min. Default: 5 s.
	Wait time.Duration
	// Limit is how many hives, workers and events come at once, 1 to 1000. Default: 200.
	Limit int
}

// Changes are what changed since the Changes before.
type Changes struct {
	// Resync, if not empty, says in words why the watcher must discard everything that it
	// has. These Changes and the next ones build it again.
	Resync string
	// Gone lists hives, and workers as <hive>/<worker>, that no longer exist or no longer
	// match. Apply it before Hives and Workers, because an item may be gone and back. The
	// watcher may not know all of them.
	Gone []string
	// Hives and Workers are those that changed, each once and as it is now.
	Hives   []api.HiveInfo
	Workers []api.WorkerInfo
	// Events are those that happened, each once and in order. Missed counts events that can
	// no longer be delivered.
	Events []api.Happened
	Missed uint64
	// Summary is nil if it comes later or did not change.
	Summary *api.Summary
	// More says that the next Changes are ready: what the watcher has is not complete yet.
	More bool
	// Cursor is the After of a WatchQuery that continues here.
	Cursor string
	// Status says how sure the queen is.
	Status api.Status
}

// Watch returns everything that matches q and then the changes, until ctx ends or the
// caller stops. If nothing changes, empty Changes come after q.Wait; their Status still
// says how sure the queen is.
//
// Watch asks for changes only when the caller wants more. Nothing is queued for a slow
// caller: it gets all changes since its last ones at once, each hive and worker in its
// latest state. Events come one by one; Missed counts those that can no longer be
// delivered.
//
// Watch follows one queen. If that queen is gone, another takes over, and its first
// Changes have Resync: the caller must discard everything it has, and the Changes from
// then on build it again. The same happens if a cursor can no longer be followed.
//
// ErrNoQueen, ErrNoAnswer, ErrUnavailable and a lost connection do not end the sequence.
// Watch yields the error and, if the caller continues, tries again after 0.1 to 2 s. All
// other errors end it; the end of ctx ends it without an error.
func (c *Client) Watch(ctx context.Context, q WatchQuery) iter.Seq2[Changes, error] {
	r := api.Request{
		Hive: q.Hive, Filter: q.Filter, Kinds: q.Kinds, Only: q.Only, After: q.After, Limit: q.Limit, Wait: millis(cmp.Or(q.Wait, watchWait)),
	}
	return func(yield func(Changes, error) bool) {
		r := r // a sequence may be iterated more than once
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
				if !yield(changesOf(a), nil) {
					return
				}
				if !a.More {
					pause(ctx, watchGap-time.Since(asked))
				}
			case !yield(changesOf(a), err) || !passes(err):
				return
			default:
				pause(ctx, again/2+rand.N(again/2))
				again = min(2*again, maxAgain)
			}
		}
	}
}

// changesOf returns the answer to a watch; of an answer with an error only the status, and
// of none the zero Changes.
func changesOf(a *api.Answer) Changes {
	switch {
	case a == nil:
		return Changes{}
	case a.Error != nil:
		return Changes{Status: a.Status}
	}
	return Changes{
		Resync: a.Resync, Gone: a.Gone, Hives: a.Hives, Workers: a.Workers, Events: a.Events, Missed: a.Missed, Summary: a.Summary,
		More: a.More, Cursor: a.Next, Status: a.Status,
	}
}

// changes asks the queen that issued the cursor. If that queen is gone or does not
// answer, it asks any other, which does not know the cursor and says so by Resync.
func (c *Client) changes(ctx context.Context, r api.Request) (*api.Answer, error) {
	if queen, _, ok := strings.Cut(r.After, "."); ok && hivebeat.ValidID(queen) {
		a, err := c.ask(ctx, c.at(api.VerbWatch, queen), api.VerbWatch, r, 0) // only this queen listens on that subject
		if !silent(err) && !errors.Is(err, ErrUnavailable) {
			return a, err
		}
	}
	return c.any(ctx, api.VerbWatch, r)
}

// silent reports whether no queen answered.
func silent(err error) bool { return errors.Is(err, ErrNoQueen) || errors.Is(err, ErrNoAnswer) }

// passes reports whether the next attempt may succeed after this error.
func passes(err error) bool {
	for _, e := range []error{
		ErrNoQueen, ErrNoAnswer, ErrUnavailable, nats.ErrReconnectBufExceeded, nats.ErrConnectionReconnecting, nats.ErrDisconnected,
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
