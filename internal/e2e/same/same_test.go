//go:build e2e

// Package same asks real queens the same questions in the four ways that exist: with the Go
// client, over HTTP, with hivebeat's commands and with the nats CLI. The answers must be the
// same.
package same

import (
	"encoding/json"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/beatfabric/hivebeat"
	"github.com/beatfabric/hivebeat/internal/e2e/rig"
	"github.com/beatfabric/hivebeat/internal/wire"
	"github.com/beatfabric/hivebeat/queen/api"
)

func TestMain(m *testing.M) { rig.Main(m) }

// smi reports a GPU that never changes.
const smi = `#!/bin/sh
cat <<'XML'
<?xml version="1.0" ?>
<nvidia_smi_log>
	<driver_version>590.48.01</driver_version>
	<attached_gpus>1</attached_gpus>
	<gpu id="00000000:18:00.0">
		<product_name>NVIDIA H100</product_name>
		<uuid>GPU-aaaa</uuid>
		<fb_memory_usage><total>81920 MiB</total><reserved>0 MiB</reserved><used>20480 MiB</used><free>61440 MiB</free></fb_memory_usage>
		<utilization><gpu_util>50 %</gpu_util></utilization>
		<temperature><gpu_temp>60 C</gpu_temp></temperature>
		<gpu_power_readings><average_power_draw>300.5 W</average_power_draw></gpu_power_readings>
		<processes></processes>
	</gpu>
</nvidia_smi_log>
XML
`

// start runs a queen, two hives and their workers, and returns the ways to ask.
func start(t *testing.T) *ways {
	t.Helper()
	s := rig.Serve(t, rig.Server(t))
	bin := t.TempDir()
	if err := os.WriteFile(filepath.Join(bin, "nvidia-smi"), []byte(smi), 0o755); err != nil {
		t.Fatal(err)
	}
	run := func(gpu bool, name string, args ...string) *rig.Proc {
		env := []string{"HIVEBEAT_NATS=" + s.URL}
		if gpu {
			env = append(env, "PATH="+bin+":"+os.Getenv("PATH"))
		}
		return rig.Start(t, name, env, append([]string{rig.Hivebeat(t)}, args...)...)
	}
	port := fmt.Sprintf("127.0.0.1:%d", rig.Port(t))
	run(false, "queen", "queen", "--id", "q1", "--http", port)
	run(true, "hive a", "hive", "--id", "a", "--metrics", "off", "--label", "zone=eu", "--label", "rack=r1")
	run(false, "hive b", "hive", "--id", "b", "--metrics", "off", "--label", "zone=us")
	worker := func(hive, id, model, slots string, more ...string) *rig.Proc {
		return run(false, hive+"/"+id, append([]string{"worker", "--hive", hive, "--id", id, "--model", model, "--slots", slots}, more...)...)
	}
	worker("a", "w1", "llama", "8", "--label", "tier=prod", "--endpoint", "http://10.0.0.1:8000/v1?a=b&c=<d>")
	worker("a", "w2", "llama", "4", "--label", "tier=prod")
	worker("b", "w3", "llama", "2", "--label", "tier=dev")
	worker("b", "w4", "qwen", "1")
	worker("b", "w5", "qwen", "1", "--state", "draining")
	leaves := worker("b", "w6", "qwen", "1")
	nc := rig.Connect(t, s.URL)
	is := func(what string, live hivebeat.Live, want, events int) {
		t.Helper()
		rig.Until(t, moment, what, func() (bool, string) {
			a, err := rig.Ask(nc, api.VerbHives, api.Request{})
			workers, gpus := 0, 0
			for _, h := range a.Hives {
				workers += h.Workers[live]
				gpus += len(h.GPUs)
			}
			e, _ := rig.Ask(nc, api.VerbEvents, api.Request{})
			return workers == want && gpus == 1 && len(e.Events) >= events, fmt.Sprintf("%d workers, %d GPUs, %d events: %v", workers, gpus, len(e.Events), err)
		})
	}
	is("the whole fleet, and that it joined", hivebeat.Alive, 6, 8)
	leaves.Interrupt()
	is("one that left, and the event", hivebeat.Left, 1, 9)
	return newWays(t, nc, s.URL, "http://"+port)
}

