package cli

import (
	"encoding/json"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/nats.go"

	"github.com/beatfabric/hivebeat"
	"github.com/beatfabric/hivebeat/internal/bustest"
	"github.com/beatfabric/hivebeat/queen/api"
)

// oracle answers each verb with prepared answers, page by page, and records the requests.
type oracle struct {
	mu      sync.Mutex
	answers map[string][]api.Answer
	asked   []api.Request
}

func serveOracle(t *testing.T, answers map[string][]api.Answer) (url string, o *oracle) {
	t.Helper()
	srv := bustest.Server(t, bustest.NoJetStream())
	nc := bustest.Conn(t, srv)
	o = &oracle{answers: answers}
	var s hivebeat.Subjects
	once := onceEach()
	subscribeAs(t, nc, "q", func(m *nats.Msg) {
		_, verb, _, _ := s.ParseAPI(m.Subject)
		if !once(m) {
			return
		}
		b, _ := json.Marshal(o.answer(verb, m.Data))
		_ = m.Respond(b)
	})
	return srv.URL(), o
}

func (o *oracle) answer(verb string, data []byte) api.Answer {
	o.mu.Lock()
	defer o.mu.Unlock()
	var r api.Request
	_ = json.Unmarshal(data, &r)
	if verb != api.VerbSummary {
		o.asked = append(o.asked, r)
	}
	a := api.Answer{Summary: &api.Summary{Hives: map[hivebeat.Live]int{hivebeat.Alive: 9}, Workers: map[hivebeat.Live]int{hivebeat.Alive: 90}}}
	if list := o.answers[verb]; len(list) > 0 {
		a = list[0]
		o.answers[verb] = list[1:]
	} else if verb != api.VerbSummary {
		a = api.Answer{Error: &api.Error{Code: api.CodeBadRequest, Message: "unknown verb " + verb}}
	}
	a.Status = api.Status{Queen: "q", Warm: true, JetStream: true, Unsure: a.Status.Unsure}
	return a
}

func (o *oracle) wasAsked(t *testing.T, want ...api.Request) {
	t.Helper()
	o.mu.Lock()
	defer o.mu.Unlock()
	if diff := cmp.Diff(want, o.asked); diff != "" {
		t.Errorf("asked (-want +got):\n%s", diff)
	}
	o.asked = nil
}

func workersNamed(ids ...string) (out []api.WorkerInfo) {
	for _, id := range ids {
		out = append(out, api.WorkerInfo{Hive: "h", Fresh: true, Record: hivebeat.Record{Worker: id, Live: hivebeat.Alive, Facts: hivebeat.Facts{State: hivebeat.Ready, Model: "m"}}})
	}
	return out
}

func TestLsForScripts(t *testing.T) {
	url, _ := serveOracle(t, map[string][]api.Answer{api.VerbWorkers: {{Workers: workersNamed("a", "b")}, {Workers: workersNamed("a", "b")}, {Workers: workersNamed("a")}}})
	for _, c := range []struct {
		args []string
		want string
	}{
		{[]string{"-o", "name"}, "h/a\nh/b\n"},
		{[]string{"--no-headers"}, "h/a"},
		{[]string{"-o", "wide"}, "WORKER"},
	} {
		code, out, errs := run(t, nil, append([]string{"ls", "workers", "--nats", url}, c.args...)...)
		if code != ExitDone || errs != "" || !strings.HasPrefix(out, c.want) || (strings.Contains(out, "sure") || strings.Contains(out, "WORKER")) != (c.want == "WORKER") {
			t.Errorf("%v: exit code %d, %s\n%s", c.args, code, errs, out)
		}
	}
}

