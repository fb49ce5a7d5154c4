package fleet

import (
	"time"

	"github.com/beatfabric/hivebeat"
)

// What is asked of the fleet is kept, not computed: how many workers are shown in
// which way, what they hold, who can take work (seats.go), where each zone and label
// is found (zones.go, labels.go), and what changed last (trace.go). Each change of a worker or hive moves its own share of that, so that
// a question costs the same however many workers there are. What changes by the
// passing of time alone, freshness, has a deadline for each hive: Settle brings it
// up to now, and whoever asks calls that first.
//
// What is kept must equal what a loop over all would find; Verify is that loop.

// Mix is what workers are counted by, as they are shown.
type Mix struct {
	Live  hivebeat.Live
	State hivebeat.State
	Model string
}

// tally counts the workers of one mix: of a hive, and above it of the zone, and
// of the fleet.
type tally struct {
	Mix
	n   int
	up  *tally
	pos int // in the list of its level
}

func (t *tally) add(d int) {
	for ; t != nil; t = t.up {
		t.n += d
	}
}

// tallies are those of one level. Empty ones are removed. The map finds one, and
// the list is there to be gone through, which is far slower in a map.
type tallies struct {
	byMix map[Mix]*tally
	list  []*tally
}

func (ts *tallies) get(m Mix, up func() *tally) *tally {
	t := ts.byMix[m]
	if t == nil {
		t = &tally{Mix: m, pos: len(ts.list)}
		if up != nil {
			t.up = up()
		}
		if ts.byMix == nil {
			ts.byMix = make(map[Mix]*tally)
		}
		ts.byMix[m] = t
		ts.list = append(ts.list, t)
	}
	return t
}

func (ts *tallies) remove(t *tally) {
	delete(ts.byMix, t.Mix)
	last := len(ts.list) - 1
	ts.list[t.pos] = ts.list[last]
	ts.list[t.pos].pos = t.pos
	ts.list[last] = nil
	ts.list = ts.list[:last]
}

// sweep removes the one of a mix, if it is empty.
func (ts *tallies) sweep(m Mix) {
	if t := ts.byMix[m]; t != nil && t.n == 0 {
		ts.remove(t)
	}
}

func (ts *tallies) each(yield func(Mix, int)) {
	for _, t := range ts.list {
		yield(t.Mix, t.n)
	}
}

// Load is what workers are doing.
type Load struct{ Busy, Slots, Queue uint64 }

func (l *Load) add(o Load) { l.Busy += o.Busy; l.Slots += o.Slots; l.Queue += o.Queue }
func (l *Load) sub(o Load) { l.Busy -= o.Busy; l.Slots -= o.Slots; l.Queue -= o.Queue }

// VRAM is what GPUs hold, in bytes.
type VRAM struct{ Total, Used, Ours uint64 }

// Totals count the fleet, as of the last Settle.
type Totals struct {
	Hives   map[hivebeat.Live]int // those that are known by more than their name
	Closed  int                   // workers whose connection closed, and that were not heard since
	Looping int                   // workers that restart over and over
	Warming int                   // hives of those that began again, and may not know all their workers yet
	Workers int
	Load    Load // of workers that are alive
	GPUs    int  // of fresh hives that are up, as is the next
	VRAM    VRAM
	Stats   hivebeat.Stats // what all hives say of themselves, together
}

// share is what a hive adds to the totals.
type share struct {
	live  hivebeat.Live
	warms bool
	gpus  int
	vram  VRAM
	stats hivebeat.Stats
}

// shown is what is kept about how a worker is shown.
type shown struct {
	tally   *tally // nil: not counted yet
	fresh   bool
	closed  bool
	looping bool
	load    Load // as it was counted
	vram    uint64
	held    uint64            // slots
	labels  map[string]string // as they were counted
	trace
	seat
}

// Totals returns the counts of the fleet. The map is not to be changed, and is
// only good until the next input.
func (v *View) Totals() Totals { return v.totals }

// EachMix yields how many workers of the fleet are shown in which way, or of one
// zone.
func (v *View) EachMix(zone string, ofZone bool, yield func(Mix, int)) {
	if !ofZone {
		v.mixes.each(yield)
	} else if z := v.byZone[zone]; z != nil {
		z.mixes.each(yield)
	}
}

// EachShape yields how many workers of the fleet are shown with which verdict and
// state, whatever their model.
func (v *View) EachShape(yield func(Mix, int)) { v.shapes.each(yield) }

