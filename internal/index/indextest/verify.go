// Package indextest checks an index by recomputing it. It is for tests and the simulation.
package indextest

import (
	"errors"
	"fmt"
	"maps"
	"math/bits"
	"slices"
	"time"

	"github.com/beatfabric/hivebeat"
	"github.com/beatfabric/hivebeat/internal/index"
)

// Verify recomputes the counts and lists of x with loops over all hives and workers, and returns every
// difference. Call x.Settle first.
func Verify(x *index.Index, now time.Time) error {
	c := &check{
		Index: x, now: now, mixes: mixes{}, shapes: mixes{}, zones: make(map[string]mixes), inZone: make(map[string][]*index.Hive),
		models: make(map[string][]*index.Hive), labels: make(map[[2]string][]*index.Hive), workers: make(map[*index.Worker]string), gpus: make(map[*index.GPU]int),
		free: make(map[string]uint64), able: make(map[[2]string]int), loads: make(map[string]index.Load),
		totals: index.Totals{Hives: make(map[hivebeat.Live]int)},
	}
	for _, h := range x.Hives() {
		c.hive(h)
	}
	c.counts()
	c.pools()
	c.lists()
	c.log()
	return errors.Join(c.errs...)
}

type mixes map[index.Mix]int

type check struct {
	*index.Index
	now           time.Time
	errs          []error
	totals        index.Totals
	mixes, shapes mixes
	zones         map[string]mixes
	inZone        map[string][]*index.Hive
	models        map[string][]*index.Hive
	free          map[string]uint64           // slots, by model
	able          map[[2]string]int           // workers that fit, by model and zone
	loads         map[string]index.Load       // by model
	labels        map[[2]string][]*index.Hive // by key, and value or anyValue
	workers       map[*index.Worker]string    // workers that fit, and the model that must list them, or last
	gpus          map[*index.GPU]int          // places that fit, and their level
	shown         int                         // hives and workers in the change log
}

const (
	anyValue = "\xff"
	last     = "\xff"
)

func (c *check) bad(format string, args ...any) { c.errs = append(c.errs, fmt.Errorf(format, args...)) }

// hive checks one hive and adds it to the sums.
func (c *check) hive(h *index.Hive) {
	head, t := h.Head(), &c.totals
	fresh := head.Inc != 0 && index.EffectiveAge(0, h.Received(), c.now) <= hivebeat.MillisOf(c.Fresh())
	if fresh != h.Fresh() {
		c.bad("%s: fresh is kept as %v", h.ID(), h.Fresh())
	}
	t.Stats.FalseDead += head.Stats.FalseDead
	t.Stats.CutOff += head.Stats.CutOff
	t.Stats.WireLost += head.Stats.WireLost
	t.Stats.SelfPause += head.Stats.SelfPause
	if h.Live() != "" {
		t.Hives[h.Live()]++
		c.shown++
		c.inZone[h.Zone()] = append(c.inZone[h.Zone()], h)
		if rev, key := h.Revision(); rev == 0 || key > rev {
			c.bad("%s: has revisions %d and %d", h.ID(), rev, key)
		}
	}
	c.machine(h, fresh)
	own, load, with, serves := mixes{}, index.Load{}, make(map[[2]string]int), make(map[string]bool)
	for _, w := range h.Workers() {
		c.worker(h, w, own, &load)
		serves[w.Record().Model] = true
		for key, value := range w.Record().Labels {
			with[[2]string{key, value}]++
			with[[2]string{key, anyValue}]++
		}
	}
	got := mixes{}
	h.EachMix(func(m index.Mix, n int) { got[m] += n })
	if !maps.Equal(got, own) || h.Mixes() != len(own) {
		c.bad("%s: mixes are kept as %v, are %v", h.ID(), got, own)
	}
	if h.Load() != load {
		c.bad("%s: load is kept as %v, is %v", h.ID(), h.Load(), load)
	}
	t.Workers += h.Size()
	t.Load = index.Load{Busy: t.Load.Busy + load.Busy, Slots: t.Load.Slots + load.Slots, Queue: t.Load.Queue + load.Queue}
	for model := range serves {
		c.models[model] = append(c.models[model], h)
	}
	for l, n := range with {
		if kept := labelled(h, l); kept != n {
			c.bad("%s: %d workers are kept with the label %q, there are %d", h.ID(), kept, l, n)
		}
	}
	for key, value := range head.Labels {
		with[[2]string{key, value}]++
		with[[2]string{key, anyValue}]++
	}
	for l := range with {
		c.labels[l] = append(c.labels[l], h)
	}
}

