package hive

import (
	"errors"
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/beatfabric/hivebeat"
	"github.com/beatfabric/hivebeat/internal/detector"
	"github.com/beatfabric/hivebeat/internal/wire"
)

// whole returns a snapshot with all fields set and n workers.
func whole(t testing.TB, n int) hivebeat.Snapshot {
	r := detector.New(thisHive)
	r.Start(t0)
	for i := range n {
		f := newFake(fmt.Sprintf("worker-%05d", i))
		f.Data, f.Reason = []byte{1, 2, 3}, "because"
		if _, err := r.Receive(t0, f.Next(t), ""); err != nil {
			t.Fatal(err)
		}
	}
	return hivebeat.Snapshot{
		V: hivebeat.Version, Hive: thisHive, Inc: 1_790_000_000_000_000, Every: 15_000, Seq: 7, Sent: 1_790_000_000_123, Warm: true, Pages: 1,
		Bye: "stopped", Labels: map[string]string{"zone": "a", "rack": "7"},
		Host:    hivebeat.Host{Name: "gpu-01", OS: "linux", Arch: "amd64", CPUs: 64, Load1: 1.25, CPU: 12.5, MemTotal: 1 << 40, MemUsed: 1 << 38, Uptime: 3600},
		GPUs:    []hivebeat.GPU{{UUID: "GPU-1", Name: "NVIDIA H100", Total: 80 << 30, Used: 40 << 30, Ours: 30 << 30, Util: 93, Temp: 61, Power: 412_000, Age: 17}},
		Collect: map[string]string{sourceHost: "ok", sourceGPU: "ok", sourceProcs: "ok"},
		Stats:   r.Stats(),
		Workers: r.Records(t0.Add(second)),
	}
}

// reread parses pages as a queen does, and joins them.
func reread(t testing.TB, list [][]byte) hivebeat.Snapshot {
	t.Helper()
	var all hivebeat.Snapshot
	for i, b := range list {
		s, err := wire.DecodeSnapshot(b)
		if err != nil {
			t.Fatalf("page %d: %v", i, err)
		}
		if s.Page != uint64(i) || s.Pages != uint64(len(list)) {
			t.Fatalf("page %d of %d says %d of %d", i, len(list), s.Page, s.Pages)
		}
		rows := append(all.Workers, s.Workers...)
		if i > 0 {
			all.Page, s.Page = 0, 0
			all.Workers, s.Workers = nil, nil
			if diff := cmp.Diff(all, s); diff != "" {
				t.Fatalf("page %d does not stand alone:\n%s", i, diff)
			}
		}
		all = s
		all.Workers = rows
	}
	all.Page, all.Pages = 0, 1
	return all
}

func TestPages(t *testing.T) {
	for _, c := range []struct {
		workers    int
		maxPayload int64
		pages      int // 0: several
	}{
		{0, 1 << 20, 1},
		{1, 1 << 20, 1},
		{15, 1 << 20, 1},
		{16, 1 << 20, 1},
		{100, 1 << 20, 1},
		{100, 1 << 14, 0},
		{3, 1 << 10, 3},
		{5000, 1 << 20, 0},
		{hivebeat.MaxWorkers, 64 << 20, 1},
	} {
		t.Run(fmt.Sprintf("%d workers in %d bytes", c.workers, c.maxPayload), func(t *testing.T) {
			s := whole(t, c.workers)
			list, err := pages(s, c.maxPayload)
			if err != nil {
				t.Fatal(err)
			}
			if c.pages != 0 && len(list) != c.pages || c.pages == 0 && len(list) < 2 {
				t.Errorf("%d pages, want %d (0: several)", len(list), c.pages)
			}
			for i, b := range list {
				if int64(len(b)) > c.maxPayload/2 && c.workers > c.pages {
					t.Errorf("page %d has %d bytes, more than half of %d", i, len(b), c.maxPayload)
				}
				if i < len(list)-1 && c.workers > len(list) && int64(len(b)) < c.maxPayload/2-1000 {
					t.Errorf("page %d has %d bytes only, of %d", i, len(b), c.maxPayload/2)
				}
			}
			if diff := cmp.Diff(s, reread(t, list), cmpopts.EquateEmpty()); diff != "" {
				t.Errorf("what is read differs:\n%s", diff)
			}
		})
	}
}

// page joins the rows without the codec: the result must be what the codec would
// produce.
func TestOnePageIsWhatTheCodecMakes(t *testing.T) {
	for _, n := range []int{0, 1, 15, 16, 300} {
		s := whole(t, n)
		s.Labels, s.Collect = nil, nil // maps have no order
		for i := range s.Workers {
			s.Workers[i].Labels = nil
		}
		list, err := pages(s, 64<<20)
		if err != nil {
			t.Fatal(err)
		}
		want, err := wire.EncodeSnapshot(&s)
		if err != nil {
			t.Fatal(err)
		}
		if string(list[0]) != string(want) {
			t.Errorf("%d workers: differs from the codec", n)
		}
	}
}

func TestTooManyPages(t *testing.T) {
	s := whole(t, hivebeat.MaxPages+1)
	if _, err := pages(s, 100); !errors.Is(err, errTooManyPages) {
		t.Errorf("got %v", err)
	}
}
