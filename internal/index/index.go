// Package index holds the fleet as questions see it: the record of every hive and worker, counts of
// workers, capacity, labels, and the log of changes. Package fleet judges and passes its changes to the
// index, once per input; package query reads it. The index judges nothing.
//
// A change updates only the share of the hive or worker that changed, so the cost of a question does
// not grow with the number of workers. Freshness changes by the passing of time alone: each hive has
// one deadline for it, and Settle acts on those that have passed. Call Settle before you read.
//
// Time is an argument. There is no clock, no goroutine and no lock: one goroutine owns an Index and
// everything it returns. Slices and maps that it returns must not be changed or kept.
package index

import (
	"slices"
	"strings"
	"time"

	"github.com/beatfabric/hivebeat"
	"github.com/beatfabric/hivebeat/internal/detector"
	"github.com/beatfabric/hivebeat/internal/liveness"
)

// Index is the read model of one queen.
type Index struct {
	fresh  time.Duration
	hives  ByID[*Hive]
	ageing liveness.Deadlines[*Hive] // when a hive, or one of its workers, grows too old

	totals Totals
	mixes  counts // of all workers
	shapes counts // of all workers, without their models
	zones  map[string]*zone

	models   map[string]*Model
	last     Model // workers of all models that are picked last
	gpus     pools[*GPU]
	lastGPUs pools[*GPU]
	byFree   [MemoryLevels][]*Hive
	holds    map[Place]uint64
	drains   map[string][]*Directive // by hive
	silences map[string][]*Directive

	labels map[label]ByID[*Hive]
	doubts map[*Hive]doubt
	log    changeLog

	score *Score
}

// Hive is a hive as it is shown.
type Hive struct {
	id string

	// A walk over many hives reads these fields, so they are adjacent in memory.
	isFresh    bool
	slot       slot // among the hives by free memory
	freeMemory uint64
	zone       *zone
	facts      Facts

	head       hivebeat.Snapshot // the newest page without its workers
	headChange change            // what the pages since the last SetHive changed
	relabelled bool              // they changed its labels
	oldest     hivebeat.Millis   // the greatest age of a fresh record in those pages
	troubled   bool              // a GPU of the head is not ok
	rejoin     bool              // that is so, or was so before those pages: workers may be on other GPUs than they were

	workers  ByID[*Worker]
	recount  bool   // the mixes changed
	mixes    counts // of its workers
	load     Load
	share    share
	gpus     []GPU
	loaders  []*Worker    // workers that have announced memory and load
	loading  uint64       // bytes that they have announced and do not hold yet
	room     uint64       // bytes that the budget leaves
	drains   []*Directive // as in the index
	silences []*Directive

	bearers map[label]int     // how many of its workers have a label; the hive itself counts as one more
	labels  map[string]string // of the hive itself, as counted in bearers
	revision
}

// Worker is a worker as it is shown. A zero Worker is in no index.
type Worker struct {
	hive     *Hive
	rec      hivebeat.Record
	received time.Time // of the page that holds the record
	byQueen  bool      // the queen judged the record
	adopted  bool      // the queen judges the worker
	answered bool      // if adopted: it was heard since the adoption
	shown    shown
}

// Facts are the verdict on a hive and its basis.
type Facts struct {
	Live     hivebeat.Live // empty before anything is known
	Doubtful bool          // its connection closed, and it was not heard since
	Warming  bool          // it restarted and may not know all its workers yet
	Zone     string
	Inc, Seq uint64
	Every    time.Duration // the promise
	Received time.Time     // of the newest page, or the earliest time it may have been
	Since    time.Time     // when the verdict was reached
	Cause    hivebeat.Cause
	Goodbye  string // why it left, if it did
	Conflict Conflict
}

// Conflict is a second process that uses the id of a hive.
type Conflict struct {
	Until             time.Time // the conflict ends at this time, unless the refused process is heard again; zero: there is none
	Believed, Refused hivebeat.Place
}

// Score counts the wrong verdicts of this queen, and the workers that it judges.
type Score struct {
	FalseDead uint64             // the hive or worker had been alive and was heard too late
	CutOff    uint64             // the same, but it had sent messages meanwhile that did not arrive
	Margins   detector.Histogram // of both: how long after the verdict it was heard
	Adopted   int                // workers that the queen judges now
}

