package sim

import (
	"fmt"
	"slices"
	"time"

	"github.com/beatfabric/hivebeat"
	"github.com/beatfabric/hivebeat/bus"
	"github.com/beatfabric/hivebeat/internal/core"
	"github.com/beatfabric/hivebeat/internal/detector"
	"github.com/beatfabric/hivebeat/internal/hivecore"
	"github.com/beatfabric/hivebeat/internal/wire"
)

// hive runs a real hivecore.Core and simulates its surroundings: messages, timers, the ends
// of processes, and a store to read from.
type hive struct {
	observer
	core     *hivecore.Core
	id, zone string

	out   *sender                  // of snapshots
	said  time.Duration            // when the last snapshot was sent
	built map[uint64]time.Duration // when each snapshot was made, by seq

	watching map[uint64]detector.Process // by pid
	gone     map[*proc]time.Duration     // the workers that it declared gone, and when
	ended    map[life]bool               // the workers whose process it saw end
	moves    map[move]time.Duration      // when it numbered each transition
}

// move is a transition of a worker, numbered by its hive.
type move struct {
	worker string
	n      uint64
}

func (h *hive) start() {
	w, p := h.w, h.w.plan
	h.every = p.HiveEvery.D()
	h.built, h.moves = make(map[uint64]time.Duration), make(map[move]time.Duration)
	h.watching, h.gone, h.ended = make(map[uint64]detector.Process), make(map[*proc]time.Duration), make(map[life]bool)
	cfg := hivecore.Config{ID: h.id}
	if p.Exits {
		cfg.NS, cfg.PID = h.slot.machine().name, 1
	}
	if !p.StallSaid {
		cfg.StallAfter = p.Stall.D()
	}
	if p.HiveClosings {
		h.rw = bus.ReconnectWait
	}
	h.core = hivecore.New(cfg)
	h.observe(h.core, h.act)
	h.doubt = func() bool { return false }
	h.knows = func(l life) uint64 { return h.last[l].seq }
	w.hives = append(w.hives, h)
	for page, more := uint64(0), w.store.away == 0; more; page++ {
		k, ok := w.store.get(hivesKey(h.id, page))
		more = ok && h.core.Recall(w.time(), &k.Entry)
	}
	h.out = newSender(&h.proc, hivecore.RollGap, func() bool { return h.speak("") })
	h.linkChanged()
}

func (h *hive) handle(m *message) {
	switch m.topic {
	case topicToken:
		m.back()
	case topicHivesCall, topicHiveCall:
		h.drive(func(now time.Time) { h.core.RollCall(now, m.spread) })
	case topicBeat:
		h.drive(func(now time.Time) {
			if !h.core.Beat(now, "", m.payload) {
				h.w.trace(h.name, "refuses a beat of %s %d/%d", m.from.ident, m.from.inc, m.seq)
			}
		})
		h.recalled(m.from.self.(*worker).id)
	}
}

// act carries out what the core asks for, and checks its transitions.
func (h *hive) act() {
	r := h.core.Ready()
	h.w.traceLogs(h.name, r.Logs)
	h.follow(r.Watches)
	for i := range r.Steps {
		h.judged(&r.Steps[i])
	}
	if r.Ended {
		h.out.want(true, (*bus.Schedule).Ended)
		h.checkEndIsSaid()
	}
	h.out.want(r.Changed, (*bus.Schedule).Changed)
	h.out.want(r.Touch, (*bus.Schedule).Touch)
	h.out.want(r.Reconnected, (*bus.Schedule).Reconnected)
	if r.Answer {
		h.out.reply(r.Spread)
	}
	if r.Roll > 0 {
		h.emit(&message{topic: topicCall, hive: h.id, spread: r.Roll})
	}
	h.carry(r.Signals)
	h.wake(since(r.Wake))
}

