package fleet

import (
	"maps"
	"slices"
	"time"

	"github.com/beatfabric/hivebeat"
	"github.com/beatfabric/hivebeat/internal/index"
	"github.com/beatfabric/hivebeat/internal/ledger"
)

// Adopted workers are announced as hives are (announce.go): by the difference between the roster and this
// view. But one entry announces many of them, because thousands may die with one hive.

// announceMost bounds the events in one entry. With ids, models and reasons of the greatest length they take
// 200 kB.
const announceMost = 128

// announced returns the last announced state of a worker: from the roster, or otherwise from its hive before
// the hive was lost.
func (h *Hive) announced(id string, c *adopted) (ledger.RosterWorker, bool) {
	r, ok := h.roster.Item.Workers[id]
	if !ok && c != nil && c.listed {
		return c.base, true
	}
	return r, ok
}

// differs returns the next event of an adopted worker, if it needs one. As for hives, a difference counts only
// if this queen has heard at least as much of the worker as the author of the roster's entry.
func (h *Hive) differs(id string, c *adopted) (kind hivebeat.Kind, to hivebeat.Live, ok bool) {
	w := h.workers[id]
	if w == nil || c == nil || !c.answered {
		return "", "", false
	}
	r := w.rec()
	base, known := h.announced(id, c)
	up := r.Live == hivebeat.Alive || r.Live == hivebeat.Late
	switch {
	case r.Looping:
		return "", "", false // its hive has reported that
	case !known:
		return hivebeat.KindJoined, hivebeat.Alive, up || r.Live == hivebeat.Left
	case r.Inc < base.Inc || r.Inc == base.Inc && r.Seq < base.Seq:
		return "", "", false // the author knew more
	case r.Inc != base.Inc && r.Live != hivebeat.Lost:
		return hivebeat.KindRestarted, hivebeat.Alive, true
	case r.Live == base.Live:
		changed := r.Live == hivebeat.Alive && r.Seq > base.Seq && !base.State.SameAs(r.State)
		return hivebeat.KindState, r.Live, changed
	case base.Live == hivebeat.Left:
		return "", "", false
	case r.Live == hivebeat.Alive:
		return hivebeat.KindRecovered, hivebeat.Alive, r.Seq > base.Seq
	case r.Live == hivebeat.Late && base.Live != hivebeat.Alive:
		return "", "", false
	}
	return kindOf(r.Live), r.Live, true
}

// returned reports whether the worker must be announced as recovered: a queen made it late or lost, and its
// hive lists it again as alive.
func (h *Hive) returned(id string) bool {
	base, w := h.roster.Item.Workers[id], h.workers[id]
	if w == nil || w.adopted != nil || base.Via != hivebeat.ViaQueen || !h.Up() {
		return false
	}
	r := w.rec()
	return (base.Live == hivebeat.Lost || base.Live == hivebeat.Late) && r.Live == hivebeat.Alive &&
		r.Inc == base.Inc && r.Seq > base.Seq
}

// announceWorkers returns the next announcement for workers of h that are or were adopted.
func (h *Hive) announceWorkers(now time.Time) (Announcement, bool) {
	e := &h.roster.Item.RosterEntry
	if e.N == 0 || entrySize(e.Workers) > entryBytes {
		return Announcement{}, false // the hive comes first, and the entry must fit into a message
	}
	var s Announcement
	if a := h.adoption; a != nil {
		for _, id := range slices.Sorted(maps.Keys(a.differ)) {
			if len(s.Events) == announceMost {
				break
			}
			if kind, to, ok := h.differs(id, a.workers[id]); ok {
				h.addTo(&s, id, kind, to, a.workers[id].why, now)
			} else {
				delete(a.differ, id)
			}
		}
	}
	for _, id := range slices.Sorted(maps.Keys(e.Workers)) {
		if len(s.Events) == announceMost {
			break
		}
		if h.returned(id) {
			h.addTo(&s, id, hivebeat.KindRecovered, hivebeat.Alive, listedAgain, now)
		}
	}
	return s, len(s.Events) > 0
}

var listedAgain = evidence{kind: hivebeat.KindRecovered, reason: "its hive is back, and lists it"}

// entryBytes bounds the size of the workers in an entry, so that it fits into a NATS message. Queens announce
// about 3,000 workers of one hive, and none beyond that.
const entryBytes = 512 << 10

// entrySize estimates the size of workers in an entry.
func entrySize(workers map[string]ledger.RosterWorker) (n int) {
	for id, r := range workers {
		n += rowSize(id, &r)
	}
	return n
}

// rowSize estimates the size of a worker in an entry. Most workers share one promise, which the entry has once.
func rowSize(id string, r *ledger.RosterWorker) int {
	return len(id) + len(r.Live) + len(r.Cause) + len(r.State) + len(r.Model) + 140
}

