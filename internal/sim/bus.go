package sim

import (
	"math/rand/v2"
	"time"

	"github.com/beatfabric/hivebeat/bus"
)

// topic is the kind of a message. The hive field names its hive.
type topic uint8

const (
	topicBeat      topic = iota + 1 // worker → its hive
	topicCall                       // roll call: hive or queen → workers of a hive
	topicSnapshot                   // hive → queens
	topicHivesCall                  // roll call: queen → all hives
	topicHiveCall                   // roll call: queen → one hive
	topicToken                      // an observer → itself
)

// message is one publish on its way.
type message struct {
	topic     topic
	hive      string
	seq, page uint64
	payload   []byte
	spread    time.Duration // of a roll call: the time to spread answers over
	back      func()        // of a token: called when it is back at its observer
	// Fields of a beat or a snapshot that the checks need.
	conn         string
	every, quiet time.Duration
	work         work

	from *proc
	sent time.Duration
}

// network is the current behaviour of the bus. Every message travels in two steps: from its
// sender to the server, where it may be delayed, duplicated and overtaken, and from there to
// each receiver, in order, where it may be lost.
type network struct {
	Net
	rng   *rand.Rand
	flows map[flow]int // losses in a row
}

type flow struct{ from, to *proc }

// emit sends m, and reports whether the sender believes that it was sent.
func (p *proc) emit(m *message) bool {
	m.from, m.sent = p, p.w.now
	return p.through(func() { p.w.uplink(p, m) })
}

func (w *world) uplink(p *proc, m *message) {
	n := &w.net
	w.stats.Messages++
	at := w.now + n.Delay.D() + between(n.rng, 0, n.Jitter.D())
	if n.Reorder == 0 || n.rng.Float64() >= n.Reorder {
		at = max(at, p.lastUp)
		p.lastUp = at
	}
	if w.plan.Late > 0 && w.now < w.ending() && n.rng.IntN(5) == 0 {
		at += between(n.rng, 0, w.plan.Late.D())
	}
	p.flushed = max(p.flushed, at)
	w.at(at, func() { w.route(m, false) })
	if n.Dup > 0 && n.rng.Float64() < n.Dup {
		late := between(n.rng, 0, time.Second)
		if n.rng.IntN(4) == 0 {
			late = between(n.rng, 0, n.Replay.D())
		}
		w.at(at+late, func() { w.route(m, true) })
	}
}

// route delivers a message from the server to its subscribers.
func (w *world) route(m *message, again bool) {
	if m.topic == topicToken {
		w.downlink(m.from, m, again)
	}
	for _, h := range w.hives {
		if m.topic == topicHivesCall || (m.topic == topicHiveCall || m.topic == topicBeat) && h.id == m.hive {
			w.downlink(&h.proc, m, again)
		}
	}
	for _, q := range w.queens {
		if m.topic == topicSnapshot || m.topic == topicBeat && q.listens[m.hive] {
			w.downlink(&q.proc, m, again)
		}
	}
	for _, k := range w.workers {
		if m.topic == topicCall && k.hive == m.hive {
			w.downlink(&k.proc, m, again)
		}
	}
}

func (w *world) downlink(to *proc, m *message, again bool) {
	if !to.alive() || to.noticed {
		return
	}
	n := &w.net
	if n.Loss > 0 && m.topic != topicToken {
		f := flow{m.from, to}
		if n.rng.Float64() < n.Loss && (n.LossRun == 0 || n.flows[f] < n.LossRun) {
			n.flows[f]++
			w.trace(to.name, "a message of %s is lost: %d/%d", m.from.name, m.from.inc, m.seq)
			return
		}
		if !again { // a duplicate does not end a run of losses
			n.flows[f] = 0
		}
	}
	at := max(w.now+between(n.rng, 0, time.Millisecond), to.lastDown)
	to.lastDown = at
	w.at(at, func() { to.arrive(m) })
}

// sender stands for the bus.Pulse of a worker or a hive: the real bus.Schedule, with a
// simulated timer.
type sender struct {
	p     *proc
	sched *bus.Schedule
	send  func() bool
	timer uint64
}

// newSender returns a sender that sends at once, and then keeps the promise of p.
func newSender(p *proc, rollGap time.Duration, send func() bool) *sender {
	s := &sender{p: p, sched: bus.NewSchedule(p.w.time(), p.every, rollGap, p.rng.Float64), send: send}
	s.rearm()
	return s
}

// want calls what to request a message, if so is true.
func (s *sender) want(so bool, what func(*bus.Schedule, time.Time)) {
	if so {
		what(s.sched, s.p.w.time())
		s.rearm()
	}
}

func (s *sender) rearm() {
	at, _ := s.sched.Next()
	s.p.setTimer(&s.timer, since(at), func() {
		now := s.p.w.time()
		if at, _ := s.sched.Next(); !at.After(now) {
			s.sched.Begin(now)
			if s.send() {
				s.sched.Sent()
			} else {
				s.sched.Failed(now)
			}
		}
		s.rearm()
	})
}

// reply answers a roll call.
func (s *sender) reply(spread time.Duration) {
	s.want(true, func(sched *bus.Schedule, now time.Time) { sched.Call(now, spread) })
}
