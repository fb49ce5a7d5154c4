package sim

import (
	"math/rand/v2"
	"slices"
	"time"

	"github.com/beatfabric/hivebeat/internal/liveness"
)

// How NATS clients of this project behave.
const (
	pingLimit    = 30 * time.Second // a dead connection is noticed within this: 10 s × (2 + 1)
	reconnectMin = 50 * time.Millisecond
	reconnectMax = 2500 * time.Millisecond
)

// trouble is a time in which a process could not work as it should.
type trouble struct {
	from, to time.Duration // to is negative while it lasts
	pause    bool          // the process was stopped; else it is about its connection
	noticed  time.Duration // of a connection: when the process noticed; negative while it did not
}

func (t *trouble) end(now time.Duration) time.Duration {
	if t.to < 0 {
		return now
	}
	return t.to
}

// proc is what all processes have: a life, a connection, and the bad luck of being
// paused.
type proc struct {
	life
	w        *world
	slot     *slot
	name     string        // of its slot
	every    time.Duration // its promise; a queen gives none
	rng      *rand.Rand
	self     actor
	observes *observer // itself, if its core judges others
	born     time.Duration
	died     time.Duration // negative while it lives
	byBye    bool          // it left in order

	pauses int
	timers []func()      // that came due while it was paused
	inbox  []func()      // what reads the messages that came in meanwhile
	floor  time.Duration // when the next message is read at the earliest

	reading *message // at hand

	pid     uint64 // 0: no hive can watch it
	conn    *connection
	rw      time.Duration // reconnect wait
	flushed time.Duration // when all that it sent is at the server

	cuts    int
	hold    bool // what is sent meanwhile waits in the connection
	noticed bool
	link    uint64 // the timer of what its connection does next
	outHeld []func()
	inHeld  []func()

	drop  int    // so many of the next messages are dropped, as it is too slow
	drops uint64 // so many were dropped, as the client library tells

	lastUp, lastDown time.Duration // when the last message on its way arrives
	slow             time.Duration // the longest that a snapshot of it was on its way to an observer
	troubles         []*trouble    // in the order they began
}

// init begins the life of p in s.
func (p *proc) init(w *world, s *slot) {
	p.w, p.slot, p.self, p.name, p.ident = w, s, s.cur, s.name, s.ident
	p.born, p.died = w.now, -1
	p.rng = w.stream(s.name + "@" + w.now.String())
	p.inc = uint64(p.wall().UnixMicro())
	w.lives[p.life] = p
	w.trace(p.name, "begins as %d", p.inc)
	p.connect()
	if w.serverGone > 0 { // it begins without a connection, and gets one when there is a server
		p.cuts, p.noticed = w.serverGone, true
		p.suffers(false).noticed = w.now
	}
}

func (p *proc) base() *proc { return p }

func (p *proc) alive() bool  { return p.died < 0 }
func (p *proc) paused() bool { return p.pauses > 0 }

// up reports whether its connection is there, as far as it knows.
func (p *proc) up() bool { return p.alive() && !p.noticed }

// wall is the wall clock of its machine.
func (p *proc) wall() time.Time { return p.w.time().Add(p.slot.machine().wall) }

// boot is the boot clock of its machine: all began with the run.
func (p *proc) boot() uint64 { return uint64(p.w.now.Milliseconds()) }

// after lets f happen after d, unless the process is dead by then. While it is
// paused f waits.
func (p *proc) after(d time.Duration, f func()) { p.when(p.w.now+d, f) }

func (p *proc) when(at time.Duration, f func()) {
	p.w.at(at, func() { p.unlessPaused(f, &p.timers) })
}

// unlessPaused lets f happen, if the process lives. While it is paused f is put to what
// waits.
func (p *proc) unlessPaused(f func(), waiting *[]func()) {
	switch {
	case !p.alive():
	case p.paused():
		*waiting = append(*waiting, f)
	default:
		f()
	}
}

// setTimer lets f happen at that time, unless the timer is set again before. A timer is
// the number of times that it was set.
func (p *proc) setTimer(timer *uint64, at time.Duration, f func()) {
	*timer++
	set := *timer
	p.when(at, func() {
		if *timer == set {
			f()
		}
	})
}

// suspend stops the process, as SIGSTOP does.
func (p *proc) suspend() {
	if p.pauses++; p.pauses == 1 {
		p.suffers(true)
		p.w.trace(p.name, "paused")
	}
}

// resume lets the process go on: timers that came due fire at once, and what waits in
// its socket is read a little later. Both orders happen.
func (p *proc) resume() {
	if p.pauses--; p.pauses > 0 || !p.alive() {
		return
	}
	p.lasting(true).to = p.w.now
	p.w.trace(p.name, "goes on, with %d messages and %d timers waiting", len(p.inbox), len(p.timers))
	timers, inbox := p.timers, p.inbox
	p.timers, p.inbox = nil, nil
	for _, f := range timers {
		p.after(between(p.rng, 0, 10*time.Millisecond), f)
	}
	p.floor = p.w.now + between(p.rng, 0, 15*time.Millisecond)
	for _, read := range inbox {
		p.hand(read)
		p.floor += between(p.rng, 0, time.Millisecond)
	}
}

// suffers notes and returns a trouble that begins now.
func (p *proc) suffers(pause bool) *trouble {
	t := &trouble{from: p.w.now, to: -1, pause: pause, noticed: -1}
	p.troubles = append(p.troubles, t)
	return t
}

// lasting returns the trouble of that kind that lasts, or nil.
func (p *proc) lasting(pause bool) *trouble {
	for _, t := range p.troubles {
		if t.pause == pause && t.to < 0 {
			return t
		}
	}
	return nil
}

