package queen

import (
	"fmt"
	"time"

	"github.com/beatfabric/hivebeat"
	"github.com/beatfabric/hivebeat/internal/liveness"
	"github.com/beatfabric/hivebeat/internal/wire"
)

// forgetAfter is how long a hive that is lost or left stays in the view. The
// roster remembers it as long.
const forgetAfter = 7 * 24 * time.Hour

// verdict is what the queen concludes about a hive, and why. All of its changes
// are in this file, with E = the hive's promise:
//
//	          heard                    E + 0.5 × every          E + 2 × every
//	unknown ────────▶ alive ─────────────────────▶ late ───────────────────▶ lost
//	                  ▲  │ goodbye                  │                          │
//	                  │  └──▶ left                  │                          │
//	                  └─────────────────────────────┴──── heard again ─────────┘
//
//	roster only ────▶ unverified ──── E + 2 × every after this queen began ──▶ lost
//
// Before it becomes late or lost the hive's key is read once (check): another
// queen may have heard what this one missed.
type verdict struct {
	live  hivebeat.Live // empty before anything is known
	cause hivebeat.Cause
	since time.Time
	why   evidence

	judged  time.Time     // when it was heard last, or is held to have been: its deadlines count from here
	blind   time.Duration // view.blind at that time
	prior   uint64        // the incarnation that this one took the place of
	beganAt time.Time     // when this one was first heard here
	check   uint64        // the check under way, or 0

	rival    uint64 // the other incarnation of a conflict, 0 if there is none
	rivalSeq uint64
	rivalAt  time.Time // when it was heard last
}

// evidence is what an event says about why.
type evidence struct {
	kind   hivebeat.Kind
	age    hivebeat.Millis
	reason string
	margin *hivebeat.Millis // how far past its deadline a recovered one was heard
}

// check is a hive whose key must be read before the verdict.
type check struct {
	hive     *hive
	id       uint64
	inc, seq uint64
}

// step is one change of a verdict, for the log.
type step struct {
	hive     string
	kind     hivebeat.Kind
	from, to hivebeat.Live
	cause    hivebeat.Cause
	inc      uint64
	reason   string
}

// hearLine asks the lineage, and remembers whose place a new incarnation takes.
// An incarnation that was superseded comes back once the one that took its place
// is gone, if nothing that goes on of it can be late mail: it never ended.
func (h *hive) hearLine(inc, seq uint64, now time.Time) liveness.Outcome {
	before := h.line.Inc()
	o := h.line.Hear(inc, seq, h.live == hivebeat.Alive)
	if o == liveness.Stale && h.live != hivebeat.Alive && now.Sub(h.beganAt) > liveness.LostAfter(h.every, 0) {
		o = h.line.Revive(inc, seq)
	}
	if o.Begins() {
		h.prior, h.rival, h.beganAt = before, 0, now
	}
	return o
}

// heard notes that the hive was heard, and what o says that this means.
func (v *view) heard(h *hive, o liveness.Outcome, now time.Time) {
	was, silent := h.live, now.Sub(h.judged)
	margin := silent - (v.blind - h.blind) - v.patience(h)
	h.judged, h.blind, h.check = now, v.blind, 0
	if was == hivebeat.Left && !o.Begins() {
		return // one more page of its goodbye
	}
	v.due.Set(h, now.Add(liveness.LateAfter(h.every, 0)))
	if was == hivebeat.Alive && !o.Begins() {
		return
	}
	var (
		kind hivebeat.Kind
		why  evidence
	)
	switch {
	case was == "":
		kind, why.reason = hivebeat.KindJoined, "heard for the first time"
	case o.Begins():
		kind, why.reason = hivebeat.KindRestarted, "a new incarnation was heard"
		if o == liveness.TakenOver {
			why.reason = "another incarnation was heard: its clock was set back, or a duplicate that took its place is gone"
		}
		h.left = ""
	default:
		kind, why.reason = hivebeat.KindRecovered, fmt.Sprintf("heard again after %.1fs", silent.Seconds())
		if was == hivebeat.Unverified {
			why.reason = "heard, and so no longer known from memory alone"
		} else {
			m := hivebeat.MillisOf(margin)
			why.margin = &m
		}
	}
	v.turn(h, kind, hivebeat.Alive, "", why, now)
}

// patience returns after how long a silence h was concluded to be what it is.
func (v *view) patience(h *hive) time.Duration {
	if h.live == hivebeat.Late {
		return liveness.LateAfter(h.every, 0)
	}
	return liveness.LostAfter(h.every, 0)
}

// turn is the one place where a verdict changes.
func (v *view) turn(h *hive, kind hivebeat.Kind, to hivebeat.Live, cause hivebeat.Cause, why evidence, now time.Time) {
	why.kind = kind
	v.steps = append(v.steps, step{h.id, kind, h.live, to, cause, h.line.Inc(), why.reason})
	h.live, h.cause, h.since, h.why, h.check = to, cause, now, why, 0
	v.compare(h)
}

// compare puts h among those to be compared with the roster.
func (v *view) compare(h *hive) {
	if !h.isDirty {
		h.isDirty = true
		v.dirty = append(v.dirty, h)
	}
}

