package sim

import (
	"time"

	"github.com/beatfabric/hivebeat"
	"github.com/beatfabric/hivebeat/bus"
	"github.com/beatfabric/hivebeat/internal/detector"
	"github.com/beatfabric/hivebeat/internal/wire"
)

// worker sends beats like package worker.
type worker struct {
	proc
	hive, id string
	seq      uint64
	seqAt    time.Time
	sent     bool
	out      *sender
	state    hivebeat.State
	quiet    time.Time // end of the announced silence
	work     work
}

// work is the work of a worker, in plans that simulate work: one request after the other,
// each shorter than the stall limit.
type work struct {
	busy, done uint64
	since      time.Duration // when it last finished a request, started, or reported that it is idle
	next       time.Duration // when it finishes the next one; negative: never
}

func (k *worker) start() {
	p := k.w.plan
	k.every, k.rw, k.state = p.WorkerEvery.D(), p.Closings.D(), hivebeat.Ready
	if p.Exits {
		k.pid = uint64(len(k.w.pids)) + 2
		k.w.pids[k.pid] = &k.proc
	}
	if p.Stall > 0 {
		k.work.busy, k.work.since = 1, k.w.now
		k.request(k.w.now)
	}
	k.w.workers = append(k.w.workers, k)
	k.out = newSender(&k.proc, 0, func() bool { return k.speak(k.state) })
}

func (k *worker) handle(m *message) {
	if m.topic == topicCall {
		k.out.reply(m.spread)
	}
}

func (k *worker) linkChanged() { k.out.want(k.up(), (*bus.Schedule).Reconnected) }

func (k *worker) sayBye() bool { return k.speak(hivebeat.Stopped) }

// speak sends one beat, and numbers it like package worker.
func (k *worker) speak(state hivebeat.State) bool {
	now, p := k.w.time(), k.w.plan
	if k.seq == 0 || k.sent || now.Sub(k.seqAt) >= k.every*9/10 {
		k.seq++
		k.seqAt, k.sent = now, false
	}
	if !k.up() {
		return false
	}
	if k.goOn(); k.work.busy == 0 {
		k.work.since = k.w.now
	}
	b := hivebeat.Beat{
		V: hivebeat.Version, Hive: k.hive, Worker: k.id,
		Facts: hivebeat.Facts{
			Inc: k.inc, Every: hivebeat.MillisOf(k.every), State: state, Model: "m",
			Seq: k.seq, Sent: k.wall().UnixMilli(), Busy: k.work.busy, Done: k.work.done,
		},
	}
	if p.Exits {
		b.PID, b.NS, b.Boot = k.pid, k.slot.machine().name, k.boot()
	}
	if p.Closings > 0 {
		b.Conn, b.RW = k.conn.name, hivebeat.MillisOf(k.rw)
	}
	if p.StallSaid {
		b.Labels = map[string]string{detector.StallLabel: p.Stall.String()}
	}
	b.Quiet = hivebeat.MillisOf(k.quiet.Sub(now))
	payload, err := wire.EncodeBeat(&b)
	if err != nil {
		k.w.breaks(Sound, "a beat cannot be encoded: %v", err)
		return false
	}
	m := &message{topic: topicBeat, hive: k.hive, seq: k.seq, payload: payload, conn: b.Conn, every: k.every, quiet: b.Quiet.Duration(), work: k.work}
	k.w.beats[numbered{k.life, k.seq, 0}] = m
	k.sent = k.emit(m)
	return k.sent
}

// change changes the state, which the worker reports at once.
func (k *worker) change(s hivebeat.State) {
	if k.state != s {
		k.state = s
		k.out.want(true, (*bus.Schedule).Changed)
	}
}

// fallSilent simulates Worker.Quiet: three beats within a second, then silence.
func (k *worker) fallSilent(d time.Duration) {
	if k.paused() {
		return
	}
	k.w.trace(k.name, "announces %v of silence", d)
	k.quiet = k.w.time().Add(d)
	for i := range 3 {
		k.after(time.Duration(i)*250*time.Millisecond, func() { k.out.want(true, (*bus.Schedule).Ask) })
	}
}

// request starts the next request at a given time.
func (k *worker) request(at time.Duration) {
	k.work.next = at + between(k.rng, k.w.plan.Stall.D()/10, k.w.plan.Stall.D()*9/10)
}

// goOn advances the work to the present. In plans that do not simulate work, each beat has
// finished a request.
func (k *worker) goOn() {
	if k.w.plan.Stall == 0 {
		k.work.done++
	}
	for k.work.busy > 0 && k.work.next >= 0 && k.work.next <= k.w.now {
		k.work.done++
		k.work.since = k.work.next
		k.request(k.work.next)
	}
}

// hang stops all progress for d; if idle is set, the worker has nothing to do instead. A d of
// 0 means for good. The plan simulates work.
func (k *worker) hang(idle bool, d Span) {
	k.goOn()
	k.work.next = -1
	if idle { // it has finished its request
		k.work.busy, k.work.since = 0, k.w.now
		k.work.done++
	}
	k.w.untilOrNever(d, func() {
		k.work.busy, k.work.next = 1, k.w.now
		if idle {
			k.request(k.w.now)
		}
	})
}
