package hivebeat

import "time"

// Millis is a span of time on the wire, in milliseconds.
type Millis uint64

// Duration returns m as a time.Duration.
func (m Millis) Duration() time.Duration { return time.Duration(m) * time.Millisecond }

// MillisOf returns d in whole milliseconds, and 0 for a negative d.
func MillisOf(d time.Duration) Millis { return Millis(max(0, d.Milliseconds())) }

// Beat is the message that a worker sends: one msgpack map on hive.<hive>.workers. Its
// keys are the msgpack tags. The keys that change in every beat come last, so that a
// reader can recognise the rest by its bytes.
type Beat struct {
	V      uint64 `msgpack:"v" json:"v"`
	Hive   string `msgpack:"hive" json:"hive"`
	Worker string `msgpack:"worker" json:"worker"`
	Facts
	// Boot is the boot clock of the machine when the beat was sent, in ms. It is
	// comparable with the Boot of other workers whose NS has the same text before the
	// slash. It is 0 if there is no boot clock.
	Boot uint64 `msgpack:"boot,omitempty" json:"boot,omitempty"`
}

// Facts are the keys that a Beat and the worker's Record in a Snapshot share. Inc, Seq
// and Every are required. The keys from Seq on are sent even if they are zero, so that
// the bytes before them stay the same while only those keys change. A new key that
// changes from beat to beat goes after Seq; any other goes before it.
type Facts struct {
	Inc      uint64            `msgpack:"inc" json:"inc"`                               // incarnation: Unix µs when the process started; a restart has a higher one
	Every    Millis            `msgpack:"every" json:"every"`                           // promise: the next beat comes within this
	State    State             `msgpack:"state" json:"state,omitempty"`                 // as the worker reports it
	Reason   string            `msgpack:"reason,omitempty" json:"reason,omitempty"`     // why, for people
	Quiet    Millis            `msgpack:"quiet,omitempty" json:"quiet,omitempty"`       // announced silence
	PID      uint64            `msgpack:"pid,omitempty" json:"pid,omitempty"`           // process id, valid within NS
	NS       string            `msgpack:"ns,omitempty" json:"ns,omitempty"`             // kernel boot and pid namespace
	Host     string            `msgpack:"host,omitempty" json:"host,omitempty"`         // host name of the machine, as the worker sees it
	Conn     string            `msgpack:"conn,omitempty" json:"conn,omitempty"`         // <server id>/<client id> of its connection
	RW       Millis            `msgpack:"rw,omitempty" json:"rw,omitempty"`             // reconnect wait of its connection
	Model    string            `msgpack:"model,omitempty" json:"model,omitempty"`       // the model it serves
	Endpoint string            `msgpack:"endpoint,omitempty" json:"endpoint,omitempty"` // where it serves the model
	GPUs     []string          `msgpack:"gpus,omitempty" json:"gpus,omitempty"`         // UUIDs of the GPUs it uses
	Slots    uint64            `msgpack:"slots,omitempty" json:"slots,omitempty"`       // requests it can serve at once
	Need     uint64            `msgpack:"need,omitempty" json:"need,omitempty"`         // bytes of GPU memory that it will hold once loaded
	Labels   map[string]string `msgpack:"labels,omitempty" json:"labels,omitempty"`     // free-form
	Data     []byte            `msgpack:"data,omitempty" json:"data,omitempty"`         // opaque
	Engine   string            `msgpack:"engine,omitempty" json:"engine,omitempty"`     // the inference engine: vllm, ollama …
	Ver      string            `msgpack:"ver,omitempty" json:"ver,omitempty"`           // version of the engine
	Ctx      uint64            `msgpack:"ctx,omitempty" json:"ctx,omitempty"`           // longest context that it serves, in tokens
	KVCap    uint64            `msgpack:"kv_cap,omitempty" json:"kv_cap,omitempty"`     // tokens that its KV cache holds
	LoRA     LoRA              `msgpack:"lora,omitempty" json:"lora,omitzero"`          // its adapters
	Cold     []string          `msgpack:"cold,omitempty" json:"cold,omitempty"`         // models that it can load and has not loaded
	// Exit is in the last beat of an incarnation, which another process sends for one that
	// has ended: how it ended, such as "code 3", "signal 9" or "oom".
	Exit   string   `msgpack:"exit,omitempty" json:"exit,omitempty"`
	Seq    uint64   `msgpack:"seq" json:"seq"`                           // 1, 2, 3 … within the incarnation
	Sent   int64    `msgpack:"sent" json:"sent,omitempty"`               // sender's clock, Unix ms: for display, never used in a decision
	VRAM   uint64   `msgpack:"vram" json:"vram,omitempty"`               // bytes the worker says it holds
	Busy   uint64   `msgpack:"busy" json:"busy,omitempty"`               // slots in use
	Queue  uint64   `msgpack:"queue" json:"queue,omitempty"`             // requests waiting
	Done   uint64   `msgpack:"done" json:"done,omitempty"`               // work finished so far
	Tokens uint64   `msgpack:"tokens,omitempty" json:"tokens,omitempty"` // tokens generated so far
	KV     *float64 `msgpack:"kv,omitempty" json:"kv,omitempty"`         // use of the KV cache, 0 to 1; nil: unknown
	Probed Millis   `msgpack:"probed,omitempty" json:"probed,omitempty"` // how long ago the engine itself reported these facts; 0: they are the worker's own
}

// LoadUnknown reports whether Busy, Queue and Done say nothing, though they are 0 on the wire:
// the engine reports none, as Ollama does.
func (f *Facts) LoadUnknown() bool {
	return (f.Engine == "ollama" || f.Engine == "openai") && f.Busy == 0 && f.Queue == 0 && f.Done == 0 && f.Tokens == 0
}

// EngineSilent reports whether the engine was last heard too long ago to be picked, by another
// process that asks it. age is how old these facts are.
func (f *Facts) EngineSilent(age Millis) bool { return f.Probed > 0 && f.Probed+age > MillisOf(Fresh) }

// LoRA are the adapters of an engine that serves them next to its base model.
type LoRA struct {
	Max  uint64   `msgpack:"max,omitempty" json:"max,omitempty"`   // how many it can serve at once
	On   []string `msgpack:"on,omitempty" json:"on,omitempty"`     // loaded, or in use
	Wait []string `msgpack:"wait,omitempty" json:"wait,omitempty"` // requests wait for these
}

// IsZero reports whether l says nothing.
func (l LoRA) IsZero() bool { return l.Max == 0 && len(l.On) == 0 && len(l.Wait) == 0 }
