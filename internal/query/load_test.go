package query

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/beatfabric/hivebeat"
	"github.com/beatfabric/hivebeat/queen/api"
)

// engineOf returns a worker that is read by a probe.
func engineOf(id, model string, busy, queue uint64, rate float64) hivebeat.Record {
	r := workerOf(id, model, 0, busy)
	r.Engine, r.Queue, r.Rate, r.Probed = "vllm", queue, rate, 1000
	return r
}

// The worker whose work is done first comes first, whatever it has free; a resident model is not
// an idle one.
func TestPickByLoad(t *testing.T) {
	for _, c := range []struct {
		name    string
		workers []hivebeat.Record
		first   string
		reason  string
	}{
		{"idle before busy", []hivebeat.Record{engineOf("busy", "m", 40, 0, 20), engineOf("idle", "m", 0, 0, 0)}, "idle", "no requests waiting"},
		{"by the time that the work takes", []hivebeat.Record{engineOf("slow", "m", 4, 0, 0.5), engineOf("fast", "m", 40, 0, 20)}, "fast", "40 requests in progress or waiting, 20 finished a second"},
		{"the emptier cache", []hivebeat.Record{with(engineOf("full", "m", 8, 0, 4), 0.92), with(engineOf("empty", "m", 8, 0, 4), 0.11)}, "empty", "KV cache 11% in use"},
		{"an unknown cache is neither", []hivebeat.Record{engineOf("unknown", "m", 8, 0, 4), with(engineOf("full", "m", 8, 0, 4), 0.92)}, "unknown", ""},
		{"an unknown pace counts as a few seconds", []hivebeat.Record{engineOf("unknown", "m", 4, 0, 0), engineOf("slow", "m", 40, 0, 0.5)}, "unknown", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			for _, order := range [][]hivebeat.Record{c.workers, {c.workers[1], c.workers[0]}} {
				v := newView()
				feed(t, v, snapshotOf("h", "eu", 1, order...), at(0))
				p := find(t, v, api.Request{Filter: api.Filter{Model: "m"}}, at(1)).Picks
				if len(p) != 1 || p[0].Worker != c.first || !strings.Contains(strings.Join(p[0].Reasons, "; "), c.reason) {
					t.Errorf("picked %+v, want %s, because %q", p, c.first, c.reason)
				}
			}
		})
	}
}

func with(r hivebeat.Record, kv float64) hivebeat.Record {
	r.KV = &kv
	return r
}

// Many clients that ask between two messages of a worker are not all sent to it.
func TestPicksCountUntilTheNextFacts(t *testing.T) {
	v := newView()
	a, b := engineOf("a", "m", 0, 0, 4), engineOf("b", "m", 7, 0, 4)
	feed(t, v, snapshotOf("h", "eu", 1, a, b), at(0))
	got := make(map[string]int)
	var reasons []string
	for range 20 {
		p := find(t, v, api.Request{Filter: api.Filter{Model: "m"}}, at(1)).Picks[0]
		got[p.Worker]++
		reasons = append(reasons, p.Reasons...)
	}
	if got["a"] < 10 || got["b"] < 4 {
		t.Errorf("20 picks between two messages went to %v, want most to a, and some to b once a has as much work", got)
	}
	if !slices.Contains(reasons, "picked for 3 more since its last facts") {
		t.Errorf("no reason says what was picked: %q", reasons)
	}
	a.Seq, b.Seq, b.Busy = a.Seq+1, b.Seq+1, 30
	s := snapshotOf("h", "eu", 2, a, b)
	feed(t, v, s, at(2))
	if p := find(t, v, api.Request{Filter: api.Filter{Model: "m"}}, at(3)).Picks[0]; p.Worker != "a" || slices.ContainsFunc(p.Reasons, func(r string) bool { return strings.Contains(r, "since its last facts") }) {
		t.Errorf("after new facts: %+v, want a, and no count", p)
	}
}

// A place that cannot serve is never picked, however its sidecar beats.
func TestEnginesThatCannotServe(t *testing.T) {
	good := engineOf("good", "m", 0, 0, 1)
	state := func(s hivebeat.State) hivebeat.Record {
		r := engineOf("bad", "m", 0, 0, 1)
		r.State = s
		return r
	}
	old := engineOf("bad", "m", 0, 0, 1)
	old.Probed = 60_000
	queued := engineOf("bad", "m", 8, 3, 1)
	for passed, bad := range map[string]hivebeat.Record{
		"degraded": state(hivebeat.Degraded), "sleeping": state(hivebeat.Sleeping), "starting": state(hivebeat.Starting), "loading": state(hivebeat.Loading),
		engineSilent: old, "with requests waiting already": queued,
	} {
		v := newView()
		feed(t, v, snapshotOf("h", "eu", 1, bad, good), at(0))
		a := find(t, v, api.Request{N: 2, Filter: api.Filter{Model: "m"}}, at(1))
		if len(a.Picks) != 1 || a.Picks[0].Worker != "good" || a.Passed[passed] != 1 {
			t.Errorf("%s: picked %+v, passed over %v", passed, a.Picks, a.Passed)
		}
	}
}

// An engine that has a model on disk is picked for it if nothing serves it, and never for another.
func TestPickOfColdModels(t *testing.T) {
	base := engineOf("ollama", "", 0, 0, 0)
	base.Cold = []string{"qwen3:8b", "gemma3:27b"}
	llama := engineOf("ollama-llama", "llama3.2:3b", 0, 0, 0)
	v := newView()
	feed(t, v, snapshotOf("h", "eu", 1, base, llama), at(0))
	for _, c := range []struct{ model, want string }{
		{"llama3.2:3b", "ollama-llama llama3.2:3b"},
		{"qwen3:8b", "ollama qwen3:8b"},
		{"qwen*", "ollama qwen3:8b"},
		{"", "ollama-llama llama3.2:3b"},
		{"mistral", ""},
	} {
		a := find(t, v, api.Request{N: 3, Filter: api.Filter{Model: c.model}}, at(1))
		got := ""
		for _, p := range a.Picks {
			got += fmt.Sprintf("%s %s", p.Worker, p.Model)
		}
		if got != c.want {
			t.Errorf("--model %q: %q, want %q; passed over %v", c.model, got, c.want, a.Passed)
		}
	}
}
