package fleet

import (
	"maps"
	"time"

	"github.com/beatfabric/hivebeat"
)

// Ready is what followed from the inputs of a View and is to be done by its owner. Its
// lists are good until the next Take.
type Ready struct {
	Events []Happened // transitions of workers to be published, each worker's in order
	Steps  []Step     // changes of verdicts on hives, for the log
	// Checks are hives whose key must be read before they become late or lost. Each is
	// to be answered by Checked or Postpone.
	Checks []Check
	// Tellers are hives and brakes whose entry in the roster may differ from what this
	// view has to say: each is to be asked by Say.
	Tellers []Teller
	// Adoptions are hives of which that may have changed whether the beats of their
	// workers are to be given to Beat (Adopted).
	Adoptions []string
	// Calls are the roll calls to be made.
	Calls []RollCall
	// Seek are connections of hives, as their snapshots name them: where NATS says from
	// which address one was made, that is for Located.
	Seek []string
	// Notices are for hives that are refused.
	Notices []hivebeat.Notice
}

// RollCall asks for messages within Spread.
type RollCall struct {
	Hive    string
	Workers bool // the workers of that hive, else the hive itself
	Spread  time.Duration
}

// AskSpread is the spread of the roll call of a hive whose window is about to end:
// nobody else answers, and the answer has to come in time.
const AskSpread = 250 * time.Millisecond

// Take returns what followed from the inputs since the last call.
func (v *View) Take() *Ready {
	for _, h := range v.closings.TakeAsk() {
		v.ready.Calls = append(v.ready.Calls, RollCall{Hive: h.id, Spread: AskSpread})
	}
	v.ready, v.taken = v.taken, v.ready
	r, next := &v.taken, &v.ready
	clear(next.Events)
	clear(next.Checks)
	clear(next.Tellers)
	*next = Ready{
		next.Events[:0], next.Steps[:0], next.Checks[:0], next.Tellers[:0], next.Adoptions[:0], next.Calls[:0], next.Seek[:0], next.Notices[:0],
	}
	for _, t := range r.Tellers {
		switch t := t.(type) {
		case *Hive:
			t.isDirty = false
		case *Zone:
			t.isDirty = false
		}
	}
	return r
}

// Next returns when Tick has something to do next: nothing while the queen doubts
// itself.
func (v *View) Next() (time.Time, bool) {
	if !v.doubt.IsZero() {
		return time.Time{}, false
	}
	next, ok := v.due.Next()
	if at, on := v.nextRelease(); on && (!ok || at.Before(next)) {
		next, ok = at, true
	}
	if at, on := v.wardsDue.Next(); on && (!ok || at.Before(next)) {
		next, ok = at, true
	}
	if at, on := v.nextTwins(); on && (!ok || at.Before(next)) {
		next, ok = at, true
	}
	return v.closings.Next(next, ok)
}

// Len returns how many hives are known.
func (v *View) Len() int { return len(v.hives) }

// Hive returns the hive with this id, or nil. It may be known by its name alone:
// then its Live is empty.
func (v *View) Hive(id string) *Hive { return v.hives[id] }

// Has reports whether h is in the view, and was not forgotten.
func (v *View) Has(h *Hive) bool { return v.hives[h.id] == h }

// Hives returns all hives in the order of their ids. The slice is not to be kept,
// nor changed.
func (v *View) Hives() []*Hive { return v.order }

// After returns the hives whose ids come after id, in order. The slice is not to
// be kept, nor changed.
func (v *View) After(id string) []*Hive {
	at, found := v.order.find(id)
	if found {
		at++
	}
	return v.order[at:]
}

// Fresh is the age up to which a record may be shown as alive.
func (v *View) Fresh() time.Duration { return v.fresh }

// Refuse counts a message that its owner refused before it came to Apply.
func (v *View) Refuse(reason hivebeat.Reason) (n uint64) {
	v.refused[reason]++
	return v.refused[reason]
}

// Counts are what became of the snapshots.
type Counts struct {
	Accepted   uint64                     // pages taken over
	Refused    map[hivebeat.Reason]uint64 // messages that changed nothing, by reason
	Incomplete uint64                     // snapshots that a newer one replaced before all their pages came
	Workers    int                        // known now
}

// Counts returns the counts so far.
func (v *View) Counts() Counts {
	c := Counts{Accepted: v.accepted, Refused: maps.Clone(v.refused), Incomplete: v.incomplete, Workers: v.totals.Workers}
	return c
}
