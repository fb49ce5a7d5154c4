package hive

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/beatfabric/hivebeat"
	"github.com/beatfabric/hivebeat/internal/detector"
	"github.com/beatfabric/hivebeat/internal/liveness"
	"github.com/beatfabric/hivebeat/internal/wire"
)

// ear is what the goroutine that hears keeps for itself.
type ear struct {
	*Hive

	sight  liveness.Observer
	tokens chan uint64    // those that are back
	flying sync.WaitGroup // tokens that are under way
	roll   bool           // is to be called once the doubt is over
	lost   uint64         // drops that were not logged

	closings *closings // of connections

	timer *time.Timer // the next deadline
	armed time.Time   // zero: none, or not to be judged now

	answers *time.Timer // the end of the wait for those to a roll call

	push    *time.Timer // the next time that facts may be pushed
	pushAt  time.Time
	pushing bool // push is armed
}

// listen feeds the registry: beats, deadlines and the state of the connection. It
// returns an error if the connection is closed.
func (h *Hive) listen(ctx context.Context, beats, calls <-chan *nats.Msg, exits <-chan []detector.Exit, status <-chan nats.Status) error {
	closings, err := h.hearClosings()
	if err != nil {
		return err
	}
	defer h.endClosings(closings)
	ctx, cancel := context.WithCancel(ctx)
	e := &ear{
		Hive: h, closings: closings, tokens: make(chan uint64),
		timer: time.NewTimer(time.Hour), answers: time.NewTimer(time.Hour), push: time.NewTimer(time.Hour),
	}
	defer e.flying.Wait()
	defer cancel()
	defer e.timer.Stop()
	defer e.answers.Stop()
	defer e.push.Stop()
	look := time.NewTicker(liveness.LookEvery)
	defer look.Stop()
	e.look(time.Now())
	if h.nc.IsConnected() {
		e.reopen(time.Now())
	} else {
		h.log.Warn("NATS is away: waiting for it")
	}
	for {
		e.sendToken(ctx, time.Now())
		select {
		case <-ctx.Done():
			return nil
		case m := <-beats:
			e.beat(time.Now(), m)
		case m := <-calls:
			e.called(m)
		case list := <-exits:
			e.look(time.Now())
			e.exited(beats, list)
		case s, ok := <-status:
			if err := e.status(time.Now(), s, ok); err != nil {
				return err
			}
		case m := <-closings.messages:
			e.closed(ctx, beats, m)
		case at := <-closings.settled:
			e.settled(ctx, beats, at)
		case s, ok := <-closings.status:
			e.systemStatus(s, ok)
		case <-e.timer.C:
			e.judge(beats)
		case <-e.answers.C:
			e.answered(beats)
		case <-look.C:
			e.look(time.Now())
			e.countDrops(time.Now())
		case token := <-e.tokens:
			e.tokenBack(beats, token)
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
	e.look(now)
	e.sight.Prove(now)
	pinned := ""
	if len(m.Subject) > len(e.pinned) {
		pinned = m.Subject[len(e.pinned):]
	}
	e.mu.Lock()
	got, err := e.reg.Receive(now, m.Data, pinned)
	if err != nil {
		e.reg.Refuse(err)
	}
	var steps []detector.Step
	if got.Urgent {
		steps = e.reg.TakeSteps()
	}
	next, _ := e.reg.Next()
	watches, answered := e.reg.TakeWatches(), e.reg.Answered(now)
	e.mu.Unlock()

	e.watch(watches)
	if answered {
		e.tellAges()
	}
	if err != nil {
		e.logRefused(now, m.Subject, err)
	} else if e.log.Enabled(context.Background(), slog.LevelDebug) {
		e.log.Debug("beat", slog.String("worker", string(wire.PeekWorker(m.Data))), slog.Int("bytes", len(m.Data)))
	}
	if got.Urgent {
		e.urge(steps)
		e.logSteps(steps)
	}
	if got.Facts && e.cfg.PushFacts > 0 && !e.pushing {
		e.facts(now)
	}
	if e.sight.Trusts() && (e.armed.IsZero() || next.Before(e.armed)) {
		e.arm(now, next)
	}
}

// urge has a snapshot sent at once. One that tells an end does not wait for those
// that told something else.
func (e *ear) urge(steps []detector.Step) {
	if detector.Ended(steps) {
		e.pulse.Ended()
	} else {
		e.pulse.Changed()
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
	now := time.Now()
	e.look(now)
	e.hearAll(beats)
	e.countDrops(now)
	e.detect(time.Now())
}

// hearAll hears what came in already.
func (e *ear) hearAll(beats <-chan *nats.Msg) {
	for range len(beats) {
		e.beat(time.Now(), <-beats)
	}
}

// detect judges those whose deadline passed.
func (e *ear) detect(now time.Time) {
	e.armed = time.Time{}
	if !e.sight.Trusts() {
		return // silence is no evidence; the token's return goes on
	}
	e.mu.Lock()
	next, ok := e.reg.Next()
	e.mu.Unlock()
	if ok && !now.Before(next) && !e.sight.Hears(now) {
		return // the same: perhaps nobody is heard
	}
	e.mu.Lock()
	e.reg.Detect(now)
	steps, ask := e.reg.TakeSteps(), e.reg.TakeAsk()
	next, ok = e.reg.Next()
	watches := e.reg.TakeWatches()
	e.mu.Unlock()
	e.watch(watches)
	if ask {
		e.ask(now)
	}
	if len(steps) > 0 {
		e.urge(steps)
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

func (h *Hive) logSteps(steps []detector.Step) {
	for i := range steps {
		s := &steps[i]
		level := slog.LevelInfo
		attrs := []slog.Attr{slog.String("worker", s.Worker), slog.String("kind", string(s.Kind))}
		if s.From != "" {
			attrs = append(attrs, slog.String("from", s.From))
		}
		attrs = append(attrs, slog.String("to", s.To), slog.Uint64("inc", s.Inc), slog.Uint64("seq", s.Seq), slog.Uint64("n", s.N))
		if s.Cause != "" {
			attrs = append(attrs, slog.String("cause", string(s.Cause)))
		}
		if s.Age > 0 {
			attrs = append(attrs, slog.Duration("age", s.Age))
		}
		if s.Reason != "" {
			attrs = append(attrs, slog.String("reason", s.Reason))
		}
		if s.Detect > 0 {
			attrs = append(attrs, slog.Duration("detect", s.Detect))
		}
		switch {
		case s.Damped:
			level = slog.LevelDebug
			attrs = append(attrs, slog.Bool("damped", true))
		case s.Kind == hivebeat.KindLost || s.Kind == hivebeat.KindConflict:
			level = slog.LevelWarn
		case s.Margin > 0: // the verdict was wrong, or right about the link only
			level = slog.LevelWarn
			attrs = append(attrs, slog.Duration("margin", s.Margin), slog.Bool("cut_off", s.CutOff))
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
			pids := h.reg.Pids(h.ns)
			h.mu.Unlock()
			if err == nil && v.appsErr == nil {
				h.table.setVRAM(at, v.apps, pids)
			}
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
	level := slog.LevelInfo
	if source == sourceOS { // there is something whenever a worker is, and nothing when the last one left
		level = slog.LevelDebug
	}
	switch {
	case errors.Is(err, errNone):
		h.log.Log(context.Background(), level, "nothing to collect", slog.String("source", source))
	case err != nil:
		h.log.Warn("can not collect", slog.String("source", source), slog.Any("error", err))
	default:
		h.log.Log(context.Background(), level, "collecting", slog.String("source", source))
	}
}
