package fleet

import (
	"fmt"
	"testing"
	"time"

	"github.com/beatfabric/hivebeat/internal/liveness"
	"github.com/beatfabric/hivebeat/internal/wire"
)

// BenchmarkApply100 is a snapshot of 100 workers from its bytes to the view, in
// steady state: one hive's snapshots in turn, each with new ages and counts.
func BenchmarkApply100(b *testing.B) {
	const rounds = 64
	msgs := make([][]byte, rounds)
	v := New(45 * time.Second)
	now := time.Now()
	// The seq has to grow for ever, and the bytes are made before: so the lineage is
	// set back where a round ends.
	for i := range msgs {
		s := fleetSnapshot("gpu-01", 100)
		s.Seq = uint64(i + 1)
		for k := range s.Workers {
			s.Workers[k].Age++ // as the hive counts
			s.Workers[k].Done += uint64(i)
			s.Workers[k].Seq += uint64(i)
		}
		msgs[i] = encode(b, s)
	}
	b.SetBytes(int64(len(msgs[0])))
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		if i%rounds == 0 && i > 0 {
			h := v.hives["gpu-01"]
			h.line = liveness.Lineage{}
		}
		page, err := v.Parse(msgs[i%rounds])
		if err != nil {
			b.Fatal(err)
		}
		if err := v.Apply(page, now); err != nil {
			b.Fatal(err)
		}
		v.Keep(msgs[i%rounds], page)
		v.Take()
	}
}

// BenchmarkTick looks at the deadlines of 10,000 hives while none is due.
func BenchmarkTick(b *testing.B) {
	v := New(45 * time.Second)
	now := time.Now()
	var page wire.SnapshotView
	for i := range 10_000 {
		if err := wire.ParseSnapshot(encode(b, fleetSnapshot(fmt.Sprintf("gpu-%05d", i), 1)), &page); err != nil {
			b.Fatal(err)
		}
		if err := v.Apply(&page, now); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportAllocs()
	for b.Loop() {
		v.Tick(now)
	}
}
