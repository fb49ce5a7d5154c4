package queen

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/beatfabric/hivebeat"
	"github.com/beatfabric/hivebeat/internal/ledger"
	"github.com/beatfabric/hivebeat/queen/api"
)

func workersOf(n int) (list []hivebeat.Record) {
	for i := range n {
		list = append(list, workerOf(fmt.Sprintf("w%02d", i)))
	}
	return list
}

func TestAgesAreEffective(t *testing.T) {
	v := newView(45 * time.Second)
	s := snapshotOf("h", 100, 1, workerOf("w"))
	s.GPUs = []hivebeat.GPU{{UUID: "g", Total: 80, Used: 50, Ours: 30, Age: 2000}}
	s.Workers[0].Tr = []hivebeat.Transition{{N: 1, Kind: hivebeat.KindJoined, Inc: 7, Ago: 1000}}
	mustFeed(t, v, s, at(0))
	ask := func(sec float64) (api.WorkerInfo, api.HiveInfo, api.Summary) {
		a := v.answer(api.VerbWorker, api.Request{Hive: "h", Worker: "w"}, at(sec))
		b := v.answer(api.VerbHive, api.Request{Hive: "h"}, at(sec))
		c := v.answer(api.VerbSummary, api.Request{}, at(sec))
		if len(a.Workers) != 1 || len(b.Hives) != 1 || c.Summary == nil {
			t.Fatalf("%+v %+v %+v", a, b, c)
		}
		return a.Workers[0], b.Hives[0], *c.Summary
	}
	w, h, sum := ask(40) // it was 5 s old when received
	if w.Age != 45_000 || !w.Fresh || w.Live != hivebeat.Alive || w.Since != 140_000 || w.Tr[0].Ago != 41_000 || w.Zone != "eu" || w.Via != "hive" {
		t.Errorf("at 40 s: %+v", w)
	}
	if h.Age != 40_000 || !h.Fresh || h.GPUs[0].Age != 42_000 || h.Workers[hivebeat.Alive] != 1 {
		t.Errorf("at 40 s: %+v", h)
	}
	if sum.Workers[hivebeat.Alive] != 1 || sum.States[hivebeat.Ready] != 1 || sum.VRAMTotal != 80 || sum.VRAMUsed != 50 || sum.VRAMOurs != 30 || sum.GPUs != 1 {
		t.Errorf("at 40 s: %+v", sum)
	}
	v.Take()
	w, h, sum = ask(40.001)
	if w.Age != 45_001 || w.Fresh || w.Live != hivebeat.Late || h.Workers[hivebeat.Late] != 1 || sum.Workers[hivebeat.Late] != 1 || len(sum.States) != 0 {
		t.Errorf("past 45 s: %+v %+v %+v", w, h, sum)
	}
	r := v.Take()
	if steps, events := r.Steps, r.Events; len(steps) != 0 || len(events) != 0 && events[0].Data.Kind != hivebeat.KindJoined {
		t.Errorf("that was a transition: %v %v", steps, events)
	}
	_, h, sum = ask(45.001)
	if h.Fresh || sum.VRAMTotal != 0 {
		t.Errorf("facts past 45 s are used: %+v %+v", h, sum)
	}
	if age, ago := v.Index().Hive("h").Head().GPUs[0].Age, v.Index().Hive("h").Worker("w").Record().Tr[0].Ago; age != 2000 || ago != 1000 {
		t.Errorf("an answer changed the view: the GPU's age is %d, want 2000; the transition was %d ago, want 1000", age, ago)
	}
	mustFeed(t, v, snapshotOf("h", 100, 2, workerOf("w")), at(46))
	bye := snapshotOf("h", 100, 3, workerOf("w"))
	bye.Bye = "bye"
	mustFeed(t, v, bye, at(47))
	if w, _, _ := ask(47); w.Live != hivebeat.Late {
		t.Errorf("the hive left, and its worker is shown as %s", w.Live)
	}
}

func TestUnknownWordsAreKept(t *testing.T) {
	v := newView(45 * time.Second)
	w := workerOf("w")
	w.Live, w.Cause, w.State = "zombie", "moon", "dreaming"
	mustFeed(t, v, snapshotOf("h", 100, 1, w), at(0))
	got := v.answer(api.VerbWorker, api.Request{Hive: "h", Worker: "w"}, at(1)).Workers[0]
	if got.Live != "zombie" || got.Cause != "moon" || got.State != "dreaming" {
		t.Errorf("%+v", got)
	}
	if s := v.summary(at(1)); s.Workers[hivebeat.Late] != 1 || len(s.Workers) != 1 || len(s.States) != 0 {
		t.Errorf("counted as %+v", s)
	}
}

