package fleet

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
// Of adopted workers an entry may take several such steps at once: n to n + k.
//
// Who loses the race reads the roster again and judges again. So that queens
// never argue in circles, a difference counts only where this queen has heard at
// least as much of the hive as the author of the roster's entry had.

// TooOld is the age from which nothing is published: the stream forgets the ids
// it has seen after an hour.
const TooOld = 50 * time.Minute

// rosterBytes bounds the workers that an entry of the roster remembers.
const rosterBytes = 256 << 10

// Difference returns the next thing to be said about h, and what the roster
// then says of it. It is false where the roster says what is so.
func (h *Hive) Difference(now time.Time) (kind hivebeat.Kind, to hivebeat.Live, ok bool) {
	e := &h.Book.Item.RosterEntry
	inc, seq, told := h.line.Inc(), h.line.Seq(), h.worth(e.Inc, e.Seq)
	up := h.live == hivebeat.Alive || h.live == hivebeat.Late
	switch {
	case h.live == "" || h.live == hivebeat.Unverified && h.heldBy == nil:
		return "", "", false // this queen does not know
	case e.N == 0:
		if up {
			return hivebeat.KindJoined, hivebeat.Alive, true
		}
		return kindOf(h.live), h.live, now.Sub(h.since) < TooOld
	case inc != e.Inc:
		switch {
		case inc < e.Inc && h.prior != e.Inc:
			return "", "", false // the author knew a newer incarnation
		case up:
			return hivebeat.KindRestarted, hivebeat.Alive, true
		}
		return kindOf(h.live), h.live, true
	case seq < told || e.Live == hivebeat.Left:
		return h.conflictTold(now)
	case h.live == e.Live, h.live == hivebeat.Unverified && e.Live == hivebeat.Lost:
		return h.conflictTold(now) // a queen that brakes no longer is no news for one that still does
	case up && (e.Live == hivebeat.Lost || e.Live == hivebeat.Unverified || e.Live == hivebeat.Late):
		if seq > told {
			return hivebeat.KindRecovered, hivebeat.Alive, true
		}
		return h.conflictTold(now) // the author heard the same, and waited as long or longer
	}
	return kindOf(h.live), h.live, true
}

// conflictTold returns the conflict of h, where it has one that was not told.
func (h *Hive) conflictTold(now time.Time) (hivebeat.Kind, hivebeat.Live, bool) {
	rival := h.Conflicting(now)
	return hivebeat.KindConflict, h.Book.Item.Live, rival != 0 && h.Book.Conflict != h.line.Inc()
}

func kindOf(l hivebeat.Live) hivebeat.Kind { return hivebeat.Kind(l) } // the words are the same

// Next describes the event that difference asks for, and the entry that holds
// it but for the event itself.
func (h *Hive) Next(kind hivebeat.Kind, to hivebeat.Live, now time.Time) (hivebeat.EventData, ledger.RosterEntry) {
	e := &h.Book.Item.RosterEntry
	d := hivebeat.EventData{
		Hive: h.id, Inc: h.line.Inc(), HiveInc: h.line.Inc(), N: e.N + 1, Kind: kind,
		From: string(e.Live), To: string(to), Seq: h.line.Seq(), Via: hivebeat.ViaQueen,
	}
	switch {
	case kind == hivebeat.KindConflict:
		believed, refused := h.Places()
		d.Reason, d.Believed, d.Refused = h.conflictReason(), &believed, &refused
	case kind == h.why.kind:
		d.AgeMS, d.Reason, d.MarginMS, d.DetectMS = h.why.age, h.why.reason, h.why.margin, h.why.detect
	case kind == hivebeat.KindJoined, kind == hivebeat.KindRestarted, kind == hivebeat.KindRecovered:
		d.Reason = "heard"
	}
	if kind == h.kindOfLive() {
		d.Cause = h.cause
	}
	seq := d.Seq
	if e.Inc == d.Inc { // a queen that heard less may tell a conflict: only one that went back says a lower seq
		seq = max(seq, h.worth(e.Inc, e.Seq))
	}
	next := ledger.RosterEntry{
		V: hivebeat.Version, N: d.N, Live: to, Cause: d.Cause, Inc: d.Inc, Seq: seq,
		Every: hivebeat.MillisOf(h.every), Zone: h.Zone(), Age: h.Book.age(h, now),
	}
	if kind == hivebeat.KindConflict {
		next.Cause = e.Cause
	}
	if isGone(to) {
		next.Workers = h.remember(now)
	} else {
		next.Workers = h.whileUp(now)
	}
	return d, next
}

func (h *Hive) kindOfLive() hivebeat.Kind { return kindOf(h.live) }

