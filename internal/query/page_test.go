package query

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/beatfabric/hivebeat"
	"github.com/beatfabric/hivebeat/internal/fleet"
	"github.com/beatfabric/hivebeat/internal/index"
	"github.com/beatfabric/hivebeat/queen/api"
)

// TestPagesAgainstLoop compares every page with a plain loop over all items.
func TestPagesAgainstLoop(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := newModel(t)
		for range rapid.IntRange(0, 25).Draw(t, "steps") {
			m.step()
		}
		if err := verify(m.v, m.now); err != nil {
			t.Fatal(err)
		}
		for _, verb := range []string{api.VerbHives, api.VerbWorkers} {
			r := m.request(verb)
			want := plain(m.v, verb, &r, m.now)
			if r.Hive != "" && known(m.v.Index(), r.Hive) == nil {
				if a := ask(t, m.v, verb, r, m.now); verb == api.VerbWorkers && (a.Error == nil || a.Error.Code != api.CodeNotFound) {
					t.Fatalf("%+v", a)
				}
				continue
			}
			var got []string
			first := true
			for n := 0; ; n++ {
				a := ask(t, m.v, verb, r, m.now)
				if a.Error != nil || n > 100 {
					t.Fatalf("%s %+v: %+v", verb, r, a.Error)
				}
				if a.Total != nil && *a.Total != len(want) {
					t.Fatalf("%s %+v: total %d, want %d", verb, r, *a.Total, len(want))
				}
				if f := filterOf(&r); first && a.Total == nil && (verb == api.VerbWorkers && f.counts() || verb == api.VerbHives && f.hivesAreCheap()) {
					t.Fatalf("%s %+v: no total", verb, r)
				}
				for _, h := range a.Hives {
					got = append(got, h.Hive)
				}
				for _, w := range a.Workers {
					got = append(got, w.Cursor())
				}
				if r.After, first = a.Next, false; a.Next == "" {
					break
				}
			}
			want = want[min(r.Offset, len(want)):]
			if !slices.Equal(got, want) {
				t.Fatalf("%s %+v:\n%v, want\n%v", verb, r, got, want)
			}
		}
	})
}

// plain is the list that a loop over all items finds.
func plain(v *fleet.View, verb string, r *api.Request, now time.Time) (ids []string) {
	type row struct {
		r  rank
		id string
	}
	var rows []row
	o := orderOf(sortOf(r))
	for _, h := range v.Index().Hives() {
		if h.Live() == "" || r.Hive != "" && r.Hive != h.ID() {
			continue
		}
		hi := HiveInfo(v.Index(), h, now)
		var ws []api.WorkerInfo
		for _, w := range h.Workers() {
			ws = append(ws, WorkerInfo(v.Index(), w, now))
		}
		room := func(uuids []string) bool {
			if r.FreeVRAM == 0 {
				return true
			}
			return hi.Fresh && (hi.Live == hivebeat.Alive || hi.Live == hivebeat.Late) && slices.ContainsFunc(hi.GPUs, func(g hivebeat.GPU) bool {
				return g.Err == "" && g.Free() >= r.FreeVRAM && (len(uuids) == 0 || slices.Contains(uuids, g.UUID))
			})
		}
		live := func(l hivebeat.Live) bool {
			return len(r.Live) == 0 || slices.Contains(r.Live, l) || l == "zombie" && slices.Contains(r.Live, hivebeat.Late)
		}
		sel, _ := api.ParseSelector(r.Selector)
		labels := func(own map[string]string) bool {
			return sel.Fits(func(k string) (string, bool) {
				for _, m := range []map[string]string{own, hi.Labels} {
					if x, ok := m[k]; ok {
						return x, true
					}
				}
				return "", false
			})
		}
		text := func(of ...string) bool {
			return r.Text == "" || slices.ContainsFunc(of, func(s string) bool {
				return strings.Contains(strings.ToLower(s), strings.ToLower(r.Text))
			})
		}
		such := func(w api.WorkerInfo) bool {
			free := w.Slots - min(w.Slots, w.Busy)
			return (r.Model == "" || globbed(r.Model, w.Model)) && (len(r.State) == 0 || slices.Contains(r.State, w.State)) &&
				free >= r.FreeSlots && (!r.Stalled || w.Stalled)
		}
		zone := r.Zone == "" || r.Zone == hi.Zone
		if verb == api.VerbHives {
			models := []string{hi.Hive, hi.Zone}
			for _, w := range ws {
				models = append(models, w.Model)
			}
			withSuch := r.Model == "" && len(r.State) == 0 && r.FreeSlots == 0 && !r.Stalled
			for _, w := range ws {
				l := index.Counted(w.Live)
				withSuch = withSuch || such(w) && (l == hivebeat.Alive || l == hivebeat.Late)
			}
			if zone && withSuch && live(hi.Live) && labels(nil) && text(models...) && room(nil) && (r.MaxAge == 0 || hi.Age <= r.MaxAge) {
				rows = append(rows, row{o.hive(h), hi.Hive})
			}
			continue
		}
		for i, w := range ws {
			if zone && such(w) && live(w.Live) && labels(w.Labels) && text(hi.Hive, w.Worker, hi.Zone, w.Model) && room(w.GPUs) && (r.MaxAge == 0 || w.Age <= r.MaxAge) {
				rows = append(rows, row{o.worker(h.Workers()[i]), w.Cursor()})
			}
		}
	}
	slices.SortStableFunc(rows, func(a, b row) int { return o.compare(&a.r, &b.r) })
	for _, x := range rows {
		ids = append(ids, x.id)
	}
	return ids
}

