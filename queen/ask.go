package queen

import (
	"context"
	"fmt"
	"time"

	"github.com/beatfabric/hivebeat"
	"github.com/beatfabric/hivebeat/internal/query"
	"github.com/beatfabric/hivebeat/queen/api"
)

// stepPause is the pause between two steps of a request that takes several, so that the
// loop can do its other work.
const stepPause = time.Millisecond

// Answer answers a verb as queen.api.<verb> does; the asker is api.Anyone. It waits for
// the queen's loop, and for JetStream where the verb needs it, but no longer than ctx.
// A queen that is not running answers with CodeUnavailable. The caller must not modify
// anything that the answer refers to.
func (q *Queen) Answer(ctx context.Context, verb string, r api.Request) api.Answer {
	return q.answerTo(ctx, api.Anyone, verb, r)
}

// answerTo is Answer for a named asker.
func (q *Queen) answerTo(ctx context.Context, asker, verb string, r api.Request) api.Answer {
	a := q.answer(ctx, asker, verb, r)
	a.Whole(verb)
	a.Status.Asker = asker
	return a
}

func (q *Queen) answer(ctx context.Context, asker, verb string, r api.Request) api.Answer {
	if e := query.Check(verb, &r); e != nil {
		return q.refuse(ctx, e.Code, e.Message)
	}
	switch verb {
	case api.VerbHives, api.VerbWorkers:
		return q.steps(ctx, query.Page(verb, r), nil)
	case api.VerbWatch:
		return q.watch(ctx, r)
	case api.VerbEvents:
		return q.listEvents(ctx, r)
	case api.VerbPick:
		return q.steps(ctx, query.NewFinder(r, nil), nil)
	case api.VerbHold:
		return q.hold(ctx, query.HoldID{Asker: asker, ID: r.Hold}, r)
	case api.VerbRelease:
		return q.release(ctx, query.HoldID{Asker: asker, ID: r.Hold})
	case api.VerbForget:
		if r.GPU == "" {
			return q.forgetHive(ctx, asker, r.Hive)
		}
		return q.forgetGPU(ctx, asker, r)
	case api.VerbDrain, api.VerbUndrain, api.VerbSilence, api.VerbUnsilence:
		return q.direct(ctx, asker, verb, r)
	case api.VerbHolds:
		return q.listHolds(ctx, r)
	case api.VerbGPUs:
		return q.look(ctx, func(now time.Time) api.Answer { return query.GPUs(q.view.Index(), &r, now) })
	case api.VerbModels:
		return q.look(ctx, func(time.Time) api.Answer { return query.Models(q.view.Index(), &r) })
	case api.VerbHistory:
		return q.look(ctx, func(now time.Time) api.Answer { return q.history.Answer(q.view.Index(), &r, now) })
	}
	return q.look(ctx, func(now time.Time) api.Answer {
		a := query.One(q.view.Index(), verb, &r, now)
		q.ownScore(&a)
		return a
	})
}

// ownScore adds to a summary the figures that only this queen knows.
func (q *Queen) ownScore(a *api.Answer) {
	if a.Summary != nil {
		a.Summary.Stats.SelfPause += hivebeat.MillisOf(q.core.Hearing().Paused())
	}
}

// look answers with a single look at the view.
func (q *Queen) look(ctx context.Context, f func(now time.Time) api.Answer) (a api.Answer) {
	if err := q.ask(ctx, func(now time.Time) { a = q.withStatus(f(now), now) }); err != nil {
		return q.unavailable(err)
	}
	return a
}

// ask runs f in the loop, after it has settled the view.
func (q *Queen) ask(ctx context.Context, f func(now time.Time)) error {
	return q.do(ctx, func(now time.Time) {
		q.holds.Expire(q.view.Index(), now)
		q.directives.Expire(q.view.Index(), now)
		q.view.Settle(now)
		f(now)
	})
}

// withStatus sets the status of an answer. Doubts that the answer already lists are kept.
func (q *Queen) withStatus(a api.Answer, now time.Time) api.Answer {
	own := a.Status.Unsure
	a.Status = q.status(now)
	a.Status.Unsure = append(a.Status.Unsure, own...)
	return a
}

// steps answers with as many looks at the view as the job needs. Only one request at a
// time runs beyond its first step. at, if not nil, is called in the loop when the
// answer is complete.
func (q *Queen) steps(ctx context.Context, job query.Job, at func(now time.Time)) api.Answer {
	for n := 0; ; n++ {
		var a api.Answer
		done := false
		err := q.ask(ctx, func(now time.Time) {
			if done = job.Step(q.view.Index(), now); done {
				if a = q.withStatus(job.Answer(), now); at != nil {
					at(now)
				}
			}
		})
		switch {
		case err != nil:
			return q.unavailable(err)
		case done:
			return a
		}
		if n == 0 {
			select {
			case q.long <- struct{}{}:
				defer func() { <-q.long }()
			case <-q.ended:
			case <-ctx.Done():
			}
		}
		if err := q.pause(ctx, stepPause); err != nil {
			return q.unavailable(err)
		}
	}
}

// pause waits for d, or returns an error if the queen stops or ctx ends first.
func (q *Queen) pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-q.ended:
		return fmt.Errorf("queen: %w", hivebeat.ErrStopped)
	case <-ctx.Done():
		return ctx.Err()
	}
}

// refuse answers a request with an error.
func (q *Queen) refuse(ctx context.Context, code, message string) api.Answer {
	a := api.Answer{Error: &api.Error{Code: code, Message: message}}
	if err := q.do(ctx, func(now time.Time) { a.Status = q.status(now) }); err != nil {
		return q.unavailable(err)
	}
	return a
}

func (q *Queen) unavailable(err error) api.Answer {
	return api.Answer{
		Status: api.Status{AsOf: time.Now().UTC(), Queen: q.cfg.ID, Unsure: []string{"this queen does not answer: " + err.Error()}},
		Error:  &api.Error{Code: api.CodeUnavailable, Message: err.Error()},
	}
}

// shorter returns a request for about half of the answer, and whether there is one: an
// answer of a single record cannot be shortened.
func shorter(verb string, r api.Request, a *api.Answer) (api.Request, bool) {
	n := max(len(a.Hives)+len(a.Workers)+len(a.Gone), len(a.Events), len(a.Holds))
	switch verb {
	case api.VerbHives, api.VerbWorkers, api.VerbEvents, api.VerbHolds, api.VerbWatch:
		r.Limit = n / 2
	default:
		return r, false
	}
	return r, r.Limit > 0
}
