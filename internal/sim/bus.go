package sim

import (
	"math/rand/v2"
	"time"
)

// topic is what a message is about; hive says which one.
type topic uint8

const (
	topicBeat      topic = iota + 1 // worker → its hive
	topicCall                       // roll call: hive or queen → workers of a hive
	topicSnapshot                   // hive → queens
	topicHivesCall                  // roll call: queen → all hives
	topicHiveCall                   // roll call: queen → one hive
	topicToken                      // an observer → itself
	topicSettle                     // the same, of a hive about connections that closed
)

// message is one publish on its way to one receiver.
type message struct {
	topic    topic
	hive     string
	worker   string
	inc, seq uint64
	page     uint64
	payload  []byte
	spread   time.Duration
	from     *proc
	token    uint64
	settled  func()
	conn     string
	rw       time.Duration
	every    time.Duration
	quiet    time.Duration
	sent     time.Duration
	work     work
}

// network is how the bus behaves now. Every message takes two ways: from its
// sender to the server, where it may be delayed, doubled and overtaken, and from
// there to each receiver, in order, where it may get lost.
type network struct {
	Net
	rng   *rand.Rand
	flows map[flow]int // losses in a row
}

type flow struct{ from, to *proc }

// emit sends m, and reports whether the sender believes that it was sent.
func (p *proc) emit(m *message) bool {
	w := p.w
	if !p.up() {
		return false
	}
	m.from, m.sent = p, w.now
	if p.cuts > 0 {
		if p.hold {
			p.outHeld = append(p.outHeld, func() { w.uplink(p, m) })
		}
		return true
	}
	w.uplink(p, m)
	return true
}

func (w *world) uplink(p *proc, m *message) {
	n := &w.net
	w.stats.Messages++
	at := w.now + n.delay()
	if n.Reorder == 0 || n.rng.Float64() >= n.Reorder {
		at = max(at, p.lastUp)
		p.lastUp = at
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

func (n *network) delay() time.Duration {
	return n.Delay.D() + between(n.rng, 0, n.Jitter.D())
}

// route brings a message from the server to those who listen.
func (w *world) route(m *message, again bool) {
	switch m.topic {
	case topicBeat:
		for _, h := range w.hives {
			if h.id == m.hive {
				w.downlink(&h.proc, m, again)
			}
		}
		for _, q := range w.queens {
			if q.listens(m.hive) {
				w.downlink(&q.proc, m, again)
			}
		}
	case topicCall:
		for _, k := range w.workers {
			if k.hive == m.hive {
				w.downlink(&k.proc, m, again)
			}
		}
	case topicSnapshot:
		for _, q := range w.queens {
			w.downlink(&q.proc, m, again)
		}
	case topicHivesCall, topicHiveCall:
		for _, h := range w.hives {
			if m.topic == topicHivesCall || h.id == m.hive {
				w.downlink(&h.proc, m, again)
			}
		}
	case topicToken, topicSettle:
		w.downlink(m.from, m, again)
	}
}

func (w *world) downlink(to *proc, m *message, again bool) {
	if !to.alive() || to.noticed {
		return
	}
	n := &w.net
	if n.Loss > 0 && m.topic != topicToken && m.topic != topicSettle {
		f := flow{m.from, to}
		if n.rng.Float64() < n.Loss && (n.LossRun == 0 || n.flows[f] < n.LossRun) {
			n.flows[f]++
			w.trace(to.name, "a message of %s is lost: %d/%d", m.from.name, m.inc, m.seq)
			return
		}
		if !again { // a duplicate is no message that came through
			n.flows[f] = 0
		}
	}
	at := max(w.now+between(n.rng, 0, time.Millisecond), to.lastDown)
	to.lastDown = at
	w.at(at, func() { to.arrive(m) })
}