func TestLsFilters(t *testing.T) {
	url, o := serveOracle(t, map[string][]api.Answer{api.VerbWorkers: {
		{Workers: workersNamed("z")},
		{Workers: workersNamed("a", "b"), Next: "h/b"},
		{Workers: workersNamed("c"), Next: "h/c"},
		{Workers: []api.WorkerInfo{}},
	}})
	code, out, errs := run(t, nil, "ls", "workers", "--nats", url, "--hive", "h", "--model", "llama-3*", "--live", "alive,late", "--state", "ready,odd",
		"--zone", "a", "--selector", "tier!=dev", "--text", "x", "--free-vram", "20GiB", "--free-slots", "2", "--max-age", "10s", "--stalled", "--free-disk", "9GiB", "--driver", "550.*", "--kernel", "6.8*", "--sort=-busy", "--limit", "3")
	if code != ExitDone || errs != "" {
		t.Fatalf("exit code %d, %s", code, errs)
	}
	want := api.Request{
		Hive: "h", Sort: "-busy", Limit: 3,
		Filter: api.Filter{
			Model: "llama-3*", Live: []hivebeat.Live{hivebeat.Alive, hivebeat.Late}, State: []hivebeat.State{hivebeat.Ready, "odd"}, Zone: "a",
			Selector: "tier!=dev", Text: "x", FreeVRAM: 20 << 30, FreeDisk: 9 << 30, Driver: "550.*", Kernel: "6.8*", FreeSlots: 2, MaxAge: 10_000, Stalled: true,
		},
	}
	next := want
	next.After, next.Limit = "h/b", 1
	odd := api.Request{Filter: api.Filter{State: []hivebeat.State{"odd"}}, Limit: 1} // a word that the protocol does not define: does any worker report it?
	o.wasAsked(t, odd, want, next)
	if !strings.Contains(out, "h/c") || !strings.HasSuffix(out, "\n3 workers listed · all: 9 hives: 9 alive · 90 workers: 90 alive · sure\n") {
		t.Errorf("%s", out)
	}

	// No worker reports it: an empty list would look as if no worker were in that state.
	code, out, errs = run(t, nil, "ls", "workers", "--nats", url, "--state", "busy,odd")
	if code != ExitUsage || out != "" || errs != "hivebeat: --state: no worker reports \"odd\"\nhint: use starting, loading, ready, busy, degraded, draining, sleeping, stopped, failed, or another state that a worker reports\n" {
		t.Errorf("exit code %d, %q, %s", code, out, errs)
	}
	o.wasAsked(t, odd)
}

// The environment of a machine's worker does not filter lists.
func TestFilterTwins(t *testing.T) {
	t.Setenv("HIVEBEAT_HIVE", "here")
	t.Setenv("HIVEBEAT_SLOTS", "8")
	t.Setenv("HIVEBEAT_MODEL", "mine")
	t.Setenv("HIVEBEAT_STATE", "busy")
	t.Setenv("HIVEBEAT_FILTER_ZONE", "b")
	url, o := serveOracle(t, map[string][]api.Answer{
		api.VerbWorkers: {{Workers: workersNamed("a")}, {Workers: workersNamed("a")}},
		api.VerbPick:    {{Picks: []api.Pick{{Hive: "h", Worker: "a"}}}, {Picks: []api.Pick{{Hive: "h", Worker: "a"}}}},
	})
	ask := func(args ...string) {
		t.Helper()
		if code, _, errs := run(t, nil, append(args, "--nats", url)...); code != ExitDone {
			t.Fatal(errs)
		}
	}
	list := api.Request{Filter: api.Filter{Zone: "b"}, Limit: pageSize}
	pick := api.Request{Filter: api.Filter{Zone: "b"}, N: 1, For: api.ForWorker, Spread: api.SpreadZone}
	ask("ls", "workers")
	ask("pick")
	o.wasAsked(t, list, pick)

	t.Setenv("HIVEBEAT_FILTER_HIVE", "h")
	t.Setenv("HIVEBEAT_FILTER_SLOTS", "2")
	list.Hive, pick.Hive, pick.Slots = "h", "h", 2
	ask("ls", "workers")
	ask("pick")
	o.wasAsked(t, list, pick)
}

