package hive

import (
	"context"
	"os"
	"sync"
	"time"

	"github.com/beatfabric/hivebeat"
	"github.com/beatfabric/hivebeat/internal/detector"
	"github.com/beatfabric/hivebeat/internal/hivecore"
	"github.com/beatfabric/hivebeat/internal/procwatch"
)

// newProcs returns what watches processes, and nil if none can be.
func newProcs(cfg Config, ns string) *procwatch.Watcher[detector.Process] {
	if cfg.NoExitWatch || ns == "" {
		return nil
	}
	return procwatch.New[detector.Process](procwatch.Config{Max: hivebeat.MaxWorkers, Logger: cfg.Logger})
}

// self returns the process id of this hive, and 0 where nothing watches processes.
func (h *Hive) self() uint64 {
	if h.procs == nil {
		return 0
	}
	return uint64(os.Getpid())
}

// watchExits begins to watch the processes of workers, if that is possible here.
// What ended comes by the channel, once its last words are in the channel of beats.
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

// awaitLastWords waits until everything that was sent so far has come in, as far as
// that can be told. While NATS is away nothing comes.
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
