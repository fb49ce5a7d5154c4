package top

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"github.com/beatfabric/hivebeat"
	"github.com/beatfabric/hivebeat/internal/cli/show"
	"github.com/beatfabric/hivebeat/internal/top/toptest"
	"github.com/beatfabric/hivebeat/queen/api"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var update = flag.Bool("update", false, "rewrite the golden files")

// began is the start time of these tests.
var began = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// desk is a model, the queen that it asks, and a clock that stands still.
type desk struct {
	t   *testing.T
	m   *Model
	q   *toptest.Queen
	now time.Time
	do  Effect     // the last one
	out []Question // all questions since out was last reset
}

func newDesk(t *testing.T, cfg Config, hives, each, width, height int) *desk {
	t.Helper()
	cfg.Where = "nats://hub:4222"
	m, err := New(cfg, began)
	if err != nil {
		t.Fatal(err)
	}
	d := &desk{t: t, m: m, q: &toptest.Queen{Hives: hives, Each: each, Now: began}, now: began}
	d.send(Size{width, height})
	d.tick()
	return d
}

// send passes a message to the model, and answers its questions at once.
func (d *desk) send(msg any) {
	d.t.Helper()
	do := d.m.Update(msg, d.now)
	for range 10 {
		d.do = do
		if do.Ask == nil {
			return
		}
		d.out = append(d.out, do.Ask...)
		for _, q := range do.Ask {
			a := Answer{Round: do.Round, Question: q, Ans: d.q.Answer(q.Verb, q.Req)}
			switch {
			case a.Ans == nil:
				a.Err = errors.New("no queen answers within 2s")
			case a.Ans.Error != nil:
				a.Err = errors.New(a.Ans.Error.Message)
			}
			d.m.Update(a, d.now)
			if a.Ans == nil {
				break
			}
		}
		do = d.m.Update(Done{do.Round}, d.now)
	}
	d.t.Fatal("it asks again and again")
}

func (d *desk) keys(names ...string) {
	d.t.Helper()
	for _, k := range names {
		text := ""
		if len([]rune(k)) == 1 {
			text = k
		} else if k == "space" {
			text = " "
		}
		d.send(Key{k, text})
	}
}

func (d *desk) types(text string) {
	d.t.Helper()
	for _, r := range text {
		d.send(Key{"", string(r)})
	}
}

func (d *desk) tick() {
	d.t.Helper()
	d.now = d.now.Add(time.Second)
	d.send(Tick{})
}

func (d *desk) screen() string {
	d.t.Helper()
	lines := d.m.Lines(d.now)
	if len(lines) != d.m.height {
		d.t.Errorf("%d lines on a screen of %d", len(lines), d.m.height)
	}
	for _, l := range lines {
		if n := show.Width(l); n > d.m.width {
			d.t.Errorf("%d columns on a screen of %d: %q", n, d.m.width, l)
		}
	}
	return strings.Join(lines, "\n") + "\n"
}

func (d *desk) shows(parts ...string) {
	d.t.Helper()
	s := d.screen()
	for _, p := range parts {
		if !strings.Contains(s, p) {
			d.t.Errorf("%q is not on the screen:\n%s", p, s)
		}
	}
}

func (d *desk) hides(parts ...string) {
	d.t.Helper()
	s := d.screen()
	for _, p := range parts {
		if strings.Contains(s, p) {
			d.t.Errorf("%q is on the screen:\n%s", p, s)
		}
	}
}

func (d *desk) golden(name string) {
	d.t.Helper()
	got, file := d.screen(), filepath.Join("testdata", name+".golden")
	var trimmed strings.Builder
	for line := range strings.Lines(got) {
		trimmed.WriteString(strings.TrimRight(line, " \n") + "\n")
	}
	if *update {
		if err := os.WriteFile(file, []byte(trimmed.String()), 0o644); err != nil {
			d.t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		d.t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), trimmed.String()); diff != "" {
		d.t.Errorf("%s (-want +got):\n%s", file, diff)
	}
}

