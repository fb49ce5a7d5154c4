package sim

import (
	"math/rand/v2"
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
	pause    bool          // stopped; else its connection
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
	w     *world
	slot  *slot
	name  string
	ident string // what it says it is: of two with one id the same
	inc   uint64
	rng   *rand.Rand
	self  actor
	born  time.Duration
	died  time.Duration // negative while it lives
	byBye bool          // it left in order

	pauses int
	timers []func()   // that came due while it was paused
	inbox  []*message // that came in meanwhile
	floor  time.Duration

	reading *message // at hand

	pid     uint64 // 0: nobody watches it
	conn    connection
	rw      time.Duration // reconnect wait
	flushed time.Duration // when all that it sent is at the server

	cuts    int
	hold    bool // what is sent meanwhile waits in the connection
	noticed bool
	back    uint64 // counts reconnects, so that a late one knows itself
	outHeld []func()
	inHeld  []*message

	drop  int    // so many of the next messages are dropped, as it is too slow
	drops uint64 // so many were: the client library tells

	lastUp, lastDown time.Duration // when the last message on its way arrives
	troubles         []trouble
}

func (p *proc) init(w *world, s *slot, self actor) {
	p.w, p.slot, p.self, p.name, p.ident = w, s, self, s.name, s.ident
	p.born, p.died = w.now, -1
	p.rng = w.stream(s.name + "@" + w.now.String())
	p.connect()
	if w.serverGone > 0 { // it begins without a connection, and gets one when there is a server
		p.cuts, p.noticed = w.serverGone, true
		p.troubles = append(p.troubles, trouble{from: w.now, to: -1, noticed: w.now})
		w.orphans = append(w.orphans, p)
	}
}

func (p *proc) base() *proc { return p }

func (p *proc) alive() bool  { return p.died < 0 }
func (p *proc) paused() bool { return p.pauses > 0 }

// up reports whether its connection is there, as far as it knows.
func (p *proc) up() bool { return p.alive() && !p.noticed }

// machine is the slot whose wall clock it reads.
func (p *proc) machine() *slot {
	if p.slot.on != nil {
		return p.slot.on
	}
	return p.slot
}

// wall is the wall clock.
func (p *proc) wall() time.Time { return p.w.time().Add(p.machine().wall) }

// after lets f happen after d, unless the process is dead by then. While it is
// paused f waits.
func (p *proc) after(d time.Duration, f func()) { p.when(p.w.now+d, f) }

func (p *proc) when(at time.Duration, f func()) {
	p.w.at(at, func() {
		switch {
		case !p.alive():
		case p.paused():
			p.timers = append(p.timers, f)
		default:
			f()
		}
	})
}

// suspend stops the process, as SIGSTOP does.
func (p *proc) suspend() {
	if p.pauses++; p.pauses == 1 {
		p.troubles = append(p.troubles, trouble{from: p.w.now, to: -1, pause: true})
		p.w.trace(p.name, "paused")
	}
}

// resume lets it go on: timers that came due fire at once, and what waits in its
// socket is read a little later. Both orders happen.
func (p *proc) resume() {
	if p.pauses == 0 {
		return
	}
	if p.pauses--; p.pauses > 0 || !p.alive() {
		return
	}
	p.endTrouble(true)
	p.w.trace(p.name, "goes on, with %d messages and %d timers waiting", len(p.inbox), len(p.timers))
	timers, inbox := p.timers, p.inbox
	p.timers, p.inbox = nil, nil
	for _, f := range timers {
		p.after(between(p.rng, 0, 10*time.Millisecond), f)
	}
	p.floor = p.w.now + between(p.rng, 0, 15*time.Millisecond)
	for _, m := range inbox {
		p.hand(m)
		p.floor += between(p.rng, 0, time.Millisecond)
	}
}

func (p *proc) endTrouble(pause bool) {
	for i := range p.troubles {
		if t := &p.troubles[i]; t.pause == pause && t.to < 0 {
			t.to = p.w.now
		}
	}
}

// kill ends the process without a word.
func (p *proc) kill() {
	if !p.alive() {
		return
	}
	p.died = p.w.now
	p.slot.cur = nil
	p.w.ended(p)
	p.w.truth.ended(p)
	p.w.trace(p.name, "dies")
}