// tick looks after the hives whose deadlines have passed: each becomes a check.
func (v *view) tick(now time.Time) {
	for h := range v.due.Due(now) {
		if h.live == hivebeat.Lost || h.live == hivebeat.Left {
			v.forget(h)
			continue
		}
		v.gen++
		h.check = v.gen
		v.checks = append(v.checks, check{h, v.gen, h.line.Inc(), h.line.Seq()})
	}
}

// checked takes the answer to a check: the (inc, seq) that the hive's key holds,
// zeros where that is not known. A higher one than ours means that we missed
// something; anything else lets the verdict stand. An answer that comes after
// the hive was heard is late and changes nothing.
func (v *view) checked(c check, inc, seq uint64, now time.Time) {
	h := c.hive
	if h.check != c.id || v.hives[h.id] != h {
		return
	}
	h.check = 0
	if inc != 0 && seq != 0 && v.learnSeq(h, inc, seq, now) {
		return
	}
	switch h.live {
	case hivebeat.Alive:
		v.turn(h, hivebeat.KindLate, hivebeat.Late, hivebeat.CauseMissed, v.silentFor(h, now), now)
		v.due.Set(h, latest(now, h.judged.Add(liveness.LostAfter(h.every, 0)+v.blind-h.blind)))
	case hivebeat.Late, hivebeat.Unverified:
		v.lose(h, hivebeat.CauseMissed, v.silentFor(h, now), now)
	}
}

// postpone puts off a check whose answer is no use.
func (v *view) postpone(c check, now time.Time) {
	if h := c.hive; h.check == c.id && v.hives[h.id] == h {
		h.check = 0
		v.due.Set(h, now)
	}
}

// learnSeq takes a higher (inc, seq), which somebody else heard, as heard now. It
// reports whether it was higher.
func (v *view) learnSeq(h *hive, inc, seq uint64, now time.Time) bool {
	if inc == h.line.Inc() && seq <= h.line.Seq() {
		return false
	}
	o := h.hearLine(inc, seq, now)
	if !o.Accepted() {
		return false
	}
	v.heard(h, o, now)
	return true
}

// lose is the one place where a hive becomes lost: what holds a verdict back
// stands here.
func (v *view) lose(h *hive, cause hivebeat.Cause, why evidence, now time.Time) {
	v.turn(h, hivebeat.KindLost, hivebeat.Lost, cause, why, now)
	v.due.Set(h, now.Add(forgetAfter))
}

// leave takes the goodbye of a hive: it is final for its incarnation.
func (v *view) leave(h *hive, now time.Time) {
	h.left = h.head.Bye
	h.line.End()
	if h.live == hivebeat.Left {
		return
	}
	v.turn(h, hivebeat.KindLeft, hivebeat.Left, hivebeat.CauseGoodbye, evidence{reason: h.left}, now)
	v.due.Set(h, now.Add(forgetAfter))
}

// silentFor is the evidence of a silence.
func (v *view) silentFor(h *hive, now time.Time) evidence {
	e := evidence{age: effectiveAge(0, h.received, now)}
	switch blind := v.blind - h.blind; {
	case h.head.Inc == 0:
		e.reason = fmt.Sprintf("known from the roster alone, and not heard in the %.1fs since this queen began", now.Sub(h.judged).Seconds())
	case blind > 0:
		e.reason = silence("snapshot", e.age, hivebeat.MillisOf(h.every), 0) +
			fmt.Sprintf("; for %.1fs of that this queen was cut off, which does not count", blind.Seconds())
	default:
		e.reason = silence("snapshot", e.age, hivebeat.MillisOf(h.every), 0)
	}
	return e
}

// blindFor credits every deadline with a time in which this queen could hear
// nobody. Later ways to be blind (stopped, starved, told of dropped messages)
// end here too.
func (v *view) blindFor(d time.Duration) {
	if d > 0 {
		v.blind += d
		v.due.Shift(d)
	}
}

// refusedOf looks at what was refused as no news: two incarnations that both go
// on are a conflict.
func (v *view) refusedOf(h *hive, s *wire.SnapshotView, o liveness.Outcome, now time.Time) {
	switch {
	case o == liveness.Conflict:
		h.rival, h.rivalSeq, h.rivalAt = s.Inc, s.Seq, now
		v.steps = append(v.steps, step{h.id, hivebeat.KindConflict, h.live, h.live, "", h.line.Inc(), h.conflictReason()})
		v.compare(h)
	case h.rival == s.Inc && s.Seq > h.rivalSeq:
		h.rivalSeq, h.rivalAt = s.Seq, now
	}
}

// conflicting returns the other incarnation that beats under the id of h now, or 0.
func (h *hive) conflicting(now time.Time) uint64 {
	if h.rival == 0 || now.Sub(h.rivalAt) > liveness.LostAfter(h.every, 0) {
		return 0
	}
	return h.rival
}

func (h *hive) conflictReason() string {
	return fmt.Sprintf("two hives beat as %q: incarnations %d and %d both go on", h.id, h.line.Inc(), h.rival)
}

func latest(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}
