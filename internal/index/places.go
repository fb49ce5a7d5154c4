package index

import (
	"slices"

	"github.com/beatfabric/hivebeat"
)

// A place for work on a GPU is a whole GPU, or a MIG instance of a GPU that is split. What is free on
// it is what the driver would give a new process, less what is held, and less what workers that load
// have announced and do not hold yet. If the machine has a budget of GPU memory, its places offer no
// more than the budget leaves.

// GPU is a place on a GPU of a hive: the whole GPU, or one of its instances if it is split. A GPU that
// is split is no place itself.
type GPU struct {
	hive      *Hive
	index     int // of the GPU in the hive's head
	part      int // of the instance in the GPU, or whole
	pool      *Pool[*GPU]
	slot      slot
	held      uint64
	announced uint64
	free      uint64
}

// whole is the part of a place that is a whole GPU.
const whole = -1

// GPUs returns the places that can take work, by zone, without those that are picked last.
func (x *Index) GPUs() []*Pool[*GPU] { return x.gpus.list }

// LastGPUs returns the places that can take work and are picked after all others, by zone.
func (x *Index) LastGPUs() []*Pool[*GPU] { return x.lastGPUs.list }

// GPUs returns the places of h, in the order of its head. GPUs that cannot be used are among them.
func (h *Hive) GPUs() []GPU { return h.gpus }

// Device returns the hive of the place, and the hive's newest report of the GPU.
func (g *GPU) Device() (*Hive, *hivebeat.GPU) { return g.hive, &g.hive.head.GPUs[g.index] }

// Instance returns the instance that the place is, or nil if it is a whole GPU.
func (g *GPU) Instance() *hivebeat.GPUInstance {
	if g.part == whole {
		return nil
	}
	return &g.hive.head.GPUs[g.index].Instances[g.part]
}

// UUID returns the UUID of the instance, or of the whole GPU.
func (g *GPU) UUID() string {
	if i := g.Instance(); i != nil {
		return i.UUID
	}
	return g.hive.head.GPUs[g.index].UUID
}

// Total returns the bytes of its memory.
func (g *GPU) Total() uint64 {
	if i := g.Instance(); i != nil {
		return i.Total
	}
	return g.hive.head.GPUs[g.index].Total
}

// unused returns the bytes that the driver would give a new process.
func (g *GPU) unused() uint64 {
	if i := g.Instance(); i != nil {
		return i.Free()
	}
	return g.hive.head.GPUs[g.index].Free()
}

// Free returns how many bytes of its memory are offered, as of the last Settle.
func (g *GPU) Free() uint64 { return g.free }

// Held returns how many bytes of its memory are held.
func (g *GPU) Held() uint64 { return g.held }

// Announced returns how many bytes of its memory workers that load have announced and do not hold yet.
func (g *GPU) Announced() uint64 { return g.announced }

// Usable reports whether its GPU is ok or degraded, whatever its hive is.
func (g *GPU) Usable() bool { return g.hive.head.GPUs[g.index].Condition().Usable() }

// Fit reports whether the place may be picked, as of the last Settle.
func (g *GPU) Fit() bool { return g.pool != nil }

// Last reports whether the place is picked after all others.
func (g *GPU) Last() bool { return g.hive.head.GPUs[g.index].Condition() == hivebeat.GPUDegraded }

// FreeMemory returns the free bytes of the place of h that has most. It counts only GPUs that are ok or
// degraded, as in the newest report of the hive, fresh or not.
func (h *Hive) FreeMemory() uint64 { return h.freeMemory }

// Loading returns how many bytes of GPU memory the workers of h that load have announced and do not hold
// yet.
func (h *Hive) Loading() uint64 { return h.loading }

// Room returns how many bytes its places offer together at most, and false if there is no such limit.
func (h *Hive) Room() (bytes uint64, limited bool) { return h.room, h.head.VRAMBudget > 0 }

// Stale returns the bytes of memory of its GPUs whose figures are old: those that are neither ok nor
// degraded, and all of a hive that is up and not fresh.
func (h *Hive) Stale() uint64 { return h.share.stale }

