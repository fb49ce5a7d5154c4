package api

import "github.com/beatfabric/hivebeat"

// Directive is what an operator said about a hive, or about one of its workers or GPUs.
type Directive struct {
	What   string          `json:"what"` // "drain" or "silence"
	Hive   string          `json:"hive"`
	Worker string          `json:"worker,omitempty"`
	GPU    string          `json:"gpu,omitempty"` // UUID
	By     string          `json:"by"`            // the asker
	Reason string          `json:"reason,omitempty"`
	Since  hivebeat.Millis `json:"since"`          // how long it has been in force
	Left   hivebeat.Millis `json:"left,omitempty"` // until it ends by itself; 0: it stays until it is ended
}

// Imposed says who drained or silenced something, and why.
type Imposed struct {
	Of     string          `json:"of"` // what the operator named: "hive", "worker" or "gpu"
	By     string          `json:"by"` // the asker
	Reason string          `json:"reason,omitempty"`
	Since  hivebeat.Millis `json:"since"`          // how long ago
	Left   hivebeat.Millis `json:"left,omitempty"` // until it ends by itself; 0: it stays until it is ended
}

// PassedDrained is the reason in Passed for what an operator drained.
const PassedDrained = "drained"
