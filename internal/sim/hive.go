package sim

import (
	"fmt"
	"time"

	"github.com/beatfabric/hivebeat"
	"github.com/beatfabric/hivebeat/bus"
	"github.com/beatfabric/hivebeat/internal/core"
	"github.com/beatfabric/hivebeat/internal/detector"
	"github.com/beatfabric/hivebeat/internal/hivecore"
	"github.com/beatfabric/hivebeat/internal/link"
	"github.com/beatfabric/hivebeat/internal/wire"
)

// hive is the core of package hive, and around it what is outside of that: messages,
// timers, processes that end, a store to read from.
type hive struct {
	proc
	id, zone string
	every    time.Duration
	paged    bool // sends each worker in a page of its own

	core   *hivecore.Core
	out    *sender       // of snapshots
	said   time.Duration // when the last snapshot left
	alarm  time.Duration // when the core is to be woken
	alarms uint64

	watching map[uint64]detector.Process // by pid
	heard    heardClosings
	gone     map[*proc]time.Duration // whom it gave up, and when

	known sightings // what the core said last, for the checks
}

func (h *hive) start() {
	w := h.w
	h.inc = uint64(h.wall().UnixMicro())
	h.watching, h.gone = make(map[uint64]detector.Process), make(map[*proc]time.Duration)
	cfg := hivecore.Config{ID: h.id}
	if w.plan.Exits {
		cfg.NS, cfg.PID = h.machine().name, 1
	}
	if p := w.plan; p.Stall > 0 && !p.StallSaid {
		cfg.StallAfter = p.Stall.D()
	}
	if w.plan.HiveClosings {
		h.rw = bus.ReconnectWait
	}
	h.core = hivecore.New(cfg)
	w.hives = append(w.hives, h)
	w.truth.began(&h.proc)
	w.trace(h.name, "begins as %d", h.inc)
	for page, more := uint64(0), w.store.away == 0; more; page++ {
		k, ok := w.store.get(hivesKey(h.id, page))
		more = ok && h.core.Recall(k.payload)
	}
	h.out = newSender(&h.proc, h.every, hivecore.RollGap, func() bool { return h.say("") })
	linked(h)
}

func (h *hive) handle(m *message) {
	switch m.topic {
	case topicSettle, topicToken:
		carried(h, m)
	case topicHivesCall, topicHiveCall:
		h.drive(func(now time.Time) { h.core.RollCall(now, m.spread) })
	case topicBeat:
		h.drive(func(now time.Time) {
			if !h.core.Beat(now, "", m.payload) {
				h.w.trace(h.name, "refuses a beat of %s %d/%d", m.worker, m.inc, m.seq)
			}
		})
	}
}

func (h *hive) offline() { linked(h) }

func (h *hive) online() { linked(h) }

func (h *hive) ears() *heardClosings { return &h.heard }

func (h *hive) input(f func(now time.Time, c link.Core)) {
	h.drive(func(now time.Time) { f(now, h.core) })
}

// drive hands the core an input, holds its transitions against the truth, and does
// what it asks for.
func (h *hive) drive(input func(now time.Time)) {
	input(h.w.time())
	r := h.core.Ready()
	h.w.traceLogs(h.name, r.Logs)
	h.follow(r.Watches)
	for i := range r.Steps {
		h.w.truth.judged(h, &r.Steps[i])
	}
	if r.Ended {
		h.out.want((*bus.Schedule).Ended)
		h.w.truth.endIsSaid(h)
	}
	if r.Changed {
		h.out.want((*bus.Schedule).Changed)
	}
	if r.Touch {
		h.out.want((*bus.Schedule).Touch)
	}
	if r.Reconnected {
		h.out.want((*bus.Schedule).Reconnected)
	}
	if r.Answer {
		h.out.reply(r.Spread)
	}
	if r.Roll > 0 {
		h.emit(&message{topic: topicCall, hive: h.id, spread: r.Roll})
	}
	carry(h, r.Signals)
	h.wake(since(r.Wake))
}

// wake sets the timer of the core.
func (h *hive) wake(at time.Duration) {
	if at = max(at, h.w.now); at == h.alarm {
		return
	}
	h.alarm = at
	h.alarms++
	n := h.alarms
	h.when(at, func() {
		if h.alarms == n {
			h.alarm = -1
			h.drive(func(now time.Time) { h.core.Tick(now, h.drops) })
		}
	})
}

// say sends one snapshot.
func (h *hive) say(bye string) bool {
	h.core.Number()
	if !h.up() {
		return false
	}
	s := hivebeat.Snapshot{
		V: hivebeat.Version, Hive: h.id, Inc: h.inc, Every: hivebeat.MillisOf(h.every), Sent: h.wall().UnixMilli(),
		Pages: 1, Labels: map[string]string{"zone": h.zone}, Bye: bye,
	}
	h.core.Fill(h.w.time(), &s)
	if h.w.plan.HiveClosings {
		s.Conn, s.RW = h.conn.String(), hivebeat.MillisOf(h.rw)
	}
	if h.zone == "" {
		s.Labels = nil
	}
	h.w.truth.checkSnapshot(h, &s)
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
		h.emit(&message{topic: topicSnapshot, hive: h.id, inc: h.inc, seq: s.Seq, page: s.Page, payload: b, every: h.every, conn: s.Conn, rw: h.rw})
	}
	return true
}

// lists reports whether it has a worker with this id in its snapshots.
func (h *hive) lists(worker string) bool {
	_, ok := h.core.Record(h.w.time(), worker)
	return ok
}

func (h *hive) goodbye() {
	if h.alive() && !h.paused() {
		h.byBye = h.say("stopped")
		h.w.trace(h.name, "says goodbye")
		h.kill()
	}
}

// traceLogs notes what a core wants logged.
func (w *world) traceLogs(who string, logs core.Logs) {
	if !w.tracing {
		return
	}
	for i := range logs {
		text := logs[i].Text
		for _, a := range logs[i].Attrs {
			text += fmt.Sprintf(", %s %v", a.Key, a.Value)
		}
		w.trace(who, "%s", text)
	}
}