// heard matches the age of a pick's facts, in its reasons.
var heard = regexp.MustCompile(`(heard|read) [0-9.]+s ago`)

// alike compares two answers to the same question within a time: ages and remaining hold
// times may differ by that much.
func alike(within time.Duration) cmp.Options {
	return cmp.Options{
		cmp.Comparer(func(a, b hivebeat.Millis) bool {
			return math.Abs(float64(a)-float64(b)) <= float64(within.Milliseconds()+1)
		}),
		cmpopts.IgnoreFields(api.Status{}, "AsOf"),
		cmpopts.EquateEmpty(),
		cmp.FilterPath(func(p cmp.Path) bool { return p.Last().String() == ".Reasons" }, cmp.Transformer("WithoutAges", func(reasons []string) []string {
			var out []string
			for _, r := range reasons {
				if !strings.HasPrefix(r, "picked for ") {
					out = append(out, heard.ReplaceAllString(r, "$1 some time ago"))
				}
			}
			return out
		})),
		// The queen counts its own picks, so that each answer changes the order of the next one.
		cmpopts.IgnoreFields(api.Pick{}, "Rank"),
		cmpopts.SortSlices(func(a, b api.Pick) bool { return a.Hive+"/"+a.Worker+a.GPU < b.Hive+"/"+b.Worker+b.GPU }),
	}
}

// same asks a question in all ways, and fails the test if the answers differ. It returns the
// answer of the client, or of the first way that supports the question. A hive may report
// something new in between, so the first way is asked again at the end.
func same(t *testing.T, w *ways, q question) (first *api.Answer) {
	t.Helper()
	for range 10 {
		var asked []string
		var answers []*api.Answer
		var ways []way
		began := time.Now()
		for _, way := range w.all() {
			if a := way.ask(t, &q); a != nil {
				asked, answers, ways = append(asked, way.name), append(answers, a), append(ways, way)
			}
		}
		last := ways[0].ask(t, &q)
		opts := alike(time.Since(began))
		if !cmp.Equal(answers[0], last, opts) {
			continue
		}
		if len(asked) < 3 {
			t.Errorf("%s: only asked by %v", q.name, asked)
		}
		for i := 1; i < len(answers); i++ {
			want := *answers[0]
			if asked[i] == "cli" { // it shows whole lists, and no cursors
				want.Next, want.Total = "", nil
			}
			if diff := cmp.Diff(&want, answers[i], opts); diff != "" {
				t.Errorf("%s: %s (-) and %s (+) answer differently:\n%s", q.name, asked[0], asked[i], diff)
			}
		}
		return answers[0]
	}
	t.Fatalf("%s: the fleet never stood still", q.name)
	return nil
}

