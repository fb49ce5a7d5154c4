package hive

import (
	"fmt"
	"testing"
	"time"

	"github.com/beatfabric/hivebeat"
	"github.com/beatfabric/hivebeat/internal/detector"
)

// fleet is a registry with n workers, which just joined.
func fleet(b testing.TB, n int) *detector.Registry {
	r := detector.New(thisHive)
	r.Start(t0)
	for i := range n {
		f := newFake(fmt.Sprintf("worker-%04d", i))
		f.VRAM, f.Busy, f.Queue, f.Done = 40<<30, 3, 1, 12345
		if _, err := r.Receive(t0, f.Next(b), ""); err != nil {
			b.Fatal(err)
		}
	}
	r.TakeSteps()
	return r
}

// BenchmarkSnapshot is one snapshot from registry to pages.
func BenchmarkSnapshot(b *testing.B) {
	for _, n := range []int{100, 5000} {
		b.Run(fmt.Sprintf("workers=%d", n), func(b *testing.B) {
			r := fleet(b, n)
			b.ReportAllocs()
			size := 0
			for b.Loop() {
				s := hivebeat.Snapshot{V: 1, Hive: thisHive, Inc: 1, Seq: 1, Every: 15000}
				s.Workers = r.Records(t0.Add(70 * time.Second))
				list, err := pages(s, 1<<20)
				if err != nil {
					b.Fatal(err)
				}
				size = 0
				for _, p := range list {
					size += len(p)
				}
			}
			b.ReportMetric(float64(size), "bytes")
		})
	}
}