// speak sends one snapshot.
func (h *hive) speak(bye string) bool {
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
		s.Conn, s.RW = h.conn.name, hivebeat.MillisOf(h.rw)
	}
	h.checkSnapshot(&s)
	pages := [][]hivebeat.Record{s.Workers}
	if h.w.plan.Paged && len(s.Workers) > 1 {
		pages = slices.Collect(slices.Chunk(s.Workers, 1))
		s.Pages = uint64(len(pages))
	}
	for i, rows := range pages {
		s.Page, s.Workers = uint64(i), rows
		b, err := wire.EncodeSnapshot(&s)
		if err != nil {
			h.w.breaks(Sound, "a snapshot cannot be encoded: %v", err)
			return false
		}
		h.said = h.w.now
		h.emit(&message{topic: topicSnapshot, hive: h.id, seq: s.Seq, page: s.Page, payload: b, conn: s.Conn, every: h.every})
	}
	return true
}

func (h *hive) sayBye() bool { return h.speak("stopped") }

// lists reports whether its snapshots contain a worker with this id.
func (h *hive) lists(worker string) bool {
	_, ok := h.core.Record(h.w.time(), worker)
	return ok
}

// follow watches processes, like package procwatch.
func (h *hive) follow(list []detector.Watch) {
	for _, x := range list {
		if h.watching[x.PID] = x.Process; x.Stop {
			delete(h.watching, x.PID)
		} else if p := h.w.pids[x.PID]; p == nil || !p.alive() {
			h.sees(p, x.PID)
		}
	}
}

// sees reports the end of a watched process to the core, after a short delay. What the
// process sent before comes first.
func (h *hive) sees(p *proc, pid uint64) {
	r := h.w.ends
	said := h.w.now // when its goodbye, which is flushed before it ends, is at the server
	if p != nil && p.byBye {
		said = p.flushed
	}
	h.when(max(h.w.now, said)+between(r, exitSeenMin, exitSeenMax), func() {
		process, ok := h.watching[pid]
		if !ok {
			return
		}
		at, wait := h.w.time(), time.Duration(0)
		if h.up() { // two flushes
			wait = 2*between(r, 500*time.Microsecond, 3*time.Millisecond) + hivecore.LastWordsSettle
			if h.cuts > 0 {
				wait = hivecore.LastWordsWithin
			}
		}
		h.after(wait, func() {
			h.drive(func(now time.Time) { h.core.Exited(now, h.boot(), []detector.Exit{{Process: process, At: at}}) })
		})
	})
}

// The time that a hive needs to see the end of a process, by a pidfd, and to report it.
// Plans without Exits simulate silence alone.
const (
	exitSeenMin = 200 * time.Microsecond
	exitSeenMax = 5 * time.Millisecond
	// exitBound is the time from the end of a process to the report of its hive: the hive
	// sees the end, and waits for the last words of the process.
	exitBound = exitSeenMax + hivecore.LastWordsWithin + readTime
)

// checkExitIsTold checks later whether the hive, which watches p, reports in time that p has
// just ended.
func (h *hive) checkExitIsTold(p *proc) {
	w, died, bound := h.w, h.w.now, exitBound
	if p.byBye {
		bound += max(0, p.flushed-died)
	}
	w.at(died+bound, func() {
		s := h.known.of(p.ident)
		if h.alive() && !h.bothered(died, w.now, true) && s.inc == p.inc && s.lives() && h.gone[p] == 0 {
			w.breaks(DeathTold, "the process of %s incarnation %d ended %v ago, but is still %s at %s, which watches it", p.ident, p.inc, bound, s.live, h.name)
		}
	})
}

// checkEndIsSaid checks later whether the hive sends an end that it has just found in time,
// whatever else it has to send. The hive gathers ends: beyond 20 in 10 s, it sends two
// snapshots a second.
func (h *hive) checkEndIsSaid() {
	w, found, recent := h.w, h.w.now, 0
	for _, at := range h.gone {
		if found-at < 10*time.Second {
			recent++
		}
	}
	bound := 50 * time.Millisecond
	if recent >= 20 {
		bound = time.Second / 2
	}
	w.at(found+bound, func() {
		if h.alive() && h.said < found && !h.bothered(found-time.Second, w.now, true) {
			w.breaks(DeathTold, "%s found %v ago that a worker is gone, but has not published it", h.name, bound)
		}
	})
}

// traceLogs records the log lines of a core.
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
