package sim

import (
	"time"

	"github.com/beatfabric/hivebeat"
	"github.com/beatfabric/hivebeat/bus"
	"github.com/beatfabric/hivebeat/internal/detector"
	"github.com/beatfabric/hivebeat/internal/liveness"
	"github.com/beatfabric/hivebeat/internal/wire"
)

const hiveRollGap = 5 * time.Second

// hive judges as package hive does: the real detector.Registry, liveness.Observer
// and bus.Schedule, and a loop like the one in hive/listen.go.
type hive struct {
	proc
	id, zone string
	every    time.Duration
	paged    bool // sends each worker in a page of its own
	seq      uint64

	reg   *detector.Registry
	sight liveness.Observer
	sched *bus.Schedule
	said  time.Duration // when the last snapshot left
	roll  bool

	armed      time.Duration // the detector's timer; negative: none
	armedN     uint64
	pulseArmed uint64

	watching map[uint64]detector.Process // by pid
	heard    heardClosings
	settling bool
	asked    time.Duration
	gone     map[*proc]time.Duration // whom it gave up, and when

	known sightings // what the registry said last, for the checks
}

func (h *hive) start() {
	w := h.w
	h.inc = uint64(h.wall().UnixMicro())
	h.reg = detector.New(h.id)
	h.watching, h.gone, h.asked = make(map[uint64]detector.Process), make(map[*proc]time.Duration), -askEvery
	if w.plan.Exits {
		h.reg.WatchExits(h.machine().name, 1)
	}
	if p := w.plan; p.Stall > 0 && !p.StallSaid {
		h.reg.SetStallAfter(p.Stall.D())
	}
	if w.plan.HiveClosings {
		h.rw = liveness.FastReconnect / 2 // what package bus has
	}
	h.sched = bus.NewSchedule(w.time(), h.every, hiveRollGap, h.rng.Float64)
	h.armed = -1
	w.hives = append(w.hives, h)
	w.truth.began(&h.proc)
	w.trace(h.name, "begins as %d", h.inc)
	h.recall()
	h.look()
	if h.up() {
		h.reopen()
	}
	h.tick()
	h.armPulse()
}

// recall reads the last snapshot that a queen kept: who is in it is expected.
func (h *hive) recall() {
	if ids, ok := h.w.store.recall(h.id); ok {
		h.reg.Expect(ids)
	}
}

// tick looks whether this hive was stopped, as often as package hive does.
func (h *hive) tick() {
	h.after(liveness.LookEvery, func() {
		h.look()
		h.countDrops()
		h.reg.Ran(h.w.time())
		h.sendToken()
		h.tick()
	})
}

func (h *hive) look() {
	if paused := h.sight.Look(h.w.time()); paused > 0 {
		h.reg.Paused(paused)
		h.w.trace(h.name, "sees that it was stopped for %v", paused)
		h.roll = true
		h.doubt()
	}
}

func (h *hive) countDrops() {
	h.reg.Ran(h.w.time())
	if h.sight.Dropped(h.w.time(), h.drops) > 0 {
		h.doubt()
	}
}

func (h *hive) doubt() {
	if at, ok := h.sight.Doubts(); ok {
		h.reg.Doubt(at)
	}
}

func (h *hive) receive(m *message) {
	now := h.w.time()
	h.look()
	switch m.topic {
	case topicSettle:
		m.settled()
	case topicToken:
		h.tokenBack(m.token)
	case topicHivesCall, topicHiveCall:
		h.sight.Prove(now)
		h.sched.Call(now, m.spread)
		h.armPulse()
	case topicBeat:
		h.sight.Prove(now)
		got, err := h.reg.Receive(now, m.payload, "")
		h.watch()
		if err != nil {
			h.reg.Refuse(err)
			h.w.trace(h.name, "refuses a beat of %s %d/%d: %v", m.worker, m.inc, m.seq, err)
		}
		if got.Urgent {
			h.urge(h.steps())
		}
		h.answered()
		if next, ok := h.reg.Next(); ok && h.sight.Trusts() && (h.armed < 0 || since(next) < h.armed) {
			h.arm(next)
		}
	}
	h.sendToken()
}

// arm sets the timer to a deadline.
func (h *hive) arm(next time.Time) {
	h.armedN++
	n := h.armedN
	h.armed = max(since(next), h.w.now)
	h.when(h.armed, func() {
		if h.armedN == n {
			h.look()
			h.countDrops()
			h.detect()
			h.sendToken()
		}
	})
}

func (h *hive) detect() {
	h.armed = -1
	h.armedN++
	if !h.sight.Trusts() {
		return
	}
	if next, ok := h.reg.Next(); ok && !h.w.time().Before(next) && !h.sight.Hears(h.w.time()) {
		return // the token's return goes on
	}
	h.reg.Detect(h.w.time())
	h.ask()
	h.watch()
	if steps := h.steps(); len(steps) > 0 {
		h.urge(steps)
	}
	if next, ok := h.reg.Next(); ok {
		h.arm(next)
	}
}

