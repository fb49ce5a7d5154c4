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
//	snapshots ──Apply──▶        ┌ worker transitions, to be published
//	bucket ─────Adopt──▶  View  │ hives whose key must be read before a verdict (Checked)
//	roster ─────Learn──▶  Take ─┤ hives and brakes to be compared with the roster (Say)
//	time ───────Tick───▶        │ roll calls, and whose workers' beats are to be heard
//	                            └ hive transitions, for the log
type View struct {
	fresh    time.Duration // age up to which a record may be shown as alive
	hives    map[string]*Hive
	order    hivesByID
	due      liveness.Deadlines[*Hive]
	closings liveness.Closings[*Hive] // connections (closings.go)
	inDoubt  []*Hive                  // those with a window, as of the last Settle
	own      string                   // the NATS server in this process
	blind    time.Duration            // time this queen could not hear anybody, in all
	doubt    time.Time                // since when what it reads may have waited; zero: it does not doubt itself
	apart    apart                    // whether it may be the one that is cut off (apart.go)
	gen      uint64                   // of checks
	page     wire.SnapshotView
	memos    int // bytes that the memos hold on to

	ready, taken Ready // in turn, so that nothing is allocated in steady state

	rule  BrakeRule
	zones []*Zone // by name

	adopted, wards int // hives whose workers are wards, and those workers (adopt.go)
	wardsDue       liveness.Deadlines[*Hive]
	adoptedHives   map[*Hive]struct{} // those of which the workers are wards
	callWards      bool               // their roll is to be called anew
	unadopted      uint64             // hives that were too many to be adopted
	wardBeats      uint64
	doubted        map[*Hive]peerDoubt // by other queens (elsewhere.go)
	twins          map[*Hive]time.Time // whose roll is to be called, and when (conflict.go)
	twinAsked      time.Time           // when one was
	score          Score
	tally          Tally

	mixes  tallies // of all workers (index.go)
	shapes tallies // the same without their models
	byZone map[string]*zoneIndex
	totals Totals
	ageing liveness.Deadlines[*Hive] // when a hive, or one of its workers, grows too old
	models map[string]*Serving       // seats.go
	loops  Serving                   // those that loop, whatever they serve
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
	inDoubt bool // its connection closed, and it was not heard since

	twinAsked time.Time // when its roll was called for conflict.go
	recount   bool      // the mixes changed
	mixes     tallies   // of its workers, as they are shown
	verdict

	line liveness.Lineage
	hold
	closed
	adopted *adoption // its workers, while this queen judges them; else nil

	head     hivebeat.Snapshot // the newest page but its workers; Inc is 0 where none was ever taken over
	received time.Time         // when that was received, or the earliest time it may have been
	early    bool              // received is only the earliest time at which it may have been
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
	prior    *life     // the incarnation whose place this one took, if that was seen
	via      string
	ward     *ward    // while this queen judges it
	lost     *mistake // that this queen gave it up, until its hive proves or disproves it
}

// life is an incarnation of a worker, and the last of it that was known.
type life struct{ inc, seq uint64 }

// earlier is how far an incarnation of a hive was followed in its numbers.
type earlier struct{ hiveInc, seen uint64 }

// New returns a view that knows nobody. Records are shown as alive up to the age
// fresh.
func New(fresh time.Duration) *View {
	v := &View{
		fresh: fresh, hives: make(map[string]*Hive), refused: make(map[hivebeat.Reason]uint64),
		byZone: make(map[string]*zoneIndex), models: make(map[string]*Serving), labels: make(map[label]*hivesByID),
		roomOf: make(map[string]*Room), holds: make(map[Place]uint64),
		loops: Serving{byZone: make(map[string]*Cell)}, adoptedHives: make(map[*Hive]struct{}), doubted: make(map[*Hive]peerDoubt),
		twins: make(map[*Hive]time.Time), closings: liveness.NewClosings[*Hive](),
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
	delete(v.doubted, h)
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
