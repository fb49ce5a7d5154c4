package sim

import (
	"slices"
	"time"

	"github.com/beatfabric/hivebeat"
	"github.com/beatfabric/hivebeat/internal/detector"
	"github.com/beatfabric/hivebeat/internal/liveness"
	"github.com/beatfabric/hivebeat/internal/wire"
)

// life identifies one process by its own id and incarnation.
type life struct {
	ident string
	inc   uint64
}

// observations are the verdicts of an observer, in the order it learned about the
// processes.
type observations []*observation

// observation is the verdict of an observer on one id.
type observation struct {
	id     string
	live   hivebeat.Live
	inc    uint64
	since  time.Duration // when live was set
	incAt  time.Duration // when inc was learned
	before []uint64      // incarnations that were replaced
	proved uint64        // the last one that proved to be running

	stalled, looping bool            // last reported
	restarts         []time.Duration // times of restarts
}

// of returns the observation of id, and creates it if there is none.
func (s *observations) of(id string) *observation {
	for _, x := range *s {
		if x.id == id {
			return x
		}
	}
	x := &observation{id: id}
	*s = append(*s, x)
	return x
}

// recalled returns the observation of a worker, which the hive may know from its last life.
func (h *hive) recalled(id string) *observation {
	x := h.known.of(h.id + "/" + id)
	if r, ok := h.core.Record(h.w.time(), id); ok && x.inc == 0 {
		x.inc, x.incAt, x.live, x.since, x.looping = r.Inc, h.w.now, r.Live, h.w.now, r.Looping
		if h.ended[life{x.id, r.Inc}] = r.Cause == hivebeat.CauseExit || r.Cause == hivebeat.CauseOOM; r.Looping {
			x.restarts = slices.Repeat([]time.Duration{h.w.now - r.Since.Duration()}, 3)
		}
	}
	return x
}

// lives reports whether the observer believes that it is alive.
func (s *observation) lives() bool { return s.live == hivebeat.Alive || s.live == hivebeat.Late }

// gone reports whether a verdict is lost or left.
func gone(live hivebeat.Live) bool { return live == hivebeat.Lost || live == hivebeat.Left }

// turns records the current verdict of the observer, and checks it against the earlier ones.
func (o *observer) turns(s *observation, live hivebeat.Live, inc uint64) {
	if s.inc != inc {
		// An incarnation that was still running when it was replaced may come back once the
		// duplicate is gone.
		again, outlived := slices.Contains(s.before, inc), o.outlived(s.id, inc, s.inc)
		if p := o.w.lives[life{s.id, inc}]; again && (p == nil || !p.alive()) && !gone(live) && !outlived && !o.believes(s.id, inc) {
			o.w.breaks(NoResurrection, "%s shows %s as incarnation %d again, which %d had replaced", o.name, s.id, inc, s.inc)
		}
		if again && outlived {
			s.proved = inc
		}
		if s.inc != 0 {
			s.before = append(s.before, s.inc)
		}
		s.inc, s.incAt = inc, o.w.now
	}
	if s.live != live {
		s.live, s.since = live, o.w.now
	}
}

// believes reports whether another queen still accepts inc as the hive, because that queen
// could not see the replacement: it started later, was cut off, or JetStream was away. A
// queen that follows it does not resurrect inc.
func (o *observer) believes(id string, inc uint64) bool {
	if _, ok := o.self.(*queen); !ok || o.reading != nil {
		return false
	}
	for _, q := range o.w.queens {
		s, p := q.known.of(id), o.w.lives[life{id, inc}]
		if &q.observer == o || p == nil || s.inc != inc {
			continue
		}
		// It received proof that inc was running, which may have ended since; or it could not see.
		if s.proved == inc || !slices.Contains(s.before, inc) &&
			(q.born > p.born || q.bothered(p.born, o.w.now, false) || o.w.store.turned > p.born) {
			return true
		}
	}
	return false
}

// outlived reports whether the current message proves that inc ran in parallel with the
// incarnation that replaced it: the message was sent after that one started. No observer can
// know yet whether inc has ended since.
func (o *observer) outlived(id string, inc, usurper uint64) bool {
	m, u := o.reading, o.w.lives[life{id, usurper}]
	return m != nil && u != nil && m.from.life == life{id, inc} && m.sent > u.born
}