// kill ends the process, which lives, without a word. The kernel of its machine tells of
// that, and so does the server.
func (p *proc) kill() {
	w := p.w
	p.died, p.slot.cur = w.now, nil
	for _, h := range w.hives {
		if _, ok := h.watching[p.pid]; ok && h.slot.machine() == p.slot.machine() {
			h.sees(p, p.pid)
			h.checkExitIsTold(p)
		}
	}
	switch {
	case p.noticed:
	case p.cuts > 0:
		w.stale(p)
	default:
		w.closes(p.conn, "Client Closed", true)
	}
	w.hives = slices.DeleteFunc(w.hives, func(h *hive) bool { return &h.proc == p })
	w.workers = slices.DeleteFunc(w.workers, func(k *worker) bool { return &k.proc == p })
	w.queens = slices.DeleteFunc(w.queens, func(q *queen) bool { return &q.proc == p })
	w.trace(p.name, "dies")
}

// quit ends the process in order: it says goodbye.
func (p *proc) quit() {
	if !p.paused() {
		p.byBye = p.self.sayBye()
		p.w.trace(p.name, "says goodbye")
		p.kill()
	}
}

// kick lets the server close the connection, which comes back by itself.
func (p *proc) kick() {
	if !p.alive() || p.paused() || p.cuts > 0 || p.noticed {
		return
	}
	p.cut(false, 0)
	p.w.at(p.w.now+time.Millisecond, p.heal)
}

// cut takes the connection of the process, which lives, away. Where it holds, what is
// sent waits until it is back, as in a half-open TCP connection; else it is gone. The
// process notices after notice, if it is not back by then.
func (p *proc) cut(hold bool, notice time.Duration) {
	if p.cuts++; p.cuts > 1 {
		return
	}
	p.hold = hold
	if p.noticed { // it was about to reconnect
		p.link++
		return
	}
	p.suffers(false)
	if hold || notice > 0 || p.paused() || p.w.serverGone > 0 {
		p.w.stale(p)
	} else {
		p.w.closes(p.conn, "Client Closed", true)
	}
	p.w.trace(p.name, "connection cut, hold %t, to be noticed in %v", hold, notice)
	p.setTimer(&p.link, p.w.now+min(notice, pingLimit), p.notice)
}

// notice tells the process that its connection is gone, if it still is.
func (p *proc) notice() {
	if p.cuts == 0 || p.noticed {
		return
	}
	p.noticed, p.outHeld, p.inHeld = true, nil, nil
	p.lasting(false).noticed = p.w.now
	p.w.trace(p.name, "disconnected")
	p.self.linkChanged()
}

// heal ends one cut.
func (p *proc) heal() {
	if p.cuts--; p.cuts > 0 {
		return
	}
	if !p.alive() || !p.noticed {
		if p.alive() {
			p.w.trace(p.name, "connection whole again, %d out and %d in come late", len(p.outHeld), len(p.inHeld))
			p.lasting(false).to = p.w.now
		}
		held := slices.Concat(p.outHeld, p.inHeld) // what a dead process wrote before is under way still
		p.outHeld, p.inHeld = nil, nil
		for _, f := range held {
			f()
		}
		return
	}
	wait := reconnectMax
	if p.rw > 0 && p.rw <= 500*time.Millisecond {
		wait = 600 * time.Millisecond
	}
	p.setTimer(&p.link, p.w.now+between(p.rng, reconnectMin, wait), func() {
		if p.cuts > 0 {
			return
		}
		p.noticed = false
		p.connect()
		p.lasting(false).to = p.w.now
		p.w.trace(p.name, "connected")
		p.self.linkChanged()
	})
}

// arrive brings a message to the socket of the process.
func (p *proc) arrive(m *message) {
	switch {
	case !p.alive() || p.noticed:
	case p.cuts > 0:
		if p.hold {
			p.inHeld = append(p.inHeld, func() { p.arrive(m) })
		}
	case p.drop > 0 && m.topic != topicToken:
		p.drop--
		p.drops++
		p.suffers(false).to = p.w.now
	default:
		if p.observes != nil && (m.topic == topicBeat || m.topic == topicSnapshot) {
			p.observes.arrived(m)
		}
		p.hand(func() {
			p.reading = m
			p.self.handle(m)
			p.reading = nil
		})
	}
}

// hand has the process read a message from its socket, in order.
func (p *proc) hand(read func()) {
	if p.floor > p.w.now {
		p.w.at(p.floor, func() { p.unlessPaused(read, &p.inbox) })
	} else {
		p.unlessPaused(read, &p.inbox)
	}
}

// through lets f happen at the other end of the connection: at once, or when the
// connection is whole again, or not at all. It reports whether the process believes that
// it does.
func (p *proc) through(f func()) bool {
	switch {
	case !p.up():
		return false
	case p.cuts == 0:
		f()
	case p.hold:
		p.outHeld = append(p.outHeld, f)
	}
	return true
}

// blind returns for how long, from a to b, the process was stopped, if it was for so long
// that it sees that, or knew that it was cut off: it must not hold that time against
// others.
func (p *proc) blind(a, b time.Duration) (d time.Duration) {
	counted := a // troubles are in order of their beginnings, and may overlap
	for _, t := range p.troubles {
		if t.pause && t.end(b)-t.from <= liveness.MaxPause || !t.pause && t.noticed < 0 {
			continue
		}
		from, to := max(counted, t.from), min(b, t.end(b))
		if to > from {
			d += to - from
			counted = to
		}
	}
	return d
}

// bothered reports whether anything was wrong with the process from a to b, or
// with its connection.
func (p *proc) bothered(a, b time.Duration, pauses bool) bool {
	for _, t := range p.troubles {
		if (pauses || !t.pause) && t.from <= b && t.end(b) >= a {
			return true
		}
	}
	return false
}
