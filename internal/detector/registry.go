// Package detector judges the workers of one hive: which are alive, late, lost or left,
// and what a snapshot says about them. It is the core of package hive, and of a queen
// that judges in place of a hive. It is pure: state and now in, transitions out, with
// no clock, no goroutine and no lock.
package detector

import (
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/beatfabric/hivebeat"
	"github.com/beatfabric/hivebeat/internal/liveness"
	"github.com/beatfabric/hivebeat/internal/wire"
	"github.com/beatfabric/hivebeat/verdict"
)

const (
	// A worker that has been gone for longer than hivebeat.KeepGone has no record, but
	// may come back. Its transition numbers continue: a number that is used twice would
	// be taken for a duplicate, which the queen's stream drops for an hour. Its
	// incarnation is remembered too: the worker does not join again, and its earlier
	// messages are stale.
	rememberFor  = 24 * time.Hour
	maxRemembers = hivebeat.MaxWorkers
)

// Registry holds the records of the workers of one hive. It is pure: time comes in as
// an argument, and it is not safe for concurrent use. All times must carry a
// monotonic reading, as time.Now returns it, or none may.
type Registry struct {
	hive    string
	workers map[string]*worker
	sorted  []*worker // the same, by id: records keep their order from snapshot to snapshot

	deadlines liveness.Deadlines[*worker]
	calms     liveness.Deadlines[*worker] // when the damping of a worker ends
	closings  liveness.Closings[*worker]
	steps     []Step // transitions not taken yet
	notices   []hivebeat.Notice
	stats     hivebeat.Stats
	margins   Histogram
	detects   map[hivebeat.Cause]Histogram
	lost      map[hivebeat.Cause]uint64
	reasons   map[hivebeat.Reason]uint64 // nil until a message is refused

	view wire.BeatView // the current message
	tail wire.Volatile

	ns         string // pid namespace whose processes can be watched; empty: none
	self       uint64 // pid of the watching process
	watches    []Watch
	stallAfter time.Duration // default for workers without a limit; 0: never
	loops      bool          // report workers that loop

	departed   map[string]*departure // workers whose records were removed
	departures []*departure          // the same, oldest first

	twins   map[*worker]struct{} // workers with two incarnations that must both answer a roll call
	twinsAt time.Time            // earliest time of the next such call
	seek    []string             // connections whose addresses are wanted

	ran   time.Time // when the owner last called Ran; zero: never
	doubt time.Time // start of the doubt: messages may have waited since; zero: no doubt
	roll  roll

	warmAt   time.Time            // zero until Start, at the first connection to NATS
	expected map[string]*recalled // workers of the last kept snapshot that were not heard yet
	kept     bool                 // expected named every worker of the snapshot
	warm     bool
}

type departure struct {
	id   string
	n    uint64
	at   time.Time
	last *worker // the reduced record; nil if the worker is judged elsewhere
}

// worker is the record of one worker.
type worker struct {
	id      string
	facts   hivebeat.Facts // from the last accepted beat
	memo    wire.BeatMemo  // its bytes, or empty
	lineage liveness.Lineage
	learned uint64 // the seq last taken over from another observer
	conn    string // connection name in closings
	live    hivebeat.Live
	cause   hivebeat.Cause
	heard   time.Time // when the last accepted beat was received
	early   bool      // heard is only the earliest time at which it may have been received
	began   time.Time // when the first beat of its incarnation was received
	since   time.Time // start of live
	lostAt  time.Time // the deadline that made it lost
	n       uint64
	tr      []Step // the last hivebeat.MaxTransitions

	process  Process // watched; PID 0: none
	spent    end     // the last reported end of its process
	load     load
	progress progress
	pace     pace
	rival    rival
	beside   *beside // where the refused process runs; nil: none was heard
	damping
}

// Step is a transition, with additional data for its log line.
type Step struct {
	hivebeat.Transition
	At     time.Time // when the verdict was reached
	Worker string
	Model  string
	Reason string // as the worker reported it, or as the hive observed it
	Seq    uint64
	Age    time.Duration // since the previous beat
	Margin time.Duration // recovered after lost: how far past the deadline
	CutOff bool          // recovered after lost: seq advanced meanwhile
	Damped bool          // true but not reported, as the worker flaps or loops
	Detect time.Duration // lost after an observed end: time from the end to the verdict
}

