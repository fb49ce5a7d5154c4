package gpu

import (
	"fmt"
	"slices"
	"time"

	"github.com/beatfabric/hivebeat"
)

// A GPU whose state changes repeatedly is damped: its first changes are announced, and
// then only the end.
const (
	flapTurns  = 3                // changes for the worse …
	flapWithin = time.Hour        // … within this time
	flapCalm   = 10 * time.Minute // how long a GPU must stay well before its changes are announced again
)

// flaps decides which changes of a GPU are announced. The zero value is that of a GPU
// whose changes all are.
type flaps struct {
	told     hivebeat.GPUState // as announced last; empty: ok
	replaced bool              // the announced fault had the action replace
	turns    []turn            // announced changes for the worse within flapWithin
	damped   bool
	worst    int    // rank of the worst state that was announced while damped
	last     string // evidence of the last fault

	raw    hivebeat.GPUState // as it is, damped or not
	steady time.Time         // since when raw has been the same
	usable time.Time         // since when raw has been usable; zero: it is not
}

type turn struct {
	at  time.Time
	bad bool
}

// see notes the state as it is, and ends the damping of a GPU that was well for long
// enough.
func (p *flaps) see(now time.Time, v Fault) {
	if v.State != p.raw {
		p.raw, p.steady = v.State, now
	}
	switch {
	case !v.State.Usable():
		p.usable = time.Time{}
	case p.usable.IsZero():
		p.usable = now
	}
	if v.State.Bad() {
		p.last = v.Evidence
	}
	if end, ok := p.ends(); ok && !now.Before(end) {
		p.damped, p.worst, p.turns = false, 0, nil
	}
}

// ends returns when the damping ends, if nothing changes until then.
func (p *flaps) ends() (time.Time, bool) {
	switch {
	case !p.damped || p.usable.IsZero():
		return time.Time{}, false
	case p.failed() >= flapTurns:
		return p.usable.Add(flapCalm), true
	}
	return p.steady.Add(flapCalm), true
}

// failed counts the turns to a state that is bad.
func (p *flaps) failed() (n int) {
	for _, t := range p.turns {
		if t.bad {
			n++
		}
	}
	return n
}

// hides reports whether a usable state is hidden, because the GPU failed repeatedly.
func (p *flaps) hides(s hivebeat.GPUState) bool {
	return p.damped && s.Usable() && p.failed() >= flapTurns
}

func (p *flaps) verdict() Fault {
	return Fault{
		State: hivebeat.GPUDegraded, Cause: hivebeat.CauseFlapping,
		Evidence: fmt.Sprintf("failed %d times within an hour, and works now; the last time: %s", p.failed(), p.last),
	}
}

// next returns the kind of transition that announces the state v, or nothing.
func (p *flaps) next(now time.Time, v Fault) (kind hivebeat.Kind) {
	replace := v.Action == hivebeat.ActionReplace
	switch {
	case v.State == hivebeat.GPUGone && p.told != v.State:
		kind = hivebeat.KindGPULost
	case v.State.Bad() && (p.told != v.State || replace && !p.replaced):
		kind = hivebeat.KindGPUFailing
	case v.State == hivebeat.GPUDegraded && p.told == "":
		kind = hivebeat.KindGPUDegraded
	case v.State == hivebeat.GPUDegraded && p.told.Bad(), v.State == hivebeat.GPUOK && p.told != "":
		kind = hivebeat.KindGPURecovered
	default:
		return ""
	}
	severity := rank(v.State)
	if kind == hivebeat.KindGPURecovered {
		severity = 0
	}
	if p.damped && severity <= p.worst && !(replace && !p.replaced) {
		return ""
	}
	p.told, p.replaced = v.State, replace
	if v.State == hivebeat.GPUOK {
		p.told = ""
	}
	if severity > 0 {
		p.turns = slices.DeleteFunc(p.turns, func(t turn) bool { return now.Sub(t.at) >= flapWithin })
		p.turns = append(p.turns, turn{now, v.State.Bad()})
		p.damped = p.damped || len(p.turns) >= flapTurns
		p.worst = severity
	}
	return kind
}
