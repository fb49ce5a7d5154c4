package query

import (
	"cmp"
	"hash/fnv"
	"math/bits"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/beatfabric/hivebeat"
	"github.com/beatfabric/hivebeat/internal/index"
	"github.com/beatfabric/hivebeat/queen/api"
)

// A pick finds capacity in the lists that the view keeps (internal/index/capacity.go), with a limited
// number of looks. From some zones it takes some candidates with the most free slots, or
// with the least memory that is enough. It chooses among equals at random, so that clients
// that ask at once are not all sent to the same place. If that finds too few because the
// filter is narrow, it goes through all lists, in steps. If labels make the filter narrow,
// it goes through the hives that have such labels (walk.go), and starts with them if the
// view knows that they are few. What is picked last is in lists of its own, which a pick
// looks at only if there are too few others.

const (
	pickLooks   = 1_024  // of the first step
	pickAll     = 512    // up to this many candidates are all looked at
	pickZones   = 4      // zones looked at, or more if more places are asked for
	pickEach    = 8      // candidates of each zone
	pickModels  = 10_000 // models that a glob may be tried on
	pickScan    = 50_000 // looks of all steps
	pickExplain = 2_000  // looks at candidates that do not fit, if too few do
)

// Finder looks for capacity. It is a Job. Besides the answer, Found returns the places that
// it picked.
type Finder struct {
	r      api.Request
	filter filter
	n      int
	need   uint64 // slots, or bytes on each GPU
	gpu    bool
	gpus   int                  // of each place, if it is for GPUs
	not    map[index.Place]bool // leave these out
	hold   HoldID               // that the places are for; empty if for none

	cands  []candidate
	taken  map[index.Place]bool
	passed map[string]int
	joined map[*index.Hive]joined // hives whose GPUs were joined to places of several
	final  bool                   // it looks at what is picked last
	looks  int
	steps  int
	scanAt int
	walk   walk
	cut    bool
	found  []Found
	answer api.Answer
}

// Found is a place that was picked.
type Found struct {
	Place index.Place
	Need  uint64  // slots or bytes
	Room  uint64  // free slots or bytes, as if nothing were held
	More  []Found // the other GPUs, if several were asked for: all are held or none
}

type candidate struct {
	last   bool
	w      *index.Worker
	g      *index.GPU
	more   []*index.GPU // the other GPUs of the place
	zone   string
	hive   *index.Hive
	serves bool
	wait   int // less is better, in this and the next ones
	kv     int
	level  int
	queue  int
	chance uint32
}

func (c *candidate) place() index.Place {
	if c.w != nil {
		return index.Place{Hive: c.hive.ID(), Worker: c.w.Record().Worker}
	}
	return placeOf(c.g)
}

func placeOf(g *index.GPU) index.Place {
	h, _ := g.Device()
	return index.Place{Hive: h.ID(), GPU: g.UUID()}
}

// found returns what a pick of c takes.
func (c *candidate) found(need uint64) Found {
	if c.w != nil {
		return Found{Place: c.place(), Need: need, Room: c.w.Room()}
	}
	f := Found{Place: placeOf(c.g), Need: need, Room: c.g.Free() + c.g.Held()}
	for _, g := range c.more {
		f.More = append(f.More, Found{Place: placeOf(g), Need: need, Room: g.Free() + g.Held()})
	}
	return f
}

// NewFinder returns the job of a pick. The request was checked. The pick leaves out the
// places in not.
func NewFinder(r api.Request, not map[index.Place]bool) *Finder {
	f := &Finder{
		r: r, filter: filterOf(&r), n: max(1, r.N), gpu: r.For == api.ForGPU, gpus: max(1, r.GPUs), not: not,
		taken: make(map[index.Place]bool), passed: make(map[string]int), joined: make(map[*index.Hive]joined),
	}
	f.need = max(1, r.Slots, r.FreeSlots)
	if f.gpu {
		f.need = r.FreeVRAM
	}
	return f
}

// For makes the hold that the places are for decide among equals, instead of chance. Two
// queens that are asked for the same hold then choose the same places, if they look at the
// same candidates.
func (f *Finder) For(id HoldID) *Finder {
	f.hold = id
	return f
}

// lot returns a random number, or the number of a place for a hold.
func (f *Finder) lot(p index.Place) uint32 {
	if f.hold == (HoldID{}) {
		return rand.Uint32()
	}
	h := fnv.New32a()
	for _, s := range []string{f.hold.Asker, f.hold.ID, p.Hive, p.Worker, p.GPU} {
		_, _ = h.Write([]byte(s))
		_, _ = h.Write([]byte{0})
	}
	return h.Sum32()
}

// Answer returns the result.
func (f *Finder) Answer() api.Answer { return f.answer }

// Found returns the places in the answer.
func (f *Finder) Found() []Found { return f.found }

