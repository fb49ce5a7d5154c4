package fleet

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"github.com/beatfabric/hivebeat"
	"github.com/beatfabric/hivebeat/internal/liveness"
)

// A mass death is not believed at once: far more often it is the network, or this
// queen, than so many machines. Of one zone (the label `zone`; hives without it
// are one zone together), with a window of 10 s:
//
//	would be lost by silence within the window > max(least, share × hives up 10 s before)
//	  └─▶ the brake is on: those are held as unverified, and their roll is called
//	       ├─ heard ─────────────────────────────────────▶ alive (recovered)
//	       └─ not heard for spread + answerTime ─ in turn ▶ lost
//
// In turn means at max(5, held/60) a second, where held counts all that this brake
// held: with it the rate grows, so that the brake always ends. While it is on,
// whoever fell silent with them is held too. A queen that may be the one that is cut off
// (apart.go) releases nobody.

const (
	brakeWindow = 10 * time.Second
	// brakeFollow is for how long the brake waits for those that fell silent with the
	// ones it held, as their deadlines come later.
	brakeFollow = 30 * time.Second
	// answerTime is added to the spread of a roll call: the answers need some time.
	answerTime = 3 * time.Second
	// brakeForgotten is how long after its start a brake in the roster is ended by a
	// queen that does not brake itself: whoever did is gone.
	brakeForgotten = 10 * time.Minute
	assessEvery    = 100 * time.Millisecond
	brakeBurst     = 250 * time.Millisecond // the pace of losing is kept to within this
	maxZones       = 1000                   // remembered while nothing happens in them
)

// BrakeRule says when a mass death is not believed at once. The zero rule is the
// default.
type BrakeRule struct {
	Off   bool
	Share float64 // of the hives of a zone that were up. Default 0.3
	Least int     // so many are always believed. Default 3
}

// Defaults of a BrakeRule.
const (
	BrakeShare = 0.3
	BrakeLeast = 3
)

// SetBrake sets the rule. What is held stays held.
func (v *View) SetBrake(r BrakeRule) {
	r.Share, r.Least = cmp.Or(r.Share, BrakeShare), cmp.Or(r.Least, BrakeLeast)
	v.rule = r
}

// Spread is over how long the answers to a roll call are to come, so that they
// never storm.
func (v *View) Spread() time.Duration {
	return max(hivebeat.HiveRollSpread, 2*time.Millisecond*time.Duration(len(v.hives)))
}

// holding is a place in the queue of a brake: good while the hive is held since
// then.
type holding struct {
	hive *Hive
	at   time.Time
}

// hold is what a hive knows of the brake.
type hold struct {
	zone              string // its label
	upFrom, upUntil   time.Time
	heldBy            *Zone
	heldAt, releaseAt time.Time
	released          bool // it is its turn to be lost
}

// Brakes returns the zones whose brake is on, by name.
func (v *View) Brakes() (list []*Zone) {
	for _, z := range v.zones {
		if z.on {
			list = append(list, z)
		}
	}
	return list
}

// upAt reports whether h was up at t, as far as that is remembered: of several
// times only the last.
func (h *Hive) upAt(t time.Time) bool {
	return !h.upFrom.IsZero() && !h.upFrom.After(t) && (h.Up() || h.upUntil.After(t))
}

// lostAt is when the silence of h makes it lost.
func (v *View) lostAt(h *Hive) time.Time {
	return h.judged.Add(liveness.LostAfter(h.every, 0) + v.blind - h.blind)
}

// silent reports whether h would be lost by silence until then.
func (v *View) silent(h *Hive, until time.Time) bool {
	return h.heldBy == nil && (h.live == hivebeat.Late || h.live == hivebeat.Unverified) && !v.lostAt(h).After(until)
}

// brake judges whether it is to be believed that h is lost, and why. Where it is
// not, h is held, and so are those that would follow.
func (v *View) brake(h *Hive, why evidence, now time.Time) (held bool) {
	if v.rule.Off {
		return false
	}
	z := v.zoneOf(h.zone)
	if z.on && !h.judged.After(z.began.Add(brakeWindow)) {
		v.hold(z, h, why, now)
		return true
	}
	z.lost = slices.DeleteFunc(z.lost, func(at time.Time) bool { return now.Sub(at) >= brakeWindow })
	together := len(z.lost) + 1
	if z.assessed.IsZero() || now.Sub(z.assessed) >= assessEvery || now.Before(z.assessed) {
		together = max(together, v.assess(z, h, now))
	}
	if together <= z.limit {
		z.lost = append(z.lost, now)
		return false
	}
	v.startBrake(z, together, now)
	v.hold(z, h, why, now)
	for _, o := range v.order {
		if o != h && o.zone == z.name && v.silent(o, now.Add(brakeWindow)) {
			v.hold(z, o, v.silentFor(o, now), now)
		}
	}
	return true
}

// assess counts how many hives of z would be lost within the window from now on, h
// among them, and how many may be.
func (v *View) assess(z *Zone, h *Hive, now time.Time) (together int) {
	z.assessed, z.of, together = now, 0, 1
	for _, o := range v.order {
		if o.zone != z.name {
			continue
		}
		if o.upAt(now.Add(-brakeWindow)) {
			z.of++
		}
		if o != h && v.silent(o, now.Add(brakeWindow)) {
			together++
		}
	}
	z.limit = max(v.rule.Least, int(v.rule.Share*float64(z.of)+1e-9))
	return together
}

