package worker

import (
	"cmp"
	"fmt"
	"log/slog"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/beatfabric/hivebeat"
	"github.com/beatfabric/hivebeat/bus"
	"github.com/beatfabric/hivebeat/internal/bootid"
)

// factsWait is how long a beat waits for Config.Facts: ample for a function that reads
// counters, and negligible against the promise for one that queries a driver.
const factsWait = 20 * time.Millisecond

// snapshot builds the next beat, on the goroutine of the pulse.
func (w *Worker) snapshot(why bus.Why) (hivebeat.Beat, error) {
	w.refresh()
	facts := w.current()
	now := time.Now()
	w.draw(now)

	w.mu.Lock()
	state, reason, quiet, exit := w.state, w.reason, w.quiet, ""
	if why == bus.WhyLast {
		if w.bye == "" { // ctx of Run ended without a call of Stop
			w.bye, w.reason = hivebeat.Stopped, ""
		}
		state, reason, quiet, exit = w.bye, w.reason, time.Time{}, w.exit
	}
	w.mu.Unlock()

	b := hivebeat.Beat{
		V: hivebeat.Version, Hive: w.cfg.Hive, Worker: w.cfg.ID,
		Facts: hivebeat.Facts{
			Inc: w.inc, Every: hivebeat.MillisOf(w.cfg.Every), State: state, Reason: reason,
			PID: cmp.Or(facts.PID, w.pid), NS: w.ns, Host: w.host, Conn: bus.ConnID(w.nc), RW: hivebeat.MillisOf(bus.ReconnectWaitOf(w.nc)),
			Model: facts.Model, Endpoint: facts.Endpoint, GPUs: facts.GPUs, Slots: facts.Slots, Need: facts.Need,
			Labels: facts.Labels, Data: facts.Data,
			Engine: facts.Engine, Ver: facts.Version, Ctx: facts.Context, KVCap: facts.KVCapacity, LoRA: facts.LoRA, Cold: facts.Cold, Exit: exit,
			Seq: w.seq, Sent: now.UnixMilli(),
			VRAM: facts.VRAM, Busy: facts.Busy, Queue: facts.Queue, Done: facts.Done,
			Tokens: facts.Tokens, KV: facts.KV,
		},
	}
	if !facts.Probed.IsZero() {
		b.Probed = max(1, hivebeat.MillisOf(now.Sub(facts.Probed)))
	}
	if w.ns != "" {
		b.Boot = bootid.Clock()
	}
	if left := quiet.Sub(now); left > 0 {
		b.Quiet = hivebeat.MillisOf(left)
	}
	if len(b.Conn) > hivebeat.MaxConn { // a server may have any id
		b.Conn = ""
	}
	return b, nil
}

// draw assigns the next beat its seq. A beat that cannot be sent keeps its seq for the
// next attempt. While sending keeps failing, one seq is used up per interval, so that
// the gap shows a hive how many beats it missed: the worker was cut off, not dead.
func (w *Worker) draw(now time.Time) {
	if w.seq == 0 || w.sent || now.Sub(w.seqAt) >= w.cfg.Every*9/10 {
		w.seq++
		w.seqAt, w.sent = now, false
	}
}

// send passes a beat to NATS, or fails. No beat is ever kept for later, whatever
// reconnect buffer the connection has.
func (w *Worker) send(b hivebeat.Beat) error {
	switch {
	case w.nc.IsConnected():
	case w.nc.IsClosed():
		return nats.ErrConnectionClosed
	default:
		return nats.ErrDisconnected
	}
	payload, err := bus.Encode(&b)
	if err != nil {
		return err
	}
	if reply := w.question(); reply != "" {
		err = w.nc.PublishRequest(w.subject, reply, payload)
	} else {
		err = w.nc.Publish(w.subject, payload)
	}
	if err != nil {
		return err
	}
	w.sent = true
	if !w.begun && !b.State.Goodbye() && b.Exit == "" {
		w.log.Info("beating to its hive", slog.Duration("every", w.cfg.Every))
	}
	w.begun = true
	w.log.Debug("beat", slog.Uint64("seq", b.Seq), slog.String("state", string(b.State)))
	if b.State != w.said && !b.State.SameAs(w.said) {
		w.log.Info("state", slog.String("from", string(w.said)), slog.String("to", string(b.State)), slog.String("reason", b.Reason))
	}
	w.said = b.State
	return nil
}

// current returns the facts of the next beat, which must not be written to.
func (w *Worker) current() Facts {
	base, read := w.facts.Load(), w.read.Load()
	if read == nil {
		return *base
	}
	facts := read.over(base)
	if facts.check() != nil { // each fits a beat, but not both together
		w.n.factsRefused.Add(1)
		return *base
	}
	return facts
}

// refresh calls Config.Facts, and waits a little for the result. A call that does not
// return holds up nothing, and no second call is made meanwhile.
func (w *Worker) refresh() {
	if w.cfg.Facts == nil {
		return
	}
	if w.reading != nil {
		select {
		case <-w.reading:
		default:
			w.n.factsSlow.Add(1)
			return
		}
	}
	done := make(chan struct{})
	w.reading = done
	go w.readFacts(done)
	timer := time.NewTimer(factsWait)
	defer timer.Stop()
	select {
	case <-done:
	case <-timer.C:
		w.n.factsSlow.Add(1)
	}
}

// readFacts calls Config.Facts and stores its result.
func (w *Worker) readFacts(done chan<- struct{}) {
	returned := false
	defer func() {
		if !returned {
			w.n.factsPanics.Add(1)
			w.factsFault(slog.String("panic", fmt.Sprintf("%.200v", recover()))) // nil: runtime.Goexit
		}
		close(done)
	}()
	facts := w.cfg.Facts()
	returned = true
	if err := facts.check(); err != nil {
		w.n.factsRefused.Add(1)
		w.factsFault(slog.Any("err", err))
		return
	}
	old := w.read.Load()
	if old == nil {
		old = &Facts{}
	}
	kept, _ := facts.keep(old)
	w.read.Store(kept)
	w.n.factsFailing.Store(false)
}

// factsFault warns of a failing Config.Facts, once until it works again.
func (w *Worker) factsFault(why slog.Attr) {
	if w.n.factsFailing.CompareAndSwap(false, true) {
		w.log.Warn("the Facts function failed, beats continue with its last good facts", why)
	}
}
