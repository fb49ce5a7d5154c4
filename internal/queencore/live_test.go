package queencore

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/beatfabric/hivebeat"
	"github.com/beatfabric/hivebeat/internal/ledger"
)

// lives returns the events that went out live since the last call, as kind and subject.
func (r *rig) lives() (list []string) {
	for i := range r.live {
		ev := &r.live[i]
		if !ev.IsLive() || ev.ID == "" {
			r.t.Errorf("not marked as one that is not stored: %+v", ev)
		}
		list = append(list, string(ev.Data.Kind)+" "+ev.Subject)
	}
	r.live = nil
	return list
}

func (r *rig) wantLive(when string, want ...string) {
	r.t.Helper()
	if diff := cmp.Diff(want, r.lives()); diff != "" {
		r.t.Errorf("%s (-want +got):\n%s", when, diff)
	}
}

// withTransition returns a worker whose last transition has number n and this kind.
func withTransition(id string, n uint64, kind hivebeat.Kind, live hivebeat.Live) hivebeat.Record {
	w := worker(id)
	w.N, w.Live = n, live
	w.Tr = append(w.Tr, hivebeat.Transition{N: n, Kind: kind, From: "alive", To: string(live), Inc: 7})
	return w
}

// While the store does not answer, or answers with errors, a worker's death goes out once,
// within little more than a second, under the id that its hive gave it. If the store
// answers, only stored events go out.
func TestAWorkersDeathGoesOutWithoutTheStore(t *testing.T) {
	for _, how := range []string{"answers", "silent", "broken"} {
		t.Run(how, func(t *testing.T) {
			r := newRig(t, Config{})
			r.snapshot("h", 100, 1, worker("w"))
			r.pass(3 * time.Second)
			r.silent, r.broken = how == "silent", how == "broken"
			r.snapshot("h", 100, 2, withTransition("w", 2, hivebeat.KindLost, hivebeat.Lost))
			r.pass(liveAfter - time.Millisecond)
			r.wantLive("too early")
			r.pass(tickEvery + 10*time.Millisecond)
			if how == "answers" {
				r.wantLive("though it is stored")
				return
			}
			if len(r.live) != 1 || r.live[0].ID != "h.100.w.2" || r.live[0].Provisional != "" {
				t.Errorf("%+v", r.live)
			}
			r.wantLive("after a second", "lost h/w")
			r.pass(5 * time.Second)
			r.wantLive("again")
			r.broken = false
			r.answers()
			r.pass(20 * time.Second)
			r.wantLive("after it was stored")
			if r.ids["h.100.w.2"] != 1 {
				t.Errorf("stored %d times", r.ids["h.100.w.2"])
			}
		})
	}
}

// A queen that does not trust itself publishes nothing live until it does.
func TestAQueenInDoubtTellsNothingLive(t *testing.T) {
	r := newRig(t, Config{})
	r.snapshot("h", 100, 1, worker("w"))
	r.pass(3 * time.Second)
	r.silent, r.mute, r.dropped = true, true, 5
	r.c.Tick(r.now, r.dropped)
	r.snapshot("h", 100, 2, withTransition("w", 2, hivebeat.KindLost, hivebeat.Lost))
	r.pass(5 * time.Second)
	r.wantLive("in doubt")
	r.mute = false
	r.pass(15 * time.Second)
	r.wantLive("sure again", "lost h/w")
}

// The death of a hive has no number before the roster gives it one: it goes out under a
// provisional id, which the stored event names. A recovery before that goes out live too,
// and neither is stored.
func TestAHivesDeathGoesOutWithoutTheStore(t *testing.T) {
	for _, back := range []bool{false, true} {
		t.Run(fmt.Sprintf("back %t", back), func(t *testing.T) {
			r := newRig(t, Config{})
			r.snapshot("h", 100, 1)
			r.pass(3 * time.Second)
			r.broken = true
			r.closes()
			r.pass(time.Minute)
			if len(r.live) != 1 || r.live[0].ID != "h.100.1.lost" || r.live[0].Provisional != r.live[0].ID || r.live[0].Data.N != 0 {
				t.Fatalf("%+v", r.live)
			}
			r.wantLive("lost", "lost h")
			if back {
				r.snapshot("h", 100, 2)
				r.pass(1500 * time.Millisecond)
				if len(r.live) == 1 && r.live[0].ID != "h.100.2.recovered" {
					t.Errorf("%+v", r.live[0])
				}
				r.wantLive("recovered", "recovered h")
			}
			r.broken = false
			r.pass(12 * time.Second)
			r.wantLive("the store is back")
			last := r.stored[len(r.stored)-1]
			switch {
			case back && (last.Data.Kind != hivebeat.KindJoined || len(r.live) > 0):
				t.Errorf("stored: %+v", last)
			case !back && (last.Data.Kind != hivebeat.KindLost || last.Provisional != "h.100.1.lost" || last.ID == last.Provisional || last.Stored != nil):
				t.Errorf("stored: %+v", last)
			}
		})
	}
}

