package fleet

import (
	"maps"
	"slices"
	"time"

	"github.com/beatfabric/hivebeat"
	"github.com/beatfabric/hivebeat/internal/ledger"
)

// What is told of wards is the difference between the roster and this view, one
// event at a time, as for hives (announce.go).

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
	case !known:
		return hivebeat.KindJoined, hivebeat.Alive, up || r.Live == hivebeat.Left
	case r.Inc < base.Inc || r.Inc == base.Inc && r.Seq < base.Seq:
		return "", "", false // the author knew more
	case r.Inc != base.Inc:
		return hivebeat.KindRestarted, hivebeat.Alive, up || r.Live == hivebeat.Left
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

// sayWorker returns the next thing to be told of a worker of h that is or was a
// ward.
func (h *Hive) sayWorker() (Saying, bool) {
	e := &h.Book.Item.RosterEntry
	if e.N == 0 {
		return Saying{}, false // the hive first
	}
	if a := h.adopted; a != nil {
		for _, id := range slices.Sorted(maps.Keys(a.differ)) {
			if kind, to, ok := h.differs(id, a.wards[id]); ok {
				return h.sayOf(id, kind, to, a.wards[id].why), true
			}
			delete(a.differ, id)
		}
	}
	if !h.Up() {
		return Saying{}, false
	}
	for _, id := range slices.Sorted(maps.Keys(e.Workers)) {
		if h.returned(id) {
			return h.sayOf(id, hivebeat.KindRecovered, hivebeat.Alive, evidence{
				kind: hivebeat.KindRecovered, reason: "its hive is back, and lists it",
			}), true
		}
	}
	return Saying{}, false
}

// sayOf describes an event of a worker, and the entry of its hive that holds it.
func (h *Hive) sayOf(id string, kind hivebeat.Kind, to hivebeat.Live, why evidence) Saying {
	e, w := &h.Book.Item.RosterEntry, h.workers[id]
	r := &w.rec
	base, _ := h.known(id, w.ward)
	d := hivebeat.EventData{
		Hive: h.id, Worker: id, Inc: r.Inc, HiveInc: h.line.Inc(), N: e.N + 1, Kind: kind, From: string(base.Live), To: string(to),
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
	next := *e
	next.N, next.Event = d.N, nil
	next.Workers = make(map[string]ledger.RosterWorker, len(e.Workers)+1)
	maps.Copy(next.Workers, e.Workers)
	next.Workers[id] = ledger.RosterWorker{
		Inc: r.Inc, Live: to, Cause: d.Cause, State: r.State, Model: r.Model, Seq: r.Seq, Via: hivebeat.ViaQueen,
	}
	eventID := hivebeat.HiveEventID(h.id, d.N)
	if kind == hivebeat.KindJoined { // as its hive would: the same event
		eventID = hivebeat.WorkerEventID(h.id, d.HiveInc, id, d.Inc, kind, d.N)
	}
	return Saying{eventID, d, next}
}

// unsettled returns the workers in the entry of h whose verdict by a queen still
// stands: they are kept in it when the hive itself is back.
func (h *Hive) unsettled() map[string]ledger.RosterWorker {
	var m map[string]ledger.RosterWorker
	for id, r := range h.Book.Item.Workers {
		if r.Via == hivebeat.ViaQueen {
			if m == nil {
				m = make(map[string]ledger.RosterWorker)
			}
			m[id] = r
		}
	}
	return m
}

// learnWards takes over what another queen heard of wards, when the entry before
// was n.
func (v *View) learnWards(h *Hive, n uint64, ev hivebeat.Event, now time.Time) {
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
		if r.Via == hivebeat.ViaQueen && r.Live == hivebeat.Alive && a.reg.Elsewhere(now, id, r.Inc, r.Seq) {
			v.wardSteps(h, now)
			v.show(h, id, now)
		}
	}
	if r, ok := e.Workers[ev.Data.Worker]; ok && ev.Data.Worker != "" && e.N == n+1 {
		one(ev.Data.Worker, r)
	} else if e.N != n {
		for id, r := range e.Workers {
			one(id, r)
		}
	}
	v.watch(h, now)
}
