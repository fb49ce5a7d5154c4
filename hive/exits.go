package hive

import (
	"context"
	"os"
	"sync"
	"time"

	"github.com/beatfabric/hivebeat"
	"github.com/beatfabric/hivebeat/internal/detector"
	"github.com/beatfabric/hivebeat/internal/hivecore"
	"github.com/beatfabric/hivebeat/internal/proctree"
	"github.com/beatfabric/hivebeat/internal/procwatch"
)

// newProcs returns the watcher of processes, or nil if the hive can watch none.
func newProcs(cfg Config, ns string) *procwatch.Watcher[detector.Process] {
	if cfg.NoExitWatch || ns == "" {
		return nil
	}
	return procwatch.New[detector.Process](procwatch.Config{Max: hivebeat.MaxWorkers, Logger: cfg.Logger})
}

// self returns the process id of this hive, or 0 if it watches no processes.
func (h *Hive) self() uint64 {
	if h.procs == nil {
		return 0
	}
	return uint64(os.Getpid())
}

// watchExits starts to watch the processes of workers, if that is possible here. The
// channel yields ended processes once their last messages are in the channel of beats.
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
			list := make([]detector.Exit, len(ended))
			for i, e := range ended { // at once, as the cgroup may end with the process
				key := proctree.Key{Worker: e.Key.Worker, Inc: e.Key.Inc, PID: e.Key.PID, NS: h.ns}
				oom := h.table.end(key, time.Since(e.At), h.cfg.processes.Limits)
				list[i] = detector.Exit{Process: e.Key, At: e.At, Reused: e.Reused, OOM: oom}
			}
			h.awaitLastWords(ctx)
			select {
			case exits <- list:
			case <-ctx.Done():
				return
			}
		}
	})
	return exits
}

// awaitLastWords waits until this hive has received everything that was sent before the
// call. It makes its best effort within hivecore.LastWordsWithin, and does not wait while
// NATS is away.
func (h *Hive) awaitLastWords(ctx context.Context) {
	if !h.nc.IsConnected() {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, hivecore.LastWordsWithin)
	defer cancel()
	if h.nc.FlushWithContext(ctx) != nil {
		return
	}
	select {
	case <-time.After(hivecore.LastWordsSettle):
	case <-ctx.Done():
		return
	}
	_ = h.nc.FlushWithContext(ctx)
}
