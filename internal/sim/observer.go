package sim

import (
	"time"

	"github.com/beatfabric/hivebeat"
	"github.com/beatfabric/hivebeat/internal/core"
	"github.com/beatfabric/hivebeat/internal/link"
)

// observer is what hives and queens have in common: a process whose core judges
// others, and what the truth knows of what it could hear. What package link is to such
// a core on NATS, this file is under a virtual clock.
type observer struct {
	proc
	judge judge               // its core
	obey  func()              // does what the core asks for
	doubt func() bool         // whether it doubts what it hears, and forgets closings for that
	knows func(l life) uint64 // the seq of the newest message that the core knows of
	alarm time.Duration       // when the core is to be woken; negative: never
	timer uint64              // of that

	// How long it may ask others before it judges, and how long its brake may hold a
	// verdict back. A hive does neither.
	asking, braking time.Duration

	// What came to its socket: the newest message of each life, when the first one
	// came, when each came first, and the highest seq of which a page came.
	last  map[life]arrival
	first map[life]time.Duration
	seqs  map[numbered]time.Duration
	begun map[life]uint64
	// linked is the newest message that names the connection of a life, and that the
	// core has not heard of from elsewhere before.
	linked map[life]arrival
	told   map[string]time.Duration // when it was told more of a hive than it had heard

	closings  []heardClosing
	forgotten int // so many of them, the first ones, it forgot: it was cut off, or doubted what it hears
	deaf      int // so many faults keep it from hearing of closings

	known sightings // what the core said last, for the checks
}

// judge is the core of a hive or of a queen.
type judge interface {
	link.Core
	Tick(now time.Time, dropped uint64)
}

// observe makes o hear for its core, which obey is about.
func (o *observer) observe(j judge, obey func()) {
	o.observes, o.judge, o.obey, o.alarm = o, j, obey, -1
	o.last, o.linked = make(map[life]arrival), make(map[life]arrival)
	o.first, o.seqs = make(map[life]time.Duration), make(map[numbered]time.Duration)
	o.begun, o.told = make(map[life]uint64), make(map[string]time.Duration)
}

// drive hands the core an input, and does what it asks for because of that.
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

// carry does what the core asks for by s.
func (o *observer) carry(s core.Signals) {
	if s.Token != 0 {
		o.emit(&message{topic: topicToken, token: s.Token})
	}
	if s.Settle {
		done := false
		settled := func() {
			if !done {
				done = true
				o.drive(o.judge.Settled)
			}
		}
		o.emit(&message{topic: topicSettle, settled: settled})
		o.after(core.SettleWithin, settled)
	}
}

// carried takes what carry sent.
func (o *observer) carried(m *message) {
	switch {
	case m.topic == topicSettle:
		m.settled()
	case m.topic == topicToken && o.w.now-m.sent <= core.TokenWithin:
		o.drive(func(now time.Time) { o.judge.TokenBack(now, m.token, o.drops) })
	}
}

// linkChanged tells the core whether there is a connection.
func (o *observer) linkChanged() {
	if !o.up() {
		o.forget()
	}
	o.drive(func(now time.Time) { o.judge.Connection(now, core.Connection{Up: o.up(), Unnoticed: pingLimit}) })
}

// deafen takes the connection to the system account away.
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

// forget notes that the core forgets which connections closed.
func (o *observer) forget() { o.forgotten = len(o.closings) }

// numbered is one beat, or one page of a snapshot.
type numbered struct {
	life
	seq, page uint64
}

// arrival is a message that came to the socket of an observer.
type arrival struct {
	message
	at      time.Duration
	stuckAt time.Duration // when the first of those came that say the same of its work
}

// arrived notes that a message is at the socket.
func (o *observer) arrived(m *message) {
	l, now, page := m.from.life, o.w.now, false
	if key := (numbered{l, m.seq, m.page}); o.seqs[key] == 0 {
		o.seqs[key] = now
		if m.topic == topicSnapshot {
			m.from.slow = max(m.from.slow, now-m.sent)
			page = o.begun[l] == m.seq // one more of the same
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
		return // known from elsewhere, perhaps: it renews nothing
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
