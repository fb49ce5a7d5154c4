package sim

import (
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/beatfabric/hivebeat"
)

// populate creates the fleet of the plan, whose processes start within three seconds, and
// schedules the faults.
func (w *world) populate() {
	p, r := w.plan, w.stream("fleet")
	w.byName = make(map[string]*slot)
	w.net = network{Net: p.Net, rng: w.stream("net"), flows: make(map[flow]int)}
	w.store = &store{w: w, ever: make(map[string]bool)}
	w.store.wipe()
	w.pids, w.conns, w.ends = make(map[uint64]*proc), make(map[string]*connection), w.stream("ends")
	w.lives, w.beats, w.gaveUp = make(map[life]*proc), make(map[numbered]*message), make(map[life]bool)
	for i := range p.Queens {
		w.place(r, fmt.Sprintf("q%d", i+1), -1, nil, func() actor {
			return &queen{before: i < p.Before, untold: i >= p.Queens-p.Untold}
		})
	}
	for i := range p.Hives {
		id, zone := fmt.Sprintf("h%d", i+1), i%p.Zones
		machine := w.place(r, id, zone, nil, func() actor { return &hive{id: id, zone: fmt.Sprintf("z%d", zone)} })
		for k := range p.Workers {
			name := fmt.Sprintf("w%d", k+1)
			w.place(r, id+"/"+name, zone, machine, func() actor { return &worker{hive: id, id: name} })
		}
	}
	for i := range p.Faults {
		f := &p.Faults[i]
		w.at(f.At.D(), func() { w.fault(f, w.stream("fault "+f.String())) })
	}
	w.at(w.ending(), func() { // the checks at the end need a fleet that settles
		w.net.Net = Net{Delay: p.Net.Delay, Jitter: p.Net.Jitter}
	})
	w.monitor()
}

// place creates a slot, and starts its first process soon.
func (w *world) place(r *rand.Rand, name string, zone int, on *slot, next func() actor) *slot {
	s := &slot{name: name, ident: name, make: next, zone: zone, on: on}
	rival := *s
	rival.name += "'"
	s.rival = &rival
	w.slots = append(w.slots, s)
	w.byName[name] = s
	w.at(between(r, 0, 3*time.Second), func() { w.spawn(s) })
	return s
}

// spawn starts the next process of a slot, if none is running.
func (w *world) spawn(s *slot) {
	if s.cur == nil {
		s.cur = s.make()
		s.cur.base().init(w, s)
		s.cur.start()
	}
}

// ending is when all faults have ended.
func (w *world) ending() time.Duration { return w.plan.For.D() - w.plan.Settle.D() }

// until schedules f after d, but not later than ending.
func (w *world) until(d Span, f func()) { w.at(min(w.now+d.D(), w.ending()), f) }

// untilOrNever is until, but never calls f if d is 0.
func (w *world) untilOrNever(d Span, f func()) {
	if d > 0 {
		w.until(d, f)
	}
}

// meant returns the running processes that a fault affects.
func (w *world) meant(f *Fault) (list []*proc) {
	all := f.Kind == Server || f.Kind == Frozen || f.Kind == Kick && f.Who == ""
	for _, s := range w.slots {
		places := []*slot{s}
		_, isHive := s.cur.(*hive)
		switch {
		case all, f.Kind == Zone && s.zone == f.N:
			places = append(places, s.rival)
		case f.Kind == Mass && isHive && len(list) < f.N:
		case f.Kind == Machine && s.machine().name == f.Who:
		case f.Kind == Batch && s.machine().name == f.Who && !isHive:
		case f.Kind != Batch && s.name == f.Who:
		default:
			continue
		}
		for _, s := range places {
			if s.cur != nil {
				list = append(list, s.cur.base())
			}
		}
	}
	return list
}

// cutAll cuts the connections of all processes in list, for the duration of the fault.
func (w *world) cutAll(list []*proc, f *Fault) {
	for _, p := range list {
		p.cut(f.Hold, f.Notice.D())
	}
	w.until(f.For, func() {
		for _, p := range list {
			p.heal()
		}
	})
}

// fault starts one fault of the plan.
func (w *world) fault(f *Fault, r *rand.Rand) {
	w.trace("FAULT", "%s", f)
	s, list := w.byName[f.Who], w.meant(f)
	switch {
	case f.Kind == Storage || f.Kind == Wipe || f.Kind == Frozen:
		w.store.awayBy(1)
		w.until(f.For, func() {
			w.store.awayBy(-1)
			if f.Kind == Wipe {
				w.store.wipe()
			}
			w.trace("stream", "JetStream is available, epoch %d", w.store.epoch)
		})
		w.cutAll(list, f) // of a frozen server
	case f.Kind == Server:
		w.store.awayBy(1)
		w.serverGone++
		w.server++
		for _, p := range list {
			p.cut(false, 0)
		}
		w.until(f.For, func() {
			w.store.awayBy(-1)
			w.serverGone--
			for _, p := range w.meant(f) { // and those that started in the meantime
				p.heal()
			}
		})
	case f.Kind == Cut || f.Kind == Zone:
		w.cutAll(list, f)
	case f.Kind == Kick && f.Who == "":
		r.Shuffle(len(list), func(i, j int) { list[i], list[j] = list[j], list[i] })
		for _, p := range list[:min(f.N, len(list))] {
			w.at(w.now+between(r, 0, f.By.D()), p.kick)
		}
	case f.Kind == Strangers && w.plan.Closings > 0:
		w.strangers(r, f)
	case f.Kind == Badnet:
		before := w.net.Net
		w.net.Net = *f.Net
		w.until(f.For, func() { w.net.Net = before })
	case f.Kind == Clock && s != nil:
		s.wall += f.By.D()
	case f.Kind == Rival && s != nil:
		w.spawn(s.rival)
		w.until(f.For, func() {
			if s.rival.cur != nil {
				s.rival.cur.base().kill()
			}
		})
	default:
		for _, p := range list {
			p.fault(f, r)
		}
	}
}

// fault starts a fault that affects only p.
func (p *proc) fault(f *Fault, r *rand.Rand) {
	w := p.w
	k, isWorker := p.self.(*worker)
	switch {
	case f.Kind == Pause:
		p.suspend()
		w.until(f.For, p.resume)
	case f.Kind == Crash || f.Kind == Machine || f.Kind == Mass || f.Kind == Batch:
		p.kill()
		w.untilOrNever(f.For, func() { w.spawn(p.slot) })
	case f.Kind == Leave:
		p.quit()
		w.untilOrNever(f.For, func() { w.spawn(p.slot) })
	case f.Kind == Kick:
		p.kick()
	case f.Kind == Quiet && isWorker:
		k.fallSilent(f.By.D())
		// The worker blocks once it has announced that, for the same time.
		k.after(time.Second, func() {
			k.suspend()
			w.until(f.By, k.resume)
		})
	case (f.Kind == Hang || f.Kind == Idle) && isWorker && w.plan.Stall > 0:
		k.hang(f.Kind == Idle, f.For)
	case f.Kind == Change && isWorker:
		for i := range f.N {
			state := []hivebeat.State{hivebeat.Degraded, hivebeat.Ready}[i%2]
			k.after(between(r, 0, min(f.For.D(), w.ending()-w.now)), func() { k.change(state) })
		}
	case f.Kind == Deaf && p.observes != nil:
		p.observes.deafen(f.For)
	case f.Kind == Dropping:
		p.drop = f.N
		w.until(f.For, func() { p.drop = 0 })
	}
}
