package queen

import (
	"fmt"
	"testing"
	"time"

	"github.com/beatfabric/hivebeat/internal/wire"
)

// BenchmarkSummary counts a fleet of 1,000 hives with 100 workers each.
func BenchmarkSummary(b *testing.B) {
	v := newView(45 * time.Second)
	now := time.Now()
	var page wire.SnapshotView
	for i := range 1000 {
		if err := wire.ParseSnapshot(encode(b, fleetSnapshot(fmt.Sprintf("gpu-%04d", i), 100)), &page); err != nil {
			b.Fatal(err)
		}
		if err := v.Apply(&page, now); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportAllocs()
	for b.Loop() {
		v.summary(now)
	}
}
