package api

import "github.com/beatfabric/hivebeat"

// GPUInfo is a GPU of a hive, with its users. Ages are as of the answer.
type GPUInfo struct {
	Hive string        `json:"hive"`
	Zone string        `json:"zone,omitempty"`
	Live hivebeat.Live `json:"live"` // of the hive
	hivebeat.GPU
	Foreign   uint64   `json:"foreign,omitempty"`   // bytes of processes that no worker owns
	Held      uint64   `json:"held,omitempty"`      // bytes that clients hold
	Announced uint64   `json:"announced,omitempty"` // bytes that loading workers have announced
	Free      uint64   `json:"free"`                // bytes that a pick would offer, on all its instances together
	Workers   []string `json:"workers,omitempty"`   // ids of the workers that name it, or hold its memory
	Drained   *Imposed `json:"drained,omitempty"`   // an operator drained it or its hive: it gets no new work
}

// ModelInfo is what the fleet serves of one model. Busy, Slots, Queue, Rate, TPS, VRAM and
// Engines are of its workers that are alive.
type ModelInfo struct {
	Model   string                 `json:"model"`
	Workers map[hivebeat.Live]int  `json:"workers"`           // by verdict, as shown
	States  map[hivebeat.State]int `json:"states,omitempty"`  // those that are alive, by state
	Hives   int                    `json:"hives"`             // with a worker of the model
	Able    int                    `json:"able"`              // workers that can take work now
	Zones   map[string]int         `json:"zones,omitempty"`   // the same by zone
	Slots   uint64                 `json:"slots"`             //
	Busy    uint64                 `json:"busy"`              // slots in use
	Free    uint64                 `json:"free"`              // slots of the workers that can take work, neither in use nor held
	Queue   uint64                 `json:"queue"`             // requests waiting
	Rate    float64                `json:"rate,omitempty"`    // requests finished in a second while there is work, together; 0: unknown
	TPS     float64                `json:"tps,omitempty"`     // tokens generated in a second while there is work, together; 0: unknown
	VRAM    uint64                 `json:"vram,omitempty"`    // bytes that they hold
	Engines map[string]int         `json:"engines,omitempty"` // by engine and version: "vllm 0.11.2"
}
