package sim

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"time"
)

// Span is a time.Duration that is "1m30s" in a file.
type Span time.Duration

// D is the span as a time.Duration.
func (s Span) D() time.Duration { return time.Duration(s) }

func (s Span) String() string { return time.Duration(s).String() }

// MarshalText writes it as time.Duration does.
func (s Span) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// UnmarshalText reads what MarshalText wrote.
func (s *Span) UnmarshalText(b []byte) error {
	d, err := time.ParseDuration(string(b))
	if err != nil {
		return fmt.Errorf("sim: %w", err)
	}
	*s = Span(d)
	return nil
}

// Plan is all that a run follows from. Equal plans run alike.
type Plan struct {
	Seed    uint64 `json:"seed"`
	Why     string `json:"why,omitempty"` // for people: what it once found
	For     Span   `json:"for"`
	Settle  Span   `json:"settle"` // at the end, when no fault is left
	Zones   int    `json:"zones"`
	Hives   int    `json:"hives"`
	Workers int    `json:"workers"` // of each hive
	Queens  int    `json:"queens"`

	WorkerEvery Span `json:"worker_every"`
	HiveEvery   Span `json:"hive_every"`
	Paged       bool `json:"paged,omitempty"` // each worker in a page of its own

	Exits    bool `json:"exits,omitempty"`    // hives see the processes of their workers end
	Closings Span `json:"closings,omitempty"` // and hear of connections that close: the reconnect wait of workers; 0: they do not

	HiveClosings bool `json:"hive_closings,omitempty"` // queens hear of connections that close, those of hives too
	Untold       int  `json:"untold,omitempty"`        // so many of them, the last ones, never do
	Stall        Span `json:"stall,omitempty"`         // work without progress is stalled after this; 0: no worker says that it works
	StallSaid    bool `json:"stall_said,omitempty"`    // by a label of the workers, else by a setting of the hives
	NoJetStream  bool `json:"no_jetstream,omitempty"`  // queens keep nothing
	Replicas     int  `json:"replicas,omitempty"`      // so many servers keep what they do; 0 is 1
	Before       int  `json:"before,omitempty"`        // so many queens put neither promises nor ages into the roster

	// A fifth of the messages comes up to so much later than the others, which pass them.
	// What rests on messages that come in time is not held against such a run: only that
	// nothing comes back, that each event is told once, and that nothing is plainly wrong.
	Late Span `json:"late,omitempty"`

	Net    Net     `json:"net"`
	Faults []Fault `json:"faults"`
}

// Net is how the bus behaves.
type Net struct {
	Loss    float64 `json:"loss,omitempty"`     // of each message at each receiver
	LossRun int     `json:"loss_run,omitempty"` // most losses in a row of one sender at one receiver; 0: any number
	Delay   Span    `json:"delay,omitempty"`
	Jitter  Span    `json:"jitter,omitempty"` // added to it: 0 to this
	Reorder float64 `json:"reorder,omitempty"`
	Dup     float64 `json:"dup,omitempty"`
	Replay  Span    `json:"replay,omitempty"` // the latest that a duplicate comes
}

// Guaranteed reports whether the contract rules false deaths out on this network: two
// losses in a row at most, and a spread of delay that the contract allows for,
// 3 × 0.95 × every + spread < 3 × every.
func (p *Plan) Guaranteed() bool {
	every := min(p.WorkerEvery, p.HiveEvery)
	return (p.Net.Loss == 0 || p.Net.LossRun > 0 && p.Net.LossRun <= 2) && p.Net.Jitter < every/10
}

// Kind is a kind of fault.
type Kind string

// The faults. Each begins At, and ends after For where it has an end. Who is a process.
const (
	Pause   Kind = "pause"   // Who is stopped, and goes on
	Crash   Kind = "crash"   // Who dies without a word, and begins again; never where For is 0
	Leave   Kind = "leave"   // Who says goodbye, and begins again; never where For is 0
	Cut     Kind = "cut"     // Who loses its connection
	Zone    Kind = "zone"    // all processes of a zone lose theirs
	Machine Kind = "machine" // the hive Who and its workers die at once
	Batch   Kind = "batch"   // all workers of the hive Who die at once
	Mass    Kind = "mass"    // N hives die at once
	Clock   Kind = "clock"   // the wall clock of a machine jumps by By
	Rival   Kind = "rival"   // another process runs with the id of Who
	Quiet   Kind = "quiet"   // a worker announces silence, and keeps it
	Change  Kind = "change"  // a worker changes its state N times
	Storage Kind = "storage" // JetStream is away
	Wipe    Kind = "wipe"    // JetStream is away, and comes back empty
	Server  Kind = "server"  // the NATS server is restarted
	Frozen  Kind = "frozen"  // it is stopped, and goes on: everything waits in it, and what the dead wrote too
	Badnet  Kind = "badnet"  // the bus behaves as Net says
	Kick    Kind = "kick"    // the server closes the connection of Who, or of N clients within By
	Hang    Kind = "hang"    // a worker finishes nothing more; to the end where For is 0
	Idle    Kind = "idle"    // a worker has nothing to do; to the end where For is 0
	Deaf    Kind = "deaf"    // Who does not hear of connections that close: it lost its connection to the system account
	// N clients a second that are no processes of the fabric come and go, each after some
	// time up to By. Few of their connections close for another reason than their end.
	Strangers Kind = "strangers"
	Dropping  Kind = "dropping" // Who is too slow: N messages are dropped, and it is told
)

// Fault is one thing that goes wrong.
type Fault struct {
	At     Span   `json:"at"`
	For    Span   `json:"for,omitempty"`
	Kind   Kind   `json:"kind"`
	Who    string `json:"who,omitempty"`
	Hold   bool   `json:"hold,omitempty"`   // of a cut: what is sent meanwhile waits
	Notice Span   `json:"notice,omitempty"` // of a cut: when it is noticed
	By     Span   `json:"by,omitempty"`
	N      int    `json:"n,omitempty"`
	Net    *Net   `json:"net,omitempty"`
}

func (f Fault) String() string {
	b, _ := json.Marshal(f) // which fails for no fault of a plan that was read or generated
	return string(b)
}

// possible refuses what no run can follow.
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

// ReadPlan reads a plan that WritePlan has written.
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