func TestAnswers(t *testing.T) {
	t.Parallel()
	w := start(t)
	for _, c := range []struct {
		question
		is func(a *api.Answer) bool // checks that the question makes sense
	}{
		{
			question{name: "summary", verb: api.VerbSummary, http: "GET /v1/summary", cli: []string{"ls", "hives"}, doc: []string{"summary"}},
			func(a *api.Answer) bool { return a.Summary.Workers[hivebeat.Alive] == 5 && a.Summary.GPUs == 1 },
		},
		{
			question{name: "hives", verb: api.VerbHives, http: "GET /v1/hives", cli: []string{"ls", "hives"}, doc: []string{"hives"}},
			func(a *api.Answer) bool { return len(a.Hives) == 2 },
		},
		{
			question{name: "hives in order", verb: api.VerbHives, req: api.Request{Sort: "-workers"}, http: "GET /v1/hives?sort=-workers", cli: []string{"ls", "hives", "--sort=-workers"}, doc: []string{"hives"}},
			func(a *api.Answer) bool { return len(a.Hives) == 2 && a.Hives[0].Hive == "b" },
		},
		{
			question{
				name: "hives by text and zone", verb: api.VerbHives, req: api.Request{Filter: api.Filter{Text: "QWEN", Zone: "us"}},
				http: "GET /v1/hives?text=QWEN&zone=us", cli: []string{"ls", "hives", "--text", "QWEN", "--zone", "us"}, doc: []string{"hives"},
			},
			func(a *api.Answer) bool { return len(a.Hives) == 1 },
		},
		{
			question{
				name: "hives with room", verb: api.VerbHives, req: api.Request{Sort: "-vram_free", Filter: api.Filter{Selector: "rack in (r1,r2)", FreeVRAM: 40 << 30}},
				http: "GET /v1/hives?sort=-vram_free&free_vram=42949672960&selector=rack+in+(r1,r2)",
				cli:  []string{"ls", "hives", "--sort=-vram_free", "--free-vram", "40GiB", "--selector", "rack in (r1,r2)"}, doc: []string{"hives"},
			},
			func(a *api.Answer) bool { return len(a.Hives) == 1 && a.Hives[0].FreeVRAM == 60<<30 },
		},
		{
			question{
				name: "a page of workers", verb: api.VerbWorkers, req: api.Request{Limit: 2, Sort: "-model", Filter: api.Filter{Live: []hivebeat.Live{hivebeat.Alive}}},
				http: "GET /v1/workers?limit=2&sort=-model&live=alive", cli: []string{"ls", "workers", "--limit", "2", "--sort=-model", "--live", "alive"}, doc: []string{"workers"},
			},
			func(a *api.Answer) bool {
				return len(a.Workers) == 2 && a.Workers[0].Worker == "w4" && a.Next != "" && *a.Total == 5
			},
		},
		{
			question{
				name: "workers by filter and selector", verb: api.VerbWorkers, req: api.Request{Filter: api.Filter{Model: "ll*", Selector: "tier=prod,zone!=us", FreeSlots: 5}},
				http: "GET /v1/workers?model=ll*&selector=tier%3Dprod,zone!%3Dus&free_slots=5",
				cli:  []string{"ls", "workers", "--model", "ll*", "--selector", "tier=prod,zone!=us", "--free-slots", "5"}, doc: []string{"workers"},
			},
			func(a *api.Answer) bool { return len(a.Workers) == 1 && a.Workers[0].Labels["tier"] == "prod" },
		},
		{
			question{
				name: "workers of one hive", verb: api.VerbWorkers, req: api.Request{Hive: "b", Filter: api.Filter{State: []hivebeat.State{"draining", "busy"}}},
				http: "GET /v1/hives/b/workers?state=draining,busy", cli: []string{"ls", "workers", "--hive", "b", "--state", "draining,busy"}, doc: []string{"workers"},
			},
			func(a *api.Answer) bool { return len(a.Workers) == 1 },
		},
		{
			question{name: "one hive", verb: api.VerbHive, req: api.Request{Hive: "a"}, http: "GET /v1/hives/a", cli: []string{"get", "a"}, doc: []string{"hive"}},
			func(a *api.Answer) bool { return len(a.Hives) == 1 && a.Hives[0].GPUs[0].Total == 80<<30 },
		},
		{
			question{name: "one worker", verb: api.VerbWorker, req: api.Request{Hive: "a", Worker: "w1"}, http: "GET /v1/hives/a/workers/w1", cli: []string{"get", "a/w1"}, doc: []string{"worker"}},
			func(a *api.Answer) bool { return a.Workers[0].Endpoint == "http://10.0.0.1:8000/v1?a=b&c=<d>" },
		},
		{
			question{name: "events", verb: api.VerbEvents, http: "GET /v1/events", cli: []string{"events"}, doc: []string{"events"}},
			func(a *api.Answer) bool { return len(a.Events) >= 9 && a.Events[0].StreamSeq > 0 },
		},
		{
			question{
				name: "events of a worker", verb: api.VerbEvents, req: api.Request{Hive: "b", Worker: "w6", Kinds: []hivebeat.Kind{hivebeat.KindLeft, hivebeat.KindLost}, Since: 3_600_000},
				http: "GET /v1/events?hive=b&worker=w6&kinds=left,lost&since=3600000",
				cli:  []string{"events", "--hive", "b", "--worker", "w6", "--kind", "left,lost", "--since", "1h"}, doc: []string{"events"},
			},
			func(a *api.Answer) bool { return len(a.Events) == 1 && a.Events[0].Data.Kind == hivebeat.KindLeft },
		},
		{ // the worker with most free slots comes first: chance plays no part
			question{
				name: "pick", verb: api.VerbPick, req: api.Request{N: 9, Spread: api.SpreadNone, Filter: api.Filter{Model: "llama"}},
				http: "GET /v1/pick?n=9&spread=none&model=llama", cli: []string{"pick", "-n", "9", "--spread", "none", "--model", "llama"}, doc: []string{"picks"},
			},
			func(a *api.Answer) bool {
				return len(a.Picks) == 3 && !slices.ContainsFunc(a.Picks, func(p api.Pick) bool { return !slices.Contains([]string{"w1", "w2", "w3"}, p.Worker) })
			},
		},
		{
			question{
				name: "pick by label", verb: api.VerbPick, req: api.Request{Slots: 2, Filter: api.Filter{Selector: "tier=dev"}},
				http: "GET /v1/pick?slots=2&selector=tier%3Ddev", cli: []string{"pick", "--slots", "2", "--selector", "tier=dev"}, doc: []string{"picks"},
			},
			func(a *api.Answer) bool { return len(a.Picks) == 1 && a.Picks[0].Worker == "w3" },
		},
		{
			question{
				name: "pick of fewer than asked for", verb: api.VerbPick, req: api.Request{N: 2, Filter: api.Filter{Model: "qwen"}},
				http: "GET /v1/pick?n=2&model=qwen", cli: []string{"pick", "-n", "2", "--model", "qwen"}, doc: []string{"picks"},
			},
			func(a *api.Answer) bool { return len(a.Picks) == 1 && a.Passed["draining"] == 1 },
		},
		{
			question{
				name: "pick of a GPU", verb: api.VerbPick, req: api.Request{For: api.ForGPU, Filter: api.Filter{FreeVRAM: 30 << 30, Model: "llama"}},
				http: "GET /v1/pick?for=gpu&free_vram=32212254720&model=llama", cli: []string{"pick", "--for", "gpu", "--free-vram", "30GiB", "--model", "llama"}, doc: []string{"picks"},
			},
			func(a *api.Answer) bool {
				return len(a.Picks) == 1 && a.Picks[0].GPU == "GPU-aaaa" && a.Picks[0].Serves
			},
		},
		{
			question{
				name: "pick of nobody", verb: api.VerbPick, req: api.Request{Filter: api.Filter{Model: "llama", Zone: "mars"}},
				http: "GET /v1/pick?zone=mars&model=llama", cli: []string{"pick", "--zone", "mars", "--model", "llama"}, exit: 1, doc: []string{"picks"},
			},
			func(a *api.Answer) bool { return len(a.Picks) == 0 },
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			if a := same(t, w, c.question); a.Error != nil || !c.is(a) || !a.Status.Warm || len(a.Status.Unsure) > 0 {
				t.Errorf("%+v", a)
			}
		})
	}
	holds(t, w)
	drains(t, w)
	silences(t, w)
	forgets(t, w)
	wrong(t, w)
}

