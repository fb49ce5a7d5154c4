package queen

import (
	"fmt"
	"testing"
	"time"

	"github.com/beatfabric/hivebeat"
	"github.com/beatfabric/hivebeat/internal/fleet"
	"github.com/beatfabric/hivebeat/internal/query"
	"github.com/beatfabric/hivebeat/internal/wire"
	"github.com/beatfabric/hivebeat/queen/api"
)

// view is the fleet and what is asked of it, without a queen around.
type view struct{ *fleet.View }

// answer answers as a queen does, but for its status.
func (v view) answer(verb string, r api.Request, now time.Time) api.Answer {
	if e := query.Check(verb, &r); e != nil {
		return api.Answer{Error: e}
	}
	v.Settle(now)
	if verb == api.VerbHives || verb == api.VerbWorkers {
		job := query.Page(verb, r)
		for !job.Step(v.View, now) {
		}
		return job.Answer()
	}
	return query.One(v.View, verb, &r, now)
}

func (v view) summary(now time.Time) api.Summary {
	v.Settle(now)
	return query.Summary(v.View)
}

// epoch is when the tests of the pure core begin; it has no monotonic reading.
var epoch = time.Date(2030, 1, 2, 3, 4, 5, 0, time.UTC)

// snapshotOf returns a whole, warm snapshot.
func snapshotOf(hive string, inc, seq uint64, workers ...hivebeat.Record) *hivebeat.Snapshot {
	return &hivebeat.Snapshot{
		V: 1, Hive: hive, Inc: inc, Seq: seq, Every: 15000, Warm: true, Pages: 1,
		Labels: map[string]string{"zone": "eu"}, Workers: append([]hivebeat.Record{}, workers...),
	}
}

// workerOf returns a record as a hive has it that has numbered one transition,
// joined, long ago.
func workerOf(id string) hivebeat.Record {
	return hivebeat.Record{
		Worker: id, Live: hivebeat.Alive, N: 1, Age: 5000, Since: 100_000,
		Facts: hivebeat.Facts{Inc: 7, Every: 30000, Seq: 10, State: hivebeat.Ready, Model: "llama"},
	}
}

func encode(t testing.TB, s *hivebeat.Snapshot) []byte {
	t.Helper()
	b, err := wire.EncodeSnapshot(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// at returns the time so many seconds after epoch.
func at(seconds float64) time.Time {
	return epoch.Add(time.Duration(seconds * float64(time.Second)))
}

// feed sends s through the bytes of the wire into v.
func feed(t testing.TB, v view, s *hivebeat.Snapshot, now time.Time) error {
	t.Helper()
	var page wire.SnapshotView
	if err := wire.ParseSnapshot(encode(t, s), &page); err != nil {
		t.Fatalf("the test's own snapshot: %v", err)
	}
	return v.Apply(&page, now)
}

func mustFeed(t testing.TB, v view, s *hivebeat.Snapshot, now time.Time) {
	t.Helper()
	if err := feed(t, v, s, now); err != nil {
		t.Fatalf("%s %d.%d page %d: %v", s.Hive, s.Inc, s.Seq, s.Page, err)
	}
}

func newView(fresh time.Duration) view { return view{fleet.New(fresh)} }

// pagesOf cuts s into n pages.
func pagesOf(s *hivebeat.Snapshot, n int) []*hivebeat.Snapshot {
	pages := make([]*hivebeat.Snapshot, n)
	for i := range n {
		p := *s
		p.Page, p.Pages = uint64(i), uint64(n)
		p.Workers = s.Workers[i*len(s.Workers)/n : (i+1)*len(s.Workers)/n]
		pages[i] = &p
	}
	return pages
}

// fleetSnapshot is what a machine with many workers sends.
func fleetSnapshot(hive string, workers int) *hivebeat.Snapshot {
	s := &hivebeat.Snapshot{
		V: 1, Hive: hive, Inc: 1795435200000000, Every: 15000, Seq: 99, Sent: 1795435212345, Warm: true, Pages: 1,
		Labels: map[string]string{"zone": "eu"}, Collect: map[string]string{"host": "ok", "gpu": "ok"},
		Host:  hivebeat.Host{Name: hive, OS: "linux", Arch: "amd64", CPUs: 64, Load1: 3.25, CPU: 12.5, MemTotal: 512 << 30, MemUsed: 99 << 30, Uptime: 86400},
		Stats: hivebeat.Stats{Beats: 1000, Refused: 1},
	}
	for i := range 8 {
		s.GPUs = append(s.GPUs, hivebeat.GPU{
			UUID: fmt.Sprintf("GPU-5f1a2b3c-0d4e-5f60-7182-93a4b5c6d7%02x", i), Index: uint64(i), Name: "NVIDIA H100 80GB HBM3",
			Total: 80 << 30, Used: 70 << 30, Ours: 69 << 30, Util: 88, Temp: 61, Power: 612000, Age: 1200,
		})
	}
	for i := range workers {
		s.Workers = append(s.Workers, hivebeat.Record{
			Worker: fmt.Sprintf("llama-70b-%04d", i), Live: hivebeat.Alive, N: 1, Age: 12345, Since: 987654,
			Facts: hivebeat.Facts{
				Inc: 1795435200000000, Every: 30000, State: hivebeat.Busy, PID: 4242, NS: "6f1c2a4e-0d5b-4f5e-9c55-2f5a1c9f7a10/4026531836",
				Conn: "NCXU3YJ3Y5KX7O2Z2VJ6QWTTWRRNQ7VQ4YAKQPLW6J3JQKQ5QJ2F4X2M/57", RW: 250, Model: "llama-3.3-70b-instruct",
				Endpoint: "http://10.1.2.3:8000/v1", GPUs: []string{"GPU-5f1a2b3c-0d4e-5f60-7182-93a4b5c6d7e8"}, Slots: 16,
				Labels: map[string]string{"zone": "eu", "tier": "prod"}, Seq: 1234, Sent: 1795435212345, VRAM: 72 << 30, Busy: 3, Queue: 1, Done: 99123,
			},
			Proc: hivebeat.Proc{RSS: 12 << 30, CPU: 101.5, VRAM: 72 << 30, Up: 987654},
		})
	}
	return s
}
