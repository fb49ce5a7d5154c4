package fleet

import (
	"time"

	"github.com/beatfabric/hivebeat"
	"github.com/beatfabric/hivebeat/internal/index"
	"github.com/beatfabric/hivebeat/internal/ledger"
	"github.com/beatfabric/hivebeat/internal/liveness"
	"github.com/beatfabric/hivebeat/verdict"
)

// RosterState is the roster entry of a hive or brake as this queen knows it, and the progress of announcing
// the difference to it.
type RosterState struct {
	Item      ledger.RosterItem // N is 0 if there never was one, Revision if there is none now
	ReadAt    time.Time
	Confirmed uint64 // n of the last event that is known to be in the stream
	Conflict  uint64 // the incarnation whose conflict was announced last
	Busy      bool   // an announcement is under way
	Again     bool   // the hive or brake has changed since it began
	wanted    wanted
	before    uint64 // n of its last event before it was forgotten
	isDirty   bool   // compare the hive or brake with the entry
}

// wanted is the last entry that this queen wanted to put.
type wanted struct{ n, inc, seq uint64 }

func (w wanted) is(item *ledger.RosterItem) bool { return w == wanted{item.N, item.Inc, item.Seq} }

// keepNumbers bounds the forgotten hives whose last number is remembered.
const keepNumbers = 1 << 16

// Numbered records that the last event of a hive that was forgotten had the number n. If the hive returns, its numbers
// continue: the id of an event must not come again.
func (v *View) Numbered(hive string, n uint64) {
	switch {
	case n == 0 || n <= v.numbers[hive]:
		return
	case v.numbers == nil || len(v.numbers) >= keepNumbers:
		v.numbers = make(map[string]uint64)
	}
	v.numbers[hive] = n
	if h := v.hives[hive]; h != nil {
		h.roster.before = n
	}
}

// put returns when the entry was put.
func (s *RosterState) put(now time.Time) time.Time {
	return now.Add(-max(0, s.Item.Stored) - now.Sub(s.ReadAt))
}

// heard returns the latest time at which a hive with the promise every can have been heard, by the entry.
// Without an age in it, the hive is taken as lost by silence at the moment of the put.
func (s *RosterState) heard(every time.Duration, now time.Time) time.Time {
	if s.Item.Age > 0 {
		return s.put(now).Add(-min(s.Item.Age, maxAge).Duration())
	}
	return s.put(now).Add(-verdict.LostAfter(every, 0))
}

// age returns the age of the last message of h, for an entry that is put now. It is at least 1.
func (s *RosterState) age(h *Hive, now time.Time) hivebeat.Millis {
	heard := h.received
	if heard.IsZero() {
		heard = s.heard(h.every, now)
	}
	return max(1, index.EffectiveAge(0, heard, now))
}

// Restored returns the entry to put after a loss of the roster.
func (s *RosterState) Restored(now time.Time) ledger.RosterEntry {
	e := s.Item.RosterEntry
	e.Event, e.Events, e.Workers = nil, nil, s.workers(now)
	if e.Age > 0 {
		e.Age += hivebeat.MillisOf(now.Sub(s.put(now)))
	}
	return e
}

// workers returns a copy of the workers in the entry, with ages as of now.
func (s *RosterState) workers(now time.Time) map[string]ledger.RosterWorker {
	if s.Item.Workers == nil {
		return nil
	}
	m, put := make(map[string]ledger.RosterWorker, len(s.Item.Workers)+1), s.put(now)
	for id, r := range s.Item.Workers {
		if r.Since > 0 {
			r.Since = index.EffectiveAge(r.Since, put, now)
		}
		if r.Age > 0 {
			r.Age = index.EffectiveAge(r.Age, put, now)
		}
		m[id] = r
	}
	return m
}

// supersedes reports whether an entry of the roster is no older than the known one.
func (s *RosterState) supersedes(item *ledger.RosterItem) bool {
	return item.Epoch > s.Item.Epoch || item.Epoch == s.Item.Epoch && item.Revision >= s.Item.Revision
}

// rosterWorker returns the entry of a worker in the roster.
func rosterWorker(f *hivebeat.Facts, live hivebeat.Live, cause hivebeat.Cause) ledger.RosterWorker {
	return ledger.RosterWorker{
		Inc: f.Inc, Live: live, Cause: cause, State: f.State, Model: f.Model, Seq: f.Seq, Every: f.Every, Quiet: f.Quiet,
	}
}

