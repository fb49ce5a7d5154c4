package metrics_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/beatfabric/hivebeat"
	"github.com/beatfabric/hivebeat/internal/bustest"
	"github.com/beatfabric/hivebeat/internal/plaintext/plaintexttest"
	"github.com/beatfabric/hivebeat/internal/prom/promtest"
	"github.com/beatfabric/hivebeat/internal/wire"
	"github.com/beatfabric/hivebeat/queen"
	"github.com/beatfabric/hivebeat/queen/api"
	"github.com/beatfabric/hivebeat/queen/metrics"
)

const soon = 30 * time.Second

// told is a source with a fixed report.
type told struct {
	r   queen.Report
	err error
}

func (s told) Report(_ context.Context, perHive bool) (queen.Report, error) {
	if !perHive {
		s.r.PerHive = nil
	}
	return s.r, s.err
}

func TestNamesAndStyle(t *testing.T) {
	s := told{r: queen.Report{
		Keeps:  true,
		Status: api.Status{Brake: []api.BrakeInfo{{Zone: "eu", Held: 4, Since: 2500}}, Unsure: []string{"the brake is on"}},
		Live:   map[hivebeat.Live]int{hivebeat.Alive: 3},
		Shown:  map[hivebeat.Live]int{hivebeat.Alive: 7},
		States: map[hivebeat.State]int{hivebeat.Ready: 4, "meditating": 2, "on fire": 1},
		PerHive: []queen.HiveReport{
			{Hive: "gpu-01", Zone: "eu", Live: hivebeat.Alive, Fresh: true, VRAMTotal: 100, VRAMUsed: 70, VRAMOurs: 50},
			{Hive: "gpu-02", Live: hivebeat.Lost},
		},
		VRAMTotal: 100, VRAMUsed: 70, VRAMOurs: 40, VRAMForeign: 20, VRAMOrphaned: 7, VRAMUnattributed: 3, VRAMReserved: 5, VRAMStale: 80,
		GPUStates: map[hivebeat.GPUState]int{hivebeat.GPUOK: 8, hivebeat.GPUFailing: 2, "melting": 1},
		GPUHives:  map[hivebeat.GPUState]int{hivebeat.GPUOK: 2, hivebeat.GPUFailing: 1},
	}}
	c, err := metrics.New(s, metrics.Config{PerHive: true})
	if err != nil {
		t.Fatal(err)
	}
	promtest.Golden(t, c)

	h, err := metrics.Handler(s, metrics.Config{})
	if err != nil {
		t.Fatal(err)
	}
	text := promtest.Scrape(t, h)
	for _, want := range []string{
		`hivebeat_queen_alive_workers{state="other"} 3`, // states invented by workers become no labels
		`hivebeat_queen_alive_workers{state="ready"} 4`,
		`hivebeat_queen_vram_bytes{kind="foreign"} 20`,
		`hivebeat_queen_vram_bytes{kind="free"} 25`,
		`hivebeat_queen_vram_bytes{kind="orphaned"} 7`,
		`hivebeat_queen_vram_stale_bytes 80`,
		`hivebeat_queen_gpus{state="failing"} 2`,
		`hivebeat_queen_gpus{state="gone"} 0`,
		`hivebeat_queen_gpus{state="other"} 1`,
		`hivebeat_queen_gpu_hives{state="failing"} 1`,
		`hivebeat_queen_brake_held_hives 4`,
		`hivebeat_queen_brake_longest_seconds 2.5`,
		`hivebeat_queen_unsure_reasons 1`,
		`hivebeat_queen_transitions_total{kind="lost",of="worker"} 0`, // otherwise its first increase is not seen
		"go_goroutines",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("no %s", want)
		}
	}
	for _, not := range []string{"gpu-01", "meditating"} {
		if strings.Contains(text, not) {
			t.Errorf("%s is in a label", not)
		}
	}
}

// A person who reads the metrics with curl sees the zone of a hive as plain text.
func TestLabelsArePlain(t *testing.T) {
	s := told{r: queen.Report{PerHive: []queen.HiveReport{{Hive: "gpu-01", Zone: plaintexttest.Evil, Live: hivebeat.Alive}}}}
	h, err := metrics.Handler(s, metrics.Config{PerHive: true})
	if err != nil {
		t.Fatal(err)
	}
	plaintexttest.Check(t, "metrics", promtest.Scrape(t, h))
}

func TestNoAnswerNoFigures(t *testing.T) {
	h, err := metrics.Handler(told{err: errors.New("stopped")}, metrics.Config{})
	if err != nil {
		t.Fatal(err)
	}
	text := promtest.Scrape(t, h)
	if !strings.Contains(text, "\nhivebeat_queen_up 0\n") || strings.Count(text, "# HELP hivebeat_queen") != 1 {
		t.Errorf("a queen that does not answer has figures:\n%s", text)
	}
}

func TestConfig(t *testing.T) {
	if _, err := metrics.New(nil, metrics.Config{}); err == nil {
		t.Error("no queen, no error")
	}
	if _, err := metrics.New(told{}, metrics.Config{Timeout: -1}); err == nil || !strings.Contains(err.Error(), "Config.Timeout") {
		t.Errorf("%v", err)
	}
}

