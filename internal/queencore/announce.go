package queencore

import (
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/beatfabric/hivebeat"
	"github.com/beatfabric/hivebeat/internal/fleet"
	"github.com/beatfabric/hivebeat/internal/ledger"
)

// Announcements go out in batches of about three round trips: ten thousand hives may die
// together. A few batches are in flight at once, so that the first hives do not wait for
// the others, and the server is never idle.
const (
	announceBatch   = 256
	announceBatches = 4
)

// announcement advances one entry of the roster by one step.
type announcement struct {
	of        fleet.Announcer
	item      ledger.RosterItem // the current entry
	confirmed bool              // the event of item is known to be stored
	next      ledger.RosterEntry
	events    []hivebeat.Event // none if the entry is put again unchanged

	advanced  bool
	published bool
	lost      bool // another queen was first, and found is its entry
	found     ledger.RosterItem
	revision  uint64
	err       error
}

// compare queues the hives and zones whose verdict may differ from the roster.
func (c *Core) compare(list []fleet.Announcer, now time.Time) {
	for _, t := range list {
		if !c.cfg.NoJetStream {
			c.live.compare(t, now)
		}
		if b := t.Roster(); b.Busy {
			b.Again = true
		} else {
			b.Busy = true
			c.store.queue = append(c.store.queue, t)
		}
	}
}

// announce starts the announcements of the queued hives and zones, unless JetStream is away
// or enough batches are in flight.
func (c *Core) announce(now time.Time) {
	s := &c.store
	if c.cfg.NoJetStream {
		c.publishPlain(now)
		return
	}
	for len(s.queue) > 0 && s.announcing < announceBatches && s.there() && s.roster {
		jobs := c.takeBatch(now)
		if len(jobs) == 0 {
			return
		}
		s.announcing++
		c.again(jobs, now)
	}
}

// takeBatch takes the next announcements off the queue.
func (c *Core) takeBatch(now time.Time) announcements {
	s := &c.store
	var jobs announcements
	for len(s.queue) > 0 && len(jobs) < announceBatch {
		t := s.queue[0]
		s.queue = s.queue[1:]
		if !c.view.Knows(t) {
			continue
		}
		if a := c.announcement(t, now); a != nil {
			jobs = append(jobs, a)
			continue
		}
		c.announced(t)
		if _, ok := s.unsure.At(t); !ok { // the watch may have brought its entry while it waited here
			c.lookAfter(t, now, lookWithin)
		}
	}
	return jobs
}

// announced ends the work on t. If something changed meanwhile, t is compared again.
func (c *Core) announced(t fleet.Announcer) {
	b := t.Roster()
	b.Busy = false
	if b.Again {
		b.Again = false
		c.view.Compare(t)
	}
}