func (v *View) startBrake(z *Zone, together int, now time.Time) {
	if !z.on {
		z.on, z.began, z.held, z.told, z.queue = true, now, 0, 0, nil
		if z.tellsOn() { // by another queen, of the same silence
			z.told = z.Book.Item.N
		}
		z.why = fmt.Sprintf("the brake is on: the silence of %d hives of %s would make them lost within %.0fs, of %d that were up; they are held as unverified, and their roll is called",
			together, z.words(), brakeWindow.Seconds(), z.of)
		v.CompareZone(z)
	}
}

// hold makes h unverified until it was heard, or its turn has come.
func (v *View) hold(z *Zone, h *Hive, why evidence, now time.Time) {
	why.detect = nil // it is judged by its silence from here on
	why.reason += "; held, as with it too many of " + z.words() + " would be lost at once"
	if h.live != hivebeat.Unverified {
		v.turn(h, hivebeat.KindUnverified, hivebeat.Unverified, hivebeat.CauseMissed, why, now)
	} else { // from memory alone: from here on it is told
		h.why, h.why.kind, h.check = why, hivebeat.KindUnverified, 0
		v.Compare(h)
	}
	// Those that were about to follow keep their own deadline: the brake puts off.
	h.heldBy, h.heldAt, h.releaseAt, h.released = z, now, latest(now.Add(v.Spread()+answerTime), v.lostAt(h)), false
	v.due.Remove(h)
	// In the order of their turns: one whose connection closed may have a deadline that
	// is far away, and others are not to wait for it.
	at := len(z.queue)
	for at > 0 && (!z.queue[at-1].holds(z) || z.queue[at-1].hive.releaseAt.After(h.releaseAt)) {
		at--
	}
	if at == 0 && (len(z.queue) == 0 || z.next.After(h.releaseAt)) {
		z.next = h.releaseAt
	}
	z.queue = slices.Insert(z.queue, at, holding{h, now})
	z.held++
	z.holding++
	v.ready.Calls = append(v.ready.Calls, RollCall{Hive: h.id, Spread: v.Spread()})
}

// holds reports whether it is still to be that hive's turn.
func (q holding) holds(z *Zone) bool {
	return q.hive.heldBy == z && q.hive.heldAt.Equal(q.at) && !q.hive.released
}

// unhold is called when h is no longer unverified, for whatever reason.
func (v *View) unhold(h *Hive) {
	if z := h.heldBy; z != nil {
		z.holding--
		h.heldBy, h.released = nil, false
	}
}

// endHolds lets those be lost whose turn has come, each after one more look at its
// key, and ends the brakes that are done.
func (v *View) endHolds(now time.Time) {
	for _, z := range v.zones {
		if !z.on {
			if z.forgotten(now) && !z.isDirty && !z.Book.Busy {
				v.CompareZone(z)
			}
			continue
		}
		z.look = now.Add(time.Second)
		if floor := now.Add(-brakeBurst); z.next.Before(floor) { // what this queen did not do in time is not made up for
			z.next = floor
		}
		for len(z.queue) > 0 {
			q := z.queue[0]
			if h := q.hive; q.holds(z) {
				if now.Before(h.releaseAt) || now.Before(z.next) || !v.apart.since.IsZero() {
					break
				}
				h.released = true
				z.next = z.next.Add(time.Second / time.Duration(max(5, z.held/60)))
				v.ask(h)
			}
			z.queue = z.queue[1:]
		}
		if z.holding == 0 && !v.followers(z, now) {
			z.on, z.queue = false, nil
			z.why = fmt.Sprintf("the brake is off after %.1fs: of %d hives of %s each was heard, or is lost", now.Sub(z.began).Seconds(), z.held, z.words())
			v.CompareZone(z)
		}
	}
}

// followers reports whether a hive that fell silent with those that were held is
// about to be lost.
func (v *View) followers(z *Zone, now time.Time) bool {
	return slices.ContainsFunc(v.order, func(h *Hive) bool {
		return h.zone == z.name && !h.judged.After(z.began.Add(brakeWindow)) && v.silent(h, now.Add(brakeFollow))
	})
}

// nextRelease is when endHolds has something to do next.
func (v *View) nextRelease() (next time.Time, ok bool) {
	for _, z := range v.zones {
		if !z.on {
			continue
		}
		at := z.look
		if len(z.queue) > 0 && v.apart.since.IsZero() {
			at = latest(z.queue[0].hive.releaseAt, z.next)
			if !z.look.IsZero() && z.look.Before(at) {
				at = z.look
			}
		}
		if !ok || at.Before(next) {
			next, ok = at, true
		}
	}
	return next, ok
}

// shiftBrakes credits the brake with a time in which nobody could be heard: it
// waits for answers.
func (v *View) shiftBrakes(d time.Duration) {
	for _, z := range v.zones {
		if z.on {
			z.next = z.next.Add(d)
		}
	}
	for _, h := range v.order {
		if h.heldBy != nil {
			h.releaseAt = h.releaseAt.Add(d)
		}
	}
}

// The roster serialises what queens say of a brake, as it does what they say of a
// hive. The key of a zone's brake is no id of a hive: it has a dot.

const brakePrefix = "brake."
