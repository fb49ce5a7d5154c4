package queencore

import (
	"maps"
	"slices"
	"time"

	"github.com/beatfabric/hivebeat"
	"github.com/beatfabric/hivebeat/internal/fleet"
	"github.com/beatfabric/hivebeat/internal/liveness"
)

// If the store does not acknowledge a death within liveAfter, the death goes out without
// it, and so does a recovery from it (docs/PROTOCOL.md, section 7). It goes out under its
// own id if it has one, and under a provisional id otherwise. At most liveBatch events go
// out per turn.
const (
	liveAfter = time.Second
	liveBatch = 512
	liveMost  = 1 << 17 // events of workers that may wait; any more go only to the store
	liveAgain = 10 * time.Millisecond
)

// live holds the events that the store has not acknowledged.
type live struct {
	workers map[string]hivebeat.EventData // events by id, numbered by their hives
	due     liveness.Deadlines[string]    // when they go out
	hives   liveness.Deadlines[*fleet.Hive]
	mine    map[*fleet.Hive]*announcement        // put in the roster by this queen, and not known to be in the stream
	sent    map[*fleet.Hive]map[string]published // the last event that went out, by worker; "" is the hive itself
	more    bool
	count   uint64 // events that went out in all
}

// published is the last event that went out for a hive or worker.
type published struct {
	kind hivebeat.Kind
	inc  uint64
	id   string
}

// worker records transitions of workers that must be stored.
func (l *live) worker(list []fleet.Happened, now time.Time) {
	for i := range list {
		h := &list[i]
		if !fleet.Urgent(h.Data.Kind) || now.Sub(h.At) > fleet.TooOld || len(l.workers) >= liveMost {
			continue
		}
		if l.workers == nil {
			l.workers = make(map[string]hivebeat.EventData)
		}
		l.workers[h.ID] = h.Data
		l.due.Set(h.ID, now.Add(liveAfter))
	}
}

// done records that the event of a worker is stored, or given up.
func (l *live) done(id string) {
	if _, ok := l.workers[id]; ok {
		delete(l.workers, id)
		l.due.Remove(id)
	}
}

// compare records that there may be an event to publish for a hive.
func (l *live) compare(t fleet.Announcer, now time.Time) {
	if h, ok := t.(*fleet.Hive); ok {
		if _, waits := l.hives.At(h); !waits {
			l.hives.Set(h, now.Add(liveAfter))
		}
	}
}

// advanced records that an announcement is in the roster, but not in the stream yet.
func (l *live) advanced(a *announcement) {
	if h, ok := a.of.(*fleet.Hive); ok && len(a.events) > 0 {
		if l.mine == nil {
			l.mine = make(map[*fleet.Hive]*announcement)
		}
		l.mine[h] = a
	}
}

// stored records that the last announcement of t is in the stream.
func (l *live) stored(t fleet.Announcer) {
	h, ok := t.(*fleet.Hive)
	if a := l.mine[h]; ok && a != nil {
		for i := range a.events {
			delete(l.sent[h], a.events[i].Data.Worker)
		}
		if len(l.sent[h]) == 0 {
			delete(l.sent, h)
		}
		delete(l.mine, h)
	}
}

// provisional returns the id that an event of a hive has, or had, when it goes out before
// the roster has numbered it.
func (c *Core) provisional(h *fleet.Hive, d *hivebeat.EventData) string {
	if was, ok := c.live.sent[h][d.Worker]; ok && was.kind == d.Kind && was.inc == d.Inc {
		return was.id
	}
	return c.plainID(d)
}

// publishLive publishes the events that the store did not acknowledge in time. A queen that
// does not trust its hearing waits until it does.
func (c *Core) publishLive(now time.Time) {
	l := &c.live
	l.more = false
	if c.cfg.NoJetStream || !c.hearing.Connected() || !c.hearing.Trusts() {
		return
	}
	for id := range l.due.Due(now) {
		c.publishOneLive(c.cfg.Subjects.NewEvent(id, now, l.workers[id]))
		delete(l.workers, id)
		if l.more = len(c.ready.Live) >= liveBatch; l.more {
			return
		}
	}
	for h := range l.hives.Due(now) {
		c.publishHiveLive(h, now)
		if l.more = len(c.ready.Live) >= liveBatch; l.more {
			return
		}
	}
}

func (c *Core) publishOneLive(ev hivebeat.Event) {
	ev.Stored = new(bool)
	c.ready.Live = append(c.ready.Live, ev)
	c.live.count++
}

// publishHiveLive publishes each due event of h and its adopted workers once.
func (c *Core) publishHiveLive(h *fleet.Hive, now time.Time) {
	l := &c.live
	if !c.view.Has(h) {
		delete(l.mine, h)
		delete(l.sent, h)
		return
	}
	sent := l.sent[h]
	if sent == nil {
		sent = make(map[string]published)
	}
	owed := make(map[string]bool)
	publish := func(ev hivebeat.Event) {
		d := &ev.Data
		owed[d.Worker] = true
		if was := sent[d.Worker]; was.kind == d.Kind && was.inc == d.Inc {
			return
		}
		sent[d.Worker] = published{d.Kind, d.Inc, ev.Provisional}
		c.publishOneLive(ev)
	}
	if a := l.mine[h]; a != nil && (h.Roster().Item.N > a.next.N || h.Roster().Confirmed >= a.next.N) {
		l.stored(h)
	} else if a != nil {
		for i := range a.events {
			if fleet.Urgent(a.events[i].Data.Kind) {
				publish(a.events[i])
			}
		}
	}
	for _, d := range h.Unannounced(now) {
		if owed[d.Worker] { // it is in the roster, as this queen learns in a moment
			continue
		}
		ev := c.cfg.Subjects.NewEvent(c.provisional(h, &d), now, d)
		ev.Provisional = ev.ID
		publish(ev)
	}
	for _, worker := range slices.Sorted(maps.Keys(sent)) {
		if owed[worker] {
			continue
		}
		was := sent[worker]
		if d, ok := h.TakenBack(worker, was.inc); ok && was.kind != hivebeat.KindRecovered {
			ev := c.cfg.Subjects.NewEvent(c.plainID(&d), now, d)
			c.publishOneLive(ev)
		}
		delete(sent, worker)
	}
	if l.sent == nil {
		l.sent = make(map[*fleet.Hive]map[string]published)
	}
	if l.sent[h] = sent; len(sent) == 0 {
		delete(l.sent, h)
	}
}
