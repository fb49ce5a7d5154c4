package index

import "github.com/beatfabric/hivebeat"

// Mix is a combination of properties that workers are counted by, as they are shown.
type Mix struct {
	Live  hivebeat.Live
	State hivebeat.State
	Model string
}

// count counts the workers of one mix on a hive, in a zone or in the fleet. up is the count of the next
// level.
type count struct {
	Mix
	n   int
	up  *count
	pos int // in the list of its level
}

func (c *count) add(d int) {
	for ; c != nil; c = c.up {
		c.n += d
	}
}

// counts are the counts of one hive, one zone or the fleet. Empty counts are removed. The list exists
// because iterating over the map is far slower.
type counts struct {
	byMix map[Mix]*count
	list  []*count
}

// get returns the count of m, and creates it if there is none. A new count has the result of up as its
// next level.
func (cs *counts) get(m Mix, up func() *count) *count {
	c := cs.byMix[m]
	if c == nil {
		c = &count{Mix: m, pos: len(cs.list)}
		if up != nil {
			c.up = up()
		}
		if cs.byMix == nil {
			cs.byMix = make(map[Mix]*count)
		}
		cs.byMix[m] = c
		cs.list = append(cs.list, c)
	}
	return c
}

// sweep removes the count of m if it is empty.
func (cs *counts) sweep(m Mix) {
	c := cs.byMix[m]
	if c == nil || c.n != 0 {
		return
	}
	delete(cs.byMix, m)
	last := len(cs.list) - 1
	cs.list[c.pos] = cs.list[last]
	cs.list[c.pos].pos = c.pos
	cs.list[last] = nil
	cs.list = cs.list[:last]
}

func (cs *counts) each(yield func(Mix, int)) {
	for _, c := range cs.list {
		yield(c.Mix, c.n)
	}
}

// Load adds up the work of workers: busy slots, all slots, queued requests.
type Load struct{ Busy, Slots, Queue uint64 }

// add adds o, or with a d of -1 subtracts it.
func (l *Load) add(o Load, d int) {
	l.Busy += o.Busy * uint64(d)
	l.Slots += o.Slots * uint64(d)
	l.Queue += o.Queue * uint64(d)
}

// VRAM is memory of GPUs, in bytes, with the parts of hivebeat.GPU.
type VRAM struct{ Total, Used, Ours, Orphaned, Foreign, Unattributed, Reserved uint64 }

// add adds o, or with a d of -1 subtracts it.
func (v *VRAM) add(o VRAM, d int) {
	v.Total += o.Total * uint64(d)
	v.Used += o.Used * uint64(d)
	v.Ours += o.Ours * uint64(d)
	v.Orphaned += o.Orphaned * uint64(d)
	v.Foreign += o.Foreign * uint64(d)
	v.Unattributed += o.Unattributed * uint64(d)
	v.Reserved += o.Reserved * uint64(d)
}

// Totals count the fleet, as of the last Settle.
type Totals struct {
	Hives   map[hivebeat.Live]int // hives with a verdict
	Closed  int                   // workers whose connection closed and that were not heard since
	Looping int                   // workers that restart over and over
	Warming int                   // hives that restarted and may not know all their workers yet
	Workers int
	Load    Load           // of workers that are alive
	GPUs    int            // ok or degraded ones of fresh hives that are up
	VRAM    VRAM           // of the same GPUs
	Stale   uint64         // bytes of memory of the other GPUs of hives that are up
	States  GPUCounts      // of the GPUs of hives that are up
	Stats   hivebeat.Stats // the sum over all hives
}

// share is the part of a hive in the totals.
type share struct {
	live    hivebeat.Live
	warming bool
	gpus    int
	vram    VRAM
	stale   uint64
	states  GPUCounts
	stats   hivebeat.Stats
}

