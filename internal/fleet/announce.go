package fleet

import (
	"encoding/json"
	"time"

	"github.com/beatfabric/hivebeat"
	"github.com/beatfabric/hivebeat/internal/ledger"
)

// The roster serialises the announcements of queens. Each queen compares its own verdict with the roster;
// the difference is the next event:
//
//	publish event n again, until it is stored or a duplicate   (its author may have died)
//	advance the roster from n to n + 1 by compare-and-set, with the event inside
//	publish event n + 1
//
// For adopted workers an entry may take several such steps at once: n to n + k.
//
// A queen that loses the race reads the roster again and compares again. So that queens never argue in
// circles, a difference counts only if this queen has heard at least as much of the hive as the author of the
// entry.

// Announcer has an entry in the roster. It is a Hive, or a Zone for its brake.
type Announcer interface {
	Key() string // in the roster
	Roster() *RosterState
	Announce(now time.Time) (Announcement, bool)
}

// Announcement is the next events to publish and the roster entry that records them, without the events
// themselves. It has one event of a hive or a brake, or up to announceMost events of workers of a hive, each
// of a different worker. Their numbers end with Next.N.
type Announcement struct {
	Events []Announced
	Next   ledger.RosterEntry
}

// Announced is one event of an Announcement.
type Announced struct {
	ID   string
	Data hivebeat.EventData
}

// Key returns the key of h in the roster: its id.
func (h *Hive) Key() string { return h.id }

// Roster returns the roster entry of h. The owner of the view updates it.
func (h *Hive) Roster() *RosterState { return &h.roster }

// Roster returns the roster entry of the brake of z.
func (z *Zone) Roster() *RosterState { return &z.roster }

// Announce returns the announcement that h needs now: its Difference to the roster, or else events of its
// workers.
func (h *Hive) Announce(now time.Time) (a Announcement, ok bool) {
	kind, to, ok := h.Difference(now)
	if ok {
		data, next := h.Next(kind, to, now)
		a = Announcement{[]Announced{{hivebeat.HiveEventID(h.id, next.N), data}}, next}
	} else {
		a, ok = h.announceWorkers(now)
	}
	if ok {
		h.roster.wanted = wanted{a.Next.N, a.Next.Inc, a.Next.Seq}
	}
	return a, ok
}

// Knows reports whether a is still in the view.
func (v *View) Knows(a Announcer) bool {
	if h, ok := a.(*Hive); ok {
		return v.Has(h)
	}
	return true
}

// LearnKey applies an entry of the roster, and returns the hive or the zone of the brake that it is about.
// Another queen may have put it, and may have heard more of the hive.
func (v *View) LearnKey(key string, item ledger.RosterItem, now time.Time) Announcer {
	a := v.Announcer(key)
	if a == nil {
		a = v.get(key)
	}
	var event hivebeat.Event
	if json.Unmarshal(item.Event, &event) != nil { // the entry has none, or one that cannot be read
		event = hivebeat.Event{}
	}
	v.LearnOwn(a, item, &event.Data, now)
	return a
}

// LearnOwn is LearnKey for an entry that this queen itself put after a.Announce, so that it need not be
// parsed. event is the data of its last event, zero if it has none.
func (v *View) LearnOwn(a Announcer, item ledger.RosterItem, event *hivebeat.EventData, now time.Time) {
	if a.Roster().supersedes(&item) {
		switch a := a.(type) {
		case *Zone:
			v.learnZone(a, item, now)
		case *Hive:
			v.learn(a, item, event, now)
		}
	}
	v.updateIndex(now)
}

// UnlearnKey records that the roster has no entry with this key. If the entry expired, a lost, left or
// unverified hive is forgotten with it. Otherwise, as after a loss of the whole roster, it is put again, and
// its numbers continue.
func (v *View) UnlearnKey(key string, expired bool, now time.Time) {
	a := v.Announcer(key)
	if a == nil || a.Roster().Item.Revision == 0 {
		return
	}
	a.Roster().Item.Revision = 0
	h, ok := a.(*Hive)
	if ok && expired && (isGone(h.live) || h.live == hivebeat.Unverified) {
		v.forget(h)
	} else {
		v.Compare(a)
	}
	v.updateIndex(now)
}

// EachKey yields every key that the roster should have.
func (v *View) EachKey(yield func(key string)) {
	for _, h := range v.order {
		yield(h.id)
	}
	for _, z := range v.zones {
		if z.roster.Item.N > 0 {
			yield(z.Key())
		}
	}
}

// Announcer returns the hive or zone for a key of the roster, or nil.
func (v *View) Announcer(key string) Announcer {
	if zone, ok := zoneOfKey(key); ok {
		return v.zoneOf(zone)
	}
	if h := v.hives[key]; h != nil {
		return h
	}
	return nil
}

