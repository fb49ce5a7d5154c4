// Package detector judges the workers of one hive: who is alive, late, lost or
// left, and what a snapshot says of them. It is the core of package hive, and of
// whoever judges in a hive's place. It is pure: state and now in, transitions out,
// with no clock, no goroutine and no lock.
package detector

import (
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/beatfabric/hivebeat"
	"github.com/beatfabric/hivebeat/internal/liveness"
	"github.com/beatfabric/hivebeat/internal/wire"
)

const (
	// Who is gone for longer than hivebeat.KeepGone has no record any more, and may
	// come back. The numbers of its transitions go on then: one that is used twice
	// would be taken for a duplicate, which the queen's stream drops for an hour. And
	// the incarnation is known: it did not join, and what it said before is no news.
	rememberFor  = 24 * time.Hour
	maxRemembers = hivebeat.MaxWorkers
)

// Registry is what the workers of one hive are known by. It is pure: time comes in
// as an argument, and no two goroutines may use it at once. Times must carry a
// monotonic reading, as those of time.Now do, or none of them may.
type Registry struct {
	hive    string
	workers map[string]*worker
	sorted  []*worker // the same, by id: rows keep their order from snapshot to snapshot

	deadlines liveness.Deadlines[*worker]
	calms     liveness.Deadlines[*worker] // when those that are damped will have been calm for long enough
	closings  liveness.Closings[*worker]
	steps     []Step // transitions that nobody took yet
	notices   []hivebeat.Notice
	stats     hivebeat.Stats
	margins   Histogram
	detects   map[hivebeat.Cause]Histogram
	lost      map[hivebeat.Cause]uint64
	reasons   map[hivebeat.Reason]uint64 // nil until something is refused

	view wire.BeatView // of the message at hand
	tail wire.Volatile

	ns         string // the pid namespace whose processes can be watched; empty: none
	self       uint64 // the process that watches
	watches    []Watch
	stallAfter time.Duration // of workers that do not say; 0: never
	loops      bool          // it tells of workers that loop

	departed   map[string]*departure // those whose records went
	departures []*departure          // the same, oldest first

	twins   map[*worker]struct{} // of which both incarnations are to answer a roll call
	twinsAt time.Time            // not before
	seek    []string             // connections

	ran   time.Time // when its owner ran last; zero: it does not tell
	doubt time.Time // since when what is heard may have waited; zero: it did not
	roll  roll

	warmAt   time.Time            // zero until NATS was there for the first time
	expected map[string]*recalled // workers of the last kept snapshot that were not heard yet
	kept     bool                 // these are all that there were
	warm     bool
}

type departure struct {
	id   string
	n    uint64
	at   time.Time
	last *worker // the record, without what it costs; nil where somebody else judges the worker
}

// worker is the record of one worker.
type worker struct {
	id      string
	facts   hivebeat.Facts // of the last beat that was accepted
	memo    wire.BeatMemo  // the bytes of it, or nothing
	lineage liveness.Lineage
	learned uint64 // the seq that was taken over as heard elsewhere
	conn    string // by which closings knows it
	live    hivebeat.Live
	cause   hivebeat.Cause
	heard   time.Time // when that beat was received
	began   time.Time // when the first one of its incarnation was
	since   time.Time // when live began
	lostAt  time.Time // the deadline that made it lost
	n       uint64
	tr      []Step // the last hivebeat.MaxTransitions

	process  Process // that is watched; PID 0: none
	spent    end     // of the last one that was seen to end
	load     load
	progress progress
	rival    rival
	beside   *beside // of the one that is not believed; nil: none was heard
	damping
}

// Step is a transition, and what its log line says besides.
type Step struct {
	hivebeat.Transition
	At     time.Time // when the verdict was reached
	Worker string
	Model  string
	Reason string // what the worker said, or what was seen of it
	Seq    uint64
	Age    time.Duration // since the beat before
	Margin time.Duration // recovered after lost: how far past the deadline
	CutOff bool          // recovered after lost: seq went on meanwhile
	Damped bool          // it is so, and is not told: the worker flaps or loops
	Detect time.Duration // lost, where its end was seen: from there to the verdict
}

