package probe

import (
	"errors"
	"path"
	"slices"

	"github.com/beatfabric/hivebeat"
)

// vllm reads vLLM, and engines that speak its metrics.
//
// GET /health is 503, and was 500 before vllm-project/vllm#24897, once the engine core is dead
// (vllm/entrypoints/serve/instrumentator/health.py @98b137c6). It stays 200 while the core hangs
// (vllm-project/vllm#39863); the hive sees that in counters that stand still. Nothing listens while
// the model loads. The names of metrics are those of vllm/v1/metrics/loggers.py @005a810b; Python's
// client library appends _total to counters. Names that older versions have instead are behind them.
func (a *ask) vllm(r *Reading) error {
	if err := a.ok("/health"); err != nil {
		return err
	}
	set := newMetricSet("vllm:")
	busy, queue := set.want("vllm:num_requests_running"), set.want("vllm:num_requests_waiting")
	// The second was its name before v0.9, and in the V0 engine (vllm/engine/metrics.py).
	kv := set.wantOne("vllm:kv_cache_usage_perc", "vllm:gpu_cache_usage_perc")
	// One series for each finished_reason and data-parallel engine; V0's had only the reason.
	done := set.wantOne("vllm:request_success_total", "vllm:request_success")
	tokens := set.wantOne("vllm:generation_tokens_total", "vllm:generation_tokens")
	awake := set.want("vllm:engine_sleep_state", label{name: "sleep_state", value: "awake"})

	var named string // by the label of a metric
	busy.each = func(labels []byte, _ float64) {
		if named == "" {
			named, _ = labelOf(labels, "model_name")
		}
	}
	var capacity number // block_size and num_gpu_blocks are text in labels
	set.want("vllm:cache_config_info").each = func(labels []byte, _ float64) {
		size, blocks := numberOf(labels, "block_size"), numberOf(labels, "num_gpu_blocks")
		if size.ok && blocks.ok {
			capacity.sum(number{value: size.value * blocks.value, ok: true})
		}
	}
	var newest float64 // the value of lora_requests_info is the time of its labels
	set.want("vllm:lora_requests_info").each = func(labels []byte, at float64) {
		if r.Lora != nil && at < newest {
			return
		}
		newest = at
		r.Lora = &Lora{
			Max:     a.count(numberOf(labels, "max_lora")),
			Running: fieldsOf(labels, "running_lora_adapters"),
			Waiting: fieldsOf(labels, "waiting_lora_adapters"),
		}
	}
	if err := a.metrics("/metrics", set); err != nil {
		return err
	}
	if !set.own && set.other != "" {
		return answerError("/metrics has nothing of vLLM's%s", but(set.other))
	}
	r.Busy, r.Queue, r.KV = a.count(busy.sum), a.count(queue.sum), a.share(kv.pick().high)
	r.Done, r.Tokens, r.KVCap = a.count(done.pick().sum), a.count(tokens.pick().sum), a.positive(capacity)

	if a.slow {
		if err := a.version("/version"); err != nil && !errors.Is(err, ErrUnauthorized) {
			return err
		}
		list, err := a.models()
		switch {
		// --api-key protects /v1 alone (vllm/entrypoints/openai/…, class AuthenticationMiddleware):
		// without a token, the label has the name.
		case errors.Is(err, ErrUnauthorized) && named != "" && a.token == "":
			a.p.slow.models = []Model{{Name: named, Loaded: true}}
		case err != nil:
			return err
		case !set.own && list.owner() != "vllm": // --disable-log-stats leaves only the owner
			return answerError("/metrics has nothing of vLLM's, and the model is owned by %q", list.owner())
		}
	}
	a.take(r)
	return a.asleep(r, awake)
}

// but names the metric that is there instead.
func but(other string) string {
	if other == "" {
		return ""
	}
	return ", but " + other
}

