package api

import (
	"time"

	"github.com/beatfabric/hivebeat"
)

// Answer is the JSON of every answer. It holds either Error or the result of the verb.
// A list that the verb returns is present even if it is empty, as []. Only the lists of
// watch are left out when nothing in them changed.
type Answer struct {
	Status  Status       `json:"status"`
	Error   *Error       `json:"error,omitempty"`
	Summary *Summary     `json:"summary,omitempty"`
	Hives   []HiveInfo   `json:"hives,omitzero"`
	Workers []WorkerInfo `json:"workers,omitzero"`
	Models  []ModelInfo  `json:"models,omitzero"`
	GPUs    []GPUInfo    `json:"gpus,omitzero"`
	Next    string       `json:"next,omitempty"`  // cursor of the next page, empty on the last page; always set by watch
	Total   *int         `json:"total,omitempty"` // hives, workers: how many match in all, if that is known without looking at each

	Events  []Happened `json:"events,omitzero"`
	History *History   `json:"history,omitempty"`

	Picks  []Pick         `json:"picks,omitzero"`  // best first; fewer than requested if there are no more
	Passed map[string]int `json:"passed,omitzero"` // pick, hold: how many examined candidates did not fit, by reason
	Holds  []Hold         `json:"holds,omitzero"`
	Forgot *GPUFault      `json:"forgot,omitempty"` // forget: the GPU that the hive was told to remove

	Directive *Directive `json:"directive,omitempty"` // drain, silence: what is in force now; undrain, unsilence: what has ended

	// These are set by watch. Resync gives the reason, in words, why the watcher must
	// discard everything it has; this answer and the next ones build it again. More says
	// that more is ready: ask again at once. Gone lists hives, and workers as
	// <hive>/<worker>, that are no longer known or no longer match the filter. Missed
	// counts events that can no longer be delivered.
	Resync string   `json:"resync,omitempty"`
	More   bool     `json:"more,omitempty"`
	Gone   []string `json:"gone,omitempty"`
	Missed uint64   `json:"missed,omitempty"`
}

// PassedNoSlots is the reason in Passed for workers that never reported how many slots
// they have.
const PassedNoSlots = "reports no slots"

// Whole makes the lists that verb returns non-nil, so that empty ones are encoded as
// [].
func (a *Answer) Whole(verb string) {
	if a.Error != nil {
		return
	}
	switch verb {
	case VerbGPUs:
		a.GPUs = some(a.GPUs)
	case VerbModels:
		a.Models = some(a.Models)
	case VerbHives, VerbHive:
		a.Hives = some(a.Hives)
	case VerbWorkers, VerbWorker:
		a.Workers = some(a.Workers)
	case VerbEvents:
		a.Events = some(a.Events)
	case VerbHolds, VerbRelease:
		a.Holds = some(a.Holds)
	case VerbPick, VerbHold:
		a.Picks = some(a.Picks)
		if a.Passed == nil {
			a.Passed = map[string]int{}
		}
	}
}

func some[T any](list []T) []T {
	if list == nil {
		return []T{}
	}
	return list
}

// Status says how sure an answer is.
type Status struct {
	AsOf      time.Time `json:"as_of"`            // the queen's wall clock, for people
	Queen     string    `json:"queen"`            // id of the queen that answered
	Asker     string    `json:"asker"`            // the asker named by the request's subject, or Anyone
	Warm      bool      `json:"warm"`             // every hive that it should know was heard, or had time to be
	JetStream bool      `json:"jetstream"`        // snapshots and events are being stored
	Unsure    []string  `json:"unsure,omitempty"` // why this answer may be incomplete, in words; empty means sure

	Brake []BrakeInfo `json:"brake,omitempty"` // zones where so many hives fell silent at once that the queen does not believe it yet
}

// Sure reports whether the queen knows no reason why the answer may be incomplete.
func (s *Status) Sure() bool { return len(s.Unsure) == 0 }

// BrakeInfo is a zone whose brake is on.
type BrakeInfo struct {
	Zone  string          `json:"zone"`  // the zone's label; empty for hives without a zone
	Held  int             `json:"held"`  // hives that the brake holds as unverified now
	Since hivebeat.Millis `json:"since"` // how long the brake has been on
}

// Error is the error of an answer.
type Error struct {
	Code    string `json:"code"` // one of the codes below
	Message string `json:"message"`
}

// Codes of an Error.
const (
	CodeBadRequest  = "bad_request"
	CodeNotFound    = "not_found"
	CodeTooLarge    = "too_large"   // even one record exceeds the server's max_payload
	CodeUnavailable = "unavailable" // this queen is not running, or did not answer in time; a hold, while JetStream is away
)

// Summary counts the fleet.
type Summary struct {
	Hives     map[hivebeat.Live]int  `json:"hives"`
	Workers   map[hivebeat.Live]int  `json:"workers"`
	States    map[hivebeat.State]int `json:"states"`     // of workers that are alive
	GPUs      int                    `json:"gpus"`       // of fresh hives, and ok or degraded
	VRAMTotal uint64                 `json:"vram_total"` // in bytes, sum over the same GPUs, as the next ones
	VRAMUsed  uint64                 `json:"vram_used"`
	VRAMOurs  uint64                 `json:"vram_ours"`
	// The other parts of VRAMTotal: VRAMUsed is the sum of VRAMOurs, VRAMOrphaned,
	// VRAMForeign and VRAMUnattributed. The rest is free, but for VRAMReserved.
	VRAMOrphaned     uint64 `json:"vram_orphaned,omitempty"`
	VRAMForeign      uint64 `json:"vram_foreign,omitempty"`
	VRAMUnattributed uint64 `json:"vram_unattributed,omitempty"`
	VRAMReserved     uint64 `json:"vram_reserved,omitempty"`
	// GPUStates counts the GPUs of hives that are up by their state. VRAMStale is the
	// memory of those that are neither ok nor degraded, which is in no other sum.
	GPUStates map[hivebeat.GPUState]int `json:"gpu_states,omitempty"`
	VRAMStale uint64                    `json:"vram_stale,omitempty"`
	Stats     Score                     `json:"stats"`
}

