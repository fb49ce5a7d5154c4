package fleet

import (
	"fmt"
	"time"

	"github.com/beatfabric/hivebeat"
	"github.com/beatfabric/hivebeat/internal/liveness"
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
//	its connection closed ──── 2 or 5 s, and not heard ──▶ lost (closings.go)
//
//	lost, as the roster has it ──── and not heard since ─▶ lost (announce.go)
//
//	roster only ────▶ unverified ──── E + 2 × every after this queen began ──▶ lost
//
// Between all that and lost by silence stand the brake (brake.go), and that this queen
// may be the one that is cut off (apart.go): both make of it unverified for a while.
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
	wentOn  bool          // its seq says that there were others since the message before the last, or that it was held on its way
	check   uint64        // the check under way, or 0

	rival     uint64 // the other incarnation of a conflict, 0 if there is none
	rivalSeq  uint64
	rivalAt   time.Time      // when it was heard last
	rivalTold time.Time      // when it was told that it is refused
	beside    hivebeat.Place // where the last one runs that was not believed
	addr      [2]string      // the connection of the one that is, and its address

	disowned uint64 // the seq from which this incarnation went back: something else said it
}

// evidence is what an event says about why.
type evidence struct {
	kind   hivebeat.Kind
	age    hivebeat.Millis
	reason string
	margin *hivebeat.Millis // how far past its deadline a recovered one was heard
	detect *hivebeat.Millis // from its end, where that was seen, to the verdict
}

// Check is a hive whose key must be read before the verdict. The answer goes to
// Checked.
type Check struct {
	Hive *Hive
	id   uint64
}

// Step is one change of a verdict, for the log.
type Step struct {
	Hive     string
	Kind     hivebeat.Kind
	From, To hivebeat.Live
	Cause    hivebeat.Cause
	Inc      uint64
	Reason   string
}

// follow takes an incarnation that another queen decided for, whatever this one
// remembers of it.
func (h *Hive) follow(inc, seq uint64) liveness.Outcome {
	h.prior, h.rival, h.beside, h.disowned = h.line.Inc(), 0, hivebeat.Place{}, 0
	h.line.Take(inc, seq)
	return liveness.TakenOver
}

// hearLine asks the lineage, and remembers whose place a new incarnation takes.
// An incarnation that was superseded comes back once the one that took its place
// is gone, if nothing that goes on of it can be late mail: it never ended. heard is
// when that was sent, at the earliest. gap is between two messages of its sender, at
// least; 0: it is none, but what another queen knows.
func (h *Hive) hearLine(m liveness.Message, gap time.Duration, heard time.Time) liveness.Outcome {
	inc, seq, now := m.Inc, m.Seq, m.Heard
	before, last := h.line.Inc(), h.line.Seq()
	o := h.line.Hear(inc, seq, h.live == hivebeat.Alive)
	gone := isGone(h.live) && !heard.Before(h.since)
	gone = gone && now.Sub(h.beganAt) > liveness.LostAfter(h.every, 0) && !h.line.Outdated(m, h.beganAt)
	if o == liveness.Stale && (gone || h.line.Misled(m, h.beganAt)) {
		o = h.line.Revive(inc, seq)
	}
	if (o == liveness.Stale || o == liveness.Older) && gap > 0 && heard.Equal(now) { // what is read in doubt may have waited
		o = h.line.Insists(m, gap, h.head.Inc == before && h.head.Seq == last, o)
	}
	if o.Accepted() {
		h.wentOn = inc == before && seq > last+1
		if inc == before && seq < last {
			h.disowned = max(h.disowned, last)
		}
	}
	if o.Begins() {
		h.prior, h.rival, h.beside, h.disowned, h.beganAt = before, 0, hivebeat.Place{}, 0, now
	}
	return o
}

// worth returns what a seq of this hive that was heard elsewhere is worth: none, where it
// is the one from which the hive went back, or nearer to that than to where it is.
func (h *Hive) worth(inc, seq uint64) uint64 {
	if at := h.line.Seq(); inc == h.line.Inc() && seq > at && seq <= h.disowned && h.disowned-seq < seq-at {
		return 0
	}
	return seq
}