// asleep sets the state of an engine that sleeps. Versions without the metric say it at
// /is_sleeping, if they run with VLLM_SERVER_DEV_MODE
// (vllm/entrypoints/serve/sleep/api_router.py @09cb327f).
func (a *ask) asleep(r *Reading, awake *series) error {
	var sleeps struct {
		Sleeping bool `json:"is_sleeping"`
	}
	if awake.seen {
		sleeps.Sleeping = awake.sum.ok && awake.sum.value == 0
	} else if _, err := a.optional("/is_sleeping", func(path string) error { return a.decode(path, &sleeps) }); err != nil && !errors.Is(err, ErrUnauthorized) {
		return err
	}
	if sleeps.Sleeping {
		r.State = hivebeat.Sleeping
	}
	return nil
}

// sglang reads SGLang. It never asks for /health or /health_generate, which make the engine
// compute a token and wait for it, up to 20 s
// (python/sglang/srt/entrypoints/http_server.py @0025436e, health_generate).
//
// GET /v1/loads asks the scheduler, so an answer shows that the scheduler lives; one whose
// scheduler hangs times out. Its shape is GetLoadsReqOutput of
// python/sglang/srt/managers/io_struct.py in the envelope of .../entrypoints/v1_loads.py @0564b521.
// Older versions have /get_load, or only the metrics of --enable-metrics.
func (a *ask) sglang(r *Reading) error {
	known, err := a.sglangLoads(r)
	if err != nil {
		return err
	}
	has, err := a.optional("/metrics", func(path string) error { return a.sglangMetrics(path, r, known) })
	if err != nil {
		return err
	}
	if !known && !has {
		return answerError("none of /v1/loads, /get_load and /metrics is there: run SGLang with --enable-metrics")
	}
	if a.slow {
		if r.Version != "" {
			a.p.slow.version = r.Version
		} else if err := a.sglangInfo(); err != nil {
			return err
		}
		if _, err := a.models(); err != nil {
			return err
		}
	}
	a.take(r)
	return nil
}

// sglangLoads fills r from the scheduler's answer, and reports whether there is one.
func (a *ask) sglangLoads(r *Reading) (known bool, err error) {
	var all struct {
		Version string `json:"version"`
		Loads   []struct {
			Running number `json:"num_running_reqs"`
			Waiting number `json:"num_waiting_reqs"`
			Usage   number `json:"token_usage"`
			Tokens  number `json:"max_total_num_tokens"`
			Slots   number `json:"max_running_requests"`
		} `json:"loads"` // one for each data-parallel rank
	}
	known, err = a.optional("/v1/loads?include=core", func(path string) error { return a.decode(path, &all) })
	if err != nil {
		return false, err
	}
	if known {
		if all.Loads == nil {
			return false, answerError("GET /v1/loads: no loads")
		}
		var busy, queue, usage, tokens, slots number
		for _, l := range all.Loads {
			busy.sum(l.Running)
			queue.sum(l.Waiting)
			usage.highest(l.Usage)
			tokens.sum(l.Tokens)
			slots.sum(l.Slots)
		}
		r.Version = all.Version
		r.Busy, r.Queue, r.KV = a.count(busy), a.count(queue), a.share(usage)
		r.KVCap, r.Slots = a.positive(tokens), a.positive(slots)
		return true, nil
	}
	var old []struct { // num_reqs counts those that wait too (http_server.py, get_load)
		Reqs    number `json:"num_reqs"`
		Waiting number `json:"num_waiting_reqs"`
	}
	known, err = a.optional("/get_load", func(path string) error { return a.decode(path, &old) })
	if err != nil || !known {
		return false, err
	}
	var reqs, queue number
	for _, l := range old {
		reqs.sum(l.Reqs)
		queue.sum(l.Waiting)
	}
	if r.Queue = a.count(queue); r.Queue != nil && reqs.ok {
		reqs.value = max(0, reqs.value-queue.value)
	}
	r.Busy = a.count(reqs)
	return true, nil
}

