package fleet

import (
	"time"

	"github.com/beatfabric/hivebeat"
	"github.com/beatfabric/hivebeat/internal/detector"
	"github.com/beatfabric/hivebeat/internal/ledger"
	"github.com/beatfabric/hivebeat/verdict"
)

// Adoption: if a hive dies, its workers may live. When a hive is lost, the queen adopts its workers. It
// receives their beats and judges them as the hive did, with the same detector:
//
//	hive lost ──▶ adopted, shown late ── answers or beats ──▶ alive, via queen
//	                   │    ◀──────────── late, recovered … ──┘
//	                   └── its own deadline passes ──▶ lost, cause hive
//
//	hive back ──▶ listed in its snapshot, or not in a warm complete one: the hive's again
//
// An adopted worker is shown late until a queen has asked it; that is no transition. As for hives
// (announce.go), an event is a difference between the roster and this view. So any number of queens announce
// it once, and a worker that was alive all along makes no event.

const (
	// adoptGrace is the time that a worker has to answer: for this time after its hive was lost, no worker
	// is lost, whatever its own deadline. The roll is called several times meanwhile, so that one lost
	// message makes no worker lost.
	adoptGrace = 5 * time.Second
	rollCalls  = 3
	rollAgain  = 1500 * time.Millisecond
	// spreadPerWorker keeps the answers of very many workers from storming.
	spreadPerWorker = 500 * time.Microsecond
	// maxAdopted bounds the hives whose workers are adopted, and so the subscriptions. The workers of
	// other lost hives stay late.
	maxAdopted = 10_000
	// adoptedAskMost is the largest spread at which answers still arrive before a window ends.
	adoptedAskMost = time.Second
)

// adoption is the state of the adopted workers of one lost hive.
type adoption struct {
	reg     *detector.Registry
	workers map[string]*adopted
	differ  map[string]bool // workers to compare with the roster
	calls   int             // roll calls so far
	callAt  time.Time       // the next roll call; zero: none
	spread  time.Duration
}

// adopted is a worker that the queen judges.
type adopted struct {
	base     ledger.RosterWorker // its state before the adoption, if listed
	listed   bool                // its hive or the roster knew it
	answered bool                // a queen has heard or judged it since
	guessed  bool                // its promise is not known, and the default one counts
	alive    time.Time           // since when it is alive, if its hive said so and it still is; else zero
	why      evidence
}

// Adopted reports whether Beat wants the beats for this hive.
func (v *View) Adopted(id string) bool {
	h := v.hives[id]
	return h != nil && h.adoption != nil
}

// Adoptions returns how many hives have adopted workers now, how many adopted workers there are, and how many
// beats of adopted workers were heard so far.
func (v *View) Adoptions() (hives, workers int, beats uint64) {
	return len(v.adoptedHives), v.score.Adopted, v.adoptedBeats
}

// adopt adopts the workers of h, which is lost.
func (v *View) adopt(h *Hive, now time.Time) {
	if h.head().Inc == 0 { // only the roster knows them
		v.recallWorkers(h, now)
	}
	if h.adoption == nil {
		if len(v.adoptedHives) >= maxAdopted {
			return
		}
		v.adoptedHives[h] = struct{}{}
		h.adoption = &adoption{reg: detector.New(h.id), workers: make(map[string]*adopted), differ: make(map[string]bool)}
		h.adoption.reg.SetOwn(v.own)
		h.adoption.reg.Doubt(v.doubt)
		v.ready.Adoptions = append(v.ready.Adoptions, h.id)
		// The records will no longer be those of the last snapshot.
		v.memos -= h.memo.size
		h.memo = memo{}
	}
	a := h.adoption
	a.spread = max(hivebeat.WorkerRollSpread, spreadPerWorker*time.Duration(v.score.Adopted+len(h.workers)))
	for w := range h.inOrder() {
		id := w.rec().Worker
		if a.workers[id] != nil {
			continue // it is adopted already
		}
		s := h.seed(w, now)
		s.Until = latest(s.Until, now.Add(adoptGrace+a.spread))
		a.reg.Seed(now, s)
		c := &adopted{listed: true, base: rosterWorker(&s.Facts, s.Live, s.Cause), answered: isGone(s.Live)}
		if w.rec().Every == 0 {
			c.guessed, c.base.Every = true, 0
		}
		a.workers[id] = c
		v.score.Adopted++
		w.adopted = c
		v.index.Adopt(&w.entry, c.answered)
	}
	a.calls = 0
	v.call(h, now)
	v.watch(h, now)
}

// watch sets when tickAdoptions looks at the adopted workers of h next.
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
	if !v.apart.since.IsZero() { // verdicts by silence wait
		again = assessEvery
	}
	v.adoptionsDue.Set(h, latest(next, now.Add(again)))
}