// Step looks at some candidates.
func (f *Finder) Step(v *index.Index, now time.Time) bool {
	if f.filter.hive != "" && known(v, f.filter.hive) == nil {
		f.answer = notFound("no hive " + f.filter.hive + " is known")
		return true
	}
	lists := f.lists(v)
	total := 0
	for _, l := range lists {
		total += l.n
	}
	f.looks = 0
	f.steps++
	byLabels, sampled := !f.filter.selector.Empty() && f.filter.hive == "", f.steps == 1
	var labelled []*index.Hive
	if byLabels && (total > pickAll || !sampled) { // otherwise the sample looks at all
		meant := f.meant()
		labelled = meant.among(v)
		if sampled && f.narrow(v, labelled) {
			f.steps++ // the sample would find almost none
			sampled = false
		}
	}
	if sampled {
		f.sample(v, lists, total, now)
		if len(f.cands) < f.n && total > pickAll && f.filter.hive == "" {
			return false
		}
	} else {
		if f.steps == 2 { // it looks at all candidates, including those of the first step
			clear(f.passed)
			clear(f.joined)
		}
		done := false
		if byLabels {
			done = f.walkHives(v, labelled, now)
		} else {
			done = f.scan(v, lists, now)
		}
		if !done {
			return false
		}
	}
	f.last(v, now)
	f.choose(v, now)
	if len(f.found) < f.n {
		if n := total - f.walk.seen; f.walk.begun && !f.cut && n > 0 {
			f.passed[otherLabels] += n
		}
		for _, j := range f.joined {
			if j.left > 0 {
				f.passed["too few such GPUs on its machine"] += j.left
			}
		}
		f.explain(v)
	}
	f.answer.Passed = f.passed
	if f.cut && len(f.found) < f.n {
		f.answer.Status.Unsure = append(f.answer.Status.Unsure, "there are more candidates than one pick looks at: some of them may fit")
	}
	return true
}

// look takes a candidate if it fits.
func (f *Finder) look(v *index.Index, w *index.Worker, g *index.GPU, serves bool, now time.Time) {
	f.looks++
	if g != nil && f.gpus > 1 {
		f.join(v, g, serves, now)
		return
	}
	c := candidate{w: w, g: g, serves: serves}
	if w != nil {
		c.hive, c.last = w.Hive(), w.Last() || w.Stranger() != ""
		free := w.FreeSlots()
		c.level, c.queue = -bits.Len64(free-min(free, w.Given())), bits.Len64(w.Record().Queue)
		c.wait, c.kv = waitOf(w), fullness(w.Record().KV)
	} else {
		c.hive, _ = g.Device()
		c.last, c.level = g.Last(), index.MemoryLevel(g.Free())
	}
	c.zone = c.hive.Zone()
	p := c.place()
	if f.taken[p] {
		return
	}
	c.chance = f.lot(p)
	if why := f.unfit(v, &c, p, now); why != "" {
		f.passed[why]++
		return
	}
	if g != nil && !serves {
		c.serves = f.servesModel(c.hive)
	}
	f.taken[p] = true
	f.cands = append(f.cands, c)
}

// joined says how many GPUs of a hive were left over, and whether those that are picked last were among them.
type joined struct {
	left  int
	final bool
}

// join makes places of several GPUs of the machine of g: of whole ones, since a program cannot use more than
// one instance, and together of those with about the same free memory.
func (f *Finder) join(v *index.Index, g *index.GPU, serves bool, now time.Time) {
	h, _ := g.Device()
	if before, ok := f.joined[h]; ok && before.final == f.final {
		return
	}
	var fits []*index.GPU
	gpus := h.GPUs()
	for i := range gpus {
		c := candidate{g: &gpus[i], hive: h, zone: h.Zone()}
		p := c.place()
		if !c.g.Fit() || c.g.Last() && !f.final || f.taken[p] {
			continue
		}
		f.looks++
		why := f.unfit(v, &c, p, now)
		if c.g.Instance() != nil {
			why = "split: no whole GPU"
		}
		switch {
		case why == "":
			fits = append(fits, c.g)
		case f.skips() && index.MemoryLevel(c.g.Free()) < f.level(): // explain counts it
		case c.g.Last() == f.final: // it was not counted before
			f.passed[why]++
		}
	}
	level := func(g *index.GPU) int {
		if g.Last() {
			return index.MemoryLevels
		}
		return index.MemoryLevel(g.Free())
	}
	slices.SortStableFunc(fits, func(a, b *index.GPU) int { return cmp.Compare(level(a), level(b)) })
	for len(fits) >= f.gpus {
		c := candidate{g: fits[0], more: fits[1:f.gpus:f.gpus], hive: h, zone: h.Zone(), serves: serves || f.servesModel(h)}
		fits = fits[f.gpus:]
		c.level, c.chance = index.MemoryLevel(c.free()), f.lot(c.place())
		for _, g := range c.gpus() {
			c.last = c.last || g.Last()
			f.taken[placeOf(g)] = true
		}
		f.cands = append(f.cands, c)
	}
	f.joined[h] = joined{len(fits), f.final}
}

// gpus returns all GPUs of the place.
func (c *candidate) gpus() []*index.GPU { return append([]*index.GPU{c.g}, c.more...) }

// free returns the bytes that are free on each GPU of the place.
func (c *candidate) free() uint64 {
	free := c.g.Free()
	for _, g := range c.more {
		free = min(free, g.Free())
	}
	return free
}

