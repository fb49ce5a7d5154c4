package sim

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"time"
)

// Span is a time.Duration that is written as "1m30s" in a file.
type Span time.Duration

// D returns the span as a time.Duration.
func (s Span) D() time.Duration { return time.Duration(s) }

func (s Span) String() string { return time.Duration(s).String() }

// MarshalText writes the span like time.Duration.String.
func (s Span) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// UnmarshalText reads the output of MarshalText.
func (s *Span) UnmarshalText(b []byte) error {
	d, err := time.ParseDuration(string(b))
	if err != nil {
		return fmt.Errorf("sim: %w", err)
	}
	*s = Span(d)
	return nil
}

// Plan determines a run completely. Equal plans give identical runs.
type Plan struct {
	Seed    uint64 `json:"seed"`
	Why     string `json:"why,omitempty"` // for people: the bug that it once found
	For     Span   `json:"for"`
	Settle  Span   `json:"settle"` // the end of the run, without faults
	Zones   int    `json:"zones"`
	Hives   int    `json:"hives"`
	Workers int    `json:"workers"` // of each hive
	Queens  int    `json:"queens"`

	WorkerEvery Span `json:"worker_every"`
	HiveEvery   Span `json:"hive_every"`
	Paged       bool `json:"paged,omitempty"` // each worker has its own page of the snapshot

	Exits    bool `json:"exits,omitempty"`    // hives see the processes of their workers end
	Closings Span `json:"closings,omitempty"` // hives see connections close, and this is the reconnect wait of workers; 0: they do not

	HiveClosings bool `json:"hive_closings,omitempty"` // queens see connections close too, including those of hives
	Untold       int  `json:"untold,omitempty"`        // the last queens, this many, never see it
	Stall        Span `json:"stall,omitempty"`         // busy without progress for this long is stalled; 0: no worker reports its work
	StallSaid    bool `json:"stall_said,omitempty"`    // Stall is set by a label of the workers; otherwise by a setting of the hives
	NoJetStream  bool `json:"no_jetstream,omitempty"`  // queens use no JetStream
	Replicas     int  `json:"replicas,omitempty"`      // number of JetStream replicas; 0 is 1
	Before       int  `json:"before,omitempty"`        // this many queens put neither promises nor ages into the roster

	// A fifth of the messages is delayed by up to this, and others overtake them. Such a run
	// is not checked for anything that depends on messages arriving in time. It is only
	// checked for resurrections, for events published twice, and for plain errors.
	Late Span `json:"late,omitempty"`

	Net    Net     `json:"net"`
	Faults []Fault `json:"faults"`
}

// Net is the behaviour of the bus.
type Net struct {
	Loss    float64 `json:"loss,omitempty"`     // of each message at each receiver
	LossRun int     `json:"loss_run,omitempty"` // most losses in a row between one sender and one receiver; 0: any number
	Delay   Span    `json:"delay,omitempty"`
	Jitter  Span    `json:"jitter,omitempty"` // additional delay: 0 to this
	Reorder float64 `json:"reorder,omitempty"`
	Dup     float64 `json:"dup,omitempty"`
	Replay  Span    `json:"replay,omitempty"` // largest delay of a duplicate
}

// Guaranteed reports whether the protocol rules out false deaths on this network: at most
// two losses in a row, and a spread of delays within the limit
// 3 × 0.95 × every + spread < 3 × every.
func (p *Plan) Guaranteed() bool {
	return (p.Net.Loss == 0 || p.Net.LossRun > 0 && p.Net.LossRun <= 2) && p.Net.Jitter < min(p.WorkerEvery, p.HiveEvery)/10
}

// Kind is a kind of fault.
type Kind string

