package fleet

import (
	"testing"
	"time"

	"github.com/beatfabric/hivebeat"
	"github.com/beatfabric/hivebeat/internal/index"
	"github.com/beatfabric/hivebeat/internal/index/indextest"
	"github.com/beatfabric/hivebeat/internal/sampletest"
	"github.com/beatfabric/hivebeat/internal/wire"
)

// What tests put on the wire.
var (
	epoch         = sampletest.Epoch
	at            = sampletest.At
	snapshotOf    = sampletest.Snapshot
	workerOf      = sampletest.Record
	encode        = sampletest.Encode
	fleetSnapshot = sampletest.Machine
)

// feed sends s through the bytes of the wire into v.
func feed(t testing.TB, v *View, s *hivebeat.Snapshot, now time.Time) error {
	t.Helper()
	var page wire.SnapshotView
	if err := wire.ParseSnapshot(encode(t, s), &page); err != nil {
		t.Fatalf("the test's own snapshot: %v", err)
	}
	return v.Apply(&page, now)
}

// settleChecks lets time pass up to now, and each verdict stand.
func settleChecks(v *View, now time.Time) {
	v.Tick(now)
	for len(v.ready.Checks) > 0 {
		c := v.ready.Checks[0]
		v.ready.Checks = v.ready.Checks[1:]
		v.Checked(c, 0, 0, now)
	}
}

// verify settles v and checks its index.
func verify(v *View, now time.Time) error {
	v.Settle(now)
	return indextest.Verify(v.index, now)
}

// Worker returns what the index has of a worker of h, or nil.
func (h *Hive) Worker(id string) *index.Worker { return h.entry.Worker(id) }

// Workers returns what the index has of the workers of h, in order of their ids.
func (h *Hive) Workers() []*index.Worker { return h.entry.Workers() }