// remember returns the workers of h as an entry of the roster holds them: as
// many as fit.
func (h *Hive) remember(now time.Time) map[string]ledger.RosterWorker {
	if h.head.Inc == 0 {
		return h.Book.workers(now) // not heard: what the roster knew is all there is
	}
	m, size := make(map[string]ledger.RosterWorker, len(h.workers)), 0
	for _, w := range h.Workers() {
		r := &w.rec
		if size += entryRow(r) + promiseSize(r.Every, r.Quiet, h.sorted[0].rec.Every); size > rosterBytes {
			break
		}
		it, known := w.inRoster(now)
		if !known {
			continue
		}
		if was := h.Book.Item.Workers[r.Worker]; was.Via == hivebeat.ViaQueen && was.Inc == it.Inc && was.Live == it.Live {
			it.Via = was.Via
		}
		m[r.Worker] = it
	}
	return m
}

// Zone is the label of its zone, by the roster where it was not heard.
func (h *Hive) Zone() string { return h.zone }

// Learn takes an entry of the roster: this queen's own, or another's, which may
// have heard more of the hive.
func (v *View) Learn(id string, item ledger.RosterItem, now time.Time) *Hive {
	h := v.get(id)
	if !h.Book.isNews(&item) {
		return h
	}
	var told hivebeat.EventData
	if ev, err := eventIn(&item.RosterEntry); err == nil {
		told = ev.Data
	}
	v.learn(h, item, &told, now)
	return h
}

// LearnSaid is LearnKey for an entry that this queen has put itself, after t.Say,
// and so need not be read: told is what its event says, zero where it has none.
func (v *View) LearnSaid(t Teller, item ledger.RosterItem, told *hivebeat.EventData, now time.Time) {
	switch t := t.(type) {
	case *Zone:
		v.learnZone(t, item, now)
	case *Hive:
		if t.Book.isNews(&item) {
			v.learn(t, item, told, now)
		}
	}
}

// learn takes an entry that is news. told is what the event in it says.
func (v *View) learn(h *Hive, item ledger.RosterItem, told *hivebeat.EventData, now time.Time) {
	e := &item.RosterEntry
	before := h.Book.Item.N
	h.goBackWith(&item)
	// Where the roster stood at our incarnation and is at another now, somebody has
	// decided after us. To insist, as the other would too, is to argue for ever, or to
	// lead all to one that is gone: we follow.
	// What we have said ourselves decides nothing: since then we may have heard more.
	decided := !h.Book.said.is(&item) &&
		(h.Book.Item.Inc == h.line.Inc() && h.Book.Item.Epoch == item.Epoch && !h.cameBackSince(&item, now) || h.overtaken(&item, told, now))
	h.Book.Item, h.Book.ReadAt = item, now
	if h.head.Inc == 0 {
		h.zone = item.Zone
		v.place(h)
	}
	if told.Kind == hivebeat.KindConflict {
		h.Book.Conflict = told.Inc
	}
	defer v.learnWards(h, before, told.Worker, now)
	v.Compare(h)
	switch {
	case h.live == "":
		v.recall(h, now)
	case e.Inc == h.line.Inc() && h.worth(e.Inc, e.Seq) <= h.line.Seq():
		if e.Live == hivebeat.Left && h.live != hivebeat.Left || h.believes(e) {
			v.byRoster(h, now)
		}
	case (e.Inc < h.line.Inc() || e.Inc == h.prior) && !decided: // ours is newer
	default:
		o := h.hearLine(liveness.Message{Inc: e.Inc, Seq: e.Seq, Heard: now}, 0, now)
		if !o.Accepted() && decided && e.Inc != h.line.Inc() && e.Seq > 0 {
			o = h.follow(e.Inc, e.Seq)
		}
		v.unlinkOld(h, o)
		switch {
		case !o.Accepted():
		case isGone(e.Live):
			v.byRoster(h, now)
		default:
			v.heard(h, o, now)
		}
	}
}

// goBackWith follows a queen that put item, and took back a seq that an entry before it
// had: something else had sent that in the name of the hive.
func (h *Hive) goBackWith(item *ledger.RosterItem) {
	was := &h.Book.Item
	if item.Inc != was.Inc || item.Epoch != was.Epoch || item.N <= was.N || item.Seq >= was.Seq || h.Book.said.is(item) ||
		item.Inc != h.line.Inc() || item.Seq >= h.line.Seq() || item.Seq == 0 {
		return
	}
	h.disowned = max(h.disowned, h.line.Seq())
	h.line.Rewind(item.Seq - 1) // so that it is heard
}

// believes reports whether this queen takes it over that h is lost from an author who
// heard no more of it. Who heard the same, and nothing since, has nothing to say
// against it: that author saw its connection close, or waited for it as long as one
// has to. A higher seq is an objection, whenever it comes. One that is held stays
// with the brake of this queen.
func (h *Hive) believes(e *ledger.RosterEntry) bool {
	return e.Live == hivebeat.Lost && e.Inc == h.line.Inc() && e.Seq == h.line.Seq() &&
		(h.Up() || h.live == hivebeat.Unverified && h.heldBy == nil)
}

// cameBackSince reports whether this queen heard its incarnation take the place of
// the other one after item was put: JetStream was away, and that is no news.
func (h *Hive) cameBackSince(item *ledger.RosterItem, now time.Time) bool {
	return h.head.Inc == h.line.Inc() && h.prior == item.Inc && now.Add(-item.Stored).Before(h.speaksFrom)
}