// The faults. Each starts At, and ends after For if it has an end. The process is Who.
const (
	Pause   Kind = "pause"   // the process is stopped, and continues
	Crash   Kind = "crash"   // the process dies without a goodbye, and starts again; never if For is 0
	Leave   Kind = "leave"   // the process says goodbye, and starts again; never if For is 0
	Cut     Kind = "cut"     // the process loses its connection
	Zone    Kind = "zone"    // all processes of a zone lose their connections
	Machine Kind = "machine" // the hive and its workers die at once
	Batch   Kind = "batch"   // all workers of the hive die at once
	Mass    Kind = "mass"    // N hives die at once
	Clock   Kind = "clock"   // the wall clock of a machine jumps by By
	Rival   Kind = "rival"   // another process runs with the same id
	Quiet   Kind = "quiet"   // a worker announces silence, and keeps it
	Change  Kind = "change"  // a worker changes its state N times
	Storage Kind = "storage" // JetStream is away
	Wipe    Kind = "wipe"    // JetStream is away, and comes back empty
	Server  Kind = "server"  // the NATS server is restarted
	Frozen  Kind = "frozen"  // it is stopped, and continues: everything waits in it, including messages of dead processes
	Badnet  Kind = "badnet"  // the bus behaves as in Net
	Kick    Kind = "kick"    // the server closes the connection of the process, or of N clients within By
	Hang    Kind = "hang"    // a worker finishes nothing more; until the end if For is 0
	Idle    Kind = "idle"    // a worker has nothing to do; until the end if For is 0
	Deaf    Kind = "deaf"    // the process loses its connection to the system account, and does not see connections close
	// N foreign clients a second connect, and close their connections within By. Few such
	// connections close for another reason than the end of the client.
	Strangers Kind = "strangers"
	Dropping  Kind = "dropping" // the process is too slow: N messages are dropped, and the client library reports it
)

// Fault is one thing that goes wrong.
type Fault struct {
	At     Span   `json:"at"`
	For    Span   `json:"for,omitempty"`
	Kind   Kind   `json:"kind"`
	Who    string `json:"who,omitempty"`
	Hold   bool   `json:"hold,omitempty"`   // of a cut: messages sent during the cut wait
	Notice Span   `json:"notice,omitempty"` // of a cut: when it is noticed
	By     Span   `json:"by,omitempty"`
	N      int    `json:"n,omitempty"`
	Net    *Net   `json:"net,omitempty"`
}

func (f Fault) String() string {
	b, _ := json.Marshal(f) // cannot fail for a fault that was read or generated
	return string(b)
}

// possible rejects plans that cannot be run.
func (p *Plan) possible() error {
	switch {
	case p.Hives < 1 || p.Workers < 0 || p.Queens < 1 || p.Zones < 1:
		return fmt.Errorf("sim: plan of %d hives with %d workers in %d zones, %d queens", p.Hives, p.Workers, p.Zones, p.Queens)
	case p.For <= 0 || p.Settle < 0 || p.Settle > p.For:
		return fmt.Errorf("sim: plan for %v, of which %v to settle", p.For, p.Settle)
	case p.WorkerEvery <= 0 || p.HiveEvery <= 0:
		return fmt.Errorf("sim: plan with promises of %v and %v", p.WorkerEvery, p.HiveEvery)
	}
	return nil
}

// ReadPlan reads a plan that WritePlan wrote.
func ReadPlan(file string) (Plan, error) {
	b, err := os.ReadFile(file)
	if err != nil {
		return Plan{}, fmt.Errorf("sim: %w", err)
	}
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	var p Plan
	if err := d.Decode(&p); err != nil {
		return Plan{}, fmt.Errorf("sim: %s: %w", file, err)
	}
	return p, p.possible()
}

// WritePlan writes a plan for ReadPlan.
func WritePlan(file string, p Plan) error {
	b, err := json.MarshalIndent(p, "", "\t")
	if err != nil {
		return fmt.Errorf("sim: %w", err)
	}
	if err := os.WriteFile(file, append(b, '\n'), 0o644); err != nil { //nolint:gosec // a plan is no secret
		return fmt.Errorf("sim: %w", err)
	}
	return nil
}
