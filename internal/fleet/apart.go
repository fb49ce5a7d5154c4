package fleet

import (
	"fmt"
	"time"

	"github.com/beatfabric/hivebeat"
	"github.com/beatfabric/hivebeat/verdict"
)

// A queen that hears few hives may be cut off itself, with a minority of the servers. A replicated store
// distinguishes the two cases, because it acknowledges nothing to a minority. So a verdict by silence needs an
// acknowledgement of a request that was made after the hive was due to be heard:
//
//	deadline ─┬─ acknowledged since ─▶ lost, unless the brake holds it
//	          └─ not ─▶ this queen is apart: unverified, without an event
//	                      └─ acknowledged again ─▶ called, and E + 2 × every to be heard ─▶ judged again
//
// If only one server keeps the store, its silence says little: then the queen is apart only if it also
// hears less than half of the fleet.
const apartLeast = 4 // hives; with fewer, hearing less than half of them says nothing

// apart is whether, since when and why this queen may be cut off.
type apart struct {
	replicas int       // servers that keep the store; 0: none, and this queen is never apart
	proved   time.Time // when the last request was made that the store acknowledged
	since    time.Time // since when this queen is apart; zero: it is not
	why      string
}

// SetReplicas sets how many servers keep the store. Before the first call this queen is never apart.
func (v *View) SetReplicas(n int) { v.apart.replicas = n }

// Apart returns why this queen may be cut off itself. It is empty unless that holds back a verdict.
func (v *View) Apart() string { return v.apart.why }

// Unproved reports whether h was due to be heard, and the store has acknowledged no request made after that.
func (v *View) Unproved(h *Hive, now time.Time) bool {
	due := v.lostAt(h).Add(-2 * h.every)
	return v.apart.replicas > 0 && v.apart.proved.Before(due) && !due.After(now)
}

// Prove records that the store acknowledged a request made at asked: at that time a majority of its servers
// could reach each other and this queen.
func (v *View) Prove(asked, now time.Time) {
	a := &v.apart
	a.proved = latest(a.proved, asked)
	if a.since.IsZero() || !asked.After(a.since) {
		return
	}
	a.since, a.why = time.Time{}, ""
	for _, h := range v.order {
		if h.live != hivebeat.Late && h.live != hivebeat.Unverified {
			continue
		}
		h.blind = v.blind - v.heardAs(now).Sub(h.judged)
		if h.released {
			v.unhold(h) // a released hive is no longer in the queue of its brake
		}
		if h.heldBy != nil {
			h.heldBy.queue.Set(h, v.lostAt(h))
		} else {
			v.due.Set(h, v.lostAt(h))
		}
		if !h.windowOver { // else the check is about a closed connection, and stands
			h.check = 0
		}
		v.ready.Calls = append(v.ready.Calls, RollCall{Hive: h.id, Spread: v.Spread()})
	}
	for h := range v.adoptedHives {
		h.adoption.reg.Excuse(v.heardAs(now))
		v.watch(h, now)
	}
	v.callAdopted = len(v.adoptedHives) > 0
}

// standApart reports whether this queen must not believe the silence of h, because it may be cut off itself. If
// so, h is unverified afterwards.
func (v *View) standApart(h *Hive, why evidence, now time.Time) bool {
	a, n := &v.apart, v.lives
	heard := n[hivebeat.Alive]
	all := heard + n[hivebeat.Late] + n[hivebeat.Unverified]
	few := all >= apartLeast && 2*heard < all
	if v.rule.Off || !v.Unproved(h, now) || a.replicas == 1 && !few {
		return false
	}
	if a.since.IsZero() {
		a.since = now
		a.why = "JetStream acknowledges no request"
		if few {
			a.why += fmt.Sprintf(", and %d of %d hives are heard", heard, all)
		}
	}
	v.unhold(h)
	if h.live != hivebeat.Unverified {
		why.reason += "; not believed, because this queen may be the one that is cut off: " + a.why
		v.turn(h, hivebeat.KindUnverified, hivebeat.Unverified, hivebeat.CauseMissed, why, now)
	}
	v.due.Set(h, now.Add(verdict.LostAfter(h.every, 0)))
	return true
}
