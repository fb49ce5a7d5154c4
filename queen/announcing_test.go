package queen

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/beatfabric/hivebeat"
	"github.com/beatfabric/hivebeat/internal/fleet"
	"github.com/beatfabric/hivebeat/internal/ledger"
)

// TestEntryThatCameWhileItWaited: a put that got no answer was done all the same, and
// the watch brings it while its hive waits for its turn to be told. Then there is
// nothing to say of the hive any more, and the event in the entry is looked after.
func TestEntryThatCameWhileItWaited(t *testing.T) {
	q := &Queen{view: fleet.New(time.Minute)}
	now := time.Now()
	entry := func(n, inc uint64) ledger.RosterItem {
		body, err := json.Marshal(q.subjects.NewEvent(hivebeat.HiveEventID("h", n), now, hivebeat.EventData{Hive: "h", N: n}))
		if err != nil {
			t.Fatal(err)
		}
		return ledger.RosterItem{
			RosterEntry: ledger.RosterEntry{N: n, Live: hivebeat.Lost, Inc: inc, Seq: 1, Every: 15000, Event: body}, Revision: n, Epoch: 1,
		}
	}
	h := q.view.Learn("h", entry(1, 100), now)
	h.Book.Confirmed = 1
	h.Book.Busy = true // it waits
	q.store.queue = append(q.store.queue, h)
	q.rosterItem("h", entry(2, 200), now, time.Second)
	if jobs := q.takeBatch(now); len(jobs) != 0 {
		t.Fatalf("%d things to say", len(jobs))
	}
	if at, ok := q.store.unsure.At(h); !ok || at.Sub(now) > 15*time.Second {
		t.Errorf("its event is looked after: %v, in %s", ok, at.Sub(now))
	}
}
