package query

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/beatfabric/hivebeat"
	"github.com/beatfabric/hivebeat/internal/fleet"
	"github.com/beatfabric/hivebeat/internal/index"
	"github.com/beatfabric/hivebeat/internal/liveness"
	"github.com/beatfabric/hivebeat/queen/api"
)

func find(t failer, v *fleet.View, r api.Request, now time.Time) api.Answer {
	t.Helper()
	if e := Check(api.VerbPick, &r); e != nil {
		t.Fatalf("%+v: %s", r, e.Message)
	}
	v.Settle(now)
	f := NewFinder(r, nil)
	for n := 0; !f.Step(v.Index(), now); n++ {
		if n > 100 {
			t.Fatalf("%+v never ends", r)
		}
	}
	if len(f.Found()) != len(f.Answer().Picks) {
		t.Fatalf("%d found, %d picked", len(f.Found()), len(f.Answer().Picks))
	}
	return f.Answer()
}

// TestPicksAgainstLoop compares picks with a loop over all candidates: every picked place
// fits, none is picked twice, and all that exist are picked if asked for.
func TestPicksAgainstLoop(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := newModel(t)
		for range rapid.IntRange(1, 25).Draw(t, "steps") {
			m.step()
		}
		for range rapid.IntRange(0, 3).Draw(t, "holds") {
			p := index.Place{Hive: pick(t, "held", "h0", "h1", "h2"), Worker: pick(t, "held worker", "w0", "w1")}
			m.v.Index().SetHeld(p, uint64(rapid.IntRange(1, 4).Draw(t, "slots")), m.now)
			g := index.Place{Hive: p.Hive, GPU: p.Hive + "-0"}
			m.v.Index().SetHeld(g, uint64(rapid.IntRange(1, 40).Draw(t, "gib"))<<30, m.now)
		}
		if err := verify(m.v, m.now); err != nil {
			t.Fatal(err)
		}
		r := api.Request{N: rapid.IntRange(1, 30).Draw(t, "n"), Spread: pick(t, "spread", "", api.SpreadHive, api.SpreadNone)}
		maybe := func(what string) bool { return rapid.IntRange(0, 3).Draw(t, what) == 0 }
		if maybe("by hive") {
			r.Hive = "h1"
		}
		if maybe("by model") {
			r.Model = pick(t, "glob", "llama", "llama*", "none")
		}
		if maybe("by zone") {
			r.Zone = "eu"
		}
		if maybe("by selector") {
			r.Selector = pick(t, "selector", selectors...)
		}
		if maybe("by age") {
			r.MaxAge = 20_000
		}
		if maybe("by free memory") {
			r.FreeVRAM = 30 << 30
		}
		want, loops := make(map[string]bool), make(map[string]bool)
		sel, _ := api.ParseSelector(r.Selector)
		gpu := rapid.Bool().Draw(t, "for a gpu")
		if gpu {
			r.For = api.ForGPU
		} else if maybe("by slots") {
			r.Slots = 2
		} else if maybe("by uptime") {
			r.MinUptime = 50_000
		}
		for _, h := range m.v.Index().Hives() {
			hi := HiveInfo(m.v.Index(), h, m.now)
			if hi.Live != hivebeat.Alive || !hi.Fresh || hi.Conflict || r.Hive != "" && r.Hive != hi.Hive || r.Zone != "" && r.Zone != hi.Zone {
				continue
			}
			free := func(i int) uint64 {
				g := hi.GPUs[i]
				return g.Free() - min(g.Free(), h.GPUs()[i].Held())
			}
			labels := func(own map[string]string) bool {
				return sel.Fits(func(k string) (string, bool) {
					if x, ok := own[k]; ok {
						return x, true
					}
					x, ok := hi.Labels[k]
					return x, ok
				})
			}
			room := r.FreeVRAM == 0
			for i, g := range hi.GPUs {
				fits := g.Err == "" && free(i) >= r.FreeVRAM
				room = room || fits
				if gpu && fits && labels(nil) && (r.MaxAge == 0 || g.Age <= r.MaxAge) && g.Age <= 45_000 {
					want[hi.Hive+"/"+g.UUID] = true
				}
			}
			for _, k := range h.Workers() {
				w := WorkerInfo(m.v.Index(), k, m.now)
				taken := w.Busy + w.Held
				if !gpu && w.Live == hivebeat.Alive && w.Fresh && (w.State == hivebeat.Ready || w.State == hivebeat.Busy) && !w.Stalled && w.Rival == 0 && w.Quiet == 0 &&
					taken < w.Slots && w.Slots-taken >= max(1, r.Slots) && (r.Model == "" || globbed(r.Model, w.Model)) && labels(w.Labels) && room &&
					(r.MaxAge == 0 || w.Age <= r.MaxAge) && w.Up >= r.MinUptime {
					want[w.Cursor()] = true
					loops[w.Cursor()] = w.Looping
				}
			}
		}
		a := find(t, m.v, r, m.now)
		last := false
		for i, p := range a.Picks {
			id := p.Hive + "/" + p.Worker + p.GPU
			if last && !loops[id] {
				t.Fatalf("%+v: %s comes after one that loops: %+v", r, id, a.Picks)
			}
			last = loops[id]
			if !want[id] {
				t.Fatalf("%+v: %s was picked twice, or does not fit: %+v", r, id, p)
			}
			delete(want, id)
			if p.Rank != i+1 || len(p.Reasons) == 0 {
				t.Fatalf("%+v", p)
			}
		}
		for id := range want {
			if last && !loops[id] {
				t.Fatalf("%+v: one that loops is picked, and %s is not: %+v", r, id, a.Picks)
			}
		}
		if len(a.Picks) < r.N && len(want) > 0 {
			t.Fatalf("%+v: %d of %d, and these fit too: %v", r, len(a.Picks), r.N, want)
		}
	})
}

