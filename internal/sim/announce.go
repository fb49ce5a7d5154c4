package sim

import (
	"errors"
	"strconv"
	"time"

	"github.com/beatfabric/hivebeat"
	"github.com/beatfabric/hivebeat/internal/fleet"
	"github.com/beatfabric/hivebeat/internal/ledger"
)

var subjects, _ = hivebeat.NewSubjects("")

// tell queues what may differ from the roster.
func (q *queen) tell(t fleet.Teller) {
	if b := t.Roster(); b.Busy {
		b.Again = true
	} else {
		b.Busy = true
		q.queue = append(q.queue, t)
	}
}

// announce says of what is queued what there is to say: queen/announcing.go with
// one request after the other.
func (q *queen) announce() {
	for len(q.queue) > 0 && q.working < announceLimit && q.there() && q.rosterOK {
		t := q.queue[0]
		q.queue = q.queue[1:]
		if !q.view.Knows(t) {
			continue
		}
		a := q.announcement(t)
		if a == nil {
			q.announced(t)
			q.lookAfterIt(t)
			continue
		}
		q.working++
		q.republish(a)
	}
}

func (q *queen) announced(t fleet.Teller) {
	b := t.Roster()
	b.Busy = false
	if b.Again {
		b.Again = false
		q.view.CompareAgain(t)
	}
}

// before reports whether this queen is one that puts less into the roster.
func (q *queen) before() bool {
	for i := range q.w.plan.Before {
		if q.ident == "q"+strconv.Itoa(i+1) {
			return true
		}
	}
	return false
}

// announcement is one step of an entry in the roster.
type announcement struct {
	of        fleet.Teller
	item      ledger.RosterItem
	confirmed bool
	next      ledger.RosterEntry
	events    []hivebeat.Event

	advanced, published, lost bool
	found                     ledger.RosterItem
	revision                  uint64
}

func (q *queen) announcement(t fleet.Teller) *announcement {
	b, now := t.Roster(), q.w.time()
	a := &announcement{of: t, item: b.Item, confirmed: b.Confirmed >= b.Item.N}
	if b.Item.N > 0 && b.Item.Revision == 0 {
		a.next = b.Anew(now)
		return a
	}
	say, ok := t.Say(now)
	if !ok {
		return nil
	}
	a.next = say.Next
	for i := range say.Events {
		q.w.truth.wardLostByClosing(q, &say.Events[i].Data)
		ev := subjects.NewEvent(say.Events[i].ID, now, say.Events[i].Data)
		body, err := ev.Encode()
		if err != nil {
			q.w.breaks(Sound, "an event can not be encoded: %v", err)
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

// republish makes sure of the event before.
func (q *queen) republish(a *announcement) {
	if len(a.events) == 0 || a.confirmed || a.item.N == 0 {
		q.advance(a)
		return
	}
	q.ask(func(s *store) { s.republish(a.item) }, func(err error) {
		if err != nil {
			q.finish(a, err)
			return
		}
		q.advance(a)
	})
}

func (q *queen) advance(a *announcement) {
	var cas error
	id := a.of.Key()
	q.ask(func(s *store) { a.revision, cas = s.advance(id, a.item.Revision, a.next, q.before()) }, func(err error) {
		switch {
		case err != nil:
			q.finish(a, err)
		case errors.Is(cas, ledger.ErrConflict):
			a.lost = true
			ok := false
			q.ask(func(s *store) { a.found, ok = s.item(id) }, func(err error) {
				a.found.Gone = err == nil && !ok
				q.finish(a, err)
			})
		default:
			a.advanced = true
			q.publishOf(a, 0)
		}
	})
}

// publishOf publishes the events of a from the given one on.
func (q *queen) publishOf(a *announcement, from int) {
	if a.published = from == len(a.events); a.published {
		q.finish(a, nil)
		return
	}
	q.ask(func(s *store) { s.publish(&a.events[from]) }, func(err error) {
		if err != nil {
			q.finish(a, err)
			return
		}
		q.publishOf(a, from+1)
	})
}

// finish takes the result over, and compares again: there may be more to say.
func (q *queen) finish(a *announcement, err error) {
	q.working--
	now, t, b := q.w.time(), a.of, a.of.Roster()
	b.Busy = false
	switch {
	case !q.view.Knows(t):
	case !a.advanced && err != nil:
		q.lookAfter(t, 5*time.Second)
	case a.lost && a.found.Gone:
		q.view.UnlearnKey(t.Key(), false)
	case a.lost:
		q.rosterItem(t.Key(), a.found, 5*time.Second)
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
			q.unsure.Set(t, now)
		}
	}
	b.Again = true
	q.announced(t)
	q.trouble(err)
}

// rosterItem takes one entry, and sees to it that its event gets out.
func (q *queen) rosterItem(id string, item ledger.RosterItem, within time.Duration) {
	q.hearsay(id, func() { q.lookAfter(q.view.LearnKey(id, item, q.w.time()), within) })
}

// lookAfter has the event in an entry published again in a while.
func (q *queen) lookAfter(t fleet.Teller, within time.Duration) {
	b := t.Roster()
	if e := &b.Item; e.N > b.Confirmed && len(e.Event) > 0 && e.Stored < fleet.TooOld && !b.Busy {
		q.unsure.Set(t, q.w.time().Add(5*time.Second+between(q.rng, 0, within)))
	}
}

// lookAfterIt does so where there was nothing to say of t: its entry may have come by
// the watch while it waited for its turn.
func (q *queen) lookAfterIt(t fleet.Teller) {
	if _, ok := q.unsure.At(t); !ok {
		q.lookAfter(t, 5*time.Second)
	}
}

// watch brings what is new in the roster.
func (q *queen) watch() {
	q.look()
	s := q.w.store
	if !q.up() || !q.opened || s.epoch != q.epoch {
		return // the next watch, or the next read
	}
	if q.cuts > 0 || s.away > 0 { // unnoticed: it goes on when it can
		if !q.rewatch {
			q.rewatch = true
			q.after(time.Second, func() { q.rewatch = false; q.watch() })
		}
		return
	}
	for _, id := range s.all(q.watched) {
		item, _ := s.item(id)
		q.watched = item.Revision
		q.rosterItem(id, item, 5*time.Second)
	}
	q.settle()
}

// confirm publishes again what may never have been published.
func (q *queen) confirm() {
	if !q.there() {
		return
	}
	for t := range q.unsure.Due(q.w.time()) {
		b := t.Roster()
		if !q.view.Knows(t) || b.Item.N <= b.Confirmed || b.Busy {
			continue
		}
		item := b.Item
		q.ask(func(s *store) { s.republish(item) }, func(err error) {
			if err == nil {
				b.Confirmed = max(b.Confirmed, item.N)
				return
			}
			q.unsure.Set(t, q.w.time().Add(5*time.Second))
			q.trouble(err)
		})
	}
}
