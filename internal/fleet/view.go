package fleet

import (
	"slices"
	"strings"
	"time"

	"github.com/beatfabric/hivebeat"
	"github.com/beatfabric/hivebeat/internal/liveness"
	"github.com/beatfabric/hivebeat/internal/wire"
)

// View is the fleet as one queen knows it. It is pure: time comes in as an
// argument, what follows from an input is left for its owner to take, and it has
// no lock and no goroutine. One goroutine owns it, and all that it hands out.
//
//	snapshots ──Apply──▶ View ──TakeEvents──▶ worker transitions, to be published
//	bucket ─────Adopt──▶      ──TakeChecks──▶ hives whose key must be read before a verdict (Checked)
//	roster ─────Learn──▶      ──TakeDirty───▶ hives to be compared with the roster (Difference)
//	time ───────Tick───▶      ──TakeSteps───▶ hive transitions, for the log
type View struct {
	fresh    time.Duration // age up to which a record may be shown as alive
	hives    map[string]*Hive
	order    hivesByID
	due      liveness.Deadlines[*Hive]
	closings liveness.Closings[*Hive] // connections (closings.go)
	blind    time.Duration            // time this queen could not hear anybody, in all
	doubt    time.Time                // since when what it reads may have waited; zero: it does not doubt itself
	gen      uint64                   // of checks
	page     wire.SnapshotView
	memos    int // bytes that the memos hold on to

	events, eventsTaken []Happened
	checks, checksTaken []Check
	dirty, dirtyTaken   []*Hive
	steps, stepsTaken   []Step

	rule                        BrakeRule
	zones                       []*Zone // by name
	calls, callsTaken           []*Hive
	dirtyZones, dirtyZonesTaken []*Zone

	adopted, wards int // hives whose workers are wards, and those workers (adopt.go)
	wardsDue       liveness.Deadlines[*Hive]
	adoptedHives   map[*Hive]struct{} // those of which the workers are wards
	callWards      bool               // their roll is to be called anew
	rollCalls      []RollCall
	adoptions      []string
	unadopted      uint64 // hives that were too many to be adopted
	wardBeats      uint64
	score          Score
	tally          Tally

	mixes  tallies // of all workers (index.go)
	shapes tallies // the same without their models
	byZone map[string]*zoneIndex
	totals Totals
	ageing liveness.Deadlines[*Hive] // when a hive, or one of its workers, grows too old
	models map[string]*Serving       // seats.go
	labels map[label]*hivesByID      // labels.go
	rooms  []*Room
	roomOf map[string]*Room
	byRoom [RoomLevels][]*Hive
	holds  map[Place]uint64
	log    log // trace.go

	accepted   uint64
	refused    map[hivebeat.Reason]uint64
	incomplete uint64 // snapshots that a newer one replaced before all their pages came
}

// Hive is what is known of one hive.
type Hive struct {
	id string

	// What questions read of every hive stands together, and near the id and the
	// verdict: a walk over many hives waits for memory, and for little else.
	home    *zoneIndex
	room    uint64 // most free bytes of one of its GPUs that can be read (seats.go)
	roomAt  roomAt
	isFresh bool
	recount bool    // the mixes changed
	mixes   tallies // of its workers, as they are shown
	verdict

	line liveness.Lineage
	hold
	closed
	adopted *adoption // its workers, while this queen judges them; else nil

	head     hivebeat.Snapshot // the newest page but its workers; Inc is 0 where none was ever taken over
	received time.Time         // when that was received, or the earliest time it may have been
	every    time.Duration
	left     string // its goodbye

	heardAt time.Time // when a message of it came last
	asm     assembly
	workers map[string]*Worker
	sorted  []*Worker // by id; nil when it must be made again
	memo    memo
	Book    Book // what the roster says of it
	isDirty bool
	absent  map[string]uint64 // workers given up as this incarnation did not list them, and their incarnations
	numbers bool              // the numbering of this incarnation was heard from its start

	speaksFrom time.Time // when this incarnation was heard first

	load    Load
	share   share
	gpus    []GPUSeat
	labels  map[label]bearers // labels.go
	counted map[string]string // its own labels, as they are in there
	trace
}

// Worker is one worker's record and where it comes from.
type Worker struct {
	hive     *Hive
	shown    shown
	rec      hivebeat.Record
	received time.Time // of the page that holds it
	gen      uint64    // of the assembly that listed it last
	hiveInc  uint64    // whose numbers seen is about
	earlier  earlier   // by the incarnation of the hive before this one
	seen     uint64    // n of the last transition that was taken
	via      string
	ward     *ward    // while this queen judges it
	lost     *mistake // that this queen gave it up, until its hive proves or disproves it
}

// earlier is how far an incarnation of a hive was followed in its numbers.
type earlier struct{ hiveInc, seen uint64 }

