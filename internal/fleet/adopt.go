package fleet

import (
	"time"

	"github.com/beatfabric/hivebeat"
	"github.com/beatfabric/hivebeat/internal/detector"
	"github.com/beatfabric/hivebeat/internal/ledger"
)

// A hive that dies does not take its workers along. When it is lost its workers
// become wards of the queen, which hears their beats and judges them as the hive
// did, by the same detector:
//
//	hive lost ──▶ ward, shown late ── answers or beats ──▶ alive, via queen
//	                   │    ◀──────────── late, recovered … ──┘
//	                   └── its own deadline passes ──▶ lost, cause hive
//
//	hive back ──▶ listed in its snapshot, or not in a warm complete one: the hive's again
//
// That a ward is late since nobody asked it yet is no transition. What is one is
// the difference between the roster and this view, as for hives (announce.go): so
// it is told once by any number of queens, and a worker that was alive all along
// makes no event.

const (
	// adoptGrace is for a worker to answer: so long after its hive was lost none is
	// lost, whatever its own deadline. The roll is called several times meanwhile, so
	// that no one lost message kills.
	adoptGrace = 5 * time.Second
	rollCalls  = 3
	rollAgain  = 1500 * time.Millisecond
	// spreadPerWorker keeps the answers of a mass of workers from storming.
	spreadPerWorker = 500 * time.Microsecond
	// maxAdopted bounds the hives whose workers are wards, and so the subscriptions:
	// of hives that are lost beyond that the workers stay late.
	maxAdopted = 10_000
	// wardAskMost is the spread with which answers still come before a window ends.
	wardAskMost = time.Second
)

// adoption is what a view knows of the workers of a hive that was lost.
type adoption struct {
	reg    *detector.Registry
	wards  map[string]*ward
	differ map[string]bool // those to be compared with the roster
	calls  int             // of the roll, so far
	callAt time.Time       // the next one; zero: none
	spread time.Duration
}

// ward is a worker that the queen judges.
type ward struct {
	base     ledger.RosterWorker // as its hive had it, where listed
	listed   bool
	answered bool      // it was heard by somebody since, or judged
	guessed  bool      // its promise is not known: the default one counts
	alive    time.Time // since when, where its hive said so and it went on; else zero
	why      evidence
}

// Adopted reports whether beats for this hive are to be given to Beat.
func (v *View) Adopted(id string) bool {
	h := v.hives[id]
	return h != nil && h.adopted != nil
}

// Adoptions returns of how many hives the workers are wards now, how many workers
// that is, and how many of their beats were heard so far.
func (v *View) Adoptions() (hives, workers int, beats uint64) { return v.adopted, v.wards, v.wardBeats }

// takeIn makes wards of the workers of h, which was lost.
func (v *View) takeIn(h *Hive, now time.Time) {
	seeds := h.seeds(now)
	if h.adopted == nil {
		if v.adopted >= maxAdopted {
			v.unadopted++
			return
		}
		v.adopted++
		v.adoptedHives[h] = struct{}{}
		h.adopted = &adoption{reg: detector.New(h.id), wards: make(map[string]*ward), differ: make(map[string]bool)}
		h.adopted.reg.SetOwn(v.own)
		h.adopted.reg.Doubt(v.doubt)
		v.ready.Adoptions = append(v.ready.Adoptions, h.id)
		// What the records say is not what the last snapshot said any more.
		v.memos -= h.memo.size
		h.memo = memo{}
	}
	a := h.adopted
	a.spread = max(hivebeat.WorkerRollSpread, spreadPerWorker*time.Duration(v.wards+len(seeds)))
	for _, s := range seeds {
		if a.wards[s.Worker] != nil {
			continue // since a time before
		}
		s.Until = latest(s.Until, now.Add(adoptGrace+a.spread))
		a.reg.Seed(now, s)
		c := &ward{listed: true, base: rosterWorker(&s.Facts, s.Live, s.Cause)}
		if !h.promiseKnown(s.Worker) {
			c.guessed, c.base.Every = true, 0
		}
		c.answered = isGone(s.Live)
		a.wards[s.Worker] = c
		v.wards++
		if w := h.workers[s.Worker]; w != nil {
			if w.via != hivebeat.ViaQueen && w.shown.tally != nil {
				v.touchWorker(w, true)
			}
			w.ward, w.via = c, hivebeat.ViaQueen
		}
	}
	a.calls = 0
	v.call(h, now)
	v.watch(h, now)
}

// watch sets when the wards of h are looked after next.
func (v *View) watch(h *Hive, now time.Time) {
	a := h.adopted
	next, ok := a.reg.Next()
	if !a.callAt.IsZero() && (!ok || a.callAt.Before(next)) {
		next, ok = a.callAt, true
	}
	if !ok {
		v.wardsDue.Remove(h)
		return
	}
	again := time.Millisecond
	if !v.apart.since.IsZero() { // what is due by silence waits
		again = assessEvery
	}
	v.wardsDue.Set(h, latest(next, now.Add(again)))
}

// Beat takes a beat for a hive whose workers are wards. worker is the id in the
// subject, or empty. It returns a *hivebeat.Refusal where the message is no news.
func (v *View) Beat(hive, worker string, b []byte, now time.Time) error {
	h := v.hives[hive]
	if h == nil || h.adopted == nil {
		return nil // one that was on its way when they went back
	}
	a := h.adopted
	got, err := a.reg.Receive(now, b, worker)
	if err != nil {
		v.refused[hivebeat.ReasonOf(err)]++
		a.reg.TakeSteps() // a conflict, which the hive tells once it is back, to the refused one too
		a.reg.TakeNotices()
		return err
	}
	if a.wards[got.Worker] == nil {
		if h.live != hivebeat.Lost { // the hive judges it again, or will
			a.reg.Drop(now, got.Worker)
			a.reg.TakeSteps()
			return nil
		}
		a.wards[got.Worker] = &ward{}
		v.wards++
	}
	v.wardBeats++
	a.wards[got.Worker].guessed = false
	v.wardSteps(h, now)
	v.show(h, got.Worker, now)
	v.watch(h, now)
	return nil
}

