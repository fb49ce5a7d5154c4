package api

import "github.com/beatfabric/hivebeat"

// Verbs: requests go to queen.api.<verb>, or to one of its other forms. All but
// hold and release change nothing.
const (
	VerbSummary = "summary" // counts of the whole fleet
	VerbHives   = "hives"   // hives, in pages
	VerbWorkers = "workers" // workers, in pages
	VerbHive    = "hive"    // one hive
	VerbWorker  = "worker"  // one worker
	VerbEvents  = "events"  // events, newest first, in pages
	VerbHistory = "history" // numbers of the last hours, of the fleet or one hive
	VerbPick    = "pick"    // who can take this?
	VerbHold    = "hold"    // pick, and hold what was picked
	VerbRelease = "release" // give a hold back
	VerbHolds   = "holds"   // the holds that are known, of all askers
	VerbWatch   = "watch"   // what changed since a cursor; everything where there is none
)

// Verbs lists all of them.
func Verbs() []string {
	return []string{
		VerbSummary, VerbHives, VerbWorkers, VerbHive, VerbWorker, VerbEvents, VerbHistory, VerbPick, VerbHold,
		VerbRelease, VerbHolds, VerbWatch,
	}
}

// Acts reports whether a verb changes something. Such a verb is a right of its own.
func Acts(verb string) bool { return verb == VerbHold || verb == VerbRelease }

// Anyone is the asker where the subject of a request names none. All who ask without a
// name share the holds of Anyone.
const Anyone = "anyone"

// Request is the JSON of every verb. An empty payload is the zero Request. Each
// verb takes some of the keys, as their comments say, and refuses the others.
type Request struct {
	Hive   string `json:"hive,omitempty"`   // hive, worker, history: which one. hives, workers, events, pick, hold, watch: only this
	Worker string `json:"worker,omitempty"` // worker: which one. events: only this one of Hive

	Filter

	Sort   string `json:"sort,omitempty"`   // hives, workers: one of SortKeys; "-" before it turns it round. Default id
	After  string `json:"after,omitempty"`  // go on after this cursor, the next of the answer before
	Offset int    `json:"offset,omitempty"` // hives, workers: leave out so many first, up to 10,000,000
	Limit  int    `json:"limit,omitempty"`  // hives, workers, events, watch: at most so many, 1 to 1000; default 200

	Kinds []hivebeat.Kind `json:"kinds,omitempty"` // events, watch: only these
	Since hivebeat.Millis `json:"since,omitempty"` // events, history: not older than this

	Wait hivebeat.Millis `json:"wait,omitempty"` // watch: answer at the first change, or after this; up to 60,000. 0 answers at once
	Only []string        `json:"only,omitempty"` // watch: some of "summary", "hives", "workers", "events"; default all

	N         int             `json:"n,omitempty"`          // pick, hold: so many places, 1 to 100; default 1
	For       string          `json:"for,omitempty"`        // pick, hold: ForWorker (the default) or ForGPU
	Spread    string          `json:"spread,omitempty"`     // pick, hold: SpreadZone (the default), SpreadHive or SpreadNone
	Slots     uint64          `json:"slots,omitempty"`      // pick, hold: slots that each place takes; default 1
	MinUptime hivebeat.Millis `json:"min_uptime,omitempty"` // pick, hold: a worker began at least so long ago, as far as is known
	Hold      string          `json:"hold,omitempty"`       // hold: the places are held under this id, which the asker makes up. release: which one
	HoldMS    hivebeat.Millis `json:"hold_for,omitempty"`   // hold: for so long, 1,000 to 600,000; default 30,000
}

// Filter says which hives and workers are meant: those that fit all of it. Where it
// is said of hives, Model, State and FreeSlots mean hives with such a worker.
type Filter struct {
	Model     string           `json:"model,omitempty"`      // glob: * is any text, ? one character
	Live      []hivebeat.Live  `json:"live,omitempty"`       // as shown, one of these
	State     []hivebeat.State `json:"state,omitempty"`      // one of these
	Zone      string           `json:"zone,omitempty"`       // of the hive
	Selector  string           `json:"selector,omitempty"`   // labels, as Kubernetes writes it; see ParseSelector
	Text      string           `json:"text,omitempty"`       // part of a hive's or worker's id, zone or model, case ignored
	FreeVRAM  uint64           `json:"free_vram,omitempty"`  // bytes free on one GPU: of the worker's GPUs if it names any, else of its hive's
	FreeSlots uint64           `json:"free_slots,omitempty"` // slots less busy less held
	MaxAge    hivebeat.Millis  `json:"max_age,omitempty"`    // facts are not older than this
	Stalled   bool             `json:"stalled,omitempty"`    // only those that are busy and make no progress
}

// What a pick or hold is for.
const (
	ForWorker = "worker" // a worker that serves Model and has a free slot
	ForGPU    = "gpu"    // a GPU with room for another worker
)

// How a pick or hold spreads its places.
const (
	SpreadZone = "zone" // as evenly over zones as can be, then over hives
	SpreadHive = "hive" // over hives
	SpreadNone = "none" // the best, wherever they are
)

// SortKeys of hives and of workers. All but id are ties broken by id.
var (
	HiveSortKeys   = []string{"id", "live", "age", "workers", "vram_free", "cpu"}
	WorkerSortKeys = []string{"id", "live", "state", "age", "model", "busy", "queue", "vram", "done"}
)
