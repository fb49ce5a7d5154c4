package fleet

import (
	"cmp"
	"encoding/base64"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/beatfabric/hivebeat"
	"github.com/beatfabric/hivebeat/internal/ledger"
	"github.com/beatfabric/hivebeat/internal/liveness"
	"github.com/beatfabric/hivebeat/verdict"
)

// The brake delays a mass death: if many hives fall silent at once, the cause is far more often the network or
// this queen than so many machines. It works on one zone (the label zone; all hives without it form one zone),
// with a window of 10 s:
//
//	would be lost by silence within the window > max(least, share × hives up 10 s before)
//	  └─▶ the brake is on: those hives are held as unverified, and their roll is called
//	       ├─ heard ─────────────────────────────────────▶ alive (recovered)
//	       └─ not heard for spread + answerTime ─ in turn ▶ lost
//
// In turn means at max(5, held/60) a second, where held counts all hives that this brake held. The rate grows
// with their number, so a brake always ends. While it is on, it also holds other hives that fell silent at the
// same time. A queen that may be cut off itself (apart.go) releases no hive.

const (
	brakeWindow = 10 * time.Second
	// brakeFollow is how long the brake waits for hives that fell silent at the same time, and whose
	// deadlines come later.
	brakeFollow = 30 * time.Second
	// answerTime is added to the spread of a roll call, for the answers to arrive.
	answerTime = 3 * time.Second
	// brakeForgotten is the age at which a queen ends a brake in the roster that is not on here: the queen
	// that put it on is gone.
	brakeForgotten = 10 * time.Minute
	assessEvery    = 100 * time.Millisecond
	brakeBurst     = 250 * time.Millisecond // the pace of losing is kept to within this
	maxZones       = 1000                   // zones that are kept while nothing happens in them
)

// BrakeRule says when a mass death is not believed at once. The zero rule is the default.
type BrakeRule struct {
	Off   bool
	Share float64 // of the hives of a zone that were up. Default 0.3
	Least int     // this many are always believed. Default 3
}

// Defaults of a BrakeRule.
const (
	BrakeShare = 0.3
	BrakeLeast = 3
)

// SetBrake sets the rule. Hives that are held stay held.
func (v *View) SetBrake(r BrakeRule) {
	r.Share, r.Least = cmp.Or(r.Share, BrakeShare), cmp.Or(r.Least, BrakeLeast)
	v.rule = r
}

