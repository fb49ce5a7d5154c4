package queen

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/beatfabric/hivebeat"
	"github.com/beatfabric/hivebeat/internal/fleet"
	"github.com/beatfabric/hivebeat/internal/ledger"
)

// announceLimit is how many hives are announced at once: each takes three round
// trips one after the other, and ten thousand may die together.
const announceLimit = 128

// tellDifferences queues the hives whose verdict, and the zones whose brake, may
// differ from what the roster says.
func (q *Queen) tellDifferences(work context.Context, now time.Time) {
	queue := func(t fleet.Teller) {
		if b := t.Roster(); b.Busy {
			b.Again = true
		} else {
			b.Busy = true
			q.store.queue = append(q.store.queue, t)
		}
	}
	for _, h := range q.view.TakeDirty() {
		queue(h)
	}
	for _, z := range q.view.TakeZones() {
		queue(z)
	}
	q.startAnnouncements(work, now)
}

// startAnnouncements says of the queued hives what there is to say, as far as
// that is possible now.
func (q *Queen) startAnnouncements(work context.Context, now time.Time) {
	s := &q.store
	if q.cfg.NoJetStream {
		q.tellStraight(now)
		return
	}
	for len(s.queue) > 0 && q.working < announceLimit && s.there() && s.roster {
		t := s.queue[0]
		s.queue = s.queue[1:]
		if !q.view.Knows(t) {
			continue
		}
		job := q.announcement(t, now)
		if job == nil {
			q.announced(t)
			continue
		}
		q.working++
		l := s.ledger
		q.wg.Go(func() {
			err := job.run(work, l)
			_ = q.post(work, func(now time.Time) { q.finish(work, job, err, now) })
		})
	}
}

// announced ends the work on t, unless something came up meanwhile.
func (q *Queen) announced(t fleet.Teller) {
	b := t.Roster()
	b.Busy = false
	if b.Again {
		b.Again = false
		q.view.CompareAgain(t)
	}
}

// announcement is one step of an entry in the roster.
type announcement struct {
	of        fleet.Teller
	item      ledger.RosterItem // what is there
	confirmed bool              // its event is known to be stored
	next      ledger.RosterEntry
	event     *hivebeat.Event // nil where the entry is made again as it was

	advanced  bool
	published bool
	lost      bool // another queen was first: found says what is there now
	found     ledger.RosterItem
	revision  uint64
}

// announcement returns what is to be done for t, or nil.
func (q *Queen) announcement(t fleet.Teller, now time.Time) *announcement {
	b := t.Roster()
	a := &announcement{of: t, item: b.Item, confirmed: b.Confirmed >= b.Item.N}
	a.item.Stored += now.Sub(b.ReadAt)
	if b.Item.N > 0 && b.Item.Revision == 0 { // the roster was lost: it is to go on where it was
		a.next = b.Item.RosterEntry
		a.next.Event = nil
		return a
	}
	say, ok := t.Say(now)
	if !ok {
		return nil
	}
	ev := q.subjects.NewEvent(say.ID, now, say.Data)
	body, err := ev.Encode()
	if err != nil {
		q.log.Error("an event can not be encoded", slog.String("key", t.Key()), slog.Any("err", err))
		return nil
	}
	a.next, a.event = say.Next, &ev
	a.next.Event = body
	return a
}

// run does it, beside the loop.
func (a *announcement) run(ctx context.Context, l *ledger.Ledger) error {
	if a.event != nil && !a.confirmed && a.item.N > 0 {
		if err := l.Republish(ctx, a.item); err != nil && !errors.Is(err, ledger.ErrTooOld) {
			return fmt.Errorf("queen: event %d of %s again: %w", a.item.N, a.of.Key(), err)
		}
	}
	var err error
	if a.revision, err = l.Advance(ctx, a.of.Key(), a.item.Revision, a.next); errors.Is(err, ledger.ErrConflict) {
		a.lost = true
		item, ok, err := l.RosterOf(ctx, a.of.Key())
		if err != nil {
			return fmt.Errorf("queen: roster of %s: %w", a.of.Key(), err)
		}
		if a.found = item; !ok {
			a.found.Gone = true
		}
		return nil
	} else if err != nil {
		return fmt.Errorf("queen: roster of %s: %w", a.of.Key(), err)
	}
	a.advanced = true
	if a.event != nil {
		if err := l.Publish(ctx, *a.event); err != nil && !errors.Is(err, ledger.ErrTooOld) {
			return fmt.Errorf("queen: event %d of %s: %w", a.next.N, a.of.Key(), err)
		}
	}
	a.published = true
	return nil
}

