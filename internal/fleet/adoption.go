package fleet

import (
	"time"

	"github.com/beatfabric/hivebeat"
	"github.com/beatfabric/hivebeat/internal/detector"
	"github.com/beatfabric/hivebeat/internal/index"
	"github.com/beatfabric/hivebeat/internal/ledger"
	"github.com/beatfabric/hivebeat/internal/liveness"
)

// Adoption: the death of a hive does not kill its workers. When a hive is lost the queen adopts its workers:
// it hears their beats and judges them as the hive did, by the same detector:
//
//	hive lost ──▶ adopted, shown late ── answers or beats ──▶ alive, via queen
//	                   │    ◀──────────── late, recovered … ──┘
//	                   └── its own deadline passes ──▶ lost, cause hive
//
//	hive back ──▶ listed in its snapshot, or not in a warm complete one: the hive's again
//
// It is no transition that an adopted worker is late because no queen has asked it yet. The difference
// between the roster and this view is one, as for hives (announce.go): so any number of queens announce it
// once, and a worker that was alive all along makes no event.

const (
	// adoptGrace is the time for a worker to answer: after its hive was lost no worker is lost for this
	// long, whatever its own deadline. The roll is called several times meanwhile, so that a single lost
	// message kills none.
	adoptGrace = 5 * time.Second
	rollCalls  = 3
	rollAgain  = 1500 * time.Millisecond
	// spreadPerWorker keeps the answers of very many workers from storming.
	spreadPerWorker = 500 * time.Microsecond
	// maxAdopted bounds the hives whose workers are adopted, and so the subscriptions. The workers of
	// further lost hives stay late.
	maxAdopted = 10_000
	// adoptedAskMost is the largest spread with which answers still arrive before a window ends.
	adoptedAskMost = time.Second
)

// adoption is what a view knows of the workers of a hive that was lost.
type adoption struct {
	reg     *detector.Registry
	workers map[string]*adopted
	differ  map[string]bool // workers to compare with the roster
	calls   int             // of the roll, so far
	callAt  time.Time       // the next one; zero: none
	spread  time.Duration
}

// adopted is a worker that the queen judges.
type adopted struct {
	base     ledger.RosterWorker // as its hive had it, if listed
	listed   bool
	answered bool      // a queen heard it since, or judged it
	guessed  bool      // its promise is not known, and the default one counts
	alive    time.Time // since when it is alive, if its hive said so and it continued; else zero
	why      evidence
}

// Adopted reports whether Beat wants the beats for this hive.
func (v *View) Adopted(id string) bool {
	h := v.hives[id]
	return h != nil && h.adoption != nil
}

// Adoptions returns the number of hives whose workers are adopted now, of those workers, and of their beats
// that were heard so far.
func (v *View) Adoptions() (hives, workers int, beats uint64) {
	return len(v.adoptedHives), v.score.Adopted, v.adoptedBeats
}

// adopt adopts the workers of h, which was lost.
func (v *View) adopt(h *Hive, now time.Time) {
	seeds := h.seeds(now)
	if h.adoption == nil {
		if len(v.adoptedHives) >= maxAdopted {
			v.unadopted++
			return
		}
		v.adoptedHives[h] = struct{}{}
		h.adoption = &adoption{reg: detector.New(h.id), workers: make(map[string]*adopted), differ: make(map[string]bool)}
		h.adoption.reg.SetOwn(v.own)
		h.adoption.reg.Doubt(v.doubt)
		v.ready.Adoptions = append(v.ready.Adoptions, h.id)
		// The records no longer are those of the last snapshot.
		v.memos -= h.memo.size
		h.memo = memo{}
	}
	a := h.adoption
	a.spread = max(hivebeat.WorkerRollSpread, spreadPerWorker*time.Duration(v.score.Adopted+len(seeds)))
	for _, s := range seeds {
		if a.workers[s.Worker] != nil {
			continue // it was adopted before
		}
		s.Until = latest(s.Until, now.Add(adoptGrace+a.spread))
		a.reg.Seed(now, s)
		c := &adopted{listed: true, base: rosterWorker(&s.Facts, s.Live, s.Cause)}
		if !h.promiseKnown(s.Worker) {
			c.guessed, c.base.Every = true, 0
		}
		c.answered = isGone(s.Live)
		a.workers[s.Worker] = c
		v.score.Adopted++
		if w := h.workers[s.Worker]; w != nil {
			w.adopted = c
			v.index.Adopt(&w.entry, c.answered)
		}
	}
	a.calls = 0
	v.call(h, now)
	v.watch(h, now)
}

