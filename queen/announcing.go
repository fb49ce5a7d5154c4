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

// Announcements are made in batches, each of which takes some three round trips:
// ten thousand hives may die together. A few batches are under way at once, so
// that the first to be told waits for no other, and the server for nobody.
const (
	announceBatch   = 256
	announceBatches = 4
)

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
	for len(s.queue) > 0 && q.working < announceBatches && s.there() && s.roster {
		jobs := q.takeBatch(now)
		if len(jobs) == 0 {
			return
		}
		q.working++
		l, p := s.ledger, s.publisher
		q.wg.Go(func() {
			jobs.run(work, l, p)
			_ = q.post(work, func(now time.Time) { q.finish(work, jobs, now) })
		})
	}
}

// takeBatch takes from the queue what is said next.
func (q *Queen) takeBatch(now time.Time) announcements {
	s := &q.store
	var jobs announcements
	for len(s.queue) > 0 && len(jobs) < announceBatch {
		t := s.queue[0]
		s.queue = s.queue[1:]
		if !q.view.Knows(t) {
			continue
		}
		if job := q.announcement(t, now); job != nil {
			jobs = append(jobs, job)
		} else {
			q.announced(t)
			if _, ok := s.unsure.At(t); !ok { // the watch may have brought its entry while it waited here
				q.lookAfter(t, now, 5*time.Second)
			}
		}
	}
	return jobs
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
	events    []hivebeat.Event // none where the entry is made again as it was

	advanced  bool
	published bool
	lost      bool // another queen was first: found says what is there now
	found     ledger.RosterItem
	revision  uint64
	err       error
}

// announcement returns what is to be done for t, or nil.
func (q *Queen) announcement(t fleet.Teller, now time.Time) *announcement {
	b := t.Roster()
	a := &announcement{of: t, item: b.Item, confirmed: b.Confirmed >= b.Item.N}
	a.item.Stored += now.Sub(b.ReadAt)
	if b.Item.N > 0 && b.Item.Revision == 0 { // the roster was lost: it is to go on where it was
		a.next = b.Anew(now)
		return a
	}
	say, ok := t.Say(now)
	if !ok {
		return nil
	}
	a.next = say.Next
	for i := range say.Events {
		ev := q.subjects.NewEvent(say.Events[i].ID, now, say.Events[i].Data)
		body, err := ev.Encode()
		if err != nil {
			q.log.Error("an event can not be encoded", slog.String("key", t.Key()), slog.Any("err", err))
			return nil
		}
		a.events = append(a.events, ev)
		if i == len(say.Events)-1 {
			a.next.Event = body
		} else {
			a.next.Events = append(a.next.Events, body)
		}
	}
	return a
}

// body returns the JSON of event i.
func (a *announcement) body(i int) []byte {
	if i < len(a.next.Events) {
		return a.next.Events[i]
	}
	return a.next.Event
}

// announcements are made together, beside the loop: each of another hive or zone.
type announcements []*announcement

// run takes them through the steps of PROTOCOL.md, section 7. The outcome is in
// each of them.
func (jobs announcements) run(ctx context.Context, l *ledger.Ledger, p *ledger.Publisher) {
	jobs.again(ctx, p)
	jobs.advance(ctx, l, p)
	var told announcements // of each letter
	var letters []ledger.Letter
	for _, a := range jobs {
		if !a.advanced {
			continue
		}
		a.published = true
		for i := range a.events {
			told, letters = append(told, a), append(letters, ledger.NewLetter(&a.events[i], a.body(i)))
		}
	}
	for i, err := range p.Publish(ctx, letters) {
		if a := told[i]; err != nil && !errors.Is(err, ledger.ErrTooOld) {
			a.published = false
			a.err = fmt.Errorf("queen: event %d of %s: %w", a.next.N, a.of.Key(), err)
		}
	}
}

// again publishes event n of each entry again, where nobody knows that it is
// stored.
func (jobs announcements) again(ctx context.Context, p *ledger.Publisher) {
	var before announcements // of each letter
	var letters []ledger.Letter
	for _, a := range jobs {
		if len(a.events) == 0 || a.confirmed || a.item.N == 0 {
			continue
		}
		list, err := a.item.Letters()
		if err != nil {
			a.err = fmt.Errorf("queen: event %d of %s again: %w", a.item.N, a.of.Key(), err)
		}
		for _, letter := range list {
			before, letters = append(before, a), append(letters, letter)
		}
	}
	for i, err := range p.Publish(ctx, letters) {
		if a := before[i]; err != nil && !errors.Is(err, ledger.ErrTooOld) {
			a.err = fmt.Errorf("queen: event %d of %s again: %w", a.item.N, a.of.Key(), err)
		}
	}
}

