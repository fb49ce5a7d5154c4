package metrics_test

import (
	"strings"
	"testing"
	"time"

	"github.com/beatfabric/hivebeat/internal/prom/promtest"
	"github.com/beatfabric/hivebeat/worker"
	"github.com/beatfabric/hivebeat/worker/metrics"
)

type told worker.Stats

func (s told) Stats() worker.Stats { return worker.Stats(s) }

func TestNamesAndStyle(t *testing.T) {
	s := told{Sent: 12, Failed: 3, FactsSlow: 2, Last: time.UnixMilli(1795435212345)}
	c, err := metrics.New(s)
	if err != nil {
		t.Fatal(err)
	}
	promtest.Golden(t, c)
	h, err := metrics.Handler(s)
	if err != nil {
		t.Fatal(err)
	}
	text := promtest.Scrape(t, h)
	for _, want := range []string{
		"hivebeat_worker_beats_total 12", "hivebeat_worker_beats_failed_total 3", `hivebeat_worker_facts_failed_total{why="slow"} 2`,
		"hivebeat_worker_last_beat_timestamp_seconds 1.795435212345e+09", "process_start_time_seconds",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("no %s", want)
		}
	}
	if _, err := metrics.New(nil); err == nil {
		t.Error("no worker, no error")
	}
}