func TestPickSpreads(t *testing.T) {
	v := newView()
	for i := range 6 {
		zone := "eu"
		if i >= 4 {
			zone = "us"
		}
		s := snapshotOf(fmt.Sprintf("h%d", i), zone, 1, workerOf("a", "llama", 8, uint64(i)), workerOf("b", "llama", 8, 0), workerOf("c", "qwen", 8, 0))
		feed(t, v, s, at(0))
	}
	count := func(r api.Request) (zones, hives map[string]int) {
		zones, hives = make(map[string]int), make(map[string]int)
		for _, p := range find(t, v, r, at(1)).Picks {
			zones[p.Zone]++
			hives[p.Hive]++
		}
		return zones, hives
	}
	r := api.Request{N: 4, Filter: api.Filter{Model: "llama"}}
	if zones, hives := count(r); zones["eu"] != 2 || zones["us"] != 2 || len(hives) != 4 {
		t.Errorf("by zone: %v %v", zones, hives)
	}
	r.Spread, r.N = api.SpreadHive, 6
	if _, hives := count(r); len(hives) != 6 {
		t.Errorf("by hive: %v", hives)
	}
	r.N = 12
	if _, hives := count(r); len(hives) != 6 || hives["h0"] != 2 {
		t.Errorf("all: %v", hives)
	}
	// Requests one after the other are not all sent to the same place, and a worker that has
	// work already gets fewer.
	firsts := make(map[string]int)
	for range 60 {
		p := find(t, v, api.Request{Filter: api.Filter{Model: "llama"}}, at(1)).Picks[0]
		firsts[p.Hive+"/"+p.Worker]++
	}
	if len(firsts) < 10 || firsts["h5/a"] >= firsts["h0/b"] {
		t.Errorf("60 picks went to %v", firsts)
	}
	a := find(t, v, api.Request{N: 5, Filter: api.Filter{Model: "nobody"}}, at(1))
	if len(a.Picks) != 0 {
		t.Errorf("%+v", a)
	}
}