// machine checks the places of a hive, and adds its GPUs to the sums.
func (c *check) machine(h *index.Hive, fresh bool) {
	head, t := h.Head(), &c.totals
	for i := range head.GPUs {
		d := &head.GPUs[i]
		if h.Up() {
			t.States = addState(t.States, d.Condition())
		}
		switch {
		case !h.Up():
		case fresh && d.Condition().Usable():
			t.GPUs++
			v := &t.VRAM
			*v = index.VRAM{
				Total: v.Total + d.Total, Used: v.Used + d.Used, Ours: v.Ours + d.Ours, Orphaned: v.Orphaned + d.Orphaned, Foreign: v.Foreign + d.Foreign(),
				Unattributed: v.Unattributed + d.Unattributed, Reserved: v.Reserved + d.Reserved,
			}
		default:
			t.Stale += d.Total
		}
	}
	// What loading workers have announced, by place, and what the budget leaves.
	announced, loading, room := make(map[string]uint64), uint64(0), head.VRAMBudget
	take := func(n uint64) { room -= min(room, n) }
	for _, w := range h.Workers() {
		r := w.Record()
		live, _, _ := c.Shown(w, c.now)
		if l := index.Counted(live); (r.State != hivebeat.Starting && r.State != hivebeat.Loading) || l != hivebeat.Alive && l != hivebeat.Late {
			continue
		}
		left := r.Need - min(r.Need, max(r.VRAM, r.Proc.VRAM))
		loading += left
		var known []string
		for _, list := range [][]string{r.GPUs, r.On} {
			if len(known) > 0 {
				break
			}
			for _, uuid := range list {
				if len(placesOf(h, uuid)) > 0 || gpuOf(h, uuid) != nil {
					known = append(known, uuid)
				}
			}
		}
		if len(known) == 0 {
			for i := range h.GPUs() {
				announced[h.GPUs()[i].UUID()] += left
			}
			continue
		}
		share := (left + uint64(len(known)) - 1) / uint64(len(known))
		charged := make(map[string]bool)
		for _, uuid := range known {
			for _, p := range placesOf(h, uuid) {
				if !charged[p] {
					announced[p] += share
				}
				charged[p] = true
			}
		}
	}
	take(loading)
	for i := range head.GPUs {
		if head.GPUs[i].Condition() != hivebeat.GPUGone {
			take(head.GPUs[i].Ours)
		}
	}
	for i := range h.GPUs() {
		take(h.GPUs()[i].Held())
	}
	if left, limited := h.Room(); limited != (head.VRAMBudget > 0) || left != room {
		c.bad("%s: the budget leaves %d, kept as %d %v", h.ID(), room, left, limited)
	}
	if h.Loading() != loading {
		c.bad("%s: announced is kept as %d, is %d", h.ID(), h.Loading(), loading)
	}
	free, n := uint64(0), 0
	for i := range head.GPUs {
		d := &head.GPUs[i]
		if !d.MIG {
			free = max(free, c.place(h, n, d, d.UUID, d.Total, d.Free(), announced, room))
			n++
			continue
		}
		for k := range d.Instances {
			p := &d.Instances[k]
			free = max(free, c.place(h, n, d, p.UUID, p.Total, p.Free(), announced, room))
			n++
		}
	}
	if n != len(h.GPUs()) {
		c.bad("%s: %d places are kept, there are %d", h.ID(), len(h.GPUs()), n)
	}
	if free != h.FreeMemory() {
		c.bad("%s: free memory is kept as %d, is %d", h.ID(), h.FreeMemory(), free)
	}
}