// watch sets when the adopted workers of h are looked after next.
func (v *View) watch(h *Hive, now time.Time) {
	a := h.adoption
	next, ok := a.reg.Next()
	if !a.callAt.IsZero() && (!ok || a.callAt.Before(next)) {
		next, ok = a.callAt, true
	}
	if !ok {
		v.adoptionsDue.Remove(h)
		return
	}
	again := time.Millisecond
	if !v.apart.since.IsZero() { // what is due by silence waits
		again = assessEvery
	}
	v.adoptionsDue.Set(h, latest(next, now.Add(again)))
}

// Beat takes a beat for a hive whose workers are adopted. worker is the id in the subject, or empty. If the
// message is no news it returns a *hivebeat.Refusal.
func (v *View) Beat(hive, worker string, b []byte, now time.Time) error {
	h := v.hives[hive]
	if h == nil || h.adoption == nil {
		return nil // it was in transit when the workers went back
	}
	a := h.adoption
	got, err := a.reg.Receive(now, b, worker)
	if err != nil {
		v.refused[hivebeat.ReasonOf(err)]++
		a.reg.TakeSteps() // a conflict, which the hive reports once it is back, to the refused worker too
		a.reg.TakeNotices()
		return err
	}
	if a.workers[got.Worker] == nil {
		if h.live != hivebeat.Lost { // the hive judges it again, or will
			a.reg.Drop(now, got.Worker)
			a.reg.TakeSteps()
			return nil
		}
		a.workers[got.Worker] = &adopted{}
		v.score.Adopted++
	}
	v.adoptedBeats++
	a.workers[got.Worker].guessed = false
	v.applySteps(h, now)
	v.show(h, got.Worker, now)
	v.watch(h, now)
	v.updateIndex(now)
	return nil
}

// tickAdoptions judges the adopted workers whose deadlines have passed, and calls their roll.
func (v *View) tickAdoptions(now time.Time) {
	if v.callAdopted {
		v.callAdopted = false
		for _, h := range v.order {
			if h.adoption != nil {
				h.adoption.calls, h.adoption.callAt = 0, now
				v.watch(h, now)
			}
		}
	}
	for h := range v.adoptionsDue.Due(now) {
		a := h.adoption
		if !a.callAt.IsZero() && !a.callAt.After(now) {
			v.call(h, now)
		}
		n := a.reg.Len()
		if v.apart.since.IsZero() {
			a.reg.Detect(now)
		} else {
			a.reg.DetectClosed(now)
		}
		if a.reg.TakeAsk() && a.spread <= adoptedAskMost { // some may have reconnected and not been heard
			v.ready.Calls = append(v.ready.Calls, RollCall{h.id, true, a.spread})
		}
		v.applySteps(h, now)
		if a.reg.Len() != n { // some were gone for long enough
			for id, c := range a.workers {
				if _, ok := a.reg.Record(now, id); !ok {
					v.release(h, id, c)
					if w := h.workers[id]; w != nil {
						v.remove(h, w)
					}
				}
			}
		}
		v.watch(h, now)
	}
}

// call calls the roll of h if a worker has not answered.
func (v *View) call(h *Hive, now time.Time) {
	a := h.adoption
	a.callAt = time.Time{}
	missing := a.calls == 0 // there may be workers that this queen does not know
	for _, c := range a.workers {
		missing = missing || !c.answered
	}
	if !missing {
		return
	}
	v.ready.Calls = append(v.ready.Calls, RollCall{h.id, true, a.spread})
	if a.calls++; a.calls < rollCalls {
		a.callAt = now.Add(a.spread + rollAgain)
	}
}