// steps takes the transitions, and holds each against the truth.
func (h *hive) steps() []detector.Step {
	list := h.reg.TakeSteps()
	for i := range list {
		s := &list[i]
		h.w.trace(h.name, "%s is %s, n %d inc %d: %s to %s %s, age %v", s.Worker, s.Kind, s.N, s.Inc, s.From, s.To, s.Cause, s.Age)
		h.w.truth.judged(h, s)
	}
	return list
}

// urge has a snapshot sent at once.
func (h *hive) urge(steps []detector.Step) {
	if detector.Ended(steps) {
		h.sched.Ended(h.w.time())
		h.w.truth.endIsSaid(h)
	} else {
		h.sched.Changed(h.w.time())
	}
	h.armPulse()
}

func (h *hive) disconnected() {
	h.look()
	if h.sight.Cut(h.w.time(), pingLimit) {
		h.reg.ForgetDisconnects()
		h.heard.forget()
		h.roll = true
		h.doubt()
	}
}

func (h *hive) connected() {
	h.look()
	h.reopen()
	h.sendToken()
}

func (h *hive) reopen() {
	if h.sight.Connected() {
		return
	}
	now := h.w.time()
	if first := h.sight.Connect(now); !first {
		h.sched.Reconnected(now)
		h.armPulse()
		return // the token goes on
	}
	h.reg.Start(now)
	h.callRoll()
	h.detect()
}

func (h *hive) sendToken() {
	token, ok := h.sight.Token(h.w.time())
	if !ok {
		return
	}
	h.publish(&message{topic: topicToken, token: token})
}

func (h *hive) tokenBack(token uint64) {
	h.countDrops()
	blind, ok := h.sight.Back(h.w.time(), token)
	if !ok {
		return
	}
	h.w.trace(h.name, "hears again, and knows it: credits %v", blind)
	h.reg.Credit(blind)
	if h.roll {
		h.roll = false
		h.awaitAnswers(h.callRoll())
	}
	h.detect()
}

func (h *hive) callRoll() time.Duration {
	spread := max(hivebeat.WorkerRollSpread, time.Duration(h.reg.Len())*time.Millisecond)
	h.publish(&message{topic: topicCall, hive: h.id, spread: spread})
	return spread
}

// awaitAnswers waits for the answers to a roll call.
func (h *hive) awaitAnswers(spread time.Duration) {
	if until, ok := h.reg.AwaitAnswers(h.w.time(), spread); ok {
		h.when(since(until), func() {
			h.look()
			h.answered()
			h.sendToken()
		})
	}
}

// answered has one more snapshot sent once the answers are in.
func (h *hive) answered() {
	if h.reg.Answered(h.w.time()) && h.sight.Connected() {
		h.sched.Touch(h.w.time())
		h.armPulse()
	}
}

// armPulse sets the timer of the next snapshot.
func (h *hive) armPulse() {
	h.pulseArmed++
	n := h.pulseArmed
	at, _ := h.sched.Next()
	h.when(since(at), func() {
		if h.pulseArmed == n {
			h.pulse()
		}
	})
}

func (h *hive) pulse() {
	now := h.w.time()
	if at, _ := h.sched.Next(); !at.After(now) {
		h.sched.Begin(now)
		if h.say("") {
			h.sched.Sent()
		} else {
			h.sched.Failed(now)
		}
	}
	h.armPulse()
}

// say sends one snapshot.
func (h *hive) say(bye string) bool {
	h.seq++
	if !h.up() {
		return false
	}
	now := h.w.time()
	s := hivebeat.Snapshot{
		V: hivebeat.Version, Hive: h.id, Inc: h.inc, Every: hivebeat.MillisOf(h.every), Seq: h.seq, Sent: h.wall().UnixMilli(),
		Pages: 1, Labels: map[string]string{"zone": h.zone}, Warm: h.reg.Warm(now), Stats: h.reg.Stats(), Bye: bye,
		Workers: h.reg.Records(now),
	}
	if h.w.plan.HiveClosings {
		s.Conn, s.RW = h.conn.String(), hivebeat.MillisOf(h.rw)
	}
	if h.zone == "" {
		s.Labels = nil
	}
	h.w.truth.snapshot(h, &s)
	pages := [][]hivebeat.Record{s.Workers}
	if h.paged && len(s.Workers) > 1 {
		pages = nil
		for i := range s.Workers {
			pages = append(pages, s.Workers[i:i+1])
		}
		s.Pages = uint64(len(pages))
	}
	for i, rows := range pages {
		s.Page, s.Workers = uint64(i), rows
		b, err := wire.EncodeSnapshot(&s)
		if err != nil {
			h.w.breaks(Sound, "a snapshot can not be encoded: %v", err)
			return false
		}
		h.said = h.w.now
		h.publish(&message{topic: topicSnapshot, hive: h.id, inc: h.inc, seq: h.seq, page: s.Page, payload: b, every: h.every, conn: s.Conn, rw: h.rw})
	}
	return true
}

// lists reports whether it has a worker with this id in its snapshots.
func (h *hive) lists(worker string) bool {
	_, ok := h.reg.Record(h.w.time(), worker)
	return ok
}

func (h *hive) leave() {
	if h.alive() && !h.paused() {
		h.byBye = h.say("stopped")
		h.w.trace(h.name, "says goodbye")
		h.kill()
	}
}