// holds lets each way hold a place in turn. The place is held for all ways, and the same hold
// gives the same place in all of them.
func holds(t *testing.T, w *ways) {
	for _, by := range w.all() {
		t.Run("hold by "+by.name, func(t *testing.T) {
			id := "job-" + by.name
			hold := question{
				name: "hold", verb: api.VerbHold, req: api.Request{Hold: id, HoldMS: 60_000, Filter: api.Filter{Model: "qwen"}},
				http: "POST /v1/hold", body: `{"model":"qwen","hold":"` + id + `","hold_for":60000}`,
				cli: []string{"pick", "--model", "qwen", "--hold", id, "--hold-for", "1m"}, doc: []string{"picks"},
			}
			if a := by.ask(t, &hold); len(a.Picks) != 1 || a.Picks[0].Worker != "w4" || a.Picks[0].Hold != id || a.Picks[0].Asker != api.Anyone {
				t.Fatalf("%+v", a)
			}
			list := question{name: "holds", verb: api.VerbHolds, http: "GET /v1/holds"}
			if a := same(t, w, list); len(a.Holds) != 1 || a.Holds[0].ID != id || a.Holds[0].Asker != api.Anyone || a.Holds[0].Worker != "w4" || a.Holds[0].Left <= 30_000 {
				t.Errorf("%+v", a.Holds)
			}
			if a := same(t, w, hold); len(a.Picks) != 1 || a.Picks[0].Worker != "w4" {
				t.Errorf("the same again: %+v", a)
			}
			another := question{
				name: "pick of what is held", verb: api.VerbPick, req: api.Request{Filter: api.Filter{Model: "qwen"}},
				http: "GET /v1/pick?model=qwen", cli: []string{"pick", "--model", "qwen"}, exit: 1, doc: []string{"picks"},
			}
			if a := same(t, w, another); len(a.Picks) != 0 || a.Passed["held"] != 1 {
				t.Errorf("%+v", a)
			}
			other := question{
				name: "another hold of what is held", verb: api.VerbHold, req: api.Request{Hold: "other", Filter: api.Filter{Model: "qwen"}},
				http: "POST /v1/hold", body: `{"model":"qwen","hold":"other"}`, cli: []string{"pick", "--model", "qwen", "--hold", "other"}, exit: 1, doc: []string{"picks"},
			}
			if a := same(t, w, other); len(a.Picks) != 0 {
				t.Errorf("%+v", a)
			}
			worker := question{name: "a held worker", verb: api.VerbWorker, req: api.Request{Hive: "b", Worker: "w4"}, http: "GET /v1/hives/b/workers/w4", cli: []string{"get", "b/w4"}, doc: []string{"worker"}}
			if a := same(t, w, worker); a.Workers[0].Held != 1 {
				t.Errorf("%+v", a)
			}
			release := question{
				name: "release", verb: api.VerbRelease, req: api.Request{Hold: id}, http: "POST /v1/release", body: `{"hold":"` + id + `"}`,
				cli: []string{"pick", "--release", id}, doc: []string{"released"},
			}
			if a := by.ask(t, &release); a.Error != nil || len(a.Holds) != 1 || a.Holds[0].Worker != "w4" {
				t.Errorf("%+v", a)
			}
			release.name, release.exit, release.doc = "release of nothing", 1, nil
			refused(t, w, release, api.CodeNotFound)
		})
	}
}