// adopted records that a queen has read the snapshot of a hive, and so knows its connection.
func (q *queen) adopted(s *wire.SnapshotView) {
	h := q.view.Index().Hive(string(s.Hive))
	if h != nil && h.Head().Inc == s.Inc && h.Head().Seq == s.Seq {
		q.linked[life{h.ID(), s.Inc}] = arrival{message: message{seq: s.Seq, conn: string(s.Conn)}, at: q.w.now}
	}
}

// checkSnapshot checks a snapshot that a hive is about to send.
func (h *hive) checkSnapshot(s *hivebeat.Snapshot) {
	now := h.w.now
	h.built[s.Seq] = now
	for i := range s.Workers {
		r := &s.Workers[i]
		at, ok := h.seqs[numbered{life{h.id + "/" + r.Worker, r.Inc}, r.Seq, 0}]
		switch age := now - at; {
		case !ok && r.N == 0: // recalled from its last life
		case !ok:
			h.w.breaks(Sound, "%s knows %d/%d of %s, which it never heard", h.name, r.Inc, r.Seq, r.Worker)
		case r.Age.Duration() < age-unseen:
			h.w.breaks(NoYoungAge, "%s reports that it heard %s %v ago, but that was %v ago", h.name, r.Worker, r.Age.Duration(), age)
		}
	}
}

// unseen is by how much an age may be too low: an observer does not notice that it was
// stopped for up to liveness.MaxPause.
const unseen = liveness.MaxPause + 100*time.Millisecond

// couldTell reports whether a queen could receive a transition: it ran and could hear the
// hive while the hive carried the transition. No queen publishes a transition that none could
// hear, and a queen that starts later does not know it.
func (h *hive) couldTell(worker string, n uint64) bool {
	at, ok := h.moves[move{worker, n}]
	end := min(at+hivebeat.TransitionsCarried, h.w.ending())
	if !ok || h.bothered(at, end, true) || !h.alive() && h.died < end || h.w.usurped(h.life) {
		return false
	}
	return slices.ContainsFunc(h.w.queens, func(q *queen) bool {
		return q.born < at && !q.bothered(at-time.Second, end, true)
	})
}

// judgedStalled checks the verdict of a hive on the work of a worker.
func (h *hive) judgedStalled(x *observation, s *detector.Step) {
	on := s.To != ""
	if x.stalled == on {
		h.w.breaks(Stalls, "%s reports stalled of %s as %t, as it did before", h.name, x.id, on)
	}
	x.stalled = on
	if m := h.reading; on && m != nil {
		h.checkStalled(life{x.id, s.Inc}, m.work.since, h.seqs[numbered{life{x.id, m.from.inc}, m.seq, 0}])
	}
}

// checkStalled checks that a worker that the observer reports as stalled was busy without
// progress for the limit, by a beat received at heard. A beat that took long to arrive looks
// like no progress.
func (o *observer) checkStalled(l life, since, heard time.Duration) {
	if idle := heard - since; idle < o.w.plan.Stall.D()-unseen {
		o.w.breaks(Stalls, "%s incarnation %d is stalled at %s, but had finished something %v before that message", l.ident, l.inc, o.name, idle)
	}
}

// checkStalls checks that a hive reports exactly the stalled workers as stalled.
func (h *hive) checkStalls() {
	w, limit := h.w, h.w.plan.Stall.D()
	if limit == 0 {
		return
	}
	for _, k := range w.workers {
		a, ok := h.last[k.life]
		if k.hive != h.id || !ok || a.at > w.now-readTime || w.usurped(k.life) {
			continue
		}
		r, ok := h.core.Record(w.time(), k.id)
		up := ok && r.Inc == k.inc && (r.Live == hivebeat.Alive || r.Live == hivebeat.Late)
		switch {
		case !up || h.bothered(a.stuckAt-limit, w.now, true):
		case r.Stalled && a.at == a.stuckAt:
			w.breaks(Stalls, "%s incarnation %d is stalled at %s, which heard %v ago that its work advances", k.ident, k.inc, h.name, w.now-a.at)
		case !r.Stalled && a.at-a.stuckAt > limit+readTime:
			w.breaks(Stalls, "%s incarnation %d is not stalled at %s, which heard of no progress for %v", k.ident, k.inc, h.name, a.at-a.stuckAt)
		}
	}
}
