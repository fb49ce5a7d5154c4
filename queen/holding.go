package queen

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/beatfabric/hivebeat"
	"github.com/beatfabric/hivebeat/internal/index"
	"github.com/beatfabric/hivebeat/internal/ledger"
	"github.com/beatfabric/hivebeat/internal/query"
	"github.com/beatfabric/hivebeat/queen/api"
)

// A hold is stored in JetStream before it is answered, with a compare-and-set on the
// key of its place, so that two queens never give away the same place. Meanwhile this
// queen reserves the place for itself. If it loses the race, it looks for another
// place.

const (
	holdRounds  = 4  // rounds of looking for places that others do not take
	holdTries   = 4  // attempts to store one hold
	holdsAtOnce = 16 // stored in parallel for one request
	defaultHold = 30 * time.Second
)

var errTaken = errors.New("taken by another hold")

// claim is a place to hold, and the outcome.
type claim struct {
	query.Found
	more  []*claim // the other GPUs of the pick: all are held or none
	pick  api.Pick
	renew bool
	hold  query.Hold
	rev   uint64 // revision of the stored entry of the place
	list  []query.Hold
	err   error
}

// alone waits until no other request about this hold is under way at this queen. An
// asker that had no answer in time asks again, and must get the same places.
func (q *Queen) alone(ctx context.Context, id query.HoldID) (done func(), err error) {
	mine := make(chan struct{})
	for {
		q.mu.Lock()
		before, busy := q.acting[id]
		if !busy {
			q.acting[id] = mine
		}
		q.mu.Unlock()
		if !busy {
			return func() {
				q.mu.Lock()
				delete(q.acting, id)
				q.mu.Unlock()
				close(mine)
			}, nil
		}
		select {
		case <-before:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// hold answers the verb hold: it picks places and holds them under id.
func (q *Queen) hold(ctx context.Context, id query.HoldID, r api.Request) api.Answer {
	done, err := q.alone(ctx, id)
	if err != nil {
		return q.unavailable(err)
	}
	defer done()
	n, want := max(1, r.N), max(1, r.N)
	tried := make(map[index.Place]bool)
	var held []*claim
	var l *ledger.Ledger
	var away error
	err = q.ask(ctx, func(now time.Time) {
		if q.store.there() {
			l = q.store.ledger
		}
		if l == nil && !q.cfg.NoJetStream {
			away = errors.New("JetStream is away, and a hold must be stored: " + q.store.reason())
			return
		}
		picks, found, others := query.Held(q.view.Index(), r, id, q.holds.Of(id), now)
		for i := range picks {
			c := q.claim(found[i], picks[i], id, r.HoldMS, now, true)
			held = append(held, c)
			for _, c := range c.whole() {
				tried[c.Place] = true
			}
		}
		for _, p := range others {
			tried[p] = true
		}
	})
	switch {
	case err != nil:
		return q.unavailable(err)
	case away != nil:
		return q.refuse(ctx, api.CodeUnavailable, away.Error())
	}
	held, _ = q.holdWhole(ctx, l, held)
	var last api.Answer
	for round := 0; round < holdRounds && len(held) < n; round++ {
		var claims []*claim
		r.N = n - len(held)
		f := query.NewFinder(r, tried).For(id)
		last = q.steps(ctx, f, func(now time.Time) {
			for i, found := range f.Found() {
				c := q.claim(found, f.Answer().Picks[i], id, r.HoldMS, now, false)
				claims = append(claims, c)
				for _, c := range c.whole() {
					tried[c.Place] = true
				}
			}
		})
		if last.Error != nil || len(claims) == 0 {
			break
		}
		var got []*claim
		got, away = q.holdWhole(ctx, l, claims)
		if held = append(held, got...); away != nil {
			break
		}
	}
	switch {
	case len(held) == 0 && last.Error != nil:
		return last
	case len(held) == 0 && away != nil:
		return q.refuse(ctx, api.CodeUnavailable, "the hold could not be stored: "+away.Error())
	}
	return q.look(ctx, func(now time.Time) api.Answer {
		a := api.Answer{}
		if len(held) < want {
			a.Passed = last.Passed
		}
		for i, c := range held {
			c.pick.Rank, c.pick.Hold, c.pick.Asker = i+1, id.ID, id.Asker
			a.Picks = append(a.Picks, c.pick)
		}
		a.Status.Unsure = append(q.unsureHolds(), query.UnsureOf(q.view.Index(), a.Picks, now)...)
		return a
	})
}

func (q *Queen) unsureHolds() []string {
	if q.cfg.NoJetStream {
		return []string{"holds are only in the memory of this queen: other queens do not know them"}
	}
	return nil
}

// claim begins to hold a place. It must run in the loop.
func (q *Queen) claim(f query.Found, p api.Pick, id query.HoldID, last hivebeat.Millis, now time.Time, renew bool) *claim {
	c := &claim{Found: f, pick: p, renew: renew}
	c.hold = query.Hold{HoldID: id, N: f.Need, Until: now.Add(cmp.Or(last.Duration(), defaultHold))}
	c.rev, c.list = q.holds.Written(f.Place)
	if renew {
		for _, x := range c.list {
			if x.HoldID == id {
				c.hold.N = x.N
			}
		}
	} else {
		q.holds.Reserve(q.view.Index(), f.Place, c.hold, now)
	}
	for _, other := range f.More {
		c.more = append(c.more, q.claim(other, p, id, last, now, renew))
	}
	return c
}

// whole returns the claims on all GPUs of the pick.
func (c *claim) whole() []*claim { return append([]*claim{c}, c.more...) }

// holdWhole stores the claims, and gives back what it holds of picks that it could not hold whole. It returns
// the others, and an error if a claim failed for another reason than that its place is taken.
func (q *Queen) holdWhole(ctx context.Context, l *ledger.Ledger, claims []*claim) (held []*claim, err error) {
	var all, back []*claim
	for _, c := range claims {
		all = append(all, c.whole()...)
	}
	q.holdAll(ctx, l, all)
	for _, c := range claims {
		var failed error
		for _, c := range c.whole() {
			if failed = cmp.Or(failed, c.err); c.err != nil && !errors.Is(c.err, errTaken) {
				err = c.err
			}
		}
		if failed == nil {
			held = append(held, c)
			continue
		}
		for _, c := range c.whole() {
			if c.err == nil {
				back = append(back, &claim{Found: query.Found{Place: c.Place}, renew: true, hold: query.Hold{HoldID: c.hold.HoldID}, rev: c.rev, list: c.list})
			}
		}
	}
	// If that fails, what is held ends by itself.
	q.holdAll(context.WithoutCancel(ctx), l, back)
	return held, err
}

// holdAll stores the claims and applies the outcome.
func (q *Queen) holdAll(ctx context.Context, l *ledger.Ledger, claims []*claim) {
	if len(claims) == 0 {
		return
	}
	if l == nil {
		for _, c := range claims {
			c.list = c.with(c.list)
		}
	} else {
		q.write(claims, func(c *claim) { c.write(ctx, l) })
	}
	// The asker may be gone; reservations must not outlive the request.
	err := q.do(context.WithoutCancel(ctx), func(now time.Time) {
		for _, c := range claims {
			if !c.renew {
				q.holds.Unreserve(q.view.Index(), c.Place, c.hold.HoldID, now)
			}
			if c.err == nil {
				q.holds.Learn(q.view.Index(), c.Place, c.rev, c.list, now)
			}
		}
	})
	for _, c := range claims {
		c.err = cmp.Or(c.err, err)
	}
}

func (q *Queen) write(claims []*claim, fn func(*claim)) {
	var wg sync.WaitGroup
	slots := make(chan struct{}, holdsAtOnce)
	for _, c := range claims {
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			fn(c)
		})
	}
	wg.Wait()
}

// with returns the list to store: the holds of others that have not expired, and this
// one.
func (c *claim) with(list []query.Hold) []query.Hold {
	out := c.without(list)
	if c.hold.N > 0 {
		out = append(out, c.hold)
	}
	return out
}

func (c *claim) without(list []query.Hold) []query.Hold {
	now := time.Now()
	return slices.DeleteFunc(slices.Clone(list), func(x query.Hold) bool { return x.HoldID == c.hold.HoldID || !x.Until.After(now) })
}

// write stores a claim. It runs beside the loop.
func (c *claim) write(ctx context.Context, l *ledger.Ledger) {
	for range holdTries {
		list := c.with(c.list)
		sum := uint64(0)
		for _, x := range list {
			sum += x.N
		}
		if !c.renew && sum > c.Room {
			c.err = errTaken
			return
		}
		rev, err := l.PutHolds(ctx, ledger.HoldPlace(c.Place), c.rev, entriesOf(list, time.Now()))
		if err == nil {
			c.rev, c.list, c.err = rev, list, nil
			return
		}
		if c.err = err; !errors.Is(err, ledger.ErrConflict) {
			return
		}
		item, err := l.HoldsOf(ctx, ledger.HoldPlace(c.Place))
		if err != nil {
			c.err = err
			return
		}
		c.rev, c.list = item.Revision, holdsOf(item, time.Now())
	}
	c.err = errTaken
}

func entriesOf(list []query.Hold, now time.Time) []ledger.HoldEntry {
	out := make([]ledger.HoldEntry, 0, len(list))
	for _, x := range list {
		e := ledger.HoldEntry{ID: x.ID, Asker: x.Asker, N: x.N, Left: hivebeat.MillisOf(x.Until.Sub(now))}
		if e.Asker == api.Anyone {
			e.Asker = ""
		}
		out = append(out, e)
	}
	return out
}

// maxHold bounds the remaining time that this queen accepts from a stored hold.
const maxHold = 10 * time.Minute

func holdsOf(item ledger.HoldItem, now time.Time) []query.Hold {
	out := make([]query.Hold, 0, len(item.Holds))
	for _, e := range item.Holds {
		left := min(e.Left, hivebeat.MillisOf(maxHold)).Duration() - item.Stored
		id := query.HoldID{Asker: cmp.Or(e.Asker, api.Anyone), ID: e.ID}
		if hivebeat.ValidID(id.ID) && hivebeat.ValidID(id.Asker) && e.N > 0 && left > 0 {
			out = append(out, query.Hold{HoldID: id, N: e.N, Until: now.Add(left)})
		}
	}
	return out
}

// release gives back all places of a hold.
func (q *Queen) release(ctx context.Context, id query.HoldID) api.Answer {
	done, err := q.alone(ctx, id)
	if err != nil {
		return q.unavailable(err)
	}
	defer done()
	var claims []*claim
	var l *ledger.Ledger
	away := ""
	var released []api.Hold
	err = q.ask(ctx, func(now time.Time) {
		if q.store.there() {
			l = q.store.ledger
		}
		if l == nil && !q.cfg.NoJetStream {
			away = "JetStream is away, and the release of a hold must be stored: " + q.store.reason()
			return
		}
		for _, p := range q.holds.Of(id) {
			c := &claim{Found: query.Found{Place: p}, renew: true, hold: query.Hold{HoldID: id}}
			c.rev, c.list = q.holds.Written(p)
			for _, x := range c.list {
				if x.HoldID == id {
					released = append(released, query.Describe(p, x, now))
				}
			}
			claims = append(claims, c)
		}
	})
	switch {
	case err != nil:
		return q.unavailable(err)
	case away != "":
		return q.refuse(ctx, api.CodeUnavailable, away)
	case len(claims) == 0:
		return q.refuse(ctx, api.CodeNotFound, "no hold "+id.ID+" of asker "+id.Asker)
	}
	q.holdAll(ctx, l, claims)
	for _, c := range claims {
		if c.err != nil {
			return q.refuse(ctx, api.CodeUnavailable, "not all places of the hold could be released: "+c.err.Error())
		}
	}
	return q.look(ctx, func(time.Time) api.Answer {
		return api.Answer{Holds: released, Status: api.Status{Unsure: q.unsureHolds()}}
	})
}

// listHolds answers the verb holds.
func (q *Queen) listHolds(ctx context.Context, r api.Request) api.Answer {
	return q.look(ctx, func(now time.Time) api.Answer {
		a := q.holds.List(&r, now)
		a.Status.Unsure = q.unsureHolds()
		if !q.cfg.NoJetStream && !q.store.there() {
			a.Status.Unsure = []string{"JetStream is away: this queen does not know holds that other queens gave since"}
		}
		return a
	})
}

// watchHolds follows the holds that all queens store.
func (q *Queen) watchHolds(work context.Context, l *ledger.Ledger) {
	for work.Err() == nil {
		err := l.WatchHolds(work, func() {
			_ = q.post(work, func(now time.Time) { q.holds.Forget(q.view.Index(), now) })
		}, func(p ledger.HoldPlace, item ledger.HoldItem) {
			_ = q.post(work, func(now time.Time) {
				q.holds.Learn(q.view.Index(), index.Place(p), item.Revision, holdsOf(item, now), now)
			})
		})
		if err != nil && work.Err() == nil {
			q.log.Warn("the watch of holds ended, starting it again", slog.Any("err", err))
			select {
			case <-work.Done():
			case <-time.After(time.Second):
			}
		}
	}
}
