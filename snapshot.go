package hivebeat

// Snapshot is the message that a hive sends: the hive, its machine and all its workers,
// as one msgpack map on queen.hives. A page of a long snapshot is complete in itself:
// it holds all scalars, the host, the GPUs, and a slice of the workers.
type Snapshot struct {
	V       uint64            `msgpack:"v" json:"v"`
	Hive    string            `msgpack:"hive" json:"hive"`
	Inc     uint64            `msgpack:"inc" json:"inc"`     // Unix µs when the hive began
	Every   Millis            `msgpack:"every" json:"every"` // promise: the next snapshot comes within this
	Seq     uint64            `msgpack:"seq" json:"seq"`
	Sent    int64             `msgpack:"sent,omitempty" json:"sent,omitempty"` // sender's clock, Unix ms: for display, never used in a decision
	Warm    bool              `msgpack:"warm" json:"warm"`                     // the absence of a worker is evidence
	Page    uint64            `msgpack:"page" json:"page"`                     // 0-based
	Pages   uint64            `msgpack:"pages" json:"pages"`                   // at least 1
	Bye     string            `msgpack:"bye,omitempty" json:"bye,omitempty"`   // set in the last snapshot of a hive that leaves in order
	Conn    string            `msgpack:"conn,omitempty" json:"conn,omitempty"` // of the hive's NATS connection: <server id>/<client id>
	RW      Millis            `msgpack:"rw,omitempty" json:"rw,omitempty"`     // reconnect wait of that connection
	PID     uint64            `msgpack:"pid,omitempty" json:"pid,omitempty"`   // process id of the hive
	Labels  map[string]string `msgpack:"labels,omitempty" json:"labels,omitempty"`
	Host    Host              `msgpack:"host" json:"host"`
	GPUs    []GPU             `msgpack:"gpus,omitempty" json:"gpus,omitempty"`
	Collect map[string]string `msgpack:"collect,omitempty" json:"collect,omitempty"` // per source: ok, none or the error
	Stats   Stats             `msgpack:"stats" json:"stats"`
	Workers []Record          `msgpack:"workers" json:"workers"`
}

// Host describes the machine of a hive, as the hive sees it.
type Host struct {
	Name     string  `msgpack:"name,omitempty" json:"name,omitempty"`
	OS       string  `msgpack:"os,omitempty" json:"os,omitempty"`
	Arch     string  `msgpack:"arch,omitempty" json:"arch,omitempty"`
	CPUs     uint64  `msgpack:"cpus,omitempty" json:"cpus,omitempty"`
	Load1    float64 `msgpack:"load1,omitempty" json:"load1,omitempty"`         // load average of one minute
	CPU      float64 `msgpack:"cpu,omitempty" json:"cpu,omitempty"`             // percent of all CPUs
	MemTotal uint64  `msgpack:"mem_total,omitempty" json:"mem_total,omitempty"` // bytes
	MemUsed  uint64  `msgpack:"mem_used,omitempty" json:"mem_used,omitempty"`   // bytes
	Uptime   uint64  `msgpack:"uptime,omitempty" json:"uptime,omitempty"`       // seconds
}

// GPU is one GPU of the machine. Used minus Ours is held by processes that are not
// workers of this hive.
type GPU struct {
	UUID  string `msgpack:"uuid" json:"uuid"`
	Index uint64 `msgpack:"index" json:"index"`
	Name  string `msgpack:"name,omitempty" json:"name,omitempty"`
	Total uint64 `msgpack:"total,omitempty" json:"total,omitempty"` // bytes
	Used  uint64 `msgpack:"used,omitempty" json:"used,omitempty"`   // bytes
	Ours  uint64 `msgpack:"ours,omitempty" json:"ours,omitempty"`   // bytes held by this hive's workers
	Util  uint64 `msgpack:"util,omitempty" json:"util,omitempty"`   // 0 to 100
	Temp  int64  `msgpack:"temp,omitempty" json:"temp,omitempty"`   // °C
	Power uint64 `msgpack:"power,omitempty" json:"power,omitempty"` // mW
	Age   Millis `msgpack:"age,omitempty" json:"age,omitempty"`     // since these facts were read
	Err   string `msgpack:"err,omitempty" json:"err,omitempty"`     // why facts of this GPU are missing
}

// Free returns the bytes of GPU memory that no process holds.
func (g GPU) Free() uint64 {
	if g.Used >= g.Total {
		return 0
	}
	return g.Total - g.Used
}

