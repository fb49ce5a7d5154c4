package fleet

import (
	"fmt"
	"time"

	"github.com/beatfabric/hivebeat"
	"github.com/beatfabric/hivebeat/internal/liveness"
)

// A queen whose store does not answer, or that hears less than half of the fleet, may
// be the one that is cut off: it is apart. While it is, a silence makes nobody lost at
// once. Who would be is held as unverified, and is lost in its turn, as the brake has
// it. No other queen is told of that, nor of whom it found late:
//
//	apart ── no longer ──▶ the roll of those is called ── E + 2 × every ──▶ what is still so is told
//
// So a hive has as long to be heard as if it had fallen silent just then: one lost answer
// kills nobody.
const apartLeast = 4 // hives of a fleet, of which less than half may be heard

// apart is what a view knows of its being apart.
type apart struct {
	store bool // whether its store answers matters
	mute  bool // it does not
	half  bool // less than half of the fleet was heard, as of the last verdict
	was   bool // it was apart at the last look
	waits bool // it is apart no more, and something is kept back still
}

// StoreMute tells this view, which has a store, whether that gives no answer. A view that
// is never told is never apart.
func (v *View) StoreMute(mute bool) { v.apart.store, v.apart.mute = true, mute }

// Apart says why this queen may be the one that is cut off; empty where nothing says so.
func (v *View) Apart() string {
	n := v.totals.Hives
	switch {
	case v.apart.mute:
		return "its requests to JetStream get no answer"
	case v.apart.half:
		return fmt.Sprintf("it hears %d of %d hives", n[hivebeat.Alive], n[hivebeat.Alive]+n[hivebeat.Late]+n[hivebeat.Unverified])
	}
	return ""
}

// heardLess reports whether less than half of a fleet is heard: of the hives that are
// neither gone nor lost, but for the one that is about to be found silent.
func (v *View) heardLess(but *Hive) bool {
	n := v.totals.Hives
	heard := n[hivebeat.Alive]
	all := heard + n[hivebeat.Late] + n[hivebeat.Unverified]
	if but != nil && but.live == hivebeat.Alive {
		heard--
	}
	return v.apart.store && all >= apartLeast && 2*heard < all
}

// weigh looks, before the silence of h leads to a verdict, how much of the fleet is
// heard.
func (v *View) weigh(h *Hive) { v.apart.half = v.apart.half || v.heardLess(h) }

// tickApart follows whether this queen is apart, and tells what it kept back.
func (v *View) tickApart(now time.Time) {
	a := &v.apart
	a.half = a.half && v.heardLess(nil)
	switch is := v.Apart() != ""; {
	case is:
		a.was, a.waits = true, false
	case a.was:
		a.was, a.waits = false, true
		for _, h := range v.order {
			if h.keptBack {
				h.tellAt = now.Add(liveness.LostAfter(h.every, 0))
				v.ready.Calls = append(v.ready.Calls, RollCall{Hive: h.id, Spread: v.Spread()})
			}
		}
	case a.waits:
		v.tellKept(now)
	}
}

// tellKept tells what was kept back, and is so for long enough.
func (v *View) tellKept(now time.Time) {
	v.apart.waits = false
	for _, h := range v.order {
		switch {
		case !h.keptBack:
		case now.Before(h.tellAt):
			v.apart.waits = true
		default:
			h.keptBack = false
			v.Compare(h)
		}
	}
	for _, z := range v.zones {
		if z.keptBack && !v.apart.waits {
			z.keptBack = false
			v.CompareZone(z)
		}
	}
}

// shiftApart credits those who are waited for with a time in which nobody was heard.
func (v *View) shiftApart(d time.Duration) {
	for _, h := range v.order {
		if v.apart.waits && h.keptBack {
			h.tellAt = h.tellAt.Add(d)
		}
	}
}

// holdApart holds h, as this queen may be the one that is cut off.
func (v *View) holdApart(h *Hive, why evidence, now time.Time) {
	z := v.zoneOf(h.zone)
	if !z.on {
		v.startBrake(z, now, fmt.Sprintf("the brake is on: this queen may be cut off itself, as %s; hives of %s that it does not hear are held as unverified, and their roll is called", v.Apart(), z.words()))
	}
	v.hold(z, h, why, now)
}