func TestScreens(t *testing.T) {
	d := newDesk(t, Config{}, 200, 20, 120, 30)
	d.golden("hives")
	d.keys("down", "down", "enter")
	d.golden("hive")
	d.keys("f")
	d.golden("facts")
	d.keys("esc", "down", "enter")
	d.golden("worker")
	d.keys("2")
	d.golden("workers")
	d.keys("/")
	d.types("model=llama-3-8b live=late")
	d.golden("typing")
	d.keys("enter", "s", "r")
	d.golden("filtered")
	d.keys("3")
	d.golden("events")
	d.keys("?")
	d.golden("help")
	d.keys("esc", "1")
	d.q.Doubt([]api.BrakeInfo{{Zone: "a", Held: 12, Since: 4000}}, "the brake is on in zone a")
	d.tick()
	d.golden("unsure")
	d.q.Hush(true)
	for range 7 {
		d.tick()
	}
	d.golden("cut-off")
}

func TestNarrowScreens(t *testing.T) {
	d := newDesk(t, Config{Tab: "workers"}, 50, 4, 60, 16)
	d.golden("narrow")
	d.send(Size{32, 9})
	d.golden("tiny")
	for h := range 12 {
		for _, w := range []int{1, 5, 20, 41} {
			d.send(Size{w, h + 1})
			for _, k := range []string{"1", "enter", "f", "esc", "enter", "esc", "esc", "3", "?", "?", "/", "esc"} {
				d.keys(k)
				d.screen()
			}
		}
	}
}

func TestEmptyAndBeginning(t *testing.T) {
	m, err := New(Config{Where: "nats://hub:4222"}, began)
	if err != nil {
		t.Fatal(err)
	}
	d := &desk{t: t, m: m, q: &toptest.Queen{Now: began}, now: began}
	do := m.Update(Size{100, 24}, began)
	d.shows("no answer yet", "asking the queen")
	m.Update(Done{do.Round}, began)
	d.q.Hush(true)
	d.tick()
	d.shows("CUT OFF for 1s: no queen answers within 2s", "Nothing is known about the fleet")
	d.q.Hush(false)
	d.tick()
	d.shows("The fleet is empty", "  none\n", "answer 0s old")
	d.hides("CUT OFF")
}

// In a fleet of any size, the model asks only for the rows on the screen and a screen around
// them, and every row can be reached.
func TestWindow(t *testing.T) {
	d := newDesk(t, Config{Tab: "workers"}, 10_000, 20, 120, 40)
	d.shows("of 200,000", "▸ gpu-00000/w00")
	for range 200 {
		d.keys("down")
	}
	d.shows("▸ gpu-00010/w00")
	d.keys("end")
	d.shows("▸ gpu-09999/w19", "of 200,000")
	d.keys("pgup", "pgup")
	d.hides("gpu-09999/w19")
	d.keys("home")
	d.shows("▸ gpu-00000/w00")
	d.keys("1", "end")
	d.shows("▸ gpu-09999", "of 10,000")
	d.keys("2", "s", "end")
	d.shows("99,968–100,000 of 200,000, the first 100,000 can be reached")
	d.keys("S")
	// End also works while no rows are loaded.
	d.keys("r")
	d.q.Hush(true)
	d.keys("r", "end")
	d.q.Hush(false)
	d.tick()
	d.shows("▸ gpu-09999/w19")
	_, most, offset := d.q.Seen()
	if most > 2*40+1 || offset < 199_000 {
		t.Errorf("%d rows in one answer, highest offset %d", most, offset)
	}
	if n := len(d.out); n > 4*70 {
		t.Errorf("%d questions for 207 keys", n)
	}
}

// Rows that are not loaded are not shown as other rows, and appear with the answer.
func TestRowsToCome(t *testing.T) {
	d := newDesk(t, Config{Tab: "workers"}, 100, 20, 100, 24)
	d.now = d.now.Add(time.Second)
	do := d.m.Update(Key{"end", ""}, d.now)
	d.shows("▸ …")
	d.hides("gpu-00000/")
	if len(do.Ask) != 2 || do.Ask[1].Req.Offset < 1900 {
		t.Fatalf("asked %+v", do.Ask)
	}
	// The model waits for the current round, and then starts another at once.
	if do = d.m.Update(Key{"home", ""}, d.now); do.Ask != nil {
		t.Errorf("asked %+v while a round is out", do.Ask)
	}
	d.shows("gpu-00000/w00") // they are still loaded
	d.m.Update(Key{"end", ""}, d.now)
	d.m.Update(Key{"up", ""}, d.now)
	do = d.m.Update(Done{d.m.round}, d.now)
	if len(do.Ask) != 2 || do.Ask[1].Req.Offset < 1900 {
		t.Errorf("asked %+v", do.Ask)
	}
	// A late answer to an earlier round changes nothing.
	old := Answer{Round: do.Round - 1, Question: do.Ask[1], Ans: d.q.Answer(api.VerbWorkers, do.Ask[1].Req)}
	d.m.Update(old, d.now)
	d.shows("▸ …")
	old.Round++
	d.m.Update(old, d.now)
	d.shows("▸ gpu-00099/w18")
}