// sglangMetrics reads the counters, and the gauges that the scheduler did not say
// (python/sglang/srt/observability/metrics_collector.py @44cedc2b; .../metrics/collector.py before).
// Counters have no rank: the tokenizer counts.
func (a *ask) sglangMetrics(path string, r *Reading, known bool) error {
	set := newMetricSet("sglang:")
	// --enable-metrics-for-all-schedulers repeats each gauge for every tensor-parallel rank.
	first := []label{{name: "tp_rank", value: "0", orNone: true}, {name: "pp_rank", value: "0", orNone: true}}
	busy, queue := set.want("sglang:num_running_reqs", first...), set.want("sglang:num_queue_reqs", first...)
	usage := set.want("sglang:token_usage", first...)
	done, tokens := set.want("sglang:num_requests_total"), set.want("sglang:generation_tokens_total")
	if err := a.metrics(path, set); err != nil {
		return err
	}
	if !set.own && (set.other != "" || !known) {
		return answerError("/metrics has nothing of SGLang's%s", but(set.other))
	}
	r.Done, r.Tokens = a.count(done.sum), a.count(tokens.sum)
	if !known {
		r.Busy, r.Queue = a.count(busy.sum), a.count(queue.sum)
	}
	if r.KV == nil {
		r.KV = a.share(usage.high)
	}
	return nil
}

// sglangInfo reads the version where /v1/loads does not have it. The old name goes first: new
// versions answer both, and old ones only that (http_server.py @0025436e has only the old one).
func (a *ask) sglangInfo() error {
	for _, path := range []string{"/get_server_info", "/server_info"} {
		if err := a.version(path); err != nil || a.p.slow.version != "" {
			return err
		}
	}
	return nil
}

// llamacpp reads llama-server, with one model or as a router.
//
// GET /health is 503 "Loading model" until the model is loaded (tools/server/README.md @00dc8057).
// GET /props has slots and context, and says whether the server sleeps
// (tools/server/server-context.cpp, get_props, November 2026). Of the endpoints here, /health,
// /props, /models and, in newer versions, /metrics neither wake a server that sleeps nor count as
// use (README.md, "Sleeping on Idle"); /slots does both. So nothing but the first two is asked while it
// sleeps, and /slots only without --metrics: run a server that should fall asleep by
// --sleep-idle-seconds with --metrics.
func (a *ask) llamacpp(r *Reading) error {
	if err := a.ok("/health"); err != nil {
		return err
	}
	var props struct {
		Role     string `json:"role"` // "router"; missing in a server of one model
		Build    string `json:"build_info"`
		Slots    number `json:"total_slots"`
		Sleeping bool   `json:"is_sleeping"`
		Metrics  *bool  `json:"endpoint_metrics"` // both missing in older versions: then they are tried
		SlotList *bool  `json:"endpoint_slots"`
		Path     string `json:"model_path"`
		Settings struct {
			Context number `json:"n_ctx"` // of one slot
		} `json:"default_generation_settings"`
	}
	if err := a.decode("/props", &props); err != nil {
		return err
	}
	if props.Role == "router" {
		return a.llamaRouter(r, props.Build)
	}
	if !props.Slots.ok && props.Path == "" {
		return answerError("GET /props: neither total_slots nor model_path")
	}
	r.Slots, r.Context = a.positive(props.Slots), a.positive(props.Settings.Context)
	if a.slow {
		if _, err := a.models(); errors.Is(err, ErrUnauthorized) {
			a.p.slow.models = []Model{{Name: path.Base(props.Path), Loaded: true}}
		} else if err != nil {
			return err
		}
	}
	a.take(r)
	r.Version = props.Build
	if props.Sleeping {
		r.State = hivebeat.Sleeping
		r.Models = slices.Clone(r.Models)
		for i := range r.Models {
			r.Models[i].Loaded = false
		}
		return nil
	}
	if props.Metrics == nil || *props.Metrics {
		has, err := a.optional("/metrics", func(path string) error { return a.llamaMetrics(path, r) })
		if err != nil || has {
			return err
		}
	}
	if props.SlotList == nil || *props.SlotList {
		_, err := a.optional("/slots", func(path string) error { return a.llamaSlots(path, r) })
		return err
	}
	return nil
}

