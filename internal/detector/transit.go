package detector

import (
	"fmt"
	"time"

	"github.com/beatfabric/hivebeat"
	"github.com/beatfabric/hivebeat/internal/liveness"
	"github.com/beatfabric/hivebeat/verdict"
)

// All transitions of a worker are in this file:
//
//	         joined                 late             lost
//	(absent) ────────▶ alive ──────────────▶ late ──────────▶ lost ──▶ (10 min: gone)
//	                   ▲ │ ▲  ◀── recovered ── │                │
//	                   │ │ └──────────────── recovered ─────────┘
//	         restarted │ │ left: from any of them
//	                   │ ▼
//	                  left ──▶ (10 min: gone)
//
// restarted also comes from any of them. A worker whose process ended becomes lost from
// alive and from late, whether this hive saw that (Registry.Exit) or its last beat says so.
// state, stalled and conflict change no verdict.

// beatStep is what transit needs to know about a beat besides the record, which already
// has its facts.
type beatStep struct {
	outcome liveness.Outcome
	state   hivebeat.State // in the previous beat
	age     time.Duration  // since the previous beat
	sent    int64          // time of the previous beat, by the worker's clock; 0: it does not say
	wentOn  bool           // seq shows that beats in between were lost, or this beat was held in transit
	work    work           // in the previous beat
	meant   bool           // the previous beat was a goodbye with a reason
}

// transit makes the transitions that an accepted beat calls for, and sets the deadline.
func (r *Registry) transit(now time.Time, w *worker, b beatStep) {
	from := w.live
	switch {
	case b.outcome == liveness.First:
		r.begin(now, w)
	case b.outcome.Begins(): // also a lower incarnation, which is another process
		r.become(now, w, hivebeat.Alive, "", hivebeat.KindRestarted, b.age)
		if !b.meant {
			r.restarted(now, w)
		}
	default:
		silent := from == hivebeat.Lost && w.cause == hivebeat.CauseSilent // its process was known to run, so it was not taken for dead
		if from == hivebeat.Lost && !silent {
			b.wentOn = b.wentOn || liveness.WasHeld(b.sent, w.facts.Sent, b.age, now.Sub(w.lostAt))
			r.score(now.Sub(w.lostAt), b.wentOn)
		}
		if w.facts.State.Goodbye() || w.facts.Exit != "" { // reported as left or lost, whatever the verdict was
			break
		}
		if from != hivebeat.Alive {
			deadline := w.since // start of late
			if from == hivebeat.Lost {
				deadline = w.lostAt
			}
			s := r.become(now, w, hivebeat.Alive, "", hivebeat.KindRecovered, b.age)
			s.Transition.Margin = roundUp(now.Sub(deadline))
			switch {
			case silent:
				s.Cause = hivebeat.CauseSilent // the cause that ended
			case from == hivebeat.Lost:
				s.Margin, s.CutOff = now.Sub(deadline), b.wentOn
			}
			r.complete(w, s)
		}
		if !b.state.SameAs(w.facts.State) {
			s := r.note(now, w, hivebeat.KindState, b.age)
			s.From, s.To = string(b.state), string(w.facts.State)
			r.keep(w)
		}
	}
	switch {
	case w.facts.Exit != "":
		r.exited(now, w, b)
	case w.facts.State.Goodbye():
		w.lineage.End()
		r.stats.WireLost = add(r.stats.WireLost, w.lineage.TakeLost())
		r.become(now, w, hivebeat.Left, hivebeat.CauseGoodbye, hivebeat.KindLeft, b.age)
		r.deadlines.Set(w, now.Add(hivebeat.KeepGone))
	default:
		r.deadlines.Set(w, w.heard.Add(verdict.LateAfter(w.facts.Every.Duration(), w.facts.Quiet.Duration())))
	}
}

// Detect makes the transitions that are due to silence, and removes records that have
// been lost or left for KeepGone. It costs nothing for workers whose deadline has not
// passed.
func (r *Registry) Detect(now time.Time) {
	r.DetectClosed(now)
	for w := range r.calms.Due(now) {
		r.calm(now, w)
	}
	for w, at := range r.deadlines.Due(now) {
		every, quiet := w.facts.Every.Duration(), w.facts.Quiet.Duration()
		switch w.live {
		case hivebeat.Alive:
			r.become(now, w, hivebeat.Late, hivebeat.CauseMissed, hivebeat.KindLate, now.Sub(w.heard))
			// Counted from the deadline that passed, which includes the credit for blind
			// time.
			r.deadlines.Set(w, at.Add(verdict.LostAfter(every, quiet)-verdict.LateAfter(every, quiet)))
		case hivebeat.Late:
			w.lostAt = at
			cause := hivebeat.CauseMissed
			switch {
			case w.cause == hivebeat.CauseHive: // a Seed that was never heard here
				cause = hivebeat.CauseHive
			case w.process.PID != 0: // its exit would have been reported
				cause = hivebeat.CauseSilent
			}
			s := r.become(now, w, hivebeat.Lost, cause, hivebeat.KindLost, now.Sub(w.heard))
			if cause == hivebeat.CauseSilent {
				s.Reason = fmt.Sprintf("process %d runs, no beat for %.1fs", w.process.PID, now.Sub(w.heard).Seconds())
				r.complete(w, s)
			}
			r.deadlines.Set(w, now.Add(hivebeat.KeepGone))
		default:
			r.depart(now, w)
		}
	}
}