// EachMix yields how many workers of the hive are shown in which way.
func (h *Hive) EachMix(yield func(Mix, int)) { h.mixes.each(yield) }

// Mixes is how many different ones EachMix yields.
func (h *Hive) Mixes() int { return len(h.mixes.list) }

// Load is what the workers of the hive do that are alive.
func (h *Hive) Load() Load { return h.load }

// VRAM is what its GPUs hold: zeros where that is not fresh, or it is not up.
func (h *Hive) VRAM() VRAM { return h.share.vram }

// Size is how many workers it has.
func (h *Hive) Size() int { return len(h.workers) }

// Fresh reports whether the facts of the hive are within the limit, as of the last
// Settle.
func (h *Hive) Fresh() bool { return h.isFresh }

// Hive is the worker's hive.
func (w *Worker) Hive() *Hive { return w.hive }

// Mix is how the worker is shown, as of the last Settle.
func (w *Worker) Mix() Mix { return w.shown.tally.Mix }

// Fresh reports whether its record is within the limit, as of the last Settle.
func (w *Worker) Fresh() bool { return w.shown.fresh }

// Held is how many of its slots are held.
func (w *Worker) Held() uint64 { return w.shown.held }

// FreeSlots is how many slots nobody uses or holds.
func (w *Worker) FreeSlots() uint64 {
	taken := w.rec.Busy + w.shown.held
	if taken >= w.rec.Slots {
		return 0
	}
	return w.rec.Slots - taken
}

// count moves w from the mix that it was counted in to another one; nowhere is the
// zero tally.
func (v *View) count(h *Hive, w *Worker, to *tally) {
	was := w.shown.tally
	if was == to {
		return
	}
	if to != nil {
		if to.n == 0 {
			v.serves(h, to.Model)
		}
		to.add(1)
	}
	w.shown.tally = to
	if was != nil {
		if was.add(-1); was.n == 0 {
			h.mixes.remove(was)
			v.servesNot(h, was.Model)
			v.sweep(h.home, was.Mix)
		}
	}
}

// countFlags counts a worker whose connection closed, and one that loops.
func (v *View) countFlags(s *shown, closed, looping bool) {
	count := func(n *int, was *bool, is bool) {
		switch {
		case is && !*was:
			*n++
		case !is && *was:
			*n--
		}
		*was = is
	}
	count(&v.totals.Closed, &s.closed, closed)
	count(&v.totals.Looping, &s.looping, looping)
}

// isAsCounted reports whether numbers that moved left everything as it is kept.
func (w *Worker) isAsCounted(fresh bool) bool {
	s, r := &w.shown, &w.rec
	return s.tally != nil && s.fresh == fresh && s.closed == r.Closed && s.looping == r.Looping && s.load.Busy == r.Busy && s.load.Queue == r.Queue && s.vram == r.VRAM
}

// reshow brings up to date what is kept about w, after an input or as time passed.
// material: something of it changed that is kept nowhere.
func (v *View) reshow(h *Hive, w *Worker, material bool, now time.Time) {
	live, _, fresh := v.Shown(h, w, now)
	s, r := &w.shown, &w.rec
	if h.home == nil {
		v.place(h)
	}
	m := Mix{live, r.State, r.Model}
	to := s.tally
	if to == nil || to.Mix != m {
		to = h.mixes.get(m, func() *tally { return v.zoneTally(h.home, m) })
	}
	load := Load{r.Busy, r.Slots, r.Queue}
	key := material || s.tally != to || s.fresh != fresh || s.closed != r.Closed || s.looping != r.Looping
	changed := key || s.load != load || s.vram != r.VRAM
	if s.tally != nil && s.tally.Live == hivebeat.Alive {
		h.load.sub(s.load)
		v.totals.Load.sub(s.load)
	}
	if live == hivebeat.Alive {
		h.load.add(load)
		v.totals.Load.add(load)
	}
	if s.tally == nil {
		v.totals.Workers++
		if len(v.holds) > 0 {
			s.held = v.holds[Place{Hive: h.id, Worker: r.Worker}]
		}
	}
	if s.tally != to {
		h.recount = true
	}
	v.count(h, w, to)
	v.relabel(h, w)
	s.fresh, s.load, s.vram = fresh, load, r.VRAM
	v.countFlags(s, r.Closed, r.Looping)
	v.reseat(h, w)
	if changed {
		v.touchWorker(w, key)
	}
}

