package fleet

import (
	"math/bits"
	"time"

	"github.com/beatfabric/hivebeat"
)

// Who can take work is kept by what is asked for: workers by model, zone and free
// slots, GPUs by zone and free memory. A seat is a place in such a list. Whoever
// must never be picked (Fit) has none. Those that loop are listed apart: they are picked
// where no other worker fits.

const (
	// SlotLevels is how many lists there are by free slots: 1, 2 and 3, 4 to 7, ….
	SlotLevels = 12
	// RoomLevels is how many there are by free memory of a GPU: under 1 GiB, under
	// 2, …, and all from 128 GiB on.
	RoomLevels = 129
)

// seat is where a worker is listed.
type seat struct {
	cell  *Cell
	level uint8
	pos   int32
}

// Cell has the workers of one model in one zone that can take work.
type Cell struct {
	Zone   string
	of     *Serving
	pos    int // in its Cells
	levels [SlotLevels][]*Worker
	n      int
}

// Len is how many there are.
func (c *Cell) Len() int { return c.n }

// Level returns those with free slots of 2^i to 2^(i+1) - 1, and more on the last.
// The slice is not to be kept, nor changed.
func (c *Cell) Level(i int) []*Worker { return c.levels[i] }

// Serving is what is kept about a model.
type Serving struct {
	Model  string
	Cells  []*Cell // of the zones in which a worker of it can take work
	byZone map[string]*Cell
	hives  hivesByID     // that have a worker of it
	at     map[*Hive]int // how many tallies of those are of the model
}

// Hives returns the hives that have a worker of the model, whatever it does, by id.
// The slice is not to be kept, nor changed.
func (s *Serving) Hives() []*Hive { return s.hives }

// Serving returns what is kept about a model, or nil where no worker has it.
func (v *View) Serving(model string) *Serving { return v.models[model] }

// EachServing yields every model until that returns false.
func (v *View) EachServing(yield func(*Serving) bool) {
	for _, s := range v.models {
		if !yield(s) {
			return
		}
	}
}

// Looping has the workers that loop, of all models.
func (v *View) Looping() *Serving { return &v.loops }

// serves notes that h has workers of one more mix with this model.
func (v *View) serves(h *Hive, model string) {
	s := v.models[model]
	if s == nil {
		s = &Serving{Model: model, byZone: make(map[string]*Cell), at: make(map[*Hive]int)}
		v.models[model] = s
	}
	if s.at[h]++; s.at[h] == 1 {
		s.hives.add(h)
	}
}

func (v *View) servesNot(h *Hive, model string) {
	s := v.models[model]
	if s.at[h]--; s.at[h] > 0 {
		return
	}
	delete(s.at, h)
	if s.hives.remove(h); len(s.hives) == 0 {
		delete(v.models, model)
	}
}

// Serves reports whether h has a worker of the model.
func (s *Serving) Serves(h *Hive) bool {
	_, ok := s.at[h]
	return ok
}

// Fit reports whether w may be picked for work by what is kept of it: whatever is
// not sure, says no.
func (w *Worker) Fit() bool {
	m := &w.shown.tally.Mix
	return w.hive.live == hivebeat.Alive && w.hive.isFresh && !w.hive.inDoubt && !w.rec.Closed && m.Live == hivebeat.Alive && w.shown.fresh &&
		(m.State == hivebeat.Ready || m.State == hivebeat.Busy) && !w.rec.Stalled && w.rec.Quiet == 0 && w.FreeSlots() > 0
}

// reseat lists w where it belongs now.
func (v *View) reseat(h *Hive, w *Worker) {
	s := &w.shown.seat
	if !w.Fit() {
		v.unseat(w)
		return
	}
	level := uint8(min(bits.Len64(w.FreeSlots()), SlotLevels) - 1)
	m := v.servingOf(w)
	if c := s.cell; c != nil && s.level == level && c.of == m && c.Zone == h.zone {
		return
	}
	v.unseat(w)
	c := m.byZone[h.zone]
	if c == nil {
		c = &Cell{Zone: h.zone, of: m, pos: len(m.Cells)}
		m.byZone[h.zone] = c
		m.Cells = append(m.Cells, c)
	}
	*s = seat{cell: c, level: level, pos: int32(len(c.levels[level]))}
	c.levels[level] = append(c.levels[level], w)
	c.n++
}

// servingOf is where w is listed.
func (v *View) servingOf(w *Worker) *Serving {
	if w.rec.Looping {
		return &v.loops
	}
	return v.models[w.shown.tally.Model]
}

// unseat takes w off its list.
func (v *View) unseat(w *Worker) {
	s := &w.shown.seat
	c := s.cell
	if c == nil {
		return
	}
	list := c.levels[s.level]
	last := len(list) - 1
	list[s.pos] = list[last]
	list[s.pos].shown.seat.pos = s.pos
	list[last] = nil
	c.levels[s.level] = list[:last]
	*s = seat{}
	if c.n--; c.n == 0 {
		m := c.of
		last := len(m.Cells) - 1
		m.Cells[c.pos] = m.Cells[last]
		m.Cells[c.pos].pos = c.pos
		m.Cells[last] = nil
		m.Cells = m.Cells[:last]
		delete(m.byZone, c.Zone)
	}
}

// GPUSeat is a GPU that may take another worker.
type GPUSeat struct {
	hive  *Hive
	index int // in the hive's head
	room  *Room
	level uint8
	pos   int32
	held  uint64
}

// GPU returns the GPU and its hive. It is only good until the next input.
func (g *GPUSeat) GPU() (*Hive, *hivebeat.GPU) { return g.hive, &g.hive.head.GPUs[g.index] }

// Free is how many bytes of it nobody uses or holds.
func (g *GPUSeat) Free() uint64 { return free(&g.hive.head.GPUs[g.index], g.held) }

