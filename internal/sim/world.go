package sim

import (
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"time"
)

// epoch is when every run begins. It has no monotonic reading, and so has no time
// within a run.
var epoch = time.Date(2026, time.January, 1, 0, 0, 0, 0, time.UTC)

// world is a run: its time, what is to happen, and everybody in it.
type world struct {
	plan  *Plan
	now   time.Duration // since epoch
	queue happenings
	count uint64 // of happenings, which orders those of one time

	slots   []*slot // in order of their names in the plan
	byName  map[string]*slot
	hives   []*hive // that run, in the order they began
	workers []*worker
	queens  []*queen
	store   *store
	net     network
	truth   truth

	pids   map[uint64]*proc
	conns  uint64 // so many connections were made
	server int    // of all NATS servers in a row
	ends   *rand.Rand

	serverGone int     // so many faults keep the NATS server away
	orphans    []*proc // that began meanwhile

	broken  *Violation
	tracing bool
	history []string
	stats   Stats
}

// slot is a place in the fleet: who runs there comes and goes.
type slot struct {
	name  string
	ident string
	cur   actor               // nil while nobody runs
	make  func(s *slot) actor // the next
	wall  time.Duration       // of a machine: how far its wall clock is off
	on    *slot               // the machine, of a worker: its hive's slot
	rival *slot               // a place for another one with the same id
}

// actor is a process of the fabric.
type actor interface {
	base() *proc
	start()
	handle(m *message)
	online()
	offline()
	goodbye() // says goodbye
}

type happening struct {
	at time.Duration
	n  uint64
	do func()
}

// happenings are a heap: container/heap would allocate for each.
type happenings []happening

func (h happenings) before(i, j int) bool {
	return h[i].at < h[j].at || h[i].at == h[j].at && h[i].n < h[j].n
}

func (h *happenings) insert(x happening) {
	list := append(*h, x)
	for i := len(list) - 1; i > 0; {
		up := (i - 1) / 2
		if !list.before(i, up) {
			break
		}
		list[i], list[up] = list[up], list[i]
		i = up
	}
	*h = list
}

func (h *happenings) earliest() happening {
	list := *h
	first, last := list[0], len(list)-1
	list[0], list[last] = list[last], happening{}
	list = list[:last]
	for i := 0; ; {
		least := i
		for _, down := range [2]int{2*i + 1, 2*i + 2} {
			if down < last && list.before(down, least) {
				least = down
			}
		}
		if least == i {
			break
		}
		list[i], list[least] = list[least], list[i]
		i = least
	}
	*h = list
	return first
}

// at lets something happen at t, or now where that is past.
func (w *world) at(t time.Duration, do func()) {
	w.count++
	w.queue.insert(happening{max(t, w.now), w.count, do})
}

// time is now, as the monotonic clock of every machine has it.
func (w *world) time() time.Time { return epoch.Add(w.now) }

// since is when t was, in time since the run began.
func since(t time.Time) time.Duration { return t.Sub(epoch) }

// stream returns random numbers that nobody else draws from.
func (w *world) stream(name string) *rand.Rand {
	f := fnv.New64a()
	_, _ = f.Write([]byte(name))
	return rand.New(rand.NewPCG(w.plan.Seed, f.Sum64()))
}

// play lets everything happen until the plan is over, or something is broken.
func (w *world) play() {
	end := w.plan.For.D()
	for len(w.queue) > 0 && w.broken == nil {
		h := w.queue.earliest()
		if h.at > end {
			break
		}
		w.now = h.at
		w.stats.Happenings++
		h.do()
	}
	if w.broken == nil {
		w.now = end
		w.checkEnd()
	}
}

// trace notes what happens, where somebody wants to know.
func (w *world) trace(who, format string, args ...any) {
	if w.tracing {
		w.history = append(w.history, fmt.Sprintf("%9.3fs  %-7s %s", w.now.Seconds(), who, fmt.Sprintf(format, args...)))
	}
}

// breaks notes that an invariant does not hold. The first one ends the run.
func (w *world) breaks(i Invariant, format string, args ...any) {
	if w.broken == nil {
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
