package enginetest

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"

	"github.com/beatfabric/hivebeat/internal/probe"
)

type object = map[string]any

func text(v any) string {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return string(b)
}

const absent = http.StatusNotFound

// answer returns what an engine of that kind says. The files of the engines that this follows are
// named in package probe, beside the code that reads the answers.
func (s *State) answer(kind probe.Kind, r *http.Request) (status int, body string) {
	path := r.URL.Path
	switch kind {
	case probe.VLLM:
		return s.vllm(path)
	case probe.SGLang:
		return s.sglang(path)
	case probe.LlamaCPP:
		return s.llamacpp(path)
	case probe.Ollama:
		return s.ollama(path)
	case probe.TRTLLM:
		return s.trtllm(path)
	case probe.TGI:
		return s.tgi(path)
	case probe.OpenAI:
		if path == "/v1/models" {
			return 200, s.models("somebody", false)
		}
	case probe.HTTP:
		return 200, text(object{
			"status": "ok", "version": s.Version, "models": []any{object{"name": s.Models[0].Name}},
			"load": object{"busy": s.Busy, "queue": s.Queue, "done": s.Done, "tokens": s.Tokens, "kv": s.KV}, "slots": s.Slots,
		})
	case probe.Prometheus:
		return 200, fmt.Sprintf("app_info{version=%q,model=%q} 1\napp_up 1\napp_busy{part=\"a\"} %d\napp_busy{part=\"b\"} 1\n"+
			"app_queue %d\napp_done_total{ok=\"true\"} %d\napp_done_total{ok=\"false\"} 1\napp_kv %g\napp_slots %d\n",
			s.Version, s.Models[0].Name, s.Busy, s.Queue, s.Done, s.KV, s.Slots)
	}
	return absent, `{"detail":"Not Found"}`
}

// models is /v1/models.
func (s *State) models(owner string, lengths bool) string {
	data := []any{}
	card := func(name string, parent any) {
		m := object{"id": name, "object": "model", "created": 1764500000, "owned_by": owner, "parent": parent}
		if lengths {
			m["max_model_len"] = s.Context
		}
		data = append(data, m)
	}
	for _, m := range s.Models {
		if m.Loaded {
			card(m.Name, nil)
		}
	}
	for _, name := range s.Adapters {
		card(name, s.Models[0].Name)
	}
	return text(object{"object": "list", "data": data})
}

// share returns what engine i of n has of a count.
func share(all uint64, i, n int) uint64 {
	part := all / uint64(n)
	if i == 0 {
		part += all % uint64(n)
	}
	return part
}

func (s *State) vllm(path string) (int, string) {
	switch path {
	case "/health":
		return 200, ""
	case "/version":
		return 200, text(object{"version": s.Version})
	case "/v1/models":
		return 200, s.models("vllm", true)
	case "/is_sleeping":
		if s.Old {
			return 200, text(object{"is_sleeping": s.Sleeping})
		}
	case "/metrics":
		return 200, s.vllmMetrics()
	}
	return absent, `{"detail":"Not Found"}`
}

func (s *State) vllmMetrics() string {
	var b strings.Builder
	b.WriteString("# HELP python_info Python platform information\n# TYPE python_info gauge\npython_info{version=\"3.12.9\"} 1.0\n")
	if s.Bare {
		return b.String()
	}
	model, n := s.Models[0].Name, max(s.Engines, 1)
	kv, total := "vllm:kv_cache_usage_perc", "_total"
	if s.Old {
		kv, total = "vllm:gpu_cache_usage_perc", ""
	}
	for i := range n {
		l := fmt.Sprintf("engine=\"%d\",model_name=%q", i, model)
		fmt.Fprintf(&b, "vllm:num_requests_running{%s} %d.0\n", l, share(s.Busy, i, n))
		fmt.Fprintf(&b, "vllm:num_requests_waiting{%s} %d.0\n", l, share(s.Queue, i, n))
		fmt.Fprintf(&b, "%s{%s} %g\n", kv, l, s.KV/float64(i+1))
		fmt.Fprintf(&b, "vllm:cache_config_info{block_size=\"16\",cache_dtype=\"auto\",engine=\"%d\",num_gpu_blocks=\"1000\"} 1.0\n", i)
		awake := 1
		if s.Sleeping {
			awake = 0
		}
		if !s.Old {
			fmt.Fprintf(&b, "vllm:engine_sleep_state{%s,sleep_state=\"awake\"} %d.0\n", l, awake)
			fmt.Fprintf(&b, "vllm:engine_sleep_state{%s,sleep_state=\"weights_offloaded\"} %d.0\n", l, 1-awake)
		}
		if s.Done > 0 { // the counters appear with the first request
			fmt.Fprintf(&b, "vllm:request_success%s{finished_reason=\"stop\",%s} %d.0\n", total, l, share(s.Done, i, n)-share(s.Done, i, n)/3)
			fmt.Fprintf(&b, "vllm:request_success%s{finished_reason=\"length\",%s} %d.0\n", total, l, share(s.Done, i, n)/3)
			fmt.Fprintf(&b, "vllm:generation_tokens%s{%s} %g\n", total, l, float64(share(s.Tokens, i, n)))
		}
		for le := range 20 {
			fmt.Fprintf(&b, "vllm:e2e_request_latency_seconds_bucket{%s,le=\"%d.0\"} %d.0\n", l, le, s.Done)
		}
	}
	if len(s.Adapters) > 0 {
		fmt.Fprintf(&b, "vllm:lora_requests_info{max_lora=\"4\",running_lora_adapters=\"\",waiting_lora_adapters=\"\"} 1.7e+09\n")
		fmt.Fprintf(&b, "vllm:lora_requests_info{max_lora=\"4\",running_lora_adapters=%q,waiting_lora_adapters=\"\"} 1.8e+09\n", strings.Join(s.Adapters, ","))
	}
	return b.String()
}