// With more candidates than one look takes, a pick by labels that few have still finds all
// of them, and on many hives if it may.
func TestPickByLabels(t *testing.T) {
	v := newView()
	const hives, each = 80, 20
	for i := range hives {
		var ws []hivebeat.Record
		for k := range each {
			w := workerOf(fmt.Sprintf("w%02d", k), []string{"llama", "qwen"}[k%2], 4, uint64(k%4))
			w.Labels = map[string]string{"tier": "prod"}
			if i%10 == 3 && k < 6 {
				w.Labels["gold"] = "1"
			}
			ws = append(ws, w)
		}
		ws[5].State = hivebeat.Draining
		s := snapshotOf(fmt.Sprintf("h%02d", i), fmt.Sprintf("zone-%d", i/20), 1, ws...)
		s.Labels["rack"] = fmt.Sprintf("r%d", i%40)
		s.GPUs = []hivebeat.GPU{{UUID: "a", Total: 80 << 30, Used: 10 << 30}, {UUID: "b", Total: 80 << 30, Used: 60 << 30}}
		for k := range 14 {
			s.GPUs = append(s.GPUs, hivebeat.GPU{UUID: fmt.Sprintf("c%d", k), Total: 80 << 30, Used: 79 << 30})
		}
		feed(t, v, s, at(0))
	}
	for _, c := range []struct {
		r       api.Request
		most    int // matching candidates
		spread  int // least number of hives when asked for this many places
		other   int
		another string
	}{
		{api.Request{Filter: api.Filter{Selector: "gold"}}, 40, 8, hives*(each-1) - 40, "draining"},
		{api.Request{Filter: api.Filter{Selector: "gold", Model: "llama"}}, 24, 8, hives*each/2 - 24, ""},
		{api.Request{Filter: api.Filter{Selector: "gold,tier=prod", Zone: "zone-1"}}, 10, 2, 20*(each-1) - 10, "draining"},
		{api.Request{Filter: api.Filter{Selector: "gold in (1,2)"}, Spread: api.SpreadNone}, 40, 1, hives*(each-1) - 40, "draining"},
		{api.Request{Filter: api.Filter{Selector: "gold=1"}, Spread: api.SpreadHive}, 40, 8, hives*(each-1) - 40, "draining"},
		{api.Request{Filter: api.Filter{Selector: "rack=r7"}, Slots: 4}, 10, 2, (hives - 2) * (each - 1), ""},
		{api.Request{Filter: api.Filter{Selector: "rack=r99"}}, 0, 0, hives * (each - 1), ""},
		{api.Request{Filter: api.Filter{Selector: "gold=2"}}, 0, 0, hives * (each - 1), ""},
		{api.Request{Filter: api.Filter{Selector: "rack=r7", FreeVRAM: 15 << 30, Model: "llama"}, For: api.ForGPU}, 4, 2, 16 * (hives - 2), ""},
		{api.Request{Hive: "h03", Filter: api.Filter{Selector: "gold"}}, 5, 1, each - 6, "draining"},
		{api.Request{Hive: "h07"}, each - 1, 1, 0, "draining"},
	} {
		all := c.r
		all.N = 100
		a := find(t, v, all, at(1))
		places := make(map[string]bool)
		for _, p := range a.Picks {
			places[p.Hive+"/"+p.Worker+p.GPU] = true
		}
		if len(places) != c.most || len(a.Picks) != c.most || len(a.Status.Unsure) > 0 {
			t.Errorf("%+v: %d places, %d of them different, unsure: %v", c.r, len(a.Picks), len(places), a.Status.Unsure)
		}
		if n := a.Passed["other labels"]; n != c.other {
			t.Errorf("%+v: %d of other labels, want %d: %v", c.r, n, c.other, a.Passed)
		}
		if c.another != "" && a.Passed[c.another] == 0 {
			t.Errorf("%+v: %v", c.r, a.Passed)
		}
		some := c.r
		some.N = max(1, c.spread)
		on := make(map[string]bool)
		for _, p := range find(t, v, some, at(1)).Picks {
			on[p.Hive] = true
		}
		if len(on) < c.spread {
			t.Errorf("%+v: on %d hives: %v", some, len(on), on)
		}
	}
}

