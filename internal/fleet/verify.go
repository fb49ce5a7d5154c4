package fleet

import (
	"errors"
	"fmt"
	"maps"
	"math/bits"
	"slices"
	"strings"
	"time"

	"github.com/beatfabric/hivebeat"
)

// Verify computes all that is kept (index.go, seats.go, trace.go) anew by loops
// over all workers, and returns what differs. It settles the view first. It is for
// tests.
func (v *View) Verify(now time.Time) error {
	v.Settle(now)
	var errs []error
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	mixes, zones := make(map[Mix]int), make(map[string]map[Mix]int)
	t := Totals{Hives: make(map[hivebeat.Live]int)}
	seats, rooms := 0, 0
	own := make(map[Mix]int)
	for _, h := range v.order {
		if h.live != "" {
			t.Hives[h.live]++
		}
		told := &h.head.Stats
		t.Stats.FalseDead += told.FalseDead
		t.Stats.CutOff += told.CutOff
		t.Stats.WireLost += told.WireLost
		t.Stats.SelfPause += told.SelfPause
		fresh := h.head.Inc != 0 && EffectiveAge(0, h.received, now) <= hivebeat.MillisOf(v.fresh)
		if fresh != h.isFresh {
			bad("%s: fresh is kept as %v", h.id, h.isFresh)
		}
		if fresh && h.Up() {
			t.GPUs += len(h.head.GPUs)
			for i := range h.head.GPUs {
				g := &h.head.GPUs[i]
				t.VRAM = VRAM{t.VRAM.Total + g.Total, t.VRAM.Used + g.Used, t.VRAM.Ours + g.Ours}
			}
		}
		if h.live != "" && (h.in == nil || h.rev == 0) {
			bad("%s: has no revision", h.id)
		}
		if len(h.gpus) != len(h.head.GPUs) {
			bad("%s: %d seats of %d GPUs", h.id, len(h.gpus), len(h.head.GPUs))
			continue
		}
		for i := range h.gpus {
			s, g := &h.gpus[i], &h.head.GPUs[i]
			fit := fresh && h.live == hivebeat.Alive && g.Err == "" && g.UUID != "" && g.Total != 0
			switch {
			case fit != s.Seated():
				bad("%s: GPU %d is seated: %v", h.id, i, s.Seated())
			case fit && (s.room.Zone != h.zone || int(s.level) != RoomLevel(s.Free()) || s.room.levels[s.level][s.pos] != s):
				bad("%s: GPU %d sits elsewhere", h.id, i)
			}
			if fit {
				rooms++
			}
		}
		var load Load
		clear(own)
		for _, w := range h.workers {
			live, _, fresh := v.Shown(h, w, now)
			m := Mix{live, w.rec.State, w.rec.Model}
			switch {
			case w.hive != h || w.shown.tally == nil:
				bad("%s/%s: not counted", h.id, w.rec.Worker)
				continue
			case w.Mix() != m || w.shown.fresh != fresh:
				bad("%s/%s: kept as %v %v, is %v %v", h.id, w.rec.Worker, w.Mix(), w.shown.fresh, m, fresh)
			case w.shown.in == nil || w.shown.rev == 0 || w.shown.key > w.shown.rev:
				bad("%s/%s: has no revision", h.id, w.rec.Worker)
			case w.Fit() != (w.shown.cell != nil):
				bad("%s/%s: fit %v, seated %v", h.id, w.rec.Worker, w.Fit(), w.shown.cell != nil)
			}
			if c := w.shown.cell; c != nil {
				seats++
				if c.Zone != h.zone || c.of != v.servingOf(w) || int(w.shown.level) != min(bits.Len64(w.FreeSlots()), SlotLevels)-1 ||
					c.levels[w.shown.level][w.shown.seat.pos] != w {
					bad("%s/%s: sits elsewhere", h.id, w.rec.Worker)
				}
			}
			if s := v.models[m.Model]; s == nil || !s.Serves(h) {
				bad("%s: is not listed for the model %q", h.id, m.Model)
			}
			own[m]++
			mixes[m]++
			if zones[h.zone] == nil {
				zones[h.zone] = make(map[Mix]int)
			}
			zones[h.zone][m]++
			if live == hivebeat.Alive {
				load.add(Load{w.rec.Busy, w.rec.Slots, w.rec.Queue})
			}
		}
		for _, w := range h.workers {
			if w.rec.Closed {
				t.Closed++
			}
			if w.rec.Looping {
				t.Looping++
			}
		}
		if h.share.warms {
			t.Warming++
		}
		t.Workers += len(h.workers)
		t.Load.add(load)
		if h.load != load {
			bad("%s: load is kept as %v, is %v", h.id, h.load, load)
		}
		if err := h.mixes.differ(own); err != nil {
			bad("%s: %w", h.id, err)
		}
	}
	if !t.equal(&v.totals) {
		bad("totals are kept as %+v, are %+v", v.totals, t)
	}
	if err := v.mixes.differ(mixes); err != nil {
		bad("fleet: %w", err)
	}
	shapes := make(map[Mix]int)
	for m, n := range mixes {
		shapes[Mix{Live: m.Live, State: m.State}] += n
	}
	if err := v.shapes.differ(shapes); err != nil {
		bad("shapes: %w", err)
	}
	for name, z := range v.byZone {
		if err := z.mixes.differ(zones[name]); err != nil {
			bad("zone %q: %w", name, err)
		}
	}
	for zone := range zones {
		if v.byZone[zone] == nil {
			bad("zone %q is not known", zone)
		}
	}
	v.verifySeats(seats, rooms, bad)
	v.verifyLists(bad)
	v.verifyLog(bad)
	return errors.Join(errs...)
}