// Beat applies a beat to a hive whose workers are adopted. worker is the id in the subject, or empty. For an
// old or invalid message it returns a *hivebeat.Refusal. A beat for another hive changes nothing.
func (v *View) Beat(hive, worker string, b []byte, now time.Time) error {
	h := v.hives[hive]
	if h == nil || h.adoption == nil {
		return nil // it was in transit when the hive came back
	}
	a := h.adoption
	got, err := a.reg.Receive(now, b, worker)
	if err != nil {
		v.refused[hivebeat.ReasonOf(err)]++
		a.reg.TakeSteps() // a conflict: the hive reports it once it is back, to the refused worker too
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

// tickAdoptions judges the adopted workers whose deadlines have passed, and calls the roll of hives where a
// call is due.
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
		if a.reg.TakeAsk() && a.spread <= adoptedAskMost { // workers whose connection closed may have reconnected unheard
			v.ready.Calls = append(v.ready.Calls, RollCall{h.id, true, a.spread})
		}
		v.applySteps(h, now)
		if a.reg.Len() != n { // the registry dropped workers that are gone
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

// call calls the roll of the workers of h: always the first time, and later if a worker has not answered.
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

// applySteps applies the transitions that the detector found for adopted workers of h.
func (v *View) applySteps(h *Hive, now time.Time) {
	a := h.adoption
	a.reg.TakeClosed() // adopted workers are never picked
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
		if s.Damped { // it is shown, but not reported
			v.show(h, s.Worker, now)
			continue
		}
		switch {
		case s.Kind == hivebeat.KindRecovered && s.Cause == hivebeat.CauseSilent: // its hive had seen its process run
			c.why = evidence{kind: s.Kind, age: hivebeat.MillisOf(s.Age), reason: "heard again: its process kept running in silence"}
		case s.Kind == hivebeat.KindRecovered && s.From == string(hivebeat.Lost):
			v.countMistake(s.Margin, s.CutOff)
			c.why = evidence{kind: s.Kind, age: hivebeat.MillisOf(s.Age), margin: new(hivebeat.MillisOf(s.Margin))}
			c.why.reason = "heard again, " + backWords(s.Margin, s.CutOff)
		case s.Kind == hivebeat.KindRecovered && first:
			// It is in the state that its hive knew.
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
					c.why.reason = "its hive was lost, and it did not answer: " + c.why.reason
				}
			}
		default:
			c.why = evidence{kind: s.Kind, age: hivebeat.MillisOf(s.Age), reason: s.Reason}
		}
		a.differ[s.Worker] = true
		if !h.uncounted(s.Worker, s.Kind) {
			v.counts.worker(&hivebeat.EventData{Kind: s.Kind, From: s.From, Cause: s.Cause, AgeMS: c.why.age, DetectMS: c.why.detect})
		}
		v.show(h, s.Worker, now)
		v.Compare(h)
	}
}

// show copies the state of an adopted worker from the detector into its record.
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
	// The hive numbers the transitions, and continues when it is back.
	rec.N = w.rec().N
	if c.guessed {
		rec.Every = 0
	}
	rec.Proc = w.rec().Proc
	rec.Since = c.sinceAlive(rec.Live, rec.Since, now)
	v.index.Set(&w.entry, rec, now, now)
	v.change(h)
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

// creditAdopted ends the doubt for adopted workers, and adds d to their deadlines.
func (v *View) creditAdopted(d time.Duration) {
	for _, h := range v.order {
		if h.adoption != nil {
			h.adoption.reg.Credit(d)
		}
	}
	v.adoptionsDue.Shift(d)
	v.callAdopted = len(v.adoptedHives) > 0 && d > 0
}

// seed returns what the detector needs to judge w: its last record, from its hive or from the roster, which knows
// less.
func (h *Hive) seed(w *Worker, now time.Time) detector.Seed {
	r := w.rec()
	s := detector.Seed{
		Worker: r.Worker, Live: r.Live, Cause: r.Cause, Facts: r.Facts,
		Heard: w.heard(), Stalled: r.Stalled, Ended: r.Ended,
		Looping: r.Looping, Restarts: r.Restarts,
	}
	if w.own.inc == r.Inc { // its hive may have heard less; a replay of that is no news
		s.Facts.Seq = max(s.Facts.Seq, w.own.seq)
	}
	if w.prior != nil {
		s.Prior, s.PriorSeq = w.prior.inc, w.prior.seq
	}
	if s.Facts.Every == 0 { // known from the roster, and not listed since
		s.Facts.Every = hivebeat.MillisOf(hivebeat.WorkerEvery)
	}
	if h.head().Inc == 0 { // the roster does not say when it was heard, but that was before the entry was put
		s.Until = h.roster.put(now).Add(verdict.LostAfter(s.Facts.Every.Duration(), s.Facts.Quiet.Duration()))
	}
	return s
}

// turned records since when c is alive after the step s. w is its worker, or nil; first says whether s is the
// first step. A worker that was alive by its hive, and that answers, was alive all along: its time counts from
// the verdict of its hive, not from the answer.
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

// sinceAlive returns the age of the verdict on c. since is that age by the detector.
func (c *adopted) sinceAlive(live hivebeat.Live, since hivebeat.Millis, now time.Time) hivebeat.Millis {
	if c.alive.IsZero() || live != hivebeat.Alive {
		return since
	}
	return max(since, hivebeat.MillisOf(now.Sub(c.alive)))
}