// Ended reports whether one of these steps ends its worker, as lost or left: those
// are not to wait.
func Ended(steps []Step) bool {
	return slices.ContainsFunc(steps, func(s Step) bool {
		return s.To == string(hivebeat.Lost) || s.To == string(hivebeat.Left)
	})
}

// Heard says what a beat calls for.
type Heard struct {
	Worker string // whose it was
	Urgent bool   // a transition
	Facts  bool   // other facts than before, which somebody may wait for
}

// Refusals that can come with every beat are made once.
var (
	errStale   = &hivebeat.Refusal{Reason: hivebeat.RefusedStale, Detail: "seq not above the last one, a superseded incarnation, or after its goodbye"}
	errOlder   = &hivebeat.Refusal{Reason: hivebeat.RefusedOlder, Key: "inc", Detail: "a higher incarnation is alive"}
	errForeign = &hivebeat.Refusal{Reason: hivebeat.RefusedForeign, Key: "hive", Detail: "meant for another hive"}
	errPinned  = &hivebeat.Refusal{Reason: hivebeat.RefusedForeign, Key: "worker", Detail: "not the id in the subject"}
	errEnded   = &hivebeat.Refusal{Reason: hivebeat.RefusedStale, Key: "boot", Detail: "sent before its process ended, as far as is known"}
	errFull    = &hivebeat.Refusal{Reason: hivebeat.RefusedFull, Detail: "a hive has at most 10000 workers"}
)

// New returns a registry for the workers of hive, which knows nobody.
func New(hive string) *Registry {
	r := &Registry{
		hive:     hive,
		workers:  make(map[string]*worker),
		lost:     make(map[hivebeat.Cause]uint64),
		departed: make(map[string]*departure),
	}
	r.closings = liveness.NewClosings[*worker]()
	return r
}

// Len returns the number of records, of workers that are lost or left too.
func (r *Registry) Len() int { return len(r.workers) }

// Stats returns the counts so far, as a snapshot has them.
func (r *Registry) Stats() hivebeat.Stats { return r.stats }

// Reasons returns how many messages were refused, by reason, where there were any.
func (r *Registry) Reasons() map[hivebeat.Reason]uint64 {
	m := make(map[hivebeat.Reason]uint64, len(r.reasons))
	maps.Copy(m, r.reasons)
	return m
}

// Lost returns how many were found lost, by cause.
func (r *Registry) Lost() map[hivebeat.Cause]uint64 { return maps.Clone(r.lost) }

// Receive takes one message as it came. Most repeat the last one of their worker
// but for the numbers at its end: of those no more is read. pinned is the
// worker's id in the subject, or empty. Nothing of a record changes unless the
// error is nil; the error is for Refuse.
func (r *Registry) Receive(now time.Time, b []byte, pinned string) (Heard, error) {
	if w := r.workers[string(wire.PeekWorker(b))]; w != nil && (pinned == "" || pinned == w.id) && w.memo.Parse(b, &r.tail) {
		if w.spent.before(w.facts.Inc, r.tail.Boot, w.facts.NS) {
			return Heard{}, errEnded
		}
		step, err := r.judge(now, w, w.facts.Inc, &r.tail, w.facts.Every)
		if err != nil {
			return step.heard(), err
		}
		h := Heard{Facts: differVolatile(&w.facts, &r.tail)}
		r.tail.Update(&w.facts)
		return r.take(now, w, h, step), nil
	}
	if err := wire.ParseBeat(b, &r.view); err != nil {
		return Heard{}, err
	}
	h, err := r.Hear(now, &r.view, pinned)
	if err == nil {
		r.workers[string(r.view.Worker)].memo.Keep(b)
	}
	return h, err
}

