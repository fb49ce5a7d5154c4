package fleet

import (
	"time"

	"github.com/beatfabric/hivebeat"
)

// ID is the hive's id.
func (h *Hive) ID() string { return h.id }

// Live is the verdict, empty before anything is known. Cause says why, Since when
// it was reached.
func (h *Hive) Live() hivebeat.Live { return h.live }

// Cause of the verdict.
func (h *Hive) Cause() hivebeat.Cause { return h.cause }

// Since is when the verdict was reached.
func (h *Hive) Since() time.Time { return h.since }

// Inc is the valid incarnation, 0 before one is known.
func (h *Hive) Inc() uint64 { return h.line.Inc() }

// Seq is the highest seq known of the valid incarnation.
func (h *Hive) Seq() uint64 { return h.line.Seq() }

// Every is the hive's promise.
func (h *Hive) Every() time.Duration { return h.every }

// Received is when its newest page was received, or the earliest time it may have
// been. HeardAt is when anything of it came to this view.
func (h *Hive) Received() time.Time { return h.received }

// HeardAt is when a message of it came last; zero if none ever did.
func (h *Hive) HeardAt() time.Time { return h.heardAt }

// InDoubt reports whether its connection closed, and it was not heard since.
func (h *Hive) InDoubt() bool { return h.inDoubt }

// Goodbye is what it said when it left, if it did.
func (h *Hive) Goodbye() string { return h.left }

// Head is its newest page but for the workers. Inc is 0 where none was ever taken
// over. It is not to be changed, and is only good until the next input.
func (h *Hive) Head() *hivebeat.Snapshot { return &h.head }

// Worker returns the worker with this id, or nil.
func (h *Hive) Worker(id string) *Worker { return h.workers[id] }

// Up reports whether h still speaks for its workers.
func (h *Hive) Up() bool { return h.live == hivebeat.Alive || h.live == hivebeat.Late }

// Record is the worker as its newest page, or this view, has it: ages are as of
// Received. It is not to be changed, and is only good until the next input.
func (w *Worker) Record() *hivebeat.Record { return &w.rec }

// Received is when the page that holds the record was received.
func (w *Worker) Received() time.Time { return w.received }

// Via says who judges the worker: hivebeat.ViaHive or hivebeat.ViaQueen.
func (w *Worker) Via() string { return w.via }

// Shown returns what a record is worth now. One past the limit of freshness, or
// of a hive that is gone, is shown as at best late; that is no transition.
func (v *View) Shown(h *Hive, w *Worker, now time.Time) (live hivebeat.Live, age hivebeat.Millis, fresh bool) {
	live, age = w.rec.Live, EffectiveAge(w.rec.Age, w.received, now)
	fresh = age <= hivebeat.MillisOf(v.fresh)
	speaks := h.Up()
	if w.ward != nil {
		speaks = w.ward.answered
	}
	if live == hivebeat.Alive && (!fresh || !speaks) {
		live = hivebeat.Late
	}
	return live, age, fresh
}

// Up is how long ago the incarnation of w began, as far as is known: by the worker's own
// clock, but for no longer than its number of beats allows, and at least since it is
// alive. It is 0 where w is lost or left.
func (w *Worker) Up(now time.Time) (up hivebeat.Millis) {
	r := &w.rec
	if isGone(r.Live) {
		return 0
	}
	if began := int64(r.Inc / 1000); r.Sent > began && r.Every > 0 {
		up = hivebeat.Millis(r.Sent - began)
		if uint64(up/r.Every) >= r.Seq {
			up = r.Every * hivebeat.Millis(r.Seq)
		}
		up = EffectiveAge(r.Age+up, w.received, now)
	}
	if r.Live == hivebeat.Alive {
		up = max(up, EffectiveAge(r.Since, w.received, now))
	}
	return up
}

// LateFor returns for how long a record of this age has been shown as late, which
// its hive does not say of it: since it grew too old, or its hive was given up.
func (v *View) LateFor(h *Hive, age hivebeat.Millis, now time.Time) hivebeat.Millis {
	var since hivebeat.Millis
	if fresh := hivebeat.MillisOf(v.fresh); age > fresh {
		since = age - fresh
	}
	if !h.Up() {
		since = max(since, hivebeat.MillisOf(now.Sub(h.since)))
	}
	return since
}

// CountWorkers yields how many workers of h are shown with which verdict and
// state; a verdict that nobody knows counts as late.
func (v *View) CountWorkers(h *Hive, now time.Time, yield func(hivebeat.Live, hivebeat.State, int)) {
	v.Settle(now)
	h.mixes.each(func(m Mix, n int) { yield(Counted(m.Live), m.State, n) })
}

// Counted is what a verdict counts as: one that nobody knows is late.
func Counted(l hivebeat.Live) hivebeat.Live {
	switch l {
	case hivebeat.Alive, hivebeat.Late, hivebeat.Lost, hivebeat.Left:
		return l
	}
	return hivebeat.Late
}
