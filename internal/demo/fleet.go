// Package demo is a small simulated fleet that changes. Its machines and GPUs are
// simulated; its workers serve, restart, leave, crash and load models. The workers and
// hives are real ones and beat over a real NATS.
package demo

const gib = 1 << 30

// machine is a simulated machine.
type machine struct {
	hive, zone string
	cpus       uint64
	memory     uint64 // bytes
	gpus       []card
	workers    []served
}

// card is a GPU of a machine.
type card struct {
	name    string
	memory  uint64 // bytes
	foreign uint64 // bytes held by processes that are not workers
	watts   uint64 // at full load
	slow    bool   // it is degraded: slowed down by its heat
	fails   bool   // it fails for a minute, and later again
}

// served is a worker and the model it serves.
type served struct {
	id, model string
	gpus      []int // indexes of GPUs of its machine
	vram      uint64
	slots     uint64
	port      int
}

func fleet() []machine {
	return []machine{
		{
			hive: "gpu-01", zone: "a", cpus: 32, memory: 128 * gib,
			gpus: []card{{name: "NVIDIA GeForce RTX 4090", memory: 24 * gib, watts: 450}, {name: "NVIDIA GeForce RTX 4090", memory: 24 * gib, watts: 450, fails: true}},
			workers: []served{
				{id: "qwen3-14b", model: "Qwen/Qwen3-14B-AWQ", gpus: []int{0}, vram: 13 * gib, slots: 8, port: 8001},
				{id: "whisper", model: "openai/whisper-large-v3", gpus: []int{0}, vram: 5 * gib, slots: 2, port: 8002},
				{id: "flux", model: "black-forest-labs/FLUX.1-schnell", gpus: []int{1}, vram: 17 * gib, slots: 1, port: 8003},
			},
		},
		{
			hive: "gpu-02", zone: "a", cpus: 64, memory: 512 * gib,
			gpus: []card{{name: "NVIDIA H100 80GB HBM3", memory: 80 * gib, watts: 700}},
			workers: []served{
				{id: "llama-70b", model: "meta-llama/Llama-3.3-70B-Instruct", gpus: []int{0}, vram: 43 * gib, slots: 16, port: 8001},
				{id: "coder-32b", model: "Qwen/Qwen2.5-Coder-32B-Instruct-AWQ", gpus: []int{0}, vram: 22 * gib, slots: 8, port: 8002},
				{id: "bge-m3", model: "BAAI/bge-m3", gpus: []int{0}, vram: 2 * gib, slots: 32, port: 8003},
			},
		},
		{
			hive: "gpu-03", zone: "b", cpus: 24, memory: 96 * gib,
			gpus: []card{{name: "NVIDIA L4", memory: 24 * gib, watts: 72}, {name: "NVIDIA L4", memory: 24 * gib, watts: 72, slow: true}},
			workers: []served{
				{id: "mistral-24b", model: "mistralai/Mistral-Small-3.2-24B", gpus: []int{0, 1}, vram: 26 * gib, slots: 4, port: 8001},
				{id: "gemma-12b", model: "google/gemma-3-12b-it", gpus: []int{1}, vram: 9 * gib, slots: 4, port: 8002},
			},
		},
		{
			hive: "gpu-04", zone: "b", cpus: 16, memory: 64 * gib,
			gpus: []card{{name: "NVIDIA GeForce RTX 3090", memory: 24 * gib, foreign: 3 * gib, watts: 350}},
			workers: []served{
				{id: "r1-14b", model: "deepseek-ai/DeepSeek-R1-Distill-Qwen-14B", gpus: []int{0}, vram: 15 * gib, slots: 4, port: 8001},
				{id: "nomic", model: "nomic-ai/nomic-embed-text-v1.5", gpus: []int{0}, vram: 1 * gib, slots: 16, port: 8002},
			},
		},
	}
}

// Size returns the number of machines and workers.
func Size() (hives, workers int) {
	for _, m := range fleet() {
		hives++
		workers += len(m.workers)
	}
	return hives, workers
}