// heard notes that the hive was heard, and what o says that this means.
func (v *View) heard(h *Hive, o liveness.Outcome, now time.Time) {
	at := latest(v.heardAs(now), h.judged)
	was, silent := h.live, at.Sub(h.judged)
	margin := silent - (v.blind - h.blind) - v.patience(h)
	if was == hivebeat.Lost && h.cause == hivebeat.CauseDisconnect {
		margin = max(0, at.Sub(h.since))
	}
	h.judged, h.blind, h.check, h.closed.over = at, v.blind, 0, false
	if was == hivebeat.Left && !o.Begins() {
		return // one more page of its goodbye
	}
	v.due.Set(h, at.Add(liveness.LateAfter(h.every, 0)))
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
		switch {
		case h.heldBy != nil:
			why.reason += ", and no longer held by the brake"
		case was == hivebeat.Unverified && h.why.kind == "":
			why.reason = "heard, and so no longer known from memory alone"
		case was == hivebeat.Unverified: // nobody took it for dead
		default:
			margin = max(0, margin) // what another queen found may have come before our own deadline
			m := hivebeat.MillisOf(margin)
			why.margin = &m
			if was == hivebeat.Lost {
				v.score.back(margin, h.wentOn)
				why.reason += ", " + backWords(margin, h.wentOn)
			}
		}
	}
	v.turn(h, kind, hivebeat.Alive, "", why, now)
}

// patience returns after how long a silence h was concluded to be what it is.
func (v *View) patience(h *Hive) time.Duration {
	if h.live == hivebeat.Late {
		return liveness.LateAfter(h.every, 0)
	}
	return liveness.LostAfter(h.every, 0)
}

// turn is the one place where a verdict changes.
func (v *View) turn(h *Hive, kind hivebeat.Kind, to hivebeat.Live, cause hivebeat.Cause, why evidence, now time.Time) {
	why.kind = kind
	v.ready.Steps = append(v.ready.Steps, Step{h.id, kind, h.live, to, cause, h.line.Inc(), why.reason})
	v.tally.hive(kind, h.live, cause, why)
	up := h.Up()
	h.live, h.cause, h.since, h.why, h.check, h.closed.over = to, cause, now, why, 0, false
	switch {
	case !up && h.Up():
		h.upFrom = now
	case up && !h.Up():
		h.upUntil = now
		v.closings.Close(h)
	}
	if to != hivebeat.Unverified {
		v.unhold(h)
	}
	switch to {
	case hivebeat.Lost:
		v.takeIn(h, now)
	case hivebeat.Left:
		v.endAdoption(h)
	}
	v.resum(h, another, now) // first: what a worker is worth rests on its hive
	v.reshowAll(h, now)
	v.Compare(h)
}

// Compare puts h among those to be compared with the roster.
func (v *View) Compare(h *Hive) {
	if !h.isDirty {
		h.isDirty = true
		v.ready.Tellers = append(v.ready.Tellers, h)
	}
}

// Tick looks after the hives whose deadlines have passed: each becomes a check.
func (v *View) Tick(now time.Time) {
	if !v.doubt.IsZero() {
		return
	}
	for h := range v.due.Due(now) {
		if isGone(h.live) {
			v.forget(h)
			continue
		}
		if h.closed.over && h.check != 0 {
			continue // its key is being read, as its window is over: that answer decides
		}
		v.ask(h)
	}
	v.endWindows(now)
	v.endHolds(now)
	v.tickWards(now)
	v.askTwins(now)
}

// ask has the key of h read, before a verdict.
func (v *View) ask(h *Hive) {
	v.gen++
	h.check = v.gen
	v.ready.Checks = append(v.ready.Checks, Check{h, v.gen})
}

