package hivecore

import (
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/beatfabric/hivebeat"
	"github.com/beatfabric/hivebeat/internal/core"
	"github.com/beatfabric/hivebeat/internal/detector"
	"github.com/beatfabric/hivebeat/internal/liveness"
	"github.com/beatfabric/hivebeat/internal/sampletest"
	"github.com/beatfabric/hivebeat/internal/wire"
)

const (
	second  = time.Second
	subject = "hive." + sampletest.Hive + ".workers"
)

// fake is a worker as seen on the wire.
type fake = sampletest.Worker

var newFake = sampletest.NewWorker

// rig is the shell of a core in a test. NATS answers at once, unless the rig is deaf.
type rig struct {
	*Core
	t       testing.TB
	now     time.Time
	wake    time.Time
	deaf    bool   // no token comes back
	dropped uint64 // messages in total

	// Requests of the core.
	tokens  []uint64
	settles int
	rolls   []time.Duration
	urges   []string
	spread  time.Duration
	watches []detector.Watch
	steps   []detector.Step
	logs    core.Logs
	closed  bool
}

func newRig(t testing.TB, cfg Config) *rig {
	cfg.ID, cfg.Subject = sampletest.Hive, subject
	return &rig{Core: New(cfg), t: t, now: sampletest.Epoch}
}

// connected returns a rig that has just been connected for the first time.
func connected(t testing.TB, cfg Config) *rig {
	r := newRig(t, cfg)
	r.up()
	r.forget()
	return r
}

func (r *rig) do() {
	out := r.Ready()
	r.wake = out.Wake
	for name, is := range map[string]bool{
		"ended": out.Ended, "changed": out.Changed, "touch": out.Touch, "reconnected": out.Reconnected, "answer": out.Answer,
	} {
		if is {
			r.urges = append(r.urges, name)
		}
	}
	r.spread = out.Spread
	if out.Roll > 0 {
		r.rolls = append(r.rolls, out.Roll)
	}
	r.watches = append(r.watches, out.Watches...)
	r.steps = append(r.steps, out.Steps...)
	r.logs = append(r.logs, out.Logs...)
	r.closed = out.Closed
	if s := out.Signals; s.Settle {
		r.settles++
		if !r.deaf {
			r.Settled(r.now, liveness.Path{Server: "NDXS"})
			r.do()
		}
	}
	if s := out.Signals; s.Token != 0 {
		r.tokens = append(r.tokens, s.Token)
		if !r.deaf {
			r.back()
		}
	}
}

// back hands back the last token.
func (r *rig) back() {
	r.TokenBack(r.now, r.tokens[len(r.tokens)-1], r.dropped)
	r.do()
}

func (r *rig) up() {
	r.Connection(r.now, core.Connection{Up: true, Unnoticed: 30 * second})
	r.do()
}

func (r *rig) down() {
	r.Connection(r.now, core.Connection{Unnoticed: 30 * second})
	r.do()
}

func (r *rig) beat(f *fake) bool {
	ok := r.Beat(r.now, subject, f.Next(r.t))
	r.do()
	return ok
}

// pass lets time pass, and calls Tick whenever the core wants to wake up.
func (r *rig) pass(d time.Duration) {
	r.t.Helper()
	end := r.now.Add(d)
	for turns := 0; !r.wake.After(end); turns++ {
		if r.wake.After(r.now) {
			r.now = r.wake
		}
		r.Tick(r.now, r.dropped)
		if r.do(); !r.wake.After(r.now) || turns > 100_000 {
			r.t.Fatalf("wakes at %v, and wants to be woken at %v again", r.now, r.wake)
		}
	}
	r.now = end
}

// forget discards the requests of the core.
func (r *rig) forget() {
	r.tokens, r.settles, r.rolls, r.urges, r.watches, r.steps, r.logs = nil, 0, nil, nil, nil, nil, nil
}

func (r *rig) record(id string) hivebeat.Record {
	r.t.Helper()
	rec, ok := r.Record(r.now, id)
	if !ok {
		r.t.Fatalf("%s is not known", id)
	}
	return rec
}

func (r *rig) is(id string, live hivebeat.Live) {
	r.t.Helper()
	if rec := r.record(id); rec.Live != live {
		r.t.Errorf("%s is %s (%s) after %v, want %s", id, rec.Live, rec.Cause, r.now.Sub(sampletest.Epoch), live)
	}
}

// said returns how many lines with this level and text were logged.
func (r *rig) said(level slog.Level, text string) (n int) {
	for _, l := range r.logs {
		if l.Level == level && strings.Contains(l.Text, text) {
			n++
		}
	}
	return n
}

func (r *rig) wantUrges(want ...string) {
	r.t.Helper()
	slices.Sort(r.urges)
	if !slices.Equal(r.urges, want) {
		r.t.Errorf("asks for snapshots %v, want %v", r.urges, want)
	}
	r.urges = nil
}

func (r *rig) wantRolls(want ...time.Duration) {
	r.t.Helper()
	if !slices.Equal(r.rolls, want) {
		r.t.Errorf("calls the roll %v, want %v", r.rolls, want)
	}
	r.rolls = nil
}

func names(n int) (list []*fake) {
	for i := range n {
		list = append(list, newFake(fmt.Sprintf("w%04d", i)))
	}
	return list
}

func encode(t interface{ Fatal(...any) }, f *fake) []byte {
	b, err := wire.EncodeBeat(&f.Beat)
	if err != nil {
		t.Fatal(err)
	}
	return b
}
