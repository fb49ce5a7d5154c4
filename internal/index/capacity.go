package index

import (
	"math/bits"
	"time"

	"github.com/beatfabric/hivebeat"
)

// Places with capacity are listed by what a pick asks for: workers by model, zone and free slots, GPUs
// by zone and free memory. A place that must not be picked (Fit) is in no list. Workers that loop
// are listed apart: a pick takes them where no other worker fits.

const (
	// SlotLevels is the number of lists by free slots: 1, 2 to 3, 4 to 7, and so on.
	SlotLevels = 12
	// MemoryLevels is the number of lists by free memory of a GPU: under 1 GiB, under 2, and so
	// on; the last one has all from 128 GiB on.
	MemoryLevels = 129
)

// MemoryLevel is the level of a GPU with this many bytes free.
func MemoryLevel(free uint64) int { return int(min(free>>30, MemoryLevels-1)) }

// slot is a place in one of several lists: level counts from 1, 0 is nowhere.
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

// pull takes t out of its list. The last one takes its place.
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

// Pool has what can take work in one zone, by level.
type Pool[T slotted] struct {
	Zone   string
	of     *pools[T]
	pos    int // in of.list
	n      int
	levels [][]T
}

// Len is the number of places in the pool.
func (p *Pool[T]) Len() int { return p.n }

// Level returns those of one level: workers with 2^i to 2^(i+1)-1 free slots, GPUs with i to i+1 GiB
// free, and all above on the last level.
func (p *Pool[T]) Level(i int) []T { return p.levels[i] }

// pools are those of all zones that are not empty.
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
		p = &Pool[T]{Zone: zone, of: ps, pos: len(ps.list), levels: make([][]T, ps.levels)}
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
	ps, last := p.of, len(p.of.list)-1
	ps.list[p.pos] = ps.list[last]
	ps.list[p.pos].pos = p.pos
	ps.list[last] = nil
	ps.list = ps.list[:last]
	delete(ps.byZone, p.Zone)
}

// Model is what is kept of a model.
type Model struct {
	Name    string
	workers pools[*Worker] // that can take work
	hives   ByID[*Hive]    // that have a worker of it
	at      map[*Hive]int  // how many of their mixes are of the model
}

// Pools returns its workers that can take work, by zone.
func (m *Model) Pools() []*Pool[*Worker] { return m.workers.list }

// Hives returns the hives that have a worker of the model, whatever it does, in order of their ids.
func (m *Model) Hives() []*Hive { return m.hives }

// ServedBy reports whether h has a worker of the model.
func (m *Model) ServedBy(h *Hive) bool {
	_, ok := m.at[h]
	return ok
}

// Model returns what is kept of a model, or nil where no worker has it.
func (x *Index) Model(name string) *Model { return x.models[name] }

// EachModel yields every model until yield returns false.
func (x *Index) EachModel(yield func(*Model) bool) {
	for _, m := range x.models {
		if !yield(m) {
			return
		}
	}
}

// Looping has the workers of all models that loop.
func (x *Index) Looping() *Model { return &x.looping }

// serves notes that h has workers of one more mix with this model.
func (x *Index) serves(h *Hive, model string) {
	m := x.models[model]
	if m == nil {
		m = &Model{Name: model, workers: newPools[*Worker](SlotLevels), at: make(map[*Hive]int)}
		x.models[model] = m
	}
	if m.at[h]++; m.at[h] == 1 {
		m.hives.Add(h)
	}
}

func (x *Index) unserves(h *Hive, model string) {
	m := x.models[model]
	if m.at[h]--; m.at[h] > 0 {
		return
	}
	delete(m.at, h)
	if m.hives.Remove(h); len(m.hives) == 0 {
		delete(x.models, model)
	}
}

// Fit reports whether w may be picked by what is kept of it. Whatever is not sure counts against it.
func (w *Worker) Fit() bool {
	m, r, h := &w.shown.count.Mix, &w.rec, w.hive
	return h.facts.Live == hivebeat.Alive && h.isFresh && !h.facts.Doubtful && !r.Closed && m.Live == hivebeat.Alive && w.shown.fresh &&
		(m.State == hivebeat.Ready || m.State == hivebeat.Busy) && !r.Stalled && r.Quiet == 0 && w.FreeSlots() > 0
}

// Held is the number of its slots that are held.
func (w *Worker) Held() uint64 { return w.shown.held }

