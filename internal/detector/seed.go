package detector

import (
	"time"

	"github.com/beatfabric/hivebeat"
	"github.com/beatfabric/hivebeat/internal/liveness"
	"github.com/beatfabric/hivebeat/internal/wire"
)

// Seed is what somebody else knew of a worker, whose place the registry takes.
type Seed struct {
	Worker string
	Live   hivebeat.Live
	Cause  hivebeat.Cause
	Facts  hivebeat.Facts
	Heard  time.Time // when it was heard last
	Until  time.Time // it is not lost before: it has to be asked first
	Since  time.Time // of one that is lost or left: since when; zero: now

	// The incarnation whose place this one took, and its last seq, if that is known: a
	// message of it that is on its way still, or again, brings nobody back.
	Prior, PriorSeq uint64

	Stalled  bool // its work was, and is until it goes on
	Looping  bool // it did, and does until it was calm
	Restarts uint64
	// Ended is when its process ended, as a record says it. Where Cause is exit it has,
	// even if that is not known.
	Ended uint64
}

// Seed takes a worker over. One that was not given up is late, cause hive, until
// it is heard; unless it is, it is lost, cause hive, at its own deadline. That
// makes no step. A worker that is known already stays as it is.
func (r *Registry) Seed(now time.Time, s Seed) {
	if r.workers[s.Worker] != nil || len(r.workers) >= hivebeat.MaxWorkers {
		return
	}
	w := r.add(s.Worker)
	w.facts, w.heard, w.since = s.Facts, s.Heard, now
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
		w.since, from = s.Since, s.Since // none began later
	}
	r.loopsOn(now, from, w, s.Restarts, s.Looping)
	if s.Ended > 0 || s.Live == hivebeat.Lost && s.Cause == hivebeat.CauseExit {
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
		// Credit is for what was heard before the doubt: what counts from a time since,
		// or from now, is set as if that began now.
		doubted := time.Duration(0)
		if !r.doubt.IsZero() {
			doubted = max(0, now.Sub(r.doubt))
		}
		at, until := s.Heard.Add(liveness.LostAfter(s.Facts.Every.Duration(), s.Facts.Quiet.Duration())), s.Until.Add(-doubted)
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

// Elsewhere notes that somebody else heard this of a worker, nobody knows when: Inc,
// Seq, and where known Every and Quiet of f. It is then as if it was heard now, but
// for its other facts and its age. It reports whether that was news.
func (r *Registry) Elsewhere(now time.Time, id string, f hivebeat.Facts) bool {
	inc, seq := f.Inc, f.Seq
	w := r.workers[id]
	if w == nil || inc == 0 || seq == 0 || inc == w.facts.Inc && seq <= w.lineage.Seq() || w.spent.before(inc, 0, "") {
		return false
	}
	step, err := r.judge(now, w, inc, &wire.Volatile{Seq: seq}, w.facts.Every)
	if err != nil {
		return false
	}
	w.memo.Forget()
	if step.outcome.Begins() {
		w.facts.Conn, w.facts.PID = "", 0 // those of the incarnation before
	}
	w.facts.Inc, w.facts.Seq, w.learned = inc, seq, seq
	if f.Every > 0 {
		w.facts.Every, w.facts.Quiet = f.Every, f.Quiet
	}
	if w.facts.State.Goodbye() {
		w.facts.State = hivebeat.Starting // that was the one before
	}
	was, work := w.heard, w.progress
	r.take(now, w, Heard{}, step)
	if w.progress = work; step.outcome.Begins() { // else beats that were heard here decide
		w.progress.at, w.progress.stalled = now, false
	}
	// Its deadline counts from now; its age does not: none is younger than it is.
	w.heard = was
	return true
}

// Drop forgets a worker that somebody else judges from now on.
func (r *Registry) Drop(now time.Time, id string) {
	if w := r.workers[id]; w != nil {
		r.remove(now, w)
	}
}

// Record returns what is known of one worker, without its transitions.
func (r *Registry) Record(now time.Time, id string) (hivebeat.Record, bool) {
	w := r.workers[id]
	if w == nil {
		return hivebeat.Record{}, false
	}
	return r.record(now, w, nil), true
}
