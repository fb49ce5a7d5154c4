package queencore

import (
	"maps"
	"slices"
	"time"

	"github.com/beatfabric/hivebeat"
	"github.com/beatfabric/hivebeat/internal/fleet"
	"github.com/beatfabric/hivebeat/internal/liveness"
)

// A death that the store does not acknowledge within liveAfter goes out without it, and
// so does its end (docs/PROTOCOL.md, section 7): under its own id where it has one, and
// else under one that is provisional. liveBatch of them go out in a turn.
const (
	liveAfter = time.Second
	liveBatch = 512
	liveMost  = 1 << 17 // workers' that may wait: of more only the store is told
	liveAgain = 10 * time.Millisecond
)

// live is what the store has not acknowledged.
type live struct {
	workers map[string]hivebeat.EventData // numbered by their hives, by id
	due     liveness.Deadlines[string]    // of those
	hives   liveness.Deadlines[*fleet.Hive]
	mine    map[*fleet.Hive]*announcement      // in the roster, by this queen, and not known to be in the stream
	told    map[*fleet.Hive]map[string]telling // what went out, by worker; empty is the hive's own
	more    bool
	count   uint64 // of all that went out
}

// telling is the last that went out of a hive or worker.
type telling struct {
	kind hivebeat.Kind
	inc  uint64
	id   string
}

// worker notes transitions of workers that are to be stored.
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

// done notes that the event of a worker is stored, or is given up.
func (l *live) done(id string) {
	if _, ok := l.workers[id]; ok {
		delete(l.workers, id)
		l.due.Remove(id)
	}
}

// compare notes that there may be something to be told of a hive.
func (l *live) compare(t fleet.Teller, now time.Time) {
	if h, ok := t.(*fleet.Hive); ok {
		if _, waits := l.hives.At(h); !waits {
			l.hives.Set(h, now.Add(liveAfter))
		}
	}
}

// advanced notes that an announcement is in the roster, and not in the stream yet.
func (l *live) advanced(a *announcement) {
	if h, ok := a.of.(*fleet.Hive); ok && len(a.events) > 0 {
		if l.mine == nil {
			l.mine = make(map[*fleet.Hive]*announcement)
		}
		l.mine[h] = a
	}
}

// stored notes that the last announcement of t is in the stream.
func (l *live) stored(t fleet.Teller) {
	h, ok := t.(*fleet.Hive)
	if a := l.mine[h]; ok && a != nil {
		for i := range a.events {
			delete(l.told[h], a.events[i].Data.Worker)
		}
		if len(l.told[h]) == 0 {
			delete(l.told, h)
		}
		delete(l.mine, h)
	}
}

// provisional returns the id under which an event of a hive goes out, or went out,
// before the roster has numbered it.
func (c *Core) provisional(h *fleet.Hive, d *hivebeat.EventData) string {
	if was, ok := c.live.told[h][d.Worker]; ok && was.kind == d.Kind && was.inc == d.Inc {
		return was.id
	}
	return c.straightID(d)
}

// tellLive has that published which the store did not acknowledge in time. A queen that
// does not trust itself waits until it does.
func (c *Core) tellLive(now time.Time) {
	l := &c.live
	l.more = false
	if c.cfg.NoJetStream || !c.hearing.Connected() || !c.hearing.Trusts() {
		return
	}
	for id := range l.due.Due(now) {
		c.tellOneLive(c.cfg.Subjects.NewEvent(id, now, l.workers[id]))
		delete(l.workers, id)
		if l.more = len(c.ready.Live) >= liveBatch; l.more {
			return
		}
	}
	for h := range l.hives.Due(now) {
		c.tellHiveLive(h, now)
		if l.more = len(c.ready.Live) >= liveBatch; l.more {
			return
		}
	}
}

func (c *Core) tellOneLive(ev hivebeat.Event) {
	ev.Stored = new(bool)
	c.ready.Live = append(c.ready.Live, ev)
	c.live.count++
}

// tellHiveLive tells what is due of h and its wards, each once.
func (c *Core) tellHiveLive(h *fleet.Hive, now time.Time) {
	l := &c.live
	if !c.view.Has(h) {
		delete(l.mine, h)
		delete(l.told, h)
		return
	}
	told := l.told[h]
	if told == nil {
		told = make(map[string]telling)
	}
	owed := make(map[string]bool)
	tell := func(ev hivebeat.Event) {
		d := &ev.Data
		owed[d.Worker] = true
		if was := told[d.Worker]; was.kind == d.Kind && was.inc == d.Inc {
			return
		}
		told[d.Worker] = telling{d.Kind, d.Inc, ev.Provisional}
		c.tellOneLive(ev)
	}
	if a := l.mine[h]; a != nil && (h.Book.Item.N > a.next.N || h.Book.Confirmed >= a.next.N) {
		l.stored(h)
	} else if a != nil {
		for i := range a.events {
			if fleet.Urgent(a.events[i].Data.Kind) {
				tell(a.events[i])
			}
		}
	}
	for _, d := range h.Unsaid(now) {
		if owed[d.Worker] { // it is in the roster, which this queen learns in a moment
			continue
		}
		ev := c.cfg.Subjects.NewEvent(c.provisional(h, &d), now, d)
		ev.Provisional = ev.ID
		tell(ev)
	}
	for _, worker := range slices.Sorted(maps.Keys(told)) {
		if owed[worker] {
			continue
		}
		was := told[worker]
		if d, ok := h.TakenBack(worker, was.inc); ok && was.kind != hivebeat.KindRecovered {
			ev := c.cfg.Subjects.NewEvent(c.straightID(&d), now, d)
			c.tellOneLive(ev)
		}
		delete(told, worker)
	}
	if l.told == nil {
		l.told = make(map[*fleet.Hive]map[string]telling)
	}
	if l.told[h] = told; len(told) == 0 {
		delete(l.told, h)
	}
}
