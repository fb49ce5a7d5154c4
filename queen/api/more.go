package api

import "github.com/beatfabric/hivebeat"

// Happened is an event with its sequence number in the stream.
type Happened struct {
	StreamSeq uint64 `json:"stream_seq,omitempty"` // 0 if it was never stored
	hivebeat.Event
}

// History holds figures over time, in columns of equal length. The last value of each
// is for the time End, the one before for End minus Step. null stands for a time about
// which nothing is known, because this queen was not running or heard nothing.
type History struct {
	End    int64                 `json:"end"`  // Unix ms by the queen's clock
	Step   hivebeat.Millis       `json:"step"` // between two values
	Series map[string][]*float64 `json:"series"`
}

// Series of a History. The history of the fleet has all but cpu and mem_used; the
// history of a hive has all but the hives_ series.
const (
	SeriesHivesAlive   = "hives_alive"
	SeriesHivesLate    = "hives_late" // late or unverified, not yet given up
	SeriesHivesDown    = "hives_down" // lost
	SeriesWorkersAlive = "workers_alive"
	SeriesWorkersLate  = "workers_late"
	SeriesWorkersDown  = "workers_down" // lost
	SeriesBusy         = "busy"         // slots in use by workers that are alive
	SeriesSlots        = "slots"
	SeriesQueue        = "queue"
	SeriesVRAMTotal    = "vram_total" // bytes
	SeriesVRAMUsed     = "vram_used"
	SeriesVRAMOurs     = "vram_ours"
	SeriesCPU          = "cpu"      // percent
	SeriesMemUsed      = "mem_used" // bytes
)

// Pick is one place for work.
type Pick struct {
	Rank      int             `json:"rank"` // 1 is the best
	Hive      string          `json:"hive"`
	Zone      string          `json:"zone,omitempty"`
	Worker    string          `json:"worker,omitempty"` // for ForWorker
	Model     string          `json:"model,omitempty"`
	Endpoint  string          `json:"endpoint,omitempty"`
	State     hivebeat.State  `json:"state,omitempty"`
	Slots     uint64          `json:"slots,omitempty"`
	FreeSlots uint64          `json:"free_slots,omitempty"` // before this pick
	GPU       string          `json:"gpu,omitempty"`        // UUID, for ForGPU
	GPUIndex  *uint64         `json:"gpu_index,omitempty"`
	Profile   string          `json:"profile,omitempty"`   // of a MIG instance, which GPU then names
	GPUs      []string        `json:"gpus,omitempty"`      // UUIDs of all GPUs of the place, if several were asked for; GPU is the first
	FreeVRAM  uint64          `json:"free_vram,omitempty"` // bytes, before this pick
	Serves    bool            `json:"serves,omitempty"`    // for ForGPU: the hive already serves the model
	Age       hivebeat.Millis `json:"age"`                 // of the facts behind this pick
	Reasons   []string        `json:"reasons"`             // why it has this rank, in words
	Hold      string          `json:"hold,omitempty"`      // id of its hold
	Asker     string          `json:"asker,omitempty"`     // owner of the hold
}

// Hold reserves a place for its asker until Left is over or the hold is released. Asker
// and ID name it together: two askers may use the same id for different holds.
type Hold struct {
	ID     string          `json:"id"`
	Asker  string          `json:"asker"` // its owner; no other asker can renew or release it
	Hive   string          `json:"hive"`
	Worker string          `json:"worker,omitempty"`
	GPU    string          `json:"gpu,omitempty"`
	Slots  uint64          `json:"slots,omitempty"`
	Bytes  uint64          `json:"bytes,omitempty"`
	Left   hivebeat.Millis `json:"left"`
}