// cut takes the connection away. Where it holds, what is sent waits until it is
// back, as in a half-open TCP connection; else it is gone. The process notices
// after notice, if it is not back by then.
func (p *proc) cut(hold bool, notice time.Duration) {
	if !p.alive() {
		return
	}
	if p.cuts++; p.cuts > 1 {
		return
	}
	p.hold = hold
	if p.noticed { // it was about to reconnect
		p.back++
		return
	}
	p.troubles = append(p.troubles, trouble{from: p.w.now, to: -1, noticed: -1})
	p.back++
	if hold || notice > 0 || p.paused() || p.w.serverGone > 0 {
		p.w.stale(p)
	} else {
		p.w.closes(p, "Client Closed", true)
	}
	at := p.back
	p.w.trace(p.name, "connection cut, hold %t, to be noticed in %v", hold, notice)
	p.after(min(notice, pingLimit), func() {
		if p.cuts > 0 && p.back == at && !p.noticed {
			p.notice()
		}
	})
}

// notice tells the process that its connection is gone.
func (p *proc) notice() {
	p.noticed = true
	p.outHeld, p.inHeld = nil, nil
	for i := range p.troubles {
		if t := &p.troubles[i]; !t.pause && t.to < 0 {
			t.noticed = p.w.now
		}
	}
	p.w.trace(p.name, "disconnected")
	p.self.offline()
}

// heal gives the connection back.
func (p *proc) heal() {
	if p.cuts == 0 {
		return
	}
	if p.cuts--; p.cuts > 0 || !p.alive() {
		return
	}
	if !p.noticed {
		p.w.trace(p.name, "connection whole again, %d out and %d in come late", len(p.outHeld), len(p.inHeld))
		p.endTrouble(false)
		out, in := p.outHeld, p.inHeld
		p.outHeld, p.inHeld = nil, nil
		for _, f := range out {
			f()
		}
		for _, m := range in {
			p.arrive(m)
		}
		return
	}
	p.back++
	at := p.back
	wait := reconnectMax
	if p.rw > 0 && p.rw <= 500*time.Millisecond {
		wait = 600 * time.Millisecond
	}
	p.after(between(p.rng, reconnectMin, wait), func() {
		if p.back != at || p.cuts > 0 {
			return
		}
		p.noticed = false
		p.connect()
		p.endTrouble(false)
		p.w.trace(p.name, "connected")
		p.self.online()
	})
}

// arrive is a message at the process's socket.
func (p *proc) arrive(m *message) {
	switch {
	case !p.alive() || p.noticed:
	case p.cuts > 0:
		if p.hold {
			p.inHeld = append(p.inHeld, m)
		}
	case p.drop > 0 && m.topic != topicToken && m.topic != topicSettle:
		p.drop--
		p.drops++
		p.troubles = append(p.troubles, trouble{from: p.w.now, to: p.w.now, noticed: -1})
	default:
		p.w.truth.arrived(p, m)
		if p.paused() {
			p.inbox = append(p.inbox, m)
			return
		}
		p.hand(m)
	}
}

// hand gives a message from the socket to the process, in order.
func (p *proc) hand(m *message) {
	if p.floor <= p.w.now {
		p.deliver(m)
		return
	}
	p.w.at(p.floor, func() {
		switch {
		case !p.alive():
		case p.paused():
			p.inbox = append(p.inbox, m)
		default:
			p.deliver(m)
		}
	})
}

func (p *proc) deliver(m *message) {
	p.reading = m
	p.self.handle(m)
	p.reading = nil
}

// blind is for how long, from a to b, the process was stopped for so long that it
// sees it, or knew that it was cut off: what it must not hold against others.
func (p *proc) blind(a, b time.Duration) (d time.Duration) {
	counted := a // troubles are in order of their beginnings, and may overlap
	for i := range p.troubles {
		t := &p.troubles[i]
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

// deaf is for how long nothing can come in any more, noticed or not.
func (p *proc) deaf() time.Duration {
	for i := range p.troubles {
		if t := &p.troubles[i]; !t.pause && t.to < 0 {
			return p.w.now - t.from
		}
	}
	return 0
}

// bothered reports whether anything was wrong with the process from a to b, or
// with its connection.
func (p *proc) bothered(a, b time.Duration, pauses bool) bool {
	for i := range p.troubles {
		t := &p.troubles[i]
		if (pauses || !t.pause) && t.from <= b && t.end(b) >= a {
			return true
		}
	}
	return false
}