func (s *State) sglang(path string) (int, string) {
	n := max(s.Engines, 1)
	switch path {
	case "/v1/loads":
		if s.Old {
			break
		}
		loads := []any{}
		for i := range n {
			loads = append(loads, object{
				"dp_rank": i, "num_running_reqs": share(s.Busy, i, n), "num_waiting_reqs": share(s.Queue, i, n),
				"token_usage": s.KV / float64(i+1), "max_total_num_tokens": 100_000, "max_running_requests": share(s.Slots, i, n),
			})
		}
		return 200, text(object{"timestamp": "2026-11-30T00:00:00+00:00", "version": s.Version, "loads": loads})
	case "/get_load":
		return 200, text([]any{object{"dp_rank": 0, "num_reqs": s.Busy + s.Queue, "num_waiting_reqs": s.Queue, "num_tokens": 7}})
	case "/get_server_info", "/server_info":
		return 200, text(object{"model_path": s.Models[0].Name, "version": s.Version, "internal_states": []any{object{}}})
	case "/v1/models":
		return 200, s.models("sglang", true)
	case "/metrics":
		if s.Bare {
			break
		}
		l := fmt.Sprintf("engine_type=\"unified\",model_name=%q,tp_rank=\"0\"", s.Models[0].Name)
		other := strings.ReplaceAll(l, `tp_rank="0"`, `tp_rank="1"`) // of --enable-metrics-for-all-schedulers
		return 200, fmt.Sprintf("sglang:num_running_reqs{%[1]s} %[3]d.0\nsglang:num_running_reqs{%[2]s} %[3]d.0\n"+
			"sglang:num_queue_reqs{%[1]s} %[4]d.0\nsglang:num_queue_reqs{%[2]s} %[4]d.0\nsglang:token_usage{%[1]s} %[5]g\n"+
			"sglang:num_requests_total{model_name=\"m\"} %[6]d.0\nsglang:generation_tokens_total{model_name=\"m\"} %[7]d.0\n",
			l, other, s.Busy, s.Queue, s.KV, s.Done, s.Tokens)
	}
	return absent, `{"detail":"Not Found"}`
}

