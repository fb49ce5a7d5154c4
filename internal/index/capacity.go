package index

import (
	"math/bits"
	"slices"
	"time"

	"github.com/beatfabric/hivebeat"
)

// Capacity is listed the way a pick asks for it: workers by model, zone and free slots, places on GPUs
// (places.go) by zone and free memory. A place that must not be picked (Fit) is in no list. What is
// picked last is listed separately, because a pick takes it only if nothing else fits.

const (
	// SlotLevels is the number of lists by free slots: 1, 2 to 3, 4 to 7, and so on.
	SlotLevels = 12
	// MemoryLevels is the number of lists by free memory of a place: under 1 GiB, under 2 GiB, and
	// so on. The last list has all places with 128 GiB or more.
	MemoryLevels = 129
)

// MemoryLevel returns the level of a place with free bytes of free memory.
func MemoryLevel(free uint64) int { return int(min(free>>30, MemoryLevels-1)) }

// slot is a position in one of several lists. level counts from 1; 0 means in no list.
type slot struct {
	level uint8
	pos   int32
}

type slotted interface{ place() *slot }

func (w *Worker) place() *slot { return &w.shown.slot }
func (g *GPU) place() *slot    { return &g.slot }
func (h *Hive) place() *slot   { return &h.slot }

func push[T slotted](levels [][]T, t T, level int) {
	*t.place() = slot{uint8(level + 1), int32(len(levels[level]))}
	levels[level] = append(levels[level], t)
}

// pull removes t from its list. The last element takes its position.
func pull[T slotted](levels [][]T, t T) {
	at := t.place()
	list := levels[at.level-1]
	last := len(list) - 1
	list[at.pos] = list[last]
	list[at.pos].place().pos = at.pos
	clear(list[last:])
	levels[at.level-1] = list[:last]
	*at = slot{}
}

// Pool is the capacity of one zone, by level.
type Pool[T slotted] struct {
	Zone   string
	of     *pools[T]
	n      int
	levels [][]T
}

// Len returns the number of places in the pool.
func (p *Pool[T]) Len() int { return p.n }

// Level returns the places of one level: workers with 2^i to 2^(i+1)-1 free slots, GPUs with i to i+1
// GiB free. The last level also has everything above.
func (p *Pool[T]) Level(i int) []T { return p.levels[i] }

// pools are the pools of all zones with capacity.
type pools[T slotted] struct {
	list   []*Pool[T]
	byZone map[string]*Pool[T]
	levels int
}

func newPools[T slotted](levels int) pools[T] {
	return pools[T]{byZone: make(map[string]*Pool[T]), levels: levels}
}

func (ps *pools[T]) add(zone string, t T, level int) *Pool[T] {
	p := ps.byZone[zone]
	if p == nil {
		p = &Pool[T]{Zone: zone, of: ps, levels: make([][]T, ps.levels)}
		ps.byZone[zone] = p
		ps.list = append(ps.list, p)
	}
	push(p.levels, t, level)
	p.n++
	return p
}

func (p *Pool[T]) remove(t T) {
	pull(p.levels, t)
	if p.n--; p.n > 0 {
		return
	}
	ps := p.of
	ps.list = slices.DeleteFunc(ps.list, func(o *Pool[T]) bool { return o == p })
	delete(ps.byZone, p.Zone)
}

// Model lists the workers and hives of one model.
type Model struct {
	Name    string
	workers pools[*Worker] // workers that can take work
	hives   ByID[*Hive]    // hives with a worker that serves the model

	free    uint64         // slots
	able    map[string]int // workers that can take work, those that are picked last too, by zone
	load    Load           // this and what follows is of workers that are alive
	vram    uint64
	pace    Pace
	engines map[Engine]int
}

// FreeSlots returns the number of free slots of its workers that can take work.
func (m *Model) FreeSlots() uint64 { return m.free }

// EachZone yields the number of its workers that can take work by zone, those that are picked last too.
func (m *Model) EachZone(yield func(zone string, n int)) {
	for zone, n := range m.able {
		yield(zone, n)
	}
}

// Load returns the load of its workers that are alive, and the bytes of GPU memory that they hold.
func (m *Model) Load() (l Load, vram uint64) { return m.load, m.vram }

// Pace returns how fast its workers that are alive work, together.
func (m *Model) Pace() Pace { return m.pace }

// EachEngine yields the number of its workers that are alive by their engine.
func (m *Model) EachEngine(yield func(Engine, int)) {
	for e, n := range m.engines {
		yield(e, n)
	}
}

// add adds a worker that is alive, or with a d of -1 removes it.
func (m *Model) add(s *shown, d int) {
	m.load.add(s.load, d)
	m.vram += s.vram * uint64(d)
	m.pace.Requests += s.pace.Requests * uint64(d)
	m.pace.Tokens += s.pace.Tokens * uint64(d)
	if s.engine.Name == "" {
		return
	}
	if m.engines == nil {
		m.engines = make(map[Engine]int)
	}
	if m.engines[s.engine] += d; m.engines[s.engine] == 0 {
		delete(m.engines, s.engine)
	}
}

// Pools returns the workers of the model that can take work, by zone.
func (m *Model) Pools() []*Pool[*Worker] { return m.workers.list }

// Hives returns the hives that have a worker of the model in any state, in order of their ids.
func (m *Model) Hives() []*Hive { return m.hives }

// Model returns the model with this name, or nil if no worker has it.
func (x *Index) Model(name string) *Model { return x.models[name] }

// EachModel yields every model until yield returns false.
func (x *Index) EachModel(yield func(*Model) bool) {
	for _, m := range x.models {
		if !yield(m) {
			return
		}
	}
}

// Last returns the workers of all models that can take work and are picked after all others.
func (x *Index) Last() *Model { return &x.last }