// Ended reports whether one of the steps makes its worker lost or left. Such steps must
// not wait.
func Ended(steps []Step) bool {
	return slices.ContainsFunc(steps, func(s Step) bool {
		return s.To == string(hivebeat.Lost) || s.To == string(hivebeat.Left)
	})
}

// Heard is the result of a beat.
type Heard struct {
	Worker string // id of the sender
	Urgent bool   // the beat caused a transition
	Facts  bool   // the facts changed, and a client may wait for that
}

// Refusals that any beat may cause are allocated once.
var (
	errStale   = &hivebeat.Refusal{Reason: hivebeat.RefusedStale, Detail: "seq not above the last one, a superseded incarnation, or after its goodbye"}
	errOlder   = &hivebeat.Refusal{Reason: hivebeat.RefusedOlder, Key: "inc", Detail: "a higher incarnation is alive"}
	errForeign = &hivebeat.Refusal{Reason: hivebeat.RefusedForeign, Key: "hive", Detail: "meant for another hive"}
	errPinned  = &hivebeat.Refusal{Reason: hivebeat.RefusedForeign, Key: "worker", Detail: "not the id in the subject"}
	errEnded   = &hivebeat.Refusal{Reason: hivebeat.RefusedStale, Key: "boot", Detail: "apparently sent before its process ended"}
	errFull    = &hivebeat.Refusal{Reason: hivebeat.RefusedFull, Detail: "a hive has at most 10000 workers"}
)

// New returns a registry for the workers of hive. It has no records.
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

// Len returns the number of records, including those of lost and left workers.
func (r *Registry) Len() int { return len(r.workers) }

// Stats returns the counts so far, as they appear in a snapshot.
func (r *Registry) Stats() hivebeat.Stats { return r.stats }

// Reasons returns the number of refused messages by reason; reasons without any are
// left out.
func (r *Registry) Reasons() map[hivebeat.Reason]uint64 {
	m := make(map[hivebeat.Reason]uint64, len(r.reasons))
	maps.Copy(m, r.reasons)
	return m
}

// Lost returns how many workers were found lost, by cause.
func (r *Registry) Lost() map[hivebeat.Cause]uint64 { return maps.Clone(r.lost) }

// Receive takes the bytes of one message. Most messages repeat the previous one of
// their worker except for the numbers at the end, and then only these numbers are read.
// pinned is the worker id from the subject, or empty. The facts of a record change only
// if the error is nil; pass the error to Refuse.
func (r *Registry) Receive(now time.Time, b []byte, pinned string) (Heard, error) {
	if w := r.workers[string(wire.PeekWorker(b))]; w != nil && (pinned == "" || pinned == w.id) && w.memo.Parse(b, &r.tail) {
		if w.spent.before(w.facts.Inc, r.tail.Boot, w.facts.NS) {
			return Heard{}, errEnded
		}
		step, err := r.judge(now, w, w.facts.Inc, &r.tail, w.facts.Every, false)
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

// Hear takes a beat that was parsed, and thereby validated, as Receive does.
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
		if k := r.expected[string(v.Worker)]; k != nil && k.inc > v.Inc {
			if err := k.lower(v.Inc, v.Seq, now.Before(k.until)); err != nil {
				return Heard{}, err
			}
		}
		if w = r.back(v); w == nil {
			return Heard{}, errStale
		}
	}
	// The last beat of an incarnation is true however late it arrives.
	final := len(v.Exit) > 0 || hivebeat.State(v.State).Goodbye()
	if w.spent.Inc == v.Inc && !final && w.spent.before(v.Inc, v.Boot, string(v.NS)) {
		return Heard{}, errEnded
	}
	if known && v.Inc != w.facts.Inc {
		w.hearBeside(v)
	}
	step, err := r.judge(now, w, v.Inc, &v.Volatile, hivebeat.Millis(v.Every), final)
	if err != nil {
		return step.heard(), err
	}
	h := Heard{Facts: differ(&w.facts, &v.FactsView)}
	w.memo.Forget() // it belongs to the previous facts
	v.FactsView.Update(&w.facts)
	w.progress.limit(w.facts.Labels)
	h = r.take(now, w, h, step)
	r.watch(now, w)
	return h, nil
}

