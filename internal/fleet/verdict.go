package fleet

import (
	"fmt"
	"time"

	"github.com/beatfabric/hivebeat"
	"github.com/beatfabric/hivebeat/internal/index"
	"github.com/beatfabric/hivebeat/internal/liveness"
	"github.com/beatfabric/hivebeat/verdict"
)

// forgetAfter is how long a lost or left hive stays in the view. Its entry in the roster lives for the same time.
const forgetAfter = 7 * 24 * time.Hour

// The verdict on a hive, with E for the hive's promise:
//
//	          heard                    E + 0.5 × every          E + 2 × every
//	unknown ────────▶ alive ─────────────────────▶ late ───────────────────▶ lost
//	                  ▲  │ goodbye                  │                          │
//	                  │  └──▶ left                  │                          │
//	                  └─────────────────────────────┴──── heard again ─────────┘
//
//	its connection closed ── 2 or 5 s, and not heard ──▶ lost (disconnect.go)
//
//	lost, as the roster says ── and not heard since ───▶ lost (roster.go)
//
//	roster only ──▶ unverified ── E + 2 × every after this queen began ──▶ lost
//
// Two things stand between a silence and lost, and make the hive unverified for a while: the brake
// (brake.go), and the possibility that this queen is the one that is cut off (apart.go).
//
// Before a hive becomes late or lost its key is read once (Check): another queen may have heard messages
// that this one missed.

// evidence is the part of an event that gives the reasons for a verdict.
type evidence struct {
	kind   hivebeat.Kind
	age    hivebeat.Millis
	reason string
	margin *hivebeat.Millis // of recovered: the time from its deadline until it was heard
	detect *hivebeat.Millis // the time from its end, if that was observed, to the verdict
}

// Check is a hive whose key must be read before the verdict. Pass the answer to Checked.
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

// follow makes inc the valid incarnation, as another queen decided, even if this queen has superseded it.
func (h *Hive) follow(inc, seq uint64) liveness.Outcome {
	h.prior, h.rival, h.beside, h.disowned = h.line.Inc(), 0, hivebeat.Place{}, 0
	h.line.Take(inc, seq)
	return liveness.TakenOver
}

// advance classifies a message by the lineage, and records which incarnation a new one replaced. heard is the
// earliest time at which the message may have been sent. gap is the least time between two messages of the sender; it is 0 if m comes from
// another queen.
func (h *Hive) advance(m liveness.Message, gap time.Duration, heard time.Time) liveness.Outcome {
	inc, seq, now := m.Inc, m.Seq, m.Heard
	before, last := h.line.Inc(), h.line.Seq()
	o := h.line.Hear(inc, seq, h.live == hivebeat.Alive)
	if o == liveness.Stale {
		gone := isGone(h.live) && !heard.Before(h.since)
		o = h.line.Revive(m, gone, h.beganAt, verdict.LostAfter(h.every, 0))
	}
	if (o == liveness.Stale || o == liveness.Older) && gap > 0 && heard.Equal(now) { // a message that is read in doubt may have waited
		o = h.line.Insists(m, gap, h.head().Inc == before && h.head().Seq == last, o)
	}
	if o.Accepted() {
		h.skipped = inc == before && seq > last+1
		if inc == before && seq < last {
			h.disowned = max(h.disowned, last)
		}
	}
	if o.Begins() {
		h.prior, h.rival, h.beside, h.disowned, h.beganAt = before, 0, hivebeat.Place{}, 0, now
	}
	return o
}

// worth returns the value of a seq that another queen heard: 0 if the hive went back from that seq, or from
// one that is closer to it than the current seq is.
func (h *Hive) worth(inc, seq uint64) uint64 {
	if at := h.line.Seq(); inc == h.line.Inc() && seq > at && seq <= h.disowned && h.disowned-seq < seq-at {
		return 0
	}
	return seq
}

