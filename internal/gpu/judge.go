package gpu

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/beatfabric/hivebeat"
	"github.com/beatfabric/hivebeat/internal/plaintext"
)

const (
	// maxBoots is how many reboots a fault may outlive before the GPU must be replaced.
	maxBoots = 2
	// forgive is how long a GPU must be without a fault before earlier reboots no longer
	// count.
	forgive = 24 * time.Hour
)

// rank orders states by how bad they are.
func rank(s hivebeat.GPUState) int {
	switch s {
	case hivebeat.GPUOK, "":
		return 0
	case hivebeat.GPUDegraded:
		return 1
	case hivebeat.GPUUnknown:
		return 2
	}
	return 3
}

// settle concludes a reading of d: whether it ends a fault that an incident found.
func (d *device) settle(now time.Time) {
	good := d.gpu.Err == ""
	for i := range d.faults {
		good = good && !d.faults[i].State.Bad()
	}
	if !good {
		d.clean = time.Time{}
	} else if d.clean.IsZero() {
		d.clean = now
	}
	if p := d.pending; p != nil {
		switch {
		case !good:
			p.good = 0
		case now.Sub(p.at) >= settleAfter:
			if p.good++; p.good >= settleReadings {
				d.pending = nil
			}
		}
	}
}

// own returns the worst fault that is known of d itself.
func (d *device) own() (worst Fault) {
	list := d.faults
	if d.pending != nil {
		list = append(list[:len(list):len(list)], d.pending.Fault)
	}
	if d.stuck != nil {
		list = append(list[:len(list):len(list)], *d.stuck)
	}
	for i := range list {
		if rank(list[i].State) > rank(worst.State) {
			worst = list[i]
		}
	}
	if d.stuck != nil && worst.State.Bad() {
		worst = *d.stuck
	}
	return worst
}

// aged counts the reboots that the fault of d has outlived, and finds those that only a
// replacement ends.
func (d *device) aged(now time.Time) {
	v := d.own()
	switch {
	case v.State.Bad() && v.Action == hivebeat.ActionReplace:
		d.stuck = &v
	case d.boots == 0:
	case v.State.Bad() && !same(v, d.before):
		d.boots = 0
	case v.State.Bad() && d.boots >= maxBoots:
		v.Evidence += fmt.Sprintf("; the same after %d reboots", d.boots)
		v.Action = hivebeat.ActionReplace
		d.stuck = &v
	case v.State == "" && !d.clean.IsZero() && now.Sub(d.clean) >= forgive:
		d.boots = 0
	}
}

// same reports whether two faults have the same reason. The evidence of an XID begins
// with its number, and a colon follows.
func same(a, b Fault) bool {
	if a.Cause != b.Cause || a.Cause != hivebeat.CauseXID {
		return a.Cause == b.Cause
	}
	x, _, _ := strings.Cut(a.Evidence, ":")
	y, _, _ := strings.Cut(b.Evidence, ":")
	return x == y
}

// limit returns how long d may stay unread before it is unknown.
func (d *device) limit() time.Duration {
	if d.source == nil {
		return 0
	}
	return max(leastUnread, slowUnread*d.source.took)
}

// unread reports whether d was not read for too long, or may be the GPU that the driver
// reports as lost without saying which: then the next reading that has d clears it.
func (d *device) unread(now time.Time) bool {
	return d.heard.IsZero() || now.Sub(d.heard) >= d.limit() || d.gpu.Err != "" && d.source.stray != ""
}

// why says why d could not be read.
func (d *device) why() string {
	switch s := d.source; {
	case s == nil:
		return "not read since the hive began"
	case d.gpu.Err != "":
		return d.gpu.Err
	case s.none:
		return s.name + " finds no driver and no GPU"
	case s.err != nil:
		return s.err.Error()
	}
	return "no reading within " + d.limit().String()
}

