// Package fleet is the judgement of a queen. It applies snapshots, decides which hives and adopted
// workers are alive, late or lost, and says which events to publish. Time is an argument; there is no
// clock, no goroutine and no lock. Package queencore drives it with real messages, and internal/sim
// with simulated ones. After each input it passes the changes to package index, which answers
// questions.
package fleet

import (
	"iter"
	"maps"
	"time"

	"github.com/beatfabric/hivebeat"
	"github.com/beatfabric/hivebeat/internal/index"
	"github.com/beatfabric/hivebeat/internal/liveness"
	"github.com/beatfabric/hivebeat/internal/wire"
	"github.com/beatfabric/hivebeat/verdict"
)

// View is the fleet as one queen judges it. One goroutine owns it and everything that it returns.
// After each input its owner calls Take and does what Ready says.
//
//	snapshots ──Apply─────▶        ┌ worker transitions, to publish
//	bucket ─────Adopt─────▶  View  │ hives whose key must be read before a verdict (Checked)
//	roster ─────LearnKey──▶  Take ─┤ hives and brakes to compare with the roster (Announce)
//	time ───────Tick──────▶   │    │ roll calls, and hives whose workers' beats must be heard
//	                          ▼    └ hive transitions, for the log
//	                        Index, for questions
type View struct {
	index    *index.Index
	hives    map[string]*Hive
	order    index.ByID[*Hive]
	lives    map[hivebeat.Live]int // hives by verdict
	changes  []*Hive               // changed since the last updateIndex
	due      liveness.Deadlines[*Hive]
	closings liveness.Closings[*Hive] // connections (disconnect.go)
	doubtful []*Hive                  // hives with a window, as of the last Settle
	own      string                   // the NATS server in this process
	blind    time.Duration            // total time in which this queen could not hear
	doubt    time.Time                // messages read now may have waited since then; zero: no doubt
	apart    apart                    // whether this queen may be the one that is cut off (apart.go)
	gen      uint64                   // number of the last check
	page     wire.SnapshotView
	memos    int // bytes that the memos keep

	ready, taken Ready // in turn, so that the steady state allocates nothing

	rule  BrakeRule
	zones []*Zone // by name

	numbers map[string]uint64 // of the last event of each hive that was forgotten (roster.go)

	adoptedHives map[*Hive]struct{} // hives whose workers this queen judges (adoption.go)
	adoptionsDue liveness.Deadlines[*Hive]
	callAdopted  bool // call the roll of all adopted workers again
	adoptedBeats uint64

	twins     liveness.Deadlines[*Hive] // when to call the roll of hives that may have a twin (conflict.go)
	twinAsked time.Time                 // when one was called last
	score     index.Score
	counts    TransitionCounts

	accepted   uint64
	refused    map[hivebeat.Reason]uint64
	incomplete uint64 // snapshots that a newer one replaced before all their pages arrived
}

