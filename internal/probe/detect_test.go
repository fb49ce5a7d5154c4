package probe_test

import (
	"errors"
	"testing"

	"github.com/beatfabric/hivebeat/internal/probe"
	"github.com/beatfabric/hivebeat/internal/probe/enginetest"
)

func TestDetect(t *testing.T) {
	t.Parallel()
	keyed := func(s *enginetest.State) { s.Token = "secret" }
	for _, c := range []struct {
		name string
		kind probe.Kind
		with func(*enginetest.State)
		want probe.Kind
		err  error
	}{
		{"vllm", probe.VLLM, nil, probe.VLLM, nil},
		{"vllm with a key", probe.VLLM, keyed, probe.VLLM, nil},
		{"sglang", probe.SGLang, nil, probe.SGLang, nil},
		{"sglang with a key", probe.SGLang, keyed, probe.SGLang, nil},
		{"sglang with a key and without metrics", probe.SGLang, func(s *enginetest.State) { keyed(s); s.Bare = true }, "", probe.ErrUnauthorized},
		{"llamacpp", probe.LlamaCPP, nil, probe.LlamaCPP, nil},
		{"llamacpp that loads", probe.LlamaCPP, func(s *enginetest.State) { s.Loading = true }, probe.LlamaCPP, nil},
		{"llamacpp as a router", probe.LlamaCPP, func(s *enginetest.State) { s.Router = true }, probe.LlamaCPP, nil},
		{"ollama", probe.Ollama, nil, probe.Ollama, nil},
		{"ollama without a model", probe.Ollama, func(s *enginetest.State) { s.Models = nil }, probe.Ollama, nil},
		{"trtllm", probe.TRTLLM, nil, probe.TRTLLM, nil},
		{"tgi", probe.TGI, func(s *enginetest.State) { s.Done = 1 }, probe.TGI, nil},
		{"tgi before the first request", probe.TGI, nil, probe.TGI, nil},
		{"another server with the OpenAI API", probe.OpenAI, nil, probe.OpenAI, nil},
		{"something else", probe.Prometheus, nil, "", probe.ErrAnswer},
		{"a page", probe.OpenAI, func(s *enginetest.State) { s.Status, s.Body = 200, "<html><title>Grafana</title></html>" }, "", probe.ErrAnswer},
		{"404 to everything", probe.OpenAI, func(s *enginetest.State) { s.Status = 404 }, "", probe.ErrAnswer},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			if c.with == nil {
				c.with = func(*enginetest.State) {}
			}
			e := enginetest.New(t, c.kind, enginetest.With(c.with))
			found, err := probe.Detect(t.Context(), probe.Config{URL: e.URL})
			if !errors.Is(err, c.err) || found.Kind != c.want || (err == nil) != (found.Evidence != "") {
				t.Errorf("found %+v, %v; want %s, %v", found, err, c.want, c.err)
			}
			asked := e.Asked()
			if len(asked) > 6 || asked["/health"]+asked["/health_generate"] > 0 {
				t.Errorf("asked for %v: too much", asked)
			}
		})
	}

	e := enginetest.New(t, probe.VLLM)
	e.Close()
	if _, err := probe.Detect(t.Context(), probe.Config{URL: e.URL}); !errors.Is(err, probe.ErrRefused) {
		t.Errorf("error %v of a port where nothing listens, want %v", err, probe.ErrRefused)
	}
}
