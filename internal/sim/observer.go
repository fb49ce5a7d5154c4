package sim

import (
	"fmt"
	"time"

	"github.com/beatfabric/hivebeat"
	"github.com/beatfabric/hivebeat/internal/core"
	"github.com/beatfabric/hivebeat/internal/link"
	"github.com/beatfabric/hivebeat/internal/liveness"
)

// observer is the common part of hives and queens: a process whose core judges other
// processes. It does for that core under a virtual clock what package link does on NATS. It
// also records what arrives at its socket, for the checks.
type observer struct {
	proc
	judge judge               // its core
	obey  func()              // carries out what the core asks for
	doubt func() bool         // whether the core doubts its input, and therefore forgets closed connections
	knows func(l life) uint64 // seq of the newest message that the core knows
	alarm time.Duration       // when to wake the core; negative: never
	timer uint64              // of alarm

	// asking is how long the core may ask others before a verdict, and braking how long its
	// brake may hold one. Both are 0 for a hive.
	asking, braking time.Duration

	// What arrived at its socket: the newest message of each process, the time of the first
	// one, the time of each message, and the highest seq with a page that arrived.
	last  map[life]arrival
	first map[life]time.Duration
	seqs  map[numbered]time.Duration
	begun map[life]uint64
	// linked is the newest message that names the connection of a process, among those that
	// the core did not know.
	linked map[life]arrival
	told   map[string]time.Duration // when others reported more of a hive than it had received

	closings  []heardClosing
	forgotten int // the first closings, this many, were forgotten: it was cut off, deaf or in doubt
	deaf      int // number of faults that keep closings from it

	known observations // the last verdicts of the core
}

// judge is the core of a hive or of a queen.
type judge interface {
	link.Core
	Tick(now time.Time, dropped uint64)
}

// observe connects o to its core. obey carries out what the core asks for.
func (o *observer) observe(j judge, obey func()) {
	o.observes, o.judge, o.obey, o.alarm = o, j, obey, -1
	o.last, o.linked = make(map[life]arrival), make(map[life]arrival)
	o.first, o.seqs = make(map[life]time.Duration), make(map[numbered]time.Duration)
	o.begun, o.told = make(map[life]uint64), make(map[string]time.Duration)
}

// drive passes the core an input, and carries out the resulting requests.
func (o *observer) drive(input func(now time.Time)) {
	input(o.w.time())
	o.obey()
}

// wake sets the timer of the core.
func (o *observer) wake(at time.Duration) {
	if at = max(at, o.w.now); at == o.alarm {
		return
	}
	o.alarm = at
	o.setTimer(&o.timer, at, func() {
		o.alarm = -1
		o.drive(func(now time.Time) { o.judge.Tick(now, o.drops) })
	})
}

// carry carries out the signals of the core.
func (o *observer) carry(s core.Signals) {
	if sent := o.w.now; s.Token != 0 {
		o.emit(&message{topic: topicToken, back: func() {
			if o.w.now-sent <= core.TokenWithin {
				o.drive(func(now time.Time) { o.judge.TokenBack(now, s.Token, o.drops) })
			}
		}})
	}
	if s.Settle {
		done := false
		settled := func(by liveness.Path) {
			if !done {
				done = true
				o.drive(func(now time.Time) { o.judge.Settled(now, by) })
			}
		}
		path := liveness.Path{Server: fmt.Sprintf("s%d", o.conn.server), Host: o.slot.machine().name}
		o.emit(&message{topic: topicToken, back: func() { settled(path) }})
		o.after(core.SettleWithin, func() { settled(liveness.Path{}) })
	}
}

// linkChanged reports the state of the connection to the core.
func (o *observer) linkChanged() {
	if !o.up() {
		o.forget()
	}
	o.drive(func(now time.Time) { o.judge.Connection(now, core.Connection{Up: o.up(), Unnoticed: pingLimit}) })
}

// deafen cuts the connection to the system account for d.
func (o *observer) deafen(d Span) {
	tell := func(up bool) {
		o.after(0, func() {
			if !up {
				o.forget()
			}
			o.drive(func(now time.Time) { o.judge.System(now, up) })
		})
	}
	o.deaf++
	tell(false)
	o.w.until(d, func() {
		if o.deaf--; o.deaf == 0 {
			tell(true)
		}
	})
}

// forget records that the core forgets closed connections.
func (o *observer) forget() { o.forgotten = len(o.closings) }

// numbered identifies one beat, or one page of a snapshot.
type numbered struct {
	life
	seq, page uint64
}

// arrival is a message that arrived at the socket of an observer.
type arrival struct {
	message
	at      time.Duration
	stuckAt time.Duration // when the first beat with the same state of its work arrived
}

// arrived records that a message is at the socket.
func (o *observer) arrived(m *message) {
	l, now, page := m.from.life, o.w.now, false
	if key := (numbered{l, m.seq, m.page}); o.seqs[key] == 0 {
		o.seqs[key] = now
		if m.topic == topicSnapshot {
			m.from.slow = max(m.from.slow, now-m.sent)
			page = o.begun[l] == m.seq // another page of the same snapshot
			o.begun[l] = max(o.begun[l], m.seq)
		}
	}
	newer := func(a arrival) bool { return m.seq > a.seq || m.seq == a.seq && page }
	known := o.knows(l)
	if m.conn != "" && m.seq >= known && newer(o.linked[l]) {
		o.linked[l] = arrival{message: *m, at: now}
	}
	a, ok := o.last[l]
	if m.seq < known || m.seq == known && !page || !newer(a) {
		return // possibly known from elsewhere: it renews nothing
	}
	if !ok {
		o.first[l] = now
	}
	stuck := now
	if m.work.busy > 0 && a.work.busy > 0 && m.work.done == a.work.done && m.quiet == 0 && now-a.at < hivebeat.KeepGone {
		stuck = a.stuckAt
	}
	o.last[l] = arrival{*m, now, stuck}
}
