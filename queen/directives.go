package queen

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/beatfabric/hivebeat"
	"github.com/beatfabric/hivebeat/internal/directive"
	"github.com/beatfabric/hivebeat/internal/ledger"
	"github.com/beatfabric/hivebeat/internal/query"
	"github.com/beatfabric/hivebeat/queen/api"
)

// What an operator says is a change of the entry of a hive in the roster (internal/directive), by compare-and-set. The
// event of the change is inside the entry: before another change replaces it, it is published again, and every queen
// that reads it publishes it too, so that it is in the stream once, whichever queen dies.
const (
	directTries     = 8                // attempts to store one change
	directivesLook  = time.Second      // between two looks for entries to put or publish again
	directivesSweep = 10 * time.Minute // between two looks at all entries
)

// directives is what the loop keeps of operators' words, and what orders this queen's own requests.
type directives struct {
	query.Directives
	changing chan struct{} // holds a value while a change is under way
	wake     chan struct{} // holds a value when there is something to put or publish
}

func newDirectives() directives {
	return directives{changing: make(chan struct{}, 1), wake: make(chan struct{}, 1)}
}

// learn takes an entry that was read, in the loop.
func (q *Queen) learn(hive string, item directive.Item, now time.Time) {
	q.directives.Learn(q.view.Index(), hive, item, now)
	q.view.Numbered(hive, item.After)
	select {
	case q.directives.wake <- struct{}{}:
	default:
	}
}