// shown is how a worker is shown and counted, as of the last Settle.
type shown struct {
	count *count // nil: not counted yet
	counted
	loads   bool   // it is among the loaders of its hive
	held    uint64 // slots
	given   uint64 // slots that it was picked for since its facts with seq givenAt
	givenAt uint64
	labels  map[string]string // as they were counted
	pool    *Pool[*Worker]
	freeOf  *Model // that counts its free slots; nil: it cannot take work
	free    uint64
	freeIn  string // zone in which they were counted
	slot    slot
	revision
}

// counted is the part of a worker in the totals, and its other numbers that are shown.
type counted struct {
	fresh, closed, looping bool
	load                   Load
	vram                   uint64
	gpus                   badness // of its worst GPU
	pace                   Pace
	engine                 Engine
	drain                  *Directive // that it is under
}

// Pace adds up how fast workers work: thousandths of a request, and of a token, per second.
type Pace struct{ Requests, Tokens uint64 }

// Engine is an inference engine and its version.
type Engine struct{ Name, Version string }

// counts returns the part of w in the totals by its present record.
func (w *Worker) counts(fresh bool) counted {
	r := &w.rec
	return counted{
		fresh, r.Closed, r.Looping,
		Load{r.Busy, r.Slots, r.Queue},
		max(r.VRAM, r.Proc.VRAM), w.gpus(),
		Pace{uint64(r.Rate * 1000), uint64(r.TPS * 1000)},
		Engine{r.Engine, r.Ver},
		w.drainNow(),
	}
}

// Totals returns the counts of the fleet.
func (x *Index) Totals() Totals { return x.totals }

// EachMix yields the number of workers of each mix: in the fleet, or, if inZone is set, in zone.
func (x *Index) EachMix(zone string, inZone bool, yield func(Mix, int)) {
	if !inZone {
		x.mixes.each(yield)
	} else if z := x.zones[zone]; z != nil {
		z.mixes.each(yield)
	}
}

// EachShape yields the number of workers of the fleet with each verdict and state, over all models. The
// Model of each Mix is empty.
func (x *Index) EachShape(yield func(Mix, int)) { x.shapes.each(yield) }

// EachMix yields the number of workers of the hive with each mix.
func (h *Hive) EachMix(yield func(Mix, int)) { h.mixes.each(yield) }

// Mixes returns the number of mixes that EachMix yields.
func (h *Hive) Mixes() int { return len(h.mixes.list) }

// Load returns the load of the workers of the hive that are alive.
func (h *Hive) Load() Load { return h.load }

// VRAM returns the memory of its GPUs. It is zero if the hive is not fresh or not up.
func (h *Hive) VRAM() VRAM { return h.share.vram }

// Mix returns how the worker is shown, as of the last Settle.
func (w *Worker) Mix() Mix { return w.shown.count.Mix }

// Fresh reports whether the record is not too old, as of the last Settle.
func (w *Worker) Fresh() bool { return w.shown.fresh }

// recount moves w to another count. With nil it is not counted.
func (x *Index) recount(w *Worker, to *count) {
	h, was := w.hive, w.shown.count
	if was == to {
		return
	}
	if to != nil {
		if to.n == 0 {
			x.serves(h, to.Model)
		}
		to.add(1)
	}
	w.shown.count = to
	if was != nil {
		if was.add(-1); was.n == 0 {
			h.mixes.sweep(was.Mix)
			x.unserves(h, was.Model)
			x.sweep(h.zone, was.Mix)
		}
	}
}

// tally adds w to the totals as it is counted, or with a d of -1 removes it from them.
func (x *Index) tally(w *Worker, d int) {
	s, t := &w.shown, &x.totals
	if s.count == nil {
		return
	}
	t.Workers += d
	if s.closed {
		t.Closed += d
	}
	if s.looping {
		t.Looping += d
	}
	if s.count.Live == hivebeat.Alive {
		t.Load.add(s.load, d)
		w.hive.load.add(s.load, d)
		x.models[s.count.Model].add(s, d)
	}
}