func (t *Totals) equal(o *Totals) bool {
	return maps.Equal(t.Hives, o.Hives) && t.Workers == o.Workers && t.Warming == o.Warming && t.Closed == o.Closed && t.Looping == o.Looping && t.Load == o.Load && t.GPUs == o.GPUs && t.VRAM == o.VRAM && t.Stats == o.Stats
}

func (ts *tallies) differ(want map[Mix]int) error {
	if len(ts.byMix) != len(want) || len(ts.list) != len(want) {
		return fmt.Errorf("%d and %d mixes are kept, there are %d: %v", len(ts.byMix), len(ts.list), len(want), want)
	}
	for m, n := range want {
		if t := ts.byMix[m]; t == nil || t.n != n || ts.list[t.pos] != t {
			return fmt.Errorf("of %v there are %d", m, n)
		}
	}
	return nil
}

func (v *View) verifySeats(seats, rooms int, bad func(string, ...any)) {
	cells := func(m *Serving) {
		for i, c := range m.Cells {
			n := 0
			for _, l := range c.levels {
				n += len(l)
			}
			if n != c.n || c.pos != i || m.byZone[c.Zone] != c {
				bad("model %q: the cell of zone %q", m.Model, c.Zone)
			}
			seats -= n
		}
	}
	cells(&v.loops)
	for _, m := range v.models {
		if len(m.hives) == 0 || len(m.hives) != len(m.at) {
			bad("model %q: %d hives are listed, %d are known", m.Model, len(m.hives), len(m.at))
		}
		cells(m)
	}
	for i, r := range v.rooms {
		n := 0
		for _, l := range r.levels {
			n += len(l)
		}
		if n != r.n || r.pos != i || v.roomOf[r.Zone] != r {
			bad("the room of zone %q", r.Zone)
		}
		rooms -= n
	}
	if seats != 0 || rooms != 0 {
		bad("%d workers and %d GPUs are not seated, or twice", seats, rooms)
	}
}

// verifyLists looks at the lists of hives: by zone, model and label.
func (v *View) verifyLists(bad func(string, ...any)) {
	labels := make(map[label]hivesByID)
	inZones, rooms := 0, 0
	for _, h := range v.order {
		if h.home != nil {
			inZones++
			if at, ok := h.home.hives.find(h.id); h.home.name != h.zone || v.byZone[h.zone] != h.home || !ok || h.home.hives[at] != h {
				bad("%s: is not listed in zone %q", h.id, h.zone)
			}
		} else if h.live != "" {
			bad("%s: is in no zone", h.id)
		}
		want := make(map[label]bearers)
		each := func(of map[string]string, take func(*bearers)) {
			for key, value := range of {
				for _, l := range []label{{key, value}, {key, anyValue}} {
					b := want[l]
					take(&b)
					want[l] = b
				}
			}
		}
		each(h.head.Labels, func(b *bearers) { b.hive = true })
		for _, w := range h.workers {
			each(w.rec.Labels, func(b *bearers) { b.workers++ })
		}
		if !maps.Equal(h.labels, want) {
			bad("%s: labels are kept as %v, are %v", h.id, h.labels, want)
		}
		for l := range want {
			labels[l] = append(labels[l], h)
		}
		room := uint64(0)
		for i := range h.gpus {
			if h.head.GPUs[i].Err == "" {
				room = max(room, h.gpus[i].Free())
			}
		}
		if room != h.room {
			bad("%s: room is kept as %d, is %d", h.id, h.room, room)
		}
		level := 0
		if h.isFresh {
			level = RoomLevel(room)
		}
		if at := h.roomAt; h.live != "" {
			rooms--
			if int(at.level) != level+1 || v.byRoom[level][at.pos] != h {
				bad("%s: is listed by another room", h.id)
			}
		}
	}
	for _, list := range v.byRoom {
		rooms += len(list)
	}
	if rooms != 0 {
		bad("%d hives are listed by their room that are not known, or twice", rooms)
	}
	for _, z := range v.byZone {
		inZones -= len(z.hives)
	}
	if inZones != 0 {
		bad("%d hives are not listed in a zone, or twice", inZones)
	}
	for l, want := range labels {
		if !slices.Equal(v.labelled(l), want) {
			bad("label %v: %d hives are listed of %d", l, len(v.labelled(l)), len(want))
		}
	}
	if len(v.labels) != len(labels) {
		bad("%d labels are kept, there are %d", len(v.labels), len(labels))
	}
	for _, m := range v.models {
		if !slices.IsSortedFunc(m.hives, func(a, b *Hive) int { return strings.Compare(a.id, b.id) }) {
			bad("model %q: its hives are not in order", m.Model)
		}
	}
}

func (v *View) verifyLog(bad func(string, ...any)) {
	var last, before uint64
	n := 0
	for i, c := range v.log.chunks {
		valid := 0
		for k := range c.entries {
			e := &c.entries[k]
			if e.rev <= last {
				bad("log: revision %d after %d", e.rev, last)
			}
			last = e.rev
			if e.valid() {
				valid++
				if e.trace().in != c {
					bad("log: %d is said to be elsewhere", e.rev)
				}
			}
		}
		if valid != c.valid || last > c.last || c.last <= before {
			bad("log: chunk %d of %d has %d valid of %d, kept as %d", i, len(v.log.chunks), valid, len(c.entries), c.valid)
		}
		before = c.last
		n += valid
	}
	shown := 0
	for _, h := range v.order {
		if h.in != nil {
			shown++
		}
		shown += len(h.workers)
	}
	if n != shown {
		bad("log: %d entries of %d that are known", n, shown)
	}
	if len(v.log.chunks) > 8+n/(chunkSize/8) {
		bad("log: %d chunks for %d entries", len(v.log.chunks), n)
	}
}
