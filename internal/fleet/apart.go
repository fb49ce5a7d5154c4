package fleet

import (
	"fmt"
	"time"

	"github.com/beatfabric/hivebeat"
	"github.com/beatfabric/hivebeat/internal/liveness"
)

// A queen that hears few hives may itself be the one that is cut off, with a minority of the servers. A store
// that most of its servers keep tells the two cases apart, as it acknowledges nothing to a minority. So a
// verdict by silence needs an acknowledgement that was asked for after the hive was due to be heard:
//
//	deadline ─┬─ acknowledged since ─▶ lost, unless the brake holds it
//	          └─ not ─▶ this queen is apart: unverified, without an event
//	                      └─ acknowledged again ─▶ called, and E + 2 × every to be heard ─▶ judged again
//
// If only one server keeps the store, its silence says little: then the queen is apart only if it also
// hears less than half of the fleet.
const apartLeast = 4 // hives; with fewer, hearing less than half of them says nothing

// apart is what a view knows of its being apart.
type apart struct {
	replicas int       // of the store; 0: there is none, and this queen is never apart
	proved   time.Time // when the request was made that the store acknowledged last
	since    time.Time // since when this queen is apart; zero: it is not
	why      string
}

// SetReplicas says how many servers keep the store. Until it is called this queen is never apart.
func (v *View) SetReplicas(n int) { v.apart.replicas = n }

// Apart says why this queen may be the one that is cut off. It is empty unless a verdict was held back
// for that.
func (v *View) Apart() string { return v.apart.why }

// Unproved reports whether h was due to be heard and the store acknowledged no request made since.
func (v *View) Unproved(h *Hive, now time.Time) bool {
	due := v.lostAt(h).Add(-2 * h.every)
	return v.apart.replicas > 0 && v.apart.proved.Before(due) && !due.After(now)
}

// Prove notes that the store acknowledged a request made at asked: most of its servers were then in touch
// with each other and with this queen.
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
			v.unhold(h) // otherwise it is never released again
		}
		if h.heldBy != nil {
			h.releaseAt = v.lostAt(h)
		} else {
			v.due.Set(h, v.lostAt(h))
		}
		if !h.windowOver { // otherwise a connection that closed is being judged
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

// standApart reports whether this queen does not believe the silence of h, as it may be the one that is cut
// off. It makes h unverified.
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
		a.why = "JetStream acknowledges nothing"
		if few {
			a.why += fmt.Sprintf(", and %d of %d hives are heard", heard, all)
		}
	}
	v.unhold(h)
	if h.live != hivebeat.Unverified {
		why.reason += "; not believed, as this queen may be the one that is cut off: " + a.why
		v.turn(h, hivebeat.KindUnverified, hivebeat.Unverified, hivebeat.CauseMissed, why, now)
	}
	v.due.Set(h, now.Add(liveness.LostAfter(h.every, 0)))
	return true
}