// drains lets each way drain a hive, a worker and a GPU in turn, and end that. It holds for all ways.
func drains(t *testing.T, w *ways) {
	for _, by := range w.all() {
		for _, c := range []struct {
			name, cli  string
			req        api.Request
			pick       api.Request
			path, args string // of the pick, over HTTP and on the command line
			passed     int
		}{
			{"hive", "a", api.Request{Hive: "a"}, api.Request{Hive: "a"}, "?hive=a", "--hive a", 2},
			{"worker", "b/w4", api.Request{Hive: "b", Worker: "w4"}, api.Request{Filter: api.Filter{Model: "qwen"}}, "?model=qwen", "--model qwen", 1},
			{"GPU", "a/0", api.Request{Hive: "a", GPU: "GPU-aaaa"}, api.Request{For: api.ForGPU, Filter: api.Filter{FreeVRAM: 1 << 30}}, "?for=gpu&free_vram=1073741824", "--for gpu --free-vram 1GiB", 1},
		} {
			t.Run("drain of a "+c.name+" by "+by.name, func(t *testing.T) {
				body := func(r api.Request) string {
					b, err := json.Marshal(r)
					if err != nil {
						t.Fatal(err)
					}
					return string(b)
				}
				r := c.req
				r.Reason, r.During = "kernel update of "+by.name, 3_600_000
				drain := question{
					name: "drain", verb: api.VerbDrain, req: r, http: "POST /v1/drain", body: body(r),
					cli: []string{"drain", c.cli, "--reason", r.Reason, "--for", "1h"}, doc: []string{"directive"},
				}
				a := by.ask(t, &drain)
				if d := a.Directive; a.Error != nil || d == nil || d.By != api.Anyone || d.Reason != r.Reason || d.Worker != r.Worker || d.GPU != r.GPU || d.Left == 0 {
					t.Fatalf("%+v", a)
				}
				if a := same(t, w, drain); a.Directive == nil || a.Directive.Reason != r.Reason { // the same again changes nothing
					t.Errorf("%+v", a)
				}
				pick := question{
					name: "pick of what is drained", verb: api.VerbPick, req: c.pick, http: "GET /v1/pick" + c.path,
					cli: append([]string{"pick"}, strings.Fields(c.args)...), exit: 1, doc: []string{"picks"},
				}
				if a := same(t, w, pick); len(a.Picks) != 0 || a.Passed[api.PassedDrained] != c.passed {
					t.Errorf("%+v", a)
				}
				hive := question{name: "its hive", verb: api.VerbHive, req: api.Request{Hive: c.req.Hive}, http: "GET /v1/hives/" + c.req.Hive, cli: []string{"get", c.req.Hive}, doc: []string{"hive"}}
				if h := &same(t, w, hive).Hives[0]; (h.Drained != nil) != (c.name == "hive") || len(h.DrainedGPUs) != len(c.req.GPU)/len("GPU-aaaa") {
					t.Errorf("%+v %+v", h.Drained, h.DrainedGPUs)
				}
				undrain := question{name: "undrain", verb: api.VerbUndrain, req: c.req, http: "POST /v1/undrain", body: body(c.req), cli: []string{"undrain", c.cli}, doc: []string{"directive"}}
				if a := by.ask(t, &undrain); a.Error != nil || a.Directive == nil || a.Directive.Reason != r.Reason {
					t.Errorf("%+v", a)
				}
				undrain.name, undrain.exit, undrain.doc = "undrain of what is not drained", 1, nil
				refused(t, w, undrain, api.CodeNotFound)
			})
		}
	}
}

