// Package index holds the fleet as questions see it: the record of every hive and worker, how many
// workers are shown in which way, which places have capacity, who carries which label, and what
// changed last. Package fleet judges and tells the index what changed, once per input; package query
// reads it. The index judges nothing.
//
// Each change moves only the share of the hive or worker that changed, so the cost of a question does
// not grow with the number of workers. Freshness changes by the passing of time alone: it has one
// deadline per hive, and Settle brings it up to date. Call Settle before you read.
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
	shapes counts // the same without their models
	zones  map[string]*zone

	models  map[string]*Model
	looping Model // workers that restart over and over, whatever they serve
	gpus    pools[*GPU]
	byFree  [MemoryLevels][]*Hive
	holds   map[Place]uint64

	labels map[label]*ByID[*Hive]
	doubts map[*Hive]doubt
	log    changeLog

	score *Score
}

// Hive is a hive as it is shown.
type Hive struct {
	id string

	// A walk over many hives reads these fields, so they stand together.
	facts      Facts
	zone       *zone
	freeMemory uint64
	isFresh    bool
	slot       slot // among the hives by free memory

	head       hivebeat.Snapshot // the newest page without its workers
	headChange change            // what the pages since the last SetHive changed
	oldest     hivebeat.Millis   // the greatest age of a record in those that is fresh

	workers  []*Worker // in order of their ids if isSorted
	isSorted bool
	recount  bool   // the mixes changed
	mixes    counts // of its workers
	load     Load
	share    share
	gpus     []GPU

	bearers map[label]bearers
	labels  map[string]string // its own, as they are counted in bearers
	revision
}

// Worker is a worker as it is shown. The zero Worker is not in the index yet.
type Worker struct {
	hive     *Hive
	rec      hivebeat.Record
	received time.Time // of the page that holds the record
	byQueen  bool      // the queen judged the record
	adopted  bool      // the queen judges the worker
	answered bool      // while it is adopted: it was heard since
	shown    shown
}

// Facts are the verdict on a hive, and what it rests on.
type Facts struct {
	Live     hivebeat.Live // empty before anything is known
	Cause    hivebeat.Cause
	Since    time.Time // when the verdict was reached
	Inc, Seq uint64
	Every    time.Duration // the promise
	Received time.Time     // of the newest page, or the earliest time it may have been
	Goodbye  string        // why it left, if it did
	Zone     string
	Warming  bool // it began again and may not know all its workers yet
	Doubtful bool // its connection closed, and it was not heard since
	Conflict *Conflict
}

// Conflict is a second process that uses the id of a hive.
type Conflict struct {
	Until             time.Time // it counts up to then unless it is heard again
	Believed, Refused hivebeat.Place
}

// Score counts what the verdicts of this queen got wrong, and the workers that it judges.
type Score struct {
	FalseDead uint64             // the hive or worker had been alive and was heard too late
	CutOff    uint64             // the same, but its seq had gone on: its messages did not arrive
	Margins   detector.Histogram // of both: how long after the verdict it was heard
	Adopted   int                // workers that the queen judges now
}

// New returns an empty index. Records no older than fresh are shown as alive. score is read when a question
// asks for it; nil counts nothing.
func New(fresh time.Duration, score *Score) *Index {
	if score == nil {
		score = new(Score)
	}
	return &Index{
		fresh: fresh, score: score, totals: Totals{Hives: make(map[hivebeat.Live]int)}, zones: make(map[string]*zone),
		models: make(map[string]*Model), looping: Model{workers: newPools[*Worker](SlotLevels)}, gpus: newPools[*GPU](MemoryLevels),
		holds: make(map[Place]uint64), labels: make(map[label]*ByID[*Hive]), doubts: make(map[*Hive]doubt),
	}
}

// Fresh is the greatest age of a record that is shown as alive.
func (x *Index) Fresh() time.Duration { return x.fresh }

// Score returns what the verdicts of this queen got wrong.
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
func (x *Index) Hive(id string) *Hive {
	if at, ok := x.hives.find(id); ok {
		return x.hives[at]
	}
	return nil
}

// Has reports whether h is still in the index.
func (x *Index) Has(h *Hive) bool { return x.Hive(h.id) == h }

// ID is the hive's id.
func (h *Hive) ID() string { return h.id }

// Live is the verdict on the hive. It is empty before anything is known.
func (h *Hive) Live() hivebeat.Live { return h.facts.Live }

// Cause is the cause of the verdict.
func (h *Hive) Cause() hivebeat.Cause { return h.facts.Cause }

// Since is when the verdict was reached.
func (h *Hive) Since() time.Time { return h.facts.Since }

