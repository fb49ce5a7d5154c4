package hivebeat

// Snapshot is the message that a hive sends: the hive, its machine and all its workers,
// as one msgpack map on queen.hives. A page of a long snapshot is complete in itself:
// it holds all scalars, the host, the GPUs, and a slice of the workers.
type Snapshot struct {
	V      uint64            `msgpack:"v" json:"v"`
	Hive   string            `msgpack:"hive" json:"hive"`
	Inc    uint64            `msgpack:"inc" json:"inc"`     // Unix µs when the hive began
	Every  Millis            `msgpack:"every" json:"every"` // promise: the next snapshot comes within this
	Seq    uint64            `msgpack:"seq" json:"seq"`
	Sent   int64             `msgpack:"sent,omitempty" json:"sent,omitempty"` // sender's clock, Unix ms: for display, never used in a decision
	Warm   bool              `msgpack:"warm" json:"warm"`                     // the absence of a worker is evidence
	Page   uint64            `msgpack:"page" json:"page"`                     // 0-based
	Pages  uint64            `msgpack:"pages" json:"pages"`                   // at least 1
	Bye    string            `msgpack:"bye,omitempty" json:"bye,omitempty"`   // set in the last snapshot of a hive that leaves in order
	Conn   string            `msgpack:"conn,omitempty" json:"conn,omitempty"` // of the hive's NATS connection: <server id>/<client id>
	RW     Millis            `msgpack:"rw,omitempty" json:"rw,omitempty"`     // reconnect wait of that connection
	PID    uint64            `msgpack:"pid,omitempty" json:"pid,omitempty"`   // process id of the hive
	Labels map[string]string `msgpack:"labels,omitempty" json:"labels,omitempty"`
	Host   Host              `msgpack:"host" json:"host"`
	GPUs   []GPU             `msgpack:"gpus,omitempty" json:"gpus,omitempty"`
	// VRAMBudget is the most GPU memory that this hive's workers may hold together, in
	// bytes; 0 is no limit.
	VRAMBudget uint64 `msgpack:"vram_budget,omitempty" json:"vram_budget,omitempty"`
	// GPUN counts the transitions of GPUs within this hive incarnation, and GPUTr has
	// the newest ones, oldest first.
	GPUN    uint64            `msgpack:"gpu_n,omitempty" json:"gpu_n,omitempty"`
	GPUTr   []GPUTransition   `msgpack:"gpu_tr,omitempty" json:"gpu_tr,omitempty"`
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
	Kernel   string  `msgpack:"kernel,omitempty" json:"kernel,omitempty"`       // release of the kernel
	Driver   string  `msgpack:"driver,omitempty" json:"driver,omitempty"`       // version of the GPU driver

	// The file systems of the model cache and of the store, in bytes. Free is what an
	// unprivileged process may still write.
	CacheTotal uint64 `msgpack:"cache_total,omitempty" json:"cache_total,omitempty"`
	CacheFree  uint64 `msgpack:"cache_free,omitempty" json:"cache_free,omitempty"`
	StoreTotal uint64 `msgpack:"store_total,omitempty" json:"store_total,omitempty"`
	StoreFree  uint64 `msgpack:"store_free,omitempty" json:"store_free,omitempty"`
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
	// On has the UUIDs of the GPUs and MIG instances on which the worker's processes hold
	// memory, as the driver reports it.
	On []string `msgpack:"on,omitempty" json:"on,omitempty"`
	// Fault is what the GPU driver reported last about the worker's own processes, such as
	// an XID that the program caused.
	Fault string `msgpack:"fault,omitempty" json:"fault,omitempty"`
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
	// Rate is how many requests the worker finishes in a second while it has work, and TPS
	// how many tokens it generates then, as its hive derives them from Done and Tokens; 0:
	// unknown.
	Rate float64 `msgpack:"rate,omitempty" json:"rate,omitempty"`
	TPS  float64 `msgpack:"tps,omitempty" json:"tps,omitempty"`
	Proc Proc    `msgpack:"os,omitempty" json:"os,omitzero"`
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

// Proc is what the operating system reports about a worker's process and its
// descendants, taken together. Up is of the process alone.
type Proc struct {
	RSS  uint64  `msgpack:"rss,omitempty" json:"rss,omitempty"`   // bytes
	CPU  float64 `msgpack:"cpu,omitempty" json:"cpu,omitempty"`   // percent of one CPU
	VRAM uint64  `msgpack:"vram,omitempty" json:"vram,omitempty"` // bytes on all GPUs
	Up   Millis  `msgpack:"up,omitempty" json:"up,omitempty"`     // since the process started
	Read uint64  `msgpack:"read,omitempty" json:"read,omitempty"` // bytes read so far, from files and other sources

	Procs   uint64 `msgpack:"procs,omitempty" json:"procs,omitempty"`     // how many processes
	Threads uint64 `msgpack:"threads,omitempty" json:"threads,omitempty"` // of all of them
	Files   uint64 `msgpack:"files,omitempty" json:"files,omitempty"`     // open files of all of them
	MemMax  uint64 `msgpack:"mem_max,omitempty" json:"mem_max,omitempty"` // limit of its cgroup in bytes; 0 if it has none
	OOM     uint64 `msgpack:"oom,omitempty" json:"oom,omitempty"`         // processes that the kernel killed in its cgroup for want of memory
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