// judge classifies a beat of w with these numbers, which promises the next one within
// every. final says that it is the last one of its incarnation. judge returns an error if
// the beat is refused.
func (r *Registry) judge(now time.Time, w *worker, inc uint64, v *wire.Volatile, every hivebeat.Millis, final bool) (beatStep, error) {
	seq := v.Seq
	if w.live == hivebeat.Alive {
		if refusal := w.lineage.Implausible(now, inc, seq); refusal != nil {
			return beatStep{}, refusal
		}
	}
	before := w.lineage.Seq()
	b := beatStep{state: w.facts.State, age: now.Sub(w.heard), sent: w.facts.Sent, work: workOf(&w.facts), meant: w.facts.State == hivebeat.Stopped && w.facts.Reason != ""}
	if w.early {
		b.sent = 0 // nothing shows how long the previous beat was in transit
	}
	b.outcome = w.lineage.Hear(inc, seq, w.live == hivebeat.Alive)
	if b.outcome == liveness.Stale {
		gone := (w.live == hivebeat.Left || w.live == hivebeat.Lost) && (r.doubt.IsZero() || !r.doubt.Before(w.since))
		b.outcome = w.lineage.Revive(message(now, inc, v), gone, w.began, verdict.LostAfter(w.facts.Every.Duration(), w.facts.Quiet.Duration()))
	}
	if (b.outcome == liveness.Stale || b.outcome == liveness.Older) && r.doubt.IsZero() {
		b.outcome = w.lineage.Insists(message(now, inc, v), every.Duration()/2, w.lineage.Seq() != w.learned, b.outcome)
	}
	if b.outcome == liveness.Back {
		r.conflict(now, w, inc, seq)
	}
	if b.outcome.Begins() {
		w.began, w.rival, w.beside = now, rival{}, nil
	} else if b.outcome == liveness.Next && w.spent.Inc == inc && !w.spent.proved && !final {
		w.spent.proved = true // this beat was sent after that end
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

// take updates the record after the facts of an accepted beat were taken over.
func (r *Registry) take(now time.Time, w *worker, h Heard, step beatStep) Heard {
	h.Worker = w.id
	w.heard = r.heardAt(now, w)
	w.early = w.heard.Before(now)
	r.stats.Beats++
	r.link(w, step.outcome.Begins())
	n, live := w.n, w.live
	r.transit(now, w, step)
	r.advance(now, w, step)
	w.pace.hear(now, &w.facts, step)
	h.Urgent = w.n != n || w.live != live
	if len(r.expected) > 0 {
		delete(r.expected, w.id)
	}
	r.roll.heard(w)
	return h
}

// heardAt returns when a beat of w that is read at now counts as heard.
func (r *Registry) heardAt(now time.Time, w *worker) time.Time {
	switch {
	case r.doubt.IsZero():
		return now
	case w.heard.After(r.doubt):
		return w.heard
	}
	return r.doubt
}

// heard returns the result of a refused beat.
func (b beatStep) heard() Heard { return Heard{Urgent: b.outcome == liveness.Conflict} }

// Refuse counts a refused message.
func (r *Registry) Refuse(err error) {
	reason := hivebeat.ReasonOf(err)
	if reason != "" {
		if r.reasons == nil { // allocated late: a queen has a registry for each lost hive
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

// differ reports whether the facts in v differ from f, apart from those that change
// with every beat.
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

// back returns the record for the sender of v, which has none. That is its previous
// record if it was removed and this is the same incarnation. It is nil if such a beat
// is stale.
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

// depart removes the record of a worker that is lost or left, and remembers its
// incarnation.
func (r *Registry) depart(now time.Time, w *worker) {
	r.remove(now, w)
	f := &w.facts
	w.facts = hivebeat.Facts{Inc: f.Inc, Seq: f.Seq, Every: f.Every, State: f.State, Done: f.Done}
	w.memo, w.tr = wire.BeatMemo{}, nil
	r.departed[w.id].last = w
}

// remove removes the record of a worker, without a transition.
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
		if r.departed[d.id] == d { // otherwise it came back and departed again later
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

// add returns a + b, limited to the maximum that the wire can carry.
func add(a, b uint64) uint64 {
	if b > hivebeat.MaxInt-a {
		return hivebeat.MaxInt
	}
	return a + b
}
