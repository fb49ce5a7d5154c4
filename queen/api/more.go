package api

import "github.com/beatfabric/hivebeat"

// Happened is an event with its place in the stream.
type Happened struct {
	StreamSeq uint64 `json:"stream_seq,omitempty"` // 0 where it was never stored
	hivebeat.Event
}

// History is numbers over time, in columns of equal length: the last of each is of
// the time End, the one before of End less Step. null is a time of which nothing is
// known: this queen did not run, or heard nothing.
type History struct {
	End    int64                 `json:"end"`  // Unix ms by the queen's clock
	Step   hivebeat.Millis       `json:"step"` // between two values
	Series map[string][]*float64 `json:"series"`
}

// Series of a History. Of the fleet there are all but cpu and mem_used; of a hive
// all but the hives'.
const (
	SeriesHivesAlive   = "hives_alive"
	SeriesHivesLate    = "hives_late" // late or unverified: not given up
	SeriesHivesDown    = "hives_down" // lost
	SeriesWorkersAlive = "workers_alive"
	SeriesWorkersLate  = "workers_late"
	SeriesWorkersDown  = "workers_down" // lost
	SeriesBusy         = "busy"         // slots in use, of workers that are alive
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
	Worker    string          `json:"worker,omitempty"` // of ForWorker
	Model     string          `json:"model,omitempty"`
	Endpoint  string          `json:"endpoint,omitempty"`
	State     hivebeat.State  `json:"state,omitempty"`
	Slots     uint64          `json:"slots,omitempty"`
	FreeSlots uint64          `json:"free_slots,omitempty"` // before this pick
	GPU       string          `json:"gpu,omitempty"`        // UUID, of ForGPU
	GPUIndex  *uint64         `json:"gpu_index,omitempty"`
	FreeVRAM  uint64          `json:"free_vram,omitempty"` // bytes, before this pick
	Serves    bool            `json:"serves,omitempty"`    // of ForGPU: the hive serves the model already
	Age       hivebeat.Millis `json:"age"`                 // of the facts it rests on
	Reasons   []string        `json:"reasons"`             // why it stands here, in words
	Hold      string          `json:"hold,omitempty"`      // id of the hold it is under
	Asker     string          `json:"asker,omitempty"`     // whose hold that is
}

// Hold keeps a place for whoever asked for it, until Left is over or it is released.
// Asker and ID name it together: two askers may use one id for holds of their own.
type Hold struct {
	ID     string          `json:"id"`
	Asker  string          `json:"asker"` // whose it is: nobody else renews or releases it
	Hive   string          `json:"hive"`
	Worker string          `json:"worker,omitempty"`
	GPU    string          `json:"gpu,omitempty"`
	Slots  uint64          `json:"slots,omitempty"`
	Bytes  uint64          `json:"bytes,omitempty"`
	Left   hivebeat.Millis `json:"left"`
}