// reshowAll does so for all workers of h.
func (v *View) reshowAll(h *Hive, now time.Time) {
	for _, w := range h.workers {
		v.reshow(h, w, false, now)
	}
}

// warms reports whether h began again, and may not know yet all workers that it had:
// one that is not listed proves nothing. Who begins for the first time had none.
func (h *Hive) warms() bool {
	again := h.prior != 0 || h.Book.Item.N > 1 || h.Book.Item.N == 1 && h.Book.Item.Inc != h.head.Inc
	return again && h.Up() && h.head.Inc != 0 && !h.head.Warm
}

// resum brings up to date what h itself adds to the totals.
func (v *View) resum(h *Hive, what news, now time.Time) {
	fresh := h.head.Inc != 0 && EffectiveAge(0, h.received, now) <= hivebeat.MillisOf(v.fresh)
	was := &h.share
	is := share{live: h.live, warms: h.warms(), stats: h.head.Stats}
	if fresh && h.Up() {
		is.gpus = len(h.head.GPUs)
		for i := range h.head.GPUs {
			g := &h.head.GPUs[i]
			is.vram.Total += g.Total
			is.vram.Used += g.Used
			is.vram.Ours += g.Ours
		}
	}
	t := &v.totals
	if was.live != is.live {
		if was.live != "" {
			if t.Hives[was.live]--; t.Hives[was.live] == 0 {
				delete(t.Hives, was.live)
			}
		}
		if is.live != "" {
			t.Hives[is.live]++
		}
	}
	if is.warms {
		t.Warming++
	}
	if was.warms {
		t.Warming--
	}
	t.GPUs += is.gpus - was.gpus
	t.VRAM.Total += is.vram.Total - was.vram.Total
	t.VRAM.Used += is.vram.Used - was.vram.Used
	t.VRAM.Ours += is.vram.Ours - was.vram.Ours
	t.Stats.FalseDead += is.stats.FalseDead - was.stats.FalseDead
	t.Stats.CutOff += is.stats.CutOff - was.stats.CutOff
	t.Stats.WireLost += is.stats.WireLost - was.stats.WireLost
	t.Stats.SelfPause += is.stats.SelfPause - was.stats.SelfPause
	if was.live != is.live || h.isFresh != fresh || h.recount {
		what = another
	}
	h.share, h.isFresh, h.recount = is, fresh, false
	v.seatGPUs(h)
	v.reroom(h)
	if what != noNews && h.live != "" {
		v.touchHive(h, what == another)
	}
}

// Settle brings all that is kept up to now: which records grew too old, and which hives
// are in doubt.
func (v *View) Settle(now time.Time) {
	v.doubtClosed(now)
	for h := range v.ageing.Due(now) {
		v.rescan(h, now)
	}
}

// rescan looks at each worker of h, as one of them may have grown too old.
func (v *View) rescan(h *Hive, now time.Time) {
	wasFresh := h.isFresh
	v.resum(h, noNews, now)
	limit := hivebeat.MillisOf(v.fresh)
	next := v.tooOldAt(h.received, 0)
	for _, w := range h.workers {
		if age := EffectiveAge(w.rec.Age, w.received, now); age <= limit {
			if at := v.tooOldAt(w.received, w.rec.Age); at.Before(next) || !next.After(now) {
				next = at
			}
			if h.isFresh == wasFresh && w.shown.fresh {
				continue
			}
		} else if !w.shown.fresh {
			continue
		}
		v.reshow(h, w, false, now)
	}
	if h.recount {
		v.resum(h, noNews, now)
	}
	if next.After(now) {
		v.ageing.Set(h, next)
	}
}

// tooOldAt is when something that was age old when it was received passes the
// limit of freshness.
func (v *View) tooOldAt(received time.Time, age hivebeat.Millis) time.Time {
	limit := hivebeat.MillisOf(v.fresh)
	return received.Add((limit - min(age, limit)).Duration() + time.Millisecond)
}

// ages sets when h is to be looked at next, after a page was taken over.
func (v *View) ages(h *Hive, now time.Time) {
	next := v.tooOldAt(h.asm.began, h.asm.oldest)
	if !h.asm.complete() || h.asm.listed != len(h.workers) {
		if before, ok := v.ageing.At(h); ok && before.Before(next) {
			next = before
		}
	}
	if !next.After(now) { // some of it was too old when it came
		v.rescan(h, now)
		return
	}
	v.ageing.Set(h, next)
}