// judge concludes the state of every GPU.
func (f *Fleet) judge(now time.Time) {
	for key, d := range f.devices {
		if d.source == nil && d.missing == "" && f.lacked() {
			d.missing = "missing since the hive began: no good reading has it"
		}
		d.aged(now)
		if d.verdict.State != "" && !d.verdict.State.Usable() && now.Sub(d.seen) >= KeepKnown {
			delete(f.devices, key)
		}
	}
	list := f.sorted()
	machine := Fault{}
	for _, d := range list {
		// A lost GPU recovers only by a reboot, but the others work on.
		if v := d.own(); d.missing == "" && v.State == hivebeat.GPUFailing && v.Action == hivebeat.ActionReboot && v.Cause != hivebeat.CauseLostGPU {
			machine = Fault{
				State: hivebeat.GPUFailing, Cause: hivebeat.CauseMachine, Action: hivebeat.ActionReboot,
				Evidence: fmt.Sprintf("GPU %d (%s) needs a reboot: %s", d.gpu.Index, d.key, v.Evidence),
			}
			break
		}
	}
	for _, d := range list {
		f.conclude(now, d, d.raw(now, machine))
	}
}

// lacked reports whether a recalled GPU that no Reader has seen is gone: every Reader has
// answered, at least one has read GPUs, and none has read only a part of them.
func (f *Fleet) lacked() bool {
	good := false
	for _, s := range f.sources {
		if !s.heard || s.err != nil && !errors.Is(s.err, ErrNone) || s.partial != nil {
			return false
		}
		good = good || s.err == nil
	}
	return good
}

// raw returns the state of d, before flapping is considered.
func (d *device) raw(now time.Time, machine Fault) Fault {
	v := d.own()
	switch {
	case d.missing != "":
		g := Fault{State: hivebeat.GPUGone, Cause: hivebeat.CauseMissing, Evidence: d.missing}
		if v.State.Bad() {
			g.Action, g.Evidence = v.Action, g.Evidence+"; before: "+v.Evidence
		}
		return g
	case v.State.Bad():
		return v
	case machine.State != "":
		return machine
	case d.unread(now):
		return Fault{State: hivebeat.GPUUnknown, Cause: hivebeat.CauseUnread, Evidence: d.why()}
	case v.State != "":
		return v
	}
	return Fault{State: hivebeat.GPUOK}
}

// conclude gives d the state raw, unless d flaps, and announces what changed.
func (f *Fleet) conclude(now time.Time, d *device, raw Fault) {
	d.flaps.see(now, raw)
	v := raw
	if d.flaps.hides(raw.State) {
		v = d.flaps.verdict()
	}
	v.Cause = hivebeat.Cause(plaintext.Clip(string(v.Cause), hivebeat.MaxState))
	v.Evidence, v.Action = plaintext.Clip(v.Evidence, hivebeat.MaxReason), plaintext.Clip(v.Action, hivebeat.MaxState)
	was := d.verdict
	d.verdict = v
	if was.State != v.State {
		d.since = now
	}
	kind := d.flaps.next(now, v)
	t := hivebeat.GPUTransition{
		Kind: kind, GPU: d.key, Index: d.gpu.Index, From: was.State, To: v.State, Cause: v.Cause, Evidence: v.Evidence, Action: v.Action,
	}
	switch {
	case kind != "":
		f.announce(now, t)
	case was.State != v.State && d.known: // not worth an event
		f.changes = append(f.changes, Change(t))
	}
	d.known = d.known || !d.heard.IsZero()
}

// Next returns when Tick is due. It reports false if time alone changes nothing.
func (f *Fleet) Next() (at time.Time, ok bool) {
	by := func(t time.Time) {
		if !ok || t.Before(at) {
			at, ok = t, true
		}
	}
	for _, d := range f.devices {
		if d.verdict.State.Usable() {
			by(d.heard.Add(d.limit()))
		} else {
			by(d.seen.Add(KeepKnown))
		}
		if t, ok := d.flaps.ends(); ok {
			by(t)
		}
	}
	return at, ok
}
