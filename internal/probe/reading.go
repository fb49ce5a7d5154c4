package probe

import (
	"time"

	"github.com/beatfabric/hivebeat"
)

// Reading is what an engine says about itself. A nil pointer means that it does not say.
type Reading struct {
	State  hivebeat.State // loading, ready, busy, sleeping, or degraded with a Reason
	Reason string         // why, in the engine's words; one short line

	Engine  string  // the engine, as one of the words of [Kind]; empty if only a port was probed
	Version string  // as the engine says it
	Models  []Model // models that it serves, or could load; empty if it has no model

	Slots   *uint64  // requests that it computes at once at most
	Busy    *uint64  // requests that it computes now
	Queue   *uint64  // requests that wait
	Done    *uint64  // requests finished since the engine started
	Tokens  *uint64  // tokens generated since the engine started
	KV      *float64 // share of the KV cache in use, 0 to 1; of several engines behind one port the highest
	KVCap   *uint64  // tokens that the KV cache holds, of all engines behind the port together
	Context *uint64  // tokens that one request may have
	Lora    *Lora
}

// Model is one model of an engine.
type Model struct {
	Name    string
	Loaded  bool      // false: the engine knows it, and loads it at the first request
	VRAM    *uint64   // bytes of GPU memory
	Context *uint64   // tokens that one request may have
	Expires time.Time // when the engine unloads it if nothing asks for it; zero: not said
}

// Lora is what vLLM says about adapters.
type Lora struct {
	Max              *uint64 // adapters that one batch may use
	Running, Waiting []string
}

// Stats counts what a [Prober] did.
type Stats struct {
	Readings  uint64 // begun
	Failed    uint64 // ended with an error
	Requests  uint64 // GETs
	BadValues uint64 // NaN, infinite or negative values, and numbers that are none: each is unknown
}
