package fleet

import (
	"encoding/base64"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/beatfabric/hivebeat"
	"github.com/beatfabric/hivebeat/internal/ledger"
)

// Zone is a zone in which hives were lost, or its brake is or was on.
type Zone struct {
	name string
	Book Book // what the roster says of its brake: unverified while that is on

	lost     []time.Time // when hives were believed to be lost by silence, in the window
	assessed time.Time
	limit    int

	on      bool
	began   time.Time
	of      int // hives that were up before
	held    int // by this brake, in all
	holding int // now
	queue   []holding
	next    time.Time // when the next one may be released
	look    time.Time // when to look whether it is over
	told    uint64    // n of the event that told this start; 0: none did
	why     string    // of the last change
	isDirty bool
}

// Name is the zone's label; empty for the hives that have none.
func (z *Zone) Name() string { return z.name }

// On reports whether the brake is on, since when, and how many hives it holds now.
func (z *Zone) On() (since time.Time, holding int, on bool) { return z.began, z.holding, z.on }

// zoneOf returns the zone and makes it where it is not known.
func (v *View) zoneOf(name string) *Zone {
	at, ok := slices.BinarySearchFunc(v.zones, name, func(z *Zone, name string) int { return strings.Compare(z.name, name) })
	if ok {
		return v.zones[at]
	}
	if len(v.zones) >= maxZones {
		v.zones = slices.DeleteFunc(v.zones, func(z *Zone) bool { return !z.on && z.Book.Item.N == 0 && !z.isDirty && !z.Book.Busy })
		at, _ = slices.BinarySearchFunc(v.zones, name, func(z *Zone, name string) int { return strings.Compare(z.name, name) })
	}
	z := &Zone{name: name}
	v.zones = slices.Insert(v.zones, at, z)
	return z
}

// CompareZone puts z among those to be compared with the roster.
func (v *View) CompareZone(z *Zone) {
	if !z.isDirty {
		z.isDirty = true
		v.ready.Tellers = append(v.ready.Tellers, z)
	}
}

// words names the zone, for people.
func (z *Zone) words() string {
	if z.name == "" {
		return "no zone"
	}
	return "zone " + z.name
}

// Key of the brake of z in the roster: brake.<zone>, and brake.=<base64> where the
// zone is no token.
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

// tellsOn reports whether the roster says that the brake is on.
func (z *Zone) tellsOn() bool { return z.Book.Item.N > 0 && z.Book.Item.Live == hivebeat.Unverified }

// forgotten reports whether the roster says for too long that a brake is on of
// which this queen knows nothing.
func (z *Zone) forgotten(now time.Time) bool {
	return z.tellsOn() && z.Book.Item.Stored+now.Sub(z.Book.ReadAt) > brakeForgotten
}

// Say returns what is to be told of the brake. A start is told once, by the first
// queen that brakes: others that brake meanwhile find it in the roster, and have
// told it too. The end is told by the first of them that is done.
func (z *Zone) Say(now time.Time) (Saying, bool) {
	var from, to string
	live := hivebeat.Alive
	on := z.tellsOn()
	switch {
	case z.on && !on && z.told == 0:
		from, to, live = "off", "on", hivebeat.Unverified
	case !z.on && on && z.told == z.Book.Item.N:
		from, to = "on", "off"
	case !z.on && on && z.forgotten(now):
		from, to = "on", "off"
		z.why = "the brake is off: whoever put it on is gone"
	default:
		return Saying{}, false
	}
	n := z.Book.Item.N + 1
	return Saying{
		Events: []Told{{fmt.Sprintf("%s.%d", z.Key(), n), hivebeat.EventData{
			Kind: hivebeat.KindBrake, N: n, From: from, To: to, Zone: z.name, Reason: z.why, Via: hivebeat.ViaQueen,
		}}},
		Next: ledger.RosterEntry{V: hivebeat.Version, N: n, Live: live, Zone: z.name},
	}, true
}

// learn takes an entry of the roster.
func (v *View) learnZone(z *Zone, item ledger.RosterItem, now time.Time) {
	if !z.Book.isNews(&item) {
		return
	}
	z.Book.Item, z.Book.ReadAt = item, now
	if z.on && z.tellsOn() {
		z.told = item.N
	}
	v.CompareZone(z)
}