// applySteps takes over the transitions that the detector found for adopted workers of h.
func (v *View) applySteps(h *Hive, now time.Time) {
	a := h.adoption
	a.reg.TakeClosed() // no adopted worker is ever picked
	a.reg.TakeNotices()
	for _, s := range a.reg.TakeSteps() {
		c := a.workers[s.Worker]
		if c == nil || s.Kind == hivebeat.KindConflict {
			continue
		}
		first := !c.answered
		c.answered = true
		c.turned(&s, h.workers[s.Worker], first)
		if w := h.workers[s.Worker]; w != nil && first {
			v.index.Answered(&w.entry, now)
		}
		if s.Damped { // true, and not reported
			v.show(h, s.Worker, now)
			continue
		}
		switch {
		case s.Kind == hivebeat.KindRecovered && s.Cause == hivebeat.CauseSilent: // its hive saw its process run
			c.why = evidence{kind: s.Kind, age: hivebeat.MillisOf(s.Age), reason: "heard again: its process ran on in silence"}
		case s.Kind == hivebeat.KindRecovered && s.From == string(hivebeat.Lost):
			v.countMistake(s.Margin, s.CutOff)
			c.why = evidence{kind: s.Kind, age: hivebeat.MillisOf(s.Age), margin: new(hivebeat.MillisOf(s.Margin))}
			c.why.reason = "heard again, " + backWords(s.Margin, s.CutOff)
		case s.Kind == hivebeat.KindRecovered && first:
			// It is as its hive knew it.
		case s.Kind == hivebeat.KindLate || s.Kind == hivebeat.KindLost:
			c.why = evidence{kind: s.Kind, age: hivebeat.MillisOf(s.Age)}
			if rec, ok := a.reg.Record(now, s.Worker); ok {
				c.why.reason = silence("beat", c.why.age, rec.Every, rec.Quiet)
				switch rec.Cause {
				case hivebeat.CauseDisconnect:
					c.why.reason = s.Reason
					if s.Transition.Detect > 0 {
						c.why.detect = new(s.Transition.Detect)
					}
				case hivebeat.CauseHive:
					c.why.reason = "its hive was lost, and it did not answer for itself: " + c.why.reason
				}
			}
		default:
			c.why = evidence{kind: s.Kind, age: hivebeat.MillisOf(s.Age), reason: s.Reason}
		}
		a.differ[s.Worker] = true
		v.counts.worker(&hivebeat.EventData{Kind: s.Kind, From: s.From, Cause: s.Cause, AgeMS: c.why.age, DetectMS: c.why.detect})
		v.show(h, s.Worker, now)
		v.Compare(h)
	}
}

// show makes the record of an adopted worker say what the detector says.
func (v *View) show(h *Hive, id string, now time.Time) {
	c := h.adoption.workers[id]
	rec, ok := h.adoption.reg.Record(now, id)
	if !ok || c == nil || !c.answered {
		return
	}
	w, known := h.workers[id]
	if !known {
		if len(h.workers) >= hivebeat.MaxWorkers {
			return
		}
		w = v.add(h, id)
	}
	if w.adopted != c {
		w.adopted = c
		v.index.Adopt(&w.entry, true)
	}
	// The numbers are the hive's, which continues them when it is back.
	rec.N, rec.Tr = w.rec().N, carriedOn(w.rec().Tr, w.entry.Received(), now)
	if c.guessed {
		rec.Every = 0
	}
	rec.Proc = w.rec().Proc
	rec.Since = c.sinceAlive(rec.Live, rec.Since, now)
	v.index.Set(&w.entry, rec, now, now)
	v.change(h)
}

// carriedOn returns the transitions of a record that was received at received as they are now, without those
// that a record no longer carries.
func carriedOn(list []hivebeat.Transition, received, now time.Time) []hivebeat.Transition {
	if !now.After(received) {
		return list
	}
	var on []hivebeat.Transition
	for _, t := range list {
		if t.Ago = index.EffectiveAge(t.Ago, received, now); t.Ago <= hivebeat.MillisOf(hivebeat.TransitionsCarried) {
			on = append(on, t)
		}
	}
	return on
}