// Hear takes a beat that was parsed, and thereby checked, as Receive does.
func (r *Registry) Hear(now time.Time, v *wire.BeatView, pinned string) (Heard, error) {
	if string(v.Hive) != r.hive {
		return Heard{}, errForeign
	}
	if pinned != "" && string(v.Worker) != pinned {
		return Heard{}, errPinned
	}
	w, known := r.workers[string(v.Worker)]
	if !known {
		if len(r.workers) >= hivebeat.MaxWorkers {
			return Heard{}, errFull
		}
		if k := r.expected[string(v.Worker)]; k != nil && k.inc > v.Inc && now.Before(k.until) {
			return Heard{}, errOlder // the one that is awaited was alive
		}
		if w = r.back(v); w == nil {
			return Heard{}, errStale
		}
	}
	// A goodbye is one of an orderly end, whenever it comes.
	if w.spent.Inc == v.Inc && !hivebeat.State(v.State).Goodbye() && w.spent.before(v.Inc, v.Boot, string(v.NS)) {
		return Heard{}, errEnded
	}
	if known && v.Inc != w.facts.Inc {
		w.hearBeside(v)
	}
	step, err := r.judge(now, w, v.Inc, &v.Volatile, hivebeat.Millis(v.Every))
	if err != nil {
		return step.heard(), err
	}
	h := Heard{Facts: differ(&w.facts, &v.FactsView)}
	w.memo.Forget() // of other facts than those that come now
	v.FactsView.Update(&w.facts)
	w.progress.limit(w.facts.Labels)
	h = r.take(now, w, h, step)
	r.watch(now, w)
	return h, nil
}

// judge says what a beat of w with these numbers is, which promises the next one within
// every. The error is set if it is no news.
func (r *Registry) judge(now time.Time, w *worker, inc uint64, v *wire.Volatile, every hivebeat.Millis) (beatStep, error) {
	seq := v.Seq
	if w.live == hivebeat.Alive {
		if refusal := w.lineage.Implausible(now, inc, seq); refusal != nil {
			return beatStep{}, refusal
		}
	}
	before := w.lineage.Seq()
	b := beatStep{state: w.facts.State, age: now.Sub(w.heard), sent: w.facts.Sent, busy: w.facts.Busy, done: w.facts.Done}
	b.outcome = w.lineage.Hear(inc, seq, w.live == hivebeat.Alive)
	gone := (w.live == hivebeat.Left || w.live == hivebeat.Lost) && (r.doubt.IsZero() || !r.doubt.Before(w.since))
	gone = gone && now.Sub(w.began) > liveness.LostAfter(w.facts.Every.Duration(), w.facts.Quiet.Duration())
	if b.outcome == liveness.Stale && (gone || w.lineage.Misled(message(now, inc, v), w.began)) {
		b.outcome = w.lineage.Revive(inc, seq)
	}
	if (b.outcome == liveness.Stale || b.outcome == liveness.Older) && r.doubt.IsZero() {
		b.outcome = w.lineage.Insists(message(now, inc, v), every.Duration()/2, w.lineage.Seq() != w.learned, b.outcome)
	}
	if b.outcome == liveness.Back {
		r.conflict(now, w, inc, seq)
	}
	if b.outcome.Begins() {
		w.began, w.rival, w.beside = now, rival{}, nil
	} else if b.outcome == liveness.Next && w.spent.Inc == inc && !w.spent.proved {
		w.spent.proved = true // it was sent after that
		w.lineage.Died(false)
	}
	if r.doubt.IsZero() {
		r.twin(now, w, b.outcome, inc, v)
	}
	b.wentOn = seq > before+1
	r.stats.WireLost = add(r.stats.WireLost, w.lineage.TakeLost())
	switch b.outcome {
	case liveness.Conflict:
		r.conflict(now, w, inc, seq)
		return b, errStale
	case liveness.Older:
		r.refused(now, w, inc, seq)
		return b, errOlder
	case liveness.Stale, liveness.Same:
		r.refused(now, w, inc, seq)
		return b, errStale
	case liveness.First:
		b.age = 0
	}
	return b, nil
}