// silences lets each way silence a worker in turn, and end that.
func silences(t *testing.T, w *ways) {
	for _, by := range w.all() {
		t.Run("silence by "+by.name, func(t *testing.T) {
			why := "reboot of " + by.name
			silence := question{
				name: "silence", verb: api.VerbSilence, req: api.Request{Hive: "b", Worker: "w4", Reason: why, During: 3_600_000}, http: "POST /v1/silence",
				body: `{"hive":"b","worker":"w4","reason":"` + why + `","during":3600000}`, cli: []string{"silence", "b/w4", "--reason", why, "--for", "1h"}, doc: []string{"directive"},
			}
			if a := by.ask(t, &silence); a.Error != nil || a.Directive == nil || a.Directive.What != "silence" || a.Directive.Reason != why || a.Directive.Left == 0 {
				t.Fatalf("%+v", a)
			}
			same(t, w, silence)
			worker := question{name: "a silenced worker", verb: api.VerbWorker, req: api.Request{Hive: "b", Worker: "w4"}, http: "GET /v1/hives/b/workers/w4", cli: []string{"get", "b/w4"}, doc: []string{"worker"}}
			if is := same(t, w, worker).Workers[0].Silenced; is == nil || is.Reason != why || is.Of != "worker" {
				t.Errorf("%+v", is)
			}
			end := question{
				name: "unsilence", verb: api.VerbUnsilence, req: api.Request{Hive: "b", Worker: "w4"}, http: "POST /v1/unsilence", body: `{"hive":"b","worker":"w4"}`,
				cli: []string{"unsilence", "b/w4"}, doc: []string{"directive"},
			}
			if a := by.ask(t, &end); a.Error != nil || a.Directive == nil || a.Directive.Reason != why {
				t.Errorf("%+v", a)
			}
			end.name, end.exit, end.doc = "unsilence of what is not silenced", 1, nil
			refused(t, w, end, api.CodeNotFound)
		})
	}
}

