package detector

import (
	"fmt"
	"time"

	"github.com/beatfabric/hivebeat"
)

// What a worker does over and over is not told each time. Its verdicts go on to be
// true and are counted, but they are no transitions: they have no number.
//
//	flaps   it was late, or recovered from that, more than flapMost times within
//	        flapWithin. Once it was calm for flapWithin, or something else happens to
//	        it, the numbers of what was left out are used up at once: a queen finds
//	        them missing, and tells one gap for all
//	loops   it restarted loopMost times within loopWithin. That is told as looping, and
//	        from then on nothing that its processes do, until none began for
//	        loopQuiet: then the end of the loop is told
//
// After that comes what became of the worker, if that is not what was told last.
const (
	flapMost   = 6
	flapWithin = time.Minute

	loopMost   = 3
	loopWithin = 5 * time.Minute
	loopQuiet  = 10 * time.Minute
)

// looping is what From and To of a transition say.
const looping = "looping"

// damping is what is known of a worker that does the same over and over.
type damping struct {
	told    hivebeat.Live // what the last transition made of it
	total   uint64        // verdicts that were not told, in all
	flips   times         // when it was late, or recovered from that
	owed    uint64        // of those that were not told, the ones that have no number yet
	starts  *restarts     // nil: it never restarted
	looping bool
}

// times is when something happened last, in a ring.
type times struct {
	last [flapMost]time.Time
	next int
}

// again notes that it happened now, and reports whether it did most times before that
// within d.
func (t *times) again(now time.Time, most int, d time.Duration) bool {
	before := t.last[(t.next-most+len(t.last))%len(t.last)]
	t.last[t.next] = now
	t.next = (t.next + 1) % len(t.last)
	return !before.IsZero() && now.Sub(before) <= d
}

// restarts are those of one worker.
type restarts struct {
	times
	base    time.Time  // when minute 0 began
	minute  int64      // the newest
	minutes [60]uint64 // how many there were in each of the last 60
}

// count returns how many there were within the last hour, to the minute.
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

// TellLoops makes the registry tell of workers that loop. It is for hives: a queen, which
// judges in place of one, has no number for that, and damps those that its hive has told.
func (r *Registry) TellLoops() { r.loops = true }

// loopsOn takes over how many restarts of w there were, and whether it loops. None was
// later than last.
func (r *Registry) loopsOn(now, last time.Time, w *worker, n uint64, loops bool) {
	if n > 0 {
		w.starts = &restarts{base: now}
		w.starts.minutes[0] = n
	}
	if w.looping = loops; loops {
		r.calms.Set(w, last.Add(loopQuiet))
	}
}

// restarted counts a restart of w, which was told as any transition is.
func (r *Registry) restarted(now time.Time, w *worker) {
	d := &w.damping
	if d.starts == nil {
		d.starts = &restarts{base: now}
	}
	d.starts.count(now) // brings the minutes up to now
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

// damps notes that this is to be told of w, whose verdict is still that of before, and
// reports whether it is not told.
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

// calm ends the damping of w: it did not do again for long enough what it did over and
// over.
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
	kind := hivebeat.Kind(w.live) // the words are the same
	if w.live == hivebeat.Alive {
		kind = hivebeat.KindRecovered
	}
	s := r.number(w, r.step(now, w, kind, now.Sub(w.heard)))
	s.From, s.To, s.Cause = string(d.told), string(w.live), w.cause
	d.told = w.live
	r.keep(w)
	if !w.counted() { // it stays listed for as long as those whose end was told at once
		r.deadlines.Set(w, now.Add(hivebeat.KeepGone))
	}
}

// Damped returns how many verdicts on workers were not told, by worker, where there were
// any.
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