func TestRequests(t *testing.T) {
	v := newView(45 * time.Second)
	for i := range 5 {
		mustFeed(t, v, snapshotOf(fmt.Sprintf("h%d", i), 100, 1, workersOf(i)...), at(0))
	}
	for _, c := range []struct {
		verb string
		req  api.Request
		code string
	}{
		{"nonsense", api.Request{}, api.CodeBadRequest},
		{api.VerbHive, api.Request{}, api.CodeBadRequest},
		{api.VerbHive, api.Request{Hive: "a b"}, api.CodeBadRequest},
		{api.VerbHive, api.Request{Hive: "h9"}, api.CodeNotFound},
		{api.VerbWorker, api.Request{Hive: "h1"}, api.CodeBadRequest},
		{api.VerbWorker, api.Request{Hive: "h1", Worker: "w09"}, api.CodeNotFound},
		{api.VerbWorkers, api.Request{Hive: "h9"}, api.CodeNotFound},
		{api.VerbWorkers, api.Request{Limit: 1001}, api.CodeBadRequest},
		{api.VerbWorkers, api.Request{Limit: -1}, api.CodeBadRequest},
		{api.VerbWorkers, api.Request{After: "h1/w 1"}, api.CodeBadRequest},
	} {
		if a := v.answer(c.verb, c.req, at(1)); a.Error == nil || a.Error.Code != c.code || a.Error.Message == "" {
			t.Errorf("%s %+v: %+v", c.verb, c.req, a.Error)
		}
	}
	for limit := range 12 {
		var got []string
		for req := (api.Request{Limit: limit}); ; {
			a := v.answer(api.VerbWorkers, req, at(1))
			for _, w := range a.Workers {
				got = append(got, w.Hive+"/"+w.Worker)
			}
			if req.After = a.Next; a.Next == "" {
				break
			}
		}
		if len(got) != 10 || !slices.IsSorted(got) {
			t.Errorf("by %d: %v", limit, got)
		}
		got = nil
		for req := (api.Request{Limit: limit}); ; {
			a := v.answer(api.VerbHives, req, at(1))
			for _, h := range a.Hives {
				got = append(got, h.Hive)
			}
			if req.After = a.Next; a.Next == "" {
				break
			}
		}
		if !slices.Equal(got, []string{"h0", "h1", "h2", "h3", "h4"}) {
			t.Errorf("by %d: %v", limit, got)
		}
	}
	if a := v.answer(api.VerbWorkers, api.Request{Hive: "h3", After: "h3/w00"}, at(1)); len(a.Workers) != 2 || a.Workers[0].Worker != "w01" || a.Next != "" {
		t.Errorf("of one hive: %+v", a)
	}
}

// A record shown as late has a Since that starts when it was first shown so, not when
// its hive last reported it alive.
func TestSinceOfWhatIsShownLate(t *testing.T) {
	v := newView(45 * time.Second)
	mustFeed(t, v, snapshotOf("h", 100, 1, workerOf("w")), at(0)) // alive for 100 s, heard 5 s ago
	for _, now := range []time.Time{at(22.5), at(45)} {
		v.Tick(now)
		for _, c := range v.Take().Checks {
			v.Checked(c, 0, 0, now)
		}
	}
	w := v.answer(api.VerbWorker, api.Request{Hive: "h", Worker: "w"}, at(55)).Workers[0]
	if w.Live != hivebeat.Late || w.Since != 15_000 {
		t.Errorf("%s for %d ms, want late for the 15 s that it has been too old", w.Live, w.Since)
	}
	w = v.answer(api.VerbWorker, api.Request{Hive: "h", Worker: "w"}, at(42)).Workers[0]
	if w.Since > 45_000 {
		t.Errorf("late for %d ms", w.Since)
	}
}

// A queen that started after a hive was given up knows which workers were on it.
func TestRosterRemembersWorkers(t *testing.T) {
	v := newView(45 * time.Second)
	v.LearnKey("h", ledger.RosterItem{Revision: 1, Stored: time.Minute, RosterEntry: ledger.RosterEntry{
		V: 1, N: 3, Live: hivebeat.Lost, Cause: hivebeat.CauseMissed, Inc: 100, Seq: 9, Every: 15000,
		Workers: map[string]ledger.RosterWorker{
			"w": {Inc: 7, Live: hivebeat.Alive, State: hivebeat.Ready, Model: "llama"}, "gone": {Inc: 8, Live: hivebeat.Left},
		},
	}}, at(0))
	a := v.answer(api.VerbWorkers, api.Request{}, at(1))
	if len(a.Workers) != 2 {
		t.Fatalf("%d workers, want 2", len(a.Workers))
	}
	w := a.Workers[1]
	if w.Worker != "w" || w.Live != hivebeat.Late || w.Fresh || w.Age < 105_000 || w.Model != "llama" {
		t.Errorf("%+v; want it late, and older than its hive has been lost", w)
	}
	if h := v.answer(api.VerbHive, api.Request{Hive: "h"}, at(1)).Hives[0]; h.Live != hivebeat.Lost || h.Since < 60_000 {
		t.Errorf("hive %s for %d ms, want lost for a minute", h.Live, h.Since)
	}
	if s := v.summary(at(1)); s.Workers[hivebeat.Late] != 1 || s.Workers[hivebeat.Left] != 1 {
		t.Errorf("counted %v", s.Workers)
	}
}
