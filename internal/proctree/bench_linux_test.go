package proctree

import (
	"fmt"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// cost runs a benchmark, and reports its CPU time too: on a busy machine the time that
// passes says little.
func cost(b *testing.B, round func()) {
	cpu := func() time.Duration {
		var u unix.Rusage
		if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
			b.Fatal(err)
		}
		return time.Duration(u.Utime.Nano() + u.Stime.Nano())
	}
	round() // the first one reads everything
	b.ReportAllocs()
	began := cpu()
	for b.Loop() {
		round()
	}
	b.ReportMetric(float64(cpu()-began)/float64(b.N), "cpu-ns/op")
}

// BenchmarkRound is what a hive does every 10 s.
func BenchmarkRound(b *testing.B) {
	for _, c := range []struct{ workers, each, others int }{{16, 5, 2000}, {1000, 2, 2000}, {0, 0, 5000}} {
		b.Run(fmt.Sprintf("workers=%d/processes=%d", c.workers, c.workers*c.each+c.others), func(b *testing.B) {
			f := newFakeProc(b)
			f.write(filepath.Join(f.cgroups, "cgroup.controllers"), "memory\n")
			for pid := range c.others {
				f.start(10_000+pid, 1, "S", 5000)
			}
			var workers []Worker
			near := map[uint64]bool{}
			for i := range c.workers {
				root := 50_000 + i*c.each
				for k := range c.each {
					parent := root
					if k == 0 {
						parent = 1
					}
					f.start(root+k, parent, "S", 6000)
					f.write(f.path(uint64(root+k), "cgroup"), fmt.Sprintf("0::/system.slice/w%d.service\n", i))
					near[uint64(root+k)] = true
				}
				dir := fmt.Sprintf("system.slice/w%d.service/", i)
				f.write(filepath.Join(f.cgroups, dir, "memory.max"), "1073741824\n")
				f.write(filepath.Join(f.cgroups, dir, "memory.events"), "oom 0\noom_kill 0\n")
				workers = append(workers, Worker{Key: Key{fmt.Sprint("w", i), 1, uint64(root), hereNS}, Known: 10_000})
			}
			f.start(50, 1, "S", 100)
			forest := NewForest(50, hereNS)
			now := time.Unix(1_700_000_000, 0)
			round := func() {
				now, f.now = now.Add(10*time.Second), f.now+10_000
				s, err := f.Scan(b.Context(), near)
				if err != nil {
					b.Fatal(err)
				}
				forest.Update(now, s, f, workers)
				forest.Owners()
				if got := forest.Measure(now, f); len(got) != c.workers {
					b.Fatalf("facts of %d workers", len(got))
				}
			}
			cost(b, round)
		})
	}
}

// BenchmarkScan scans this machine.
func BenchmarkScan(b *testing.B) {
	r := NewReader()
	n := 0
	cost(b, func() {
		s, err := r.Scan(b.Context(), nil)
		if err != nil {
			b.Fatal(err)
		}
		n = len(s.Procs)
	})
	b.ReportMetric(float64(n), "processes")
}