func TestPick(t *testing.T) {
	one := uint64(1)
	picks := []api.Pick{
		{
			Rank: 1, Hive: "gpu-01", Zone: "a", Worker: "llama", Model: "llama-3-8b", Endpoint: "http://gpu-01:8000", State: hivebeat.Ready, Slots: 4, FreeSlots: 3,
			Age: 2000, Reasons: []string{"3 of 4 slots free", "nothing waits"}, Hold: "job-42",
		},
		{Rank: 2, Hive: "gpu-02", Zone: "b", Worker: "llama", Model: "llama-3-8b\x1b[2J", Slots: 4, FreeSlots: 1, Age: 9000, Reasons: []string{"1 of 4 slots free"}, Hold: "job-42"},
	}
	passed := map[string]int{"no free slot": 3, "another model": 12, "never": 0}
	gpu := api.Pick{Rank: 1, Hive: "gpu-01", Zone: "a", GPU: "GPU-1", GPUIndex: &one, FreeVRAM: 30 << 30, Age: 2000, Reasons: []string{"30 GiB free"}}
	url, o := serveOracle(t, map[string][]api.Answer{api.VerbHold: {{Picks: picks, Passed: passed}}, api.VerbPick: {
		{Picks: []api.Pick{gpu}}, {Passed: passed}, {Passed: passed}, {Picks: picks, Passed: passed}, {Status: api.Status{Unsure: []string{"the brake is on"}}},
	}})
	code, out, errs := run(t, nil, "pick", "--nats", url, "--model", "llama-3*", "-n", "3", "--max-age", "10s", "--selector", "tier!=dev", "--slots", "1", "--min-uptime", "1m",
		"--hold", "job-42", "--hold-for", "1m", "--hive", "h")
	o.wasAsked(t, api.Request{
		Hive: "h", Filter: api.Filter{Model: "llama-3*", Selector: "tier!=dev", MaxAge: 10_000}, N: 3, For: api.ForWorker, Spread: api.SpreadZone, Slots: 1, MinUptime: 60_000,
		Hold: "job-42", HoldMS: 60_000,
	})
	want := `RANK  WORKER        ZONE  MODEL           FREE SLOTS  FREE GiB  AGE  ENDPOINT            HOLD    WHY
   1  gpu-01/llama  a     llama-3-8b             3/4         -   2s  http://gpu-01:8000  job-42  3 of 4 slots free; nothing waits
   2  gpu-02/llama  b     llama-3-8b�[2J         1/4         -   9s  -                   job-42  1 of 4 slots free

2 of 3 places; passed over: 12 another model, 3 no free slot
`
	if diff := cmp.Diff(want, out); code != ExitDone || errs != "" || diff != "" {
		t.Errorf("exit code %d, %s%s", code, errs, diff)
	}

	code, out, errs = run(t, nil, "pick", "--nats", url, "--for", "gpu", "--free-vram", "20GiB", "--spread", "none")
	o.wasAsked(t, api.Request{Filter: api.Filter{FreeVRAM: 20 << 30}, N: 1, For: api.ForGPU, Spread: api.SpreadNone})
	if want := "RANK  HIVE    ZONE  MODEL  GPU  FREE GiB  AGE  ENDPOINT  HOLD  WHY\n   1  gpu-01  a     -        1        30   2s  -         -     30 GiB free\n"; code != ExitDone || out != want {
		t.Errorf("exit code %d, %s\n%s", code, errs, out)
	}

	// Nothing fits: the reasons, and exit code 1.
	code, out, errs = run(t, nil, "pick", "--nats", url, "--model", "x")
	if code != ExitFailed || out != "" || !strings.HasPrefix(errs, "hivebeat: nothing fits; passed over: 12 another model, 3 no free slot\nhint: ") {
		t.Errorf("exit code %d, %q, %s", code, out, errs)
	}
	type document struct {
		Picks  []api.Pick
		Passed map[string]int
		Status api.Status
	}
	var doc document
	code, out, errs = run(t, nil, "pick", "--nats", url, "--model", "x", "-o", "json")
	if err := json.Unmarshal([]byte(out), &doc); err != nil || code != ExitFailed || doc.Picks == nil || len(doc.Picks) != 0 || doc.Passed["no free slot"] != 3 || errs == "" {
		t.Errorf("exit code %d, %v, %s", code, err, out)
	}
	doc = document{}
	code, out, errs = run(t, nil, "pick", "--nats", url, "--model", "x", "-o", "json")
	if err := json.Unmarshal([]byte(out), &doc); err != nil || code != ExitDone || errs != "" || len(doc.Picks) != 2 || doc.Picks[0].Reasons[1] != "nothing waits" || doc.Status.Queen != "q" {
		t.Errorf("exit code %d, %v, %s", code, err, out)
	}
	// Nothing fits, and the queen is not sure.
	if code, _, errs = run(t, nil, "pick", "--nats", url); code != ExitFailed || !strings.Contains(errs, "hint: the queen is not sure: the brake is on") {
		t.Errorf("exit code %d, %s", code, errs)
	}
	// An old queen.
	if code, _, errs = run(t, nil, "pick", "--nats", url); code != ExitFailed || !strings.Contains(errs, "unknown verb pick\nhint: the queen may be older") {
		t.Errorf("exit code %d, %s", code, errs)
	}
}

