package queencore

import (
	"slices"
	"testing"
	"time"

	"github.com/beatfabric/hivebeat"
	"github.com/beatfabric/hivebeat/internal/core"
	"github.com/beatfabric/hivebeat/internal/fleet"
)

// Without JetStream there is no memory: hives are called at once.
func TestWithoutJetStreamTheRollIsCalledFirst(t *testing.T) {
	r := newRig(t, Config{NoJetStream: true})
	if want := (fleet.RollCall{Spread: hivebeat.HiveRollSpread}); !slices.Contains(r.calls, want) {
		t.Errorf("called: %+v", r.calls)
	}
}

// Without JetStream, events that happen while there is no connection are published once it
// is back.
func TestWithoutJetStreamNothingIsToldIntoTheVoid(t *testing.T) {
	r := newRig(t, Config{NoJetStream: true})
	r.c.Connection(r.now, core.Connection{})
	r.snapshot("h", 100, 1) // received before the cut
	r.pass(time.Second)
	if n := r.ops[OpPublishPlain]; n > 0 {
		t.Errorf("told %d times", n)
	}
	r.c.Connection(r.now, core.Connection{Up: true})
	r.pass(time.Second)
	if got := r.kinds("h/"); !slices.Equal(got, []hivebeat.Kind{hivebeat.KindJoined}) {
		t.Errorf("told: %v", got)
	}
}

// Without JetStream readers know an event by its id: each event has a distinct id, the same
// from every queen.
func TestWithoutJetStreamEachEventHasAnID(t *testing.T) {
	one, other := newRig(t, Config{NoJetStream: true}), newRig(t, Config{NoJetStream: true})
	for _, r := range []*rig{one, other} {
		for inc := range uint64(3) {
			r.snapshot("h", 100+inc, 1)
			r.pass(time.Second)
		}
	}
	if len(one.ids) != 3 {
		t.Errorf("three things happened, with the ids %v", one.ids)
	}
	for id := range one.ids {
		if other.ids[id] == 0 {
			t.Errorf("another queen tells %v, and not %s", other.ids, id)
		}
	}
}