// A page that did not fit into a message does not end the list.
func TestShortPages(t *testing.T) {
	var l list[int]
	l.id = func(i *int) string { return fmt.Sprint(*i) }
	l.resize(10)
	rows := func(from, n int) (out []int) {
		for i := range n {
			out = append(out, from+i)
		}
		return out
	}
	offset, limit := l.want()
	l.take(rows(offset, 7), offset, limit, nil, true, began)
	if l.covered() || l.total != 8 || l.exact {
		t.Errorf("%+v", l)
	}
	l.move(7)
	if offset, limit = l.want(); offset != l.top || limit != 10 {
		t.Errorf("it wants %d from %d", limit, offset)
	}
	// The list shrinks: the cursor stays within it.
	all := 100
	l.take(rows(0, 20), 0, 20, &all, true, began)
	l.end()
	if l.cursor != 99 || l.covered() {
		t.Errorf("%+v", l)
	}
	all = 3
	l.take(nil, 90, 10, &all, false, began)
	if l.total != 90 {
		t.Errorf("%d rows where the page began at 90", l.total)
	}
	l.take(rows(0, 3), 0, 10, &all, false, began)
	if l.cursor != 2 || l.top != 0 || *l.selected() != 2 {
		t.Errorf("%+v", l)
	}
}

// The cursor stays on its row while that is on the screen.
func TestCursorFollows(t *testing.T) {
	l := list[string]{id: func(s *string) string { return *s }}
	l.resize(5)
	n := 5
	l.take([]string{"a", "b", "c", "d", "e"}, 0, 5, &n, false, began)
	l.move(1)
	l.take([]string{"c", "d", "e", "b", "a"}, 0, 5, &n, false, began)
	if *l.selected() != "b" || l.cursor != 3 {
		t.Errorf("it is on %q", *l.selected())
	}
	l.take([]string{"c", "d", "e", "f", "a"}, 0, 5, &n, false, began)
	if *l.selected() != "f" {
		t.Errorf("it is on %q", *l.selected())
	}
}

// While no queen answers, ages keep counting and verdicts get a question mark. The next answer
// ends that.
func TestCutOff(t *testing.T) {
	d := newDesk(t, Config{}, 10, 2, 100, 24)
	d.shows("answer 0s old", "gpu-00003  a     alive   3s", "sure")
	d.now = d.now.Add(2 * time.Second)
	d.shows("answer 2s old", "gpu-00003  a     alive   5s")
	d.hides("CUT OFF")
	d.now = d.now.Add(2 * time.Second)
	d.shows("CUT OFF for 4s: the queen's answer is overdue", "gpu-00003  a     alive?   7s", "may be outdated")
	d.hides("  sure")
	d.q.Hush(true)
	d.tick()
	d.now = d.now.Add(2 * time.Minute)
	d.shows("CUT OFF for 2m: no queen answers within 2s", "gpu-00003  a     alive?   2m")
	d.keys("enter")
	d.shows("asking …", "CUT OFF")
	d.q.Hush(false)
	d.tick()
	d.shows("answer 0s old", "live      alive for 60m")
	d.hides("CUT OFF", "?  ")
	// The model asks for the events that it missed.
	d.out = nil
	d.tick()
	if last := d.out[len(d.out)-1]; last.Verb != api.VerbEvents {
		t.Errorf("asked %+v last", last)
	}
}

func TestUnavailable(t *testing.T) {
	d := newDesk(t, Config{}, 10, 2, 100, 24)
	do := d.m.Update(Tick{}, d.now)
	d.m.Update(Answer{
		Round: do.Round, Question: do.Ask[0], Err: errors.New("the queen says unavailable: it stops"),
		Ans: &api.Answer{Error: &api.Error{Code: api.CodeUnavailable}},
	}, d.now)
	d.shows("CUT OFF for 0s: the queen says unavailable: it stops")
}