// Checked takes the answer to a check: the (inc, seq) that the hive's key holds,
// zeros where that is not known. A higher one than ours means that we missed
// something; anything else lets the verdict stand. An answer that comes after
// the hive was heard is late and changes nothing.
func (v *View) Checked(c Check, inc, seq uint64, now time.Time) {
	h := c.Hive
	if h.check != c.id || v.hives[h.id] != h {
		return
	}
	if !v.doubt.IsZero() { // judge when it is known who is still there
		v.Postpone(c, now)
		return
	}
	over := h.closed.over
	h.check, h.closed.over = 0, false
	if inc != 0 && seq != 0 && v.learnSeq(h, inc, seq, now) {
		return
	}
	if over && h.Up() {
		v.lose(h, hivebeat.CauseDisconnect, v.closedFor(h, now), now)
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

// Postpone puts off a check whose answer is no use.
func (v *View) Postpone(c Check, now time.Time) {
	if h := c.Hive; h.check == c.id && v.hives[h.id] == h {
		h.check = 0
		if h.closed.over {
			h.closed.over = false
			v.rearm(h)
			return
		}
		v.due.Set(h, v.heardAs(now))
	}
}

// learnSeq takes a higher (inc, seq), which somebody else heard, as heard now. It
// reports whether it was higher.
func (v *View) learnSeq(h *Hive, inc, seq uint64, now time.Time) bool {
	if inc == h.line.Inc() && h.worth(inc, seq) <= h.line.Seq() {
		return false
	}
	o := h.hearLine(liveness.Message{Inc: inc, Seq: seq, Heard: now}, 0, now)
	if !o.Accepted() {
		return false
	}
	v.unlinkOld(h, o)
	v.heard(h, o, now)
	return true
}

// lose is the one place where a hive becomes lost: what holds a verdict back
// stands here.
func (v *View) lose(h *Hive, cause hivebeat.Cause, why evidence, now time.Time) {
	if cause == hivebeat.CauseMissed && v.standApart(h, why, now) {
		return
	}
	if !h.released && v.brake(h, why, now) {
		return
	}
	v.turn(h, hivebeat.KindLost, hivebeat.Lost, cause, why, now)
	v.due.Set(h, now.Add(forgetAfter))
}

// leave takes the goodbye of a hive: it is final for its incarnation.
func (v *View) leave(h *Hive, now time.Time) {
	h.left = h.head.Bye
	h.line.End()
	if h.live == hivebeat.Left {
		return
	}
	v.turn(h, hivebeat.KindLeft, hivebeat.Left, hivebeat.CauseGoodbye, evidence{reason: h.left}, now)
	v.due.Set(h, now.Add(forgetAfter))
}

// silentFor is the evidence of a silence.
func (v *View) silentFor(h *Hive, now time.Time) evidence {
	e := evidence{age: EffectiveAge(0, h.received, now)}
	switch blind := v.blind - h.blind; {
	case h.head.Inc == 0:
		e.reason = fmt.Sprintf("known from the roster alone, and not heard in the %.1fs since this queen began", now.Sub(h.judged).Seconds())
	case blind > 0:
		e.reason = silence("snapshot", e.age, hivebeat.MillisOf(h.every), 0) +
			fmt.Sprintf("; for %.1fs of that this queen was blind, which does not count", blind.Seconds())
	default:
		e.reason = silence("snapshot", e.age, hivebeat.MillisOf(h.every), 0)
	}
	return e
}

// Doubt is told since when what this queen reads may have waited, or got lost: it
// was stopped or starved, cut off, or told of dropped messages. Until BlindFor
// ends the doubt, what is heard counts as heard then, and nobody becomes late or
// lost, nor is a worker given up for not being listed.
func (v *View) Doubt(since time.Time) {
	if v.doubt.IsZero() {
		v.ForgetDisconnects()
	}
	if v.doubt.IsZero() || since.Before(v.doubt) {
		v.doubt = since
		for h := range v.adoptedHives {
			h.adopted.reg.Doubt(since)
		}
	}
}

// Doubts reports whether this queen doubts itself.
func (v *View) Doubts() bool { return !v.doubt.IsZero() }

// heardAs returns when what is read at now counts as heard.
func (v *View) heardAs(now time.Time) time.Time {
	if v.doubt.IsZero() || v.doubt.After(now) {
		return now
	}
	return v.doubt
}

// BlindFor ends the doubt, and credits every deadline with a time in which this
// queen could hear nobody.
func (v *View) BlindFor(d time.Duration) {
	v.doubt = time.Time{}
	if d > 0 {
		v.blind += d
		v.due.Shift(d)
		v.shiftBrakes(d)
	}
	v.creditWards(d)
}

func latest(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}
