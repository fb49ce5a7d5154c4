package hive

import (
	"context"
	"log/slog"
	"strconv"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/beatfabric/hivebeat"
	"github.com/beatfabric/hivebeat/internal/wire"
)

// recallWithin bounds how long the first snapshot waits for the last one that a
// queen kept of this hive.
const recallWithin = 500 * time.Millisecond

// recall reads the last snapshot that a queen kept of this hive: once all its
// workers were heard again the hive is warm. Without it, for whatever reason,
// that takes 45 s.
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
		h.log.Debug("no last snapshot", slog.Any("error", err))
		return
	}
	ids, ok := h.recallPages(ctx, kv)
	if !ok {
		return
	}
	h.mu.Lock()
	h.reg.Expect(ids)
	h.mu.Unlock()
	h.log.Info("knows its last snapshot", slog.Int("workers", len(ids)))
}

// recallPages returns the workers that were not given up. It is worth something
// only if the snapshot is whole, and of a hive that was warm itself.
func (h *Hive) recallPages(ctx context.Context, kv jetstream.KeyValue) (ids []string, ok bool) {
	var first wire.SnapshotView
	for page := uint64(0); page == 0 || page < first.Pages; page++ {
		key := h.cfg.ID
		if page > 0 {
			key += "." + strconv.FormatUint(page, 10)
		}
		entry, err := kv.Get(ctx, key)
		if err != nil {
			return nil, false
		}
		var v wire.SnapshotView
		if err := wire.ParseSnapshot(entry.Value(), &v); err != nil {
			return nil, false
		}
		if page == 0 {
			first = v
		}
		if string(v.Hive) != h.cfg.ID || !v.Warm || v.Page != page || v.Inc != first.Inc || v.Seq != first.Seq || v.Pages != first.Pages {
			return nil, false
		}
		for i := range v.Workers {
			if w := &v.Workers[i]; string(w.Live) != string(hivebeat.Lost) && string(w.Live) != string(hivebeat.Left) {
				ids = append(ids, string(w.Worker))
			}
		}
	}
	return ids, true
}