// A death that is in the roster already has its number: if only the stream does not answer,
// the death goes out under the id that is stored later.
func TestADeathThatTheRosterHasKeepsItsID(t *testing.T) {
	r := newRig(t, Config{})
	r.snapshot("h", 100, 1)
	r.pass(3 * time.Second)
	r.pass(41500 * time.Millisecond)
	r.deaf = true
	r.pass(3 * time.Second)
	if len(r.live) != 1 || r.live[0].ID != "h.3" || r.live[0].Provisional != "h.100.1.lost" {
		t.Fatalf("%+v", r.live)
	}
	id := r.live[0].ID
	r.wantLive("lost", "lost h")
	r.deaf = false
	r.pass(20 * time.Second)
	r.wantLive("again")
	if last := r.stored[len(r.stored)-1]; last.ID != id || last.Data.Kind != hivebeat.KindLost {
		t.Errorf("stored: %+v", last)
	}
}

// A full disk, and a server that stopped because of it, are named until a write is
// acknowledged.
func TestAFullStoreIsNamed(t *testing.T) {
	r := newRig(t, Config{})
	r.snapshot("h", 100, 1, worker("w"))
	r.pass(3 * time.Second)
	if got := r.c.StoreTrouble(); got != "" {
		t.Errorf("%q", got)
	}
	r.broken, r.err = true, fmt.Errorf("store failed: %w", ledger.ErrNoSpace)
	r.snapshot("h", 100, 2, withTransition("w", 2, hivebeat.KindState, hivebeat.Alive))
	r.pass(5 * time.Second)
	if got := r.c.StoreTrouble(); got != NoSpace {
		t.Errorf("full, and %q", got)
	}
	r.err = errAway
	r.pass(15 * time.Second)
	if got := r.c.StoreTrouble(); got != NoSpace {
		t.Errorf("away since, and %q", got)
	}
	r.c.StoreStopped(r.now, "JetStream is off at n1, n2")
	r.pass(time.Second)
	const line = "a nats-server stops what it cannot write, mostly for lack of space, and does not resume: free some space, and restart it"
	if got := r.c.StoreTrouble(); got != NeedsRestart || r.logs[line] != 1 {
		t.Errorf("stopped, and %q, told %d times", got, r.logs[line])
	}
	r.broken = false
	r.pass(30 * time.Second)
	if got := r.c.StoreTrouble(); got != NeedsRestart {
		t.Errorf("others keep all, and %q", got)
	}
	r.c.StoreStopped(r.now, "")
	r.pass(time.Second)
	if got := r.c.StoreTrouble(); got != "" || !errors.Is(r.c.store.opErr, nil) {
		t.Errorf("it is well, and %q, %v", got, r.c.store.opErr)
	}
}

// Adopted workers die while the store is away: each death goes out under a distinct id,
// though incarnation and seq are equal, and the stored event names it. Without JetStream it
// is the only id.
func TestDeathsOfAdoptedWorkersHaveIDsOfTheirOwn(t *testing.T) {
	for _, without := range []bool{false, true} {
		t.Run(fmt.Sprintf("without JetStream %t", without), func(t *testing.T) {
			r := newRig(t, Config{NoJetStream: without})
			r.snapshot("h", 100, 1, worker("a"), worker("b"))
			r.pass(3 * time.Second)
			r.broken = !without
			r.closes()
			r.pass(5 * time.Minute)
			told := r.live
			if without {
				told = r.stored
			}
			ids := make(map[string]string)
			for i := range told {
				if ev := &told[i]; ev.Data.Kind == hivebeat.KindLost {
					ids[ev.Subject] = ev.ID
				}
			}
			if diff := cmp.Diff(map[string]string{"h": "h.100.1.lost", "h/a": "h.a.7.10.lost", "h/b": "h.b.7.10.lost"}, ids); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			if without {
				return
			}
			r.wantLive("each once", "lost h", "lost h/a", "lost h/b")
			r.broken = false
			r.pass(30 * time.Second)
			stored := make(map[string]string)
			for i := range r.stored {
				if ev := &r.stored[i]; ev.Data.Kind == hivebeat.KindLost {
					stored[ev.Subject] = ev.Provisional
				}
			}
			if diff := cmp.Diff(ids, stored); diff != "" {
				t.Errorf("what is stored names (-want +got):\n%s", diff)
			}
			r.wantLive("after it was stored")
		})
	}
}
