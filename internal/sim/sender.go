package sim

import (
	"time"

	"github.com/beatfabric/hivebeat/bus"
)

// sender is what bus.Pulse is to a worker and to a hive: the real bus.Schedule, and
// the timer around it.
type sender struct {
	p     *proc
	sched *bus.Schedule
	send  func() bool
	armed uint64
}

// newSender returns one that sends at once.
func newSender(p *proc, every, rollGap time.Duration, send func() bool) *sender {
	s := &sender{p: p, sched: bus.NewSchedule(p.w.time(), every, rollGap, p.rng.Float64), send: send}
	s.rearm()
	return s
}

// want asks for something to be sent.
func (s *sender) want(what func(*bus.Schedule, time.Time)) {
	what(s.sched, s.p.w.time())
	s.rearm()
}

func (s *sender) rearm() {
	s.armed++
	n := s.armed
	at, _ := s.sched.Next()
	s.p.when(since(at), func() {
		if s.armed == n {
			s.fire()
		}
	})
}

func (s *sender) fire() {
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
}

// reply answers a roll call.
func (s *sender) reply(spread time.Duration) {
	s.want(func(sched *bus.Schedule, now time.Time) { sched.Call(now, spread) })
}