// Held is how many bytes of it are held.
func (g *GPUSeat) Held() uint64 { return g.held }

func free(g *hivebeat.GPU, held uint64) uint64 { return g.Free() - min(held, g.Free()) }

// Room has the GPUs of one zone by their free memory.
type Room struct {
	Zone   string
	levels [RoomLevels][]*GPUSeat
	n      int
	pos    int
}

// Level returns those with i GiB free and less than one more. The slice is not to
// be kept, nor changed.
func (r *Room) Level(i int) []*GPUSeat { return r.levels[i] }

// Len is how many there are.
func (r *Room) Len() int { return r.n }

// RoomLevel is the level of a GPU with so many bytes free.
func RoomLevel(free uint64) int { return int(min(free>>30, RoomLevels-1)) }

// Rooms returns the zones that have GPUs which can take work. The slice is not to
// be kept, nor changed.
func (v *View) Rooms() []*Room { return v.rooms }

// GPUSeats returns the GPUs of h, each of which may have no seat now. The slice is
// not to be kept, nor changed.
func (h *Hive) GPUSeats() []GPUSeat { return h.gpus }

// Room is how many bytes are free on the GPU of h with most, of those that can be
// read: as it was told last, whether that is fresh or not.
func (h *Hive) Room() uint64 { return h.room }

// roomAt is where a hive is listed by its room.
type roomAt struct {
	level uint8 // counted from 1; 0 is nowhere
	pos   int32
}

// ByRoom returns the hives with i GiB of room, and less than one more: those of which
// that is not fresh have none. The slice is not to be kept, nor changed.
func (v *View) ByRoom(i int) []*Hive { return v.byRoom[i] }

// reroom lists h by its room now.
func (v *View) reroom(h *Hive) {
	is := uint8(0)
	if h.live != "" {
		is = 1
		if h.isFresh {
			is += uint8(RoomLevel(h.room))
		}
	}
	was := h.roomAt
	if was.level == is {
		return
	}
	if was.level > 0 {
		list := v.byRoom[was.level-1]
		last := len(list) - 1
		list[was.pos] = list[last]
		list[was.pos].roomAt.pos = was.pos
		list[last] = nil
		v.byRoom[was.level-1] = list[:last]
	}
	h.roomAt = roomAt{}
	if is > 0 {
		h.roomAt = roomAt{is, int32(len(v.byRoom[is-1]))}
		v.byRoom[is-1] = append(v.byRoom[is-1], h)
	}
}

// Seated reports whether the GPU may be picked by what is kept of it.
func (g *GPUSeat) Seated() bool { return g.room != nil }

// seatGPUs lists the GPUs of h where they belong now.
func (v *View) seatGPUs(h *Hive) {
	if len(h.gpus) != len(h.head.GPUs) {
		v.unseatGPUs(h)
		h.gpus = make([]GPUSeat, len(h.head.GPUs))
		for i := range h.gpus {
			h.gpus[i] = GPUSeat{hive: h, index: i}
		}
	}
	fit := h.live == hivebeat.Alive && h.isFresh && !h.inDoubt
	h.room = 0
	for i := range h.gpus {
		s, g := &h.gpus[i], &h.head.GPUs[i]
		s.held = 0
		if len(v.holds) > 0 {
			s.held = v.holds[Place{Hive: h.id, GPU: g.UUID}]
		}
		if g.Err == "" {
			h.room = max(h.room, free(g, s.held))
		}
		if !fit || g.Err != "" || g.UUID == "" || g.Total == 0 {
			v.unseatGPU(s)
			continue
		}
		level := uint8(RoomLevel(free(g, s.held)))
		if s.room != nil && s.level == level {
			continue
		}
		v.unseatGPU(s)
		r := v.roomOf[h.zone]
		if r == nil {
			r = &Room{Zone: h.zone, pos: len(v.rooms)}
			v.roomOf[h.zone] = r
			v.rooms = append(v.rooms, r)
		}
		s.room, s.level, s.pos = r, level, int32(len(r.levels[level]))
		r.levels[level] = append(r.levels[level], s)
		r.n++
	}
}

func (v *View) unseatGPUs(h *Hive) {
	for i := range h.gpus {
		v.unseatGPU(&h.gpus[i])
	}
}

func (v *View) unseatGPU(s *GPUSeat) {
	r := s.room
	if r == nil {
		return
	}
	list := r.levels[s.level]
	last := len(list) - 1
	list[s.pos] = list[last]
	list[s.pos].pos = s.pos
	list[last] = nil
	r.levels[s.level] = list[:last]
	s.room, s.level, s.pos = nil, 0, 0
	if r.n--; r.n == 0 {
		last := len(v.rooms) - 1
		v.rooms[r.pos] = v.rooms[last]
		v.rooms[r.pos].pos = r.pos
		v.rooms[last] = nil
		v.rooms = v.rooms[:last]
		delete(v.roomOf, r.Zone)
	}
}

// Place is what can be held: a worker's slots, or a GPU's memory.
type Place struct{ Hive, Worker, GPU string }

// SetHeld says how much of a place is held: slots, or bytes. Of places that are not
// known it is remembered for when they are.
func (v *View) SetHeld(p Place, n uint64, now time.Time) {
	if v.holds[p] == n {
		return
	}
	if n == 0 {
		delete(v.holds, p)
	} else {
		v.holds[p] = n
	}
	h := v.hives[p.Hive]
	switch {
	case h == nil:
	case p.Worker != "":
		if w := h.workers[p.Worker]; w != nil && w.shown.tally != nil {
			w.shown.held = n
			v.reshow(h, w, true, now)
		}
	default:
		v.resum(h, another, now)
	}
}
