package hive

import (
	"context"
	"log/slog"
	"strconv"
	"time"

	"github.com/beatfabric/hivebeat/internal/core"
	"github.com/beatfabric/hivebeat/internal/detector"
	"github.com/beatfabric/hivebeat/internal/hivecore"
)

// This file carries out what the core asks for.

// urge reports to the pulse which snapshots are due.
func (h *Hive) urge(r *hivecore.Ready) {
	if r.Ended {
		h.pulse.Ended()
	}
	if r.Changed {
		h.pulse.Changed()
	}
	if r.Touch {
		h.pulse.Touch()
	}
	if r.Reconnected {
		h.pulse.Reconnected()
	}
	if r.Answer {
		h.pulse.Call(r.Spread)
	}
}

func (h *Hive) write(ctx context.Context, logs core.Logs) {
	for i := range logs {
		l := &logs[i]
		h.log.LogAttrs(ctx, l.Level, l.Text, l.Attrs...) //nolint:sloglint // texts are constants of the core
	}
}

// callRoll asks the workers to beat within spread.
func (h *Hive) callRoll(spread time.Duration) {
	h.publish(strconv.AppendInt(nil, spread.Milliseconds(), 10))
}

// publish sends payload on the subject where all workers of this hive receive roll
// calls.
func (h *Hive) publish(payload []byte) {
	if err := h.nc.Publish(h.subjects.WorkerRollcall(h.cfg.ID), payload); err != nil {
		h.log.Debug("cannot publish to workers", slog.Any("err", err))
	}
}

// watchProcs starts and stops watching processes of workers.
func (h *Hive) watchProcs(list []detector.Watch) {
	for _, w := range list {
		switch {
		case w.Stop:
			h.procs.Forget(w.Process)
		case !h.procs.Watch(w.Process, w.PID, w.Known):
			h.mu.Lock()
			h.core.Unwatched(w.Process)
			h.mu.Unlock()
			h.log.Debug("process not watched", slog.String("worker", w.Worker), slog.Uint64("pid", w.PID))
		}
	}
}
