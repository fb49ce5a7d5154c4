package sim

import (
	"cmp"
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"slices"
	"time"
)

// epoch is when every run begins. It has no monotonic reading, and so has no time
// within a run.
var epoch = time.Date(2026, time.January, 1, 0, 0, 0, 0, time.UTC)

// world is a run: its time, what is to happen, and all processes.
type world struct {
	plan  *Plan
	now   time.Duration // since epoch
	queue []happening   // the latest first

	slots   []*slot // in order of their names in the plan
	byName  map[string]*slot
	hives   []*hive // that run, in the order they began
	workers []*worker
	queens  []*queen
	store   *store
	net     network
	server  int    // of all NATS servers in a row
	dialed  uint64 // so many connections were made
	ends    *rand.Rand

	// What is so, for the checks to hold against what hives and queens say.
	lives  map[life]*proc         // all processes that ever ran
	pids   map[uint64]*proc       // by the pids of those that hives can watch
	conns  map[string]*connection // of processes, by name
	beats  map[numbered]*message  // as workers sent them
	gaveUp map[life]bool          // workers that a hive gave up for a connection that closed

	serverGone int // so many faults keep the NATS server away

	broken  *Violation
	tracing bool
	history []string
	stats   Stats
}

// slot is a place in the fleet, where processes come and go.
type slot struct {
	name  string
	ident string
	cur   actor         // nil while no process runs here
	make  func() actor  // the next one
	wall  time.Duration // of a machine: how far its wall clock is off
	zone  int           // -1 for a queen, which is in none
	on    *slot         // the machine, of a worker: its hive's slot
	rival *slot         // a place for another process with the same id
}

// machine returns the slot that has the wall clock of s.
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
	linkChanged() // its connection came back, or it notices that it is gone
	sayBye() bool // as the last thing it does; false where it cannot
}

// happening is something that is to happen.
type happening struct {
	at time.Duration
	do func()
}

// at lets something happen at t, or now where that is past. What is to happen at the
// same time happens in the order of these calls.
func (w *world) at(t time.Duration, do func()) {
	t = max(t, w.now)
	// The next one is at the end. Few wait at a time, so that moving them is cheap.
	i, _ := slices.BinarySearchFunc(w.queue, t, func(h happening, t time.Duration) int { return cmp.Compare(t, h.at) })
	w.queue = slices.Insert(w.queue, i, happening{t, do})
}

// time is now, as the monotonic clock of every machine has it.
func (w *world) time() time.Time { return epoch.Add(w.now) }

// since is when t was, in time since the run began.
func since(t time.Time) time.Duration { return t.Sub(epoch) }

// stream returns the random numbers of that name. They follow from the seed alone.
func (w *world) stream(name string) *rand.Rand {
	f := fnv.New64a()
	_, _ = f.Write([]byte(name))
	return rand.New(rand.NewPCG(w.plan.Seed, f.Sum64()))
}

// play lets everything happen until the plan is over, or something is broken.
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

// trace notes what happens, if the run is traced.
func (w *world) trace(who, format string, args ...any) {
	if w.tracing {
		w.history = append(w.history, fmt.Sprintf("%9.3fs  %-7s %s", w.now.Seconds(), who, fmt.Sprintf(format, args...)))
	}
}

// breaks notes that an invariant does not hold. The first one ends the run.
func (w *world) breaks(i Invariant, format string, args ...any) {
	if w.broken == nil && (w.plan.Late == 0 || i == NoResurrection || i == EventsOnce || i == Sound) {
		w.broken = &Violation{Invariant: i, At: Span(w.now), Text: fmt.Sprintf(format, args...)}
		w.trace("CHECK", "%s: %s", i, w.broken.Text)
	}
}

// between draws from lo to hi.
func between(r *rand.Rand, lo, hi time.Duration) time.Duration {
	if hi <= lo {
		return lo
	}
	return lo + time.Duration(r.Int64N(int64(hi-lo)))
}