// llamaMetrics reads the metrics of --metrics; without it they are 501 (tools/server/server-task.cpp
// and server-context.cpp, b10488). They have no count of requests, so Done is unknown, and newer
// versions no kv_cache_usage_ratio.
func (a *ask) llamaMetrics(path string, r *Reading) error {
	set := newMetricSet("llamacpp:")
	busy, queue := set.want("llamacpp:requests_processing"), set.want("llamacpp:requests_deferred")
	tokens, kv := set.want("llamacpp:tokens_predicted_total"), set.want("llamacpp:kv_cache_usage_ratio")
	if err := a.metrics(path, set); err != nil {
		return err
	}
	r.Busy, r.Queue, r.Tokens, r.KV = a.count(busy.sum), a.count(queue.sum), a.count(tokens.sum), a.share(kv.high)
	return nil
}

// llamaSlots counts the slots that are in use: is_processing, and in older versions a state that is
// not 0 (tools/server/README.md @00dc8057).
func (a *ask) llamaSlots(path string, r *Reading) error {
	var slots []struct {
		Processing bool   `json:"is_processing"`
		State      number `json:"state"`
	}
	if err := a.decode(path, &slots); err != nil {
		return err
	}
	busy, all := uint64(0), uint64(len(slots))
	for _, s := range slots {
		if s.Processing || s.State.value > 0 {
			busy++
		}
	}
	r.Busy, r.Slots = &busy, or(r.Slots, &all)
	return nil
}

// llamaRouter reads a llama-server with --models-dir or presets, which starts a server for each
// model (tools/server/server-models.cpp @40103380, get_router_props and get_router_models). /metrics and /slots of a model start it if it is not loaded, so they are not read, and
// the load of a router is unknown.
func (a *ask) llamaRouter(r *Reading, build string) error {
	var list modelList
	if err := a.decode("/models", &list); err != nil {
		return err
	}
	loads := false
	for _, m := range list.Data {
		loads = loads || m.Status.Value == "loading"
		r.Models = append(r.Models, Model{Name: m.ID, Loaded: m.Status.Value == "loaded"})
	}
	r.Version, r.State = build, hivebeat.Ready
	if loads {
		r.Reason = "loads a model"
	}
	return nil
}

// ollama reads Ollama, which has no metrics and no health: only which models are loaded
// (server/routes.go and api/types.go @fb307609, v0.33.0-rc2, ProcessModelResponse). Its load is unknown.
func (a *ask) ollama(r *Reading) error {
	var running struct {
		Models *[]struct {
			Name    string   `json:"name"`
			VRAM    number   `json:"size_vram"`
			Context number   `json:"context_length"` // missing in older versions
			Expires jsonTime `json:"expires_at"`
		} `json:"models"`
	}
	if err := a.decode("/api/ps", &running); err != nil {
		return err
	}
	if running.Models == nil {
		return answerError("GET /api/ps: no models")
	}
	loaded := make(map[string]bool)
	for _, m := range *running.Models {
		loaded[m.Name] = true
		r.Models = append(r.Models, Model{
			Name: m.Name, Loaded: true, VRAM: a.count(m.VRAM), Context: a.positive(m.Context), Expires: m.Expires.Time,
		})
	}
	if a.slow {
		if err := a.version("/api/version"); err != nil {
			return err
		}
		var disk struct {
			Models []struct {
				Name string `json:"name"`
			} `json:"models"`
		}
		if err := a.decode("/api/tags", &disk); err != nil {
			return err
		}
		for _, m := range disk.Models {
			a.p.slow.models = append(a.p.slow.models, Model{Name: m.Name})
		}
	}
	for _, m := range a.p.slow.models {
		if !loaded[m.Name] {
			r.Models = append(r.Models, m)
		}
	}
	r.Version = a.p.slow.version
	return nil
}

