package query

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"go.uber.org/goleak"
	"pgregory.net/rapid"

	"github.com/beatfabric/hivebeat"
	"github.com/beatfabric/hivebeat/internal/fleet"
	"github.com/beatfabric/hivebeat/internal/index/indextest"
	"github.com/beatfabric/hivebeat/internal/wire"
	"github.com/beatfabric/hivebeat/queen/api"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// epoch is when the tests begin. It has no monotonic reading.
var epoch = time.Date(2030, 1, 2, 3, 4, 5, 0, time.UTC)

func at(seconds float64) time.Time {
	return epoch.Add(time.Duration(seconds * float64(time.Second)))
}

// failer is the common part of testing.TB and rapid.T.
type failer interface {
	Helper()
	Fatalf(format string, args ...any)
}

// feed encodes s and feeds the bytes into v, as a queen does.
func feed(t failer, v *fleet.View, s *hivebeat.Snapshot, now time.Time) {
	t.Helper()
	b, err := wire.EncodeSnapshot(s)
	if err != nil {
		t.Fatalf("%v", err)
	}
	page, err := v.Parse(b)
	if err != nil {
		t.Fatalf("%v", err)
	}
	if err := v.Apply(page, now); err != nil {
		t.Fatalf("%s %d.%d: %v", s.Hive, s.Inc, s.Seq, err)
	}
	v.Keep(b, page)
}

// pass lets time pass up to now, and lets each verdict stand. It returns the events of
// workers since the last call.
func pass(v *fleet.View, now time.Time) []fleet.Happened {
	v.Tick(now)
	r := v.Take()
	for _, c := range r.Checks {
		v.Checked(c, 0, 0, now)
	}
	v.Settle(now)
	return slices.Clone(r.Events)
}

func snapshotOf(hive, zone string, seq uint64, workers ...hivebeat.Record) *hivebeat.Snapshot {
	s := &hivebeat.Snapshot{V: 1, Hive: hive, Inc: 100, Seq: seq, Every: 15000, Warm: true, Pages: 1, Workers: append([]hivebeat.Record{}, workers...)}
	if zone != "" {
		s.Labels = map[string]string{"zone": zone}
	}
	return s
}

func workerOf(id, model string, slots, busy uint64) hivebeat.Record {
	return hivebeat.Record{
		Worker: id, Live: hivebeat.Alive, N: 1, Age: 1000, Since: 100_000,
		Facts: hivebeat.Facts{Inc: 7, Every: 30000, Seq: 10, State: hivebeat.Ready, Model: model, Slots: slots, Busy: busy, Endpoint: "http://" + id},
	}
}

// ask answers like a queen that has only this view.
func ask(t failer, v *fleet.View, verb string, r api.Request, now time.Time) api.Answer {
	t.Helper()
	if e := Check(verb, &r); e != nil {
		return api.Answer{Error: e}
	}
	v.Settle(now)
	switch verb {
	case api.VerbHives, api.VerbWorkers:
		job := Page(verb, r)
		for n := 0; !job.Step(v.Index(), now); n++ {
			if n > 10_000 {
				t.Fatalf("%s %+v never ends", verb, r)
			}
		}
		return job.Answer()
	}
	return One(v.Index(), verb, &r, now)
}

// model generates random fleets.
type model struct {
	t   *rapid.T
	v   *fleet.View
	now time.Time
	seq map[string]uint64

	events []fleet.Happened // not taken yet
}

func newModel(t *rapid.T) *model {
	m := &model{t: t, v: fleet.New(45 * time.Second), now: epoch, seq: make(map[string]uint64)}
	m.v.Index().Begin(1000)
	return m
}

func pick[T any](t *rapid.T, what string, of ...T) T { return rapid.SampledFrom(of).Draw(t, what) }

