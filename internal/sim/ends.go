package sim

import (
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/beatfabric/hivebeat/bus"
	"github.com/beatfabric/hivebeat/internal/detector"
	"github.com/beatfabric/hivebeat/internal/hivecore"
	"github.com/beatfabric/hivebeat/internal/liveness"
)

// How the ends of processes and connections are seen: by the kernel of the machine,
// and by the server, which tells all who listen to its system account. Both are
// optional in a plan, so that silence is simulated alone too.
const (
	exitSeenMin = 200 * time.Microsecond // a pidfd
	exitSeenMax = 5 * time.Millisecond
)

// connect gives p a connection of its own name.
func (p *proc) connect() {
	p.w.conns++
	p.conn = connection{server: fmt.Sprintf("s%d", p.w.server), id: p.w.conns, since: p.w.now}
	if p.w.plan.HiveClosings {
		p.w.truth.owner[p.conn.String()] = p
	}
}

type connection struct {
	server string
	id     uint64
	since  time.Duration
}

func (c connection) String() string { return fmt.Sprintf("%s/%d", c.server, c.id) }

// closing is what a server tells of a connection that closed.
type closing struct {
	connection
	of       *proc // nil: of a stranger
	reason   string
	evidence bool
	lived    time.Duration
}

// said is that as package bus reads it.
func (c closing) said() liveness.Disconnect {
	d := bus.Disconnect{Reason: c.reason, Lived: c.lived}
	return liveness.Disconnect{Server: c.server, Conn: c.String(), Reason: c.reason, Evidence: c.evidence, Passing: d.Passing()}
}

// closes lets the server tell that the connection of p closed, and for which reason.
// What it tells may be late, overtaken or lost.
func (w *world) closes(p *proc, reason string, evidence bool) {
	if w.plan.Closings == 0 {
		return
	}
	of := p.self.base() // p may be a copy with the connection of before
	c := closing{p.conn, of, reason, evidence, w.now - p.conn.since}
	if evidence {
		w.truth.closed[c.connection.String()] = w.now
	}
	w.trace("server", "connection %s of %s closed: %s", c, p.name, reason)
	w.advise(w.ends, c)
}

// strangers are clients that are nobody's, for as long as a fault says.
func (w *world) strangers(r *rand.Rand, f *Fault) {
	if w.plan.Closings == 0 {
		return
	}
	end := min(w.now+f.For.D(), w.ending())
	for at := w.now; at < end; at += between(r, 0, 2*time.Second/time.Duration(max(1, f.N))) + 1 {
		lived, reason := between(r, time.Millisecond, f.By.D()), "Client Closed"
		if r.IntN(20) == 0 {
			reason = []string{"Authentication Failure", "Read Error", "Protocol Violation"}[r.IntN(3)]
		}
		w.at(at, func() {
			if w.serverGone > 0 {
				return
			}
			w.conns++
			c := connection{server: fmt.Sprintf("s%d", w.server), id: w.conns, since: w.now}
			w.at(w.now+lived, func() {
				if c.server == fmt.Sprintf("s%d", w.server) {
					w.advise(r, closing{c, nil, reason, true, lived})
				}
			})
		})
	}
}

// advise has all who listen to the system account hear of a connection that closed.
func (w *world) advise(r *rand.Rand, c closing) {
	told := func(to *proc, deaf *int, closed func(c closing)) {
		late := between(r, 500*time.Microsecond, 5*time.Millisecond)
		if r.IntN(10) == 0 {
			late = between(r, 0, 3*time.Second)
		}
		if r.Float64() < w.net.Loss {
			return
		}
		w.at(w.now+late, func() {
			if to.cuts == 0 && !to.noticed && *deaf == 0 {
				to.after(0, func() { closed(c) })
			}
		})
	}
	for _, h := range w.hives {
		told(&h.proc, &h.heard.deaf, h.hears)
	}
	if !w.plan.HiveClosings {
		return
	}
	for _, q := range w.queens {
		told(&q.proc, &q.heard.deaf, q.hearsClosed)
	}
}

// stale lets the server find out after a while that nobody answers.
func (w *world) stale(p *proc) {
	c := p.conn
	w.at(w.now+between(w.ends, 10*time.Second, pingLimit), func() {
		if p.conn != c || p.cuts > 0 || !p.alive() { // another one by now, or still nobody
			q := *p
			q.conn = c
			w.closes(&q, "Stale Connection", false)
		}
	})
}

// kick lets the server close the connection of p, which comes back by itself.
func (p *proc) kick() {
	if !p.alive() || p.paused() || p.cuts > 0 || p.noticed {
		return
	}
	p.cut(false, 0)
	p.w.at(p.w.now+time.Millisecond, p.heal)
}

// deafen takes the connection to the system account away from p.
func (p *proc) deafen(d Span) {
	if o, ok := p.self.(observer); ok {
		deafen(o, d)
	}
}

// hears is a connection that closed, as the hive is told.
func (h *hive) hears(c closing) {
	if h.up() {
		h.heard.hear(h.w.now, c, h.w.truth.linkedTo(&h.proc, h.known, c))
		h.w.truth.workerClosed(h, c)
	}
	hearsClosing(h, c)
}

// follow watches processes, as package procwatch does.
func (h *hive) follow(list []detector.Watch) {
	for _, x := range list {
		if x.Stop {
			delete(h.watching, x.PID)
			continue
		}
		h.watching[x.PID] = x.Process
		if p := h.w.pids[x.PID]; p == nil || !p.alive() {
			h.sees(p, x.PID)
		}
	}
}

// sees is the end of a process that is watched: what it said before is heard first.
func (h *hive) sees(p *proc, pid uint64) {
	r := h.w.ends
	said := h.w.now // when its goodbye, which is flushed before it ends, is at the server
	if p != nil && p.byBye {
		said = p.flushed
	}
	h.when(max(h.w.now, said)+between(r, exitSeenMin, exitSeenMax), func() {
		process, ok := h.watching[pid]
		if !ok {
			return
		}
		at, wait := h.w.time(), time.Duration(0)
		if h.up() { // two flushes
			wait = 2*between(r, 500*time.Microsecond, 3*time.Millisecond) + hivecore.LastWordsSettle
			if h.cuts > 0 {
				wait = hivecore.LastWordsWithin
			}
		}
		h.after(wait, func() {
			h.drive(func(now time.Time) { h.core.Exited(now, []detector.Exit{{Process: process, At: at}}) })
		})
	})
}

// ended lets the machine and the server tell of the end of p.
func (w *world) ended(p *proc) {
	if p.pid != 0 {
		for _, h := range w.hives {
			if _, ok := h.watching[p.pid]; ok && h.alive() && h.machine() == p.machine() {
				h.sees(p, p.pid)
				w.truth.exitIsTold(h, p)
			}
		}
	}
	switch {
	case p.noticed:
	case p.cuts > 0:
		w.stale(p)
	default:
		w.closes(p, "Client Closed", true)
	}
}