// announcement returns the announcement to make for t, or nil if there is none.
func (c *Core) announcement(t fleet.Announcer, now time.Time) *announcement {
	b := t.Roster()
	a := &announcement{of: t, item: b.Item, confirmed: b.Confirmed >= b.Item.N}
	a.item.Stored += now.Sub(b.ReadAt)
	if b.Item.N > 0 && b.Item.Revision == 0 { // the roster was lost: the entry continues where it was
		a.next = b.Restored(now)
		return a
	}
	say, ok := t.Announce(now)
	if !ok {
		return nil
	}
	a.next = say.Next
	for i := range say.Events {
		ev := c.cfg.Subjects.NewEvent(say.Events[i].ID, now, say.Events[i].Data)
		if h, ok := t.(*fleet.Hive); ok && fleet.Urgent(ev.Data.Kind) {
			ev.Provisional = c.provisional(h, &ev.Data) // it may go out before it is stored
		}
		body, err := ev.Encode()
		if err != nil {
			c.ready.Logs.Add(slog.LevelError, "cannot encode an event", slog.String("key", t.Key()), slog.Any("err", err))
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

// announcements are made together, each for a different hive or zone. They go through the
// steps of docs/PROTOCOL.md, section 7: again, advance, reread, publishNew, finish.
type announcements []*announcement

// outgoing has the events to publish, in order, each with its announcement.
type outgoing struct {
	of   announcements
	list []ledger.EventMsg
}

func (l *outgoing) add(a *announcement, list ...ledger.EventMsg) {
	for _, x := range list {
		l.of, l.list = append(l.of, a), append(l.list, x)
	}
}

// publishEvents publishes the events, if there are any. It calls failed for each event
// that was not stored, and finally then(now).
func (c *Core) publishEvents(l outgoing, now time.Time, failed func(a *announcement, err error), then func(now time.Time)) {
	if len(l.list) == 0 {
		then(now)
		return
	}
	c.do(&Op{Kind: OpPublish, Msgs: l.list}, func(now time.Time, op *Op) {
		for i, err := range op.Errs {
			if err != nil && !errors.Is(err, ledger.ErrTooOld) {
				failed(l.of[i], err)
			}
		}
		then(now)
	})
}

// again publishes event n of each entry again if it is not known to be stored.
func (c *Core) again(jobs announcements, now time.Time) {
	var l outgoing
	for _, a := range jobs {
		if len(a.events) == 0 || a.confirmed || a.item.N == 0 {
			continue
		}
		list, err := a.item.EventMsgs()
		if err != nil {
			a.err = fmt.Errorf("queen: event %d of %s again: %w", a.item.N, a.of.Key(), err)
		}
		l.add(a, list...)
	}
	c.publishEvents(l, now, func(a *announcement, err error) {
		a.err = fmt.Errorf("queen: event %d of %s again: %w", a.item.N, a.of.Key(), err)
	}, func(now time.Time) { c.advance(jobs, now) })
}

// advance moves each entry from n to n + 1.
func (c *Core) advance(jobs announcements, now time.Time) {
	var trying announcements
	var steps []ledger.Step
	for _, a := range jobs {
		if a.err == nil {
			trying = append(trying, a)
			steps = append(steps, ledger.Step{Key: a.of.Key(), Revision: a.item.Revision, Next: a.next})
		}
	}
	if len(trying) == 0 {
		c.finish(jobs, now)
		return
	}
	c.do(&Op{Kind: OpAdvance, Steps: steps}, func(now time.Time, op *Op) {
		var lost announcements
		for i, r := range op.Advanced {
			a := trying[i]
			switch {
			case r.Err == nil:
				a.advanced, a.revision = true, r.Revision
			case errors.Is(r.Err, ledger.ErrConflict):
				a.lost = true
				lost = append(lost, a)
			default:
				a.err = fmt.Errorf("queen: roster of %s: %w", a.of.Key(), r.Err)
			}
		}
		c.reread(jobs, lost, now)
	})
}

// reread reads again the entries that another queen advanced first.
func (c *Core) reread(jobs, lost announcements, now time.Time) {
	if len(lost) == 0 {
		c.publishNew(jobs, now)
		return
	}
	keys := make([]string, len(lost))
	for i, a := range lost {
		keys[i] = a.of.Key()
	}
	c.do(&Op{Kind: OpRosters, Keys: keys}, func(now time.Time, op *Op) {
		for i, r := range op.Rosters {
			a := lost[i]
			if r.Err != nil {
				a.err = fmt.Errorf("queen: roster of %s: %w", a.of.Key(), r.Err)
				continue
			}
			if a.found = r.Item; !r.OK {
				a.found.Gone = true
			}
		}
		c.publishNew(jobs, now)
	})
}

// publishNew publishes the events of the entries that were advanced.
func (c *Core) publishNew(jobs announcements, now time.Time) {
	var l outgoing
	for _, a := range jobs {
		if !a.advanced {
			continue
		}
		a.published = true
		c.live.advanced(a)
		for i := range a.events {
			l.add(a, ledger.NewEventMsg(&a.events[i], a.body(i), now))
		}
	}
	c.publishEvents(l, now, func(a *announcement, err error) {
		a.published = false
		a.err = fmt.Errorf("queen: event %d of %s: %w", a.next.N, a.of.Key(), err)
	}, func(now time.Time) { c.finish(jobs, now) })
}

// finish applies the results, and compares again: there may be more to announce.
func (c *Core) finish(jobs announcements, now time.Time) {
	c.store.announcing--
	var failed error
	for _, a := range jobs {
		c.finishOne(a, now)
		failed = firstOf(failed, a.err)
	}
	c.trouble(failed, now)
}

func (c *Core) finishOne(a *announcement, now time.Time) {
	t, b := a.of, a.of.Roster()
	b.Busy = false
	switch {
	case !c.view.Knows(t): // forgotten meanwhile
	case !a.advanced && a.err != nil:
		// It may have been written all the same, by this queen or another. In that case the
		// watch brought it while this was under way, and there is no difference any more.
		c.lookAfter(t, now, lookWithin)
	case a.lost && a.found.Gone:
		c.view.UnlearnKey(t.Key(), false, now)
	case a.lost:
		c.roster(now, t.Key(), a.found, lookWithin)
	case a.advanced:
		item := ledger.RosterItem{RosterEntry: a.next, Revision: a.revision, Epoch: max(a.item.Epoch, b.Item.Epoch)}
		var last hivebeat.EventData
		if n := len(a.events); n > 0 {
			last = a.events[n-1].Data
		}
		c.view.LearnOwn(t, item, &last, now)
		if a.published {
			b.Confirmed = max(b.Confirmed, a.next.N)
			c.live.stored(t)
			c.store.full = false
		} else {
			c.store.unsure.Set(t, now)
		}
	}
	b.Again = true
	c.announced(t)
}

// publishPlain publishes the differences without a roster. Without one, the only number
// that all queens share is the hive's own seq, so the ids contain it: readers deduplicate
// by id.
func (c *Core) publishPlain(now time.Time) {
	s := &c.store
	if !c.hearing.Connected() {
		return
	}
	var events []hivebeat.Event
	for _, t := range s.queue {
		for c.view.Knows(t) {
			say, ok := t.Announce(now)
			if !ok {
				break
			}
			b := t.Roster()
			item := ledger.RosterItem{RosterEntry: say.Next, Revision: say.Next.N}
			for i := range say.Events {
				d := &say.Events[i].Data
				events = append(events, c.cfg.Subjects.NewEvent(c.plainID(d), now, *d))
				if d.Kind == hivebeat.KindConflict {
					b.Conflict = d.Inc
				}
			}
			if say.Events[0].Data.Kind == hivebeat.KindBrake {
				c.view.LearnKey(t.Key(), item, now)
				continue
			}
			b.Item = item
		}
		c.announced(t)
	}
	s.queue = s.queue[:0]
	if len(events) == 0 {
		return
	}
	c.do(&Op{Kind: OpPublishPlain, Events: events}, func(_ time.Time, op *Op) {
		for i, err := range op.Errs {
			if err != nil {
				c.ready.Logs.Add(slog.LevelWarn, "an event could not be published", slog.String("id", op.Events[i].ID), slog.Any("err", err))
			}
		}
	})
}

func (c *Core) plainID(d *hivebeat.EventData) string {
	if d.Kind == hivebeat.KindBrake { // nothing numbers it: each queen publishes its own event
		return fmt.Sprintf("brake.%s.%d.%d", c.cfg.ID, c.began.UnixMilli(), d.N)
	}
	of := d.Hive
	if d.Worker != "" {
		of += "." + d.Worker
	}
	switch d.Kind {
	case hivebeat.KindJoined, hivebeat.KindRestarted, hivebeat.KindLeft, hivebeat.KindConflict:
		return fmt.Sprintf("%s.%d.%s", of, d.Inc, d.Kind)
	}
	return fmt.Sprintf("%s.%d.%d.%s", of, d.Inc, d.Seq, d.Kind)
}