// forgets lets each way forget a hive that left. A hive that is there is refused in all ways.
func forgets(t *testing.T, w *ways) {
	nc := rig.Connect(t, w.url)
	alive := question{name: "forget of a hive that is there", verb: api.VerbForget, req: api.Request{Hive: "a"}, http: "POST /v1/forget", body: `{"hive":"a"}`, cli: []string{"forget", "a"}, exit: 1}
	refused(t, w, alive, api.CodeBadRequest)
	for _, by := range w.all() {
		t.Run("forget by "+by.name, func(t *testing.T) {
			id := "gone-" + by.name
			s := hivebeat.Snapshot{V: 1, Hive: id, Inc: uint64(time.Now().UnixMicro()), Every: 15_000, Warm: true, Pages: 1, Workers: []hivebeat.Record{}}
			for _, kind := range []hivebeat.Kind{hivebeat.KindJoined, hivebeat.KindLeft} {
				if s.Seq++; kind == hivebeat.KindLeft {
					s.Bye = "over"
				}
				b, err := wire.EncodeSnapshot(&s)
				if err == nil {
					err = nc.Publish(hivebeat.Subjects{}.Hives(), b)
				}
				if err != nil {
					t.Fatal(err)
				}
				rig.Until(t, moment, "an event says that it "+string(kind), func() (bool, string) {
					a, err := rig.Ask(nc, api.VerbEvents, api.Request{Hive: id})
					return len(a.Events) > 0 && a.Events[0].Data.Kind == kind, fmt.Sprintf("%+v %v", a.Events, err)
				})
			}
			forget := question{name: "forget", verb: api.VerbForget, req: api.Request{Hive: id}, http: "POST /v1/forget", body: `{"hive":"` + id + `"}`, cli: []string{"forget", id}, doc: []string{"hive"}}
			if a := by.ask(t, &forget); a.Error != nil || len(a.Hives) != 1 || a.Hives[0].Hive != id || a.Hives[0].Live != hivebeat.Left {
				t.Fatalf("%+v", a)
			}
			forget.name, forget.exit, forget.doc = "forget of what is not known", 1, nil
			refused(t, w, forget, api.CodeNotFound)
		})
	}
}

// refused asks a bad question in all ways. Each must return the same code.
func refused(t *testing.T, w *ways, q question, code string) {
	t.Helper()
	n := 0
	for _, way := range w.all() {
		a := way.ask(t, &q)
		if a == nil {
			continue
		}
		n++
		if a.Error == nil || a.Error.Code != code || a.Error.Message == "" {
			t.Errorf("%s: %s says %+v, want the code %s", q.name, way.name, a.Error, code)
		}
	}
	if n < 2 {
		t.Errorf("%s: asked in %d ways", q.name, n)
	}
}

