package queen

import (
	"context"
	"errors"
	"time"

	"github.com/beatfabric/hivebeat/internal/query"
	"github.com/beatfabric/hivebeat/queen/api"
)

const (
	// maxWatchers is how many requests may wait for a change at once.
	maxWatchers = 512
	// watchPace is how often one waiting request looks at the view.
	watchPace = 100 * time.Millisecond
)

// onChange returns a channel that is closed at the next change of the view. It must run
// in the loop.
func (q *Queen) onChange() <-chan struct{} {
	if q.changed == nil {
		q.changed = make(chan struct{})
	}
	return q.changed
}

// wakeWatchers wakes the waiting requests if something changed.
func (q *Queen) wakeWatchers() {
	rev := q.view.Index().Rev()
	if rev == q.revTold {
		return
	}
	q.revTold = rev
	if q.changed != nil {
		close(q.changed)
		q.changed = nil
	}
}

// watch answers with the changes since a cursor, or waits for one. A watcher waits in
// the goroutine of its request and looks at the view when it wakes; nothing is queued
// per watcher.
func (q *Queen) watch(ctx context.Context, r api.Request) api.Answer {
	if r.Wait > 0 {
		select {
		case q.watchers <- struct{}{}:
			defer func() { <-q.watchers }()
		default:
			return q.refuse(ctx, api.CodeUnavailable, "too many wait for changes here: try again later, or at another queen")
		}
	}
	w := query.NewWatch(q.cfg.ID, r)
	end := time.NewTimer(r.Wait.Duration())
	defer end.Stop()
	for last := r.Wait == 0; ; {
		var (
			a       api.Answer
			found   bool
			changed <-chan struct{}
		)
		err := q.ask(ctx, func(now time.Time) {
			found = w.Step(q.view.Index(), &q.events, now)
			a = w.Answer()
			q.ownScore(&a)
			if !found && !a.More {
				changed = q.onChange()
			}
			a = q.withStatus(a, now)
		})
		switch {
		case err != nil:
			return q.unavailable(err)
		case found, last && !a.More:
			return a
		case a.More: // nothing that matches so far
			if err := q.pause(ctx, stepPause); err != nil {
				return q.unavailable(err)
			}
			continue
		}
		looked := time.Now()
		select {
		case <-changed:
			if d := watchPace - time.Since(looked); d > 0 {
				select {
				case <-time.After(d):
				case <-end.C:
					last = true
				case <-q.leaving:
					last = true
				case <-ctx.Done():
				}
			}
		case <-end.C:
			last = true
		case <-q.leaving:
			last = true
		case <-ctx.Done():
			return q.unavailable(errors.Join(ctx.Err()))
		}
	}
}