// New returns an empty index. A record is shown as alive until it is older than fresh. score is what Score
// returns.
func New(fresh time.Duration, score *Score) *Index {
	return &Index{
		fresh: fresh, score: score, totals: Totals{Hives: make(map[hivebeat.Live]int)}, zones: make(map[string]*zone),
		models: make(map[string]*Model), last: Model{workers: newPools[*Worker](SlotLevels)}, gpus: newPools[*GPU](MemoryLevels), lastGPUs: newPools[*GPU](MemoryLevels),
		holds: make(map[Place]uint64), drains: make(map[string][]*Directive), silences: make(map[string][]*Directive), labels: make(map[label]ByID[*Hive]), doubts: make(map[*Hive]doubt),
	}
}

// Fresh returns the greatest age of a record that is shown as alive.
func (x *Index) Fresh() time.Duration { return x.fresh }

// Score returns the counts of wrong verdicts of this queen.
func (x *Index) Score() *Score { return x.score }

// Len returns the number of hives.
func (x *Index) Len() int { return len(x.hives) }

// Hives returns all hives in order of their ids.
func (x *Index) Hives() []*Hive { return x.hives }

// After returns the hives whose ids come after id, in order.
func (x *Index) After(id string) []*Hive {
	at, found := x.hives.find(id)
	if found {
		at++
	}
	return x.hives[at:]
}

// Hive returns the hive with this id, or nil. Its Live is empty while only its name is known.
func (x *Index) Hive(id string) *Hive { return x.hives.get(id) }

// Has reports whether h is still in the index.
func (x *Index) Has(h *Hive) bool { return x.Hive(h.id) == h }

// ID returns the hive's id.
func (h *Hive) ID() string { return h.id }

// Live returns the verdict on the hive. It is empty before anything is known.
func (h *Hive) Live() hivebeat.Live { return h.facts.Live }

// Cause returns the cause of the verdict.
func (h *Hive) Cause() hivebeat.Cause { return h.facts.Cause }

// Since returns when the verdict was reached.
func (h *Hive) Since() time.Time { return h.facts.Since }

// Inc returns the valid incarnation, 0 before one is known.
func (h *Hive) Inc() uint64 { return h.facts.Inc }

// Seq returns the highest known seq of the valid incarnation.
func (h *Hive) Seq() uint64 { return h.facts.Seq }

// Every returns the hive's promise.
func (h *Hive) Every() time.Duration { return h.facts.Every }

// Received returns when its newest page was received, or the earliest time when it may have been.
func (h *Hive) Received() time.Time { return h.facts.Received }

// Goodbye returns the reason that the hive gave when it left.
func (h *Hive) Goodbye() string { return h.facts.Goodbye }

// Zone returns the label zone of the hive, or the zone in the roster if the hive was not heard.
func (h *Hive) Zone() string { return h.facts.Zone }

// Doubtful reports whether its connection closed and it was not heard since.
func (h *Hive) Doubtful() bool { return h.facts.Doubtful }

// Up reports whether the hive still speaks for its workers.
func (h *Hive) Up() bool { return h.facts.Live == hivebeat.Alive || h.facts.Live == hivebeat.Late }

// Fresh reports whether the newest page of the hive is not too old, as of the last Settle.
func (h *Hive) Fresh() bool { return h.isFresh }

// Head returns its newest page without the workers. Its Inc is 0 before the first page.
func (h *Hive) Head() *hivebeat.Snapshot { return &h.head }

// Conflict returns the other process that uses the id of the hive now, or nil.
func (h *Hive) Conflict(now time.Time) *Conflict {
	if c := &h.facts.Conflict; !now.After(c.Until) {
		return c
	}
	return nil
}

// Size returns the number of its workers.
func (h *Hive) Size() int { return len(h.workers) }

// Workers returns its workers in order of their ids.
func (h *Hive) Workers() []*Worker { return h.workers }

// Worker returns the worker with this id, or nil.
func (h *Hive) Worker(id string) *Worker { return h.workers.get(id) }