// tickWards judges the wards whose deadlines have passed, and calls the roll.
func (v *View) tickWards(now time.Time) {
	if v.callWards {
		v.callWards = false
		for _, h := range v.order {
			if h.adopted != nil {
				h.adopted.calls, h.adopted.callAt = 0, now
				v.watch(h, now)
			}
		}
	}
	for h := range v.wardsDue.Due(now) {
		a := h.adopted
		if !a.callAt.IsZero() && !a.callAt.After(now) {
			v.call(h, now)
		}
		n := a.reg.Len()
		if v.apart.since.IsZero() {
			a.reg.Detect(now)
		} else {
			a.reg.DetectClosed(now)
		}
		if a.reg.TakeAsk() && a.spread <= wardAskMost { // some may have come back unheard
			v.ready.Calls = append(v.ready.Calls, RollCall{h.id, true, a.spread})
		}
		v.wardSteps(h, now)
		if a.reg.Len() != n { // gone for long enough
			for id, c := range a.wards {
				if _, ok := a.reg.Record(now, id); !ok {
					v.unward(h, id, c)
					if w := h.workers[id]; w != nil {
						v.remove(h, w)
					}
				}
			}
		}
		v.watch(h, now)
	}
}

// call calls the roll of h, where somebody has not answered.
func (v *View) call(h *Hive, now time.Time) {
	a := h.adopted
	a.callAt = time.Time{}
	missing := a.calls == 0 // there may be some that nobody knows
	for _, c := range a.wards {
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

// wardSteps takes over what the detector found out about wards of h.
func (v *View) wardSteps(h *Hive, now time.Time) {
	a := h.adopted
	a.reg.TakeClosed() // no ward is ever picked
	a.reg.TakeNotices()
	for _, s := range a.reg.TakeSteps() {
		c := a.wards[s.Worker]
		if c == nil || s.Kind == hivebeat.KindConflict {
			continue
		}
		first := !c.answered
		c.answered = true
		c.turned(&s, h.workers[s.Worker], first)
		if w := h.workers[s.Worker]; w != nil && first {
			v.reshow(h, w, false, now)
		}
		if s.Damped { // true, and not told
			v.show(h, s.Worker, now)
			continue
		}
		switch {
		case s.Kind == hivebeat.KindRecovered && s.Cause == hivebeat.CauseSilent: // its hive saw its process run
			c.why = evidence{kind: s.Kind, age: hivebeat.MillisOf(s.Age), reason: "heard again: its process ran on in silence"}
		case s.Kind == hivebeat.KindRecovered && s.From == string(hivebeat.Lost):
			v.score.back(s.Margin, s.CutOff)
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
		v.tally.worker(&hivebeat.EventData{Kind: s.Kind, From: s.From, Cause: s.Cause, AgeMS: c.why.age, DetectMS: c.why.detect})
		v.show(h, s.Worker, now)
		v.Compare(h)
	}
}

// show makes the record of a ward say what the detector does.
func (v *View) show(h *Hive, id string, now time.Time) {
	c := h.adopted.wards[id]
	rec, ok := h.adopted.reg.Record(now, id)
	if !ok || c == nil || !c.answered {
		return
	}
	w, known := h.workers[id]
	if !known {
		if len(h.workers) >= hivebeat.MaxWorkers {
			return
		}
		w = &Worker{hive: h}
		h.workers[id] = w
		h.sorted = nil
	}
	was := w.stable()
	// The numbers are the hive's, and go on when it is back.
	rec.N, rec.Tr = w.rec.N, carriedOn(w.rec.Tr, w.received, now)
	if c.guessed {
		rec.Every = 0
	}
	rec.Proc = w.rec.Proc
	rec.Since = c.sinceAlive(rec.Live, rec.Since, now)
	w.rec, w.received, w.via, w.ward = rec, now, hivebeat.ViaQueen, c
	v.reshow(h, w, w.stable() != was, now)
	if at := v.tooOldAt(now, rec.Age); rec.Age <= hivebeat.MillisOf(v.fresh) {
		if before, ok := v.ageing.At(h); !ok || at.Before(before) {
			v.ageing.Set(h, at)
		}
	}
	if h.recount {
		v.resum(h, noNews, now)
	}
}

// carriedOn returns the transitions of a record that was received then as they are
// now, without those that a record does not carry any more.
func carriedOn(list []hivebeat.Transition, received, now time.Time) []hivebeat.Transition {
	if !now.After(received) {
		return list
	}
	var on []hivebeat.Transition
	for _, t := range list {
		if t.Ago = EffectiveAge(t.Ago, received, now); t.Ago <= hivebeat.MillisOf(hivebeat.TransitionsCarried) {
			on = append(on, t)
		}
	}
	return on
}

// unward ends the wardship of one worker.
func (v *View) unward(h *Hive, id string, c *ward) {
	delete(h.adopted.wards, id)
	delete(h.adopted.differ, id)
	v.wards--
	if w := h.workers[id]; w != nil && w.ward == c {
		w.ward = nil
	}
}

// creditWards ends the doubt about wards.
func (v *View) creditWards(d time.Duration) {
	for _, h := range v.order {
		if h.adopted != nil {
			h.adopted.reg.Credit(d)
		}
	}
	v.wardsDue.Shift(d)
	v.callWards = v.adopted > 0 && d > 0
}
