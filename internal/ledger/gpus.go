package ledger

import (
	"context"
	"time"

	"github.com/beatfabric/hivebeat"
	"github.com/beatfabric/hivebeat/internal/gpu"
)

// GPUItem is what the roster keeps of the GPUs of a hive, as it was read.
type GPUItem struct {
	Body     []byte        // a gpu.Memory; nil if there is none
	Revision uint64        // to pass to PutGPUs
	Stored   time.Duration // how long ago it was put, by the server's clock alone
}

// GPUs reads what the roster keeps of the GPUs of a hive.
func (l *Ledger) GPUs(ctx context.Context, hive string) (GPUItem, error) {
	if err := hivebeat.CheckID("hive", hive); err != nil {
		return GPUItem{}, err
	}
	asked := time.Now()
	info, err := l.info(ctx, bucketStream(l.bucketOf(atRoster)))
	if err != nil {
		return GPUItem{}, wrap(ctx, "GPUs of "+hive, err)
	}
	m, err := l.last(ctx, atRoster, gpu.MemoryKey(hive), true)
	if err != nil {
		return GPUItem{}, wrap(ctx, "GPUs of "+hive, err)
	}
	item := GPUItem{Revision: m.seq}
	if m.seq != 0 && !isMarker(m.header) {
		item.Body, item.Stored = m.data, max(0, info.TimeStamp.Add(time.Since(asked)).Sub(m.stored))
	}
	return item, nil
}

// PutGPUs replaces what the roster keeps of the GPUs of a hive. ErrConflict: another queen was first, and body
// was not written.
func (l *Ledger) PutGPUs(ctx context.Context, hive string, revision uint64, body []byte) error {
	if err := hivebeat.CheckID("hive", hive); err != nil {
		return err
	}
	_, err := l.put(ctx, gpu.MemoryKey(hive), revision, body, nil)
	return err
}