// serves records that a mix of h has this model.
func (x *Index) serves(h *Hive, model string) {
	m := x.models[model]
	if m == nil {
		m = &Model{Name: model, workers: newPools[*Worker](SlotLevels)}
		x.models[model] = m
	}
	m.hives.Add(h)
}

// unserves records that a mix of h with this model is gone.
func (x *Index) unserves(h *Hive, model string) {
	if slices.ContainsFunc(h.mixes.list, func(c *count) bool { return c.Model == model }) {
		return
	}
	m := x.models[model]
	if m.hives.Remove(h); len(m.hives) == 0 {
		delete(x.models, model)
	}
}

// Fit reports whether w may be picked, as of the last Settle. Every doubt counts against it.
func (w *Worker) Fit() bool {
	m, r, h := &w.shown.count.Mix, &w.rec, w.hive
	return h.facts.Live == hivebeat.Alive && h.isFresh && !h.facts.Doubtful && !r.Closed && m.Live == hivebeat.Alive && w.shown.fresh &&
		(m.State == hivebeat.Ready || m.State == hivebeat.Busy) && !r.Stalled && r.Quiet == 0 && !w.OnBadGPU() && w.shown.drain == nil && w.FreeSlots() > 0
}

// Held returns the number of its slots that are held.
func (w *Worker) Held() uint64 { return w.shown.held }

// FreeSlots returns the number of its slots that are neither in use nor held.
func (w *Worker) FreeSlots() uint64 {
	room := w.Room()
	return room - min(room, w.shown.held)
}

// Room returns the number of its slots that are not in use, as if nothing were held. An engine
// that does not report how many slots it has counts as having one more while nothing waits.
func (w *Worker) Room() uint64 {
	r := &w.rec
	switch {
	case r.Slots > 0:
		return r.Slots - min(r.Slots, r.Busy)
	case r.Engine != "" && r.Queue == 0 && (r.Model != "" || w.Cold()):
		return 1
	}
	return 0
}

// Cold reports whether w is an engine that serves no model itself, and can load some.
func (w *Worker) Cold() bool { return w.rec.Model == "" && len(w.rec.Cold) > 0 }

// Give counts work that w was just picked for. It is counted until the next facts of w, which
// may or may not have it.
func (w *Worker) Give(n uint64) {
	w.shown.given, w.shown.givenAt = w.Given()+n, w.rec.Seq
}

// Given returns the work that w was picked for since its last facts.
func (w *Worker) Given() uint64 {
	if w.shown.givenAt != w.rec.Seq {
		return 0
	}
	return w.shown.given
}

// relist moves w to the list where it belongs now.
func (x *Index) relist(w *Worker) {
	x.countFree(w)
	if !w.Fit() {
		x.unlist(w)
		return
	}
	m := &x.last
	if !w.Last() {
		m = x.models[w.shown.count.Model]
	}
	level := min(bits.Len64(w.FreeSlots()), SlotLevels) - 1
	if p := w.shown.pool; p != nil && int(w.shown.slot.level) == level+1 && p.of == &m.workers && p.Zone == w.hive.facts.Zone {
		return
	}
	x.unlist(w)
	w.shown.pool = m.workers.add(w.hive.facts.Zone, w, level)
}

// countFree counts w and its free slots for its model.
func (x *Index) countFree(w *Worker) {
	x.uncountFree(w)
	if s := &w.shown; w.Fit() {
		s.freeOf, s.free, s.freeIn = x.models[s.count.Model], w.FreeSlots(), w.hive.facts.Zone
		s.freeOf.free += s.free
		if s.freeOf.able == nil {
			s.freeOf.able = make(map[string]int)
		}
		s.freeOf.able[s.freeIn]++
	}
}

func (x *Index) uncountFree(w *Worker) {
	if s := &w.shown; s.freeOf != nil {
		s.freeOf.free -= s.free
		if s.freeOf.able[s.freeIn]--; s.freeOf.able[s.freeIn] == 0 {
			delete(s.freeOf.able, s.freeIn)
		}
		s.freeOf, s.free = nil, 0
	}
}

func (x *Index) unlist(w *Worker) {
	if p := w.shown.pool; p != nil {
		p.remove(w)
		w.shown.pool = nil
	}
}

// ByFreeMemory returns the hives with i to i+1 GiB of FreeMemory. Hives that are not fresh are on level
// 0.
func (x *Index) ByFreeMemory(i int) []*Hive { return x.byFree[i] }

// relistHive moves h to the list for its free memory.
func (x *Index) relistHive(h *Hive) {
	level := -1
	switch {
	case h.facts.Live == "":
	case h.isFresh:
		level = MemoryLevel(h.freeMemory)
	default:
		level = 0
	}
	if int(h.slot.level) == level+1 {
		return
	}
	if h.slot.level > 0 {
		pull(x.byFree[:], h)
	}
	if level >= 0 {
		push(x.byFree[:], h, level)
	}
}

// Place can be held. It is a worker's slots or a GPU's memory.
type Place struct{ Hive, Worker, GPU string }

// SetHeld sets how much of a place is held, in slots or bytes. A hold of a place that is not known yet
// counts once the place appears.
func (x *Index) SetHeld(p Place, n uint64, now time.Time) {
	if x.holds[p] == n {
		return
	}
	if n == 0 {
		delete(x.holds, p)
	} else {
		x.holds[p] = n
	}
	h := x.Hive(p.Hive)
	switch {
	case h == nil:
	case p.Worker != "":
		if w := h.Worker(p.Worker); w != nil && w.shown.count != nil {
			w.shown.held = n
			x.reshow(w, true, now)
		}
	default:
		x.resum(h, material)
	}
}
