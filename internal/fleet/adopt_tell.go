package fleet

import (
	"maps"
	"slices"
	"time"

	"github.com/beatfabric/hivebeat"
	"github.com/beatfabric/hivebeat/internal/ledger"
)

// What is told of wards is the difference between the roster and this view, as for
// hives (announce.go), but of many wards at once: thousands may die with one hive.

// known returns what has been told of a worker: by the roster, or else by its
// hive before that was lost.
func (h *Hive) known(id string, c *ward) (ledger.RosterWorker, bool) {
	r, ok := h.Book.Item.Workers[id]
	if !ok && c != nil && c.listed {
		return c.base, true
	}
	return r, ok
}

// differs returns what is to be told of a ward next, where something is. As for
// hives it counts only where this queen has heard at least as much of it as the
// author of what the roster says.
func (h *Hive) differs(id string, c *ward) (kind hivebeat.Kind, to hivebeat.Live, ok bool) {
	w := h.workers[id]
	if w == nil || c == nil || !c.answered {
		return "", "", false
	}
	r := &w.rec
	base, known := h.known(id, c)
	up := r.Live == hivebeat.Alive || r.Live == hivebeat.Late
	switch {
	case r.Looping:
		return "", "", false // its hive has told that
	case !known:
		return hivebeat.KindJoined, hivebeat.Alive, up || r.Live == hivebeat.Left
	case r.Inc < base.Inc || r.Inc == base.Inc && r.Seq < base.Seq:
		return "", "", false // the author knew more
	case r.Inc != base.Inc && r.Live != hivebeat.Lost:
		return hivebeat.KindRestarted, hivebeat.Alive, true
	case r.Live == base.Live:
		news := r.Live == hivebeat.Alive && r.Seq > base.Seq && !base.State.SameAs(r.State)
		return hivebeat.KindState, r.Live, news
	case base.Live == hivebeat.Left:
		return "", "", false
	case r.Live == hivebeat.Alive:
		return hivebeat.KindRecovered, hivebeat.Alive, r.Seq > base.Seq
	case r.Live == hivebeat.Late && base.Live != hivebeat.Alive:
		return "", "", false
	}
	return kindOf(r.Live), r.Live, true
}

// returned returns whether a worker that a queen gave up, and that its hive lists
// again, is to be told as recovered.
func (h *Hive) returned(id string) bool {
	base, w := h.Book.Item.Workers[id], h.workers[id]
	if w == nil || w.ward != nil || base.Via != hivebeat.ViaQueen || !h.Up() {
		return false
	}
	r := &w.rec
	return (base.Live == hivebeat.Lost || base.Live == hivebeat.Late) && r.Live == hivebeat.Alive &&
		r.Inc == base.Inc && r.Seq > base.Seq
}

// sayWorkers returns what is to be told next of workers of h that are or were
// wards.
func (h *Hive) sayWorkers(now time.Time) (Saying, bool) {
	e := &h.Book.Item.RosterEntry
	if e.N == 0 || entrySize(e.Workers) > entryBytes {
		return Saying{}, false // the hive first; nothing that would not fit into a message
	}
	var s Saying
	if a := h.adopted; a != nil {
		for _, id := range slices.Sorted(maps.Keys(a.differ)) {
			if len(s.Events) == sayMost {
				break
			}
			if kind, to, ok := h.differs(id, a.wards[id]); ok {
				h.sayOf(&s, id, kind, to, a.wards[id].why, now)
			} else {
				delete(a.differ, id)
			}
		}
	}
	if !h.Up() {
		return s, len(s.Events) > 0
	}
	for _, id := range slices.Sorted(maps.Keys(e.Workers)) {
		if len(s.Events) == sayMost {
			break
		}
		if h.returned(id) {
			h.sayOf(&s, id, hivebeat.KindRecovered, hivebeat.Alive, listedAgain, now)
		}
	}
	return s, len(s.Events) > 0
}

var listedAgain = evidence{kind: hivebeat.KindRecovered, reason: "its hive is back, and lists it"}

// entryBytes bounds the workers in an entry, as it would else outgrow what NATS
// takes: of a hive with more than some 3000 the others are not told by queens.
const entryBytes = 512 << 10