// Score says how good the verdicts were, where known: those of the known hives, each
// since it started, and those of the queen that answers.
type Score struct {
	FalseDead uint64            `json:"false_dead"`        // lost, and heard again in the same incarnation
	CutOff    uint64            `json:"cut_off"`           // the same, but its messages did not arrive: the link was at fault, not the verdict
	WireLost  uint64            `json:"wire_lost"`         // messages proved lost
	SelfPause hivebeat.Millis   `json:"self_pause"`        // time that observers were stopped or starved
	Margins   map[string]uint64 `json:"margins,omitempty"` // for this queen's own verdicts: time until the sender was heard again, by upper bound in ms
	Adopted   int               `json:"adopted"`           // workers that this queen judges because their hive is lost
}

// HiveInfo is one hive in an answer.
type HiveInfo struct {
	Hive     string                `json:"hive"`
	Live     hivebeat.Live         `json:"live"`
	Cause    hivebeat.Cause        `json:"cause,omitempty"`
	Conflict bool                  `json:"conflict,omitempty"` // two hives with this id are beating
	Rival    uint64                `json:"rival,omitempty"`    // in a conflict: the incarnation that is not believed
	Believed *hivebeat.Place       `json:"believed,omitempty"` // in a conflict: where the believed one runs, and the refused one
	Refused  *hivebeat.Place       `json:"refused,omitempty"`
	Inc      uint64                `json:"inc"`
	Seq      uint64                `json:"seq"`
	Every    hivebeat.Millis       `json:"every"`
	Age      hivebeat.Millis       `json:"age"`   // since its last snapshot was received
	Fresh    bool                  `json:"fresh"` // age is within the limit, so the facts below may be used
	Since    hivebeat.Millis       `json:"since"` // time since Live took this value
	Warm     bool                  `json:"warm"`
	Bye      string                `json:"bye,omitempty"`
	Zone     string                `json:"zone,omitempty"`
	Labels   map[string]string     `json:"labels,omitempty"`
	Host     hivebeat.Host         `json:"host"`
	GPUs     []hivebeat.GPU        `json:"gpus,omitempty"` // ages are effective: they include the time since the snapshot was received
	Collect  map[string]string     `json:"collect,omitempty"`
	Stats    hivebeat.Stats        `json:"stats"`
	Workers  map[hivebeat.Live]int `json:"workers"`             // how many per verdict
	FreeVRAM uint64                `json:"free_vram,omitempty"` // in bytes: the most on one GPU, less the part held; only for fresh hives
	Held     uint64                `json:"held,omitempty"`      // bytes held on its GPUs
	// Loading is how many bytes of GPU memory loading workers have announced and do not
	// hold yet. VRAMBudget is the most that all workers may hold together; 0 is no limit.
	Loading    uint64 `json:"loading,omitempty"`
	VRAMBudget uint64 `json:"vram_budget,omitempty"`
	VRAMStale  uint64 `json:"vram_stale,omitempty"` // bytes of its GPUs that are neither ok nor degraded: their figures are old

	Drained     *Imposed           `json:"drained,omitempty"`      // an operator drained the hive: it gets no new work
	DrainedGPUs map[string]Imposed `json:"drained_gpus,omitempty"` // its GPUs that an operator drained, by UUID
	Silenced    *Imposed           `json:"silenced,omitempty"`     // an operator silenced the hive: deaths there wake nobody
}

// WorkerInfo is one worker in an answer. Live, Age and Since of the record are
// effective: they include the time since its snapshot was received, and a record older
// than the freshness limit is shown as late at best.
type WorkerInfo struct {
	Hive  string `json:"hive"`
	Zone  string `json:"zone,omitempty"`
	Via   string `json:"via"` // which program judges it: hive or queen
	Fresh bool   `json:"fresh"`
	Held  uint64 `json:"held,omitempty"` // slots that are held
	// Up is how long ago its incarnation began, if known. It is 0 if the worker is lost or
	// left.
	Up hivebeat.Millis `json:"up,omitempty"`
	// GPUFault is the worst of the worker's GPUs, if it is not ok.
	GPUFault *GPUFault `json:"gpu_fault,omitempty"`
	// MemoryConflict says in words that the worker claims GPU memory that the driver does
	// not see, or the reverse.
	MemoryConflict string   `json:"memory_conflict,omitempty"`
	Drained        *Imposed `json:"drained,omitempty"`  // an operator drained it, its hive or a GPU of it: it gets no new work
	Silenced       *Imposed `json:"silenced,omitempty"` // an operator silenced it or its hive: its death wakes nobody
	hivebeat.Record
}

// GPUFault is the state of a GPU that is not ok.
type GPUFault struct {
	GPU      string            `json:"gpu"` // UUID
	Index    uint64            `json:"index"`
	State    hivebeat.GPUState `json:"state"`
	Cause    hivebeat.Cause    `json:"cause,omitempty"`
	Evidence string            `json:"evidence,omitempty"`
	Action   string            `json:"action,omitempty"`
}

// Cursor returns the position of the worker in a list sorted by id.
func (w *WorkerInfo) Cursor() string { return w.Hive + "/" + w.Worker }