// A rejected request is reported where its answer would be, and is not a cut.
func TestRefused(t *testing.T) {
	d := newDesk(t, Config{}, 10, 2, 100, 24)
	do := d.m.Update(Tick{}, d.now)
	d.m.Update(Answer{Round: do.Round, Question: do.Ask[0], Ans: d.q.Answer(api.VerbSummary, api.Request{})}, d.now)
	d.m.Update(Answer{
		Round: do.Round, Question: do.Ask[1], Err: errors.New("the queen says bad_request: selector: no"),
		Ans: &api.Answer{Error: &api.Error{Code: api.CodeBadRequest}},
	}, d.now)
	d.shows("bad_request: selector: no", "alive?")
	d.hides("CUT OFF")
	d.m.Update(Done{do.Round}, d.now)
	d.tick()
	d.hides("bad_request", "alive?")
}

// A queen that answers only the summary is not a cut either, and the rows do not look current.
func TestNoRows(t *testing.T) {
	d := newDesk(t, Config{}, 10, 2, 100, 24)
	for range 6 {
		d.now = d.now.Add(time.Second)
		do := d.m.Update(Tick{}, d.now)
		d.m.Update(Answer{Round: do.Round, Question: do.Ask[0], Ans: d.q.Answer(api.VerbSummary, api.Request{})}, d.now)
		d.m.Update(Answer{Round: do.Round, Question: do.Ask[1], Err: errors.New("no queen answers within 2s")}, d.now)
		d.m.Update(Done{do.Round}, d.now)
	}
	d.shows("answer 0s old", "no queen answers within 2s; these rows are 6s old", "gpu-00003  a     alive?   9s")
	d.hides("CUT OFF")
	d.m.filters[tabHives] = "x" // and before any rows were loaded
	d.m.hives.reset()
	do := d.m.Update(Tick{}, d.now)
	d.m.Update(Answer{Round: do.Round, Question: do.Ask[1], Err: errors.New("no queen answers within 2s")}, d.now)
	d.shows("  no queen answers within 2s\n")
	d.hides("asking …")
}

func TestGone(t *testing.T) {
	d := newDesk(t, Config{}, 3, 2, 100, 30)
	d.keys("end", "enter")
	d.shows("Hives › gpu-00002", "hive gpu-00002")
	d.q.Hives = 2
	d.tick()
	d.shows("no gpu-00002 is known: this is the last known state", "hive gpu-00002")
	d.keys("esc")
	d.hides("gpu-00002")
}

func TestFilterLine(t *testing.T) {
	d := newDesk(t, Config{Tab: "workers"}, 100, 20, 140, 24)
	d.keys("/")
	d.types("free=lots")
	d.keys("enter")
	d.shows("filter: free=lots", `"lots" is not a size`)
	d.keys("ctrl+u")
	d.types("tier=a=b")
	d.keys("enter")
	d.shows("filter: selector: ")
	d.keys("ctrl+u")
	d.types("state=busy zone=b tier!=dev hive=gpu-00001 free=1GiB disk=2GiB driver=550.* kernel=6* slots=2 age=10s stalled q")
	d.keys("backspace")
	d.types("QWEN")
	d.out = nil
	d.keys("enter")
	if len(d.out) == 0 {
		t.Fatal("nothing was asked")
	}
	want := api.Request{
		Hive: "gpu-00001",
		Filter: api.Filter{
			State: []hivebeat.State{hivebeat.Busy}, Zone: "b", Selector: "tier!=dev", Text: "QWEN", FreeVRAM: 1 << 30, FreeDisk: 2 << 30, Driver: "550.*", Kernel: "6*", FreeSlots: 2, MaxAge: 10_000, Stalled: true,
		},
		Limit: d.out[1].Req.Limit,
	}
	if diff := cmp.Diff(want, d.out[1].Req); diff != "" {
		t.Error(diff)
	}
	d.shows("filter state=busy", "of ")
	d.keys("1")
	d.hides("filter state") // each tab has its own filter
	d.keys("2", "esc")
	d.hides("filter state")
	d.keys("3", "/")
	d.types("model=x")
	d.keys("enter")
	d.shows("events have hive=, worker= and kind=")
	d.keys("esc", "/")
	d.types("kind=lost gpu-00001")
	d.keys("enter")
	d.shows("lost", "gpu-00001/")
	d.hides("joined", "gpu-00002/")
}