// heard records that the hive was heard. o is how its lineage classified the message.
func (v *View) heard(h *Hive, o liveness.Outcome, now time.Time) {
	at := latest(v.heardAs(now), h.judged)
	was, silent := h.live, at.Sub(h.judged)
	margin := silent - (v.blind - h.blind) - v.patience(h)
	if was == hivebeat.Lost && h.cause == hivebeat.CauseDisconnect {
		margin = max(0, at.Sub(h.since))
	}
	h.judged, h.blind, h.check, h.windowOver = at, v.blind, 0, false
	v.change(h)
	if was == hivebeat.Left && !o.Begins() {
		return // another page of its goodbye
	}
	v.due.Set(h, at.Add(verdict.LateAfter(h.every, 0)))
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
			why.reason = "another incarnation was heard: its clock was set back, or a duplicate that replaced it is gone"
		}
		h.goodbye = ""
	default:
		kind, why.reason = hivebeat.KindRecovered, fmt.Sprintf("heard again after %.1fs", silent.Seconds())
		switch {
		case h.heldBy != nil:
			why.reason += ", and no longer held by the brake"
		case was == hivebeat.Unverified && h.why.kind == "":
			why.reason = "heard, and no longer known from memory only"
		case was == hivebeat.Unverified: // no queen gave it up
		default:
			margin = max(0, margin) // another queen may have made it lost before this queen's deadline
			m := hivebeat.MillisOf(margin)
			why.margin = &m
			if was == hivebeat.Lost {
				v.countMistake(margin, h.skipped)
				why.reason += ", " + backWords(margin, h.skipped)
			}
		}
	}
	v.turn(h, kind, hivebeat.Alive, "", why, now)
}

// patience returns the silence after which h got its present verdict.
func (v *View) patience(h *Hive) time.Duration {
	if h.live == hivebeat.Late {
		return verdict.LateAfter(h.every, 0)
	}
	return verdict.LostAfter(h.every, 0)
}

// turn changes the verdict on a hive. Nothing else does, except recall for a hive known only from the
// roster.
func (v *View) turn(h *Hive, kind hivebeat.Kind, to hivebeat.Live, cause hivebeat.Cause, why evidence, now time.Time) {
	why.kind = kind
	v.ready.Steps = append(v.ready.Steps, Step{h.id, kind, h.live, to, cause, h.line.Inc(), why.reason})
	v.counts.hive(h, kind, cause, why)
	up := h.Up()
	v.become(h, to)
	h.cause, h.since, h.why, h.check, h.windowOver = cause, now, why, 0, false
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
		v.adopt(h, now)
	case hivebeat.Left:
		v.endAdoption(h)
	}
	v.Compare(h)
}

// Compare asks for a comparison of a with the roster.
func (v *View) Compare(a Announcer) {
	if s := a.Roster(); !s.isDirty {
		s.isDirty = true
		v.ready.Announcers = append(v.ready.Announcers, a)
	}
}

// Tick acts on the deadlines that have passed. A hive whose deadline has passed becomes a Check.
func (v *View) Tick(now time.Time) {
	if !v.doubt.IsZero() {
		return
	}
	for h := range v.due.Due(now) {
		if isGone(h.live) {
			v.forget(h)
			continue
		}
		if h.windowOver && h.check != 0 {
			continue // its key is being read because its window is over, and that answer decides
		}
		v.ask(h)
	}
	v.endWindows(now)
	v.endHolds(now)
	v.tickAdoptions(now)
	v.callTwins(now)
	v.updateIndex(now)
}

// ask requests the key of h before a verdict.
func (v *View) ask(h *Hive) {
	v.gen++
	h.check = v.gen
	v.ready.Checks = append(v.ready.Checks, Check{h, v.gen})
}

