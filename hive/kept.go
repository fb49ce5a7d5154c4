package hive

import (
	"context"
	"errors"
	"log/slog"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/beatfabric/hivebeat"
	"github.com/beatfabric/hivebeat/internal/bootid"
	"github.com/beatfabric/hivebeat/internal/gpu"
	"github.com/beatfabric/hivebeat/internal/ledger"
)

// recallWithin bounds how long the first snapshot waits for recall.
const recallWithin = 500 * time.Millisecond

const (
	recallTries = 3 // of recallLater
	recallPause = 10 * time.Second
)

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

// recallGPUs reads what queens keep of this hive's GPUs, and passes it to the fleet. It
// reports whether that is known: it is not if NATS or JetStream does not answer.
func (h *Hive) recallGPUs(ctx context.Context) bool {
	if !h.nc.IsConnected() {
		return false
	}
	ctx, cancel := context.WithTimeout(ctx, recallWithin)
	defer cancel()
	js, err := jetstream.New(h.nc)
	if err != nil {
		return true
	}
	asked, bucket := time.Now(), h.subjects.Bucket(hivebeat.BucketRoster)
	s, err := js.Stream(ctx, "KV_"+bucket)
	if err != nil {
		h.log.Debug("no stored GPUs", slog.Any("err", err))
		return errors.Is(err, jetstream.ErrStreamNotFound)
	}
	m, err := s.GetLastMsgForSubject(ctx, "$KV."+bucket+"."+gpu.MemoryKey(h.cfg.ID))
	if err != nil {
		h.log.Debug("no stored GPUs", slog.Any("err", err))
		return errors.Is(err, jetstream.ErrMsgNotFound)
	}
	kept, err := gpu.DecodeMemory(m.Data)
	if err != nil {
		h.log.Debug("stored GPUs cannot be read", slog.Any("err", err))
		return true
	}
	now := time.Now()
	stored := max(0, s.CachedInfo().TimeStamp.Add(now.Sub(asked)).Sub(m.Time)) // by the server's clock alone
	rebooted := restarted(kept.Boot, h.ns, stored, time.Duration(bootid.Clock())*time.Millisecond)
	h.judgeGPUs(func(f *gpu.Fleet) { f.Recall(now, kept, stored, rebooted) })
	h.log.Debug("recalled GPUs", slog.Int("gpus", len(kept.GPUs)), slog.Bool("rebooted", rebooted))
	return true
}

// restarted reports whether the machine began a new boot since a Memory was put: it names
// another boot, or was put when this boot, which has lasted for up, had not begun.
func restarted(boot, ns string, stored, up time.Duration) bool {
	if is, _, _ := strings.Cut(ns, "/"); boot != "" && is != "" {
		return boot != is
	}
	return up > 0 && stored > up
}

// recallLater calls recallGPUs again, for a NATS that was not reachable at first. GPUs that
// were read meanwhile are known better.
func (h *Hive) recallLater(ctx context.Context) {
	for range recallTries {
		select {
		case <-time.After(recallPause):
		case <-ctx.Done():
			return
		}
		if h.recallGPUs(ctx) {
			return
		}
	}
}
