// Package sidecar beats for an inference engine that knows nothing of hivebeat. It follows
// the engine's process (package life), reads its endpoints (package probe), and lets workers
// (package worker) report the result.
package sidecar

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/beatfabric/hivebeat"
	"github.com/beatfabric/hivebeat/internal/life"
	"github.com/beatfabric/hivebeat/internal/probe"
	"github.com/beatfabric/hivebeat/worker"
)

// Config describes an engine to beat for. Worker.Hive and Worker.ID are required.
type Config struct {
	// Worker has the facts that are known beforehand. Its Model, Endpoint and Slots go
	// before those of the engine. Its State is that of a process that is not probed.
	Worker worker.Config
	// Source yields the engine's process. If it is nil, the process is unknown: the worker
	// beats for the probe alone, and the hive watches the process of the sidecar.
	Source life.Source
	// Guessed says that Source is only a guess from where the engine is read: an engine that
	// answers before its process is found, as in another container or of another user, is
	// beaten for without one.
	Guessed bool
	// Probe says how to read the engine. If it is nil, only its process is followed.
	Probe *probe.Config
	// Logger gets Info when a process is found or has ended, and when the state of the engine
	// changes. Default: nothing is logged.
	Logger *slog.Logger
}

// Engine beats for one engine: as one worker, or also as one for each model that it has
// loaded. Each life of its process is a new incarnation.
type Engine struct {
	nc     *nats.Conn
	cfg    Config
	log    *slog.Logger
	prober *probe.Prober

	leave context.CancelFunc // ends Run; set by New, so that Stop may come first
	gone  context.Context
	ended chan struct{}

	mu   sync.Mutex
	ran  bool
	last life.End
	why  string // for the goodbye
}

// New returns an engine that beats once Run is called.
func New(nc *nats.Conn, cfg Config) (*Engine, error) {
	cfg.Logger = cmp.Or(cfg.Logger, slog.New(slog.DiscardHandler))
	e := &Engine{nc: nc, cfg: cfg, ended: make(chan struct{})}
	e.log = cfg.Logger.With(slog.String("worker", cfg.Worker.ID))
	e.gone, e.leave = context.WithCancel(context.Background())
	if cfg.Probe != nil {
		p, err := probe.New(*cfg.Probe)
		if err != nil {
			return nil, err
		}
		e.prober = p
	}
	if _, err := worker.New(nc, cfg.Worker); err != nil { // only to check the Config
		return nil, err
	}
	return e, nil
}

// Run beats until ctx ends, Stop is called, or the source yields no further process. It says
// goodbye before it returns. It works once.
func (e *Engine) Run(ctx context.Context) error {
	e.mu.Lock()
	if e.ran {
		e.mu.Unlock()
		return fmt.Errorf("sidecar: %w", hivebeat.ErrStopped)
	}
	e.ran = true
	e.mu.Unlock()
	defer close(e.ended)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(e.gone, cancel)()
	l := loop{Engine: e, procs: make(chan life.Process), readings: make(chan reading, 1)}
	err := l.run(ctx)
	if errors.Is(err, life.ErrOver) || errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}

// Stop ends Run in order and waits for it.
func (e *Engine) Stop(ctx context.Context) error { return e.StopFor(ctx, "") }

