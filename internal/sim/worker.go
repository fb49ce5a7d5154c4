package sim

import (
	"time"

	"github.com/beatfabric/hivebeat"
	"github.com/beatfabric/hivebeat/bus"
	"github.com/beatfabric/hivebeat/internal/detector"
	"github.com/beatfabric/hivebeat/internal/wire"
)

// worker beats as package worker does.
type worker struct {
	proc
	hive, id string
	every    time.Duration
	seq      uint64
	seqAt    time.Time
	sent     bool
	out      *sender
	state    hivebeat.State
	quiet    time.Time // end of the silence it announced
	work     work
}

func (k *worker) start() {
	k.inc = uint64(k.wall().UnixMicro())
	k.state = hivebeat.Ready
	if p := k.w.plan; p.Exits {
		k.pid = uint64(len(k.w.pids)) + 2
		k.w.pids[k.pid] = &k.proc
	}
	k.rw = k.w.plan.Closings.D()
	k.beginWork()
	k.w.truth.began(&k.proc)
	k.w.workers = append(k.w.workers, k)
	k.w.trace(k.name, "begins as %d", k.inc)
	k.out = newSender(&k.proc, k.every, 0, func() bool { return k.say(k.state) })
}

func (k *worker) handle(m *message) {
	if m.topic == topicCall {
		k.out.reply(m.spread)
	}
}

func (k *worker) offline() {}

func (k *worker) online() { k.out.want((*bus.Schedule).Reconnected) }

// say sends one beat, with seq drawn as package worker does.
func (k *worker) say(state hivebeat.State) bool {
	now := k.w.time()
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
	if k.pid != 0 {
		b.PID, b.NS = k.pid, k.machine().name
	}
	if k.w.plan.Closings > 0 {
		b.Conn, b.RW = k.conn.String(), hivebeat.MillisOf(k.rw)
	}
	if p := k.w.plan; p.StallSaid {
		b.Labels = map[string]string{detector.StallLabel: p.Stall.String()}
	}
	if left := k.quiet.Sub(now); left > 0 {
		b.Quiet = hivebeat.MillisOf(left)
		k.w.truth.quiets[lifeSeq{life{k.ident, k.inc}, k.seq}] = left
	}
	if k.work.busy > 0 {
		k.w.truth.works[lifeSeq{life{k.ident, k.inc}, k.seq}] = k.work
	}
	payload, err := wire.EncodeBeat(&b)
	if err != nil {
		k.w.breaks(Sound, "a beat can not be encoded: %v", err)
		return false
	}
	k.sent = k.emit(&message{topic: topicBeat, hive: k.hive, worker: k.id, inc: k.inc, seq: k.seq, payload: payload, every: k.every, quiet: b.Quiet.Duration(), conn: b.Conn, rw: k.rw, work: k.work})
	return k.sent
}

// change goes to another state, which goes out at once.
func (k *worker) change(s hivebeat.State) {
	if !k.alive() || k.paused() || k.state == s {
		return
	}
	k.state = s
	k.out.want((*bus.Schedule).Changed)
}

// fallSilent is Worker.Quiet: three beats within a second, and then silence.
func (k *worker) fallSilent(d time.Duration) {
	if !k.alive() || k.paused() {
		return
	}
	k.w.trace(k.name, "announces %v of silence", d)
	k.quiet = k.w.time().Add(d)
	for i := range 3 {
		k.after(time.Duration(i)*250*time.Millisecond, func() { k.out.want((*bus.Schedule).Ask) })
	}
}

func (k *worker) goodbye() {
	if k.alive() && !k.paused() {
		k.byBye = k.say(hivebeat.Stopped)
		k.w.trace(k.name, "says goodbye")
		k.kill()
	}
}
