package api

import "github.com/beatfabric/hivebeat"

// Verbs. Requests go to queen.api.<verb>, or to one of its other forms. Those
// for which Acts is true change something.
const (
	VerbSummary = "summary" // counts of the whole fleet
	VerbHives   = "hives"   // hives, in pages
	VerbWorkers = "workers" // workers, in pages
	VerbHive    = "hive"    // one hive
	VerbWorker  = "worker"  // one worker
	VerbModels  = "models"  // models, by name, in pages
	VerbGPUs    = "gpus"    // GPUs, by hive and index, in pages
	VerbEvents  = "events"  // events, newest first, in pages
	VerbHistory = "history" // figures of the last hours, for the fleet or one hive
	VerbPick    = "pick"    // what can take this work?
	VerbHold    = "hold"    // pick, and hold the picked places
	VerbRelease = "release" // give a hold back
	VerbHolds   = "holds"   // the known holds of all askers
	VerbWatch   = "watch"   // changes since a cursor; everything without one
	VerbForget  = "forget"  // remove a GPU that is gone, or a hive that is lost or left
	VerbDrain   = "drain"   // give no new work to a hive, worker or GPU
	VerbUndrain = "undrain" // end a drain

	VerbSilence   = "silence"   // let deaths of a hive or worker wake nobody
	VerbUnsilence = "unsilence" // end a silence
)

// Verbs returns all verbs.
func Verbs() []string {
	return []string{
		VerbSummary, VerbHives, VerbWorkers, VerbHive, VerbWorker, VerbModels, VerbGPUs, VerbEvents, VerbHistory, VerbPick, VerbHold,
		VerbRelease, VerbHolds, VerbWatch, VerbForget, VerbDrain, VerbUndrain,
		VerbSilence, VerbUnsilence,
	}
}

// Acts reports whether a verb changes something. Such a verb needs a separate
// permission.
func Acts(verb string) bool {
	switch verb {
	case VerbHold, VerbRelease, VerbForget, VerbDrain, VerbUndrain, VerbSilence, VerbUnsilence:
		return true
	}
	return false
}

// Anyone is the asker if the subject of a request names none. All requests without an
// asker share the holds of Anyone.
const Anyone = "anyone"

// Request is the JSON of a request for any verb. An empty payload is the zero Request.
// Each verb takes some of the keys, as their comments say, and refuses the others.
type Request struct {
	Hive   string `json:"hive,omitempty"`   // hive, worker, history: which one. hives, workers, events, pick, hold, watch: only this one
	Worker string `json:"worker,omitempty"` // worker: which one. events: only this one of Hive. drain, silence and their ends: this one of Hive
	GPU    string `json:"gpu,omitempty"`    // forget, drain, undrain: UUID of the GPU of Hive

	Filter

	Sort   string `json:"sort,omitempty"`   // hives, workers: one of SortKeys; a leading "-" reverses the order. Default id
	After  string `json:"after,omitempty"`  // continue after this cursor, the next of the previous answer
	Offset int    `json:"offset,omitempty"` // hives, workers: skip this many first, up to 10,000,000
	Limit  int    `json:"limit,omitempty"`  // hives, workers, events, watch: at most this many, 1 to 1000; default 200

	Kinds []hivebeat.Kind `json:"kinds,omitempty"` // events, watch: only these
	Since hivebeat.Millis `json:"since,omitempty"` // events, history: not older than this

	Wait hivebeat.Millis `json:"wait,omitempty"` // watch: answer at the first change, or after this time; up to 60,000. 0 answers at once
	Only []string        `json:"only,omitempty"` // watch: some of "summary", "hives", "workers", "events"; default all

	N         int             `json:"n,omitempty"`          // pick, hold: how many places, 1 to 100; default 1
	For       string          `json:"for,omitempty"`        // pick, hold: ForWorker (the default) or ForGPU
	Spread    string          `json:"spread,omitempty"`     // pick, hold: SpreadZone (the default), SpreadHive or SpreadNone
	Slots     uint64          `json:"slots,omitempty"`      // pick, hold: slots that each place takes; default 1
	GPUs      int             `json:"gpus,omitempty"`       // pick, hold, for ForGPU: each place is this many GPUs of one machine, each with FreeVRAM; 1 to 64, default 1
	MinUptime hivebeat.Millis `json:"min_uptime,omitempty"` // pick, hold: a worker began at least this long ago, if that is known
	Hold      string          `json:"hold,omitempty"`       // hold: the asker's own id for the hold. release: which one
	HoldMS    hivebeat.Millis `json:"hold_for,omitempty"`   // hold: for this long, 1,000 to 600,000; default 30,000

	Reason string          `json:"reason,omitempty"` // drain, silence: why, in words; at most 256 bytes
	During hivebeat.Millis `json:"during,omitempty"` // drain, silence: for this long, 1,000 to 31,536,000,000; default until it is ended. A silence needs it, up to 604,800,000
}

// Filter selects the hives and workers that match all of its fields. Applied to hives,
// Model, State and FreeSlots select hives with such a worker.
type Filter struct {
	Model     string           `json:"model,omitempty"`      // glob: * is any text, ? one character
	Live      []hivebeat.Live  `json:"live,omitempty"`       // one of these, as shown
	State     []hivebeat.State `json:"state,omitempty"`      // one of these
	Zone      string           `json:"zone,omitempty"`       // of the hive
	Selector  string           `json:"selector,omitempty"`   // labels, in the Kubernetes syntax; see ParseSelector
	Text      string           `json:"text,omitempty"`       // part of the id, zone or model of a hive or worker; case is ignored
	FreeVRAM  uint64           `json:"free_vram,omitempty"`  // bytes free on one GPU: a GPU of the worker if it names any, else of its hive
	FreeSlots uint64           `json:"free_slots,omitempty"` // slots minus busy minus held
	FreeDisk  uint64           `json:"free_disk,omitempty"`  // bytes free on the file system of the hive's model cache
	Driver    string           `json:"driver,omitempty"`     // glob: version of the hive's GPU driver
	Kernel    string           `json:"kernel,omitempty"`     // glob: release of the hive's kernel
	MaxAge    hivebeat.Millis  `json:"max_age,omitempty"`    // facts are not older than this
	Stalled   bool             `json:"stalled,omitempty"`    // only workers that are busy and make no progress
}

// Purposes of a pick or hold.
const (
	ForWorker = "worker" // a worker that serves Model and has a free slot
	ForGPU    = "gpu"    // a GPU with enough free memory for another worker
)

// How a pick or hold spreads its places.
const (
	SpreadZone = "zone" // as evenly as possible over zones, then over hives
	SpreadHive = "hive" // over hives
	SpreadNone = "none" // the best, wherever they are
)

// Sort keys of hives and of workers. id breaks the ties of all others.
var (
	HiveSortKeys   = []string{"id", "live", "age", "workers", "vram_free", "cpu"}
	WorkerSortKeys = []string{"id", "live", "state", "age", "model", "busy", "queue", "vram", "done"}
)