// directs waits until no other change is under way at this queen.
func (q *Queen) directs(ctx context.Context) (done func(), err error) {
	select {
	case q.directives.changing <- struct{}{}:
		return func() { <-q.directives.changing }, nil
	case <-q.ended:
		return nil, fmt.Errorf("queen: %w", hivebeat.ErrStopped)
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// direct answers the verbs that change what operators say.
func (q *Queen) direct(ctx context.Context, asker, verb string, r api.Request) api.Answer {
	done, err := q.directs(ctx)
	if err != nil {
		return q.unavailable(err)
	}
	defer done()
	failed := errors.New("other queens change it at the same time")
	for range directTries {
		l, why, err := q.mayChange(ctx)
		switch {
		case err != nil:
			return q.unavailable(err)
		case why != "":
			return q.refuse(ctx, api.CodeUnavailable, why)
		}
		c, refused, err := q.amend(ctx, l, asker, verb, &r)
		switch {
		case errors.Is(err, ledger.ErrConflict):
			failed = err
			continue
		case err != nil:
			return q.refuse(ctx, api.CodeUnavailable, "it could not be stored: "+err.Error())
		case refused != nil:
			return q.refuse(ctx, refused.Code, refused.Message)
		}
		return q.look(ctx, func(time.Time) api.Answer { return api.Answer{Directive: &c.Now} })
	}
	return q.refuse(ctx, api.CodeUnavailable, "it could not be stored: "+failed.Error())
}

// mayChange returns the ledger, or why this queen changes nothing now: it has no JetStream, or does not know enough.
func (q *Queen) mayChange(ctx context.Context) (l *ledger.Ledger, why string, err error) {
	err = q.ask(ctx, func(time.Time) {
		_, cut := q.core.Hearing().CutSince()
		_, doubts := q.core.Hearing().Doubts()
		switch {
		case q.cfg.NoJetStream:
			why = "this needs JetStream, and the queen runs without it"
		case !q.store.there():
			why = "JetStream is away, and this must be stored: " + q.store.reason()
		case !q.core.Warm():
			why = "this queen has just started, and changes nothing yet"
		case cut || doubts:
			why = "this queen is not sure that it hears everything, and changes nothing until it is"
		default:
			l = q.store.ledger
		}
	})
	return l, why, err
}

// amend reads the entry of a hive, and puts it as a request asks for. ErrConflict: another queen was first.
func (q *Queen) amend(ctx context.Context, l *ledger.Ledger, asker, verb string, r *api.Request) (c query.Change, refused *api.Error, err error) {
	item, err := l.Directives(ctx, r.Hive)
	if err != nil {
		return c, nil, err
	}
	err = q.ask(ctx, func(now time.Time) {
		q.learn(r.Hive, item, now)
		c, refused = q.directives.Change(q.view.Index(), verb, asker, r, now)
	})
	if err != nil || refused != nil || c.None {
		return c, refused, err
	}
	return c, nil, q.putChange(ctx, l, &c, item.Epoch)
}

// putChange stores a change, and publishes its event.
func (q *Queen) putChange(ctx context.Context, l *ledger.Ledger, c *query.Change, epoch int64) error {
	d := &c.Event
	if err := q.tellDirective(ctx, d.Hive); err != nil { // the entry is its last copy
		return err
	}
	ev := q.subjects.NewEvent(hivebeat.DirectiveEventID(d.Hive, c.Entry.N), time.Now(), *d)
	var err error
	if c.Entry.Event, err = ev.Encode(); err != nil {
		return err
	}
	began := time.Now()
	rev, err := l.PutDirectives(ctx, d.Hive, c.Rev, c.Entry)
	if err != nil {
		return err
	}
	q.log.Info("an operator's word was stored", slog.String("what", string(d.Kind)), slog.String("hive", d.Hive), slog.String("worker", d.Worker),
		slog.String("gpu", d.GPU), slog.String("by", d.Asker), slog.String("reason", d.Reason))
	// It is stored: the rest does not depend on whether the asker still waits.
	work := context.WithoutCancel(ctx)
	if err := q.do(work, func(now time.Time) {
		q.learn(d.Hive, directive.Item{Entry: c.Entry, Revision: rev, Epoch: epoch, Stored: now.Sub(began)}, now)
	}); err != nil {
		return err
	}
	if err := q.tellDirective(work, d.Hive); err != nil {
		q.log.Debug("the event of an operator's word is published later", slog.String("hive", d.Hive), slog.Any("err", err))
	}
	return nil
}

// tellDirective publishes the event in the entry of a hive, if that is not known to be done.
func (q *Queen) tellDirective(ctx context.Context, hive string) error {
	var item ledger.RosterItem
	var n uint64
	var publisher *ledger.Publisher
	if err := q.do(ctx, func(now time.Time) {
		item.Event, item.Stored = q.directives.Event(hive, now)
		n = q.directives.N(hive)
		publisher = q.store.publisher
	}); err != nil || item.Event == nil {
		return err
	}
	var ev hivebeat.Event
	err := json.Unmarshal(item.Event, &ev)
	if ok := err == nil && ev.Data.Hive == hive && ev.ID == hivebeat.DirectiveEventID(hive, n); !ok {
		q.log.Warn("the event of an operator's word is not one, and is left out", slog.String("hive", hive), slog.Any("err", err))
	} else if err := publisher.Publish(ctx, []ledger.EventMsg{{
		ID: ev.ID, Hive: ev.Data.Hive, Worker: ev.Data.Worker, Kind: ev.Data.Kind, Body: item.Event, Age: item.Stored,
	}})[0]; err != nil && !errors.Is(err, ledger.ErrTooOld) {
		if errors.Is(err, ledger.ErrAway) || errors.Is(err, ledger.ErrNoSpace) || ctx.Err() != nil {
			return err
		}
		q.log.Error("the event of an operator's word was refused and is given up", slog.String("hive", hive), slog.Any("err", err))
	}
	return q.do(ctx, func(time.Time) { q.directives.Published(hive, n) })
}

// keepDirectives publishes the events of entries that this queen has read, and puts entries again: incomplete ones,
// and those that would run out. It runs beside the loop.
func (q *Queen) keepDirectives(work context.Context, l *ledger.Ledger) {
	swept := time.Now()
	for {
		select {
		case <-work.Done():
			return
		case <-q.leaving:
			return
		case <-q.directives.wake:
		case <-time.After(directivesLook):
		}
		var put, publish []string
		sweep := time.Since(swept) >= directivesSweep
		if q.do(work, func(now time.Time) {
			if _, doubts := q.core.Hearing().Doubts(); !doubts && q.store.there() && q.core.Warm() {
				put, publish = q.directives.Todo(q.view.Index(), sweep, now)
				if sweep {
					swept = now
				}
			}
		}) != nil {
			return
		}
		for _, hive := range publish {
			q.tryAgain(work, hive, q.tellDirective(work, hive))
		}
		for _, hive := range put {
			q.tryAgain(work, hive, q.putAgain(work, l, hive))
		}
	}
}

func (q *Queen) tryAgain(work context.Context, hive string, err error) {
	if err == nil || work.Err() != nil {
		return
	}
	q.log.Debug("cannot keep what operators said about a hive, trying again", slog.String("hive", hive), slog.Any("err", err))
	_ = q.do(work, func(time.Time) { q.directives.Again(hive) })
}

// putAgain puts the directives in force on a hive, without an event. If another queen was first, its entry
// counts.
func (q *Queen) putAgain(work context.Context, l *ledger.Ledger, hive string) error {
	item, err := l.Directives(work, hive)
	if err != nil {
		return err
	}
	var e directive.Entry
	var rev uint64
	due := false
	if err := q.do(work, func(now time.Time) {
		q.learn(hive, item, now)
		due = q.directives.Due(q.view.Index(), hive, now)
		e, rev = q.directives.Entry(hive, now)
	}); err != nil || !due {
		return err
	}
	began := time.Now()
	seq, err := l.PutDirectives(work, hive, rev, e)
	if err != nil {
		return err
	}
	return q.do(work, func(now time.Time) {
		q.learn(hive, directive.Item{Entry: e, Revision: seq, Epoch: item.Epoch, Stored: now.Sub(began)}, now)
	})
}