// release ends the adoption of one worker.
func (v *View) release(h *Hive, id string, c *adopted) {
	delete(h.adoption.workers, id)
	delete(h.adoption.differ, id)
	v.score.Adopted--
	if w := h.workers[id]; w != nil && w.adopted == c {
		w.adopted = nil
		v.index.Release(&w.entry)
	}
}

// creditAdopted ends the doubt about adopted workers.
func (v *View) creditAdopted(d time.Duration) {
	for _, h := range v.order {
		if h.adoption != nil {
			h.adoption.reg.Credit(d)
		}
	}
	v.adoptionsDue.Shift(d)
	v.callAdopted = len(v.adoptedHives) > 0 && d > 0
}

// seeds are the workers of h as they are known: by its last snapshot, or if there is none by the roster, which
// knows less.
func (h *Hive) seeds(now time.Time) []detector.Seed {
	var list []detector.Seed
	if h.head().Inc != 0 {
		for w := range h.inOrder() {
			r := w.rec()
			s := detector.Seed{
				Worker: r.Worker, Live: r.Live, Cause: r.Cause, Facts: r.Facts,
				Heard: w.heard(), Stalled: r.Stalled, Ended: r.Ended,
				Looping: r.Looping, Restarts: r.Restarts,
			}
			if w.prior != nil {
				s.Prior, s.PriorSeq = w.prior.inc, w.prior.seq
			}
			if s.Facts.Every == 0 { // known by the roster, and not listed since
				s.Facts.Every = hivebeat.MillisOf(hivebeat.WorkerEvery)
			}
			list = append(list, s)
		}
		return list
	}
	// The roster has no ages of workers. Deadlines count from when the entry was put, so that missing
	// knowledge hastens none.
	heard := h.roster.heard(h.every, now)
	put := h.roster.put(now)
	for id, r := range h.roster.Item.Workers {
		if !hivebeat.ValidID(id) || r.Inc == 0 {
			continue
		}
		every, quiet, _ := promise(&r)
		list = append(list, detector.Seed{
			Worker: id, Live: r.Live, Cause: r.Cause,
			Heard: heard.Add(-oldest(&r)), Until: put.Add(liveness.LostAfter(every.Duration(), quiet.Duration())),
			Facts: hivebeat.Facts{Inc: r.Inc, Seq: max(1, r.Seq), Every: every, Quiet: quiet, State: r.State, Model: r.Model},
		})
	}
	return list
}

// promiseKnown reports whether the promise of a worker that seeds has returned is known.
func (h *Hive) promiseKnown(id string) bool {
	if w := h.workers[id]; w != nil {
		return w.rec().Every > 0
	}
	return h.roster.Item.Workers[id].Every > 0
}

// turned notes since when c is alive after the step s. w is its record, or nil; first says whether s is the
// first step. A worker that its hive had as alive, and that answers, was alive all along: it is alive since
// its hive says so, not since it answered.
func (c *adopted) turned(s *detector.Step, w *Worker, first bool) {
	switch s.Kind {
	case hivebeat.KindState, hivebeat.KindStalled, hivebeat.KindLooping, hivebeat.KindConflict:
		return // no verdict
	}
	c.alive = time.Time{}
	if s.Kind == hivebeat.KindRecovered && first && w != nil && w.rec().Live == hivebeat.Alive && w.rec().Inc == s.Inc {
		c.alive = w.entry.Received().Add(-min(w.rec().Since, maxAge).Duration())
	}
}

// sinceAlive is the age of its verdict, which is since by the detector.
func (c *adopted) sinceAlive(live hivebeat.Live, since hivebeat.Millis, now time.Time) hivebeat.Millis {
	if c.alive.IsZero() || live != hivebeat.Alive {
		return since
	}
	return max(since, hivebeat.MillisOf(now.Sub(c.alive)))
}