// Several GPUs of one machine, and MIG instances, are named by their UUIDs.
func TestPickGPUs(t *testing.T) {
	two := uint64(2)
	url, o := serveOracle(t, map[string][]api.Answer{api.VerbPick: {{Picks: []api.Pick{
		{Rank: 1, Hive: "gpu-01", GPU: "GPU-a", GPUs: []string{"GPU-a", "GPU-b"}, FreeVRAM: 60 << 30, Age: 2000, Reasons: []string{"60 GiB free on each"}},
		{Rank: 2, Hive: "gpu-02", GPU: "MIG-c", GPUIndex: &two, Profile: "4g.71gb", FreeVRAM: 40 << 30, Age: 2000, Reasons: []string{"40 GiB free"}},
	}}}})
	code, out, errs := run(t, nil, "pick", "--nats", url, "--for", "gpu", "--gpus", "2", "--free-vram", "40GiB", "--free-disk", "100G", "--driver", "550.*", "--kernel", "6.*", "-n", "2")
	o.wasAsked(t, api.Request{
		Filter: api.Filter{FreeVRAM: 40 << 30, FreeDisk: 100 << 30, Driver: "550.*", Kernel: "6.*"}, N: 2, For: api.ForGPU, Spread: api.SpreadZone, GPUs: 2,
	})
	want := `RANK  HIVE    ZONE  MODEL            GPU  FREE GiB  AGE  ENDPOINT  HOLD  WHY
   1  gpu-01  -     -             2 GPUs        60   2s  -         -     GPU-a, GPU-b; 60 GiB free on each
   2  gpu-02  -     -      2 MIG 4g.71gb        40   2s  -         -     MIG-c; 40 GiB free
`
	if diff := cmp.Diff(want, out); code != ExitDone || errs != "" || diff != "" {
		t.Errorf("exit code %d, %s%s", code, errs, diff)
	}
}