// add adds the share of a hive, or with a d of -1 removes it.
func (t *Totals) add(s *share, d int) {
	if s.live != "" {
		if t.Hives[s.live] += d; t.Hives[s.live] == 0 {
			delete(t.Hives, s.live)
		}
	}
	if s.warming {
		t.Warming += d
	}
	t.GPUs += s.gpus * d
	t.VRAM.add(s.vram, d)
	t.Stale += s.stale * uint64(d)
	for i := range t.States {
		t.States[i] += s.states[i] * d
	}
	t.Stats.FalseDead += s.stats.FalseDead * uint64(d)
	t.Stats.CutOff += s.stats.CutOff * uint64(d)
	t.Stats.WireLost += s.stats.WireLost * uint64(d)
	t.Stats.SelfPause += s.stats.SelfPause * hivebeat.Millis(d)
}

// resum updates the share of h itself in the index, without its workers.
func (x *Index) resum(h *Hive, what change) {
	is := share{live: h.facts.Live, warming: h.facts.Warming, stats: h.head.Stats}
	if h.Up() {
		for i := range h.head.GPUs {
			g := &h.head.GPUs[i]
			is.states[badnessOf(g)]++
			if !h.isFresh || !g.Condition().Usable() {
				is.stale += g.Total
				continue
			}
			is.gpus++
			is.vram.add(VRAM{g.Total, g.Used, g.Ours, g.Orphaned, g.Foreign(), g.Unattributed, g.Reserved}, 1)
		}
	}
	x.totals.add(&h.share, -1)
	x.totals.add(&is, 1)
	if h.recount {
		what = material
	}
	h.share, h.recount = is, false
	free, loading := h.freeMemory, h.loading
	x.relistGPUs(h)
	x.relistHive(h)
	if free != h.freeMemory || loading != h.loading {
		what = max(what, numbers)
	}
	if what != unchanged && h.facts.Live != "" {
		x.touchHive(h, what == material)
	}
}

// zone has the hives of a zone and the counts of their workers.
type zone struct {
	name  string
	mixes counts
	hives ByID[*Hive]
}

// InZone returns the hives of a zone in order of their ids.
func (x *Index) InZone(name string) []*Hive {
	if z := x.zones[name]; z != nil {
		return z.hives
	}
	return nil
}

// place moves h, and the counts of its workers, into its zone.
func (x *Index) place(h *Hive) {
	was := h.zone
	if was.name == h.facts.Zone {
		return
	}
	x.leaveZone(h)
	x.enterZone(h)
	for _, c := range h.mixes.list {
		c.up.add(-c.n)
		c.up = x.zoneCount(h.zone, c.Mix)
		c.up.add(c.n)
		x.sweep(was, c.Mix)
	}
	for _, w := range h.workers {
		x.relist(w)
	}
	x.unlistGPUs(h)
	x.relistGPUs(h)
}

func (x *Index) enterZone(h *Hive) {
	z := x.zones[h.facts.Zone]
	if z == nil {
		z = &zone{name: h.facts.Zone}
		x.zones[z.name] = z
	}
	z.hives.Add(h)
	h.zone = z
}

func (x *Index) leaveZone(h *Hive) {
	z := h.zone
	if z.hives.Remove(h); len(z.hives) == 0 {
		delete(x.zones, z.name)
	}
}

func (x *Index) zoneCount(z *zone, m Mix) *count {
	return z.mixes.get(m, func() *count {
		return x.mixes.get(m, func() *count { return x.shapes.get(Mix{Live: m.Live, State: m.State}, nil) })
	})
}

// sweep removes the counts of m in the zone and in the fleet if they are empty.
func (x *Index) sweep(z *zone, m Mix) {
	z.mixes.sweep(m)
	x.mixes.sweep(m)
	x.shapes.sweep(Mix{Live: m.Live, State: m.State})
}
