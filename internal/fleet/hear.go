package fleet

import (
	"time"

	"github.com/beatfabric/hivebeat"
	"github.com/beatfabric/hivebeat/internal/liveness"
	"github.com/beatfabric/hivebeat/internal/wire"
)

// Apply takes over one page of a snapshot that was heard now. It returns a
// *hivebeat.Refusal where the message is no news; then nothing has changed.
func (v *View) Apply(s *wire.SnapshotView, now time.Time) error {
	h := v.hives[string(s.Hive)]
	if h == nil {
		h = v.get(string(s.Hive))
	}
	if !v.doubt.IsZero() && h.decidedSince(v.doubt, s.Inc, true) {
		v.refused[hivebeat.RefusedStale]++
		return refusedStale
	}
	up := h.Up()
	o, refusal := h.hear(s, v.heardAs(now), now)
	v.beside(h, s, o, up, now)
	if refusal != nil {
		v.refused[refusal.Reason]++
		return refusal
	}
	v.accepted++
	h.heardAt = v.heardAs(now)
	v.takeOver(h, s, o, latest(h.heardAt, h.received), now)
	h.early = h.received.Before(now)
	return nil
}

// Adopt takes over one page that was kept in the bucket, where it is news. It
// was received by another queen age ago, at most. For the verdict the hive counts
// as heard now, as there was nobody here to hear it before; the ages that are
// shown count from when it was received.
func (v *View) Adopt(s *wire.SnapshotView, age time.Duration, now time.Time) {
	h := v.hives[string(s.Hive)]
	if h == nil {
		h = v.get(string(s.Hive))
	}
	if h.decidedSince(now.Add(-age), s.Inc, false) {
		return // the key is of one whose place was taken, and keeps a lower one out until it expires
	}
	if o, refusal := h.hear(s, now.Add(-age), now); refusal == nil {
		v.takeOver(h, s, o, now.Add(-age), now)
		h.early = true
	}
}

// Refusals of snapshots that are no news.
var (
	refusedPages = &hivebeat.Refusal{Reason: hivebeat.RefusedLimit, Key: "pages", Detail: "another number than in the page before of this seq"}
	refusedStale = &hivebeat.Refusal{Reason: hivebeat.RefusedStale, Detail: "seq not above the last, or an incarnation that is over"}
	refusedOlder = &hivebeat.Refusal{Reason: hivebeat.RefusedOlder, Detail: "a higher incarnation is alive"}
)

// hear judges whether the page is news: by the hive's lineage, or as one more
// page of what is being put together.
func (h *Hive) hear(s *wire.SnapshotView, heard, now time.Time) (liveness.Outcome, *hivebeat.Refusal) {
	if h.asm.is(s.Inc, s.Seq) && s.Inc == h.line.Inc() {
		switch {
		case s.Pages != h.asm.pages:
			return liveness.Stale, refusedPages
		case h.asm.has(s.Page):
			return liveness.Stale, refusedStale
		case h.live == hivebeat.Lost:
			return liveness.Same, nil // it was sent before, and is no sign of life
		}
		return liveness.Next, nil
	}
	if h.live == hivebeat.Alive {
		if refusal := h.line.Implausible(now, s.Inc, s.Seq); refusal != nil {
			return liveness.Stale, refusal
		}
	}
	o := h.hearLine(message(s, now), hivebeat.Millis(s.Every).Duration()/2, heard)
	switch {
	case o.Accepted(), o == liveness.Same && !h.line.Ended(): // Same: its number is known from elsewhere, its content is not
		return o, nil
	case o == liveness.Older:
		return o, refusedOlder
	}
	return o, refusedStale
}

