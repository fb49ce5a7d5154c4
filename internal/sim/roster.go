package sim

import (
	"strconv"
	"time"

	"github.com/beatfabric/hivebeat"
	"github.com/beatfabric/hivebeat/internal/fleet"
)

// What queens believe of one another: the roster has the last verdict on each hive,
// and who has nothing to say against one that a hive is lost takes it over.

const (
	// believedWithin is how long the roster's word may take to every queen.
	believedWithin = time.Second
	// settled is for how long nothing may have gone wrong between a queen and
	// JetStream before that is asked of it: the next read is over by then.
	settled = 20 * time.Second
)

// untold returns 1 for a queen that never hears of connections that close.
func (q *queen) untold() int {
	for n := q.w.plan.Queens; n > q.w.plan.Queens-q.w.plan.Untold; n-- {
		if q.ident == "q"+strconv.Itoa(n) {
			return 1
		}
	}
	return 0
}

// checkBelieved looks for hives that the roster has as lost, and of which a queen
// that has heard nothing since says that they are there.
func (w *world) checkBelieved(q *queen) {
	s, from := w.store, w.now-settled
	if w.plan.NoJetStream || q.born > from || q.bothered(from, w.now, true) || s.away > 0 || s.backAt > from || q.kept.epoch != s.epoch {
		return
	}
	for _, id := range s.all(0) {
		e, h := s.roster[id], q.view.Hive(id)
		if e.Live != hivebeat.Lost || w.now-s.put[id] < believedWithin || h == nil || !h.Up() || h.Inc() != e.Inc || h.Seq() > e.Seq {
			continue
		}
		w.breaks(DeathTold, "the roster has %s incarnation %d as lost since %v, at seq %d, and %s, which has heard nothing since, says %s",
			id, e.Inc, w.now-s.put[id], e.Seq, q.name, h.Live())
	}
}

// talkedDown holds it against the truth that q takes over that a hive is lost: who
// has heard of it what the author did not is not to believe that.
func (t *truth) talkedDown(q *queen, s *fleet.Step) {
	l := life{s.Hive, s.Inc}
	item, a := t.w.store.roster[s.Hive], t.last[hearing{&q.proc, l}]
	switch {
	case item.Inc != s.Inc || item.Live != hivebeat.Lost || a.seq <= item.Seq:
		return
	case a.at >= t.w.now-readTime || q.bothered(a.at, t.w.now, true): // it may not have read it
		return
	case a.at < q.known.of(s.Hive).incAt: // its place was taken since, and the roster went back to it
		return
	}
	t.w.breaks(NoFalseDeath, "%s incarnation %d is lost to %s as another queen found at seq %d, and it heard %d of it %v ago",
		s.Hive, s.Inc, q.name, item.Seq, a.seq, t.w.now-a.at)
}

// checkOrphans looks for workers that died on a hive that is lost, and whom nobody
// looks after.
func (w *world) checkOrphans(q *queen, h *fleet.Hive) {
	if h.Live() != hivebeat.Lost || w.now-q.born < w.plan.Settle.D() {
		return
	}
	for _, k := range h.Workers() {
		r := k.Record()
		l := life{h.ID() + "/" + r.Worker, r.Inc}
		if p := w.truth.procs[l]; p == nil || p.alive() || r.Live == hivebeat.Lost || r.Live == hivebeat.Left || w.mayWait(q.known.of(h.ID()).since, l, r.Every) {
			continue
		}
		w.breaks(Convergence, "%s is dead as %d, its hive is lost, and %s says %s", l.ident, l.inc, q.name, r.Live)
	}
}