// TooOld is the age at which an event is no longer published: the stream detects duplicates for an hour.
const TooOld = 50 * time.Minute

// rosterBytes bounds the size of the workers in a roster entry.
const rosterBytes = 256 << 10

// Difference returns the kind of the next event of h, and the verdict that the roster has afterwards. ok is
// false if the roster needs no change.
func (h *Hive) Difference(now time.Time) (kind hivebeat.Kind, to hivebeat.Live, ok bool) {
	e := &h.roster.Item.RosterEntry
	inc, seq, recorded := h.line.Inc(), h.line.Seq(), h.worth(e.Inc, e.Seq)
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
	case seq < recorded || e.Live == hivebeat.Left:
		return h.unannouncedConflict(now)
	case h.live == e.Live, h.live == hivebeat.Unverified && e.Live == hivebeat.Lost:
		return h.unannouncedConflict(now) // a queen that still brakes ignores that another one no longer does
	case up && (e.Live == hivebeat.Lost || e.Live == hivebeat.Unverified || e.Live == hivebeat.Late):
		if seq > recorded {
			return hivebeat.KindRecovered, hivebeat.Alive, true
		}
		return h.unannouncedConflict(now) // the author heard the same, and waited at least as long
	}
	return kindOf(h.live), h.live, true
}

// unannouncedConflict returns the conflict of h, if it has one that was not announced.
func (h *Hive) unannouncedConflict(now time.Time) (hivebeat.Kind, hivebeat.Live, bool) {
	rival := h.Conflicting(now)
	return hivebeat.KindConflict, h.roster.Item.Live, rival != 0 && h.roster.Conflict != h.line.Inc()
}

func kindOf(l hivebeat.Live) hivebeat.Kind { return hivebeat.Kind(l) } // the words are the same

// Next returns the data of the event that Difference asks for, and the entry that records it, without the
// event.
func (h *Hive) Next(kind hivebeat.Kind, to hivebeat.Live, now time.Time) (hivebeat.EventData, ledger.RosterEntry) {
	e := &h.roster.Item.RosterEntry
	d := hivebeat.EventData{
		Hive: h.id, Inc: h.line.Inc(), HiveInc: h.line.Inc(), N: max(e.N, h.roster.before) + 1, Kind: kind,
		From: string(e.Live), To: string(to), Seq: h.line.Seq(), Via: hivebeat.ViaQueen, Silenced: h.silenced("", kind),
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
	if kind == kindOf(h.live) {
		d.Cause = h.cause
	}
	seq := d.Seq
	if e.Inc == d.Inc { // a queen that heard less may announce a conflict; the entry's seq goes down only if h went back
		seq = max(seq, h.worth(e.Inc, e.Seq))
	}
	next := ledger.RosterEntry{
		V: hivebeat.Version, N: d.N, Live: to, Cause: d.Cause, Inc: d.Inc, Seq: seq,
		Every: hivebeat.MillisOf(h.every), Zone: h.zone, Age: h.roster.age(h, now), Prior: e.Prior,
	}
	if e.Inc != d.Inc {
		next.Prior = e.Inc
	}
	if kind == hivebeat.KindConflict {
		next.Cause = e.Cause
	}
	next.Workers = h.remember(!isGone(to), now)
	return d, next
}

// remember returns the workers of h for an entry of the roster, up to rosterBytes: all if h is gone. If it is
// up: those on which the verdict of a queen still stands, and lost and left ones that h does not list. A lost or
// left worker is shown for hivebeat.KeepGone, even if its hive restarts meanwhile and does not know it. With the
// roster, that holds even if the queen restarts too.
func (h *Hive) remember(up bool, now time.Time) map[string]ledger.RosterWorker {
	known := h.roster.workers(now)
	if h.head().Inc == 0 && !up {
		return known // the hive was not heard: only the roster knows its workers
	}
	m, size := make(map[string]ledger.RosterWorker, len(h.workers)), 0
	for id, r := range known {
		if up && r.Via == hivebeat.ViaQueen {
			m[id] = r
		}
	}
	for w := range h.inOrder() {
		id := w.rec().Worker
		r, ok := w.inRoster(now)
		if !ok || up && (w.gen == h.assembly.gen || r.Since == 0 || w.goneFor(now) >= hivebeat.MillisOf(hivebeat.KeepGone)) {
			continue
		}
		if size += rowSize(id, &r); size > rosterBytes {
			break
		}
		if was := known[id]; was.Via == hivebeat.ViaQueen && was.Inc == r.Inc && was.Live == r.Live {
			r.Via = was.Via
		}
		m[id] = r
	}
	return m
}
