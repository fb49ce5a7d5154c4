package sim

import (
	"cmp"
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"slices"
	"time"
)

// epoch is the start of every run. It has no monotonic reading, so times within a run have
// none either.
var epoch = time.Date(2026, time.January, 1, 0, 0, 0, 0, time.UTC)

// world is the state of a run: its time, its queue, and all processes.
type world struct {
	plan  *Plan
	now   time.Duration // since epoch
	queue []happening   // latest first

	slots   []*slot // in the order of their names in the plan
	byName  map[string]*slot
	hives   []*hive // the running ones, in the order of their starts
	workers []*worker
	queens  []*queen
	store   *store
	net     network
	server  int    // counts the NATS servers, one after the other
	dialed  uint64 // number of connections made
	ends    *rand.Rand

	// The true state, which the checks compare with the conclusions of hives and queens.
	lives  map[life]*proc         // all processes that ever ran
	pids   map[uint64]*proc       // by the pids that hives can watch
	conns  map[string]*connection // of processes, by name
	beats  map[numbered]*message  // as workers sent them
	gaveUp map[life]bool          // workers that a hive declared lost for a closed connection

	serverGone int // number of faults that keep the NATS server away

	broken  *Violation
	tracing bool
	history []string
	stats   Stats
}

// slot is a place in the fleet. Processes run in it one after the other.
type slot struct {
	name  string
	ident string
	cur   actor         // nil while no process runs here
	make  func() actor  // the next one
	wall  time.Duration // of a machine: the offset of its wall clock
	zone  int           // -1 for a queen, which has no zone
	on    *slot         // of a worker: the slot of its hive, which is its machine
	rival *slot         // a place for another process with the same id
}

// machine returns the slot whose wall clock s uses.
func (s *slot) machine() *slot {
	if s.on != nil {
		return s.on
	}
	return s
}

// actor is a process of the fabric.
type actor interface {
	base() *proc
	start()
	handle(m *message)
	linkChanged() // its connection is back, or it notices that it is gone
	sayBye() bool // the last call; false if it cannot say goodbye
}

// happening is a step of the simulation.
type happening struct {
	at time.Duration
	do func()
}

// at schedules do for t, or for now if t is past. Steps for the same time run in the order of
// these calls.
func (w *world) at(t time.Duration, do func()) {
	t = max(t, w.now)
	// The next step is at the end. Few steps wait at a time, so moving them is cheap.
	i, _ := slices.BinarySearchFunc(w.queue, t, func(h happening, t time.Duration) int { return cmp.Compare(t, h.at) })
	w.queue = slices.Insert(w.queue, i, happening{t, do})
}

// time is the current time on the monotonic clock of every machine.
func (w *world) time() time.Time { return epoch.Add(w.now) }

// since returns t as the time since the start of the run.
func since(t time.Time) time.Duration { return t.Sub(epoch) }

// stream returns the random numbers of a name. They depend on the seed and the name only.
func (w *world) stream(name string) *rand.Rand {
	f := fnv.New64a()
	_, _ = f.Write([]byte(name))
	return rand.New(rand.NewPCG(w.plan.Seed, f.Sum64()))
}

// play runs the steps until the plan ends or an invariant is broken.
func (w *world) play() {
	end := w.plan.For.D()
	for len(w.queue) > 0 && w.broken == nil {
		last := len(w.queue) - 1
		h := w.queue[last]
		if h.at > end {
			break
		}
		w.queue[last] = happening{} // for the garbage collector
		w.queue = w.queue[:last]
		w.now = h.at
		w.stats.Happenings++
		h.do()
	}
	if w.broken == nil {
		w.now = end
		w.checkEnd()
	}
}

// trace records a line of history, if the run is traced.
func (w *world) trace(who, format string, args ...any) {
	if w.tracing {
		w.history = append(w.history, fmt.Sprintf("%9.3fs  %-7s %s", w.now.Seconds(), who, fmt.Sprintf(format, args...)))
	}
}

// breaks records that an invariant does not hold. The first violation ends the run.
func (w *world) breaks(i Invariant, format string, args ...any) {
	if w.broken == nil && (w.plan.Late == 0 || i == NoResurrection || i == EventsOnce || i == Sound) {
		w.broken = &Violation{Invariant: i, At: Span(w.now), Text: fmt.Sprintf(format, args...)}
		w.trace("CHECK", "%s: %s", i, w.broken.Text)
	}
}

// between draws a duration from lo to below hi.
func between(r *rand.Rand, lo, hi time.Duration) time.Duration {
	if hi <= lo {
		return lo
	}
	return lo + time.Duration(r.Int64N(int64(hi-lo)))
}
