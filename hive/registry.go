package hive

import (
	"slices"
	"strings"
	"time"

	"github.com/beatfabric/hivebeat"
	"github.com/beatfabric/hivebeat/internal/liveness"
	"github.com/beatfabric/hivebeat/internal/wire"
)

const (
	warmAfter = 45 * time.Second // from then on an absent worker is evidence

	// A record that went may come back, and its transitions go on being numbered:
	// a number that is used twice would be taken for a duplicate, which the
	// queen's stream drops for an hour.
	rememberN    = 2 * time.Hour
	maxRemembers = hivebeat.MaxWorkers
)

// registry is what a hive knows of its workers. It is pure: time comes in as an
// argument, and no two goroutines may use it at once.
type registry struct {
	hive    string
	workers map[string]*worker
	sorted  []*worker // the same, by id: rows keep their order from snapshot to snapshot

	deadlines liveness.Deadlines[*worker]
	steps     []step // transitions that nobody took yet
	stats     hivebeat.Stats
	reasons   map[hivebeat.Reason]*uint64

	view wire.BeatView // of the message at hand
	tail wire.Volatile

	departed  map[string]uint64 // n of records that went
	departure []departure       // the same, oldest first

	warmAt   time.Time       // zero until NATS was there for the first time
	expected map[string]bool // workers of the last kept snapshot that were not heard yet
	kept     bool            // expected is known
	warm     bool
}

type departure struct {
	id string
	n  uint64
	at time.Time
}

// worker is the record of one worker.
type worker struct {
	id      string
	facts   hivebeat.Facts // of the last beat that was accepted
	memo    wire.BeatMemo  // the bytes of it, or nothing
	lineage liveness.Lineage
	live    hivebeat.Live
	cause   hivebeat.Cause
	heard   time.Time // when that beat was received
	began   time.Time // when the first one of its incarnation was
	since   time.Time // when live began
	lostAt  time.Time // the deadline that made it lost
	n       uint64
	tr      []step // the last hivebeat.MaxTransitions
}

// step is a transition, and what its log line says besides.
type step struct {
	hivebeat.Transition
	at     time.Time
	worker string
	model  string
	reason string
	seq    uint64
	age    time.Duration // since the beat before
	margin time.Duration // recovered after lost: how far past the deadline
	cutOff bool          // recovered after lost: seq went on meanwhile
}

// heard says what a beat that was accepted calls for.
type heard struct {
	urgent bool // a transition
	facts  bool // other facts than before, which somebody may wait for
}

// Refusals that can come with every beat are made once.
var (
	errStale   = &hivebeat.Refusal{Reason: hivebeat.RefusedStale, Detail: "seq not above the last one, a superseded incarnation, or after its goodbye"}
	errOlder   = &hivebeat.Refusal{Reason: hivebeat.RefusedOlder, Key: "inc", Detail: "a higher incarnation is alive"}
	errForeign = &hivebeat.Refusal{Reason: hivebeat.RefusedForeign, Key: "hive", Detail: "meant for another hive"}
	errPinned  = &hivebeat.Refusal{Reason: hivebeat.RefusedForeign, Key: "worker", Detail: "not the id in the subject"}
	errFull    = &hivebeat.Refusal{Reason: hivebeat.RefusedFull, Detail: "a hive has at most 10000 workers"}
)

func newRegistry(hive string) *registry {
	r := &registry{
		hive:     hive,
		workers:  make(map[string]*worker),
		reasons:  make(map[hivebeat.Reason]*uint64),
		departed: make(map[string]uint64),
	}
	for _, reason := range hivebeat.Reasons() {
		r.reasons[reason] = new(uint64)
	}
	return r
}

// receive takes one message as it came. Most repeat the last one of their worker
// but for the numbers at its end: of those no more is read. pinned is the
// worker's id in the subject, or empty. Nothing of a record changes unless the
// error is nil; the error is for refuse.
func (r *registry) receive(now time.Time, b []byte, pinned string) (heard, error) {
	if w := r.workers[string(wire.PeekWorker(b))]; w != nil && (pinned == "" || pinned == w.id) && w.memo.Parse(b, &r.tail) {
		step, err := r.judge(now, w, w.facts.Inc, r.tail.Seq)
		if err != nil {
			return step.heard(), err
		}
		h := heard{facts: differVolatile(&w.facts, &r.tail)}
		r.tail.Update(&w.facts)
		return r.take(now, w, h, step), nil
	}
	if err := wire.ParseBeat(b, &r.view); err != nil {
		return heard{}, err
	}
	h, err := r.hear(now, &r.view, pinned)
	if err == nil {
		r.workers[string(r.view.Worker)].memo.Keep(b)
	}
	return h, err
}

// hear takes a beat that was parsed, and thereby checked, as receive does.
func (r *registry) hear(now time.Time, v *wire.BeatView, pinned string) (heard, error) {
	if string(v.Hive) != r.hive {
		return heard{}, errForeign
	}
	if pinned != "" && string(v.Worker) != pinned {
		return heard{}, errPinned
	}
	w, known := r.workers[string(v.Worker)]
	if !known {
		if len(r.workers) >= hivebeat.MaxWorkers {
			return heard{}, errFull
		}
		w = r.add(string(v.Worker))
	}
	step, err := r.judge(now, w, v.Inc, v.Seq)
	if err != nil {
		return step.heard(), err
	}
	h := heard{facts: differ(&w.facts, &v.FactsView)}
	w.memo.Forget() // of other facts than those that come now
	v.FactsView.Update(&w.facts)
	return r.take(now, w, h, step), nil
}