// place checks place n of a hive, and returns what it offers.
func (c *check) place(h *index.Hive, n int, d *hivebeat.GPU, uuid string, total, unused uint64, announced map[string]uint64, room uint64) uint64 {
	if n >= len(h.GPUs()) {
		return 0
	}
	g := &h.GPUs()[n]
	if g.UUID() != uuid || g.Total() != total || g.Announced() != announced[uuid] {
		c.bad("%s: place %d is kept as %s of %d with %d announced, is %s of %d with %d", h.ID(), n, g.UUID(), g.Total(), g.Announced(), uuid, total, announced[uuid])
	}
	free := unused - min(unused, announced[uuid]+g.Held())
	if h.Head().VRAMBudget > 0 {
		free = min(free, room)
	}
	if free != g.Free() {
		c.bad("%s: place %d offers %d, kept as %d", h.ID(), n, free, g.Free())
	}
	usable := d.Condition().Usable()
	drained := h.Drain() != nil || h.GPUDrain(d.UUID) != nil
	if (g.Drain() != nil) != drained {
		c.bad("%s: place %d is drained: %v", h.ID(), n, drained)
	}
	fit := h.Fresh() && h.Live() == hivebeat.Alive && !h.Doubtful() && usable && uuid != "" && total != 0 && !drained
	if fit != g.Fit() {
		c.bad("%s: place %d fits: %v", h.ID(), n, g.Fit())
	}
	if fit {
		c.gpus[g] = index.MemoryLevel(free)
	}
	if !usable {
		return 0
	}
	return free
}

func addState(c index.GPUCounts, s hivebeat.GPUState) index.GPUCounts {
	at := slices.Index(hivebeat.GPUStates(), s)
	if at < 0 {
		at = slices.Index(hivebeat.GPUStates(), hivebeat.GPUUnknown)
	}
	c[at]++
	return c
}

// gpuOf returns the GPU of h with this UUID, or nil.
func gpuOf(h *index.Hive, uuid string) *hivebeat.GPU {
	for i := range h.Head().GPUs {
		if g := &h.Head().GPUs[i]; g.UUID == uuid {
			return g
		}
	}
	return nil
}

// placesOf returns the places of h with this UUID, or on a GPU with it.
func placesOf(h *index.Hive, uuid string) (list []string) {
	for i := range h.GPUs() {
		g := &h.GPUs()[i]
		if _, d := g.Device(); g.UUID() == uuid || d.UUID == uuid {
			list = append(list, g.UUID())
		}
	}
	return list
}

// worstOf returns the state of the worst GPU that a worker uses, as a position in hivebeat.GPUStates.
func worstOf(h *index.Hive, r *hivebeat.Record) (worst int) {
	for _, list := range [][]string{r.GPUs, r.On} {
		known := false
		for _, uuid := range list {
			for i := range h.Head().GPUs {
				g := &h.Head().GPUs[i]
				if g.UUID != uuid && !slices.ContainsFunc(g.Instances, func(p hivebeat.GPUInstance) bool { return p.UUID == uuid }) {
					continue
				}
				known = true
				at := slices.Index(hivebeat.GPUStates(), g.Condition())
				if at < 0 {
					at = slices.Index(hivebeat.GPUStates(), hivebeat.GPUUnknown)
				}
				worst = max(worst, at)
			}
		}
		if known {
			break
		}
	}
	return worst
}

// drainOf returns the drain that a worker is under: that of its hive, its own, or that of the first of its GPUs with one.
func drainOf(h *index.Hive, r *hivebeat.Record) *index.Directive {
	if d := h.Drain(); d != nil {
		return d
	}
	if d := h.WorkerDrain(r.Worker); d != nil {
		return d
	}
	for _, uuid := range slices.Concat(r.GPUs, r.On) {
		for i := range h.Head().GPUs {
			g := &h.Head().GPUs[i]
			if g.UUID == uuid || slices.ContainsFunc(g.Instances, func(p hivebeat.GPUInstance) bool { return p.UUID == uuid }) {
				uuid = g.UUID
				break
			}
		}
		if d := h.GPUDrain(uuid); d != nil && uuid != "" {
			return d
		}
	}
	return nil
}

func labelled(h *index.Hive, l [2]string) int {
	if l[1] == anyValue {
		return h.LabelledAny(l[0])
	}
	return h.Labelled(l[0], l[1])
}