func (f *Finder) servesModel(h *index.Hive) (yes bool) {
	if f.filter.Model == "" {
		return false
	}
	h.EachMix(func(m index.Mix, _ int) {
		l := index.Counted(m.Live)
		yes = yes || (l == hivebeat.Alive || l == hivebeat.Late) && f.filter.model(m.Model)
	})
	return yes
}

const otherLabels = "other labels"

// unfit returns why a candidate does not fit, or "". It checks only the conditions that the
// lists of the view do not cover.
func (f *Finder) unfit(v *index.Index, c *candidate, p index.Place, now time.Time) string {
	h := c.hive
	switch {
	case f.filter.Zone != "" && f.filter.Zone != c.zone:
		return "another zone"
	case h.Conflict(now) != nil:
		return "its hive is in conflict"
	case v.DoubtedBy(h, now) != "":
		return "another queen doubts its hive"
	case f.not[p]:
		return "taken by another hold"
	}
	if why := f.filter.otherMachine(h); why != "" {
		return why
	}
	limit := hivebeat.MillisOf(v.Fresh())
	if f.filter.MaxAge > 0 {
		limit = min(limit, f.filter.MaxAge)
	}
	if c.w == nil {
		_, g := c.g.Device()
		switch {
		case index.EffectiveAge(g.Age, h.Received(), now) > limit:
			return "too old"
		case !f.filter.selector.Empty() && !f.filter.selector.Fits(labelsOf(h, nil)):
			return otherLabels
		case c.g.Free() < f.need:
			return f.tooLittle(h)
		case f.overBudget(h, 0):
			return overBudget
		}
		return ""
	}
	r := c.w.Record()
	switch {
	case index.EffectiveAge(r.Age, c.w.Received(), now) > limit:
		return "too old"
	case r.Rival != 0:
		return "in conflict"
	case r.EngineSilent(index.EffectiveAge(r.Age, c.w.Received(), now)):
		return engineSilent
	case c.w.FreeSlots() < f.need:
		return "too few free slots"
	case !f.filter.selector.Empty() && !f.filter.selector.Fits(labelsOf(h, r)):
		return otherLabels
	case f.filter.FreeVRAM > 0 && !hasFreeMemory(h, h.Named(r), f.filter.FreeVRAM):
		return "too little free memory"
	case f.young(c.w, now):
		return "started too recently"
	}
	return ""
}

const overBudget = "over the machine's VRAM budget"

// overBudget reports whether the places of h together cannot offer what one more place takes, if spent bytes
// are taken already.
func (f *Finder) overBudget(h *index.Hive, spent uint64) bool {
	room, limited := h.Room()
	return limited && (spent > room || (room-spent)/uint64(f.gpus) < f.need)
}

// tooLittle says why a GPU of h has too little free memory.
func (f *Finder) tooLittle(h *index.Hive) string {
	if f.overBudget(h, 0) {
		return overBudget
	}
	return "too little free memory"
}

// young reports whether w began a shorter time ago than is asked for.
func (f *Finder) young(w *index.Worker, now time.Time) bool {
	return f.r.MinUptime > 0 && w.Up(now) < f.r.MinUptime
}

// choose picks the best of the candidates, spread as asked for.
func (f *Finder) choose(v *index.Index, now time.Time) {
	zones, hives := make(map[string]int), make(map[*index.Hive]int)
	spent := make(map[*index.Hive]uint64) // bytes of places that were chosen
	spread := cmp.Or(f.r.Spread, api.SpreadZone)
	better := func(a, b *candidate) int {
		if a.last != b.last {
			if b.last {
				return -1
			}
			return 1
		}
		c := 0
		if spread == api.SpreadZone {
			c = cmp.Compare(zones[a.zone], zones[b.zone])
		}
		if c == 0 && spread != api.SpreadNone {
			c = cmp.Compare(hives[a.hive], hives[b.hive])
		}
		if c == 0 && a.serves != b.serves {
			if a.serves {
				return -1
			}
			return 1
		}
		return cmp.Or(c, cmp.Compare(a.wait, b.wait), cmp.Compare(a.kv, b.kv), cmp.Compare(a.level, b.level), cmp.Compare(a.queue, b.queue), cmp.Compare(a.chance, b.chance))
	}
	for len(f.found) < f.n && len(f.cands) > 0 {
		best := 0
		for i := range f.cands {
			if better(&f.cands[i], &f.cands[best]) < 0 {
				best = i
			}
		}
		c := f.cands[best]
		f.cands[best] = f.cands[len(f.cands)-1]
		f.cands = f.cands[:len(f.cands)-1]
		if f.gpu && f.overBudget(c.hive, spent[c.hive]) {
			f.passed[overBudget]++
			continue
		}
		f.add(v, &c, zones[c.zone], hives[c.hive], now)
		zones[c.zone]++
		hives[c.hive]++
		spent[c.hive] += f.need * uint64(f.gpus)
		if c.w != nil && f.hold == (HoldID{}) { // a hold takes the slots themselves
			c.w.Give(f.need)
		}
	}
}
