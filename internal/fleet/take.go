package fleet

import (
	"maps"
	"time"

	"github.com/beatfabric/hivebeat"
)

// swap returns what gathered, and goes on with what was taken before: two slices
// in turn, so that nothing is allocated in steady state.
func swap[T any](gathering, taken *[]T) []T {
	list := *gathering
	clear(*taken)
	*gathering, *taken = (*taken)[:0], list
	return list
}

// TakeEvents returns the transitions of workers since the last call, each worker's
// in order. The list is good until the next call.
func (v *View) TakeEvents() []Happened { return swap(&v.events, &v.eventsTaken) }

// TakeChecks returns the hives whose key must be read before they become late or
// lost. Each is to be answered by Checked or Postpone. The list is good until the
// next call.
func (v *View) TakeChecks() []Check { return swap(&v.checks, &v.checksTaken) }

// TakeSteps returns the changes of verdicts on hives since the last call. The list
// is good until the next call.
func (v *View) TakeSteps() []Step { return swap(&v.steps, &v.stepsTaken) }

// TakeDirty returns the hives whose verdict, or whose entry in the roster, may
// have changed since the last call: each is to be asked for its Difference. The
// list is good until the next call.
func (v *View) TakeDirty() []*Hive {
	list := swap(&v.dirty, &v.dirtyTaken)
	for _, h := range list {
		h.isDirty = false
	}
	return list
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
