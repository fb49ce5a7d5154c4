package hivebeat

import (
	"encoding/json"
	"strconv"
	"time"
)

// SpecVersion is the version of CloudEvents that every event follows.
const SpecVersion = "1.0"

// Event is one event of the fabric: CloudEvents 1.0 in its JSON form. It is what
// the stream QUEEN_EVENTS stores and what subscribers of queen.events.> receive.
// Readers order events of one subject by (Data.HiveInc, Data.N), not by arrival
// and not by Time.
type Event struct {
	SpecVersion     string    `json:"specversion"`
	ID              string    `json:"id"`                // the Nats-Msg-Id: the same from every queen
	Source          string    `json:"source"`            // /hivebeat or /hivebeat/<prefix>
	Type            string    `json:"type"`              // hivebeat.worker.lost.v1
	Subject         string    `json:"subject,omitempty"` // <hive> or <hive>/<worker>
	Time            time.Time `json:"time"`              // when the queen published it: shown, never compared
	DataContentType string    `json:"datacontenttype"`
	// Stored is false in a copy that goes out before the stream has the event
	// (Subjects.LiveEvent), and nil otherwise.
	Stored *bool `json:"stored,omitempty"`
	// Provisional is the id under which such a copy went out, if it did before the
	// event had its own.
	Provisional string    `json:"provisional,omitempty"`
	Data        EventData `json:"data"`
}

// EventData is what an event tells. Hive is empty for an event of the whole
// fabric, Worker for one of a hive.
type EventData struct {
	Hive     string  `json:"hive,omitempty"`
	Worker   string  `json:"worker,omitempty"`
	Inc      uint64  `json:"inc,omitempty"`      // of the one the event is about
	HiveInc  uint64  `json:"hive_inc,omitempty"` // of the hive that numbered it
	N        uint64  `json:"n,omitempty"`
	Kind     Kind    `json:"kind"`
	From     string  `json:"from,omitempty"`
	To       string  `json:"to,omitempty"`
	Cause    Cause   `json:"cause,omitempty"`
	State    State   `json:"state,omitempty"`
	Reason   string  `json:"reason,omitempty"` // for people: the evidence in words
	AgeMS    Millis  `json:"age_ms"`           // how long it was not heard when the verdict was reached
	Seq      uint64  `json:"seq,omitempty"`    // last one heard
	Via      string  `json:"via,omitempty"`    // who reached the verdict: hive or queen
	Model    string  `json:"model,omitempty"`
	DetectMS *Millis `json:"detect_ms,omitempty"` // from the end to the verdict, where the end is known
	MarginMS *Millis `json:"margin_ms,omitempty"` // how far past its deadline a recovered one was heard
	Missing  uint64  `json:"missing,omitempty"`   // gap: how many transitions nobody can tell
	Zone     string  `json:"zone,omitempty"`      // brake: whose
	Believed *Place  `json:"believed,omitempty"`  // conflict: where the one runs that is believed, and the other one
	Refused  *Place  `json:"refused,omitempty"`
}

// Who reached a verdict.
const (
	ViaHive  = "hive"
	ViaQueen = "queen"
)

// NewEvent completes an event around d: its type, source and subject follow
// from d and the prefix.
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

// WorkerEventID is the Nats-Msg-Id of transition n of a worker, which its hive
// numbered. For joined it does not hold the hive's incarnation, so that the
// hive's restart joins nobody again.
func WorkerEventID(hive string, hiveInc uint64, worker string, inc uint64, kind Kind, n uint64) string {
	if kind == KindJoined {
		return hive + "." + worker + "." + strconv.FormatUint(inc, 10) + "." + string(KindJoined)
	}
	return hive + "." + strconv.FormatUint(hiveInc, 10) + "." + worker + "." + strconv.FormatUint(n, 10)
}

// HiveEventID is the Nats-Msg-Id of event n of a hive, which the roster numbers.
func HiveEventID(hive string, n uint64) string { return hive + "." + strconv.FormatUint(n, 10) }

// IsLive reports whether e is a copy that goes out before the stream has the event.
func (e *Event) IsLive() bool { return e.Stored != nil && !*e.Stored }

// Encode returns the JSON of e.
func (e Event) Encode() ([]byte, error) { return json.Marshal(e) }
