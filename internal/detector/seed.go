package detector

import (
	"time"

	"github.com/beatfabric/hivebeat"
	"github.com/beatfabric/hivebeat/internal/wire"
	"github.com/beatfabric/hivebeat/verdict"
)

// Seed is what another observer knew about a worker that the registry takes over.
type Seed struct {
	Worker string
	Live   hivebeat.Live
	Cause  hivebeat.Cause
	Facts  hivebeat.Facts
	Heard  time.Time // when the last beat was received
	Until  time.Time // it is not lost before, as it must be asked first
	Since  time.Time // of lost and left workers: start of the verdict; zero: now

	// The incarnation that this one replaced, and its last seq, if known. A message of
	// that incarnation that is still in flight, or replayed, does not bring it back.
	Prior, PriorSeq uint64

	Stalled  bool // its work is stalled until it advances
	Looping  bool // it loops until it is calm
	Restarts uint64
	// Ended is when its process ended, as its record says. With cause exit or oom the
	// process has ended even if Ended is 0.
	Ended uint64
}

// Seed takes over a worker. A worker that is neither lost nor left becomes late, cause
// hive, until it is heard. If it is not heard by its own deadline, it becomes lost,
// cause hive. Seed itself makes no step. A known worker stays as it is.
func (r *Registry) Seed(now time.Time, s Seed) {
	if r.workers[s.Worker] != nil || len(r.workers) >= hivebeat.MaxWorkers {
		return
	}
	w := r.add(s.Worker)
	w.facts, w.heard, w.early, w.since = s.Facts, s.Heard, true, now
	r.closings.Move(w, "", w.facts.Conn)
	w.conn = w.facts.Conn
	if s.Prior != 0 {
		w.lineage.Hear(s.Prior, s.PriorSeq, false)
	}
	w.lineage.Take(s.Facts.Inc, s.Facts.Seq)
	w.learned = s.Facts.Seq
	w.live, w.cause = s.Live, s.Cause
	from := now
	if !s.Since.IsZero() {
		w.since, from = s.Since, s.Since // no restart was later
	}
	r.loopsOn(now, from, w, s.Restarts, s.Looping)
	if s.Ended > 0 || s.Live == hivebeat.Lost && (s.Cause == hivebeat.CauseExit || s.Cause == hivebeat.CauseOOM) {
		w.ended(end{Process: Process{s.Worker, s.Facts.Inc, s.Facts.PID}, boot: s.Ended, ns: s.Facts.NS})
	}
	w.progress.at, w.progress.stalled = now, s.Stalled
	switch s.Live {
	case hivebeat.Left:
		w.lineage.End()
		r.deadlines.Set(w, w.since.Add(hivebeat.KeepGone))
	case hivebeat.Lost:
		w.lostAt = w.since
		r.deadlines.Set(w, w.since.Add(hivebeat.KeepGone))
	default:
		w.live, w.cause = hivebeat.Late, hivebeat.CauseHive
		// Credit later moves this deadline by the whole doubt. That is right if the
		// worker was last heard before the doubt. A deadline that counts from a later
		// time, or from now, is set as if the doubt began now.
		doubted := time.Duration(0)
		if !r.doubt.IsZero() {
			doubted = max(0, now.Sub(r.doubt))
		}
		at, until := s.Heard.Add(verdict.LostAfter(s.Facts.Every.Duration(), s.Facts.Quiet.Duration())), s.Until.Add(-doubted)
		if s.Heard.After(r.doubt) {
			at = at.Add(-doubted)
		}
		if at.Before(until) {
			at = until
		}
		r.deadlines.Set(w, at)
	}
	w.told = w.live
}

// Elsewhere records that another observer heard a worker at an unknown time, with the
// Inc and Seq of f and, where known, its Every and Quiet. The worker counts as heard
// now, except for its other facts and its age. Elsewhere reports whether that was new.
func (r *Registry) Elsewhere(now time.Time, id string, f hivebeat.Facts) bool {
	inc, seq := f.Inc, f.Seq
	w := r.workers[id]
	if w == nil || inc == 0 || seq == 0 || inc == w.facts.Inc && seq <= w.lineage.Seq() || w.spent.before(inc, 0, "") {
		return false
	}
	step, err := r.judge(now, w, inc, &wire.Volatile{Seq: seq}, w.facts.Every, false)
	if err != nil {
		return false
	}
	w.memo.Forget()
	if step.outcome.Begins() {
		// These are of the previous incarnation; the work of this one is unknown.
		w.facts.Conn, w.facts.PID, w.facts.Exit = "", 0, ""
		w.facts.Busy, w.facts.Queue, w.facts.Done, w.facts.Tokens = 0, 0, 0, 0
	}
	w.facts.Inc, w.facts.Seq, w.learned = inc, seq, seq
	if f.Every > 0 {
		w.facts.Every, w.facts.Quiet = f.Every, f.Quiet
	}
	if w.facts.State.Goodbye() {
		w.facts.State = hivebeat.Starting // the goodbye was the previous incarnation's
	}
	was, work := w.heard, w.progress
	r.take(now, w, Heard{}, step)
	if w.progress = work; step.outcome.Begins() { // otherwise only beats received here decide
		w.progress.at, w.progress.stalled = now, false
	}
	// The deadline counts from now, the age does not: no age is shown younger than it
	// is.
	w.heard, w.early = was, true
	return true
}

// Drop forgets a worker that is judged elsewhere from now on.
func (r *Registry) Drop(now time.Time, id string) {
	if w := r.workers[id]; w != nil {
		r.remove(now, w)
	}
}

// Record returns the record of one worker, without its transitions.
func (r *Registry) Record(now time.Time, id string) (hivebeat.Record, bool) {
	w := r.workers[id]
	if w == nil {
		return hivebeat.Record{}, false
	}
	return r.record(now, w, nil), true
}