func (s *State) llamacpp(path string) (int, string) {
	if s.Loading {
		return 503, `{"error":{"message":"Loading model","type":"unavailable_error","code":503}}`
	}
	switch path {
	case "/health":
		return 200, `{"status":"ok"}`
	case "/props":
		if s.Router {
			return 200, text(object{
				"role": "router", "model_alias": "llama-server", "model_path": "none", "build_info": s.Version,
				"default_generation_settings": object{"params": nil, "n_ctx": 0},
			})
		}
		props := object{
			"default_generation_settings": object{"n_ctx": s.Context}, "total_slots": s.Slots, "model_path": "/models/" + s.Models[0].Name + ".gguf",
			"build_info": s.Version, "is_sleeping": s.Sleeping, "endpoint_metrics": !s.Bare, "endpoint_slots": true,
		}
		if s.Old {
			delete(props, "endpoint_metrics")
			delete(props, "endpoint_slots")
			delete(props, "is_sleeping")
		}
		return 200, text(props)
	case "/v1/models":
		return 200, s.models("llamacpp", false)
	case "/models":
		data := []any{}
		for _, m := range s.Models {
			value := "unloaded"
			if m.Loaded {
				value = "loaded"
			}
			data = append(data, object{"id": m.Name, "object": "model", "owned_by": "llamacpp", "status": object{"value": value, "args": []string{"llama-server"}}})
		}
		return 200, text(object{"object": "list", "data": data})
	case "/metrics":
		if s.Bare {
			return 501, "{\"error\":{\"code\":501,\"message\":\"This server does not support metrics endpoint. Start it with `--metrics`\",\"type\":\"not_supported_error\"}}"
		}
		return 200, fmt.Sprintf("# TYPE llamacpp:tokens_predicted_total counter\nllamacpp:tokens_predicted_total %d\n"+
			"llamacpp:requests_processing %d\nllamacpp:requests_deferred %d\nllamacpp:n_busy_slots_per_decode 1.25\n", s.Tokens, s.Busy, s.Queue)
	case "/slots":
		slots := []any{}
		for i := range s.Slots {
			slots = append(slots, object{"id": i, "n_ctx": s.Context, "is_processing": i < s.Busy})
		}
		return 200, text(slots)
	}
	return absent, `{"error":{"code":404,"message":"File Not Found","type":"not_found_error"}}`
}

func (s *State) ollama(path string) (int, string) {
	running, disk := []any{}, []any{}
	for _, m := range s.Models {
		disk = append(disk, object{"name": m.Name, "model": m.Name, "size": 4_000_000_000})
		if m.Loaded {
			entry := object{"name": m.Name, "model": m.Name, "size": 5_000_000_000, "size_vram": 0, "expires_at": m.Expires}
			if m.VRAM != nil {
				entry["size_vram"] = *m.VRAM
			}
			if m.Context != nil {
				entry["context_length"] = *m.Context
			}
			running = append(running, entry)
		}
	}
	switch path {
	case "/":
		return 200, "Ollama is running"
	case "/api/version":
		return 200, text(object{"version": s.Version})
	case "/api/ps":
		return 200, text(object{"models": running})
	case "/api/tags":
		return 200, text(object{"models": disk})
	case "/v1/models":
		return 200, s.models("library", false)
	}
	return absent, "404 page not found"
}

func (s *State) trtllm(path string) (int, string) {
	switch path {
	case "/health":
		return 200, ""
	case "/version":
		return 200, text(object{"version": s.Version})
	case "/v1/models":
		return 200, s.models("tensorrt_llm", false)
	case "/metrics": // JSON, taken out of a queue
		return 200, text([]any{object{"iter": 1, "numActiveRequests": s.Busy}})
	case "/prometheus/metrics/":
		if s.Bare {
			return 200, ""
		}
		l := fmt.Sprintf("engine_type=\"trtllm\",model_name=%q", s.Models[0].Name)
		return 200, fmt.Sprintf("trtllm_num_requests_running{%[1]s} %[2]d.0\ntrtllm_num_requests_waiting{%[1]s} %[3]d.0\n"+
			"trtllm_request_success_total{finished_reason=\"stop\",%[1]s} %[4]d.0\ntrtllm_request_success_created{%[1]s} 1.7e+09\n"+
			"trtllm_generation_tokens_total{%[1]s} %[5]d.0\ntrtllm_kv_cache_utilization{%[1]s} %[6]g\ntrtllm_max_num_active_requests{%[1]s} %[7]d.0\n"+
			"trtllm_kv_cache_max_blocks{%[1]s} 500.0\ntrtllm_kv_cache_tokens_per_block{%[1]s} 32.0\n",
			l, s.Busy, s.Queue, s.Done, s.Tokens, s.KV, s.Slots)
	}
	return absent, `{"detail":"Not Found"}`
}

func (s *State) tgi(path string) (int, string) {
	switch path {
	case "/info":
		return 200, text(object{
			"model_id": s.Models[0].Name, "version": s.Version, "max_concurrent_requests": s.Slots,
			"max_input_tokens": s.Context - 1, "max_total_tokens": s.Context, "max_batch_total_tokens": 16000,
		})
	case "/v1/models":
		return 200, s.models(s.Models[0].Name, false)
	case "/metrics":
		if s.Done == 0 { // nothing before the first request
			return 200, ""
		}
		return 200, fmt.Sprintf("# TYPE tgi_request_success counter\ntgi_request_success %d\n\ntgi_request_generated_tokens_sum %d\n"+
			"tgi_request_generated_tokens_count %d\ntgi_batch_current_size %d\ntgi_queue_size %d\n", s.Done, s.Tokens, s.Done, s.Busy, s.Queue)
	}
	return absent, ""
}