// snapshot is what a machine with eight GPUs and 100 workers sends, without the
// workers' long names.
func snapshot(hive string, seq uint64, workers int) []byte {
	s := hivebeat.Snapshot{
		V: 1, Hive: hive, Inc: 7, Seq: seq, Every: 60_000, Warm: true, Pages: 1, Labels: map[string]string{"zone": "z" + hive[len(hive)-1:]},
		Collect: map[string]string{"host": "ok", "gpu": "ok", "procs": "error: none of your business"}, Workers: []hivebeat.Record{},
	}
	for i := range 8 {
		s.GPUs = append(s.GPUs, hivebeat.GPU{UUID: fmt.Sprintf("GPU-%d", i), Index: uint64(i), Total: 80 << 30, Used: 70 << 30, Ours: 60 << 30, Age: 1000})
	}
	for i := range workers {
		s.Workers = append(s.Workers, hivebeat.Record{
			Worker: fmt.Sprintf("w-%d", i), Live: hivebeat.Alive, N: 1, Facts: hivebeat.Facts{Inc: 7, Seq: 1, Every: 60_000, State: hivebeat.Ready},
		})
	}
	b, err := wire.EncodeSnapshot(&s)
	if err != nil {
		panic(err)
	}
	return b
}

// running returns a queen that knows the given number of hives, with the given number
// of workers each.
func running(t testing.TB, hives, workers int) *queen.Queen {
	t.Helper()
	srv := bustest.Server(t, bustest.NoJetStream())
	nc := bustest.Conn(t, srv)
	q, err := queen.New(nc, queen.Config{ID: "q-1", NoJetStream: true, Fresh: time.Hour, Pending: hives + 10})
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- q.Run(context.Background()) }()
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), soon)
		defer cancel()
		if err := q.Stop(ctx); err != nil {
			t.Error(err)
		}
		<-ended
	})
	bustest.Eventually(t, soon, func() (bool, string) {
		r, err := q.Report(t.Context(), false)
		return err == nil && r.Status.Warm, fmt.Sprint(r.Status, err)
	})
	publish(t, nc, hives, workers)
	bustest.Eventually(t, soon, func() (bool, string) {
		r, err := q.Report(t.Context(), false)
		return err == nil && r.Live[hivebeat.Alive] == hives, fmt.Sprint(r.Live, r.Refused, r.Dropped, err)
	})
	return q
}

func publish(t testing.TB, nc *nats.Conn, hives, workers int) {
	t.Helper()
	for i := range hives {
		if err := nc.Publish("queen.hives", snapshot(fmt.Sprintf("gpu-%d", i), 1, workers)); err != nil {
			t.Fatal(err)
		}
	}
	bustest.Flush(t, nc)
}

// A report over several turns of the loop counts each hive once.
func TestLiveQueen(t *testing.T) {
	const hives = 600
	q := running(t, hives, 3)
	h, err := metrics.Handler(q, metrics.Config{PerHive: true})
	if err != nil {
		t.Fatal(err)
	}
	text := promtest.Scrape(t, h)
	for _, want := range []string{
		"hivebeat_queen_up 1",
		"hivebeat_queen_connected 1",
		`hivebeat_queen_hives{live="alive"} 600`,
		`hivebeat_queen_workers{live="alive"} 1800`,
		`hivebeat_queen_collect_failing_hives{source="procs"} 600`,
		`hivebeat_queen_gpus{state="ok"} 4800`,
		fmt.Sprintf(`hivebeat_queen_vram_bytes{kind="foreign"} %g`, float64(hives*8*(10<<30))),
		`hivebeat_queen_transitions_total{kind="joined",of="hive"} 600`,
		`hivebeat_queen_hive_live{hive="gpu-599",live="alive",zone="z9"} 1`,
		`hivebeat_queen_hive_workers{hive="gpu-0",live="alive",zone="z0"} 3`,
	} {
		if !strings.Contains(text, "\n"+want+"\n") {
			t.Errorf("no %s", want)
		}
	}
	if n := strings.Count(text, "hivebeat_queen_hive_age_seconds{"); n != hives {
		t.Errorf("%d hives are listed", n)
	}
	if strings.Contains(text, "jetstream") {
		t.Errorf("a queen that keeps nothing shows JetStream as down:\n%s", text)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := q.Report(ctx, false); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
}

// BenchmarkScrape is one complete scrape of a queen with 10,000 hives of 20 workers.
func BenchmarkScrape(b *testing.B) {
	q := running(b, 10_000, 20)
	for _, perHive := range []bool{false, true} {
		h, err := metrics.Handler(q, metrics.Config{PerHive: perHive})
		if err != nil {
			b.Fatal(err)
		}
		b.Run(fmt.Sprintf("perhive=%v", perHive), func(b *testing.B) {
			b.ReportAllocs()
			n := 0
			for b.Loop() {
				n = len(promtest.Scrape(b, h))
			}
			b.ReportMetric(float64(n), "B/scrape")
		})
	}
}