func (c *check) worker(h *index.Hive, w *index.Worker, own mixes, load *index.Load) {
	r := w.Record()
	live, _, fresh := c.Shown(w, c.now)
	m := index.Mix{Live: live, State: r.State, Model: r.Model}
	if w.Hive() != h || w.Mix() != m || w.Fresh() != fresh {
		c.bad("%s/%s: kept as %v %v on %s, is %v %v", h.ID(), w.ID(), w.Mix(), w.Fresh(), w.Hive().ID(), m, fresh)
	}
	if rev, key := w.Revision(); rev == 0 || key > rev {
		c.bad("%s/%s: has revisions %d and %d", h.ID(), w.ID(), rev, key)
	}
	if h.Worker(w.ID()) != w {
		c.bad("%s/%s: is not found", h.ID(), w.ID())
	}
	fit := h.Live() == hivebeat.Alive && h.Fresh() && !h.Doubtful() && !r.Closed && live == hivebeat.Alive && fresh &&
		(r.State == hivebeat.Ready || r.State == hivebeat.Busy) && !r.Stalled && r.Quiet == 0 && w.FreeSlots() > 0
	worst := worstOf(h, r)
	drain := drainOf(h, r)
	if w.Drain() != drain {
		c.bad("%s/%s: is kept under the drain %v, is under %v", h.ID(), w.ID(), w.Drain(), drain)
	}
	fit = fit && drain == nil && worst < slices.Index(hivebeat.GPUStates(), hivebeat.GPUFailing)
	if fit != w.Fit() {
		c.bad("%s/%s: fits: %v", h.ID(), w.ID(), w.Fit())
	}
	if fit {
		c.free[r.Model] += w.FreeSlots()
		c.able[[2]string{r.Model, h.Zone()}]++
		c.workers[w] = r.Model
		if r.Looping || worst > 0 || r.Model == "" && len(r.Cold) > 0 {
			c.workers[w] = last
		}
	}
	if r.Closed {
		c.totals.Closed++
	}
	if r.Looping {
		c.totals.Looping++
	}
	if live == hivebeat.Alive {
		is := c.loads[r.Model]
		is.Busy, is.Slots, is.Queue = is.Busy+r.Busy, is.Slots+r.Slots, is.Queue+r.Queue
		c.loads[r.Model] = is
		load.Busy, load.Slots, load.Queue = load.Busy+r.Busy, load.Slots+r.Slots, load.Queue+r.Queue
	}
	own[m]++
	c.mixes[m]++
	c.shapes[index.Mix{Live: live, State: r.State}]++
	if c.zones[h.Zone()] == nil {
		c.zones[h.Zone()] = mixes{}
	}
	c.zones[h.Zone()][m]++
	c.shown++
}

func (c *check) counts() {
	t := c.Totals()
	c.totals.Warming = t.Warming // a fact of the judgement, which cannot be recomputed
	if !maps.Equal(t.Hives, c.totals.Hives) {
		c.bad("hives are kept as %v, are %v", t.Hives, c.totals.Hives)
	}
	if t.Hives, c.totals.Hives = nil, nil; fmt.Sprint(t) != fmt.Sprint(c.totals) {
		c.bad("totals are kept as %+v, are %+v", t, c.totals)
	}
	same := func(what string, each func(func(index.Mix, int)), want mixes) {
		got := mixes{}
		each(func(m index.Mix, n int) {
			if got[m] != 0 || n == 0 {
				c.bad("%s: %v is listed twice or empty", what, m)
			}
			got[m] = n
		})
		if !maps.Equal(got, want) {
			c.bad("%s: mixes are kept as %v, are %v", what, got, want)
		}
	}
	same("fleet", func(yield func(index.Mix, int)) { c.EachMix("", false, yield) }, c.mixes)
	same("shapes", c.EachShape, c.shapes)
	for zone, want := range c.zones {
		same("zone "+zone, func(yield func(index.Mix, int)) { c.EachMix(zone, true, yield) }, want)
	}
}