// promise returns the promise of a worker in the roster, within the bounds of a beat. If the roster has none,
// it returns the default promise, and known is false.
func promise(r *ledger.RosterWorker) (every, quiet hivebeat.Millis, known bool) {
	if r.Every == 0 {
		return hivebeat.MillisOf(hivebeat.WorkerEvery), 0, false
	}
	every = min(max(r.Every, hivebeat.MillisOf(hivebeat.MinEvery)), hivebeat.MillisOf(hivebeat.MaxEvery))
	return every, min(r.Quiet, hivebeat.MillisOf(hivebeat.MaxQuiet)), true
}

// heardWorker returns the latest time at which a worker in the entry was last heard. heard is when its hive was.
func (s *RosterState) heardWorker(r *ledger.RosterWorker, heard, now time.Time) time.Time {
	at := heard.Add(-oldest(r))
	if said := s.put(now).Add(-min(r.Age, maxAge).Duration()); r.Age > 0 && said.Before(at) {
		return said
	}
	return at
}

// oldest returns the greatest age that a worker in the roster can have had when its hive was heard last, unless
// the entry states its age.
func oldest(r *ledger.RosterWorker) time.Duration {
	every, quiet, _ := promise(r)
	age := verdict.LostAfter(every.Duration(), quiet.Duration())
	if isGone(r.Live) {
		age += hivebeat.KeepGone
	}
	return age
}

// learn applies an entry that supersedes the known one. event is the data of the event in it.
func (v *View) learn(h *Hive, item ledger.RosterItem, event *hivebeat.EventData, now time.Time) {
	e := &item.RosterEntry
	before := h.roster.Item.N
	h.goBackWith(&item)
	// The roster had this queen's incarnation and has another one now: another queen decided later. If both
	// insisted they would argue for ever, or lead all queens to an incarnation that is gone. So this queen
	// follows. The same holds if a later entry is the first to say that its incarnation replaced this queen's. An
	// entry that it put itself decides nothing, because it may have heard more since.
	was := &h.roster.Item
	replaced := was.Inc == h.line.Inc() && was.Epoch == item.Epoch ||
		item.Prior == h.line.Inc() && item.N > was.N && (item.Inc != was.Inc || item.Prior != was.Prior)
	decided := !h.roster.wanted.is(&item) && (replaced && !h.cameBackSince(&item, now) || h.overtaken(&item, event, now))
	h.roster.Item, h.roster.ReadAt = item, now
	if h.head().Inc == 0 {
		h.zone = item.Zone
	}
	if event.Kind == hivebeat.KindConflict {
		h.roster.Conflict = event.Inc
	}
	defer v.learnAdopted(h, before, now)
	v.change(h)
	v.Compare(h)
	switch {
	case h.live == "":
		v.recall(h, now)
	case e.Inc == h.line.Inc() && h.worth(e.Inc, e.Seq) <= h.line.Seq():
		if e.Live == hivebeat.Left && h.live != hivebeat.Left || h.believes(e) {
			v.byRoster(h, now)
		}
	case (e.Inc < h.line.Inc() || e.Inc == h.prior) && !decided: // this queen's is newer
	default:
		o := h.advance(liveness.Message{Inc: e.Inc, Seq: e.Seq, Heard: now}, 0, now)
		if !o.Accepted() && decided && e.Inc != h.line.Inc() && e.Seq > 0 {
			o = h.follow(e.Inc, e.Seq)
		}
		if !o.Accepted() {
			return
		}
		v.unlink(h)
		if isGone(e.Live) {
			v.byRoster(h, now)
		} else {
			v.heard(h, o, now)
		}
	}
}

// goBackWith follows another queen back to a lower seq: with item that queen took back the seq of the entry
// before, because another process had sent it in the name of the hive.
func (h *Hive) goBackWith(item *ledger.RosterItem) {
	was := &h.roster.Item
	if item.Inc != was.Inc || item.Epoch != was.Epoch || item.N <= was.N || item.Seq >= was.Seq || h.roster.wanted.is(item) ||
		item.Inc != h.line.Inc() || item.Seq >= h.line.Seq() || item.Seq == 0 {
		return
	}
	h.disowned = max(h.disowned, h.line.Seq())
	h.line.Rewind(item.Seq - 1) // so that item.Seq counts as heard
}

// believes reports whether this queen accepts from another queen, which heard as much of h, that h is lost.
// A queen that heard the same seq and nothing since cannot object: the other one saw the connection close,
// or waited until the deadline. A higher seq is an objection at any time. A hive that this queen's brake
// holds stays held.
func (h *Hive) believes(e *ledger.RosterEntry) bool {
	return e.Live == hivebeat.Lost && e.Inc == h.line.Inc() && e.Seq == h.line.Seq() &&
		(h.Up() || h.live == hivebeat.Unverified && h.heldBy == nil)
}

