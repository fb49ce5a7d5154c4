package queencore

import (
	"slices"
	"testing"
	"time"

	"github.com/beatfabric/hivebeat/internal/fleet"
)

func (r *rig) doubts() bool {
	_, doubts := r.c.Hearing().Doubts()
	return doubts
}

// A queen doubts itself as soon as it learns of dropped messages, whatever it hears.
func TestDropsAreDoubtedAtOnce(t *testing.T) {
	r := newRig(t, Config{})
	r.snapshot("h", 100, 1)
	r.pass(time.Second)
	r.mute, r.dropped = true, 5
	r.c.Tick(r.now, r.dropped)
	r.snapshot("h", 100, 2)
	if r.turn(); !r.doubts() {
		t.Error("it does not doubt itself")
	}
}

// A token proves nothing about messages that were dropped before it came back.
func TestATokenDoesNotHealWhatIsDroppedBeforeItIsBack(t *testing.T) {
	r := newRig(t, Config{})
	r.now = r.now.Add(time.Minute) // the queen was stopped
	token := r.c.Ready(r.now).Token
	if token == 0 {
		t.Fatal("no token is asked for")
	}
	r.c.TokenBack(r.now, token, 5)
	if !r.doubts() {
		t.Error("the token ends the doubt")
	}
	r.dropped = 5
	if r.pass(3 * time.Second); r.doubts() {
		t.Error("the next one does not")
	}
}

// Messages from hives may have been lost while a queen was stopped: it asks all hives.
func TestAQueenThatWasStoppedCallsTheRoll(t *testing.T) {
	r := newRig(t, Config{})
	r.snapshot("h", 100, 1)
	r.pass(time.Second)
	r.calls = nil
	r.now = r.now.Add(time.Minute)
	r.turn()
	if want := (fleet.RollCall{Spread: r.c.view.Spread()}); !slices.Contains(r.calls, want) {
		t.Errorf("called: %+v", r.calls)
	}
}