// wrong asks questions that are refused.
func wrong(t *testing.T, w *ways) {
	for _, c := range []struct {
		question
		code string
	}{
		{question{name: "unknown hive", verb: api.VerbHive, req: api.Request{Hive: "nobody"}, http: "GET /v1/hives/nobody", cli: []string{"get", "nobody"}, exit: 1}, api.CodeNotFound},
		{question{name: "unknown worker", verb: api.VerbWorker, req: api.Request{Hive: "a", Worker: "nobody"}, http: "GET /v1/hives/a/workers/nobody", cli: []string{"get", "a/nobody"}, exit: 1}, api.CodeNotFound},
		{question{name: "worker of an unknown hive", verb: api.VerbWorker, req: api.Request{Hive: "nobody", Worker: "w1"}, http: "GET /v1/hives/nobody/workers/w1", cli: []string{"get", "nobody/w1"}, exit: 1}, api.CodeNotFound},
		{question{name: "workers of an unknown hive", verb: api.VerbWorkers, req: api.Request{Hive: "nobody"}, http: "GET /v1/workers?hive=nobody", cli: []string{"ls", "workers", "--hive", "nobody"}, exit: 1}, api.CodeNotFound},
		{question{name: "no id", verb: api.VerbHive, req: api.Request{Hive: "a b"}, http: "GET /v1/hives/a%20b", cli: []string{"get", "a b"}, exit: 2}, api.CodeBadRequest},
		{question{name: "no selector", verb: api.VerbWorkers, req: api.Request{Filter: api.Filter{Selector: "a in"}}, http: "GET /v1/workers?selector=a+in", cli: []string{"ls", "workers", "--selector", "a in"}, exit: 2}, api.CodeBadRequest},
		{question{name: "no order", verb: api.VerbHives, req: api.Request{Sort: "busy"}, http: "GET /v1/hives?sort=busy", cli: []string{"ls", "hives", "--sort", "busy"}, exit: 2}, api.CodeBadRequest},
		{question{name: "too many places", verb: api.VerbPick, req: api.Request{N: 101}, http: "GET /v1/pick?n=101", cli: []string{"pick", "-n", "101"}, exit: 2}, api.CodeBadRequest},
		{question{name: "slots of a GPU", verb: api.VerbPick, req: api.Request{For: api.ForGPU, Slots: 1}, http: "GET /v1/pick?for=gpu&slots=1", cli: []string{"pick", "--for", "gpu", "--slots", "1"}, exit: 2}, api.CodeBadRequest},
		{question{name: "a pick that holds", verb: api.VerbPick, req: api.Request{Hold: "job"}, http: "GET /v1/pick?hold=job"}, api.CodeBadRequest},
		{question{name: "a time for no hold", verb: api.VerbHold, req: api.Request{HoldMS: 5000}, http: "POST /v1/hold", body: `{"hold_for":5000}`, cli: []string{"pick", "--hold-for", "5s"}, exit: 2}, api.CodeBadRequest},
		{question{name: "no hold", verb: api.VerbRelease, req: api.Request{Hold: "a.b"}, http: "POST /v1/release", body: `{"hold":"a.b"}`, cli: []string{"pick", "--release", "a.b"}, exit: 2}, api.CodeBadRequest},
		{question{name: "worker without hive", verb: api.VerbEvents, req: api.Request{Worker: "w1"}, http: "GET /v1/events?worker=w1", cli: []string{"events", "--worker", "w1"}, exit: 2}, api.CodeBadRequest},
		{question{name: "unknown key", verb: api.VerbWorkers, raw: `{"colour":"red"}`, http: "GET /v1/workers?colour=red", cli: []string{"ls", "workers", "--colour", "red"}, exit: 2}, api.CodeBadRequest},
		{question{name: "key of another verb", verb: api.VerbSummary, req: api.Request{Filter: api.Filter{Zone: "eu"}}, http: "GET /v1/summary?zone=eu"}, api.CodeBadRequest},
		{question{name: "no number", verb: api.VerbPick, raw: `{"n":"many"}`, http: "GET /v1/pick?n=many", cli: []string{"pick", "-n", "many"}, exit: 2}, api.CodeBadRequest},
		{question{name: "a limit that is too high", verb: api.VerbWorkers, req: api.Request{Limit: 1001}, http: "GET /v1/workers?limit=1001"}, api.CodeBadRequest},
		{question{name: "a cursor of nothing", verb: api.VerbWorkers, req: api.Request{After: "~!"}, http: "GET /v1/workers?after=~!"}, api.CodeBadRequest},
	} {
		t.Run("wrong: "+c.name, func(t *testing.T) { refused(t, w, c.question, c.code) })
	}
}

// Without JetStream a hold is refused, and everything else is answered.
func TestWithoutJetStream(t *testing.T) {
	t.Parallel()
	s := rig.Prepare(t, rig.Server(t), "e2e", "127.0.0.1")
	s.Configure("")
	s.Start()
	port := fmt.Sprintf("127.0.0.1:%d", rig.Port(t))
	rig.Start(t, "queen", []string{"HIVEBEAT_NATS=" + s.URL}, rig.Hivebeat(t), "queen", "--id", "q1", "--http", port)
	nc := rig.Connect(t, s.URL)
	rig.Until(t, moment, "a queen that answers", func() (bool, string) {
		_, err := rig.Ask(nc, api.VerbSummary, api.Request{})
		return err == nil, fmt.Sprint(err)
	})
	w := newWays(t, nc, s.URL, "http://"+port)
	refused(t, w, question{
		name: "hold", verb: api.VerbHold, req: api.Request{Hold: "job"}, http: "POST /v1/hold", body: `{"hold":"job"}`, cli: []string{"pick", "--hold", "job"}, exit: 1,
	}, api.CodeUnavailable)
	refused(t, w, question{
		name: "release", verb: api.VerbRelease, req: api.Request{Hold: "job"}, http: "POST /v1/release", body: `{"hold":"job"}`, cli: []string{"pick", "--release", "job"}, exit: 1,
	}, api.CodeUnavailable)
	if a := same(t, w, question{name: "summary", verb: api.VerbSummary, http: "GET /v1/summary", cli: []string{"ls"}, doc: []string{"summary"}}); len(a.Status.Unsure) == 0 {
		t.Errorf("sure without JetStream: %+v", a.Status)
	}
}