// cameBackSince reports whether this queen heard its incarnation replace the one in item after item was put.
// Then item is out of date: JetStream was away meanwhile.
func (h *Hive) cameBackSince(item *ledger.RosterItem, now time.Time) bool {
	return h.head().Inc == h.line.Inc() && h.prior == item.Inc && now.Add(-item.Stored).Before(h.firstFrom)
}

// overtaken reports whether item says that the hive lives, and was put after this queen last heard its own
// incarnation of the hive, which is late or worse. Then this queen was asleep, or the roster was lost
// meanwhile, and insisting would revive a dead incarnation. An incarnation that this queen read for the first
// time after item was put is newer than item, even if it counts as heard long before because it was read in
// doubt. An entry that was put for a worker only repeats the verdict on the hive.
func (h *Hive) overtaken(item *ledger.RosterItem, event *hivebeat.EventData, now time.Time) bool {
	ofWorkers := event.Worker != "" || len(item.Events) > 0
	return item.N > h.roster.Item.N && speaksOfLiving(item) && !ofWorkers &&
		now.Sub(h.judged) > verdict.LateAfter(h.every, 0) && now.Add(-item.Stored).After(latest(h.judged, h.beganAt))
}

// decidedSince reports whether an entry put after heard says that the hive lives in the incarnation that this
// queen knows, or, if gone is true, that it is gone in it. Then a message of another incarnation, sent at an
// unknown time after heard, may be from the incarnation that was given up. If it is not, its next snapshot
// proves it.
func (h *Hive) decidedSince(heard time.Time, inc uint64, gone bool) bool {
	it := &h.roster.Item
	return inc != h.line.Inc() && it.Inc == h.line.Inc() && (gone || speaksOfLiving(it)) && h.roster.ReadAt.Add(-it.Stored).After(heard)
}

func speaksOfLiving(item *ledger.RosterItem) bool {
	return item.Live == hivebeat.Alive || item.Live == hivebeat.Late
}

// recall sets the verdict on a hive that is known only from the roster: lost or left as the roster says,
// otherwise unverified.
func (v *View) recall(h *Hive, now time.Time) {
	e := &h.roster.Item.RosterEntry
	if e.Inc == 0 || e.Seq == 0 {
		return // it cannot be read
	}
	h.line.Hear(e.Inc, e.Seq, false)
	h.every = min(max(e.Every.Duration(), hivebeat.MinEvery), hivebeat.MaxEvery)
	h.received, h.judged, h.blind = now.Add(-verdict.LostAfter(h.every, 0)), v.heardAs(now), v.blind
	if isGone(e.Live) {
		h.received = h.roster.heard(h.every, now)
		v.recallWorkers(h, now)
		v.byRoster(h, now)
		h.since = h.roster.put(now)
		return
	}
	v.become(h, hivebeat.Unverified)
	h.since = now
	v.recallWorkers(h, now)
	v.due.Set(h, h.judged.Add(verdict.LostAfter(h.every, 0)))
}

// recallWorkers adds the workers that the roster has for h: all if h is gone, otherwise only the lost and left
// ones. The roster does not say when each was heard. The estimate is the time of the hive's last message, less
// the time that a hive waits for a worker, and lists it after it is lost.
func (v *View) recallWorkers(h *Hive, now time.Time) {
	heard := h.roster.heard(h.every, now)
	for id, r := range h.roster.Item.Workers {
		if !hivebeat.ValidID(id) || r.Inc == 0 || h.workers[id] != nil || len(h.workers) >= hivebeat.MaxWorkers {
			continue
		}
		var rec hivebeat.Record
		received := h.roster.heardWorker(&r, heard, now)
		if r.Since > 0 && isGone(r.Live) {
			put := h.roster.put(now)
			rec.Age, rec.Since, received = index.EffectiveAge(0, received, put), min(r.Since, maxAge), put
		}
		if h.live == hivebeat.Unverified && (!isGone(r.Live) || index.EffectiveAge(rec.Since, received, now) >= hivebeat.MillisOf(hivebeat.KeepGone)) {
			continue
		}
		rec.Worker, rec.Live, rec.Cause = id, r.Live, r.Cause
		rec.Inc, rec.Seq, rec.State, rec.Model = r.Inc, max(1, r.Seq), r.State, r.Model
		if every, quiet, known := promise(&r); known {
			rec.Every, rec.Quiet = every, quiet
		}
		v.index.Set(&v.add(h, id).entry, rec, received, now)
	}
}

// byRoster makes h lost or left, as another queen found that knew more.
func (v *View) byRoster(h *Hive, now time.Time) {
	e := &h.roster.Item.RosterEntry
	if e.Live == hivebeat.Left {
		h.line.End()
	}
	v.turn(h, kindOf(e.Live), e.Live, e.Cause, evidence{reason: "another queen found this"}, now)
	v.due.Set(h, now.Add(forgetAfter))
}
