package detector

import (
	"fmt"
	"time"

	"github.com/beatfabric/hivebeat"
	"github.com/beatfabric/hivebeat/internal/bootid"
)

// Process is the process of one incarnation of a worker, as its beats name it.
type Process struct {
	Worker   string
	Inc, PID uint64
}

// Watch asks the owner to watch a process, or to stop watching it.
type Watch struct {
	Process
	Known time.Time // when its first beat came; a process that began later is another one
	Stop  bool
}

// Exit reports that a process has ended.
type Exit struct {
	Process
	At     time.Time // when the exit was noticed
	Boot   uint64    // At by the machine's boot clock, in ms; 0: there is none
	Reused bool      // another process has its id by now
	OOM    bool      // the kernel killed it for want of memory
}

// end is a reported end of a process. Its incarnation has ended too, unless a later
// message proves that the worker lives on in another process.
type end struct {
	Process
	boot   uint64 // as in Exit
	ns     string // pid namespace of the process; boot is by the clock of its machine
	proved bool   // the worker lives on
}

// before reports whether a message of incarnation inc, from a process in ns, was sent
// before this end, however long it was in flight. Where the clocks cannot decide, it
// returns true.
func (e *end) before(inc, boot uint64, ns string) bool {
	return e.Inc == inc && inc != 0 && !e.proved && (e.boot == 0 || boot <= e.boot || !bootid.Same(ns, e.ns))
}

// WatchExits makes the registry ask, by TakeWatches, for the processes of workers in
// the pid namespace ns. It leaves out the process self, whose end could not be
// reported. Call it before the first beat; an empty ns asks for none.
func (r *Registry) WatchExits(ns string, self uint64) { r.ns, r.self = ns, self }

// TakeWatches returns the processes to watch, or to stop watching, since the last call,
// in that order.
func (r *Registry) TakeWatches() []Watch {
	list := r.watches
	r.watches = nil
	return list
}

// watch asks for the process that the last beat of w names, from the first beat of its
// incarnation on.
func (r *Registry) watch(now time.Time, w *worker) {
	p := Process{Worker: w.id, Inc: w.facts.Inc, PID: w.facts.PID}
	if r.ns == "" || w.facts.NS != r.ns || p.PID == r.self || p == w.spent.Process || w.live == hivebeat.Left {
		p.PID = 0
	}
	if p.PID == w.process.PID && (p.PID == 0 || p.Inc == w.process.Inc) {
		return
	}
	r.unwatch(w)
	if p.PID != 0 {
		w.process = p
		r.watches = append(r.watches, Watch{Process: p, Known: now})
	}
}

// Unwatched records that p cannot be watched, so that the lack of an Exit says nothing.
func (r *Registry) Unwatched(p Process) {
	if w := r.workers[p.Worker]; w != nil && w.process == p {
		w.process = Process{}
	}
}

func (r *Registry) unwatch(w *worker) {
	if w.process.PID != 0 {
		r.watches = append(r.watches, Watch{Process: w.process, Stop: true})
		w.process = Process{}
	}
}

// Running is the process of a worker, and since when it is known.
type Running struct {
	Process
	NS    string // pid namespace of the process
	Known time.Time
	// Ended reports that the worker left, or that its process was seen to end.
	Ended bool
}

// Running returns the processes of all workers that run under the same boot as the pid
// namespace ns, by worker id.
func (r *Registry) Running(ns string) (list []Running) {
	for _, w := range r.sorted {
		p := Process{Worker: w.id, Inc: w.facts.Inc, PID: w.facts.PID}
		if p.PID == 0 || !bootid.Same(w.facts.NS, ns) {
			continue
		}
		ended := w.live == hivebeat.Left || p == w.spent.Process && !w.spent.proved
		list = append(list, Running{Process: p, NS: w.facts.NS, Known: w.began, Ended: ended})
	}
	return list
}

// Exit declares a worker lost at once when its process ended, whatever silence the
// worker announced and whether or not NATS is reachable, unless it said goodbye.
// Everything that the process sent before its end must have been received first. Exit
// reports whether the verdict changed: the end of a process that is no longer the
// worker's changes nothing.
func (r *Registry) Exit(now time.Time, e Exit) bool {
	w := r.workers[e.Worker]
	if w == nil || w.process != e.Process || e.PID == 0 {
		return false
	}
	// One report is enough: later beats come from another process.
	w.process = Process{}
	w.ended(end{Process: e.Process, boot: e.Boot, ns: w.facts.NS})
	if w.live == hivebeat.Left || w.live == hivebeat.Lost {
		return false
	}
	w.lostAt = now
	cause, how := hivebeat.CauseExit, "ended"
	if e.OOM {
		cause, how = hivebeat.CauseOOM, "was killed for want of memory"
	}
	s := r.become(now, w, hivebeat.Lost, cause, hivebeat.KindLost, now.Sub(w.heard))
	s.Reason = fmt.Sprintf("process %d %s", e.PID, how)
	if e.Reused {
		s.Reason += ": a process that started later has its id"
	}
	r.sawEnd(w, s, max(0, now.Sub(e.At)))
	r.deadlines.Set(w, now.Add(hivebeat.KeepGone))
	return true
}

// exited handles the last beat of a worker whose process ended, which another process sends
// for it. The worker is lost, unless it is known to have ended already: then the beat only
// adds how it ended.
func (r *Registry) exited(now time.Time, w *worker, b beatStep) {
	r.unwatch(w)
	if known := w.spent.Inc == w.facts.Inc && !w.spent.proved; !known {
		w.ended(end{Process: Process{Worker: w.id, Inc: w.facts.Inc, PID: w.facts.PID}, boot: r.view.Boot, ns: w.facts.NS})
	}
	w.lineage.End()
	r.stats.WireLost = add(r.stats.WireLost, w.lineage.TakeLost())
	if w.live == hivebeat.Lost && !b.outcome.Begins() {
		return
	}
	cause := hivebeat.CauseExit
	if w.facts.Exit == hivebeat.ExitOOM {
		cause = hivebeat.CauseOOM
	}
	w.lostAt = now
	r.become(now, w, hivebeat.Lost, cause, hivebeat.KindLost, b.age)
	r.deadlines.Set(w, now.Add(hivebeat.KeepGone))
}

// ended records the end of the process of w.
func (w *worker) ended(e end) {
	w.spent = e
	w.lineage.Died(true)
}
