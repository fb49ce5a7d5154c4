package ledger

import (
	"context"
	"time"
)

// Headers of a value in queen_hives.
const (
	HeaderInc = "Hivebeat-Inc"
	HeaderSeq = "Hivebeat-Seq"
)

// Snapshot is one page of a snapshot as it came, to be put.
type Snapshot struct {
	Hive     string
	Page     uint64 // 0-based
	Inc, Seq uint64
	Payload  []byte        // kept until it was put: not to be changed after
	Received time.Time     // with its monotonic reading
	Every    time.Duration // the hive's promise
}

// PutSnapshot puts one page, unless the bucket holds one as new or newer
// (ErrStale). The key lives for max(1 s, ceil(3 × Every − (now − Received))): one
// that is there is fresh. A snapshot received more than one Every ago is refused
// with ErrTooOld. Other errors wrap ErrAway or ErrNoSpace.
func (l *Ledger) PutSnapshot(ctx context.Context, s Snapshot, now time.Time) error { panic("TODO") }