// Next returns a time before which Detect has nothing to do.
func (r *Registry) Next() (time.Time, bool) {
	next, ok := r.deadlines.Next()
	if at, on := r.calms.Next(); on && (!ok || at.Before(next)) {
		next, ok = at, true
	}
	return r.closings.Next(next, ok)
}

// conflict reports that two incarnations of w both advance. The verdict on the valid
// one stands.
func (r *Registry) conflict(now time.Time, w *worker, inc, seq uint64) {
	w.rival = rival{inc: inc, seq: seq, at: now, told: now}
	r.notices = append(r.notices, hivebeat.Notice{ID: w.id, Inc: inc, Believed: w.facts.Inc})
	believed, refused := w.places()
	s := r.note(now, w, hivebeat.KindConflict, now.Sub(w.heard))
	s.Inc, s.Seq, s.Reason = inc, seq, liveness.ConflictReason("worker", r.hive+"/"+w.id, believed, refused)
	r.keep(w)
	r.locate(w)
}

// rival is the refused process of a conflict.
type rival struct {
	inc, seq uint64
	at       time.Time // when it last advanced
	told     time.Time // when its last notice was sent
}

// refused records that a message of w was refused. It may be one of the rival.
func (r *Registry) refused(now time.Time, w *worker, inc, seq uint64) {
	v := &w.rival
	if v.inc == 0 || v.inc != inc || seq <= v.seq {
		return
	}
	v.seq, v.at = seq, now
	if now.Sub(v.told) >= liveness.NoticeEvery {
		v.told = now
		r.notices = append(r.notices, hivebeat.Notice{ID: w.id, Inc: inc, Believed: w.facts.Inc})
	}
}

// TakeNotices returns the notices for refused workers since the last call.
func (r *Registry) TakeNotices() []hivebeat.Notice {
	n := r.notices
	r.notices = nil
	return n
}

// now returns the rival's incarnation, or 0 if the rival has been silent for longer
// than w may be.
func (v *rival) now(now time.Time, f *hivebeat.Facts) uint64 {
	if v.inc == 0 || now.Sub(v.at) > verdict.LostAfter(f.Every.Duration(), f.Quiet.Duration()) {
		return 0
	}
	return v.inc
}

// become changes the verdict on w. The caller may complete the step.
func (r *Registry) become(now time.Time, w *worker, live hivebeat.Live, cause hivebeat.Cause, kind hivebeat.Kind, age time.Duration) *Step {
	s := r.note(now, w, kind, age)
	s.From, s.To, s.Cause = string(w.live), string(live), cause
	if w.live, w.cause, w.since = live, cause, now; !s.Damped {
		w.told = live
	}
	if !w.counted() {
		r.closings.Close(w)
	}
	switch live {
	case hivebeat.Lost:
		r.lost[cause]++
		w.progress.stalled = false // the work that stalled is over
	case hivebeat.Left:
		w.progress.stalled = false
	}
	r.keep(w)
	return s
}

// note makes a transition of w, and numbers it unless it is damped (damp.go). Call keep
// once all of its wire fields are set.
func (r *Registry) note(now time.Time, w *worker, kind hivebeat.Kind, age time.Duration) *Step {
	s := r.step(now, w, kind, age)
	if s.Damped = r.damps(now, w, kind); s.Damped {
		return s
	}
	return r.number(w, s)
}

// step makes a transition of w without a number.
func (r *Registry) step(now time.Time, w *worker, kind hivebeat.Kind, age time.Duration) *Step {
	r.steps = append(r.steps, Step{
		Transition: hivebeat.Transition{Kind: kind, Inc: w.facts.Inc},
		At:         now, Worker: w.id, Model: w.facts.Model, Reason: w.facts.Reason, Seq: w.facts.Seq, Age: age,
	})
	return &r.steps[len(r.steps)-1]
}

// number gives s the next number, after using up the numbers of the omitted
// transitions.
func (r *Registry) number(w *worker, s *Step) *Step {
	w.n += 1 + w.owed
	w.owed = 0
	s.N = w.n
	return s
}

// keep adds the newest transition to the record of w, which carries only the last few.
func (r *Registry) keep(w *worker) {
	if r.steps[len(r.steps)-1].Damped {
		return
	}
	if len(w.tr) == hivebeat.MaxTransitions {
		copy(w.tr, w.tr[1:])
		w.tr = w.tr[:len(w.tr)-1]
	}
	w.tr = append(w.tr, r.steps[len(r.steps)-1])
}

// complete updates the newest transition in the record of w to s.
func (r *Registry) complete(w *worker, s *Step) {
	if !s.Damped {
		w.tr[len(w.tr)-1] = *s
	}
}

// sawEnd records that the end of w, which s reports, was observed d ago.
func (r *Registry) sawEnd(w *worker, s *Step, d time.Duration) {
	s.Detect = d
	s.Transition.Detect = roundUp(d)
	r.complete(w, s)
}

// roundUp returns d in ms, and at least 1, as 0 means unknown on the wire.
func roundUp(d time.Duration) hivebeat.Millis {
	return max(1, hivebeat.MillisOf(d+time.Millisecond-1))
}