// badness orders the states of a GPU. A state that this release does not know counts as unknown.
type badness uint8

const (
	isOK badness = iota
	isDegraded
	isUnknown
	isFailing
	isGone
	states
)

func badnessOf(g *hivebeat.GPU) badness {
	switch g.Condition() {
	case hivebeat.GPUOK:
		return isOK
	case hivebeat.GPUDegraded:
		return isDegraded
	case hivebeat.GPUFailing:
		return isFailing
	case hivebeat.GPUGone:
		return isGone
	}
	return isUnknown
}

// GPUCounts counts GPUs by state.
type GPUCounts [states]int

// Map returns the counts of the states that there are.
func (c GPUCounts) Map() map[hivebeat.GPUState]int {
	m := make(map[hivebeat.GPUState]int)
	for _, s := range hivebeat.GPUStates() {
		if n := c[badnessOf(&hivebeat.GPU{State: s})]; n > 0 {
			m[s] = n
		}
	}
	return m
}

// listed returns the GPU of h that has this UUID, or an instance with it; nil if there is none.
func (h *Hive) listed(uuid string) *hivebeat.GPU {
	for i := range h.head.GPUs {
		g := &h.head.GPUs[i]
		if g.UUID == uuid || slices.ContainsFunc(g.Instances, func(p hivebeat.GPUInstance) bool { return p.UUID == uuid }) {
			return g
		}
	}
	return nil
}

// Named returns the UUIDs of the GPUs and instances that a worker of h uses: those that it names, or else
// those on which the driver sees its processes. A list of which h knows no GPU says nothing.
func (h *Hive) Named(r *hivebeat.Record) []string {
	for _, names := range [...][]string{r.GPUs, r.On} {
		if slices.ContainsFunc(names, func(uuid string) bool { return h.listed(uuid) != nil }) {
			return names
		}
	}
	return nil
}

// IsAmong reports whether the place, or its GPU, has one of these UUIDs.
func (g *GPU) IsAmong(uuids []string) bool {
	return slices.Contains(uuids, g.UUID()) || g.part != whole && slices.Contains(uuids, g.hive.head.GPUs[g.index].UUID)
}

// Worst returns the GPU of w that is in the worst state, or nil if all are ok or none is known.
func (w *Worker) Worst() (worst *hivebeat.GPU) {
	h := w.hive
	if !h.troubled {
		return nil
	}
	at := isOK
	for _, uuid := range h.Named(&w.rec) {
		if g := h.listed(uuid); g != nil && badnessOf(g) > at {
			worst, at = g, badnessOf(g)
		}
	}
	return worst
}

// gpus returns the state of the worst GPU of w.
func (w *Worker) gpus() badness {
	if g := w.Worst(); g != nil {
		return badnessOf(g)
	}
	return isOK
}

// Stranger returns a GPU that w names and that its hive does not list, although it lists others; "" if there
// is none. The name may be wrong, or the GPU was forgotten: whether w can serve is not known.
func (w *Worker) Stranger() string {
	h := w.hive
	if len(h.head.GPUs) == 0 {
		return "" // a hive that sees no GPU, as in a container, says nothing about them
	}
	for _, uuid := range w.rec.GPUs {
		if h.listed(uuid) == nil {
			return uuid
		}
	}
	return ""
}

// Last reports whether w is picked after all others: it restarts over and over, a GPU of it is degraded
// or unknown, or it has to load the model first.
func (w *Worker) Last() bool { return w.rec.Looping || w.shown.gpus != isOK || w.Cold() }

// OnBadGPU reports whether a GPU of w is failing or gone, as of the last Settle.
func (w *Worker) OnBadGPU() bool { return w.shown.gpus >= isFailing }

// loads reports whether w may still take memory that it has announced. live is how it is shown.
func (w *Worker) loads(live hivebeat.Live) bool {
	r := &w.rec
	live = Counted(live)
	return r.Need > 0 && (r.State == hivebeat.Starting || r.State == hivebeat.Loading) && (live == hivebeat.Alive || live == hivebeat.Late)
}