// finish takes the result over, and compares again: there may be more to say.
func (q *Queen) finish(work context.Context, a *announcement, err error, now time.Time) {
	q.working--
	t, b := a.of, a.of.Roster()
	b.Busy = false
	switch {
	case !q.view.Knows(t): // forgotten meanwhile
	case a.lost && a.found.Gone:
		q.view.UnlearnKey(t.Key(), false)
	case a.lost && err == nil:
		q.rosterItem(t.Key(), a.found, now, 5*time.Second)
	case a.advanced:
		item := ledger.RosterItem{RosterEntry: a.next, Revision: a.revision, Epoch: max(a.item.Epoch, b.Item.Epoch)}
		q.view.LearnKey(t.Key(), item, now)
		if a.published {
			b.Confirmed = max(b.Confirmed, a.next.N)
		} else {
			q.store.unsure.Set(t, now)
		}
	}
	b.Again = true
	q.announced(t)
	if err != nil {
		q.trouble(work, err, now)
	}
	q.startAnnouncements(work, now)
}

// publishTo hands a worker's event to the stream. One that can never be stored is
// told in the log and is done with, so that it does not hold up the others.
func (q *Queen) publishTo(l *ledger.Ledger) func(context.Context, hivebeat.Event) error {
	return func(ctx context.Context, ev hivebeat.Event) error {
		err := l.Publish(ctx, ev)
		switch {
		case err == nil, ctx.Err() != nil, errors.Is(err, ledger.ErrTooOld), errors.Is(err, ledger.ErrAway), errors.Is(err, ledger.ErrNoSpace):
			return err
		}
		q.log.Error("an event was refused and is given up", slog.String("id", ev.ID), slog.Any("err", err))
		return nil
	}
}

// openStraight publishes to the subjects of the events themselves.
func (q *Queen) openStraight() { q.out.open(q.publishStraight) }

func (q *Queen) publishStraight(_ context.Context, ev hivebeat.Event) error {
	body, err := ev.Encode()
	if err != nil {
		q.log.Error("an event can not be encoded", slog.String("id", ev.ID), slog.Any("err", err))
		return nil
	}
	return q.nc.Publish(q.subjects.Event(ev.Data.Hive, ev.Data.Worker, ev.Data.Kind), body)
}

// tellStraight publishes the differences without a roster. What every queen can
// number alike there is only the hive's own seq, so that is in the ids: readers
// dedupe by them.
func (q *Queen) tellStraight(now time.Time) {
	s := &q.store
	if q.conn.isCut() {
		return
	}
	for _, t := range s.queue {
		for q.view.Knows(t) {
			say, ok := t.Say(now)
			if !ok {
				break
			}
			b := t.Roster()
			ev := q.subjects.NewEvent(q.straightID(&say.Data), now, say.Data)
			if err := q.publishStraight(context.Background(), ev); err != nil {
				q.log.Warn("an event could not be published", slog.String("id", ev.ID), slog.Any("err", err))
			}
			item := ledger.RosterItem{RosterEntry: say.Next, Revision: say.Next.N}
			if say.Data.Kind == hivebeat.KindBrake {
				q.view.LearnKey(t.Key(), item, now)
				continue
			}
			if say.Data.Kind == hivebeat.KindConflict {
				b.Conflict = say.Data.Inc
			}
			b.Item = item
		}
		q.announced(t)
	}
	s.queue = s.queue[:0]
}

func (q *Queen) straightID(d *hivebeat.EventData) string {
	switch d.Kind {
	case hivebeat.KindBrake: // nothing numbers it: each queen tells its own
		return fmt.Sprintf("brake.%s.%d.%d", q.cfg.ID, q.began.UnixMilli(), d.N)
	case hivebeat.KindJoined, hivebeat.KindRestarted, hivebeat.KindLeft, hivebeat.KindConflict:
		return fmt.Sprintf("%s.%d.%s", d.Hive, d.Inc, d.Kind)
	}
	return fmt.Sprintf("%s.%d.%d.%s", d.Hive, d.Inc, d.Seq, d.Kind)
}