// New returns a view that knows nobody. Records are shown as alive up to the age
// fresh.
func New(fresh time.Duration) *View {
	v := &View{
		fresh: fresh, hives: make(map[string]*Hive), refused: make(map[hivebeat.Reason]uint64),
		byZone: make(map[string]*zoneIndex), models: make(map[string]*Serving), labels: make(map[label]*hivesByID),
		roomOf: make(map[string]*Room), holds: make(map[Place]uint64),
		adoptedHives: make(map[*Hive]struct{}), closings: liveness.NewClosings[*Hive](),
	}
	v.totals.Hives = make(map[hivebeat.Live]int)
	v.SetBrake(BrakeRule{})
	return v
}

// get returns the hive with this id and makes it where it is not known.
func (v *View) get(id string) *Hive {
	if h, ok := v.hives[id]; ok {
		return h
	}
	h := &Hive{id: id, workers: make(map[string]*Worker)}
	v.hives[id] = h
	v.order.add(h)
	return h
}

// Unverified counts the hives that are known from memory alone, or held.
func (v *View) Unverified() int { return v.totals.Hives[hivebeat.Unverified] }

// forget drops all that is known of h.
func (v *View) forget(h *Hive) {
	delete(v.hives, h.id)
	v.unhold(h)
	v.endAdoption(h)
	v.memos -= h.memo.size
	v.due.Remove(h)
	v.unlink(h)
	v.ageing.Remove(h)
	for _, w := range h.workers {
		v.uncount(h, w)
		v.log.bury(h.id, w.rec.Worker)
	}
	h.live, h.head = "", hivebeat.Snapshot{}
	v.relabelHive(h)
	v.resum(h, noNews, time.Time{})
	if h.home != nil {
		v.leaveZone(h)
	}
	v.log.drop(&h.trace)
	v.log.bury(h.id, "")
	v.order.remove(h)
}

// Apply takes over one page of a snapshot that was heard now. It returns a
// *hivebeat.Refusal where the message is no news; then nothing has changed.
func (v *View) Apply(s *wire.SnapshotView, now time.Time) error {
	h := v.hives[string(s.Hive)]
	if h == nil {
		h = v.get(string(s.Hive))
	}
	if !v.doubt.IsZero() && h.decidedSince(v.doubt, s.Inc, true) {
		v.refused[hivebeat.RefusedStale]++
		return refusedStale
	}
	o, refusal := h.hear(s, v.heardAs(now), now)
	if refusal != nil {
		v.refused[refusal.Reason]++
		v.refusedOf(h, s, o, now)
		return refusal
	}
	v.accepted++
	h.heardAt = v.heardAs(now)
	v.takeOver(h, s, o, latest(h.heardAt, h.received), now)
	return nil
}

// Adopt takes over one page that was kept in the bucket, where it is news. It
// was received by another queen age ago, at most. For the verdict the hive counts
// as heard now, as there was nobody here to hear it before; the ages that are
// shown count from when it was received.
func (v *View) Adopt(s *wire.SnapshotView, age time.Duration, now time.Time) {
	h := v.hives[string(s.Hive)]
	if h == nil {
		h = v.get(string(s.Hive))
	}
	if h.decidedSince(now.Add(-age), s.Inc, false) {
		return // the key is of one whose place was taken, and keeps a lower one out until it expires
	}
	if o, refusal := h.hear(s, now.Add(-age), now); refusal == nil {
		v.takeOver(h, s, o, now.Add(-age), now)
	}
}

// Refusals of snapshots that are no news.
var (
	refusedPages = &hivebeat.Refusal{Reason: hivebeat.RefusedLimit, Key: "pages", Detail: "another number than in the page before of this seq"}
	refusedStale = &hivebeat.Refusal{Reason: hivebeat.RefusedStale, Detail: "seq not above the last, or an incarnation that is over"}
	refusedOlder = &hivebeat.Refusal{Reason: hivebeat.RefusedOlder, Detail: "a higher incarnation is alive"}
)

// hear judges whether the page is news: by the hive's lineage, or as one more
// page of what is being put together.
func (h *Hive) hear(s *wire.SnapshotView, heard, now time.Time) (liveness.Outcome, *hivebeat.Refusal) {
	if h.asm.is(s.Inc, s.Seq) && s.Inc == h.line.Inc() {
		switch {
		case s.Pages != h.asm.pages:
			return liveness.Stale, refusedPages
		case h.asm.has(s.Page):
			return liveness.Stale, refusedStale
		case h.live == hivebeat.Lost:
			return liveness.Same, nil // it was sent before, and is no sign of life
		}
		return liveness.Next, nil
	}
	o := h.hearLine(s.Inc, s.Seq, heard, now)
	switch {
	case o.Accepted(), o == liveness.Same && !h.line.Ended(): // Same: its number is known from elsewhere, its content is not
		return o, nil
	case o == liveness.Older:
		return o, refusedOlder
	}
	return o, refusedStale
}

