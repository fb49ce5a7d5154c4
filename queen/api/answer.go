package api

import (
	"time"

	"github.com/beatfabric/hivebeat"
)

// Answer is the JSON of every answer. Either Error is set, or what the verb was
// asked for: a list that was asked for is there also where it is empty, as [], but
// for those of watch, which holds what changed alone.
type Answer struct {
	Status  Status       `json:"status"`
	Error   *Error       `json:"error,omitempty"`
	Summary *Summary     `json:"summary,omitempty"`
	Hives   []HiveInfo   `json:"hives,omitzero"`
	Workers []WorkerInfo `json:"workers,omitzero"`
	Next    string       `json:"next,omitempty"`  // cursor of the next page; empty on the last. watch: always set
	Total   *int         `json:"total,omitempty"` // hives, workers: how many fit in all, where that is known without looking at each

	Events  []Happened `json:"events,omitzero"`
	History *History   `json:"history,omitempty"`

	Picks  []Pick         `json:"picks,omitzero"`  // best first; fewer than asked for where there are no more
	Passed map[string]int `json:"passed,omitzero"` // pick, hold: of those it looked at, how many did not fit, by reason
	Holds  []Hold         `json:"holds,omitzero"`

	// watch: Resync says in words why all that the watcher holds is void; what
	// follows builds it anew. More says that more waits already: ask at once. Gone
	// are hives, and workers as <hive>/<worker>, that are known no more or fit the
	// filter no more. Missed counts events that can not be told any more.
	Resync string   `json:"resync,omitempty"`
	More   bool     `json:"more,omitempty"`
	Gone   []string `json:"gone,omitempty"`
	Missed uint64   `json:"missed,omitempty"`
}

// PassedNoSlots is the reason in Passed of workers that never said how many slots
// they have.
const PassedNoSlots = "no slots said"

// Whole makes the lists that verb was asked for be there, where they are empty.
func (a *Answer) Whole(verb string) {
	if a.Error != nil {
		return
	}
	switch verb {
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
	Queen     string    `json:"queen"`            // which queen answered
	Asker     string    `json:"asker"`            // whom it answered: who the subject of the request named, or Anyone
	Warm      bool      `json:"warm"`             // every hive it should know was heard, or had its time
	JetStream bool      `json:"jetstream"`        // snapshots and events are being kept
	Unsure    []string  `json:"unsure,omitempty"` // why this answer may be incomplete, in words; empty = sure

	Brake []BrakeInfo `json:"brake,omitempty"` // zones in which so many hives fell silent at once that it is not believed yet
}

// BrakeInfo is a zone whose brake is on.
type BrakeInfo struct {
	Zone  string          `json:"zone"`  // its label; empty for the hives that have none
	Held  int             `json:"held"`  // hives that are unverified for it now
	Since hivebeat.Millis `json:"since"` // since it is on
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
	CodeTooLarge    = "too_large"   // even one record is longer than the server's max_payload
	CodeUnavailable = "unavailable" // this queen does not run, or did not get to it in time; a hold, while JetStream is away
)

// Summary counts the fleet.
type Summary struct {
	Hives     map[hivebeat.Live]int  `json:"hives"`
	Workers   map[hivebeat.Live]int  `json:"workers"`
	States    map[hivebeat.State]int `json:"states"` // of workers that are alive
	GPUs      int                    `json:"gpus"`
	VRAMTotal uint64                 `json:"vram_total"` // bytes, of fresh hives, as are the next two
	VRAMUsed  uint64                 `json:"vram_used"`
	VRAMOurs  uint64                 `json:"vram_ours"`
	Stats     Score                  `json:"stats"`
}

// Score is how good the verdicts were, as far as that is known: those of the hives
// that are known, each since it began, and those of the queen that answers.
type Score struct {
	FalseDead uint64            `json:"false_dead"`        // lost, and heard again in the same incarnation
	CutOff    uint64            `json:"cut_off"`           // the same, but its messages had not come: the link, not the verdict
	WireLost  uint64            `json:"wire_lost"`         // messages proved lost
	SelfPause hivebeat.Millis   `json:"self_pause"`        // time observers were stopped or starved
	Margins   map[string]uint64 `json:"margins,omitempty"` // of this queen's own: how long after the verdict it was heard, by upper bound in ms
	Adopted   int               `json:"adopted"`           // workers that this queen judges, as their hive is lost
}

// HiveInfo is one hive in an answer.
type HiveInfo struct {
	Hive     string                `json:"hive"`
	Live     hivebeat.Live         `json:"live"`
	Cause    hivebeat.Cause        `json:"cause,omitempty"`
	Conflict bool                  `json:"conflict,omitempty"` // two hives with this id are beating
	Rival    uint64                `json:"rival,omitempty"`    // of a conflict: the incarnation of the one that is not believed
	Believed *hivebeat.Place       `json:"believed,omitempty"` // of a conflict: where the one runs that is believed, and the other one
	Refused  *hivebeat.Place       `json:"refused,omitempty"`
	Inc      uint64                `json:"inc"`
	Seq      uint64                `json:"seq"`
	Every    hivebeat.Millis       `json:"every"`
	Age      hivebeat.Millis       `json:"age"`   // since its last snapshot was received
	Fresh    bool                  `json:"fresh"` // age is within the limit: the facts below may be used
	Since    hivebeat.Millis       `json:"since"` // since this live began
	Warm     bool                  `json:"warm"`
	Bye      string                `json:"bye,omitempty"`
	Zone     string                `json:"zone,omitempty"`
	Labels   map[string]string     `json:"labels,omitempty"`
	Host     hivebeat.Host         `json:"host"`
	GPUs     []hivebeat.GPU        `json:"gpus,omitempty"` // ages are effective: they include the way here
	Collect  map[string]string     `json:"collect,omitempty"`
	Stats    hivebeat.Stats        `json:"stats"`
	Workers  map[hivebeat.Live]int `json:"workers"`             // how many in which verdict
	FreeVRAM uint64                `json:"free_vram,omitempty"` // bytes, most of one GPU, less what is held; of fresh hives
	Held     uint64                `json:"held,omitempty"`      // bytes held on its GPUs
}

// WorkerInfo is one worker in an answer. Live, Age and Since of the record are
// effective: they include the time since its snapshot was received, and a record
// past the limit of freshness is shown as at best late.
type WorkerInfo struct {
	Hive  string `json:"hive"`
	Zone  string `json:"zone,omitempty"`
	Via   string `json:"via"` // who judges it: hive or queen
	Fresh bool   `json:"fresh"`
	Held  uint64 `json:"held,omitempty"` // slots that are held
	// Up is how long ago its incarnation began, as far as is known; 0 where it is lost or left.
	Up hivebeat.Millis `json:"up,omitempty"`
	hivebeat.Record
}

// Cursor is where a worker stands in a list sorted by id.
func (w *WorkerInfo) Cursor() string { return w.Hive + "/" + w.Worker }
