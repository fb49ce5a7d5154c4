package queen

import (
	"encoding/json"
	"fmt"
	"time"

	"github.com/beatfabric/hivebeat"
	"github.com/beatfabric/hivebeat/internal/ledger"
	"github.com/beatfabric/hivebeat/internal/liveness"
)

// The roster serialises what queens say about hives. Each compares its own
// verdict with the roster's; the difference is the next event:
//
//	publish event n again, until it is stored or a duplicate   (its author may have died)
//	advance the roster from n to n + 1 by compare-and-set, the event inside
//	publish event n + 1
//
// Who loses the race reads the roster again and judges again. So that queens
// never argue in circles, a difference counts only where this queen has heard at
// least as much of the hive as the author of the roster's entry had.

// tooOld is the age from which nothing is published: the stream forgets the ids
// it has seen after an hour.
const tooOld = 50 * time.Minute

// rosterBytes bounds the workers that an entry of the roster remembers.
const rosterBytes = 256 << 10

// difference returns the next thing to be said about h, and what the roster
// then says of it. It is false where the roster says what is so.
func (h *hive) difference(now time.Time) (kind hivebeat.Kind, to hivebeat.Live, ok bool) {
	e := &h.book.item.RosterEntry
	inc, seq := h.line.Inc(), h.line.Seq()
	up := h.live == hivebeat.Alive || h.live == hivebeat.Late
	switch {
	case h.live == "" || h.live == hivebeat.Unverified:
		return "", "", false // this queen does not know
	case e.N == 0:
		if up {
			return hivebeat.KindJoined, hivebeat.Alive, true
		}
		return kindOf(h.live), h.live, now.Sub(h.since) < tooOld
	case inc != e.Inc:
		switch {
		case inc < e.Inc && h.prior != e.Inc:
			return "", "", false // the author knew a newer incarnation
		case up:
			return hivebeat.KindRestarted, hivebeat.Alive, true
		}
		return kindOf(h.live), h.live, true
	case seq < e.Seq || e.Live == hivebeat.Left:
		return h.conflictTold(now)
	case h.live == e.Live:
		return h.conflictTold(now)
	case up && (e.Live == hivebeat.Lost || e.Live == hivebeat.Unverified || e.Live == hivebeat.Late):
		if seq > e.Seq {
			return hivebeat.KindRecovered, hivebeat.Alive, true
		}
		return h.conflictTold(now) // the author heard the same, and waited as long or longer
	}
	return kindOf(h.live), h.live, true
}

// conflictTold returns the conflict of h, where it has one that was not told.
func (h *hive) conflictTold(now time.Time) (hivebeat.Kind, hivebeat.Live, bool) {
	rival := h.conflicting(now)
	return hivebeat.KindConflict, h.book.item.Live, rival != 0 && h.book.conflict != h.line.Inc()
}

func kindOf(l hivebeat.Live) hivebeat.Kind { return hivebeat.Kind(l) } // the words are the same

// next describes the event that difference asks for, and the entry that holds
// it but for the event itself.
func (h *hive) next(kind hivebeat.Kind, to hivebeat.Live) (hivebeat.EventData, ledger.RosterEntry) {
	e := &h.book.item.RosterEntry
	d := hivebeat.EventData{
		Hive: h.id, Inc: h.line.Inc(), HiveInc: h.line.Inc(), N: e.N + 1, Kind: kind,
		From: string(e.Live), To: string(to), Seq: h.line.Seq(), Via: hivebeat.ViaQueen,
	}
	switch {
	case kind == hivebeat.KindConflict:
		d.Reason = h.conflictReason()
	case kind == h.why.kind:
		d.AgeMS, d.Reason, d.MarginMS = h.why.age, h.why.reason, h.why.margin
	case kind == hivebeat.KindJoined, kind == hivebeat.KindRestarted, kind == hivebeat.KindRecovered:
		d.Reason = "heard"
	}
	if kind == h.kindOfLive() {
		d.Cause = h.cause
	}
	next := ledger.RosterEntry{
		V: hivebeat.Version, N: d.N, Live: to, Cause: d.Cause, Inc: d.Inc, Seq: d.Seq,
		Every: hivebeat.MillisOf(h.every), Zone: h.zone(),
	}
	if kind == hivebeat.KindConflict {
		next.Cause = e.Cause
	}
	if to == hivebeat.Lost || to == hivebeat.Left {
		next.Workers = h.remember()
	}
	return d, next
}

func (h *hive) kindOfLive() hivebeat.Kind { return kindOf(h.live) }

// remember returns the workers of h as an entry of the roster holds them: as
// many as fit.
func (h *hive) remember() map[string]ledger.RosterWorker {
	if h.head.Inc == 0 {
		return h.book.item.Workers // not heard: what the roster knew is all there is
	}
	m, size := make(map[string]ledger.RosterWorker, len(h.workers)), 0
	for _, w := range h.byID() {
		r := &w.rec
		if size += len(r.Worker) + len(r.Live) + len(r.Cause) + len(r.State) + len(r.Model) + 80; size > rosterBytes {
			break
		}
		m[r.Worker] = ledger.RosterWorker{Inc: r.Inc, Live: r.Live, Cause: r.Cause, State: r.State, Model: r.Model}
	}
	return m
}

