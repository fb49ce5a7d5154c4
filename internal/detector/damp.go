package detector

import (
	"fmt"
	"time"

	"github.com/beatfabric/hivebeat"
)

// A worker that repeats itself is damped: its verdicts stay true and are counted, but
// they are not reported as transitions and get no number.
//
//	flaps   the worker became late, or recovered from late, more than flapMost times
//	        within flapWithin. Once it was calm for flapWithin, or another transition
//	        follows, the numbers of the omitted transitions are used up at once: a
//	        queen finds them missing and reports one gap for all
//	loops   the worker restarted loopMost times within loopWithin. That is reported as
//	        looping. Nothing that its processes do is reported until none has started
//	        for loopQuiet; the end of the loop is reported at that time
//
// At the end of either, the current verdict is reported if it differs from the one
// reported last.
const (
	flapMost   = 6
	flapWithin = time.Minute

	loopMost   = 3
	loopWithin = 5 * time.Minute
	loopQuiet  = 10 * time.Minute
)

// looping is the value of From and To in a transition.
const looping = "looping"

// damping is the damping state of a worker.
type damping struct {
	told    hivebeat.Live // verdict of the last reported transition
	total   uint64        // verdicts that were not reported, in all
	flips   times         // when it became late, or recovered from late
	owed    uint64        // flaps that were not reported and whose numbers are not used up yet
	starts  *restarts     // nil: it never restarted
	looping bool
}

// times is a ring with the last times of one kind of event.
type times struct {
	last [flapMost]time.Time
	next int
}

// again adds an event at now, and reports whether there were at least most events before
// it within d.
func (t *times) again(now time.Time, most int, d time.Duration) bool {
	before := t.last[(t.next-most+len(t.last))%len(t.last)]
	t.last[t.next] = now
	t.next = (t.next + 1) % len(t.last)
	return !before.IsZero() && now.Sub(before) <= d
}

// restarts counts the restarts of one worker.
type restarts struct {
	times
	base    time.Time  // start of minute 0
	minute  int64      // the newest minute in minutes
	minutes [60]uint64 // restarts in each of the last 60
}

// count returns the number of restarts within the last hour, to the minute.
func (s *restarts) count(now time.Time) (n uint64) {
	if s == nil {
		return 0
	}
	for is := int64(now.Sub(s.base) / time.Minute); s.minute < is; {
		s.minute = max(s.minute+1, is-int64(len(s.minutes)))
		s.minutes[s.minute%int64(len(s.minutes))] = 0
	}
	for _, k := range s.minutes {
		n += k
	}
	return n
}

// TellLoops makes the registry report workers that loop. Only hives call it: a queen
// that judges in place of a hive has no number for that transition, and damps the
// workers that the hive reported as looping.
func (r *Registry) TellLoops() { r.loops = true }

// loopsOn takes over how often w restarted, and whether it loops. No restart was later
// than last.
func (r *Registry) loopsOn(now, last time.Time, w *worker, n uint64, loops bool) {
	if n > 0 {
		w.starts = &restarts{base: now}
		w.starts.minutes[0] = n
	}
	if w.looping = loops; loops {
		r.calms.Set(w, last.Add(loopQuiet))
	}
}

// restarted counts a restart of w, which was reported like any transition.
func (r *Registry) restarted(now time.Time, w *worker) {
	d := &w.damping
	if d.starts == nil {
		d.starts = &restarts{base: now}
	}
	d.starts.count(now) // moves minute up to now
	d.starts.minutes[d.starts.minute%int64(len(d.starts.minutes))]++
	if loops := d.starts.again(now, loopMost-1, loopWithin); loops && r.loops && !d.looping {
		s := r.note(now, w, hivebeat.KindLooping, 0)
		s.To, s.Reason = looping, fmt.Sprintf("%d restarts within %s", loopMost, loopWithin)
		r.keep(w)
		d.looping = true
	}
	if d.looping {
		r.calms.Set(w, now.Add(loopQuiet))
	}
}

// damps records that a transition of this kind is due for w, whose verdict is still the
// previous one, and returns whether the transition is damped.
func (r *Registry) damps(now time.Time, w *worker, kind hivebeat.Kind) bool {
	d := &w.damping
	flips := kind == hivebeat.KindLate || kind == hivebeat.KindRecovered && w.live == hivebeat.Late
	switch {
	case d.looping:
		if kind == hivebeat.KindConflict || kind == hivebeat.KindStalled || kind == hivebeat.KindLooping {
			return false
		}
	case flips && d.flips.again(now, flapMost, flapWithin):
		d.owed++
		r.calms.Set(w, now.Add(flapWithin))
	default:
		return false
	}
	d.total++
	return true
}

// calm ends the damping of w, after flapWithin or loopQuiet without a repetition.
func (r *Registry) calm(now time.Time, w *worker) {
	d := &w.damping
	if d.looping {
		d.looping = false
		if r.loops {
			s := r.number(w, r.step(now, w, hivebeat.KindLooping, now.Sub(w.heard)))
			s.From, s.Reason = looping, fmt.Sprintf("no restart for %s, %d in the last hour", loopQuiet, d.starts.count(now))
			r.keep(w)
		}
	}
	if d.told == w.live {
		w.n += d.owed
		d.owed = 0
		return
	}
	kind := hivebeat.Kind(w.live) // a Kind has the same word as its Live
	if w.live == hivebeat.Alive {
		kind = hivebeat.KindRecovered
	}
	s := r.number(w, r.step(now, w, kind, now.Sub(w.heard)))
	s.From, s.To, s.Cause = string(d.told), string(w.live), w.cause
	d.told = w.live
	r.keep(w)
	if !w.counted() { // the record stays listed for KeepGone from this report on
		r.deadlines.Set(w, now.Add(hivebeat.KeepGone))
	}
}

// Damped returns how many verdicts were not reported, by worker; workers without any
// are left out.
func (r *Registry) Damped() map[string]uint64 {
	var m map[string]uint64
	for _, w := range r.sorted {
		if n := w.total; n > 0 {
			if m == nil {
				m = make(map[string]uint64)
			}
			m[w.id] = n
		}
	}
	return m
}

// Looping returns how many workers loop.
func (r *Registry) Looping() (n int) {
	for _, w := range r.sorted {
		if w.looping {
			n++
		}
	}
	return n
}
