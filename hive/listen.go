package hive

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"sync"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/beatfabric/hivebeat"
	"github.com/beatfabric/hivebeat/bus"
	"github.com/beatfabric/hivebeat/internal/wire"
)

// ear is what the goroutine that hears keeps for itself.
type ear struct {
	*Hive
	sight sight

	timer *time.Timer // the next deadline
	armed time.Time   // zero: none, or not to be judged now

	push    *time.Timer // the next time that facts may be pushed
	pushAt  time.Time
	pushing bool // push is armed
}

// listen feeds the registry: beats, deadlines and the state of the connection. It
// returns an error if the connection is closed.
func (h *Hive) listen(ctx context.Context, beats, calls <-chan *nats.Msg, status <-chan nats.Status) error {
	e := &ear{Hive: h, timer: time.NewTimer(time.Hour), push: time.NewTimer(time.Hour)}
	defer e.timer.Stop()
	defer e.push.Stop()
	if h.nc.IsConnected() {
		e.reopen(time.Now())
	} else {
		h.log.Warn("NATS is away: waiting for it")
	}
	for {
		select {
		case <-ctx.Done():
			return nil
		case m := <-beats:
			e.beat(time.Now(), m)
		case m := <-calls:
			e.called(m)
		case s, ok := <-status:
			if err := e.status(time.Now(), s, ok); err != nil {
				return err
			}
		case <-e.timer.C:
			e.judge(beats)
		case <-e.push.C:
			if e.pushing {
				e.pushing = false
				e.facts(time.Now())
			}
		}
	}
}

// beat hears one message of a worker.
func (e *ear) beat(now time.Time, m *nats.Msg) {
	e.sight.prove(now)
	pinned := ""
	if len(m.Subject) > len(e.pinned) {
		pinned = m.Subject[len(e.pinned):]
	}
	e.mu.Lock()
	got, err := e.reg.receive(now, m.Data, pinned)
	if err != nil {
		e.reg.refuse(err)
	}
	var steps []step
	if got.urgent {
		steps = e.reg.takeSteps()
	}
	next, _ := e.reg.next()
	e.mu.Unlock()

	if err != nil {
		e.logRefused(now, m.Subject, err)
	} else if e.log.Enabled(context.Background(), slog.LevelDebug) {
		e.log.Debug("beat", slog.String("worker", string(wire.PeekWorker(m.Data))), slog.Int("bytes", len(m.Data)))
	}
	if got.urgent {
		e.pulse.Changed()
		e.logSteps(steps)
	}
	if got.facts && e.cfg.PushFacts > 0 && !e.pushing {
		e.facts(now)
	}
	if e.sight.open && (e.armed.IsZero() || next.Before(e.armed)) {
		e.arm(now, next)
	}
}

// facts pushes what changed, or waits until it may.
func (e *ear) facts(now time.Time) {
	if wait := e.pushAt.Sub(now); wait > 0 {
		e.pushing = true
		e.push.Reset(wait)
		return
	}
	e.pushAt = now.Add(e.cfg.PushFacts)
	e.pulse.Touch()
}

// judge hears what came in before it judges: who waits to be heard is not late.
func (e *ear) judge(beats <-chan *nats.Msg) {
	for range len(beats) {
		e.beat(time.Now(), <-beats)
	}
	e.detect(time.Now())
}

// detect judges those whose deadline passed.
func (e *ear) detect(now time.Time) {
	e.armed = time.Time{}
	if !e.sight.open {
		return // silence is no evidence; reopen goes on
	}
	e.mu.Lock()
	e.reg.detect(now)
	steps := e.reg.takeSteps()
	next, ok := e.reg.next()
	e.mu.Unlock()
	if len(steps) > 0 {
		e.pulse.Changed()
		e.logSteps(steps)
	}
	if ok {
		e.arm(now, next)
	}
}

// arm sets the timer to a deadline.
func (e *ear) arm(now, next time.Time) {
	if next.IsZero() {
		return
	}
	e.armed = next
	e.timer.Reset(max(0, next.Sub(now)))
}

// status follows the connection.
func (e *ear) status(now time.Time, s nats.Status, ok bool) error {
	switch {
	case !ok || s == nats.CLOSED:
		e.open.Store(false)
		return fmt.Errorf("hive: %w", nats.ErrConnectionClosed)
	case s != nats.CONNECTED || e.sight.open: // connected, and we thought it was: it was gone in between
		e.close(now)
	}
	// The last word is the connection's own: of many changes some are not told.
	if e.nc.IsConnected() {
		e.reopen(now)
	}
	return nil
}

func (e *ear) close(now time.Time) {
	e.open.Store(false)
	// nats.go gives a peer up when so many pings were not answered.
	unnoticed := e.nc.Opts.PingInterval * time.Duration(e.nc.Opts.MaxPingsOut+1)
	if e.sight.close(now, unnoticed) {
		e.log.Warn("NATS is away: nobody is judged by silence until it is back")
	}
}