// Few candidates are taken per hive, so that there are many to choose from. If only one
// hive has such labels, all of its candidates are taken.
func TestPickByLabelsOfOneHive(t *testing.T) {
	v := newView()
	for i := range 200 {
		var ws []hivebeat.Record
		for k := range 20 {
			w := workerOf(fmt.Sprintf("w%02d", k), "llama", 4, 3-uint64(k/19*3))
			if i == 77 && k >= 10 {
				w.Labels = map[string]string{"gold": "1"}
			}
			ws = append(ws, w)
		}
		feed(t, v, snapshotOf(fmt.Sprintf("h%03d", i), fmt.Sprintf("zone-%d", i%3), 1, ws...), at(0))
	}
	for range 5 { // the first look may find some by chance
		a := find(t, v, api.Request{N: 10, Filter: api.Filter{Selector: "gold"}}, at(1))
		if len(a.Picks) != 10 || len(a.Passed) != 0 && a.Passed["other labels"] == 0 {
			t.Errorf("%d places, %v", len(a.Picks), a.Passed)
		}
		if a := find(t, v, api.Request{Filter: api.Filter{Selector: "gold"}}, at(1)); len(a.Picks) != 1 || a.Picks[0].FreeSlots != 4 {
			t.Errorf("%+v: one of the ten has most free slots", a.Picks)
		}
	}
}

func TestPickSaysWhoDidNotFit(t *testing.T) {
	v := newView()
	busy, late, draining, stalled, odd, full := workerOf("a", "m", 4, 0), workerOf("b", "m", 4, 0), workerOf("c", "m", 4, 0), workerOf("d", "m", 4, 1), workerOf("e", "m", 4, 0), workerOf("f", "m", 4, 4)
	mute, twice, closed := workerOf("g", "m", 0, 0), workerOf("i", "m", 4, 0), workerOf("j", "m", 4, 0)
	twice.Rival, closed.Closed = 7, true
	quiet := workerOf("k", "m", 4, 0) // ready, but it hears nothing
	quiet.Quiet = 60_000
	busy.State, late.Live, draining.State, stalled.Stalled, odd.State = hivebeat.Busy, hivebeat.Late, hivebeat.Draining, true, "dreaminuteg"
	feed(t, v, snapshotOf("h", "", 1, busy, late, draining, stalled, odd, full, mute, twice, closed, quiet), at(0))
	a := find(t, v, api.Request{N: 3, Filter: api.Filter{Model: "m"}}, at(1))
	if len(a.Picks) != 1 || a.Picks[0].Worker != "a" {
		t.Fatalf("%+v", a.Picks)
	}
	for why, n := range map[string]int{"late": 1, "draining": 1, "stalled": 1, "in an unknown state": 1, "no free slot": 1, "reports no slots": 1, "in conflict": 1, "its connection closed": 1, "quiet, as announced": 1} {
		if a.Passed[why] != n {
			t.Errorf("%s: %d of %v", why, a.Passed[why], a.Passed)
		}
	}
}