func globbed(pattern, s string) bool {
	if pattern == "" {
		return s == ""
	}
	switch pattern[0] {
	case '*':
		for i := 0; i <= len(s); i++ {
			if globbed(pattern[1:], s[i:]) {
				return true
			}
		}
		return false
	case '?':
		return s != "" && globbed(pattern[1:], s[1:])
	}
	return s != "" && s[0] == pattern[0] && globbed(pattern[1:], s[1:])
}

// Hives by free memory: every page, in both directions, of fleets in which many have the
// same amount, are too old, or have none at all.
func TestHivesByRoom(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		v := newView()
		for i := range rapid.IntRange(0, 40).Draw(t, "hives") {
			s := snapshotOf(fmt.Sprintf("h%02d", i), "eu", 1)
			for k := range rapid.IntRange(0, 2).Draw(t, "gpus") {
				s.GPUs = append(s.GPUs, hivebeat.GPU{
					UUID: fmt.Sprintf("%d-%d", i, k), Total: 200 << 30, Err: pick(t, "err", "", "", "", "lost"),
					Used: uint64(pick(t, "GiB", 0, 10, 190, 199, 200))<<30 + uint64(rapid.IntRange(0, 2).Draw(t, "bytes")),
				})
			}
			feed(t, v, s, at(float64(pick(t, "since", 0, 20))))
		}
		now := at(50)
		pass(v, now)
		if err := verify(v, now); err != nil {
			t.Fatal(err)
		}
		for _, sort := range []string{"vram_free", "-vram_free"} {
			r := api.Request{Sort: sort, Limit: rapid.IntRange(1, 9).Draw(t, "limit"), Offset: rapid.IntRange(0, 5).Draw(t, "offset")}
			want := plain(v, api.VerbHives, &r, now)
			total := len(want)
			want = want[min(r.Offset, total):]
			var got []string
			for {
				a := ask(t, v, api.VerbHives, r, now)
				if a.Total == nil || *a.Total != total {
					t.Fatalf("total %v of %d", a.Total, total)
				}
				for _, h := range a.Hives {
					got = append(got, h.Hive)
				}
				if r.After = a.Next; a.Next == "" {
					break
				}
			}
			if !slices.Equal(got, want) {
				t.Fatalf("%s by %d: %v, want %v", sort, r.Limit, got, want)
			}
		}
	})
}

func TestGlob(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p := rapid.StringMatching(`[ab*?]{0,8}`).Draw(t, "pattern")
		s := rapid.StringMatching(`[ab]{0,8}`).Draw(t, "text")
		if glob(p, s) != globbed(p, s) {
			t.Fatalf("%q %q: %v", p, s, glob(p, s))
		}
	})
	if !glob("a?c", "aéc") || glob("a?c", "ac") {
		t.Error("? is one character")
	}
}