func TestForget(t *testing.T) {
	forgot := &api.GPUFault{GPU: "GPU-b", Index: 3, State: hivebeat.GPUGone, Cause: hivebeat.CauseMissing}
	hive := api.Answer{Hives: []api.HiveInfo{{Hive: "h", GPUs: []hivebeat.GPU{{UUID: "GPU-a"}, {UUID: "GPU-b", Index: 3}, {UUID: "GPU-c", Index: 4}, {UUID: "GPU-d", Index: 4}}}}}
	fail := func(code, text string) api.Answer { return api.Answer{Error: &api.Error{Code: code, Message: text}} }
	gone := api.Answer{Hives: []api.HiveInfo{{Hive: "h", Live: hivebeat.Lost, Workers: map[hivebeat.Live]int{hivebeat.Lost: 2, hivebeat.Left: 1}}}}
	url, o := serveOracle(t, map[string][]api.Answer{
		api.VerbHive:   {hive, hive, hive, fail(api.CodeNotFound, "no hive h")},
		api.VerbForget: {{Forgot: forgot}, {Forgot: forgot}, fail(api.CodeBadRequest, "GPU-a is ok"), fail(api.CodeNotFound, "no GPU x"), fail(api.CodeUnavailable, "JetStream is away"), gone, gone, fail(api.CodeBadRequest, "h is alive"), fail(api.CodeNotFound, "no hive h")},
	})
	for _, c := range []struct {
		args  []string
		code  int
		want  string
		asked []api.Request
	}{
		{[]string{"h/3"}, ExitDone, "h forgets GPU 3: GPU-b\n", []api.Request{{Hive: "h"}, {Hive: "h", GPU: "GPU-b"}}},
		{[]string{"h/4"}, ExitUsage, "hivebeat: h has 2 GPUs with index 4\nhint: use the UUID: GPU-c or GPU-d\n", []api.Request{{Hive: "h"}}},
		{[]string{"h/9"}, ExitFailed, "hivebeat: h has no GPU 9\nhint: \"hivebeat get h\" lists its GPUs\n", []api.Request{{Hive: "h"}}},
		{[]string{"h/1"}, ExitFailed, "hivebeat: not found: no hive h\nhint: " + listHives + "\n", []api.Request{{Hive: "h"}}},
		{[]string{"h/GPU-b", "-o", "json"}, ExitDone, `"forgot":{"gpu":"GPU-b","index":3,"state":"gone","cause":"missing"}`, []api.Request{{Hive: "h", GPU: "GPU-b"}}},
		{[]string{"h/GPU-a"}, ExitFailed, "GPU-a is ok\nhint: \"hivebeat get h\" shows the state", []api.Request{{Hive: "h", GPU: "GPU-a"}}},
		{[]string{"h/x"}, ExitFailed, "hivebeat: not found: no GPU x\nhint: \"hivebeat get h\" lists its GPUs, ", []api.Request{{Hive: "h", GPU: "x"}}},
		{[]string{"h/x"}, ExitFailed, "JetStream is away\nhint: ask again", []api.Request{{Hive: "h", GPU: "x"}}},
		{[]string{"h/"}, ExitUsage, "hivebeat: \"h/\" is neither HIVE nor HIVE/GPU\nhint: as in hivebeat forget gpu-07 or hivebeat forget gpu-01/3\n", nil},
		{[]string{"h"}, ExitDone, "h is forgotten: it was lost, with 3 workers\n", []api.Request{{Hive: "h"}}},
		{[]string{"h", "-o", "json"}, ExitDone, `"hive":{"hive":"h","live":"lost"`, []api.Request{{Hive: "h"}}},
		{[]string{"h"}, ExitFailed, "h is alive\nhint: \"hivebeat get h\" shows it; for a GPU of it, name that: h/3\n", []api.Request{{Hive: "h"}}},
		{[]string{"h"}, ExitFailed, "hivebeat: not found: no hive h\nhint: " + listHives + "\n", []api.Request{{Hive: "h"}}},
		{[]string{"a.b/1"}, ExitUsage, "hivebeat: invalid id", nil},
	} {
		code, out, errs := run(t, nil, append([]string{"forget", "--nats", url}, c.args...)...)
		if code != c.code || !strings.Contains(out+errs, c.want) {
			t.Errorf("%v: exit code %d, %q, %q; want %q", c.args, code, out, errs, c.want)
		}
		o.wasAsked(t, c.asked...)
	}
}