// A worker that restarts over and over is picked only if no other fits, however many there
// are, and wherever they are.
func TestPickTakesThoseThatLoopLast(t *testing.T) {
	v := newView()
	const hives, each = 60, 20
	for i := range hives {
		var ws []hivebeat.Record
		for k := range each {
			w := workerOf(fmt.Sprintf("w%02d", k), "llama", 8, 0)
			w.Looping, w.Restarts, w.Since = true, 25, 1500
			w.Labels = map[string]string{"rack": fmt.Sprint("r", i%7)}
			if k == 0 && i%10 == 7 {
				w.Looping, w.Restarts, w.Busy, w.Since = false, 0, 7, 100_000
			}
			ws = append(ws, w)
		}
		feed(t, v, snapshotOf(fmt.Sprintf("h%02d", i), fmt.Sprintf("zone-%d", i/15), 1, ws...), at(0))
	}
	if err := verify(v, at(0)); err != nil {
		t.Fatal(err)
	}
	if n := v.Index().Totals().Looping; n != hives*each-6 {
		t.Errorf("%d loop", n)
	}
	for _, c := range []struct {
		name       string
		r          api.Request
		calm, loop int
	}{
		{"one", api.Request{}, 1, 0},
		{"all others", api.Request{N: 6}, 6, 0},
		{"more than there are", api.Request{N: 10}, 6, 4},
		{"without a spread", api.Request{N: 10, Spread: api.SpreadNone}, 6, 4},
		{"in a zone", api.Request{N: 4, Filter: api.Filter{Zone: "zone-0"}}, 1, 3},
		{"on a hive", api.Request{N: 4, Hive: "h17"}, 1, 3},
		{"on a hive where all loop", api.Request{N: 2, Hive: "h16"}, 0, 2},
		{"by a label", api.Request{N: 3, Filter: api.Filter{Selector: "rack=r0"}}, 1, 2},
		{"by slots that no other has", api.Request{N: 3, Slots: 2}, 0, 3},
		{"another model", api.Request{N: 3, Filter: api.Filter{Model: "qwen"}}, 0, 0},
		{"long enough up", api.Request{N: 10, MinUptime: 50_000}, 6, 0},
		{"up for longer than any", api.Request{N: 10, MinUptime: 500_000}, 0, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			for range 5 { // it looks at random places
				a := find(t, v, c.r, at(1))
				var calm, loop int
				for _, p := range a.Picks {
					switch said := slices.Contains(p.Reasons, "looping: 25 restarts in the last hour"); {
					case said:
						loop++
					case loop > 0:
						t.Errorf("%s/%s comes after one that loops", p.Hive, p.Worker)
					default:
						calm++
					}
				}
				if calm != c.calm || loop != c.loop {
					t.Fatalf("%d, and %d that loop, want %d and %d: %v", calm, loop, c.calm, c.loop, a.Passed)
				}
				if c.r.MinUptime > 0 && a.Passed["started too recently"] == 0 {
					t.Errorf("passed %v", a.Passed)
				}
			}
		})
	}
}

// The start of a worker is known by its clock, but never by that clock alone.
func TestUptime(t *testing.T) {
	const began = 1_790_000_000_000 // ms
	beat := func(sent int64, seq, inc uint64, live hivebeat.Live, since hivebeat.Millis) hivebeat.Record {
		r := workerOf("w", "m", 4, 0)
		r.Inc, r.Sent, r.Seq, r.Live, r.Age, r.Since = inc, sent, seq, live, 2000, since
		return r
	}
	for _, c := range []struct {
		name string
		r    hivebeat.Record
		want hivebeat.Millis
	}{
		{"by its own clock, and since", beat(began+40_000, 9, began*1000, hivebeat.Alive, 5000), 43_000},
		{"its clock was set forward", beat(began+86_400_000, 3, began*1000, hivebeat.Alive, 5000), 93_000},
		{"its clock was set back", beat(began-5000, 9, began*1000, hivebeat.Alive, 70_000), 71_000},
		{"it says no time", beat(0, 9, began*1000, hivebeat.Alive, 70_000), 71_000},
		{"its incarnation is no time", beat(began, 2, 7, hivebeat.Alive, 1000), 63_000},
		{"late", beat(began+40_000, 9, began*1000, hivebeat.Late, 90_000), 43_000},
		{"lost", beat(began+40_000, 9, began*1000, hivebeat.Lost, 90_000), 0},
	} {
		v := newView()
		feed(t, v, snapshotOf("h", "", 1, c.r), at(0))
		if got := ask(t, v, api.VerbWorker, api.Request{Hive: "h", Worker: "w"}, at(1)).Workers[0].Up; got != c.want {
			t.Errorf("%s: %v, want %v", c.name, got, c.want)
		}
	}
}