// A page that reaches its limit of looks is answered with its results up to there, and the
// next page continues from there.
func TestBudget(t *testing.T) {
	v := fleet.New(45 * time.Second)
	for i := range 120 {
		var ws []hivebeat.Record
		for k := range 1000 {
			ws = append(ws, workerOf(fmt.Sprintf("w%04d", k), "llama", 1, 0))
			ws[k].Labels = map[string]string{"tier": []string{"prod", "dev"}[k%2]}
		}
		if i == 119 {
			ws[999].Stalled = true
			ws[999].Labels = map[string]string{"gold": "1", "tier": "prod"}
		}
		feed(t, v, snapshotOf(fmt.Sprintf("h%03d", i), "eu", 1, ws...), at(0))
	}
	for _, c := range []struct {
		f           api.Filter
		least, most int // pages
	}{
		{api.Filter{Stalled: true}, 6, 8},
		{api.Filter{Stalled: true, Selector: "tier!=dev"}, 12, 14}, // labels are in maps
		{api.Filter{Selector: "gold"}, 1, 1},                       // the view knows where that label is
		{api.Filter{Selector: "gold in (1,2),tier"}, 1, 1},
		{api.Filter{Selector: "tier=prod,gold!=2,gold"}, 1, 1},
	} {
		r := api.Request{Filter: c.f}
		pages, found := 0, 0
		for {
			a := ask(t, v, api.VerbWorkers, r, at(1))
			found += len(a.Workers)
			pages++
			if r.After = a.Next; a.Next == "" {
				break
			}
		}
		if pages < c.least || pages > c.most || found != 1 {
			t.Errorf("%+v: %d found in %d pages", c.f, found, pages)
		}
	}
	r := api.Request{Offset: 119_999}
	r.Text = "w"
	pages := 1
	for ; ; pages++ {
		a := ask(t, v, api.VerbWorkers, r, at(1))
		if r.After = a.Next; a.Next == "" || len(a.Workers) > 0 {
			if len(a.Workers) != 1 || a.Workers[0].Worker != "w0999" {
				t.Errorf("after the offset: %d", len(a.Workers))
			}
			break
		}
	}
	if pages < 6 || pages > 8 {
		t.Errorf("the offset took %d pages", pages)
	}
	a := ask(t, v, api.VerbWorkers, api.Request{Offset: 119_000, Limit: 1, Hive: ""}, at(1))
	if len(a.Workers) != 1 || a.Workers[0].Cursor() != "h119/w0000" || *a.Total != 120_000 {
		t.Errorf("a plain offset: %+v", a.Workers)
	}
}

func TestRequestsAreChecked(t *testing.T) {
	for _, c := range []struct {
		verb string
		r    api.Request
		word string
	}{
		{"nonsense", api.Request{}, "nonsense"},
		{api.VerbSummary, api.Request{After: "h"}, `"after"`},
		{api.VerbSummary, api.Request{Filter: api.Filter{Zone: "eu"}}, `"zone"`},
		{api.VerbHive, api.Request{Hive: "h", Worker: "w"}, `"worker"`},
		{api.VerbWorkers, api.Request{N: 1}, `"n"`},
		{api.VerbPick, api.Request{Filter: api.Filter{State: []hivebeat.State{"ready"}}}, `"state"`},
		{api.VerbPick, api.Request{Hold: "x"}, `"hold"`},
		{api.VerbPick, api.Request{HoldMS: 5000}, `"hold_for"`},
		{api.VerbHold, api.Request{HoldMS: 5000}, "hold is empty"},
		{api.VerbHold, api.Request{Hold: "a.b"}, `hold "a.b"`},
		{api.VerbHold, api.Request{Hold: "x", HoldMS: 5}, "hold_for"},
		{api.VerbHold, api.Request{Hold: "x", For: api.ForGPU}, "free_vram is how much of a GPU is held"},
		{api.VerbHold, api.Request{Hold: "x", Filter: api.Filter{State: []hivebeat.State{"ready"}}}, `"state"`},
		{api.VerbPick, api.Request{For: "lunch"}, "for"},
		{api.VerbPick, api.Request{For: api.ForGPU, Slots: 1}, "slots"},
		{api.VerbPick, api.Request{Spread: "thin"}, "spread"},
		{api.VerbPick, api.Request{N: 101}, "n must be"},
		{api.VerbWorkers, api.Request{Sort: "colour"}, "colour"},
		{api.VerbHives, api.Request{Sort: "busy"}, "busy"},
		{api.VerbWorkers, api.Request{Sort: "busy", After: "h/w"}, "after"},
		{api.VerbWorkers, api.Request{Sort: "-id", After: "h/w"}, "after"},
		{api.VerbWorkers, api.Request{After: "~!"}, "after"},
		{api.VerbWorkers, api.Request{Offset: -1}, "offset"},
		{api.VerbWorkers, api.Request{Sort: "busy", Offset: 1_000_000}, "offset"},
		{api.VerbWorkers, api.Request{Filter: api.Filter{Selector: "a in"}}, "selector"},
		{api.VerbWatch, api.Request{Wait: 60_001}, "wait"},
		{api.VerbWatch, api.Request{Only: []string{"gossip"}}, "gossip"},
		{api.VerbEvents, api.Request{Worker: "w"}, "hive"},
		{api.VerbRelease, api.Request{}, "hold"},
	} {
		if e := Check(c.verb, &c.r); e == nil || e.Code != api.CodeBadRequest || !strings.Contains(e.Message, c.word) {
			t.Errorf("%s %+v: %+v, want %s named", c.verb, c.r, e, c.word)
		}
	}
	for _, verb := range api.Verbs() {
		if takes[verb] == nil {
			t.Errorf("%s is not known", verb)
		}
	}
}