func TestRelease(t *testing.T) {
	held := []api.Hold{{ID: "job-42", Asker: "ann", Hive: "h", Worker: "w", Slots: 1}, {ID: "job-42", Asker: "ann", Hive: "h", GPU: "GPU-1", Bytes: 5}}
	url, o := serveOracle(t, map[string][]api.Answer{api.VerbRelease: {{Holds: held}, {Holds: held}, {Error: &api.Error{Code: api.CodeNotFound, Message: "no hold job-42"}}}})
	code, out, errs := run(t, nil, "pick", "--nats", url, "--release", "job-42")
	o.wasAsked(t, api.Request{Hold: "job-42"})
	if code != ExitDone || out != "released job-42: h/w, h/GPU-1\n" {
		t.Errorf("exit code %d, %s%s", code, out, errs)
	}
	if code, out, _ = run(t, nil, "pick", "--nats", url, "--release", "job-42", "-o", "json"); code != ExitDone || !strings.Contains(out, `{"id":"job-42","asker":"ann","hive":"h","worker":"w","slots":1,`) {
		t.Errorf("exit code %d, %s", code, out)
	}
	if code, _, errs = run(t, nil, "pick", "--nats", url, "--release", "job-42"); code != ExitFailed || !strings.Contains(errs, "not found: no hold job-42\nhint: it was released") {
		t.Errorf("exit code %d, %s", code, errs)
	}
}

func TestEventsCommand(t *testing.T) {
	var s hivebeat.Subjects
	at := time.Date(2026, 3, 1, 12, 0, 0, 0, time.Local)
	happened := func(id string, ago time.Duration, d hivebeat.EventData) api.Happened {
		return api.Happened{StreamSeq: 7, Event: s.NewEvent(id, at.Add(-ago), d)}
	}
	lost := happened("2", 0, hivebeat.EventData{Hive: "h", Worker: "w", Kind: hivebeat.KindLost, From: "alive", To: "lost", Cause: hivebeat.CauseExit})
	joined := happened("1", 24*time.Hour, hivebeat.EventData{Hive: "h", Worker: "w", Kind: hivebeat.KindJoined, To: "alive"})
	pages := func() []api.Answer {
		return []api.Answer{{Events: []api.Happened{lost}, Next: "7"}, {Events: []api.Happened{joined}}}
	}
	url, o := serveOracle(t, map[string][]api.Answer{api.VerbEvents: append(append(pages(), pages()...), api.Answer{})})
	code, out, errs := run(t, nil, "events", "--nats", url, "--hive", "h", "--worker", "w", "--kind", "lost,joined", "--since", "48h")
	req := api.Request{Hive: "h", Worker: "w", Kinds: []hivebeat.Kind{hivebeat.KindLost, hivebeat.KindJoined}, Since: 172_800_000, Limit: 200}
	next := req
	next.After, next.Limit = "7", 199
	o.wasAsked(t, req, next)
	want := `2026-02-28
12:00:00  joined         h/w                       alive
2026-03-01
12:00:00  lost           h/w                       alive → lost · exit
`
	if diff := cmp.Diff(want, out); code != ExitDone || errs != "" || diff != "" {
		t.Errorf("exit code %d, %s%s", code, errs, diff)
	}
	var doc struct {
		Events []api.Happened
		Status *api.Status
	}
	code, out, _ = run(t, nil, "events", "--nats", url, "-o", "json")
	if err := json.Unmarshal([]byte(out), &doc); err != nil || code != ExitDone || len(doc.Events) != 2 || doc.Events[0].StreamSeq != 7 || doc.Events[0].ID != "2" || doc.Status == nil {
		t.Errorf("exit code %d, %v, %s", code, err, out)
	}
	if code, out, _ = run(t, nil, "events", "--nats", url); code != ExitDone || out != "no event matches\n" {
		t.Errorf("exit code %d, %s", code, out)
	}
}