// takeOver copies the page and draws the conclusions.
func (v *View) takeOver(h *Hive, s *wire.SnapshotView, o liveness.Outcome, received, now time.Time) {
	facts, host, same := h.facts(), h.head.Host, sameGPUs(h.head.GPUs, s.GPUs)
	v.copy(h, s, received, now)
	v.link(h, o)
	what := h.newsIn(facts, host, same)
	if o != liveness.Same || h.live == "" || h.live == hivebeat.Unverified {
		v.heard(h, o, now)
	}
	if len(s.Bye) > 0 {
		v.leave(h, now)
	}
	switch {
	case h.live == hivebeat.Lost: // what it said before it was
		v.adoptAgain(h, now)
	case h.asm.complete() && s.Warm && v.doubt.IsZero():
		v.absent(h, now)
	}
	v.goneBack(h, now)
	if facts.inc != 0 && mapAt(h.head.Labels) != facts.labels {
		for _, w := range h.workers { // they have the hive's labels too
			v.touchWorker(w, true)
		}
	}
	wasFresh := h.isFresh
	v.resum(h, what, now)
	if h.isFresh != wasFresh {
		v.reshowAll(h, now)
	}
	v.ages(h, now)
	if h.recount { // by what grew too old
		v.resum(h, noNews, now)
	}
}

// copy takes over what the page says.
func (v *View) copy(h *Hive, s *wire.SnapshotView, received, now time.Time) {
	if h.head.Inc != s.Inc { // all that it numbers begins anew
		h.numbers = s.Seq == 1
		h.speaksFrom = now
		clear(h.absent)
	}
	if !h.asm.is(s.Inc, s.Seq) {
		if h.asm.pages > 0 && !h.asm.complete() {
			v.incomplete++
		}
		h.asm.begin(s.Inc, s.Seq, s.Pages, received)
	}
	h.asm.add(s.Page)
	if received.Before(h.asm.began) { // a page that was kept may be older than one that was heard
		h.asm.began = received
	}
	s.UpdateHead(&h.head)
	h.zone = h.head.Labels["zone"]
	v.place(h)
	v.relabelHive(h)
	h.received, h.every = received, h.head.Every.Duration()
	for i := range s.Workers {
		v.record(h, &s.Workers[i], received, now)
	}
}

// record takes over one worker's record and its transitions.
func (v *View) record(h *Hive, r *wire.RecordView, received, now time.Time) {
	w, known := h.workers[string(r.Worker)]
	if !known {
		if r.Same || len(h.workers) >= hivebeat.MaxWorkers {
			v.refused[hivebeat.RefusedFull]++
			return
		}
		w = &Worker{hive: h}
		h.workers[string(r.Worker)] = w
		h.sorted = nil
	}
	before, asCounted := w.rec.Inc, r.Same && w.ward == nil
	var was stable
	if !asCounted {
		was = w.stable()
	}
	if w.ward != nil {
		v.handBack(h, w, now)
	}
	r.Update(&w.rec)
	w.received, w.via = received, hivebeat.ViaHive
	if w.gen != h.asm.gen {
		w.gen = h.asm.gen
		h.asm.listed++
	}
	limit := hivebeat.MillisOf(v.fresh)
	fresh := EffectiveAge(w.rec.Age, received, now) <= limit
	if fresh {
		h.asm.oldest = max(h.asm.oldest, w.rec.Age)
	}
	if !asCounted || !w.isAsCounted(fresh) {
		v.reshow(h, w, !asCounted && w.stable() != was, now)
	}
	if w.lost != nil {
		v.disproved(h, w)
	}
	if w.seen != w.rec.N || w.hiveInc != h.head.Inc {
		v.transitions(h, w, before, received, now)
	}
}

// remove drops a worker for good.
func (v *View) remove(h *Hive, w *Worker) {
	v.uncount(h, w)
	v.log.bury(h.id, w.rec.Worker)
	delete(h.workers, w.rec.Worker)
	h.sorted, h.recount = nil, true
}

// uncount takes w out of all that is kept.
func (v *View) uncount(h *Hive, w *Worker) {
	s := &w.shown
	if s.tally == nil {
		return
	}
	if s.tally.Live == hivebeat.Alive {
		h.load.sub(s.load)
		v.totals.Load.sub(s.load)
	}
	v.unseat(w)
	v.count(h, w, nil)
	v.bear(h, s.labels, -1, false)
	s.labels = nil
	v.totals.Workers--
	v.log.drop(&s.trace)
}

// patience is how long a silence of w has to be, until it is lost. Nobody knows the
// promise of one that is known by an entry of the roster alone that does not say it.
func (w *Worker) patience() time.Duration {
	if w.rec.Every == 0 {
		return hivebeat.KeepGone
	}
	return liveness.LostAfter(w.rec.Every.Duration(), w.rec.Quiet.Duration())
}

// Workers returns the workers in the order of their ids. The slice is not to be kept.
func (h *Hive) Workers() []*Worker {
	if h.sorted == nil {
		h.sorted = make([]*Worker, 0, len(h.workers))
		for _, w := range h.workers {
			h.sorted = append(h.sorted, w)
		}
		slices.SortFunc(h.sorted, func(a, b *Worker) int { return strings.Compare(a.rec.Worker, b.rec.Worker) })
	}
	return h.sorted
}