// A hive in doubt, and its workers, are passed over until it is heard.
func TestPickPassesAHiveWhoseConnectionClosed(t *testing.T) {
	v := newView()
	s := snapshotOf("h", "", 1, workerOf("w", "m", 4, 0))
	s.Conn, s.RW = "S/1", 250
	s.GPUs = []hivebeat.GPU{{UUID: "g", Total: 80 << 30}}
	feed(t, v, s, at(0))
	places := func(now time.Time) int {
		gpus := find(t, v, api.Request{For: api.ForGPU, Filter: api.Filter{FreeVRAM: 1}}, now)
		return len(gpus.Picks) + len(find(t, v, api.Request{Filter: api.Filter{Model: "m"}}, now).Picks)
	}
	if n := places(at(0)); n != 2 {
		t.Errorf("%d of 2 places", n)
	}
	for i := range 9 {
		v.Disconnect(at(1), liveness.Disconnect{Server: "S", Conn: fmt.Sprint("S/", i), Evidence: true})
	}
	v.Settle(at(1))
	if n := places(at(1)); n != 0 || v.Doubtful() != 1 {
		t.Errorf("%d places of %d hives in doubt", n, v.Doubtful())
	}
	if a := find(t, v, api.Request{Filter: api.Filter{Model: "m"}}, at(1)); a.Passed["its hive's connection closed"] != 1 {
		t.Errorf("passed %v", a.Passed)
	}
	s.Seq, s.Conn = 2, "S/11"
	feed(t, v, s, at(2))
	v.Settle(at(2))
	if n := places(at(2)); n != 2 || v.Doubtful() != 0 {
		t.Errorf("%d of 2 places, %d hives in doubt", n, v.Doubtful())
	}
	if err := verify(v, at(2)); err != nil {
		t.Error(err)
	}
}

// The reasons use the singular and the plural correctly.
func TestPickSaysWhy(t *testing.T) {
	v := newView()
	waited := workerOf("w", "m", 4, 1)
	waited.Queue = 1
	s := snapshotOf("h", "", 1, waited)
	s.GPUs = []hivebeat.GPU{{UUID: "g", Total: 80 << 30, Used: 10 << 30}}
	feed(t, v, s, at(0))
	var holds Holds
	holds.Reserve(v.Index(), index.Place{Hive: "h", Worker: "w"}, Hold{HoldID{api.Anyone, "a"}, 1, at(30)}, at(0))
	holds.Reserve(v.Index(), index.Place{Hive: "h", GPU: "g"}, Hold{HoldID{api.Anyone, "a"}, 1 << 30, at(30)}, at(0))
	for what, want := range map[string][]string{
		api.ForWorker: {"serves m", "2 of 4 slots free", "1 more held", "1 waiting", "heard 2.0s ago"},
		api.ForGPU:    {"69.0 of 80.0 GiB free", "1.0 GiB more held", "read 1.0s ago"},
	} {
		picks := find(t, v, api.Request{For: what}, at(1)).Picks
		if len(picks) != 1 || !slices.Equal(picks[0].Reasons, want) {
			t.Errorf("%s: %+v, want for %q", what, picks, want)
		}
	}
}