// step makes one hive send something, or lets time pass.
func (m *model) step() {
	t := m.t
	m.now = m.now.Add(time.Duration(rapid.IntRange(0, 9000).Draw(t, "ms")) * time.Millisecond)
	m.events = append(m.events, pass(m.v, m.now)...)
	id := fmt.Sprintf("h%d", rapid.IntRange(0, 5).Draw(t, "hive"))
	if h := m.v.Hive(id); h != nil && h.Live() == hivebeat.Left {
		return
	}
	m.seq[id]++
	s := snapshotOf(id, pick(t, "zone", "", "eu", "us"), m.seq[id])
	if s.Labels != nil {
		s.Labels["tier"] = pick(t, "tier", "dev", "prod")
		if rapid.Bool().Draw(t, "rack?") {
			s.Labels["rack"] = pick(t, "rack", "r1", "r2")
		}
	}
	s.Warm = rapid.Bool().Draw(t, "warm")
	s.Host.CPU = float64(rapid.IntRange(0, 3).Draw(t, "cpu"))
	for i := range rapid.IntRange(0, 2).Draw(t, "gpus") {
		s.GPUs = append(s.GPUs, hivebeat.GPU{
			UUID: fmt.Sprintf("%s-%d", id, i), Index: uint64(i), Total: 80 << 30, Used: uint64(rapid.IntRange(0, 80).Draw(t, "used")) << 30,
			Err: pick(t, "err", "", "", "", "lost"),
		})
	}
	for i := range rapid.IntRange(0, 5).Draw(t, "workers") {
		w := workerOf(fmt.Sprintf("w%d", i), pick(t, "model", "", "llama", "llama-70b", "qwen"), 4, uint64(rapid.IntRange(0, 5).Draw(t, "busy")))
		w.Live = pick(t, "live", hivebeat.Alive, hivebeat.Alive, hivebeat.Alive, hivebeat.Late, hivebeat.Lost, "zombie")
		w.State = pick(t, "state", hivebeat.Ready, hivebeat.Ready, hivebeat.Busy, hivebeat.Draining, "dreaming")
		w.Age = hivebeat.Millis(rapid.IntRange(0, 50_000).Draw(t, "age"))
		if rapid.IntRange(0, 7).Draw(t, "quiet") == 0 {
			w.Quiet = 60_000
		}
		w.Stalled = rapid.IntRange(0, 5).Draw(t, "stalled") == 0
		w.Looping, w.Since = rapid.IntRange(0, 3).Draw(t, "looping") == 0, pick(t, "since", hivebeat.Millis(1000), 100_000)
		w.Rival = uint64(max(0, rapid.IntRange(-4, 1).Draw(t, "rival")))
		w.VRAM, w.Done = uint64(i), uint64(rapid.IntRange(0, 3).Draw(t, "done"))
		if rapid.Bool().Draw(t, "label") {
			w.Labels = map[string]string{"tier": pick(t, "wtier", "dev", "test")}
			if rapid.IntRange(0, 3).Draw(t, "gold") == 0 {
				w.Labels["gold"] = ""
			}
		}
		s.Workers = append(s.Workers, w)
	}
	if rapid.IntRange(0, 40).Draw(t, "bye") == 0 {
		s.Bye = "bye"
	}
	feed(t, m.v, s, m.now)
}

// selectors use every operator, on labels that hives have, that workers have, and that both
// have.
var selectors = []string{
	"tier=dev", "tier!=dev", "zone in (eu)", "!tier", "tier", "gold", "!gold", "gold=", "gold!=", "tier in (dev,test)", "tier in (test,none),zone=eu",
	"tier notin (dev,test)", "tier=prod,!gold", "rack=r1", "rack in (r1,r2),tier=test", "rack!=r1", "!rack", "none", "none=1", "tier=dev,tier!=test", "rack,zone=mars",
}

func (m *model) request(verb string) api.Request {
	t := m.t
	r := api.Request{Limit: rapid.IntRange(1, 7).Draw(t, "limit")}
	maybe := func(what string) bool { return rapid.IntRange(0, 4).Draw(t, what) == 0 }
	if maybe("by hive") {
		r.Hive = pick(t, "of", "h0", "h1")
	}
	if maybe("by model") {
		r.Model = pick(t, "glob", "llama", "llama*", "*7?b", "none")
	}
	if maybe("by live") {
		r.Live = []hivebeat.Live{pick(t, "is", hivebeat.Alive, hivebeat.Late, hivebeat.Lost)}
	}
	if maybe("by state") {
		r.State = []hivebeat.State{hivebeat.Ready, "dreaming"}
	}
	if maybe("by zone") {
		r.Zone = pick(t, "in", "eu", "us", "mars")
	}
	if maybe("by selector") {
		r.Selector = pick(t, "selector", selectors...)
	}
	if maybe("by text") {
		r.Text = pick(t, "text", "LLAMA", "h1", "eu", "w2")
	}
	if maybe("by free memory") {
		r.FreeVRAM = 40 << 30
	}
	if maybe("by slots") {
		r.FreeSlots = 2
	}
	if maybe("by age") {
		r.MaxAge = 20_000
	}
	r.Stalled = maybe("stalled")
	if verb == api.VerbWatch {
		return r
	}
	known := api.WorkerSortKeys
	if verb == api.VerbHives {
		known = api.HiveSortKeys
	}
	r.Sort = pick(t, "sort", "", "-") + rapid.SampledFrom(known).Draw(t, "key")
	if maybe("offset") {
		r.Offset = rapid.IntRange(0, 9).Draw(t, "offset")
	}
	return r
}

func newView() *fleet.View {
	v := fleet.New(45 * time.Second)
	v.Index().Begin(1000)
	return v
}

// verify settles v and checks its index.
func verify(v *fleet.View, now time.Time) error {
	v.Settle(now)
	return indextest.Verify(v.Index(), now)
}
