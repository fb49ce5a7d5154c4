package fleet

import (
	"time"

	"github.com/beatfabric/hivebeat"
	"github.com/beatfabric/hivebeat/internal/ledger"
)

// Teller is what the roster has an entry for: a Hive, or the brake of a Zone.
type Teller interface {
	Key() string // in the roster
	Roster() *Book
	Say(now time.Time) (Saying, bool)
}

// Saying is what is to be told next, and the entry that is to hold it, but for the
// events themselves: one of a hive or a brake, and up to sayMost of the workers of
// a hive, each of another worker, with the numbers up to Next.N.
type Saying struct {
	Events []Told
	Next   ledger.RosterEntry
}

// Told is one event of a Saying.
type Told struct {
	ID   string
	Data hivebeat.EventData
}

// Key is its id.
func (h *Hive) Key() string { return h.id }

// Roster is what the roster says of it.
func (h *Hive) Roster() *Book { return &h.Book }

// Roster is what the roster says of its brake.
func (z *Zone) Roster() *Book { return &z.Book }

// Say returns what is to be told of h now: its Difference to the roster.
func (h *Hive) Say(now time.Time) (Saying, bool) {
	kind, to, ok := h.Difference(now)
	if !ok {
		s, ok := h.sayWorkers(now)
		h.Book.says(&s, ok)
		return s, ok
	}
	data, next := h.Next(kind, to, now)
	s := Saying{[]Told{{hivebeat.HiveEventID(h.id, next.N), data}}, next}
	h.Book.says(&s, true)
	return s, true
}

// Knows reports whether t is still in the view.
func (v *View) Knows(t Teller) bool {
	if h, ok := t.(*Hive); ok {
		return v.Has(h)
	}
	return true
}

// CompareAgain puts t among those to be compared with the roster.
func (v *View) CompareAgain(t Teller) {
	switch t := t.(type) {
	case *Hive:
		v.Compare(t)
	case *Zone:
		v.CompareZone(t)
	}
}

// LearnKey takes an entry of the roster, of a hive or of the brake of a zone.
func (v *View) LearnKey(key string, item ledger.RosterItem, now time.Time) Teller {
	if zone, ok := zoneOfKey(key); ok {
		z := v.zoneOf(zone)
		v.learnZone(z, item, now)
		return z
	}
	return v.Learn(key, item, now)
}

// UnlearnKey notes that the roster has no entry under this key.
func (v *View) UnlearnKey(key string, expired bool) {
	if zone, ok := zoneOfKey(key); ok {
		z := v.zoneOf(zone)
		if z.Book.Item.Revision > 0 { // it is to go on where it was
			z.Book.Item.Revision = 0
			v.CompareZone(z)
		}
		return
	}
	v.Unlearn(key, expired)
}

// EachKey yields every key that the roster should have.
func (v *View) EachKey(yield func(key string)) {
	for _, h := range v.order {
		yield(h.id)
	}
	for _, z := range v.zones {
		if z.Book.Item.N > 0 {
			yield(z.Key())
		}
	}
}

// Teller returns whom this view has for a key of the roster, or nil.
func (v *View) Teller(key string) Teller {
	if zone, ok := zoneOfKey(key); ok {
		return v.zoneOf(zone)
	}
	if h := v.hives[key]; h != nil {
		return h
	}
	return nil
}