// Checked takes the answer to a Check: the (inc, seq) in the hive's key, or zeros if they are not known. If
// they are higher than this queen's, this queen missed messages; otherwise the verdict stands. An answer
// that arrives after the hive was heard changes nothing.
func (v *View) Checked(c Check, inc, seq uint64, now time.Time) {
	defer v.updateIndex(now)
	h := c.Hive
	if h.check != c.id || v.hives[h.id] != h {
		return
	}
	if !v.doubt.IsZero() { // judge after the doubt, when it is known which hives still answer
		v.Postpone(c, now)
		return
	}
	over := h.windowOver
	h.check, h.windowOver = 0, false
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
		v.due.Set(h, latest(now, h.judged.Add(verdict.LostAfter(h.every, 0)+v.blind-h.blind)))
	case hivebeat.Late, hivebeat.Unverified:
		v.lose(h, hivebeat.CauseMissed, v.silentFor(h, now), now)
	}
}

// Postpone puts off a check whose answer cannot be used.
func (v *View) Postpone(c Check, now time.Time) {
	if h := c.Hive; h.check == c.id && v.hives[h.id] == h {
		h.check = 0
		if h.windowOver {
			h.windowOver = false
			v.rearm(h)
			return
		}
		v.due.Set(h, v.heardAs(now))
	}
}

// learnSeq counts the hive as heard now if (inc, seq), which another queen heard, is higher. It reports
// whether it is.
func (v *View) learnSeq(h *Hive, inc, seq uint64, now time.Time) bool {
	if inc == h.line.Inc() && h.worth(inc, seq) <= h.line.Seq() {
		return false
	}
	o := h.advance(liveness.Message{Inc: inc, Seq: seq, Heard: now}, 0, now)
	if !o.Accepted() {
		return false
	}
	v.unlink(h)
	v.heard(h, o, now)
	return true
}

// lose makes h lost, unless this queen may be cut off or the brake holds h. byRoster is the only other way
// to become lost.
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

// leave applies the goodbye of a hive, which is final for its incarnation.
func (v *View) leave(h *Hive, now time.Time) {
	h.goodbye = h.head().Bye
	h.line.End()
	if h.live == hivebeat.Left {
		return
	}
	v.turn(h, hivebeat.KindLeft, hivebeat.Left, hivebeat.CauseGoodbye, evidence{reason: h.goodbye}, now)
	v.due.Set(h, now.Add(forgetAfter))
}

// silentFor returns the evidence for a verdict by silence.
func (v *View) silentFor(h *Hive, now time.Time) evidence {
	e := evidence{age: index.EffectiveAge(0, h.received, now)}
	if h.head().Inc == 0 {
		e.reason = fmt.Sprintf("known only from the roster, and not heard in the %.1fs since this queen started", now.Sub(h.judged).Seconds())
		return e
	}
	e.reason = silence("snapshot", e.age, hivebeat.MillisOf(h.every), 0)
	if blind := v.blind - h.blind; blind > 0 {
		e.reason += fmt.Sprintf("; %.1fs of that do not count, because this queen was blind", blind.Seconds())
	}
	return e
}

// Doubt says since when messages may have waited or been lost before this queen read them: it was stopped,
// starved or cut off, or messages were dropped. Until BlindFor ends the doubt, messages count as heard at
// since, no hive or worker becomes late or lost, and no worker is given up because it is not listed.
func (v *View) Doubt(since time.Time) {
	if v.doubt.IsZero() {
		v.ForgetDisconnects()
	}
	if v.doubt.IsZero() || since.Before(v.doubt) {
		v.doubt = since
		for h := range v.adoptedHives {
			h.adoption.reg.Doubt(since)
		}
	}
}

// Doubts reports whether this queen doubts itself.
func (v *View) Doubts() bool { return !v.doubt.IsZero() }

// heardAs returns when a message that is read at now counts as heard.
func (v *View) heardAs(now time.Time) time.Time {
	if v.doubt.IsZero() || v.doubt.After(now) {
		return now
	}
	return v.doubt
}

// BlindFor ends the doubt. It adds d, in which this queen could not hear, to every deadline.
func (v *View) BlindFor(d time.Duration) {
	v.doubt = time.Time{}
	if d > 0 {
		v.blind += d
		v.due.Shift(d)
		v.shiftBrakes(d)
	}
	v.creditAdopted(d)
}