// Hive is the state of one hive in the judgement.
type Hive struct {
	id      string
	entry   *index.Hive // its entry in the index, with its newest page
	changed bool        // it is in View.changes

	// The verdict. turn changes it (verdict.go); recall sets the first one of a hive known only from
	// the roster.
	live    hivebeat.Live // empty before anything is known
	cause   hivebeat.Cause
	since   time.Time
	why     evidence
	judged  time.Time     // when it was heard, or counts as heard, last: deadlines start here
	blind   time.Duration // View.blind at that time
	prior   uint64        // the incarnation that this one replaced
	beganAt time.Time     // when this queen first heard this incarnation
	skipped bool          // messages between its last two were not heard, or the last one was held in transit
	check   uint64        // the check under way, or 0

	// Its messages.
	line      liveness.Lineage
	received  time.Time // when its newest page was received, or the earliest time it may have been
	early     bool      // received is only that earliest time
	every     time.Duration
	zone      string
	goodbye   string
	heardAt   time.Time // when its last message arrived
	firstPage time.Time // when the first page of this incarnation was applied
	firstFrom time.Time // the earliest time at which that page may have been received
	assembly  assembly
	memo      memo
	workers   map[string]*Worker
	absent    map[string]uint64 // incarnations of workers that are lost because this incarnation did not list them
	fromStart bool              // the numbering of this incarnation was heard from its start

	gpus, gpusBefore life // the last transition of its GPUs that was published, and that of the incarnation before (gpus.go)

	// The brake (brake.go).
	upFrom, upUntil time.Time
	heldBy          *Zone
	released        bool // the brake lets it be lost

	// Its connection (disconnect.go).
	conn       string // its connection, as View.closings knows it
	windowOver bool   // the verdict waits for its key
	window     liveness.Closing
	isDoubtful bool // its connection closed, and it was not heard since

	// Another process with its id (conflict.go).
	rival        uint64 // the other incarnation, 0 if there is none
	rivalSeq     uint64
	rivalAt      time.Time      // when it was heard last
	rivalNoticed time.Time      // when it last got a notice that it is refused
	beside       hivebeat.Place // where the process runs that was last not believed
	address      [2]string      // the connection of the believed one, and its address
	calledTwin   time.Time      // when its roll was called
	disowned     uint64         // the highest seq that this incarnation went back from: another process sent it

	adoption *adoption   // its workers, while this queen judges them; else nil
	roster   RosterState // its entry in the roster
}

// Worker is the state of one worker in the judgement.
type Worker struct {
	entry   index.Worker
	gen     uint64   // of the assembly that listed it last
	hiveInc uint64   // the incarnation of the hive that numbered seen
	earlier life     // hiveInc and seen for the incarnation of the hive before
	seen    uint64   // n of the last transition that was published
	prior   *life    // the incarnation that this one replaced, if that was seen
	own     life     // what this queen heard of it itself, while it last judged it
	adopted *adopted // not nil while this queen judges it
	lost    *mistake // this queen made it lost, and its hive has not confirmed or disproved that yet
}

// life is an incarnation and its last known number.
type life struct{ inc, seq uint64 }

// New returns an empty view. A record is shown as alive until it is older than fresh.
func New(fresh time.Duration) *View {
	v := &View{
		hives: make(map[string]*Hive), lives: make(map[hivebeat.Live]int), refused: make(map[hivebeat.Reason]uint64),
		adoptedHives: make(map[*Hive]struct{}), closings: liveness.NewClosings[*Hive](),
	}
	v.index = index.New(fresh, &v.score)
	v.SetBrake(BrakeRule{})
	return v
}

// Index returns the index, which answers questions. Call Settle before you read it.
func (v *View) Index() *index.Index { return v.index }

// Settle brings the index up to date.
func (v *View) Settle(now time.Time) {
	v.settleDoubts()
	v.updateIndex(now)
	v.index.Settle(now)
}

// change records that h changed: the next updateIndex passes it to the index.
func (v *View) change(h *Hive) {
	if !h.changed {
		h.changed = true
		v.changes = append(v.changes, h)
	}
}

// updateIndex passes the changes of this input to the index. Every input ends with it.
func (v *View) updateIndex(now time.Time) {
	for i, h := range v.changes {
		v.changes[i], h.changed = nil, false
		if v.hives[h.id] == h {
			v.index.SetHive(h.entry, h.facts(), now)
		}
	}
	v.changes = v.changes[:0]
}

// facts returns the part of the judgement that questions see.
func (h *Hive) facts() index.Facts {
	f := index.Facts{
		Live: h.live, Cause: h.cause, Since: h.since, Inc: h.line.Inc(), Seq: h.line.Seq(), Every: h.every, Received: h.received,
		Goodbye: h.goodbye, Zone: h.zone, Warming: h.warms(), Doubtful: h.isDoubtful,
	}
	if h.rival != 0 {
		believed, refused := h.Places()
		f.Conflict = index.Conflict{Until: h.rivalAt.Add(verdict.LostAfter(h.every, 0)), Believed: believed, Refused: refused}
	}
	return f
}