// advance takes each entry from n to n + 1, and reads those anew of which another
// queen was first.
func (jobs announcements) advance(ctx context.Context, l *ledger.Ledger, p *ledger.Publisher) {
	var trying, lost announcements
	var steps []ledger.Step
	var keys []string
	for _, a := range jobs {
		if a.err == nil {
			trying = append(trying, a)
			steps = append(steps, ledger.Step{Key: a.of.Key(), Revision: a.item.Revision, Next: a.next})
		}
	}
	for i, r := range p.Advance(ctx, steps) {
		a := trying[i]
		switch {
		case r.Err == nil:
			a.advanced, a.revision = true, r.Revision
		case errors.Is(r.Err, ledger.ErrConflict):
			a.lost = true
			lost, keys = append(lost, a), append(keys, a.of.Key())
		default:
			a.err = fmt.Errorf("queen: roster of %s: %w", a.of.Key(), r.Err)
		}
	}
	if len(lost) == 0 {
		return
	}
	for i, r := range l.RostersOf(ctx, keys) {
		a := lost[i]
		if r.Err != nil {
			a.err = fmt.Errorf("queen: roster of %s: %w", a.of.Key(), r.Err)
			continue
		}
		if a.found = r.Item; !r.OK {
			a.found.Gone = true
		}
	}
}

// finish takes the results over, and compares again: there may be more to say.
func (q *Queen) finish(work context.Context, jobs announcements, now time.Time) {
	q.working--
	var failed error
	for _, a := range jobs {
		q.finishOne(a, now)
		if failed == nil {
			failed = a.err
		}
	}
	if failed != nil {
		q.trouble(work, failed, now)
	}
	q.startAnnouncements(work, now)
}

func (q *Queen) finishOne(a *announcement, now time.Time) {
	t, b := a.of, a.of.Roster()
	b.Busy = false
	switch {
	case !q.view.Knows(t): // forgotten meanwhile
	case !a.advanced && a.err != nil:
		// It may have been written all the same, by this queen or another: then the
		// watch brought it while this was under way, and there is no difference any more.
		q.lookAfter(t, now, 5*time.Second)
	case a.lost && a.found.Gone:
		q.view.UnlearnKey(t.Key(), false)
	case a.lost:
		q.rosterItem(t.Key(), a.found, now, 5*time.Second)
	case a.advanced:
		item := ledger.RosterItem{RosterEntry: a.next, Revision: a.revision, Epoch: max(a.item.Epoch, b.Item.Epoch)}
		var told hivebeat.EventData
		if n := len(a.events); n > 0 {
			told = a.events[n-1].Data
		}
		q.view.LearnSaid(t, item, &told, now)
		if a.published {
			b.Confirmed = max(b.Confirmed, a.next.N)
		} else {
			q.store.unsure.Set(t, now)
		}
	}
	b.Again = true
	q.announced(t)
}

// publishTo hands workers' events to the stream. One that can never be stored is
// told in the log and is done with, so that it does not hold up the others.
func (q *Queen) publishTo(p *ledger.Publisher) publishing {
	return func(ctx context.Context, events []hivebeat.Event) []error {
		errs := make([]error, len(events))
		letters, of := make([]ledger.Letter, 0, len(events)), make([]int, 0, len(events))
		for i := range events {
			body, err := events[i].Encode()
			if err != nil {
				q.log.Error("an event can not be encoded", slog.String("id", events[i].ID), slog.Any("err", err))
				continue
			}
			letters, of = append(letters, ledger.NewLetter(&events[i], body)), append(of, i)
		}
		for k, err := range p.Publish(ctx, letters) {
			i := of[k]
			switch {
			case err == nil:
			case ctx.Err() != nil, errors.Is(err, ledger.ErrTooOld), errors.Is(err, ledger.ErrAway), errors.Is(err, ledger.ErrNoSpace):
				errs[i] = err
			default:
				q.log.Error("an event was refused and is given up", slog.String("id", events[i].ID), slog.Any("err", err))
			}
		}
		return errs
	}
}

// openStraight publishes to the subjects of the events themselves.
func (q *Queen) openStraight() {
	q.out.open(func(_ context.Context, events []hivebeat.Event) []error {
		errs := make([]error, len(events))
		for i := range events {
			errs[i] = q.publishStraight(&events[i])
		}
		return errs
	})
}

func (q *Queen) publishStraight(ev *hivebeat.Event) error {
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
			item := ledger.RosterItem{RosterEntry: say.Next, Revision: say.Next.N}
			for i := range say.Events {
				d := &say.Events[i].Data
				ev := q.subjects.NewEvent(q.straightID(d), now, *d)
				if err := q.publishStraight(&ev); err != nil {
					q.log.Warn("an event could not be published", slog.String("id", ev.ID), slog.Any("err", err))
				}
				if d.Kind == hivebeat.KindConflict {
					b.Conflict = d.Inc
				}
			}
			if say.Events[0].Data.Kind == hivebeat.KindBrake {
				q.view.LearnKey(t.Key(), item, now)
				continue
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