// entrySize is about what workers take in an entry.
func entrySize(workers map[string]ledger.RosterWorker) (n int) {
	every, _ := ledger.CommonEvery(workers) // which is there once
	for id, r := range workers {
		n += len(id) + len(r.Live) + len(r.Cause) + len(r.State) + len(r.Model) + 126 + promiseSize(r.Every, r.Quiet, every)
	}
	return n
}

// promiseSize is what a promise takes in an entry most of whose workers have the
// promise common.
func promiseSize(every, quiet, common hivebeat.Millis) (n int) {
	if every != common {
		n += len(`,"every":3600000`)
	}
	if quiet > 0 {
		n += len(`,"quiet":600000`)
	}
	return n
}

// sayOf adds an event of a worker, and what the entry of its hive says of it then.
func (h *Hive) sayOf(s *Saying, id string, kind hivebeat.Kind, to hivebeat.Live, why evidence, now time.Time) {
	e, w := &h.Book.Item.RosterEntry, h.workers[id]
	if len(s.Events) == 0 {
		s.Next = *e
		s.Next.Event, s.Next.Events, s.Next.Age = nil, nil, h.Book.age(h, now)
		if s.Next.Workers = h.Book.workers(now); s.Next.Workers == nil {
			s.Next.Workers = make(map[string]ledger.RosterWorker)
		}
	}
	s.Next.N++
	r := &w.rec
	d := h.wardEvent(w, kind, to, why)
	d.N = s.Next.N
	told := rosterWorker(&r.Facts, to, d.Cause)
	told.Via = hivebeat.ViaQueen
	if isGone(to) {
		told.Since = max(1, w.goneFor(now))
	}
	s.Next.Workers[id] = told
	eventID := hivebeat.HiveEventID(h.id, d.N)
	if kind == hivebeat.KindJoined { // as its hive would: the same event
		eventID = hivebeat.WorkerEventID(h.id, d.HiveInc, id, d.Inc, kind, d.N)
	}
	s.Events = append(s.Events, Told{eventID, d})
}

// wardEvent describes an event of a worker that is or was a ward, without its number.
func (h *Hive) wardEvent(w *Worker, kind hivebeat.Kind, to hivebeat.Live, why evidence) hivebeat.EventData {
	r := &w.rec
	base, _ := h.known(r.Worker, w.ward)
	d := hivebeat.EventData{
		Hive: h.id, Worker: r.Worker, Inc: r.Inc, HiveInc: h.line.Inc(), Kind: kind, From: string(base.Live), To: string(to),
		State: r.State, Seq: r.Seq, Via: hivebeat.ViaQueen, Model: r.Model,
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

// unsettled returns the workers in the entry of h whose verdict by a queen still
// stands: they are kept in it when the hive itself is back.
func (h *Hive) unsettled(now time.Time) map[string]ledger.RosterWorker {
	m := h.Book.workers(now)
	maps.DeleteFunc(m, func(_ string, r ledger.RosterWorker) bool { return r.Via != hivebeat.ViaQueen })
	return m
}

// elsewhere is what the roster says of a worker that another queen heard.
func elsewhere(r *ledger.RosterWorker) hivebeat.Facts {
	f := hivebeat.Facts{Inc: r.Inc, Seq: r.Seq}
	if every, quiet, known := promise(r); known {
		f.Every, f.Quiet = every, quiet
	}
	return f
}

// learnWards takes over what another queen heard of wards, when the entry before
// was n. The last event of this one is about worker, which may be empty.
func (v *View) learnWards(h *Hive, n uint64, worker string, now time.Time) {
	a := h.adopted
	if a == nil {
		return
	}
	e := &h.Book.Item.RosterEntry
	// When it was heard the roster does not say: it is told some time after.
	one := func(id string, r ledger.RosterWorker) {
		c := a.wards[id]
		if c == nil {
			return
		}
		a.differ[id] = true
		if r.Via == hivebeat.ViaQueen && r.Live == hivebeat.Alive && a.reg.Elsewhere(now, id, elsewhere(&r)) {
			c.guessed = c.guessed && r.Every == 0
			v.wardSteps(h, now)
			v.show(h, id, now)
		}
	}
	if r, ok := e.Workers[worker]; ok && worker != "" && e.N == n+1 && len(e.Events) == 0 {
		one(worker, r)
	} else if e.N != n {
		for id, r := range e.Workers {
			one(id, r)
		}
	}
	v.watch(h, now)
}