// warms reports whether h restarted and may not know all its workers yet. Until it does, a worker that
// is missing from its snapshot proves nothing. A hive that starts for the first time had none.
func (h *Hive) warms() bool {
	again := h.prior != 0 || h.roster.Item.N > 1 || h.roster.Item.N == 1 && h.roster.Item.Inc != h.head().Inc
	return again && h.Up() && h.head().Inc != 0 && !h.head().Warm
}

// get returns the hive with this id, and adds it if it is not known.
func (v *View) get(id string) *Hive {
	if h, ok := v.hives[id]; ok {
		return h
	}
	h := &Hive{id: id, workers: make(map[string]*Worker), entry: v.index.Add(id)}
	h.roster.before = v.numbers[id]
	v.hives[id] = h
	v.order.Add(h)
	return h
}

// forget removes h from the view and from the index.
func (v *View) forget(h *Hive) {
	delete(v.hives, h.id)
	v.Numbered(h.id, h.roster.Item.N)
	v.unhold(h)
	v.endAdoption(h)
	v.memos -= h.memo.size
	v.due.Remove(h)
	v.twins.Remove(h)
	v.unlink(h)
	v.become(h, "")
	v.order.Remove(h)
	v.index.Remove(h.entry)
}

// become sets the verdict on h.
func (v *View) become(h *Hive, live hivebeat.Live) {
	v.lives[h.live]--
	v.lives[live]++
	h.live = live
	v.change(h)
}

// add adds a worker to h, without a record.
func (v *View) add(h *Hive, id string) *Worker {
	w := new(Worker)
	h.workers[id] = w
	v.index.AddWorker(h.entry, &w.entry, id)
	return w
}

// remove removes a worker from its hive and from the index.
func (v *View) remove(h *Hive, w *Worker) {
	delete(h.workers, w.rec().Worker)
	v.index.DropWorker(&w.entry)
	v.change(h)
}

// head returns the newest page of h without its workers. Its Inc is 0 before the first page.
func (h *Hive) head() *hivebeat.Snapshot { return h.entry.Head() }

// rec returns the record of w. Its ages are as of w.entry.Received.
func (w *Worker) rec() *hivebeat.Record { return w.entry.Record() }

// heard returns when w was heard last.
func (w *Worker) heard() time.Time {
	return w.entry.Received().Add(-min(w.rec().Age, maxAge).Duration())
}

// inOrder yields the workers of h in order of their ids.
func (h *Hive) inOrder() iter.Seq[*Worker] {
	return func(yield func(*Worker) bool) {
		for _, e := range h.entry.Workers() {
			if !yield(h.workers[e.ID()]) {
				return
			}
		}
	}
}

// patience returns the silence after which w is lost. It is hivebeat.KeepGone if the promise of w is
// unknown, because w is known only from an entry of the roster without one.
func (w *Worker) patience() time.Duration {
	if w.rec().Every == 0 {
		return hivebeat.KeepGone
	}
	return verdict.LostAfter(w.rec().Every.Duration(), w.rec().Quiet.Duration())
}

// Hive returns the hive with this id, or nil. Its Live is empty while only its name is known.
func (v *View) Hive(id string) *Hive { return v.hives[id] }

// Has reports whether h is in the view.
func (v *View) Has(h *Hive) bool { return v.hives[h.id] == h }

// Hives returns all hives in order of their ids. The slice must not be kept or changed.
func (v *View) Hives() []*Hive { return v.order }

// Len returns the number of hives.
func (v *View) Len() int { return len(v.hives) }

// Unverified returns the number of hives that are unverified: known only from the roster, or held by a
// brake.
func (v *View) Unverified() int { return v.lives[hivebeat.Unverified] }

// ID returns the hive's id.
func (h *Hive) ID() string { return h.id }

// Live returns the verdict on the hive. It is empty before anything is known.
func (h *Hive) Live() hivebeat.Live { return h.live }

// Inc returns the valid incarnation, 0 before one is known.
func (h *Hive) Inc() uint64 { return h.line.Inc() }

