package sim

import (
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/beatfabric/hivebeat"
)

// populate makes the fleet of the plan, and lets it begin within three seconds.
func (w *world) populate() {
	p, r := w.plan, w.stream("fleet")
	w.byName = make(map[string]*slot)
	w.net = network{Net: p.Net, rng: w.stream("net"), flows: make(map[flow]int)}
	w.store = newStore(w)
	w.pids, w.ends = make(map[uint64]*proc), w.stream("ends")
	w.truth.init(w)
	for i := range p.Queens {
		w.place(r, fmt.Sprintf("q%d", i+1), nil, func(s *slot) actor {
			q := &queen{}
			q.init(w, s, q)
			return q
		})
	}
	for i := range p.Hives {
		id, zone := fmt.Sprintf("h%d", i+1), fmt.Sprintf("z%d", i%p.Zones)
		machine := w.place(r, id, nil, func(s *slot) actor {
			h := &hive{id: id, zone: zone, every: p.HiveEvery.D(), paged: p.Paged}
			h.init(w, s, h)
			return h
		})
		for k := range p.Workers {
			name := fmt.Sprintf("w%d", k+1)
			w.place(r, id+"/"+name, machine, func(s *slot) actor {
				k := &worker{hive: id, id: name, every: p.WorkerEvery.D()}
				k.init(w, s, k)
				return k
			})
		}
	}
	for i := range p.Faults {
		f := &p.Faults[i]
		fr := w.stream("fault " + f.String())
		w.at(f.At.D(), func() { w.fault(f, fr) })
	}
	w.at(w.ending(), func() { // what is held against the truth at the end is what settles
		n := w.plan.Net
		w.net.Net = Net{Delay: n.Delay, Jitter: n.Jitter}
	})
	w.monitor()
}

func (w *world) place(r *rand.Rand, name string, on *slot, next func(*slot) actor) *slot {
	s := &slot{name: name, ident: name, make: next, on: on}
	s.rival = &slot{name: name + "'", ident: name, make: next, on: on}
	w.slots = append(w.slots, s)
	w.byName[name] = s
	w.at(between(r, 0, 3*time.Second), func() { w.spawn(s) })
	return s
}

// spawn starts the next process of a slot, where there is none.
func (w *world) spawn(s *slot) {
	if s.cur == nil {
		s.cur = s.make(s)
		s.cur.start()
	}
}

// ending is when faults must be over.
func (w *world) ending() time.Duration { return w.plan.For.D() - w.plan.Settle.D() }

func (w *world) until(d Span, f func()) { w.at(min(w.now+d.D(), w.ending()), f) }

// procs are those that run now and are meant by which.
func (w *world) procs(which func(s *slot) bool) (list []*proc) {
	for _, s := range w.slots {
		for _, s := range []*slot{s, s.rival} {
			if s.cur != nil && which(s) {
				list = append(list, s.cur.base())
			}
		}
	}
	return list
}

// fault lets one fault happen.
func (w *world) fault(f *Fault, r *rand.Rand) {
	w.trace("FAULT", "%s", f)
	s := w.byName[f.Who]
	switch f.Kind {
	case Storage, Wipe:
		w.store.away++
		w.until(f.For, func() {
			w.store.back()
			if f.Kind == Wipe {
				w.store.wipe()
			}
			w.trace("stream", "JetStream is there, epoch %d", w.store.epoch)
		})
		return
	case Server:
		w.store.away++
		w.serverGone++
		w.server++
		w.until(f.For, func() {
			w.store.back()
			w.serverGone--
			for _, p := range w.orphans {
				p.heal()
			}
			if w.serverGone == 0 {
				w.orphans = nil
			}
		})
		w.cutAll(w.procs(func(*slot) bool { return true }), false, 0, f.For)
		return
	case Kick:
		if s == nil {
			list := w.procs(func(*slot) bool { return true })
			r.Shuffle(len(list), func(i, j int) { list[i], list[j] = list[j], list[i] })
			for _, p := range list[:min(f.N, len(list))] {
				w.at(w.now+between(r, 0, f.By.D()), p.kick)
			}
			return
		}
	case Zone:
		w.cutAll(w.procs(func(s *slot) bool { return w.zoneOf(s) == f.N }), f.Hold, f.Notice.D(), f.For)
		return
	case Mass:
		n := 0
		for _, s := range w.slots {
			if _, ok := s.cur.(*hive); ok && n < f.N {
				n++
				w.crash(s, f.For)
			}
		}
		return
	case Strangers:
		w.strangers(r, f)
		return
	case Badnet:
		before := w.net.Net
		w.net.Net = *f.Net
		w.until(f.For, func() { w.net.Net = before })
		return
	}
	if s == nil {
		return
	}
	switch f.Kind {
	case Clock:
		s.wall += f.By.D()
		return
	case Rival:
		w.spawn(s.rival)
		w.until(f.For, func() {
			if s.rival.cur != nil {
				s.rival.cur.base().kill()
			}
		})
		return
	case Machine:
		for _, k := range w.slots {
			if k == s || k.on == s {
				w.crash(k, f.For)
			}
		}
		return
	}
	if s.cur == nil {
		return
	}
	p := s.cur.base()
	switch f.Kind {
	case Pause:
		p.suspend()
		w.until(f.For, p.resume)
	case Crash:
		w.crash(s, f.For)
	case Kick:
		p.kick()
	case Leave:
		s.cur.goodbye()
		if f.For > 0 {
			w.until(f.For, func() { w.spawn(s) })
		}
	case Cut:
		w.cutAll([]*proc{p}, f.Hold, f.Notice.D(), f.For)
	case Quiet:
		if k, ok := s.cur.(*worker); ok {
			k.fallSilent(f.By.D())
			// It blocks once it has announced it, for as long as that.
			k.after(time.Second, func() {
				k.suspend()
				w.until(f.By, k.resume)
			})
		}
	case Hang, Idle:
		if k, ok := s.cur.(*worker); ok {
			k.hang(f.Kind == Idle, f.For)
		}
	case Deaf:
		p.deafen(f.For)
	case Change:
		if k, ok := s.cur.(*worker); ok {
			for i := range f.N {
				state := []hivebeat.State{hivebeat.Degraded, hivebeat.Ready}[i%2]
				k.after(between(r, 0, min(f.For.D(), w.ending()-w.now)), func() { k.change(state) })
			}
		}
	case Dropping:
		p.drop = f.N
		w.until(f.For, func() { p.drop = 0 })
	}
}

func (w *world) zoneOf(s *slot) int {
	if s.on != nil {
		s = s.on
	}
	for i := range w.plan.Hives {
		if s.ident == fmt.Sprintf("h%d", i+1) {
			return i % w.plan.Zones
		}
	}
	return -1
}

func (w *world) cutAll(list []*proc, hold bool, notice time.Duration, d Span) {
	for _, p := range list {
		p.cut(hold, notice)
	}
	w.until(d, func() {
		for _, p := range list {
			p.heal()
		}
	})
}

// crash kills who runs in s, and begins another after d, if that is above 0.
func (w *world) crash(s *slot, d Span) {
	if s.cur == nil {
		return
	}
	s.cur.base().kill()
	if d > 0 {
		w.until(d, func() { w.spawn(s) })
	}
}
