package probe_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/beatfabric/hivebeat"
	"github.com/beatfabric/hivebeat/internal/probe"
	"github.com/beatfabric/hivebeat/internal/probe/enginetest"
)

// TestEngines reads every engine with everything that it can say.
func TestEngines(t *testing.T) {
	t.Parallel()
	one := []probe.Model{{Name: "fake-8b", Loaded: true}}
	full := func(s *enginetest.State) {
		s.Busy, s.Queue, s.Done, s.Tokens, s.KV = 3, 2, 10, 1000, 0.5
	}
	sized := []probe.Model{{Name: "fake-8b", Loaded: true, Context: n(4096)}}
	until := time.Date(2026, 11, 30, 12, 0, 0, 0, time.UTC)
	for _, c := range []struct {
		name string
		kind probe.Kind
		with func(*enginetest.State)
		want probe.Reading
	}{
		{"vllm", probe.VLLM, full, probe.Reading{
			State: hivebeat.Busy, Engine: "vllm", Version: "1.2.3", Models: sized, Busy: n(3), Queue: n(2),
			Done: n(10), Tokens: n(1000), KV: f(0.5), KVCap: n(16000), Context: n(4096),
		}},
		{"vllm before the first request", probe.VLLM, nil, probe.Reading{
			State: hivebeat.Ready, Engine: "vllm", Version: "1.2.3", Models: sized, Busy: n(0), Queue: n(0),
			KV: f(0), KVCap: n(16000), Context: n(4096),
		}},
		{"vllm with the names of older versions", probe.VLLM, func(s *enginetest.State) { full(s); s.Old = true }, probe.Reading{
			State: hivebeat.Busy, Engine: "vllm", Version: "1.2.3", Models: sized, Busy: n(3), Queue: n(2),
			Done: n(10), Tokens: n(1000), KV: f(0.5), KVCap: n(16000), Context: n(4096),
		}},
		{"vllm with four data-parallel engines", probe.VLLM, func(s *enginetest.State) { full(s); s.Engines = 4 }, probe.Reading{
			State: hivebeat.Busy, Engine: "vllm", Version: "1.2.3", Models: sized, Busy: n(3), Queue: n(2),
			Done: n(10), Tokens: n(1000), KV: f(0.5), KVCap: n(64000), Context: n(4096),
		}},
		{"vllm with adapters", probe.VLLM, func(s *enginetest.State) { s.Adapters = []string{"sql", "chat"} }, probe.Reading{
			State: hivebeat.Ready, Engine: "vllm", Version: "1.2.3", Busy: n(0), Queue: n(0), KV: f(0), KVCap: n(16000), Context: n(4096),
			Models: append(slices.Clone(sized), probe.Model{Name: "sql", Loaded: true, Context: n(4096)}, probe.Model{Name: "chat", Loaded: true, Context: n(4096)}),
			Lora:   &probe.Lora{Max: n(4), Running: []string{"chat", "sql"}},
		}},
		{"vllm asleep", probe.VLLM, func(s *enginetest.State) { s.Sleeping = true }, probe.Reading{
			State: hivebeat.Sleeping, Engine: "vllm", Version: "1.2.3", Models: sized, Busy: n(0), Queue: n(0),
			KV: f(0), KVCap: n(16000), Context: n(4096),
		}},
		{"vllm asleep, an older version in dev mode", probe.VLLM, func(s *enginetest.State) { s.Sleeping, s.Old = true, true }, probe.Reading{
			State: hivebeat.Sleeping, Engine: "vllm", Version: "1.2.3", Models: sized, Busy: n(0), Queue: n(0),
			KV: f(0), KVCap: n(16000), Context: n(4096),
		}},
		{"vllm with --disable-log-stats", probe.VLLM, func(s *enginetest.State) { full(s); s.Bare = true }, probe.Reading{
			State: hivebeat.Ready, Engine: "vllm", Version: "1.2.3", Models: sized, Context: n(4096),
		}},
		{"vllm with an API key that the probe does not have", probe.VLLM, func(s *enginetest.State) { s.Token = "secret" }, probe.Reading{
			State: hivebeat.Ready, Engine: "vllm", Version: "1.2.3", Models: one, Busy: n(0), Queue: n(0), KV: f(0), KVCap: n(16000),
		}},
		{"sglang", probe.SGLang, full, probe.Reading{
			State: hivebeat.Busy, Engine: "sglang", Version: "1.2.3", Models: sized, Slots: n(8), Busy: n(3), Queue: n(2),
			Done: n(10), Tokens: n(1000), KV: f(0.5), KVCap: n(100_000), Context: n(4096),
		}},
		{"sglang with two data-parallel engines", probe.SGLang, func(s *enginetest.State) { full(s); s.Engines = 2 }, probe.Reading{
			State: hivebeat.Busy, Engine: "sglang", Version: "1.2.3", Models: sized, Slots: n(8), Busy: n(3), Queue: n(2),
			Done: n(10), Tokens: n(1000), KV: f(0.5), KVCap: n(200_000), Context: n(4096),
		}},
		{"sglang without --enable-metrics", probe.SGLang, func(s *enginetest.State) { full(s); s.Bare = true }, probe.Reading{
			State: hivebeat.Busy, Engine: "sglang", Version: "1.2.3", Models: sized, Slots: n(8), Busy: n(3), Queue: n(2),
			KV: f(0.5), KVCap: n(100_000), Context: n(4096),
		}},
		{"sglang, an older version", probe.SGLang, func(s *enginetest.State) { full(s); s.Old = true }, probe.Reading{
			State: hivebeat.Busy, Engine: "sglang", Version: "1.2.3", Models: sized, Busy: n(3), Queue: n(2),
			Done: n(10), Tokens: n(1000), KV: f(0.5), Context: n(4096),
		}},
		{"sglang with metrics alone", probe.SGLang, func(s *enginetest.State) {
			full(s)
			s.Old, s.Answers = true, map[string]string{"/get_load": ""}
		}, probe.Reading{
			State: hivebeat.Busy, Engine: "sglang", Version: "1.2.3", Models: sized, Busy: n(3), Queue: n(2),
			Done: n(10), Tokens: n(1000), KV: f(0.5), Context: n(4096),
		}},
		{"llamacpp", probe.LlamaCPP, full, probe.Reading{
			State: hivebeat.Busy, Engine: "llamacpp", Version: "1.2.3", Models: one, Slots: n(8), Busy: n(3), Queue: n(2),
			Tokens: n(1000), Context: n(4096),
		}},
		{"llamacpp without --metrics", probe.LlamaCPP, func(s *enginetest.State) { full(s); s.Bare = true }, probe.Reading{
			State: hivebeat.Busy, Engine: "llamacpp", Version: "1.2.3", Models: one, Slots: n(8), Busy: n(3), Context: n(4096),
		}},
		{"llamacpp without --metrics, an older version", probe.LlamaCPP, func(s *enginetest.State) { full(s); s.Bare, s.Old = true, true }, probe.Reading{
			State: hivebeat.Busy, Engine: "llamacpp", Version: "1.2.3", Models: one, Slots: n(8), Busy: n(3), Context: n(4096),
		}},
		{"llamacpp that loads", probe.LlamaCPP, func(s *enginetest.State) { s.Loading = true }, probe.Reading{
			State: hivebeat.Loading, Reason: "Loading model", Engine: "llamacpp",
		}},
		{"llamacpp asleep", probe.LlamaCPP, func(s *enginetest.State) { s.Sleeping = true }, probe.Reading{
			State: hivebeat.Sleeping, Engine: "llamacpp", Version: "1.2.3", Models: []probe.Model{{Name: "fake-8b"}}, Slots: n(8), Context: n(4096),
		}},
		{"llamacpp as a router", probe.LlamaCPP, func(s *enginetest.State) {
			s.Router, s.Models = true, []probe.Model{{Name: "a", Loaded: true}, {Name: "b"}, {Name: "c", Loaded: true}}
		}, probe.Reading{
			State: hivebeat.Ready, Engine: "llamacpp", Version: "1.2.3", Models: []probe.Model{{Name: "a", Loaded: true}, {Name: "b"}, {Name: "c", Loaded: true}},
		}},
		{"ollama with two models in memory and five on disk", probe.Ollama, func(s *enginetest.State) {
			s.Models = []probe.Model{
				{Name: "a:1b"},
				{Name: "b:8b", Loaded: true, VRAM: n(5 << 30), Context: n(8192), Expires: until},
				{Name: "c:3b"},
				{Name: "d:70b", Loaded: true, VRAM: n(40 << 30), Context: n(4096)},
				{Name: "e:1b"},
			}
		}, probe.Reading{
			State: hivebeat.Ready, Engine: "ollama", Version: "1.2.3", Models: []probe.Model{
				{Name: "b:8b", Loaded: true, VRAM: n(5 << 30), Context: n(8192), Expires: until},
				{Name: "d:70b", Loaded: true, VRAM: n(40 << 30), Context: n(4096)},
				{Name: "a:1b"},
				{Name: "c:3b"},
				{Name: "e:1b"},
			},
		}},
		{"ollama without a model", probe.Ollama, func(s *enginetest.State) { s.Models = nil }, probe.Reading{
			State: hivebeat.Ready, Engine: "ollama", Version: "1.2.3",
		}},
		{"trtllm", probe.TRTLLM, full, probe.Reading{
			State: hivebeat.Busy, Engine: "trtllm", Version: "1.2.3", Models: one, Slots: n(8), Busy: n(3), Queue: n(2),
			Done: n(10), Tokens: n(1000), KV: f(0.5), KVCap: n(16000),
		}},
		{"trtllm without metrics", probe.TRTLLM, func(s *enginetest.State) { full(s); s.Bare = true }, probe.Reading{
			State: hivebeat.Ready, Engine: "trtllm", Version: "1.2.3", Models: one,
		}},
		{"tgi", probe.TGI, full, probe.Reading{
			State: hivebeat.Busy, Engine: "tgi", Version: "1.2.3", Models: one, Slots: n(8), Busy: n(3), Queue: n(2),
			Done: n(10), Tokens: n(1000), KVCap: n(16000), Context: n(4096),
		}},
		{"tgi before the first request", probe.TGI, nil, probe.Reading{
			State: hivebeat.Ready, Engine: "tgi", Version: "1.2.3", Models: one, Slots: n(8), KVCap: n(16000), Context: n(4096),
		}},
		{"openai", probe.OpenAI, full, probe.Reading{State: hivebeat.Ready, Engine: "openai", Models: one}},
		{"http", probe.HTTP, full, probe.Reading{
			State: hivebeat.Busy, Engine: "http", Version: "1.2.3", Models: one, Slots: n(8), Busy: n(3), Queue: n(2),
			Done: n(10), Tokens: n(1000), KV: f(0.5),
		}},
		{"prometheus", probe.Prometheus, full, probe.Reading{
			State: hivebeat.Busy, Engine: "prometheus", Version: "1.2.3", Models: one, Slots: n(8), Busy: n(3), Queue: n(2),
			Done: n(11), KV: f(0.5),
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			if c.with == nil {
				c.with = func(*enginetest.State) {}
			}
			e := enginetest.New(t, c.kind, enginetest.With(c.with))
			p := of(t, e)
			if c.want.Models == nil {
				c.want.Models = []probe.Model{}
			}
			for i := range 3 { // the second and third use facts of the first
				if diff := cmp.Diff(c.want, read(t, p)); diff != "" {
					t.Fatalf("reading %d (-want +got):\n%s", i+1, diff)
				}
			}
			if s := p.Stats(); s.BadValues != 0 || s.Readings != 3 || s.Failed != 0 {
				t.Errorf("stats %+v, want 3 readings, none failed, and no bad value", s)
			}
			// The paths that cost tokens, wake an engine or take from others.
			asked := e.Asked()
			for _, never := range map[probe.Kind][]string{
				probe.SGLang: {"/health", "/health_generate", "/v1/completions"}, probe.TGI: {"/health", "/", "/ping"}, probe.TRTLLM: {"/metrics", "/health_generate"},
			}[c.kind] {
				if asked[never] > 0 {
					t.Errorf("%s was asked for %d times, want never: %v", never, asked[never], asked)
				}
			}
			if c.want.State == hivebeat.Sleeping && c.kind == probe.LlamaCPP && asked["/slots"]+asked["/metrics"] > 0 {
				t.Errorf("a server that sleeps was asked for %v", asked)
			}
		})
	}
}