// addTo adds an event of a worker to s, and the state of the worker to the entry of its hive.
func (h *Hive) addTo(s *Announcement, id string, kind hivebeat.Kind, to hivebeat.Live, why evidence, now time.Time) {
	e, w := &h.roster.Item.RosterEntry, h.workers[id]
	if len(s.Events) == 0 {
		s.Next = *e
		s.Next.Event, s.Next.Events, s.Next.Age = nil, nil, h.roster.age(h, now)
		if s.Next.Workers = h.roster.workers(now); s.Next.Workers == nil {
			s.Next.Workers = make(map[string]ledger.RosterWorker)
		}
	}
	s.Next.N++
	r := w.rec()
	d := h.workerEvent(w, kind, to, why)
	d.N = s.Next.N
	entry := rosterWorker(&r.Facts, to, d.Cause)
	entry.Via = hivebeat.ViaQueen
	if isGone(to) {
		entry.Since = max(1, w.goneFor(now))
	}
	w.ageInRoster(&entry, now)
	s.Next.Workers[id] = entry
	eventID := hivebeat.HiveEventID(h.id, d.N)
	if kind == hivebeat.KindJoined { // the id of the event that its hive would cause
		eventID = hivebeat.WorkerEventID(h.id, d.HiveInc, id, d.Inc, kind, d.N)
	}
	s.Events = append(s.Events, Announced{eventID, d})
}

// workerEvent returns the data of an event of a worker that is or was adopted, without its number.
func (h *Hive) workerEvent(w *Worker, kind hivebeat.Kind, to hivebeat.Live, why evidence) hivebeat.EventData {
	r := w.rec()
	base, _ := h.announced(r.Worker, w.adopted)
	d := hivebeat.EventData{
		Hive: h.id, Worker: r.Worker, Inc: r.Inc, HiveInc: h.line.Inc(), Kind: kind, From: string(base.Live), To: string(to),
		State: r.State, Seq: r.Seq, Via: hivebeat.ViaQueen, Model: r.Model, Silenced: h.silenced(r.Worker, kind),
	}
	if kind == hivebeat.KindState {
		d.From, d.To, d.Reason = string(base.State), string(r.State), r.Reason
	}
	if kind == why.kind {
		d.AgeMS, d.Reason, d.MarginMS, d.DetectMS = why.age, why.reason, why.margin, why.detect
	}
	if kindOf(to) == kind {
		d.Cause = r.Cause
	}
	return d
}

// elsewhere returns the facts in the roster of a worker that another queen heard.
func elsewhere(r *ledger.RosterWorker) hivebeat.Facts {
	f := hivebeat.Facts{Inc: r.Inc, Seq: r.Seq}
	if every, quiet, known := promise(r); known {
		f.Every, f.Quiet = every, quiet
	}
	return f
}

// learnAdopted applies an entry to the adopted workers of h, which another queen may have heard. n is the
// number of the entry before.
func (v *View) learnAdopted(h *Hive, n uint64, now time.Time) {
	a := h.adoption
	if a == nil || h.roster.Item.N == n {
		return
	}
	// The roster does not say when a worker was heard, only that it was before the announcement.
	for id, r := range h.roster.Item.Workers {
		c := a.workers[id]
		if c == nil {
			continue
		}
		a.differ[id] = true
		if r.Via == hivebeat.ViaQueen && r.Live == hivebeat.Alive && a.reg.Elsewhere(now, id, elsewhere(&r)) {
			c.guessed = c.guessed && r.Every == 0
			v.applySteps(h, now)
			v.show(h, id, now)
		}
	}
	v.watch(h, now)
}

// inRoster returns the state of w for a roster entry that is put now. known is false if neither the roster nor
// its hive knows w. For an adopted worker it is the state before the adoption; later changes are announced
// separately.
func (w *Worker) inRoster(now time.Time) (r ledger.RosterWorker, known bool) {
	r = rosterWorker(&w.rec().Facts, w.rec().Live, w.rec().Cause)
	if c := w.adopted; c != nil {
		if !c.listed {
			return r, false
		}
		r = c.base
	}
	if isGone(r.Live) && r.Live == w.rec().Live && r.Inc == w.rec().Inc {
		r.Since = max(1, w.goneFor(now))
	}
	w.ageInRoster(&r, now)
	return r, true
}

// ageInRoster states the age of w in a roster entry that is put now, if it is more than its promise implies.
func (w *Worker) ageInRoster(r *ledger.RosterWorker, now time.Time) {
	if age := index.EffectiveAge(w.rec().Age, w.entry.Received(), now); r.Inc == w.rec().Inc && age > hivebeat.MillisOf(oldest(r)) {
		r.Age = age
	}
}
