package hive

import (
	"context"
	"log/slog"
	"os"
	"sync"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/beatfabric/hivebeat"
	"github.com/beatfabric/hivebeat/internal/detector"
	"github.com/beatfabric/hivebeat/internal/procwatch"
)

// A worker whose process this hive can see is lost when that ends, and not when it
// has been silent for long enough. The kernel is faster than the network: what the
// process said before its end, a goodbye above all, may still be on its way. So it
// is waited for, and heard, before anybody is judged.

const (
	// settle is for beats that were written, and that the server has not read yet,
	// or that cross a cluster. A goodbye that was flushed, as package worker does,
	// is there without.
	settle = 5 * time.Millisecond
	// lastWordsWithin bounds the wait for NATS: the process has ended for sure.
	lastWordsWithin = 100 * time.Millisecond
)

// watchExits begins to watch the processes of workers, if that is possible here.
// What ended comes by the channel, once its last words are in beats.
func (h *Hive) watchExits(ctx context.Context, wg *sync.WaitGroup) <-chan []detector.Exit {
	if h.procs == nil {
		return nil
	}
	exits := make(chan []detector.Exit)
	wg.Go(func() { h.procs.Run(ctx) })
	wg.Go(func() {
		for {
			select {
			case <-ctx.Done():
				return
			case <-h.procs.Ready():
			}
			ended := h.procs.Take()
			if len(ended) == 0 {
				continue
			}
			h.awaitLastWords(ctx)
			list := make([]detector.Exit, len(ended))
			for i, e := range ended {
				list[i] = detector.Exit{Process: e.Key, At: e.At, Reused: e.Reused}
			}
			select {
			case exits <- list:
			case <-ctx.Done():
				return
			}
		}
	})
	return exits
}

// awaitLastWords waits until what was sent so far has come in, as far as one can
// tell. While NATS is away nothing comes.
func (h *Hive) awaitLastWords(ctx context.Context) {
	if !h.nc.IsConnected() {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, lastWordsWithin)
	defer cancel()
	if h.nc.FlushWithContext(ctx) != nil {
		return
	}
	select {
	case <-time.After(settle):
	case <-ctx.Done():
		return
	}
	_ = h.nc.FlushWithContext(ctx)
}

// newProcs returns what watches processes, and nil if none can be.
func newProcs(cfg Config, ns string, reg *detector.Registry) *procwatch.Watcher[detector.Process] {
	if cfg.NoExitWatch || ns == "" {
		return nil
	}
	reg.WatchExits(ns, uint64(os.Getpid()))
	return procwatch.New[detector.Process](procwatch.Config{Max: hivebeat.MaxWorkers, Logger: cfg.Logger})
}

// watch does what the registry asks for.
func (h *Hive) watch(list []detector.Watch) {
	for _, w := range list {
		switch {
		case w.Stop:
			h.procs.Forget(w.Process)
		case !h.procs.Watch(w.Process, w.PID, w.Known):
			h.log.Debug("process not watched", slog.String("worker", w.Worker), slog.Uint64("pid", w.PID))
		}
	}
}

// exited judges workers whose processes ended, after their last words.
func (e *ear) exited(beats <-chan *nats.Msg, list []detector.Exit) {
	e.hearAll(beats)
	now := time.Now()
	e.mu.Lock()
	for _, x := range list {
		e.reg.Exit(now, x)
	}
	steps := e.reg.TakeSteps()
	next, _ := e.reg.Next()
	e.mu.Unlock()
	if len(steps) == 0 {
		return
	}
	e.urge(steps)
	e.logSteps(steps)
	if e.sight.Trusts() && (e.armed.IsZero() || next.Before(e.armed)) {
		e.arm(now, next)
	}
}