// pools checks that everything that can take work is listed once, at the right level.
func (c *check) pools() {
	of := func(m *index.Model, model string) {
		for _, p := range m.Pools() {
			n := 0
			for level := range index.SlotLevels {
				for _, w := range p.Level(level) {
					n++
					if at, ok := c.workers[w]; !ok || at != model || p.Zone != w.Hive().Zone() || level != min(bits.Len64(w.FreeSlots()), index.SlotLevels)-1 {
						c.bad("%s/%s: is listed for model %q in zone %q on level %d", w.Hive().ID(), w.ID(), model, p.Zone, level)
					}
					delete(c.workers, w)
				}
			}
			if n != p.Len() || n == 0 {
				c.bad("model %q, zone %q: %d workers, kept as %d", model, p.Zone, n, p.Len())
			}
		}
	}
	of(c.Last(), last)
	n := 0
	c.EachModel(func(m *index.Model) bool {
		n++
		of(m, m.Name)
		m.EachZone(func(zone string, n int) {
			if want := c.able[[2]string{m.Name, zone}]; n != want {
				c.bad("model %q: %d workers of zone %q are kept as able, there are %d", m.Name, n, zone, want)
			}
			delete(c.able, [2]string{m.Name, zone})
		})
		if l, _ := m.Load(); l != c.loads[m.Name] || m.FreeSlots() != c.free[m.Name] {
			c.bad("model %q: load %v and %d free slots are kept, there are %v and %d", m.Name, l, m.FreeSlots(), c.loads[m.Name], c.free[m.Name])
		}
		if c.Model(m.Name) != m || !slices.Equal(m.Hives(), c.models[m.Name]) {
			c.bad("model %q: %d hives are listed, there are %d", m.Name, len(m.Hives()), len(c.models[m.Name]))
		}
		return true
	})
	if n != len(c.models) {
		c.bad("%d models are kept, there are %d", n, len(c.models))
	}
	for of, n := range c.able {
		c.bad("model %q: %d workers of zone %q are able and not counted", of[0], n, of[1])
	}
	for w := range c.workers {
		c.bad("%s/%s: fits and is not listed", w.Hive().ID(), w.ID())
	}
	c.gpuPools(c.Index.GPUs(), false)
	c.gpuPools(c.LastGPUs(), true)
	if len(c.gpus) > 0 {
		c.bad("%d places fit and are not listed", len(c.gpus))
	}
}

func (c *check) gpuPools(pools []*index.Pool[*index.GPU], last bool) {
	for _, p := range pools {
		n := 0
		for level := range index.MemoryLevels {
			for _, g := range p.Level(level) {
				n++
				h, d := g.Device()
				if at, ok := c.gpus[g]; !ok || at != level || p.Zone != h.Zone() || last != (d.Condition() == hivebeat.GPUDegraded) {
					c.bad("%s: place %s is listed in zone %q on level %d, last %v", h.ID(), g.UUID(), p.Zone, level, last)
				}
				delete(c.gpus, g)
			}
		}
		if n != p.Len() || n == 0 {
			c.bad("zone %q: %d places, kept as %d", p.Zone, n, p.Len())
		}
	}
}

// lists checks the lists of hives: by zone, label and free memory.
func (c *check) lists() {
	for zone, want := range c.inZone {
		if got := c.InZone(zone); !slices.Equal(slices.DeleteFunc(slices.Clone(got), func(h *index.Hive) bool { return h.Live() == "" }), want) {
			c.bad("zone %q: %d hives are listed, there are %d", zone, len(got), len(want))
		}
	}
	for l, want := range c.labels {
		got := c.LabelledAny(l[0])
		if l[1] != anyValue {
			got = c.Labelled(l[0], l[1])
		}
		if !slices.Equal(got, want) {
			c.bad("label %q: %d hives are listed, there are %d", l, len(got), len(want))
		}
	}
	seen := make(map[*index.Hive]bool)
	for level := range index.MemoryLevels {
		for _, h := range c.ByFreeMemory(level) {
			want := 0
			if h.Fresh() {
				want = index.MemoryLevel(h.FreeMemory())
			}
			if seen[h] || want != level || !c.Has(h) || h.Live() == "" {
				c.bad("%s: is listed on level %d of free memory, or twice", h.ID(), level)
			}
			seen[h] = true
		}
	}
	for _, h := range c.Hives() {
		if h.Live() != "" && !seen[h] {
			c.bad("%s: is not listed by free memory", h.ID())
		}
	}
}

// log checks that the change log has each hive and worker once, in order.
func (c *check) log() {
	last, n := uint64(0), 0
	c.Changed(0, func(h *index.Hive, w *index.Worker, rev, key uint64) bool {
		n++
		r, k := h.Revision()
		if w != nil {
			r, k = w.Revision()
		}
		if rev <= last || rev != r || key != k || rev > c.Rev() {
			c.bad("log: %s has revisions %d and %d, kept as %d and %d, after %d", h.ID(), rev, key, r, k, last)
		}
		last = rev
		return true
	})
	if n != c.shown {
		c.bad("log: %d entries, of %d hives and workers", n, c.shown)
	}
}