// Hive returns the worker's hive.
func (w *Worker) Hive() *Hive { return w.hive }

// ID returns the worker's id.
func (w *Worker) ID() string { return w.rec.Worker }

// Record returns the worker's record. Its ages are as of Received.
func (w *Worker) Record() *hivebeat.Record { return &w.rec }

// Received returns when the page that holds the record was received.
func (w *Worker) Received() time.Time { return w.received }

// Via returns which role judged the record: hivebeat.ViaHive or hivebeat.ViaQueen.
func (w *Worker) Via() string {
	if w.byQueen {
		return hivebeat.ViaQueen
	}
	return hivebeat.ViaHive
}

// Shown returns the verdict to show for w now, the age of its record, and whether that is fresh. If the
// record is too old, or its hive is lost or left, w is shown as late at best; that is no transition.
func (x *Index) Shown(w *Worker, now time.Time) (live hivebeat.Live, age hivebeat.Millis, fresh bool) {
	live, age = w.rec.Live, EffectiveAge(w.rec.Age, w.received, now)
	fresh = age <= hivebeat.MillisOf(x.fresh)
	speaks := w.hive.Up()
	if w.adopted {
		speaks = w.answered
	}
	if live == hivebeat.Alive && (!fresh || !speaks) {
		live = hivebeat.Late
	}
	return live, age, fresh
}

// LateFor returns for how long a record of this age has been shown as late only because it is too old, or
// because its hive is gone.
func (x *Index) LateFor(h *Hive, age hivebeat.Millis, now time.Time) hivebeat.Millis {
	var since hivebeat.Millis
	if fresh := hivebeat.MillisOf(x.fresh); age > fresh {
		since = age - fresh
	}
	if !h.Up() {
		since = max(since, hivebeat.MillisOf(now.Sub(h.facts.Since)))
	}
	return since
}

// Up estimates how long ago the worker's incarnation began. It takes the time by the worker's own clock,
// but at most the time that its number of beats allows, and at least the time since it is alive. It is 0
// for a worker that is lost or left.
func (w *Worker) Up(now time.Time) (up hivebeat.Millis) {
	r := &w.rec
	if r.Live == hivebeat.Lost || r.Live == hivebeat.Left {
		return 0
	}
	if began := int64(r.Inc / 1000); r.Sent > began && r.Every > 0 {
		up = hivebeat.Millis(r.Sent - began)
		if uint64(up/r.Every) >= r.Seq {
			up = r.Every * hivebeat.Millis(r.Seq)
		}
		up = EffectiveAge(r.Age+up, w.received, now)
	}
	if r.Live == hivebeat.Alive {
		up = max(up, EffectiveAge(r.Since, w.received, now))
	}
	return up
}

// EffectiveAge returns the age now of a fact that had this age when it was received.
func EffectiveAge(age hivebeat.Millis, received, now time.Time) hivebeat.Millis {
	return min(age+hivebeat.MillisOf(now.Sub(received)), hivebeat.MaxInt)
}

// Counted returns the verdict to count l as: a verdict that this release does not know counts as late.
func Counted(l hivebeat.Live) hivebeat.Live {
	switch l {
	case hivebeat.Alive, hivebeat.Late, hivebeat.Lost, hivebeat.Left:
		return l
	}
	return hivebeat.Late
}

// ByID is a list sorted by id.
type ByID[T interface{ ID() string }] []T

func (l ByID[T]) find(id string) (int, bool) {
	return slices.BinarySearchFunc(l, id, func(t T, id string) int { return strings.Compare(t.ID(), id) })
}

// get returns the one with this id, or nil.
func (l ByID[T]) get(id string) (t T) {
	if at, ok := l.find(id); ok {
		t = l[at]
	}
	return t
}

// Add inserts t, unless it is in the list.
func (l *ByID[T]) Add(t T) {
	if at, ok := l.find(t.ID()); !ok {
		*l = slices.Insert(*l, at, t)
	}
}

// Remove removes t, if it is in the list.
func (l *ByID[T]) Remove(t T) {
	if at, ok := l.find(t.ID()); ok {
		*l = slices.Delete(*l, at, at+1)
	}
}