func TestPickGPU(t *testing.T) {
	v := newView()
	for i, used := range []uint64{10, 40, 70} {
		var ws []hivebeat.Record
		if i == 0 {
			ws = append(ws, workerOf("w", "llama", 1, 1))
		}
		s := snapshotOf(fmt.Sprintf("h%d", i), "eu", 1, ws...)
		s.GPUs = []hivebeat.GPU{{UUID: fmt.Sprintf("g%d", i), Total: 80 << 30, Used: used << 30}}
		feed(t, v, s, at(0))
	}
	r := api.Request{For: api.ForGPU, Filter: api.Filter{FreeVRAM: 20 << 30}}
	if p := find(t, v, r, at(1)).Picks[0]; p.GPU != "g1" || p.Serves {
		t.Errorf("the least that is enough: %+v", p)
	}
	r.Model = "llama"
	if p := find(t, v, r, at(1)).Picks[0]; p.GPU != "g0" || !p.Serves {
		t.Errorf("one that serves the model already: %+v", p)
	}
}

func TestHoldsEnd(t *testing.T) {
	v := newView()
	feed(t, v, snapshotOf("h", "", 1, workerOf("w", "m", 4, 1)), at(0))
	var s Holds
	p := index.Place{Hive: "h", Worker: "w"}
	s.Learn(v.Index(), p, 5, []Hold{{HoldID{api.Anyone, "a"}, 1, at(10)}, {HoldID{api.Anyone, "b"}, 1, at(20)}}, at(0))
	s.Reserve(v.Index(), p, Hold{HoldID{api.Anyone, "c"}, 1, at(30)}, at(0))
	free := func(sec float64) uint64 {
		s.Expire(v.Index(), at(sec))
		if err := verify(v, at(sec)); err != nil {
			t.Error(err)
		}
		return v.Index().Hive("h").Worker("w").FreeSlots()
	}
	if n := free(1); n != 0 {
		t.Errorf("%d free", n)
	}
	s.Learn(v.Index(), p, 4, nil, at(1)) // an older revision than the known one
	if n := free(1); n != 0 || len(s.Of(HoldID{api.Anyone, "a"})) != 1 {
		t.Errorf("%d free", n)
	}
	s.Unreserve(v.Index(), p, HoldID{api.Anyone, "c"}, at(1))
	if n := free(9.9); n != 1 {
		t.Errorf("%d free", n)
	}
	if n := free(10); n != 2 || len(s.Of(HoldID{api.Anyone, "a"})) != 0 || len(s.Of(HoldID{api.Anyone, "b"})) != 1 {
		t.Errorf("%d free after one has ended", n)
	}
	r := api.Request{}
	if a := s.List(&r, at(15)); len(a.Holds) != 1 || a.Holds[0].Left != 5000 || a.Holds[0].Slots != 1 {
		t.Errorf("%+v", a.Holds)
	}
	if n := free(20); n != 3 {
		t.Errorf("%d free after all have ended", n)
	}
	// A hold on a worker that is not known yet counts once it is.
	s.Learn(v.Index(), index.Place{Hive: "new", Worker: "w"}, 9, []Hold{{HoldID{api.Anyone, "x"}, 3, at(90)}}, at(20))
	feed(t, v, snapshotOf("new", "", 1, workerOf("w", "m", 4, 0)), at(21))
	if n := v.Index().Hive("new").Worker("w").FreeSlots(); n != 1 {
		t.Errorf("%d free", n)
	}
}

func TestHoldsAreListedInPages(t *testing.T) {
	v := newView()
	var s Holds
	for i := range 25 {
		s.Learn(v.Index(), index.Place{Hive: "h", Worker: fmt.Sprintf("w%d", i)}, uint64(i+1), []Hold{{HoldID{api.Anyone, fmt.Sprintf("id%d", i%3)}, 1, at(10)}}, at(0))
	}
	var got []string
	r := api.Request{Limit: 4}
	for {
		a := s.List(&r, at(1))
		for _, h := range a.Holds {
			got = append(got, holdKey(&h))
		}
		if r.After = a.Next; a.Next == "" {
			break
		}
	}
	if len(got) != 25 || !slices.IsSorted(got) {
		t.Errorf("%v", got)
	}
}

