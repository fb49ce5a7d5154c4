package hive

import (
	"context"
	"log/slog"
	"strconv"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/beatfabric/hivebeat"
	"github.com/beatfabric/hivebeat/internal/ledger"
)

// recallWithin bounds how long the first snapshot waits for recall.
const recallWithin = 500 * time.Millisecond

// recall reads the last snapshot that a queen stored for this hive, and passes it to
// the core to judge.
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
	asked, bucket := time.Now(), h.subjects.Bucket(hivebeat.BucketHives)
	s, err := js.Stream(ctx, "KV_"+bucket)
	if err != nil {
		h.log.Debug("no stored snapshot", slog.Any("err", err))
		return
	}
	for page, more := 0, true; more; page++ {
		key := h.cfg.ID
		if page > 0 {
			key += "." + strconv.Itoa(page)
		}
		m, err := s.GetLastMsgForSubject(ctx, "$KV."+bucket+"."+key)
		if err != nil {
			return
		}
		// Stored is by the server's clock alone. The marker of an expired key has no
		// payload.
		now := time.Now()
		e := ledger.Entry{Payload: m.Data, Stored: max(0, s.CachedInfo().TimeStamp.Add(now.Sub(asked)).Sub(m.Time))}
		if ttl, err := time.ParseDuration(m.Header.Get(jetstream.MsgTTLHeader)); err == nil {
			e.TTL = ttl
		}
		h.mu.Lock()
		more = h.core.Recall(now, &e)
		h.mu.Unlock()
	}
}
