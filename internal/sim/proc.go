package sim

import (
	"math/rand/v2"
	"slices"
	"time"

	"github.com/beatfabric/hivebeat/internal/liveness"
)

// Behaviour of the NATS clients of this project.
const (
	pingLimit    = 30 * time.Second // a dead connection is noticed within this: 10 s × (2 + 1)
	reconnectMin = 50 * time.Millisecond
	reconnectMax = 2500 * time.Millisecond
)

// trouble is a period when a process could not work as it should.
type trouble struct {
	from, to time.Duration // to is negative while it lasts
	pause    bool          // the process was stopped; otherwise its connection was cut
	noticed  time.Duration // of a connection: when the process noticed; negative until then
}

func (t *trouble) end(now time.Duration) time.Duration {
	if t.to < 0 {
		return now
	}
	return t.to
}

// proc is the common part of all processes: an identity, a connection, and the troubles it
// has had.
type proc struct {
	life
	w        *world
	slot     *slot
	name     string        // of its slot
	every    time.Duration // its promise; a queen gives none
	rng      *rand.Rand
	self     actor
	observes *observer // itself, if its core judges other processes
	born     time.Duration
	died     time.Duration // negative while it lives
	byBye    bool          // it said goodbye

	pauses int
	timers []func()      // that fired while it was paused
	inbox  []func()      // reads the messages that arrived while it was paused
	floor  time.Duration // when the next message is read, at the earliest

	reading *message // the message that is being processed

	pid     uint64 // 0: no hive can watch it
	conn    *connection
	rw      time.Duration // reconnect wait
	flushed time.Duration // when everything it has sent is at the server

	cuts    int
	hold    bool // messages sent during a cut wait in the connection
	noticed bool
	link    uint64 // the timer of the next event of its connection
	outHeld []func()
	inHeld  []func()

	drop  int    // number of next messages to drop, because it is too slow
	drops uint64 // number of dropped messages, as the client library reports

	lastUp, lastDown time.Duration // when the last message on its way arrives
	slow             time.Duration // the longest time that one of its snapshots took to an observer
	troubles         []*trouble    // in the order of their starts
}

// init starts the life of p in s.
func (p *proc) init(w *world, s *slot) {
	p.w, p.slot, p.self, p.name, p.ident = w, s, s.cur, s.name, s.ident
	p.born, p.died = w.now, -1
	p.rng = w.stream(s.name + "@" + w.now.String())
	p.inc = uint64(p.wall().UnixMicro())
	w.lives[p.life] = p
	w.trace(p.name, "starts as %d", p.inc)
	p.connect()
	if w.serverGone > 0 { // it starts without a connection, and gets one when a server is there
		p.cuts, p.noticed = w.serverGone, true
		p.suffers(false).noticed = w.now
	}
}

func (p *proc) base() *proc { return p }

func (p *proc) alive() bool  { return p.died < 0 }
func (p *proc) paused() bool { return p.pauses > 0 }

// up reports whether the process believes that it is connected.
func (p *proc) up() bool { return p.alive() && !p.noticed }

// wall is the time on the wall clock of its machine.
func (p *proc) wall() time.Time { return p.w.time().Add(p.slot.machine().wall) }

// boot is the time on the boot clock of its machine. All machines started with the run.
func (p *proc) boot() uint64 { return uint64(p.w.now.Milliseconds()) }

// after schedules f after d, unless the process is dead by that time. While the process is
// paused, f waits.
func (p *proc) after(d time.Duration, f func()) { p.when(p.w.now+d, f) }

func (p *proc) when(at time.Duration, f func()) {
	p.w.at(at, func() { p.unlessPaused(f, &p.timers) })
}

// unlessPaused calls f if the process is alive. While the process is paused, f is added to
// waiting.
func (p *proc) unlessPaused(f func(), waiting *[]func()) {
	switch {
	case !p.alive():
	case p.paused():
		*waiting = append(*waiting, f)
	default:
		f()
	}
}

// setTimer schedules f, unless the timer is set again before that time. The value of a timer
// is the number of times that it was set.
func (p *proc) setTimer(timer *uint64, at time.Duration, f func()) {
	*timer++
	set := *timer
	p.when(at, func() {
		if *timer == set {
			f()
		}
	})
}

// suspend stops the process, like SIGSTOP.
func (p *proc) suspend() {
	if p.pauses++; p.pauses == 1 {
		p.suffers(true)
		p.w.trace(p.name, "paused")
	}
}

// resume continues the process. Timers that were due fire at once, and messages in its
// socket are read a little later; both orders occur.
func (p *proc) resume() {
	if p.pauses--; p.pauses > 0 || !p.alive() {
		return
	}
	p.lasting(true).to = p.w.now
	p.w.trace(p.name, "resumes, with %d messages and %d timers waiting", len(p.inbox), len(p.timers))
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

// suffers records and returns a trouble that starts now.
func (p *proc) suffers(pause bool) *trouble {
	t := &trouble{from: p.w.now, to: -1, pause: pause, noticed: -1}
	p.troubles = append(p.troubles, t)
	return t
}

// lasting returns the current pause or, if pause is false, the current cut. It may be nil.
func (p *proc) lasting(pause bool) *trouble {
	for _, t := range p.troubles {
		if t.pause == pause && t.to < 0 {
			return t
		}
	}
	return nil
}

// kill ends the process, which is alive, without a goodbye. The kernel of its machine and
// the server report it.
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

// quit ends the process in order, with a goodbye.
func (p *proc) quit() {
	if !p.paused() {
		p.byBye = p.self.sayBye()
		p.w.trace(p.name, "says goodbye")
		p.kill()
	}
}

// kick makes the server close the connection. The client reconnects by itself.
func (p *proc) kick() {
	if !p.alive() || p.paused() || p.cuts > 0 || p.noticed {
		return
	}
	p.cut(false, 0)
	p.w.at(p.w.now+time.Millisecond, p.heal)
}

// cut cuts the connection of the process, which is alive. If hold is set, messages wait
// until the connection is back, as in a half-open TCP connection; otherwise they are lost.
// The process notices after notice, if the connection is not back by that time.
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

// notice reports to the process that its connection is gone, if it still is.
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
			p.w.trace(p.name, "connection restored, %d out and %d in arrive late", len(p.outHeld), len(p.inHeld))
			p.lasting(false).to = p.w.now
		}
		held := slices.Concat(p.outHeld, p.inHeld) // what a dead process wrote earlier is still on its way
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

// arrive delivers a message to the socket of the process.
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

// hand makes the process read a message from its socket, in order.
func (p *proc) hand(read func()) {
	if p.floor > p.w.now {
		p.w.at(p.floor, func() { p.unlessPaused(read, &p.inbox) })
	} else {
		p.unlessPaused(read, &p.inbox)
	}
}

// through calls f at the other end of the connection: at once, when the connection is back,
// or not at all. It reports whether the process believes that f is called.
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

// blind returns how much of the time from a to b the process was stopped for long enough to
// notice, or knew that it was cut off. It must not count that time as silence of others.
func (p *proc) blind(a, b time.Duration) (d time.Duration) {
	counted := a // troubles are in the order of their starts, and may overlap
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

// bothered reports whether the process had any trouble from a to b. Pauses count only if
// pauses is set.
func (p *proc) bothered(a, b time.Duration, pauses bool) bool {
	for _, t := range p.troubles {
		if (pauses || !t.pause) && t.from <= b && t.end(b) >= a {
			return true
		}
	}
	return false
}
