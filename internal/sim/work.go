package sim

import (
	"time"

	"github.com/beatfabric/hivebeat"
	"github.com/beatfabric/hivebeat/internal/detector"
)

// work is what a worker does, where a plan is about that: one request after the
// other, each shorter than the limit for one that stalls.
type work struct {
	busy, done uint64
	since      time.Duration // when it finished one, began, or said that it is idle
	next       time.Duration // when it will be finished; negative: nobody knows
}

func (k *worker) beginWork() {
	k.work = work{}
	if k.w.plan.Stall > 0 {
		k.work.busy, k.work.since = 1, k.w.now
		k.request()
	}
}

// request begins the next one.
func (k *worker) request() {
	limit := k.w.plan.Stall.D()
	k.work.next = max(k.w.now, k.work.since) + between(k.rng, limit/10, limit*9/10)
}

// goOn brings the work up to now. Where a plan is not about work each beat has
// finished something.
func (k *worker) goOn() {
	if k.w.plan.Stall == 0 {
		k.work.done++
		return
	}
	for k.work.busy > 0 && k.work.next >= 0 && k.work.next <= k.w.now {
		at, limit := k.work.next, k.w.plan.Stall.D()
		k.work.done++
		k.work.since = at
		k.work.next = at + between(k.rng, limit/10, limit*9/10)
	}
}

// hang lets it finish nothing more, or idle have nothing to do, for d; 0 is for
// good.
func (k *worker) hang(idle bool, d Span) {
	if k.w.plan.Stall == 0 {
		return
	}
	k.goOn()
	k.work.next = -1
	if idle { // it has finished what it had
		k.work.busy, k.work.since = 0, k.w.now
		k.work.done++
	}
	if d == 0 {
		return
	}
	k.w.until(d, func() {
		if k.alive() {
			if k.work.busy, k.work.next = 1, k.w.now; idle {
				k.request()
			}
		}
	})
}

// toldStalled holds what a hive says of the work of a worker against the truth.
func (t *truth) toldStalled(h *hive, s *detector.Step) {
	x, id := h.known.of(h.id+"/"+s.Worker), h.id+"/"+s.Worker
	on := s.To != ""
	if x.stalled == on {
		t.w.breaks(Stalls, "%s says of %s that stalled is %t, and said so before", h.name, id, on)
	}
	x.stalled = on
	if m := h.reading; on && m != nil {
		t.stalled(h.name, life{id, s.Inc}, m.work.since, t.seqs[heardSeq{hearing{&h.proc, life{id, m.inc}}, m.seq, 0}])
	}
}

// stalled looks whether one that is said to be stalled was busy without progress for
// as long. What was on its way for longer than the last progress before it looks as
// if it was.
func (t *truth) stalled(by string, l life, since, heard time.Duration) {
	if for_ := heard - since; for_ < t.w.plan.Stall.D()-unseen {
		t.w.breaks(Stalls, "%s incarnation %d is stalled to %s, and finished something %v before that was heard", l.ident, l.inc, by, for_)
	}
}

// checkStalls looks for workers that a hive has to call stalled, or must not.
func (w *world) checkStalls(h *hive) {
	limit := w.plan.Stall.D()
	if limit == 0 || h.paused() {
		return
	}
	for _, k := range w.workers {
		l := life{k.ident, k.inc}
		a, ok := w.truth.last[hearing{&h.proc, l}]
		if k.hive != h.id || !ok || a.at > w.now-readTime || w.truth.usurped(l) {
			continue
		}
		r, ok := h.core.Record(w.time(), k.id)
		up := ok && r.Inc == k.inc && (r.Live == hivebeat.Alive || r.Live == hivebeat.Late)
		switch {
		case !up || h.bothered(a.stuckAt-limit, w.now, true):
		case r.Stalled && a.at == a.stuckAt:
			w.breaks(Stalls, "%s incarnation %d is stalled to %s, which heard %v ago that it goes on", l.ident, l.inc, h.name, w.now-a.at)
		case !r.Stalled && a.at-a.stuckAt > limit+readTime:
			w.breaks(Stalls, "%s incarnation %d is not stalled to %s, which heard of no progress for %v", l.ident, l.inc, h.name, a.at-a.stuckAt)
		}
	}
}
