package query

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/beatfabric/hivebeat"
	"github.com/beatfabric/hivebeat/queen/api"
)

// follower is a client that watches.
type follower struct {
	r      api.Request
	has    map[string]string // its knowledge, by id
	events map[string]bool
}

// look asks once, and applies the answer.
func (f *follower) look(t failer, m *model, events *Events) (more bool) {
	w := NewWatch("q", f.r)
	m.v.Settle(m.now)
	w.Step(m.v.Index(), events, m.now)
	a := w.Answer()
	if a.Next == "" {
		t.Fatalf("no cursor")
	}
	if a.Resync != "" || f.r.After == "" {
		clear(f.has)
	}
	for _, id := range a.Gone {
		delete(f.has, id)
	}
	for _, h := range a.Hives {
		f.has[h.Hive] = ofHive(&h)
	}
	for _, w := range a.Workers {
		f.has[w.Cursor()] = ofWorker(&w)
	}
	for _, e := range a.Events {
		if f.events[e.ID] {
			t.Fatalf("event %s came twice", e.ID)
		}
		f.events[e.ID] = true
	}
	f.r.After = a.Next
	return a.More
}

// ofHive returns the parts of a hive whose changes a watcher must receive at once.
func ofHive(h *api.HiveInfo) string {
	gpus := slices.Clone(h.GPUs)
	for i := range gpus {
		gpus[i].Age, gpus[i].Since = 0, 0
	}
	return fmt.Sprint(h.Live, h.Cause, h.Fresh, h.Inc, h.Warm, h.Bye, h.Zone, h.Labels, h.Host, gpus, h.Workers, h.FreeVRAM, h.Held)
}

func ofWorker(w *api.WorkerInfo) string {
	return fmt.Sprint(w.Live, w.Cause, w.Fresh, w.Inc, w.State, w.Model, w.Endpoint, w.Slots, w.Busy, w.Queue, w.VRAM, w.Labels, w.Stalled, w.Held, w.Via)
}

// TestWatchersAgainstView lets watchers with filters follow a fleet, each at a different
// pace. A watcher that has looked until there was no more knows exactly the listed items.
func TestWatchersAgainstView(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := newModel(t)
		var events Events
		var followers []*follower
		for range 3 {
			r := m.request(api.VerbWatch)
			r.MaxAge = 0 // it depends on time, which no watcher receives
			followers = append(followers, &follower{r: r, has: make(map[string]string), events: make(map[string]bool)})
		}
		for range rapid.IntRange(1, 25).Draw(t, "steps") {
			m.step()
			for _, e := range append(m.events, m.v.Take().Events...) {
				h := api.Happened{}
				h.ID, h.Data = e.ID, e.Data
				events.Add(h, m.v.Index().Bump)
			}
			m.events = nil
			f := followers[rapid.IntRange(0, 2).Draw(t, "who")]
			if rapid.Bool().Draw(t, "all") {
				for n := 0; f.look(t, m, &events); n++ {
					if n > 1000 {
						t.Fatalf("there is always more")
					}
				}
				same(t, m, f)
			} else {
				f.look(t, m, &events)
			}
		}
	})
}

// same compares the knowledge of a watcher with the list.
func same(t *rapid.T, m *model, f *follower) {
	want := make(map[string]string)
	for _, verb := range []string{api.VerbHives, api.VerbWorkers} {
		r := api.Request{Hive: f.r.Hive, Filter: f.r.Filter, Limit: 1000}
		a := ask(t, m.v, verb, r, m.now)
		for _, h := range a.Hives {
			want[h.Hive] = ofHive(&h)
		}
		for _, w := range a.Workers {
			want[w.Cursor()] = ofWorker(&w)
		}
	}
	if d := cmp.Diff(want, f.has); d != "" {
		t.Fatalf("%+v (-listed +watched):\n%s", f.r, d)
	}
}

func TestWatchCursors(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {}) // registers rapid's flags for all tests here
	m := &model{v: newView(), now: at(0), seq: map[string]uint64{}}
	feed(t, m.v, snapshotOf("h", "eu", 1, workerOf("w", "llama", 4, 0)), at(0))
	first := NewWatch("q", api.Request{})
	first.Step(m.v.Index(), nil, at(0))
	a := first.Answer()
	if len(a.Hives) != 1 || len(a.Workers) != 1 || a.Summary == nil || a.More || a.Resync != "" {
		t.Fatalf("%+v", a)
	}
	again := NewWatch("q", api.Request{After: a.Next})
	if again.Step(m.v.Index(), nil, at(1)) {
		t.Errorf("nothing changed: %+v", again.Answer())
	}
	for cursor, why := range map[string]string{
		"other" + a.Next[1:]: "another queen", "q": "cannot be parsed", "q.x": "cannot be parsed", "q.1": "started after",
		"q.99999999": "cannot be parsed", "q.1.2.3": "cannot be parsed", "q.1.1.1.1": "cannot be parsed",
	} {
		w := NewWatch("q", api.Request{After: cursor})
		if !w.Step(m.v.Index(), nil, at(1)) || !strings.Contains(w.Answer().Resync, why) || len(w.Answer().Workers) != 1 {
			t.Errorf("%s: %+v", cursor, w.Answer())
		}
	}
	// Time alone makes a record late, and the watcher receives that.
	m.v.Settle(at(60))
	if !again.Step(m.v.Index(), nil, at(60)) || len(again.Answer().Workers) != 1 || again.Answer().Workers[0].Live != hivebeat.Late {
		t.Errorf("aged: %+v", again.Answer())
	}
}