func (e *ear) reopen(now time.Time) {
	if e.sight.open {
		return
	}
	blind, first := e.sight.reopen(now)
	e.open.Store(true)
	e.mu.Lock()
	if first {
		e.reg.start(now)
	} else {
		e.reg.credit(blind)
	}
	workers := len(e.reg.workers)
	e.mu.Unlock()
	if first {
		e.log.Info("hears workers", slog.String("subject", e.subjects.Workers(e.cfg.ID)))
	} else {
		e.log.Info("NATS is back", slog.Duration("credited", blind), slog.Int("workers", workers))
		e.pulse.Reconnected()
	}
	e.callRoll(workers)
	e.detect(now)
}

// callRoll asks the workers to beat now: at the start nobody is known, and after a
// cut nobody knows who came through.
func (e *ear) callRoll(workers int) {
	spread := max(hivebeat.WorkerRollSpread, time.Duration(workers)*time.Millisecond)
	err := e.nc.Publish(e.subjects.WorkerRollcall(e.cfg.ID), strconv.AppendInt(nil, spread.Milliseconds(), 10))
	if err != nil {
		e.log.Debug("roll call not sent", slog.Any("error", err))
	}
}

// called answers a roll call of a queen.
func (e *ear) called(m *nats.Msg) {
	e.sight.prove(time.Now())
	spread, err := bus.ParseSpread(m.Data, hivebeat.HiveRollSpread)
	if err != nil {
		e.mu.Lock()
		e.reg.refuse(err)
		e.mu.Unlock()
		e.logRefused(time.Now(), m.Subject, err)
		return
	}
	e.pulse.Call(spread)
}

func (h *Hive) logRefused(now time.Time, subject string, err error) {
	reason := hivebeat.ReasonOf(err)
	h.log.Debug("message refused", slog.String("subject", subject), slog.Any("error", err))
	if reason == hivebeat.RefusedStale { // happens, and is counted
		return
	}
	if n := h.limiter.allow(reason, now); n > 0 {
		h.log.Warn("messages refused", slog.String("reason", string(reason)), slog.Uint64("count", n),
			slog.String("subject", subject), slog.Any("error", err))
	}
}

func (h *Hive) logSteps(steps []step) {
	for i := range steps {
		s := &steps[i]
		level := slog.LevelInfo
		attrs := []slog.Attr{slog.String("worker", s.worker), slog.String("kind", string(s.Kind))}
		if s.From != "" {
			attrs = append(attrs, slog.String("from", s.From))
		}
		attrs = append(attrs, slog.String("to", s.To), slog.Uint64("inc", s.Inc), slog.Uint64("seq", s.seq), slog.Uint64("n", s.N))
		if s.Cause != "" {
			attrs = append(attrs, slog.String("cause", string(s.Cause)))
		}
		if s.age > 0 {
			attrs = append(attrs, slog.Duration("age", s.age))
		}
		if s.reason != "" {
			attrs = append(attrs, slog.String("reason", s.reason))
		}
		switch {
		case s.Kind == hivebeat.KindLost || s.Kind == hivebeat.KindConflict:
			level = slog.LevelWarn
		case s.margin > 0: // the verdict was wrong, or right about the link only
			level = slog.LevelWarn
			attrs = append(attrs, slog.Duration("margin", s.margin), slog.Bool("cut_off", s.cutOff))
		}
		h.log.LogAttrs(context.Background(), level, "worker verdict", attrs...)
	}
}

func (h *Hive) collectHost(ctx context.Context, wg *sync.WaitGroup) {
	read := h.cfg.Host
	if read == nil {
		read = new(hostReader).read
	}
	c := collector[hivebeat.Host]{
		every: collectEvery, limit: collectLimit, read: read,
		store: func(_ time.Time, v hivebeat.Host, err error) {
			if h.machine.storeHost(v, err) {
				h.collected(sourceHost, err)
			}
		},
	}
	wg.Go(func() { c.run(ctx) })
}

func (h *Hive) collectGPUs(ctx context.Context, wg *sync.WaitGroup) {
	read := nvidia{}.read
	if h.cfg.GPUs != nil {
		read = func(ctx context.Context) (gpuReading, error) {
			list, err := h.cfg.GPUs(ctx)
			if err == nil && len(list) == 0 {
				err = errNone
			}
			return gpuReading{gpus: list, appsErr: errNone}, err
		}
	}
	c := collector[gpuReading]{
		every: collectEvery, limit: collectLimit, read: read,
		store: func(at time.Time, v gpuReading, err error) {
			h.mu.Lock()
			pids := h.reg.pids(h.ns)
			h.mu.Unlock()
			if h.machine.storeGPUs(at, v, err, pids) {
				h.collected(sourceGPU, err)
			}
		},
	}
	wg.Go(func() { c.run(ctx) })
}

// collected tells how a source fares, when that changed.
func (h *Hive) collected(source string, err error) {
	h.pulse.Touch()
	switch {
	case errors.Is(err, errNone):
		h.log.Info("nothing to collect", slog.String("source", source))
	case err != nil:
		h.log.Warn("can not collect", slog.String("source", source), slog.Any("error", err))
	default:
		h.log.Info("collecting", slog.String("source", source))
	}
}