func TestSort(t *testing.T) {
	d := newDesk(t, Config{}, 100, 2, 120, 24)
	d.shows("sort id ▲", "HIVE▲")
	d.keys("r")
	d.shows("sort id ▼", "HIVE▼", "▸ gpu-00099")
	d.out = nil
	d.keys("s", "r")
	d.shows("sort live ▼", "LIVE▼")
	if got := d.out[len(d.out)-1].Req.Sort; got != "-live" {
		t.Errorf("sort %q", got)
	}
	for range api.HiveSortKeys {
		d.keys("S")
	}
	d.shows("sort live ▲")
	if h, w := len(hiveColumns), len(workerColumns); h != len(api.HiveSortKeys) || w != len(api.WorkerSortKeys) {
		t.Errorf("%d columns for the sort keys of hives %v, %d for those of workers %v", h, api.HiveSortKeys, w, api.WorkerSortKeys)
	}
	columns := map[string]bool{}
	for _, c := range append(show.NewHives(false, 0).Columns, show.NewWorkers(false, 0).Columns...) {
		columns[c.Title] = true
	}
	for _, m := range []map[string]string{hiveColumns, workerColumns} {
		for key, title := range m {
			if !columns[title] {
				t.Errorf("%s is sorted by %s, which is no column", key, title)
			}
		}
	}
}

func TestEvents(t *testing.T) {
	d := newDesk(t, Config{Tab: "events"}, 100, 20, 100, 24)
	d.shows("200 events, and older ones", "▸ ")
	e := (hivebeat.Subjects{}).NewEvent("new", began.Add(time.Hour), hivebeat.EventData{Hive: "gpu-00007", Worker: "w01", Kind: hivebeat.KindLost})
	d.now = d.now.Add(time.Second)
	d.send(News{Events: []hivebeat.Event{e, e}, Dropped: 3})
	d.shows("201 events", "lost           gpu-00007/w01", "3 arrived too fast")
	d.keys("home", "h")
	d.shows("Events › gpu-00007", "hive gpu-00007")
	d.keys("esc", "enter")
	d.shows("Events › gpu-00007/w01", "worker gpu-00007/w01")
	d.keys("esc")
	for range 30 { // older events are loaded as the cursor moves down
		d.keys("end")
		d.tick()
	}
	d.shows("2,001 events")
	d.hides("older ones")
}

func TestNavigation(t *testing.T) {
	d := newDesk(t, Config{Tab: "workers"}, 10, 3, 100, 40)
	d.keys("down", "down", "down", "enter")
	d.shows("Workers › gpu-00001/w00", "endpoint", "EVENTS")
	d.keys("h")
	d.shows("Workers › gpu-00001", "▸ gpu-00001/w00")
	d.keys("down", "enter")
	d.shows("Workers › gpu-00001 › gpu-00001/w01")
	d.keys("h")
	d.shows("Workers › gpu-00001\n")
	d.keys("esc")
	d.shows("[2 Workers]", "▸ gpu-00001/w00")
	d.keys("tab", "tab", "shift+tab")
	d.shows("[3 Events]")
	d.keys("q")
	if !d.do.Quit {
		t.Error("q does not quit")
	}
	d.keys("/", "q")
	if d.do.Quit {
		t.Error("q quits while the filter is typed")
	}
	d.keys("ctrl+c")
	if !d.do.Quit {
		t.Error("Ctrl-C does not quit")
	}
}

// A name with terminal codes moves nothing.
func TestHostileNames(t *testing.T) {
	d := newDesk(t, Config{Paint: true}, 1, 1, 100, 24)
	d.now = d.now.Add(time.Second)
	do := d.m.Update(Tick{}, d.now)
	d.m.Update(Answer{Round: do.Round, Question: do.Ask[1], Ans: &api.Answer{
		Status: api.Status{Queen: "q\x1b[2J"}, Hives: []api.HiveInfo{{Hive: "x\x1b[2J\n", Zone: "\x1b]0;title\a", Live: "\x1b[31m"}},
	}}, d.now)
	if s := show.Bare(d.screen()); strings.ContainsAny(s, "\x1b\a") {
		t.Errorf("%q", s)
	}
}

func TestBadFilter(t *testing.T) {
	if _, err := New(Config{Filter: "free=x"}, began); !errors.Is(err, errFilter) {
		t.Errorf("%v", err)
	}
}