// Record is one worker in a Snapshot: its last beat, and what its hive concludes.
type Record struct {
	Worker  string       `msgpack:"worker" json:"worker"`
	Live    Live         `msgpack:"live" json:"live"`
	Cause   Cause        `msgpack:"cause,omitempty" json:"cause,omitempty"`
	N       uint64       `msgpack:"n,omitempty" json:"n,omitempty"`           // transitions so far within this hive incarnation
	Tr      []Transition `msgpack:"tr,omitempty" json:"tr,omitempty"`         // the newest transitions, oldest first
	Missed  uint64       `msgpack:"missed,omitempty" json:"missed,omitempty"` // beats due since the last one received
	Stalled bool         `msgpack:"stalled,omitempty" json:"stalled,omitempty"`
	Rival   uint64       `msgpack:"rival,omitempty" json:"rival,omitempty"` // incarnation of another process that beats under this id and is refused
	RivalAt Place        `msgpack:"rival_at,omitempty" json:"rival_at,omitzero"`
	Addr    string       `msgpack:"addr,omitempty" json:"addr,omitempty"`   // client address of the accepted incarnation, while there is a Rival
	Ended   uint64       `msgpack:"ended,omitempty" json:"ended,omitempty"` // lost: when its process ended, by the Boot clock of its beats; 0 if unknown
	Facts
	Age   Millis `msgpack:"age" json:"age"`     // since the last beat, by the hive's monotonic clock
	Since Millis `msgpack:"since" json:"since"` // since the current Live began
	// Closed reports that the worker's connection closed and that no beat has arrived
	// since. The worker may have ended or moved, and must not be picked.
	Closed bool `msgpack:"closed,omitempty" json:"closed,omitempty"`
	// Restarts counts the restarts of the last hour. Looping reports that there were 3
	// within 5 minutes, and one within the last 10 minutes.
	Restarts uint64 `msgpack:"restarts,omitempty" json:"restarts,omitempty"`
	Looping  bool   `msgpack:"looping,omitempty" json:"looping,omitempty"`
	Proc     Proc   `msgpack:"os,omitempty" json:"os,omitzero"`
}

// Place is where a process runs, as far as known.
type Place struct {
	Inc  uint64 `msgpack:"-" json:"inc,omitempty"`               // its incarnation; a Record has it in another field
	Host string `msgpack:"host,omitempty" json:"host,omitempty"` // of the machine, as the process sees it
	PID  uint64 `msgpack:"pid,omitempty" json:"pid,omitempty"`   // process id
	Conn string `msgpack:"conn,omitempty" json:"conn,omitempty"` // of its NATS connection: <server id>/<client id>
	Addr string `msgpack:"addr,omitempty" json:"addr,omitempty"` // of the client, as that server sees it: <ip>:<port>
}

// Transition is one step in a worker's life, numbered by its hive.
type Transition struct {
	N      uint64 `msgpack:"n" json:"n"`
	Kind   Kind   `msgpack:"kind" json:"kind"`
	From   string `msgpack:"from,omitempty" json:"from,omitempty"` // a Live, or a State if Kind is state
	To     string `msgpack:"to,omitempty" json:"to,omitempty"`
	Cause  Cause  `msgpack:"cause,omitempty" json:"cause,omitempty"`
	Inc    uint64 `msgpack:"inc" json:"inc"`
	Detect Millis `msgpack:"detect,omitempty" json:"detect,omitempty"` // lost: time from the end to the verdict, rounded up; 0 if the end was not seen
	Margin Millis `msgpack:"margin,omitempty" json:"margin,omitempty"` // recovered: how far past its deadline, rounded up; 0 if unknown
	Ago    Millis `msgpack:"ago" json:"ago"`
}

// Proc is what the operating system reports about a worker's process.
type Proc struct {
	RSS  uint64  `msgpack:"rss,omitempty" json:"rss,omitempty"`   // bytes
	CPU  float64 `msgpack:"cpu,omitempty" json:"cpu,omitempty"`   // percent of one CPU
	VRAM uint64  `msgpack:"vram,omitempty" json:"vram,omitempty"` // bytes on all GPUs
	Up   Millis  `msgpack:"up,omitempty" json:"up,omitempty"`     // since the process started
	Read uint64  `msgpack:"read,omitempty" json:"read,omitempty"` // bytes read so far, from files and other sources
}

// Stats are the hive's own counters since it started.
type Stats struct {
	Beats     uint64 `msgpack:"beats,omitempty" json:"beats,omitempty"`           // accepted
	Refused   uint64 `msgpack:"refused,omitempty" json:"refused,omitempty"`       // for any reason but stale
	Stale     uint64 `msgpack:"stale,omitempty" json:"stale,omitempty"`           // replayed, out of order, superseded
	WireLost  uint64 `msgpack:"wire_lost,omitempty" json:"wire_lost,omitempty"`   // gaps in seq that later proved to be loss
	FalseDead uint64 `msgpack:"false_dead,omitempty" json:"false_dead,omitempty"` // lost, then heard from again in the same incarnation
	CutOff    uint64 `msgpack:"cut_off,omitempty" json:"cut_off,omitempty"`       // the same, but seq had advanced meanwhile: the link was at fault, not the verdict
	SelfPause Millis `msgpack:"self_pause,omitempty" json:"self_pause,omitempty"` // time the hive itself was stopped or starved
}