// overtaken reports whether item speaks of a hive that lives, and was put after this
// queen heard the last of the incarnation that it knows, which is late or more: it
// slept, or the roster was lost meanwhile. To insist would bring back who is gone. An
// incarnation that it read first after that was put is news, though in doubt it counts as
// heard long before. An entry that was put for a worker repeats what was said of the hive before.
func (h *Hive) overtaken(item *ledger.RosterItem, told *hivebeat.EventData, now time.Time) bool {
	ofWorkers := told.Worker != "" || len(item.Events) > 0
	return item.N > h.Book.Item.N && speaksOfLiving(item) && !ofWorkers &&
		now.Sub(h.judged) > liveness.LateAfter(h.every, 0) && now.Add(-item.Stored).After(latest(h.judged, h.beganAt))
}

// decidedSince reports whether the roster, which this queen follows, was told since
// then that the hive lives as it is known, or that it is gone as that: another
// incarnation, heard at an unknown time since then, may be the one that was given up
// for it. If not, its next snapshot says so.
func (h *Hive) decidedSince(heard time.Time, inc uint64, gone bool) bool {
	it := &h.Book.Item
	return inc != h.line.Inc() && it.Inc == h.line.Inc() && (gone || speaksOfLiving(it)) && h.Book.ReadAt.Add(-it.Stored).After(heard)
}

func speaksOfLiving(item *ledger.RosterItem) bool {
	return item.Live == hivebeat.Alive || item.Live == hivebeat.Late
}

// recall makes of a hive that is known from the roster alone what can be said of
// it: gone if it was gone, and else unverified.
func (v *View) recall(h *Hive, now time.Time) {
	e := &h.Book.Item.RosterEntry
	if e.Inc == 0 || e.Seq == 0 {
		return // one that can not be read
	}
	h.line.Hear(e.Inc, e.Seq, false)
	h.every = min(max(e.Every.Duration(), hivebeat.MinEvery), hivebeat.MaxEvery)
	h.received, h.judged, h.blind = now.Add(-liveness.LostAfter(h.every, 0)), v.heardAs(now), v.blind
	if isGone(e.Live) {
		h.received = h.Book.heard(h.every, now)
		v.recallWorkers(h, now)
		v.ageing.Set(h, now)
		v.byRoster(h, now)
		h.since = h.Book.put(now)
		return
	}
	h.live, h.since = hivebeat.Unverified, now
	v.recallWorkers(h, now)
	v.resum(h, another, now)
	v.due.Set(h, h.judged.Add(liveness.LostAfter(h.every, 0)))
}

// recallWorkers lists the workers of a hive that is gone, as the roster remembers them,
// and of one that was there those that were gone. How long ago each was heard nobody
// knows any more: longer than the hive, by what its hive waits for one that is not lost,
// and lists one that is.
func (v *View) recallWorkers(h *Hive, now time.Time) {
	for id, r := range h.Book.Item.Workers {
		if !hivebeat.ValidID(id) || h.workers[id] != nil || len(h.workers) >= hivebeat.MaxWorkers {
			continue
		}
		w := &Worker{hive: h, received: h.received.Add(-oldest(&r)), via: hivebeat.ViaQueen}
		if r.Since > 0 && isGone(r.Live) {
			put := h.Book.put(now)
			w.rec.Age, w.rec.Since, w.received = EffectiveAge(0, w.received, put), min(r.Since, maxAge), put
		}
		if h.live == hivebeat.Unverified && (!isGone(r.Live) || w.goneFor(now) >= hivebeat.MillisOf(hivebeat.KeepGone)) {
			continue
		}
		w.rec.Worker, w.rec.Live, w.rec.Cause = id, r.Live, r.Cause
		w.rec.Inc, w.rec.State, w.rec.Model = r.Inc, r.State, r.Model
		if every, quiet, known := promise(&r); known {
			w.rec.Every, w.rec.Quiet = every, quiet
		}
		h.workers[id] = w
		h.sorted = nil
		v.reshow(h, w, true, now)
	}
}

// byRoster takes over that h is gone from an author who knew more.
func (v *View) byRoster(h *Hive, now time.Time) {
	e := &h.Book.Item.RosterEntry
	if e.Live == hivebeat.Left {
		h.line.End()
	}
	v.turn(h, kindOf(e.Live), e.Live, e.Cause, evidence{reason: "as another queen found"}, now)
	v.due.Set(h, now.Add(forgetAfter))
}

// Unlearn notes that the roster has no entry for this hive. A hive that is gone
// is forgotten with it; of others, and after a loss of the whole roster, the
// entry is made again.
func (v *View) Unlearn(id string, expired bool) {
	h, ok := v.hives[id]
	if !ok || h.Book.Item.Revision == 0 {
		return
	}
	h.Book.Item.Revision = 0
	if expired && (h.live == hivebeat.Lost || h.live == hivebeat.Left || h.live == hivebeat.Unverified) {
		v.forget(h)
		return
	}
	v.Compare(h)
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

// sayMost bounds the events of one entry: with ids, models and reasons as long as
// they may be they have 200 kB.
const sayMost = 128