// Seq returns the highest known seq of the valid incarnation.
func (h *Hive) Seq() uint64 { return h.line.Seq() }

// Every returns the hive's promise.
func (h *Hive) Every() time.Duration { return h.every }

// HeardAt returns when the last message of the hive arrived; zero if none ever did.
func (h *Hive) HeardAt() time.Time { return h.heardAt }

// Up reports whether the hive still speaks for its workers.
func (h *Hive) Up() bool { return h.live == hivebeat.Alive || h.live == hivebeat.Late }

// Ready is the work that followed from the inputs of a View, for its owner to do. Its lists are valid
// until the next Take.
type Ready struct {
	Events []Happened // transitions of workers to publish, each worker's in order
	Steps  []Step     // changes of verdicts on hives, for the log
	// Checks are hives whose key must be read before they become late or lost. Answer each
	// by Checked or Postpone.
	Checks []Check
	// Announcers are hives and brakes whose entry in the roster may differ from this view. Call
	// Announce of each.
	Announcers []Announcer
	// Adoptions are hives for which Adopted may have changed. While it is true, pass the beats of their
	// workers to Beat.
	Adoptions []string
	Calls     []RollCall
	// Seek are connections, as snapshots name them, whose address must be passed to Located.
	Seek    []string
	Notices []hivebeat.Notice // for hives that are refused
}

// RollCall asks for messages within Spread.
type RollCall struct {
	Hive    string
	Workers bool // call the workers of Hive, not Hive itself
	Spread  time.Duration
}

// AskSpread is the spread of the roll call of a hive whose window is about to end. It is short because
// only that hive answers, and its answer has to arrive in time.
const AskSpread = 250 * time.Millisecond

// Take returns the work that followed from the inputs since the last call.
func (v *View) Take() *Ready {
	for _, h := range v.closings.TakeAsk() {
		v.ready.Calls = append(v.ready.Calls, RollCall{Hive: h.id, Spread: AskSpread})
	}
	v.ready, v.taken = v.taken, v.ready
	r, next := &v.taken, &v.ready
	clear(next.Events)
	clear(next.Checks)
	clear(next.Announcers)
	*next = Ready{
		next.Events[:0], next.Steps[:0], next.Checks[:0], next.Announcers[:0], next.Adoptions[:0], next.Calls[:0], next.Seek[:0], next.Notices[:0],
	}
	for _, a := range r.Announcers {
		a.Roster().isDirty = false
	}
	return r
}

// Next returns when Tick has work next, and false if there is none, as while the queen doubts itself.
func (v *View) Next() (time.Time, bool) {
	if !v.doubt.IsZero() {
		return time.Time{}, false
	}
	next, ok := v.due.Next()
	for _, other := range [...]func() (time.Time, bool){v.nextRelease, v.adoptionsDue.Next, v.twins.Next} {
		if at, on := other(); on && (!ok || at.Before(next)) {
			next, ok = at, true
		}
	}
	return v.closings.Next(next, ok)
}

// Refuse counts a message that its owner refused before Apply.
func (v *View) Refuse(reason hivebeat.Reason) (n uint64) {
	v.refused[reason]++
	return v.refused[reason]
}

// Counts count snapshots by outcome.
type Counts struct {
	Accepted   uint64                     // pages applied
	Refused    map[hivebeat.Reason]uint64 // messages that changed nothing, by reason
	Incomplete uint64                     // snapshots that a newer one replaced before all their pages arrived
	Workers    int                        // known now
}

// Counts returns the counts so far.
func (v *View) Counts() Counts {
	return Counts{Accepted: v.accepted, Refused: maps.Clone(v.refused), Incomplete: v.incomplete, Workers: v.index.Totals().Workers}
}

// Score returns the counts of wrong verdicts of this queen.
func (v *View) Score() index.Score { return v.score }

func latest(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// isGone reports whether this verdict ends an incarnation.
func isGone(live hivebeat.Live) bool { return live == hivebeat.Lost || live == hivebeat.Left }