func (h *hive) zone() string {
	if h.head.Inc == 0 {
		return h.book.item.Zone
	}
	return h.head.Labels["zone"]
}

// learn takes an entry of the roster: this queen's own, or another's, which may
// have heard more of the hive.
func (v *view) learn(id string, item ledger.RosterItem, now time.Time) *hive {
	h := v.get(id)
	e := &item.RosterEntry
	if b := &h.book; item.Epoch < b.item.Epoch || item.Epoch == b.item.Epoch && item.Revision < b.item.Revision {
		return h
	}
	h.book.item, h.book.readAt = item, now
	if ev, err := eventIn(e); err == nil && ev.Data.Kind == hivebeat.KindConflict {
		h.book.conflict = ev.Data.Inc
	}
	v.compare(h)
	switch {
	case h.live == "":
		v.recall(h, now)
	case e.Inc == h.line.Inc() && e.Seq <= h.line.Seq():
		if e.Live == hivebeat.Left && h.live != hivebeat.Left {
			v.byRoster(h, now)
		}
	case e.Inc < h.line.Inc() || e.Inc == h.prior: // ours is newer
	default:
		o := h.hearLine(e.Inc, e.Seq, now)
		switch {
		case !o.Accepted():
		case e.Live == hivebeat.Lost || e.Live == hivebeat.Left:
			v.byRoster(h, now)
		default:
			v.heard(h, o, now)
		}
	}
	return h
}

// recall makes of a hive that is known from the roster alone what can be said of
// it: gone if it was gone, and else unverified.
func (v *view) recall(h *hive, now time.Time) {
	e := &h.book.item.RosterEntry
	if e.Inc == 0 || e.Seq == 0 {
		return // one that can not be read
	}
	h.line.Hear(e.Inc, e.Seq, false)
	h.every = min(max(e.Every.Duration(), hivebeat.MinEvery), hivebeat.MaxEvery)
	h.received, h.judged, h.blind = now.Add(-liveness.LostAfter(h.every, 0)), now, v.blind
	if e.Live == hivebeat.Lost || e.Live == hivebeat.Left {
		stored := max(0, h.book.item.Stored)
		h.received = h.received.Add(-stored)
		v.recallWorkers(h)
		v.byRoster(h, now)
		h.since = now.Add(-stored)
		return
	}
	h.live, h.since = hivebeat.Unverified, now
	v.due.Set(h, now.Add(liveness.LostAfter(h.every, 0)))
}

// recallWorkers lists who was on a hive that is gone, as the roster remembers
// them. How long ago each was heard nobody knows any more: longer than the hive.
func (v *view) recallWorkers(h *hive) {
	for id, r := range h.book.item.Workers {
		if !hivebeat.ValidID(id) || h.workers[id] != nil || len(h.workers) >= hivebeat.MaxWorkers {
			continue
		}
		w := &worker{received: h.received, via: hivebeat.ViaQueen}
		w.rec.Worker, w.rec.Live, w.rec.Cause = id, r.Live, r.Cause
		w.rec.Inc, w.rec.State, w.rec.Model = r.Inc, r.State, r.Model
		h.workers[id] = w
		h.sorted = nil
		h.count(mix{}, w.mix())
	}
}

// byRoster takes over that h is gone from an author who knew more.
func (v *view) byRoster(h *hive, now time.Time) {
	e := &h.book.item.RosterEntry
	if e.Live == hivebeat.Left {
		h.line.End()
	}
	v.turn(h, kindOf(e.Live), e.Live, e.Cause, evidence{reason: "as another queen found"}, now)
	v.due.Set(h, now.Add(forgetAfter))
}

// unlearn notes that the roster has no entry for this hive. A hive that is gone
// is forgotten with it; of others, and after a loss of the whole roster, the
// entry is made again.
func (v *view) unlearn(id string, expired bool) {
	h, ok := v.hives[id]
	if !ok || h.book.item.Revision == 0 {
		return
	}
	h.book.item.Revision = 0
	if expired && (h.live == hivebeat.Lost || h.live == hivebeat.Left || h.live == hivebeat.Unverified) {
		v.forget(h)
		return
	}
	v.compare(h)
}

// eventIn returns the event that an entry of the roster holds.
func eventIn(e *ledger.RosterEntry) (hivebeat.Event, error) {
	var ev hivebeat.Event
	if len(e.Event) == 0 {
		return ev, nil
	}
	if err := json.Unmarshal(e.Event, &ev); err != nil {
		return ev, fmt.Errorf("queen: the event in the roster: %w", err)
	}
	return ev, nil
}