// FreeSlots is the number of slots that are neither in use nor held.
func (w *Worker) FreeSlots() uint64 {
	taken := w.rec.Busy + w.shown.held
	if taken >= w.rec.Slots {
		return 0
	}
	return w.rec.Slots - taken
}

// relist lists w where it belongs now.
func (x *Index) relist(w *Worker) {
	if !w.Fit() {
		x.unlist(w)
		return
	}
	m := &x.looping
	if !w.rec.Looping {
		m = x.models[w.shown.count.Model]
	}
	level := min(bits.Len64(w.FreeSlots()), SlotLevels) - 1
	if p := w.shown.pool; p != nil && int(w.shown.slot.level) == level+1 && p.of == &m.workers && p.Zone == w.hive.facts.Zone {
		return
	}
	x.unlist(w)
	w.shown.pool = m.workers.add(w.hive.facts.Zone, w, level)
}

func (x *Index) unlist(w *Worker) {
	if p := w.shown.pool; p != nil {
		p.remove(w)
		w.shown.pool = nil
	}
}

// GPU is a GPU of a hive.
type GPU struct {
	hive  *Hive
	index int // in the hive's head
	pool  *Pool[*GPU]
	slot  slot
	held  uint64
}

// GPUs returns the GPUs that can take work, by zone.
func (x *Index) GPUs() []*Pool[*GPU] { return x.gpus.list }

// GPUs returns the GPUs of h, in the order of its head.
func (h *Hive) GPUs() []GPU { return h.gpus }

// Device returns the hive of the GPU and what it says of it.
func (g *GPU) Device() (*Hive, *hivebeat.GPU) { return g.hive, &g.hive.head.GPUs[g.index] }

// Free is the number of its bytes that are neither in use nor held.
func (g *GPU) Free() uint64 {
	free := g.hive.head.GPUs[g.index].Free()
	return free - min(g.held, free)
}

// Held is the number of its bytes that are held.
func (g *GPU) Held() uint64 { return g.held }

// Fit reports whether the GPU may be picked by what is kept of it.
func (g *GPU) Fit() bool { return g.pool != nil }

// FreeMemory is the number of bytes free on the GPU of h with most, of those that can be read: as the
// hive said last, whether that is fresh or not.
func (h *Hive) FreeMemory() uint64 { return h.freeMemory }

// ByFreeMemory returns the hives with i to i+1 GiB of FreeMemory. Those where that is not fresh are on
// level 0.
func (x *Index) ByFreeMemory(i int) []*Hive { return x.byFree[i] }

// relistHive lists h by its free memory.
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

// relistGPUs lists the GPUs of h where they belong now.
func (x *Index) relistGPUs(h *Hive) {
	if len(h.gpus) != len(h.head.GPUs) {
		x.unlistGPUs(h)
		h.gpus = make([]GPU, len(h.head.GPUs))
		for i := range h.gpus {
			h.gpus[i] = GPU{hive: h, index: i}
		}
	}
	up := h.facts.Live == hivebeat.Alive && h.isFresh && !h.facts.Doubtful
	h.freeMemory = 0
	for i := range h.gpus {
		g, d := &h.gpus[i], &h.head.GPUs[i]
		g.held = 0
		if len(x.holds) > 0 {
			g.held = x.holds[Place{Hive: h.id, GPU: d.UUID}]
		}
		free := g.Free()
		if d.Err == "" {
			h.freeMemory = max(h.freeMemory, free)
		}
		level := MemoryLevel(free)
		switch {
		case !up || d.Err != "" || d.UUID == "" || d.Total == 0:
			x.unlistGPU(g)
		case g.pool == nil || int(g.slot.level) != level+1:
			x.unlistGPU(g)
			g.pool = x.gpus.add(h.facts.Zone, g, level)
		}
	}
}

func (x *Index) unlistGPUs(h *Hive) {
	for i := range h.gpus {
		x.unlistGPU(&h.gpus[i])
	}
}

func (x *Index) unlistGPU(g *GPU) {
	if g.pool != nil {
		g.pool.remove(g)
		g.pool = nil
	}
}

// Place is what can be held: a worker's slots, or a GPU's memory.
type Place struct{ Hive, Worker, GPU string }

// SetHeld says how much of a place is held, in slots or bytes. For a place that is not known yet, the
// index remembers it.
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