// Spread is the time over which the answers to a roll call are spread, so that they never storm.
func (v *View) Spread() time.Duration {
	return max(hivebeat.HiveRollSpread, 2*time.Millisecond*time.Duration(len(v.hives)))
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

// upAt reports whether h was up at t. Only the last time it was up is known; before that, upAt is false.
func (h *Hive) upAt(t time.Time) bool {
	return !h.upFrom.IsZero() && !h.upFrom.After(t) && (h.Up() || h.upUntil.After(t))
}

// lostAt returns when the silence of h makes it lost.
func (v *View) lostAt(h *Hive) time.Time {
	return h.judged.Add(verdict.LostAfter(h.every, 0) + v.blind - h.blind)
}

// silent reports whether h would be lost by silence at the time until, or before.
func (v *View) silent(h *Hive, until time.Time) bool {
	return h.heldBy == nil && (h.live == hivebeat.Late || h.live == hivebeat.Unverified) && !v.lostAt(h).After(until)
}

// brake reports whether the brake holds h, which would be lost for the reason why. If the brake starts, it
// also holds the other hives of the zone that would be lost within the window.
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
	together := max(len(z.lost)+1, v.assess(z, h, now))
	if together <= max(v.rule.Least, int(v.rule.Share*float64(z.of)+1e-9)) {
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

// assess returns how many hives of z would be lost within the window from now on, including h, and counts in
// z.of how many were up before.
func (v *View) assess(z *Zone, h *Hive, now time.Time) (together int) {
	z.of, together = 0, 1
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
	return together
}

func (v *View) startBrake(z *Zone, together int, now time.Time) {
	if !z.on {
		z.on, z.began, z.look, z.held, z.announced = true, now, now, 0, 0
		if z.rosterOn() { // another queen put it on, for the same silence
			z.announced = z.roster.Item.N
		}
		z.why = fmt.Sprintf("the brake is on: %d hives of %s would be lost by silence within %.0fs, of %d that were up; they are held as unverified, and the queen calls their roll",
			together, z.words(), brakeWindow.Seconds(), z.of)
		v.Compare(z)
	}
}

// hold makes h unverified until it is heard, or until it is its turn to be lost.
func (v *View) hold(z *Zone, h *Hive, why evidence, now time.Time) {
	why.detect = nil // its silence decides from here on
	why.reason += "; held, because with it too many hives of " + z.words() + " would be lost at once"
	if h.live != hivebeat.Unverified {
		v.turn(h, hivebeat.KindUnverified, hivebeat.Unverified, hivebeat.CauseMissed, why, now)
	} else { // it was known only from the roster: from here on it is reported
		h.why, h.why.kind, h.check = why, hivebeat.KindUnverified, 0
		v.Compare(h)
	}
	// A hive keeps its own deadline if that is later: the brake only delays.
	at := latest(now.Add(v.Spread()+answerTime), v.lostAt(h))
	h.heldBy, h.released = z, false
	v.due.Remove(h)
	// A hive whose connection closed may have a deadline that is far away, and others must not wait for it.
	if z.queue.Len() == 0 || z.next.After(at) {
		z.next = at
	}
	z.queue.Set(h, at)
	z.held++
	z.holding++
	v.ready.Calls = append(v.ready.Calls, RollCall{Hive: h.id, Spread: v.Spread()})
}

// unhold ends the hold on h, which is no longer unverified.
func (v *View) unhold(h *Hive) {
	if z := h.heldBy; z != nil {
		z.holding--
		z.queue.Remove(h)
		h.heldBy, h.released = nil, false
	}
}

// endHolds releases the hives whose turn it is, each after its key is read once more, and ends the brakes that
// hold no hive and expect none.
func (v *View) endHolds(now time.Time) {
	for _, z := range v.zones {
		if !z.on {
			if z.forgotten(now) && !z.roster.isDirty && !z.roster.Busy {
				v.Compare(z)
			}
			continue
		}
		z.look = now.Add(time.Second)
		if floor := now.Add(-brakeBurst); z.next.Before(floor) { // missed releases are not made up for
			z.next = floor
		}
		if v.apart.since.IsZero() && !z.next.After(now) {
			for h := range z.queue.Due(now) {
				h.released = true
				v.ask(h)
				if z.next = z.next.Add(time.Second / time.Duration(max(5, z.held/60))); z.next.After(now) {
					break
				}
			}
		}
		if z.holding == 0 && !v.followers(z, now) {
			z.on = false
			z.why = fmt.Sprintf("the brake is off after %.1fs: each of %d hives of %s was heard, or is lost", now.Sub(z.began).Seconds(), z.held, z.words())
			v.Compare(z)
		}
	}
}

// followers reports whether another hive that fell silent at the same time is about to be lost.
func (v *View) followers(z *Zone, now time.Time) bool {
	return slices.ContainsFunc(v.order, func(h *Hive) bool {
		return h.zone == z.name && !h.judged.After(z.began.Add(brakeWindow)) && v.silent(h, now.Add(brakeFollow))
	})
}

// nextRelease returns when endHolds has work next.
func (v *View) nextRelease() (next time.Time, ok bool) {
	for _, z := range v.zones {
		if !z.on {
			continue
		}
		at := z.look
		if due, held := z.queue.Next(); held && v.apart.since.IsZero() && latest(due, z.next).Before(at) {
			at = latest(due, z.next)
		}
		if !ok || at.Before(next) {
			next, ok = at, true
		}
	}
	return next, ok
}

// shiftBrakes adds d to the times at which hives are released: in d no answer could arrive.
func (v *View) shiftBrakes(d time.Duration) {
	for _, z := range v.zones {
		if z.on {
			z.next = z.next.Add(d)
			z.queue.Shift(d)
		}
	}
}

// The roster serialises the announcements of a brake, as it does for hives. The key of a brake has a dot, so
// it differs from the id of every hive.

const brakePrefix = "brake."

// Zone is a zone in which hives were lost, or whose brake is or was on.
type Zone struct {
	name   string
	roster RosterState // the entry of its brake: unverified while the brake is on

	lost []time.Time // when hives were lost by silence, within the window

	on        bool
	began     time.Time
	of        int                       // hives that were up before
	held      int                       // by this brake, in total
	holding   int                       // now
	queue     liveness.Deadlines[*Hive] // those that wait for their turn, which does not come earlier
	next      time.Time                 // when the next hive may be released
	look      time.Time                 // when to check whether the brake is over
	announced uint64                    // n of the event that reported this start; 0: none did
	why       string                    // of the last change
}

// Name returns the zone's label; empty for the hives without one.
func (z *Zone) Name() string { return z.name }

// On returns since when the brake is on, how many hives it holds now, and whether it is on.
func (z *Zone) On() (since time.Time, holding int, on bool) { return z.began, z.holding, z.on }

// zoneOf returns the zone, and adds it if it is not known.
func (v *View) zoneOf(name string) *Zone {
	find := func() (int, bool) {
		return slices.BinarySearchFunc(v.zones, name, func(z *Zone, name string) int { return strings.Compare(z.name, name) })
	}
	at, ok := find()
	if !ok {
		if len(v.zones) >= maxZones {
			v.zones = slices.DeleteFunc(v.zones, func(z *Zone) bool { return !z.on && z.roster.Item.N == 0 && !z.roster.isDirty && !z.roster.Busy })
			at, _ = find()
		}
		v.zones = slices.Insert(v.zones, at, &Zone{name: name})
	}
	return v.zones[at]
}

// words returns the name of the zone for people.
func (z *Zone) words() string {
	if z.name == "" {
		return "no zone"
	}
	return "zone " + z.name
}

// Key returns the key of the brake of z in the roster: brake.<zone>, or brake.=<base64> if the name of the
// zone cannot be a token of a subject.
func (z *Zone) Key() string {
	if hivebeat.ValidID(z.name) {
		return brakePrefix + z.name
	}
	return brakePrefix + "=" + base64.RawURLEncoding.EncodeToString([]byte(z.name))
}

// zoneOfKey returns the zone whose brake has this key.
func zoneOfKey(key string) (zone string, ok bool) {
	zone, ok = strings.CutPrefix(key, brakePrefix)
	if !ok || hivebeat.ValidID(zone) {
		return zone, ok
	}
	zone, ok = strings.CutPrefix(zone, "=")
	b, err := base64.RawURLEncoding.DecodeString(zone)
	return string(b), ok && err == nil
}

// rosterOn reports whether the roster says that the brake is on.
func (z *Zone) rosterOn() bool {
	return z.roster.Item.N > 0 && z.roster.Item.Live == hivebeat.Unverified
}

// forgotten reports whether the brake is on in the roster for longer than brakeForgotten.
func (z *Zone) forgotten(now time.Time) bool {
	return z.rosterOn() && z.roster.Item.Stored+now.Sub(z.roster.ReadAt) > brakeForgotten
}

// Announce returns the announcement that the brake needs now. The first queen that brakes announces the start.
// Others that brake meanwhile find it in the roster and take it as their own. The first of them whose brake
// ends announces the end.
func (z *Zone) Announce(now time.Time) (Announcement, bool) {
	var from, to string
	live := hivebeat.Alive
	on := z.rosterOn()
	switch {
	case z.on && !on && z.announced == 0:
		from, to, live = "off", "on", hivebeat.Unverified
	case !z.on && on && z.announced == z.roster.Item.N:
		from, to = "on", "off"
	case !z.on && on && z.forgotten(now):
		from, to = "on", "off"
		z.why = "the brake is off: the queen that put it on is gone"
	default:
		return Announcement{}, false
	}
	n := z.roster.Item.N + 1
	return Announcement{
		Events: []Announced{{fmt.Sprintf("%s.%d", z.Key(), n), hivebeat.EventData{
			Kind: hivebeat.KindBrake, N: n, From: from, To: to, Zone: z.name, Reason: z.why, Via: hivebeat.ViaQueen,
		}}},
		Next: ledger.RosterEntry{V: hivebeat.Version, N: n, Live: live, Zone: z.name},
	}, true
}

// learnZone applies an entry that supersedes the known one.
func (v *View) learnZone(z *Zone, item ledger.RosterItem, now time.Time) {
	z.roster.Item, z.roster.ReadAt = item, now
	if z.on && z.rosterOn() {
		z.announced = item.N
	}
	v.Compare(z)
}