// trtllm reads trtllm-serve.
//
// GET /health says that the server runs (tensorrt_llm/serve/openai_server.py @e7f7345e). Metrics
// are at /prometheus/metrics, with return_perf_metrics (tensorrt_llm/metrics/collector.py
// @050f80de; older versions have finished requests there, and no load). /metrics is not read: it
// takes statistics out of a queue, so that others miss them, and waits up to 2 s for an empty one
// (get_iteration_stats).
func (a *ask) trtllm(r *Reading) error {
	if err := a.ok("/health"); err != nil {
		return err
	}
	set := newMetricSet("trtllm_")
	busy, queue := set.want("trtllm_num_requests_running"), set.want("trtllm_num_requests_waiting")
	done := set.wantOne("trtllm_request_success_total", "trtllm_num_requests_completed_total")
	tokens, kv := set.want("trtllm_generation_tokens_total"), set.want("trtllm_kv_cache_utilization")
	slots := set.want("trtllm_max_num_active_requests")
	blocks, size := set.want("trtllm_kv_cache_max_blocks"), set.want("trtllm_kv_cache_tokens_per_block")
	// The slash is that of the application that is mounted there; without it the answer is a redirect.
	if _, err := a.optional("/prometheus/metrics/", func(path string) error { return a.metrics(path, set) }); err != nil {
		return err
	}
	if !set.own && set.other != "" {
		return answerError("/prometheus/metrics has nothing of TensorRT-LLM's%s", but(set.other))
	}
	r.Busy, r.Queue, r.KV = a.count(busy.sum), a.count(queue.sum), a.share(kv.high)
	r.Done, r.Tokens, r.Slots = a.count(done.pick().sum), a.count(tokens.sum), a.positive(slots.sum)
	if blocks.sum.ok && size.high.ok {
		r.KVCap = a.positive(number{value: blocks.sum.value * size.high.value, ok: true})
	}
	if a.slow {
		if err := a.version("/version"); err != nil {
			return err
		}
		list, err := a.models()
		if err != nil {
			return err
		}
		if owner := list.owner(); !set.own && owner != "tensorrt_llm" {
			return answerError("the model is owned by %q, not by tensorrt_llm", owner)
		}
	}
	a.take(r)
	return nil
}

// tgi reads text-generation-inference. It never asks for /health, which makes the model compute a
// token until a first request has succeeded (backends/v3/src/backend.rs, health). Nothing listens
// while the model loads. /info is that of router/src/lib.rs and the metrics are those of
// router/src/server.rs, both @db931fcf, v3.3.7; each metric appears with the first request.
func (a *ask) tgi(r *Reading) error {
	var info struct {
		Model   string `json:"model_id"`
		Version string `json:"version"`
		Slots   number `json:"max_concurrent_requests"`
		Context number `json:"max_total_tokens"`
		KVCap   number `json:"max_batch_total_tokens"`
	}
	if err := a.decode("/info", &info); err != nil {
		return err
	}
	if info.Model == "" {
		return answerError("GET /info: no model_id")
	}
	set := newMetricSet("tgi_")
	busy, queue := set.want("tgi_batch_current_size"), set.want("tgi_queue_size")
	done, tokens := set.wantOne("tgi_request_success_total", "tgi_request_success"), set.want("tgi_request_generated_tokens_sum")
	if err := a.metrics("/metrics", set); err != nil {
		return err
	}
	r.Version, r.Models = info.Version, []Model{{Name: info.Model, Loaded: true}}
	r.Slots, r.Context, r.KVCap = a.positive(info.Slots), a.positive(info.Context), a.positive(info.KVCap)
	r.Busy, r.Queue = a.count(busy.sum), a.count(queue.sum)
	r.Done, r.Tokens = a.count(done.pick().sum), a.count(tokens.sum)
	return nil
}

// openai reads any server with the OpenAI API. Only the names of its models are known. A list of
// models says nothing about whether the engine behind it works, so the judgement covers the
// process and its port; busy, queue, done and tokens are unknown, and so no hive can see that it
// stands still.
func (a *ask) openai(r *Reading) error {
	a.p.slow = slowFacts{}
	if _, err := a.models(); err != nil {
		return err
	}
	a.take(r)
	return nil
}
