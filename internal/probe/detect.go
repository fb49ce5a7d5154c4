package probe

import (
	"context"
	"errors"
	"fmt"
	"strings"
)

// Found is the result of [Detect].
type Found struct {
	Kind     Kind
	Evidence string // why, for people: `/v1/models is owned by "vllm"`
}

// Detect finds out which engine answers at cfg.URL; it ignores cfg.Kind and cfg.Mapping. It asks
// with a few GETs, which cost no tokens, within cfg.Timeout in all.
//
// An unmarked engine that lists models is [OpenAI]. If no known engine answers, the error is
// that of the first request, or [ErrUnauthorized] if one was refused for want of credentials;
// ErrAnswer says that something else is there.
func Detect(ctx context.Context, cfg Config) (Found, error) {
	cfg.Kind, cfg.Mapping = Auto, Mapping{}
	p, err := New(cfg)
	if err != nil {
		return Found{}, err
	}
	defer p.Close()
	limited, cancel := context.WithTimeout(ctx, p.cfg.Timeout)
	defer cancel()
	a, err := p.ask(ctx, limited)
	if err != nil {
		return Found{}, err
	}
	return a.detect()
}

// owners has the names that engines give themselves in owned_by of /v1/models: class ModelCard of
// vllm/entrypoints/openai/engine/protocol.py @d7e52523,
// python/sglang/srt/entrypoints/openai/protocol.py @9b116dff and
// tensorrt_llm/serve/openai_protocol.py @54cf7be0, and tools/server/server-models.cpp @40103380 of
// llama.cpp. Ollama and TGI write nothing that others would not.
var owners = map[string]Kind{"vllm": VLLM, "sglang": SGLang, "tensorrt_llm": TRTLLM, "llamacpp": LlamaCPP}

// detect goes from the mark that most engines have to those of single ones. SGLang and
// llama-server also answer requests of Ollama's API, so Ollama comes late.
func (a *ask) detect() (Found, error) {
	var first error // why nothing is known yet
	note := func(err error) (over bool) {
		if err != nil && (first == nil || errors.Is(err, ErrUnauthorized) && !errors.Is(first, ErrUnauthorized)) {
			first = err
		}
		return errors.Is(err, ErrRefused) || errors.Is(err, ErrTimeout) || a.ctx.Err() != nil
	}

	var list modelList
	err := a.decode("/v1/models", &list)
	if note(err) {
		return Found{}, err
	}
	if owner := list.owner(); owners[owner] != "" {
		return Found{owners[owner], fmt.Sprintf("/v1/models is owned by %q", owner)}, nil
	}
	if a.server == "llama.cpp" { // a default header, also of errors (tools/server/server-http.cpp @aa6192d3)
		return Found{LlamaCPP, "its answers have Server: llama.cpp"}, nil
	}

	set := newMetricSet("")
	err = a.metrics("/metrics", set)
	if note(err) {
		return Found{}, err
	}
	for _, p := range prefixes {
		if strings.HasPrefix(set.other, p.prefix) {
			return Found{p.kind, "/metrics has " + set.other}, nil
		}
	}

	var info struct {
		Model string  `json:"model_id"`
		Slots *number `json:"max_concurrent_requests"`
	}
	if err = a.decode("/info", &info); note(err) {
		return Found{}, err
	} else if err == nil && info.Model != "" && info.Slots != nil {
		return Found{TGI, "/info has model_id and max_concurrent_requests"}, nil
	}

	var version struct{ Version string }
	var running struct{ Models *[]struct{} }
	if err = a.decode("/api/version", &version); note(err) {
		return Found{}, err
	} else if err == nil && version.Version != "" {
		if err = a.decode("/api/ps", &running); note(err) {
			return Found{}, err
		} else if err == nil && running.Models != nil {
			return Found{Ollama, "/api/version is " + version.Version + ", and /api/ps lists models"}, nil
		}
	}
	if list.Object == "list" {
		return Found{OpenAI, "/v1/models lists models, and nothing says which engine it is"}, nil
	}
	if absent(first) {
		first = answerError("no known engine: none of /v1/models, /metrics, /info and /api/version is there")
	}
	return Found{}, first
}