// setLoads keeps the list of the workers of h that load.
func (h *Hive) setLoads(w *Worker, loads bool) {
	switch {
	case loads && !w.shown.loads:
		h.loaders = append(h.loaders, w)
	case !loads && w.shown.loads:
		h.loaders = slices.DeleteFunc(h.loaders, func(o *Worker) bool { return o == w })
	}
	w.shown.loads = loads
}

// charge charges the places of h for what w has announced and does not hold yet: evenly those that it
// names, and each in full if it names none, because nobody knows where the memory will be taken.
func (h *Hive) charge(w *Worker) {
	r := &w.rec
	left := r.Need - min(r.Need, max(r.VRAM, r.Proc.VRAM))
	h.loading += left
	names := h.Named(r)
	n := uint64(0)
	for _, uuid := range names {
		if h.listed(uuid) != nil {
			n++
		}
	}
	if n > 0 {
		left = (left + n - 1) / n
	}
	for i := range h.gpus {
		if g := &h.gpus[i]; n == 0 || g.IsAmong(names) {
			g.announced += left
		}
	}
}

// layOut makes the places of h those of its head.
func (x *Index) layOut(h *Hive) {
	n, same := 0, true
	each := func(index, part int) {
		same = same && n < len(h.gpus) && h.gpus[n].index == index && h.gpus[n].part == part
		n++
	}
	h.eachPlace(each)
	if same && n == len(h.gpus) {
		return
	}
	x.unlistGPUs(h)
	h.gpus = make([]GPU, 0, n)
	h.eachPlace(func(index, part int) { h.gpus = append(h.gpus, GPU{hive: h, index: index, part: part}) })
}

func (h *Hive) eachPlace(yield func(index, part int)) {
	for i := range h.head.GPUs {
		if g := &h.head.GPUs[i]; !g.MIG {
			yield(i, whole)
		} else {
			for k := range g.Instances {
				yield(i, k)
			}
		}
	}
}

// relistGPUs computes what the places of h offer, and moves them to the lists where they belong now.
func (x *Index) relistGPUs(h *Hive) {
	x.layOut(h)
	h.freeMemory, h.loading, h.room = 0, 0, 0
	held := uint64(0)
	for i := range h.gpus {
		g := &h.gpus[i]
		g.held, g.announced = 0, 0
		if len(x.holds) > 0 {
			g.held = x.holds[Place{Hive: h.id, GPU: g.UUID()}]
			held += g.held
		}
	}
	for _, w := range h.loaders {
		h.charge(w)
	}
	if h.head.VRAMBudget > 0 {
		h.room = less(h.head.VRAMBudget, held, h.loading)
		for i := range h.head.GPUs {
			if g := &h.head.GPUs[i]; g.Condition() != hivebeat.GPUGone { // processes may still use one that fails
				h.room = less(h.room, g.Ours)
			}
		}
	}
	up := h.facts.Live == hivebeat.Alive && h.isFresh && !h.facts.Doubtful
	for i := range h.gpus {
		g := &h.gpus[i]
		g.free = less(g.unused(), g.held, g.announced)
		if h.head.VRAMBudget > 0 {
			g.free = min(g.free, h.room)
		}
		usable := g.Usable()
		if usable {
			h.freeMemory = max(h.freeMemory, g.free)
		}
		to := &x.gpus
		if g.Last() {
			to = &x.lastGPUs
		}
		level := MemoryLevel(g.free)
		switch {
		case !up || !usable || g.UUID() == "" || g.Total() == 0 || g.Drain() != nil:
			x.unlistGPU(g)
		case g.pool == nil || g.pool.of != to || int(g.slot.level) != level+1:
			x.unlistGPU(g)
			g.pool = to.add(h.facts.Zone, g, level)
		}
	}
}

// less returns n less the parts, and at least 0.
func less(n uint64, parts ...uint64) uint64 {
	for _, p := range parts {
		n -= min(n, p)
	}
	return n
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