// takeOver copies the page and draws the conclusions.
func (v *View) takeOver(h *Hive, s *wire.SnapshotView, o liveness.Outcome, received, now time.Time) {
	facts, host, same := h.facts(), h.head.Host, sameGPUs(h.head.GPUs, s.GPUs)
	if h.live == hivebeat.Lost && h.head.Inc == s.Inc && !h.early {
		h.wentOn = h.wentOn || liveness.WasHeld(h.head.Sent, s.Sent, received.Sub(h.received), received.Sub(h.since))
	}
	v.copy(h, s, received, now)
	v.link(h, o)
	what := h.newsIn(facts, host, same)
	if o != liveness.Same || h.live == "" || h.live == hivebeat.Unverified {
		v.heard(h, o, now)
	}
	if len(s.Bye) > 0 {
		v.leave(h, now)
	}
	switch {
	case h.live == hivebeat.Lost: // what it said before it was
		v.adoptAgain(h, now)
	case h.asm.complete() && s.Warm && v.doubt.IsZero():
		v.absent(h, now)
	}
	v.goneBack(h, now)
	if facts.inc != 0 && mapAt(h.head.Labels) != facts.labels {
		for _, w := range h.workers { // they have the hive's labels too
			v.touchWorker(w, true)
		}
	}
	wasFresh := h.isFresh
	v.resum(h, what, now)
	if h.isFresh != wasFresh {
		v.reshowAll(h, now)
	}
	v.ages(h, now)
	if h.recount { // by what grew too old
		v.resum(h, noNews, now)
	}
}

// copy takes over what the page says.
func (v *View) copy(h *Hive, s *wire.SnapshotView, received, now time.Time) {
	if h.head.Inc != s.Inc { // all that it numbers begins anew
		h.numbers = s.Seq == 1
		h.speaksFrom = now
		clear(h.absent)
	}
	if !h.asm.is(s.Inc, s.Seq) {
		if h.asm.pages > 0 && !h.asm.complete() {
			v.incomplete++
		}
		h.asm.begin(s.Inc, s.Seq, s.Pages, received)
	}
	h.asm.add(s.Page)
	if received.Before(h.asm.began) { // a page that was kept may be older than one that was heard
		h.asm.began = received
	}
	s.UpdateHead(&h.head)
	h.zone = h.head.Labels["zone"]
	v.place(h)
	v.relabelHive(h)
	h.received, h.every = received, h.head.Every.Duration()
	for i := range s.Workers {
		v.record(h, &s.Workers[i], received, now)
	}
}

// record takes over one worker's record and its transitions.
func (v *View) record(h *Hive, r *wire.RecordView, received, now time.Time) {
	w, known := h.workers[string(r.Worker)]
	if !known {
		if r.Same || len(h.workers) >= hivebeat.MaxWorkers {
			v.refused[hivebeat.RefusedFull]++
			return
		}
		w = &Worker{hive: h}
		h.workers[string(r.Worker)] = w
		h.sorted = nil
	}
	before, asCounted := life{w.rec.Inc, w.rec.Seq}, r.Same && w.ward == nil
	var was stable
	if !asCounted {
		was = w.stable()
	}
	if w.ward != nil {
		v.handBack(h, w, now)
	}
	r.Update(&w.rec)
	if before.inc != 0 && before.inc != w.rec.Inc {
		prior := before // which is on the stack, else
		w.prior = &prior
	}
	w.received, w.via = received, hivebeat.ViaHive
	if w.gen != h.asm.gen {
		w.gen = h.asm.gen
		h.asm.listed++
	}
	limit := hivebeat.MillisOf(v.fresh)
	fresh := EffectiveAge(w.rec.Age, received, now) <= limit
	if fresh {
		h.asm.oldest = max(h.asm.oldest, w.rec.Age)
	}
	if !asCounted || !w.isAsCounted(fresh) {
		v.reshow(h, w, !asCounted && w.stable() != was, now)
	}
	if w.lost != nil {
		v.disproved(h, w)
	}
	if w.seen != w.rec.N || w.hiveInc != h.head.Inc {
		v.transitions(h, w, before.inc, received, now)
	}
}

// remove drops a worker for good.
func (v *View) remove(h *Hive, w *Worker) {
	v.uncount(h, w)
	v.log.bury(h.id, w.rec.Worker)
	delete(h.workers, w.rec.Worker)
	h.sorted, h.recount = nil, true
}

// uncount takes w out of all that is kept.
func (v *View) uncount(h *Hive, w *Worker) {
	s := &w.shown
	v.countFlags(s, false, false)
	if s.tally == nil {
		return
	}
	if s.tally.Live == hivebeat.Alive {
		h.load.sub(s.load)
		v.totals.Load.sub(s.load)
	}
	v.unseat(w)
	v.count(h, w, nil)
	v.bear(h, s.labels, -1, false)
	s.labels = nil
	v.totals.Workers--
	v.log.drop(&s.trace)
}