func TestHistory(t *testing.T) {
	v := newView()
	var s History
	seq := uint64(0)
	for minute := range 31 {
		for sec := 0; sec < 60; sec += 10 {
			now := at(float64(60*minute + sec))
			if sec%10 == 0 {
				seq++
				sn := snapshotOf("h", "", seq, workerOf("w", "m", 4, uint64(minute)))
				sn.GPUs = []hivebeat.GPU{{UUID: "g", Total: 80 << 30, Used: uint64(minute) << 30}}
				sn.Host.CPU = 12.3
				feed(t, v, sn, now)
			}
			v.Settle(now)
			hears := minute < 10 || minute > 12
			s.Sample(v.Index(), hears, now)
		}
	}
	now := at(30*60 + 59)
	a := s.Answer(v.Index(), &api.Request{}, now)
	busy := a.History.Series[api.SeriesBusy] // their minutes begin 5 s before those above: each holds the last value of its minute
	if len(busy) != fleetSteps || a.History.Step != 60_000 || *busy[len(busy)-1] != 30 || *busy[len(busy)-3] != 29 || busy[0] != nil || busy[len(busy)-1-20] != nil {
		t.Errorf("%d, the last %v", len(busy), *busy[len(busy)-1])
	}
	if used := a.History.Series[api.SeriesVRAMUsed]; *used[len(used)-1] != 30<<30 {
		t.Errorf("vram_used %v", *used[len(used)-1])
	}
	a = s.Answer(v.Index(), &api.Request{Hive: "h", Since: 600_000}, now)
	cpu := a.History.Series[api.SeriesCPU]
	if len(cpu) != 6 || cpu[5] == nil || *cpu[5] < 12.2 || *cpu[5] > 12.4 || a.History.Step != 120_000 {
		t.Errorf("cpu %v", cpu)
	}
	// The last value is current, in the first minute too, and late does not count as down.
	now = now.Add(4 * time.Second) // in the next minute
	seq++
	late, lost := workerOf("late", "m", 4, 0), workerOf("lost", "m", 4, 0)
	late.Live, lost.Live = hivebeat.Late, hivebeat.Lost
	feed(t, v, snapshotOf("h", "", seq, workerOf("w", "m", 4, 3), late, lost), now)
	v.Settle(now)
	for _, s := range []*History{&s, {}} {
		s.Sample(v.Index(), true, now)
		seq++
		feed(t, v, snapshotOf("h", "", seq, workerOf("w", "m", 4, 4), late, lost), now)
		v.Settle(now.Add(time.Second))
		for _, r := range []api.Request{{}, {Hive: "h"}} {
			series := s.Answer(v.Index(), &r, now.Add(time.Second)).History.Series
			for name, want := range map[string]float64{api.SeriesWorkersAlive: 1, api.SeriesWorkersLate: 1, api.SeriesWorkersDown: 1, api.SeriesBusy: 4} {
				if col := series[name]; col[len(col)-1] == nil || *col[len(col)-1] != want {
					t.Errorf("%q: %s is not %v now: %v", r.Hive, name, want, col[len(col)-1])
				}
			}
		}
		feed(t, v, snapshotOf("h", "", seq+1, workerOf("w", "m", 4, 3), late, lost), now)
		seq++
		v.Settle(now.Add(time.Second))
	}
	if a := s.Answer(v.Index(), &api.Request{Hive: "none"}, now); a.Error == nil || a.Error.Code != api.CodeNotFound {
		t.Errorf("%+v", a)
	}
	rapid.Check(t, func(t *rapid.T) {
		x := float64(rapid.Uint64Range(0, 1<<40).Draw(t, "x"))
		got := *smallOf(x).value(1)
		if d := got - x; d > x/1000 || d < -x/1000 || x <= smallMax && d != 0 {
			t.Fatalf("%v is kept as %v", x, got)
		}
	})
}
