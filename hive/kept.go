package hive

import (
	"context"
	"log/slog"
	"strconv"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/beatfabric/hivebeat"
)

// recallWithin bounds how long the first snapshot waits for the last one that a
// queen kept of this hive.
const recallWithin = 500 * time.Millisecond

// recall reads the last snapshot that a queen kept of this hive, for the core to judge.
func (h *Hive) recall(ctx context.Context) {
	if !h.nc.IsConnected() {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, recallWithin)
	defer cancel()
	js, err := jetstream.New(h.nc)
	if err != nil {
		return
	}
	kv, err := js.KeyValue(ctx, h.subjects.Bucket(hivebeat.BucketHives))
	if err != nil {
		h.log.Debug("no last snapshot", slog.Any("err", err))
		return
	}
	for page, more := 0, true; more; page++ {
		key := h.cfg.ID
		if page > 0 {
			key += "." + strconv.Itoa(page)
		}
		entry, err := kv.Get(ctx, key)
		if err != nil {
			return
		}
		h.mu.Lock()
		more = h.core.Recall(entry.Value())
		h.mu.Unlock()
	}
}