// TestSlowFacts: the version and the models are read once a minute, and at once after a failure.
func TestSlowFacts(t *testing.T) {
	t.Parallel()
	e := enginetest.New(t, probe.VLLM)
	p := of(t, e)
	read(t, p)
	e.Restart("2.0.0")
	e.SetModels(probe.Model{Name: "other", Loaded: true})
	if r := read(t, p); r.Version != "1.2.3" {
		t.Errorf("version %q, want the one of a moment ago", r.Version)
	}
	for range 11 {
		read(t, p)
	}
	if r := read(t, p); r.Version != "2.0.0" || r.Models[0].Name != "other" {
		t.Errorf("version %q and models %v after 13 readings, want 2.0.0 and other", r.Version, r.Models)
	}

	// An upgrade in place.
	e.Refuse()
	if _, err := p.Read(t.Context()); err == nil {
		t.Fatal("an engine that is down was read")
	}
	e.Restart("3.0.0")
	if err := e.Listen(); err != nil {
		t.Fatal(err)
	}
	if r := read(t, p); r.Version != "3.0.0" {
		t.Errorf("version %q after the restart, want 3.0.0", r.Version)
	}
}

// TestFewRequests: one connection, and as many GETs as a reading needs.
func TestFewRequests(t *testing.T) {
	t.Parallel()
	for kind, most := range map[probe.Kind]uint64{
		probe.VLLM: 2, probe.SGLang: 2, probe.LlamaCPP: 3, probe.Ollama: 1, probe.TRTLLM: 2, probe.TGI: 2, probe.OpenAI: 1, probe.HTTP: 1, probe.Prometheus: 1,
	} {
		e := enginetest.New(t, kind)
		p := of(t, e)
		read(t, p)
		before := p.Stats().Requests
		read(t, p)
		if got := p.Stats().Requests - before; got != most {
			t.Errorf("%s: %d requests for a reading, want %d: %v", kind, got, most, e.Asked())
		}
	}
}

func TestTCP(t *testing.T) {
	t.Parallel()
	e := enginetest.New(t, probe.VLLM)
	p := prober(t, probe.Config{Kind: probe.TCP, URL: e.URL[len("http://"):]})
	if diff := cmp.Diff(probe.Reading{State: hivebeat.Ready, Models: []probe.Model{}}, read(t, p)); diff != "" {
		t.Error(diff)
	}
}

// BenchmarkRead is one reading of vLLM with 66 KiB of metrics, over loopback, with the cost of the
// server that answers.
func BenchmarkRead(b *testing.B) {
	text := strings.Repeat("vllm:time_to_first_token_seconds_bucket{engine=\"0\",model_name=\"meta-llama/Llama-3.3-70B-Instruct\",le=\"10.0\"} 1000.0\n", 600)
	e := enginetest.Make(probe.VLLM, enginetest.With(func(s *enginetest.State) { s.Answers = map[string]string{"/metrics": text} }))
	if err := e.Listen(); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(e.Close)
	p, err := probe.New(probe.Config{Kind: probe.VLLM, URL: e.URL})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(p.Close)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := p.Read(b.Context()); err != nil {
			b.Fatal(err)
		}
	}
}
