package hivebeat

import (
	"strconv"
	"time"

	"github.com/beatfabric/hivebeat/internal/plaintext"
)

// SpecVersion is the version of CloudEvents that every event follows.
const SpecVersion = "1.0"

// Event is one event of the fabric: CloudEvents 1.0 in its JSON form. The stream
// QUEEN_EVENTS stores it, and subscribers of queen.events.> receive it. Readers order
// the events of one subject by (Data.HiveInc, Data.N), not by arrival and not by Time.
type Event struct {
	SpecVersion     string    `json:"specversion"`
	ID              string    `json:"id"`                // the Nats-Msg-Id: the same from every queen
	Source          string    `json:"source"`            // /hivebeat or /hivebeat/<prefix>
	Type            string    `json:"type"`              // hivebeat.worker.lost.v1
	Subject         string    `json:"subject,omitempty"` // <hive> or <hive>/<worker>
	Time            time.Time `json:"time"`              // when the queen published it: for display, never compared
	DataContentType string    `json:"datacontenttype"`
	// Stored is false in a copy that is published before the stream has the event
	// (Subjects.LiveEvent), and nil otherwise.
	Stored *bool `json:"stored,omitempty"`
	// Provisional is the id under which such a copy was published, if that was before
	// the event had its own id.
	Provisional string    `json:"provisional,omitempty"`
	Data        EventData `json:"data"`
}

// EventData is the payload of an event. Hive is empty in an event of the whole fabric,
// Worker in an event of a hive.
type EventData struct {
	Hive     string  `json:"hive,omitempty"`
	Worker   string  `json:"worker,omitempty"`
	Inc      uint64  `json:"inc,omitempty"`      // incarnation of the worker or hive that the event is about
	HiveInc  uint64  `json:"hive_inc,omitempty"` // incarnation of the hive that numbered it
	N        uint64  `json:"n,omitempty"`
	Kind     Kind    `json:"kind"`
	From     string  `json:"from,omitempty"`
	To       string  `json:"to,omitempty"`
	Cause    Cause   `json:"cause,omitempty"`
	State    State   `json:"state,omitempty"`
	Reason   string  `json:"reason,omitempty"` // for people: the evidence in words
	AgeMS    Millis  `json:"age_ms"`           // time since it was last heard from, when the verdict was reached
	Seq      uint64  `json:"seq,omitempty"`    // of the last message received from it
	Via      string  `json:"via,omitempty"`    // the role that reached the verdict: hive or queen
	Model    string  `json:"model,omitempty"`
	DetectMS *Millis `json:"detect_ms,omitempty"` // lost: time from the end to the verdict, if the end is known
	MarginMS *Millis `json:"margin_ms,omitempty"` // recovered: how far past its deadline it was heard from
	Missing  uint64  `json:"missing,omitempty"`   // gap: how many transitions are unknown
	Zone     string  `json:"zone,omitempty"`      // brake: the zone it acts on
	GPU      string  `json:"gpu,omitempty"`       // gpu-…: UUID of the GPU
	GPUIndex *uint64 `json:"gpu_index,omitempty"` // gpu-…: its index on the machine
	Action   string  `json:"action,omitempty"`    // gpu-…: what ends the fault
	Owner    string  `json:"owner,omitempty"`     // gpu-orphan: the worker whose processes hold memory
	Asker    string  `json:"asker,omitempty"`     // who asked for what happened
	DuringMS *Millis `json:"during_ms,omitempty"` // drained, silenced: for how long; missing: until it is ended
	Silenced bool    `json:"silenced,omitempty"`  // an operator silenced it: it should wake nobody
	Believed *Place  `json:"believed,omitempty"`  // conflict: where the accepted incarnation runs
	Refused  *Place  `json:"refused,omitempty"`   // conflict: where the refused one runs
}

// The roles that reach a verdict.
const (
	ViaHive  = "hive"
	ViaQueen = "queen"
)

// NewEvent completes an event around d: its type, source and subject follow from d and
// the prefix.
func (s Subjects) NewEvent(id string, now time.Time, d EventData) Event {
	e := Event{
		SpecVersion: SpecVersion, ID: id, Source: "/hivebeat", Time: now.UTC(),
		DataContentType: "application/json", Data: d,
	}
	if p := s.Prefix(); p != "" {
		e.Source += "/" + p
	}
	level := "fabric"
	switch {
	case d.Worker != "":
		level, e.Subject = "worker", d.Hive+"/"+d.Worker
	case d.Hive != "":
		level, e.Subject = "hive", d.Hive
	}
	e.Type = "hivebeat." + level + "." + string(d.Kind) + ".v1"
	return e
}

// WorkerEventID returns the Nats-Msg-Id of transition n of a worker, as its hive
// numbered it. The id of a joined event does not contain the hive's incarnation, so a
// restart of the hive does not make its workers join again.
func WorkerEventID(hive string, hiveInc uint64, worker string, inc uint64, kind Kind, n uint64) string {
	if kind == KindJoined {
		return hive + "." + worker + "." + strconv.FormatUint(inc, 10) + "." + string(KindJoined)
	}
	return hive + "." + strconv.FormatUint(hiveInc, 10) + "." + worker + "." + strconv.FormatUint(n, 10)
}

// GPUEventID returns the Nats-Msg-Id of transition n of a hive's GPUs, as that hive
// numbered it.
func GPUEventID(hive string, hiveInc, n uint64) string {
	return hive + "." + strconv.FormatUint(hiveInc, 10) + ".!gpu." + strconv.FormatUint(n, 10)
}

// HiveEventID returns the Nats-Msg-Id of event n of a hive, as the roster numbered it.
func HiveEventID(hive string, n uint64) string { return hive + "." + strconv.FormatUint(n, 10) }

// DirectiveEventID returns the Nats-Msg-Id of change n of what operators say about a hive.
func DirectiveEventID(hive string, n uint64) string {
	return hive + ".!op." + strconv.FormatUint(n, 10)
}

// IsLive reports whether e is a copy that is published before the stream has the event.
func (e *Event) IsLive() bool { return e.Stored != nil && !*e.Stored }

// Encode returns the JSON of e. Characters that a terminal does not print are escaped, so
// that a subscriber may print the event as it comes.
func (e Event) Encode() ([]byte, error) { return plaintext.Marshal(e) }