// StopFor is Stop with a reason, which the goodbye gives.
func (e *Engine) StopFor(ctx context.Context, reason string) error {
	e.mu.Lock()
	e.why = reason
	e.mu.Unlock()
	e.leave()
	e.mu.Lock()
	ran := e.ran
	e.ran = true // a later Run returns at once
	e.mu.Unlock()
	if !ran {
		return nil
	}
	select {
	case <-e.ended:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Last returns how the engine's last process ended.
func (e *Engine) Last() life.End {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.last
}

// loop is the state of Run.
type loop struct {
	*Engine
	judge    *probe.Judge
	group    *group // the workers of this life; nil between two lives
	waiting  bool   // the group waits for its first process
	heard    bool   // the engine has answered in this life
	procs    chan life.Process
	readings chan reading
	timer    *time.Timer
	patience *time.Ticker // while it waits for a process
	asking   bool
	wg       sync.WaitGroup
}

type reading struct {
	of *group
	probe.Reading
	err error
}

func (l *loop) run(ctx context.Context) (err error) {
	over := make(chan error, 1)
	l.timer = time.NewTimer(time.Hour)
	l.timer.Stop()
	ctx, cancel := context.WithCancel(ctx)
	defer func() {
		cancel()
		l.wg.Wait()
		l.timer.Stop()
	}()
	l.patience = time.NewTicker(waitingEvery)
	defer l.patience.Stop()
	if err := l.open(); err != nil {
		return err
	}
	var ended <-chan life.End
	if l.cfg.Source == nil {
		l.begin(life.Process{})
	} else {
		l.await(ctx, over)
		if l.cfg.Guessed && l.prober != nil {
			l.look()
		}
	}
	for {
		select {
		case <-ctx.Done():
			l.stop(ended)
			return ctx.Err()
		case err := <-over: // no process came, and none will
			l.stop(nil)
			return err
		case p := <-l.procs:
			if l.group == nil {
				if err := l.open(); err != nil {
					return err
				}
			}
			ended = p.Ended
			l.begin(p)
		case end := <-ended:
			ended = nil
			l.end(end)
			if end.Final {
				return life.ErrOver
			}
			l.await(ctx, over)
		case <-l.patience.C:
			if l.waiting && !l.heard && l.group != nil && l.cfg.Source != nil {
				l.group.state(hivebeat.Starting, l.cfg.Source.Waiting())
			}
		case <-l.timer.C:
			l.ask(ctx)
		case r := <-l.readings:
			l.asking = false
			l.hear(r)
		}
	}
}

// open begins an incarnation.
func (l *loop) open() error {
	g, err := newGroup(l.Engine, l.cfg.Source != nil || l.prober != nil)
	if err != nil {
		return err
	}
	l.group, l.waiting = g, true
	if l.cfg.Source != nil {
		g.state(hivebeat.Starting, l.cfg.Source.Waiting())
	}
	return nil
}

// await asks the source for the next process.
func (l *loop) await(ctx context.Context, over chan<- error) {
	l.wg.Go(func() {
		p, err := l.cfg.Source.Next(ctx)
		if err != nil {
			over <- err
			return
		}
		select {
		case l.procs <- p:
		case <-ctx.Done():
		}
	})
}

// begin follows a process that runs.
func (l *loop) begin(p life.Process) {
	l.waiting = false
	if p.PID != 0 {
		l.log.Info("process", slog.Uint64("pid", p.PID))
	}
	l.group.process(p.PID)
	if l.prober == nil {
		l.group.state(cmp.Or(l.cfg.Worker.State, hivebeat.Ready), "")
		return
	}
	l.look()
}

// look begins to read the engine.
func (l *loop) look() {
	l.judge, l.heard = probe.NewJudge(probe.JudgeConfig{Every: l.cfg.Probe.Every}), false
	l.timer.Reset(0)
}

// end reports the end of the process.
func (l *loop) end(end life.End) {
	l.timer.Stop()
	l.mu.Lock()
	l.last = end
	l.mu.Unlock()
	level := slog.LevelWarn
	if end.Orderly {
		level = slog.LevelInfo
	}
	l.log.Log(context.Background(), level, "process ended", slog.String("how", end.How), slog.Bool("orderly", end.Orderly), slog.String("reason", end.Reason))
	l.group.end(end)
	l.group = nil
}

// stop says goodbye. If the source ends the process itself, as a runner does, the goodbye waits
// for that.
func (l *loop) stop(ended <-chan life.End) {
	if l.group == nil { // its last process has died, and the last beat said that another one follows
		if l.Last().Orderly || l.open() != nil {
			return
		}
		l.group.end(life.End{Orderly: true, Reason: "stopped before it was there again"})
		l.group = nil
		return
	}
	if s, ok := l.cfg.Source.(Owner); ok && ended != nil {
		l.group.state(hivebeat.Draining, "stopping")
		s.Stop()
		l.end(<-ended)
		return
	}
	l.mu.Lock()
	why := l.why
	l.mu.Unlock()
	l.group.end(life.End{Orderly: true, Reason: why})
	l.group = nil
}

// waitingEvery is how often the worker asks what its source waits for.
const waitingEvery = time.Second

// Owner is a source that started its process, and ends it when the worker is stopped.
type Owner interface {
	// Stop ends the process, first in order and then by force. Ended receives the end.
	Stop()
}

// ask reads the engine, one reading at a time.
func (l *loop) ask(ctx context.Context) {
	if l.asking || l.group == nil {
		return
	}
	l.asking = true
	g := l.group
	l.wg.Go(func() {
		r, err := l.prober.Read(ctx)
		l.readings <- reading{g, r, err} // it has room: there is one reading at a time
	})
}

// hear takes the result of a reading.
func (l *loop) hear(r reading) {
	if l.group == nil {
		return
	}
	if r.of != l.group { // a reading of the process before
		l.timer.Reset(0)
		return
	}
	l.heard = l.heard || r.err == nil
	if l.waiting && !l.heard { // neither its process nor an answer: it is not there yet
		l.timer.Reset(jitter(cmp.Or(l.cfg.Probe.Every, probe.DefaultEvery)))
		return
	}
	report := l.judge.Hear(time.Now(), r.Reading, r.err)
	l.group.report(&report)
	l.timer.Reset(jitter(report.Next))
}

// jitter spreads the readings of many engines.
func jitter(d time.Duration) time.Duration {
	return time.Duration(float64(d) * (0.95 + 0.1*rand.Float64()))
}
