package metrics_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/beatfabric/hivebeat"
	"github.com/beatfabric/hivebeat/hive"
	"github.com/beatfabric/hivebeat/hive/metrics"
	"github.com/beatfabric/hivebeat/internal/bustest"
	"github.com/beatfabric/hivebeat/internal/prom/promtest"
	"github.com/beatfabric/hivebeat/internal/wire"
)

const soon = 30 * time.Second

type told hive.Report

func (s told) Report() hive.Report { return hive.Report(s) }

func TestNamesAndStyle(t *testing.T) {
	r := hive.Report{
		Collect: map[string]string{"host": "ok", "gpu": "error: it hangs"},
		Host:    hivebeat.Host{CPU: 12.5},
		GPUs: []hivebeat.GPU{
			{UUID: "GPU-old", Total: 100, Used: 99, State: hivebeat.GPUGone}, // another one was put in its place
			{UUID: "GPU-a", Name: "H100", Total: 100, Used: 80, Ours: 90, Util: 50, Temp: 61, Power: 612000, Age: 1500, State: hivebeat.GPUDegraded},
			{UUID: "GPU-b"},
			{UUID: "GPU-b"}, // duplicates: the source of the GPUs is at fault
			{UUID: "GPU-c", Index: 1, Total: 100, Used: 50, Ours: 20, Orphaned: 10, Unattributed: 5, Reserved: 2},
			{UUID: "GPU-d", Index: 2, Total: 100, Used: 50, Err: "it hangs"},
		},
		Readings: map[string]time.Duration{"nvidia-smi": 12 * time.Second},
	}
	c, err := metrics.New(told(r))
	if err != nil {
		t.Fatal(err)
	}
	promtest.Golden(t, c)
	h, err := metrics.Handler(told(r))
	if err != nil {
		t.Fatal(err)
	}
	text := promtest.Scrape(t, h)
	for _, want := range []string{
		`hivebeat_hive_gpu_memory_bytes{gpu="0",kind="ours"} 80`, // limited to the used memory
		`hivebeat_hive_gpu_memory_bytes{gpu="0",kind="foreign"} 0`,
		`hivebeat_hive_gpu_memory_bytes{gpu="0",kind="free"} 20`,
		`hivebeat_hive_gpu_power_watts{gpu="0"} 612`,
		`hivebeat_hive_gpu_used_ratio{gpu="0"} 0.5`,
		`hivebeat_hive_gpu_facts_age_seconds{gpu="0"} 1.5`,
		`hivebeat_hive_gpu_up{gpu="0"} 1`,
		`hivebeat_hive_gpu_up{gpu="2"} 0`,
		`hivebeat_hive_gpu_state{gpu="0",state="gone",uuid="GPU-old"} 1`,
		`hivebeat_hive_gpu_state{gpu="0",state="degraded",uuid="GPU-a"} 1`,
		`hivebeat_hive_gpu_state{gpu="2",state="unknown",uuid="GPU-d"} 1`,
		`hivebeat_hive_gpu_memory_bytes{gpu="1",kind="ours"} 20`,
		`hivebeat_hive_gpu_memory_bytes{gpu="1",kind="orphaned"} 10`,
		`hivebeat_hive_gpu_memory_bytes{gpu="1",kind="unattributed"} 5`,
		`hivebeat_hive_gpu_memory_bytes{gpu="1",kind="foreign"} 15`,
		`hivebeat_hive_gpu_memory_bytes{gpu="1",kind="reserved"} 2`,
		`hivebeat_hive_gpu_memory_bytes{gpu="1",kind="free"} 48`,
		`hivebeat_hive_gpu_reading_seconds{reader="nvidia-smi"} 12`,
		`hivebeat_hive_collect_ok{source="gpu"} 0`,
		`hivebeat_hive_machine_cpu_used_ratio 0.125`,
	} {
		if !strings.Contains(text, "\n"+want+"\n") {
			t.Errorf("no %s", want)
		}
	}
	if strings.Contains(text, `gpu_memory_bytes{gpu="2"`) {
		t.Error("figures of a GPU that is not read are shown as current")
	}
	if _, err := metrics.New(nil); err == nil {
		t.Error("no hive, no error")
	}
}

func TestLiveHive(t *testing.T) {
	srv := bustest.Server(t, bustest.NoJetStream())
	nc := bustest.Conn(t, srv)
	h, err := hive.New(nc, hive.Config{
		ID:   "gpu-01",
		Host: func(context.Context) (hivebeat.Host, error) { return hivebeat.Host{CPUs: 64, MemTotal: 1 << 30}, nil },
		GPUs: func(context.Context) ([]hivebeat.GPU, error) {
			return []hivebeat.GPU{{UUID: "GPU-a", Index: 3, Total: 100, Used: 30}}, nil
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- h.Run(context.Background()) }()
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), soon)
		defer cancel()
		if err := h.Stop(ctx); err != nil {
			t.Error(err)
		}
		<-ended
	})
	bustest.Eventually(t, soon, func() (bool, string) {
		r := h.Report()
		return r.Snapshots.Sent > 0 && len(r.GPUs) == 1 && r.Collect["host"] != "", fmt.Sprintf("%+v", r)
	})
	for i := range 3 {
		beat := hivebeat.Beat{V: 1, Hive: "gpu-01", Worker: fmt.Sprint("w-", i), Facts: hivebeat.Facts{Inc: 7, Seq: 1, Every: 30_000, State: "dreaming"}}
		b, err := wire.EncodeBeat(&beat)
		if err != nil {
			t.Fatal(err)
		}
		if err := nc.Publish("hive.gpu-01.workers", b); err != nil {
			t.Fatal(err)
		}
	}
	if err := nc.Publish("hive.gpu-01.workers", []byte{0xc1}); err != nil {
		t.Fatal(err)
	}
	bustest.Flush(t, nc)
	serve, err := metrics.Handler(h)
	if err != nil {
		t.Fatal(err)
	}
	want := []string{
		`hivebeat_hive_workers{live="alive"} 3`,
		`hivebeat_hive_alive_workers{state="other"} 3`,
		`hivebeat_hive_beats_total 3`,
		`hivebeat_hive_refused_total{reason="malformed"} 1`,
		`hivebeat_hive_gpu_memory_bytes{gpu="3",kind="foreign"} 30`,
		`hivebeat_hive_machine_cpus 64`,
		`hivebeat_hive_connected 1`,
	}
	bustest.Eventually(t, soon, func() (bool, string) {
		text := promtest.Scrape(t, serve)
		for _, line := range want {
			if !strings.Contains(text, "\n"+line+"\n") {
				return false, "no " + line + " in\n" + text
			}
		}
		return true, ""
	})
	if r := h.Report(); r.Bytes == 0 || r.Pages == 0 {
		t.Errorf("%+v", r)
	}
}
