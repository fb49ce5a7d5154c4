package sim

import (
	"time"

	"github.com/beatfabric/hivebeat/internal/core"
	"github.com/beatfabric/hivebeat/internal/link"
)

// observer is a process with a core that judges. What package link is to such a core
// on NATS, this file is under a virtual clock.
type observer interface {
	actor
	// input hands the core an input, and does what it asks for because of that.
	input(func(now time.Time, c link.Core))
	// ears is what the truth remembers of what it was told.
	ears() *heardClosings
}

// carry does what a core asks for by s.
func carry(o observer, s core.Signals) {
	p := o.base()
	if s.Token != 0 {
		p.emit(&message{topic: topicToken, token: s.Token})
	}
	if s.Settle {
		done := false
		settled := func() {
			if !done {
				done = true
				o.input(func(now time.Time, c link.Core) { c.Settled(now) })
			}
		}
		p.emit(&message{topic: topicSettle, settled: settled})
		p.after(core.SettleWithin, settled)
	}
}

// carried takes what carry sent.
func carried(o observer, m *message) {
	p := o.base()
	switch {
	case m.topic == topicSettle:
		m.settled()
	case m.topic == topicToken && p.w.now-m.sent <= core.TokenWithin:
		o.input(func(now time.Time, c link.Core) { c.TokenBack(now, m.token, p.drops) })
	}
}

// linked tells the core of o whether there is a connection.
func linked(o observer) {
	up := o.base().up()
	if !up {
		o.ears().forget()
	}
	o.input(func(now time.Time, c link.Core) { c.Connection(now, core.Connection{Up: up, Unnoticed: pingLimit}) })
}

// hearsClosing tells the core of o that a connection closed.
func hearsClosing(o observer, x closing) {
	o.input(func(now time.Time, c link.Core) { c.Closed(now, x.said()) })
}

// deafen takes the connection to the system account away from o.
func deafen(o observer, d Span) {
	p, heard := o.base(), o.ears()
	tell := func(up bool) {
		p.after(0, func() {
			if !up {
				heard.forget()
			}
			o.input(func(now time.Time, c link.Core) { c.System(now, up) })
		})
	}
	heard.deaf++
	tell(false)
	p.w.until(d, func() {
		if heard.deaf--; heard.deaf == 0 {
			tell(true)
		}
	})
}