// take draws the conclusions from a beat whose facts were taken over.
func (r *Registry) take(now time.Time, w *worker, h Heard, step beatStep) Heard {
	h.Worker = w.id
	w.heard = r.heardAt(now, w)
	r.stats.Beats++
	r.link(w, step.outcome.Begins())
	n, live := w.n, w.live
	r.transit(now, w, step)
	r.advance(now, w, step)
	h.Urgent = w.n != n || w.live != live
	if len(r.expected) > 0 {
		delete(r.expected, w.id)
	}
	r.roll.heard(w)
	return h
}

// heardAt returns when a beat of w that is read now counts as heard.
func (r *Registry) heardAt(now time.Time, w *worker) time.Time {
	switch {
	case r.doubt.IsZero():
		return now
	case w.heard.After(r.doubt):
		return w.heard
	}
	return r.doubt
}

// heard says what a beat that was refused calls for.
func (b beatStep) heard() Heard { return Heard{Urgent: b.outcome == liveness.Conflict} }

// Refuse counts a message that was refused.
func (r *Registry) Refuse(err error) {
	reason := hivebeat.ReasonOf(err)
	if reason != "" {
		if r.reasons == nil { // a queen has a registry for each hive that is lost
			r.reasons = make(map[hivebeat.Reason]uint64)
		}
		r.reasons[reason]++
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

func (r *Registry) add(id string) *worker {
	w := &worker{id: id}
	if d := r.departed[id]; d != nil {
		w.n = d.n
	}
	r.insert(w)
	return w
}

// back returns the record for a worker that has none and is heard: the one that it
// had, where that was let go and this is the same incarnation. It is nil where such
// a beat is no news.
func (r *Registry) back(v *wire.BeatView) *worker {
	id := string(v.Worker)
	d := r.departed[id]
	if d == nil || d.last == nil || d.last.lineage.Inc() != v.Inc {
		return r.add(id)
	}
	w := d.last
	if w.lineage.Ended() || v.Seq <= w.lineage.Seq() || w.spent.before(v.Inc, v.Boot, string(v.NS)) {
		return nil
	}
	r.insert(w)
	return w
}

func (r *Registry) insert(w *worker) {
	id := w.id
	r.workers[id] = w
	at, _ := slices.BinarySearchFunc(r.sorted, id, byID)
	r.sorted = slices.Insert(r.sorted, at, w)
}

// depart lets the record go of a worker that is lost or left, and remembers its
// incarnation.
func (r *Registry) depart(now time.Time, w *worker) {
	r.remove(now, w)
	f := &w.facts
	w.facts = hivebeat.Facts{Inc: f.Inc, Seq: f.Seq, Every: f.Every, State: f.State, Done: f.Done}
	w.memo, w.tr = wire.BeatMemo{}, nil
	r.departed[w.id].last = w
}

// remove lets the record of a worker go, without a transition.
func (r *Registry) remove(now time.Time, w *worker) {
	delete(r.workers, w.id)
	if at, ok := slices.BinarySearchFunc(r.sorted, w.id, byID); ok {
		r.sorted = slices.Delete(r.sorted, at, at+1)
	}
	r.deadlines.Remove(w)
	r.calms.Remove(w)
	r.unlink(w)
	r.unwatch(w)

	d := &departure{id: w.id, n: w.n, at: now}
	r.departed[w.id] = d
	r.departures = append(r.departures, d)
	old := 0
	for _, d := range r.departures {
		if len(r.departures)-old <= maxRemembers && now.Sub(d.at) < rememberFor {
			break
		}
		if r.departed[d.id] == d { // else it came, and went again, later
			delete(r.departed, d.id)
		}
		old++
	}
	r.departures = slices.Delete(r.departures, 0, old)
}

// TakeSteps returns the transitions since the last call.
func (r *Registry) TakeSteps() []Step {
	s := r.steps
	r.detected(s)
	r.steps = nil
	return s
}

// Pids returns the process ids of the workers that run in the pid namespace ns.
func (r *Registry) Pids(ns string) map[uint64]bool {
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