// judge says what a beat of w with this (inc, seq) is. The error is set if it is
// no news.
func (r *registry) judge(now time.Time, w *worker, inc, seq uint64) (beatStep, error) {
	before := w.lineage.Seq()
	b := beatStep{state: w.facts.State, age: now.Sub(w.heard)}
	b.outcome = w.lineage.Hear(inc, seq, w.live == hivebeat.Alive)
	if b.outcome == liveness.Stale && w.live != hivebeat.Alive &&
		now.Sub(w.began) > liveness.LostAfter(w.facts.Every.Duration(), w.facts.Quiet.Duration()) {
		b.outcome = w.lineage.Revive(inc, seq)
	}
	if b.outcome.Begins() {
		w.began = now
	}
	b.wentOn = seq > before+1
	r.stats.WireLost = add(r.stats.WireLost, w.lineage.TakeLost())
	switch b.outcome {
	case liveness.Conflict:
		r.conflict(now, w, inc, seq)
		return b, errStale
	case liveness.Older:
		return b, errOlder
	case liveness.Stale, liveness.Same:
		return b, errStale
	case liveness.First:
		b.age = 0
	}
	return b, nil
}

// take draws the conclusions from a beat whose facts were taken over.
func (r *registry) take(now time.Time, w *worker, h heard, step beatStep) heard {
	w.heard = now
	r.stats.Beats++
	h.urgent = r.transit(now, w, step)
	if len(r.expected) > 0 {
		delete(r.expected, w.id)
	}
	return h
}

// heard says what a beat that was refused calls for.
func (b beatStep) heard() heard { return heard{urgent: b.outcome == liveness.Conflict} }

// refuse counts a message that was refused.
func (r *registry) refuse(err error) {
	reason := hivebeat.ReasonOf(err)
	if n, ok := r.reasons[reason]; ok {
		*n++
	}
	if reason == hivebeat.RefusedStale {
		r.stats.Stale++
	} else {
		r.stats.Refused++
	}
}

// differ reports whether v has other facts than f, but for those that every beat
// changes.
func differ(f *hivebeat.Facts, v *wire.FactsView) bool {
	return differVolatile(f, &v.Volatile) || f.Slots != v.Slots ||
		string(f.State) != string(v.State) || f.Model != string(v.Model) || f.Endpoint != string(v.Endpoint)
}

func differVolatile(f *hivebeat.Facts, v *wire.Volatile) bool {
	return f.VRAM != v.VRAM || f.Busy != v.Busy || f.Queue != v.Queue
}

func byID(w *worker, id string) int { return strings.Compare(w.id, id) }

func (r *registry) add(id string) *worker {
	w := &worker{id: id, n: r.departed[id]}
	r.workers[id] = w
	at, _ := slices.BinarySearchFunc(r.sorted, id, byID)
	r.sorted = slices.Insert(r.sorted, at, w)
	return w
}

// remove lets the record of a worker go, without a transition.
func (r *registry) remove(now time.Time, w *worker) {
	delete(r.workers, w.id)
	if at, ok := slices.BinarySearchFunc(r.sorted, w.id, byID); ok {
		r.sorted = slices.Delete(r.sorted, at, at+1)
	}
	r.deadlines.Remove(w)

	r.departed[w.id] = w.n
	r.departure = append(r.departure, departure{w.id, w.n, now})
	old := 0
	for _, d := range r.departure {
		if len(r.departure)-old <= maxRemembers && now.Sub(d.at) < rememberN {
			break
		}
		if r.departed[d.id] == d.n { // else it came, and went again, later
			delete(r.departed, d.id)
		}
		old++
	}
	r.departure = slices.Delete(r.departure, 0, old)
}

// start begins the time after which an absent worker is evidence.
func (r *registry) start(now time.Time) { r.warmAt = now.Add(warmAfter) }

// expect names the workers of the last kept snapshot. Once all were heard the
// registry is warm.
func (r *registry) expect(ids []string) {
	r.kept, r.expected = true, make(map[string]bool, len(ids))
	for _, id := range ids {
		if r.workers[id] == nil {
			r.expected[id] = true
		}
	}
}

// isWarm reports whether the absence of a worker is evidence. Once it is, it
// stays.
func (r *registry) isWarm(now time.Time) bool {
	if !r.warm && !r.warmAt.IsZero() {
		r.warm = !now.Before(r.warmAt) || r.kept && len(r.expected) == 0
	}
	return r.warm
}

// credit takes time in which nothing could be heard out of all judgements.
func (r *registry) credit(blind time.Duration) {
	r.deadlines.Shift(blind)
	if !r.warmAt.IsZero() {
		r.warmAt = r.warmAt.Add(blind)
	}
}

// takeSteps returns the transitions since the last call.
func (r *registry) takeSteps() []step {
	s := r.steps
	r.steps = nil
	return s
}

// pids returns the process ids of the workers that run in the pid namespace ns.
func (r *registry) pids(ns string) map[uint64]bool {
	m := make(map[uint64]bool)
	for _, w := range r.sorted {
		if ns != "" && w.facts.NS == ns && w.facts.PID != 0 {
			m[w.facts.PID] = true
		}
	}
	return m
}

// add returns a + b, and no more than the wire can carry.
func add(a, b uint64) uint64 {
	if b > hivebeat.MaxInt-a {
		return hivebeat.MaxInt
	}
	return a + b
}
