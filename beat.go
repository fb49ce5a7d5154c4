package hivebeat

import "time"

// Millis is a span of time on the wire, in milliseconds.
type Millis uint64

// Duration returns m as a time.Duration.
func (m Millis) Duration() time.Duration { return time.Duration(m) * time.Millisecond }

// MillisOf returns d in whole milliseconds, and 0 for a negative d.
func MillisOf(d time.Duration) Millis { return Millis(max(0, d.Milliseconds())) }

// Beat is what a worker says: one msgpack map on hive.<hive>.workers. Its keys
// are the msgpack tags; what changes in every beat stands last, so that a reader
// can recognise the rest by its bytes.
type Beat struct {
	V      uint64 `msgpack:"v" json:"v"`
	Hive   string `msgpack:"hive" json:"hive"`
	Worker string `msgpack:"worker" json:"worker"`
	Facts
}

// Facts are the keys that a Beat and the worker's record in a Snapshot share.
// Required are Inc, Seq and Every. From Seq on they are sent even if zero, so that
// the bytes before them stay the same while only they change. A new key that changes
// from beat to beat follows Seq, any other stands before it.
type Facts struct {
	Inc      uint64            `msgpack:"inc" json:"inc"`                               // incarnation: Unix µs when the process began; a restart has a higher one
	Every    Millis            `msgpack:"every" json:"every"`                           // promise: the next beat comes within this
	State    State             `msgpack:"state" json:"state,omitempty"`                 // what the worker says of itself
	Reason   string            `msgpack:"reason,omitempty" json:"reason,omitempty"`     // why, for people
	Quiet    Millis            `msgpack:"quiet,omitempty" json:"quiet,omitempty"`       // announced silence
	PID      uint64            `msgpack:"pid,omitempty" json:"pid,omitempty"`           // process id, valid within NS
	NS       string            `msgpack:"ns,omitempty" json:"ns,omitempty"`             // kernel boot and pid namespace
	Host     string            `msgpack:"host,omitempty" json:"host,omitempty"`         // host name of the machine, as the worker sees it
	Conn     string            `msgpack:"conn,omitempty" json:"conn,omitempty"`         // <server id>/<client id> of its connection
	RW       Millis            `msgpack:"rw,omitempty" json:"rw,omitempty"`             // reconnect wait of that connection
	Model    string            `msgpack:"model,omitempty" json:"model,omitempty"`       // what it serves
	Endpoint string            `msgpack:"endpoint,omitempty" json:"endpoint,omitempty"` // and where
	GPUs     []string          `msgpack:"gpus,omitempty" json:"gpus,omitempty"`         // UUIDs of the GPUs it uses
	Slots    uint64            `msgpack:"slots,omitempty" json:"slots,omitempty"`       // requests it can serve at once
	Labels   map[string]string `msgpack:"labels,omitempty" json:"labels,omitempty"`     // free
	Data     []byte            `msgpack:"data,omitempty" json:"data,omitempty"`         // opaque
	Seq      uint64            `msgpack:"seq" json:"seq"`                               // 1, 2, 3 … within the incarnation
	Sent     int64             `msgpack:"sent" json:"sent,omitempty"`                   // sender's Unix ms: shown, never judged by
	VRAM     uint64            `msgpack:"vram" json:"vram,omitempty"`                   // bytes it says it holds
	Busy     uint64            `msgpack:"busy" json:"busy,omitempty"`                   // slots in use
	Queue    uint64            `msgpack:"queue" json:"queue,omitempty"`                 // requests waiting
	Done     uint64            `msgpack:"done" json:"done,omitempty"`                   // work finished so far
}