// Inc is the valid incarnation, 0 before one is known.
func (h *Hive) Inc() uint64 { return h.facts.Inc }

// Seq is the highest seq known of the valid incarnation.
func (h *Hive) Seq() uint64 { return h.facts.Seq }

// Every is the hive's promise.
func (h *Hive) Every() time.Duration { return h.facts.Every }

// Received is when its newest page was received, or the earliest time it may have been.
func (h *Hive) Received() time.Time { return h.facts.Received }

// Goodbye is the reason that the hive gave when it left.
func (h *Hive) Goodbye() string { return h.facts.Goodbye }

// Zone is its label zone. Where the hive was not heard, it is what the roster says.
func (h *Hive) Zone() string { return h.facts.Zone }

// Doubtful reports whether its connection closed and it was not heard since.
func (h *Hive) Doubtful() bool { return h.facts.Doubtful }

// Up reports whether the hive still speaks for its workers.
func (h *Hive) Up() bool { return h.facts.Live == hivebeat.Alive || h.facts.Live == hivebeat.Late }

// Fresh reports whether the facts of the hive are within the limit, as of the last Settle.
func (h *Hive) Fresh() bool { return h.isFresh }

// Head is its newest page without the workers. Its Inc is 0 before the first page.
func (h *Hive) Head() *hivebeat.Snapshot { return &h.head }

// Conflict returns the other process that uses the id of the hive now, or nil.
func (h *Hive) Conflict(now time.Time) *Conflict {
	if c := h.facts.Conflict; c != nil && !now.After(c.Until) {
		return c
	}
	return nil
}

// Size is the number of its workers.
func (h *Hive) Size() int { return len(h.workers) }

// Workers returns its workers in order of their ids.
func (h *Hive) Workers() []*Worker {
	if !h.isSorted {
		slices.SortFunc(h.workers, func(a, b *Worker) int { return strings.Compare(a.rec.Worker, b.rec.Worker) })
		h.isSorted = true
	}
	return h.workers
}

// Worker returns the worker with this id, or nil.
func (h *Hive) Worker(id string) *Worker {
	list := h.Workers()
	at, ok := slices.BinarySearchFunc(list, id, func(w *Worker, id string) int { return strings.Compare(w.rec.Worker, id) })
	if !ok {
		return nil
	}
	return list[at]
}

// Hive is the worker's hive.
func (w *Worker) Hive() *Hive { return w.hive }

// ID is the worker's id.
func (w *Worker) ID() string { return w.rec.Worker }

// Record is the worker's record; its ages are as of Received.
func (w *Worker) Record() *hivebeat.Record { return &w.rec }

// Received is when the page that holds the record was received.
func (w *Worker) Received() time.Time { return w.received }

// Via says which role judged the record: hivebeat.ViaHive or hivebeat.ViaQueen.
func (w *Worker) Via() string {
	if w.byQueen {
		return hivebeat.ViaQueen
	}
	return hivebeat.ViaHive
}

// Shown returns what the record is worth now. A record past the limit of freshness, or of a hive
// that is gone, is shown as late at best; that is no transition.
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

// LateFor returns for how long a record of this age has been shown as late although its hive does
// not say so: since it grew too old, or since the hive was given up.
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

// Up is how long ago the worker's incarnation began, as far as is known: by the worker's own clock,
// but for no longer than its number of beats allows, and for at least as long as it is alive. It is
// 0 for a worker that is lost or left.
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

// EffectiveAge is the age of something that was age old when it was received.
func EffectiveAge(age hivebeat.Millis, received, now time.Time) hivebeat.Millis {
	return min(age+hivebeat.MillisOf(now.Sub(received)), hivebeat.MaxInt)
}

// Counted is the verdict that a verdict counts as: an unknown one counts as late.
func Counted(l hivebeat.Live) hivebeat.Live {
	switch l {
	case hivebeat.Alive, hivebeat.Late, hivebeat.Lost, hivebeat.Left:
		return l
	}
	return hivebeat.Late
}

// ByID is a list in order of ids.
type ByID[T interface{ ID() string }] []T

func (l ByID[T]) find(id string) (int, bool) {
	return slices.BinarySearchFunc(l, id, func(t T, id string) int { return strings.Compare(t.ID(), id) })
}

// Add inserts t, which is not in the list.
func (l *ByID[T]) Add(t T) {
	at, _ := l.find(t.ID())
	*l = slices.Insert(*l, at, t)
}

// Remove takes t out of the list.
func (l *ByID[T]) Remove(t T) {
	if at, ok := l.find(t.ID()); ok {
		*l = slices.Delete(*l, at, at+1)
	}
}
