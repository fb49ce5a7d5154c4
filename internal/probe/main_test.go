package probe_test

import (
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/beatfabric/hivebeat/internal/probe"
	"github.com/beatfabric/hivebeat/internal/probe/enginetest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// prober returns a Prober that is closed with the test. Its timeout is long: only tests of
// engines that do not answer shorten it.
func prober(t *testing.T, cfg probe.Config) *probe.Prober {
	t.Helper()
	if cfg.Timeout == 0 {
		cfg.Every, cfg.Timeout = 2*time.Minute, time.Minute
	}
	p, err := probe.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Close)
	return p
}

// of returns a Prober of e.
func of(t *testing.T, e *enginetest.Engine) *probe.Prober {
	t.Helper()
	return prober(t, probe.Config{Kind: e.Kind, URL: e.URL, Mapping: mappings[e.Kind]})
}

// read takes a reading that must succeed.
func read(t *testing.T, p *probe.Prober) probe.Reading {
	t.Helper()
	r, err := p.Read(t.Context())
	if err != nil {
		t.Fatalf("reading failed: %v", err)
	}
	return r
}

func n(v uint64) *uint64   { return &v }
func f(v float64) *float64 { return &v }

// mappings are for the answers of fake engines of these kinds.
var mappings = map[probe.Kind]probe.Mapping{
	probe.HTTP: {
		State: "status", Version: "version", Model: "models.0.name", Slots: "slots", Busy: "load.busy",
		Queue: "load.queue", Done: "load.done", Tokens: "load.tokens", KV: "load.kv",
	},
	probe.Prometheus: {
		State: "app_up", Version: "app_info.version", Model: "app_info.model", Slots: "app_slots",
		Busy: `app_busy{part="a"}`, Queue: "app_queue", Done: "app_done_total", KV: "app_kv",
	},
}
