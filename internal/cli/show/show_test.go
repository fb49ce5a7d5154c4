package show

import (
	"flag"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/beatfabric/hivebeat"
	"github.com/beatfabric/hivebeat/queen/api"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// golden compares got with testdata/name. Look at the files that -update writes: they show what
// people see.
func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("%s (-want +got):\n%s", name, diff)
	}
}

func text(lines []string) string { return strings.Join(lines, "\n") + "\n" }

var sure = api.Status{Queen: "queen-1", Warm: true, JetStream: true}

// A conflict comes first in the note, and the details say what to do.
func TestConflicts(t *testing.T) {
	hives, workers := sampleHives(), sampleWorkers()
	h, w := &hives[1], &workers[0]
	h.Conflict, h.Rival, w.Rival, w.Stalled = true, 1_764_000_000_000_001, 1_764_000_000_000_002, true
	old := *h // from an older queen
	at := hivebeat.Place{Host: "there", PID: 815, Conn: "NABC/9", Addr: "192.0.2.7:5"}
	h.Believed, h.Refused = &hivebeat.Place{Inc: h.Inc, Host: "here"}, &at
	w.RivalAt, w.Addr = at, "192.0.2.6:5"
	at.Inc = h.Rival
	for _, note := range []Cell{hiveNote(h, 0), workerNote(w, 0, noon)} {
		if !strings.HasPrefix(note.Text, "conflict: two ") || !strings.Contains(note.Text, "--id") || note.Style != Bad {
			t.Errorf("the note is %+v", note)
		}
	}
	const (
		do    = "stop one, or give it another --id"
		other = "refused, and not shown: began 2025-11-24 16:00:00 UTC (incarnation 176400000000000"
		there = ") · host there · pid 815 · connection NABC/9 · from 192.0.2.7:5"
	)
	for _, c := range []struct {
		lines []string
		want  []string
	}{
		{Hive(h, &sure, false), []string{do, other, there, "accepted: began 2025-11-24 16:01:40 UTC (incarnation 1764000100000000) · host here\n"}},
		{Hive(&old, &sure, false), []string{do, other}},
		{Worker(w, &sure, false, noon), []string{do, other, there, " · pid 4711 · from 192.0.2.6:5"}},
	} {
		for _, want := range c.want {
			if !strings.Contains(text(c.lines), want) {
				t.Errorf("%q is not in\n%s", want, text(c.lines))
			}
		}
	}
}

func sampleHives() []api.HiveInfo {
	h100 := hivebeat.GPU{UUID: "GPU-5d1f", Name: "NVIDIA H100 80GB HBM3", Total: 80 * gib, Used: 65*gib + gib/4, Ours: 65 * gib, Util: 71, Temp: 62, Power: 498_000}
	rtx := hivebeat.GPU{UUID: "GPU-77aa", Index: 0, Name: "NVIDIA GeForce RTX 4090", Total: 24 * gib, Used: 21 * gib, Ours: 18 * gib, Util: 40, Temp: 51, Power: 201_000}
	rtx1 := rtx
	rtx1.Index, rtx1.Used, rtx1.Ours, rtx1.Util = 1, 0, 0, 0
	return []api.HiveInfo{
		{
			Hive: "gpu-01", Live: hivebeat.Alive, Inc: 1_764_000_000_000_000, Seq: 812, Every: 15_000, Age: 4_200, Fresh: true, Since: 3_700_000, Warm: true,
			Zone: "a", Labels: map[string]string{"zone": "a", "rack": "7"},
			Host:    hivebeat.Host{Name: "gpu-01", OS: "linux", Arch: "amd64", CPUs: 64, Load1: 7.25, CPU: 11.4, MemTotal: 512 * gib, MemUsed: 87 * gib, Uptime: 864_000},
			GPUs:    []hivebeat.GPU{h100},
			Collect: map[string]string{"host": "ok", "gpu": "ok", "procs": "ok"},
			Stats:   hivebeat.Stats{Beats: 12345, Refused: 2, FalseDead: 1},
			Workers: map[hivebeat.Live]int{hivebeat.Alive: 2},
		},
		{
			Hive: "gpu-02", Live: hivebeat.Alive, Inc: 1_764_000_100_000_000, Seq: 9, Every: 15_000, Age: 1_000, Fresh: true, Since: 9_000,
			Zone: "a", Host: hivebeat.Host{CPUs: 8, CPU: 3, MemTotal: 64 * gib, MemUsed: 9 * gib}, GPUs: []hivebeat.GPU{rtx, rtx1},
			Collect: map[string]string{"gpu": "error: nvidia-smi did not answer within 5s"},
			Workers: map[hivebeat.Live]int{hivebeat.Alive: 1, hivebeat.Late: 1},
		},
		{
			Hive: "gpu-03", Live: hivebeat.Lost, Cause: hivebeat.CauseMissed, Inc: 1, Every: 15_000, Age: 310_000, Since: 260_000, Zone: "b",
			Host: hivebeat.Host{CPUs: 8, CPU: 99, MemTotal: 64 * gib}, Workers: map[hivebeat.Live]int{hivebeat.Lost: 1},
		},
		{Hive: "laptop", Live: hivebeat.Left, Cause: hivebeat.CauseGoodbye, Inc: 1, Every: 15_000, Age: 7_400_000, Since: 7_400_000, Bye: "stopped"},
	}
}

func sampleWorkers() []api.WorkerInfo {
	rec := func(id string, live hivebeat.Live, state hivebeat.State, age hivebeat.Millis) hivebeat.Record {
		return hivebeat.Record{Worker: id, Live: live, Age: age, Since: 95_000, Facts: hivebeat.Facts{Inc: 1_764_000_000_000_000, Every: 30_000, State: state, Seq: 41}}
	}
	busy := rec("llama-70b", hivebeat.Alive, hivebeat.Busy, 12_000)
	busy.Model, busy.Endpoint, busy.GPUs = "meta-llama/Llama-3.3-70B-Instruct", "http://gpu-01:8001/v1", []string{"GPU-5d1f"}
	busy.Slots, busy.Busy, busy.Queue, busy.Done, busy.VRAM, busy.PID = 16, 11, 3, 123_456, 43*gib, 4711
	busy.Host = "gpu-01.example"
	busy.Engine, busy.Ver, busy.Ctx, busy.KV, busy.KVCap, busy.Probed, busy.Rate, busy.TPS = "vllm", "0.11.2", 131_072, new(0.42), 524_288, 1_200, 1.25, 834.5
	busy.LoRA, busy.Cold = hivebeat.LoRA{Max: 4, On: []string{"sql"}, Wait: []string{"legal"}}, []string{"qwen3:8b", "gemma3:27b"}
	busy.Proc = hivebeat.Proc{RSS: 3 * gib, CPU: 140, VRAM: 44 * gib, Up: 7_300_000}
	busy.Labels = map[string]string{"team": "search"}
	busy.Tr = []hivebeat.Transition{
		{N: 7, Kind: hivebeat.KindLate, From: "alive", To: "late", Cause: hivebeat.CauseMissed, Ago: 40_000},
		{N: 8, Kind: hivebeat.KindRecovered, From: "late", To: "alive", Ago: 31_000},
	}
	loading := rec("qwen", hivebeat.Alive, hivebeat.Loading, 8_000)
	loading.Model, loading.Reason, loading.Quiet = "Qwen/Qwen3-32B", "reading 20 GiB of weights", 120_000
	late := rec("whisper", hivebeat.Late, hivebeat.Ready, 51_000)
	late.Model, late.Cause, late.Missed = "openai/whisper-large-v3", hivebeat.CauseMissed, 1
	lost := rec("gemma", hivebeat.Lost, hivebeat.Busy, 300_000)
	lost.Cause, lost.Model = hivebeat.CauseHive, "google/gemma-3-12b-it"
	hostile := rec("x", hivebeat.Alive, "dancing", 1_000)
	hostile.Host = "\x1b[0m"
	hostile.Model, hostile.Reason = "\x1b[2J\x1b[31mowned\r\n", "日本語のモデル\u202egnp"
	return []api.WorkerInfo{
		{Hive: "gpu-01", Zone: "a", Via: "hive", Fresh: true, Record: busy},
		{Hive: "gpu-01", Zone: "a", Via: "hive", Fresh: true, Record: loading},
		{Hive: "gpu-02", Zone: "a", Via: "hive", Fresh: false, Record: late},
		{Hive: "gpu-03", Zone: "b", Via: "queen", Fresh: false, Record: lost},
		{Hive: "gpu-02", Zone: "a", Via: "hive", Fresh: true, Record: hostile},
	}
}

func sampleFleet() *Fleet {
	return &Fleet{
		Status: sure,
		Summary: api.Summary{
			Hives:   map[hivebeat.Live]int{hivebeat.Alive: 2, hivebeat.Lost: 1, hivebeat.Left: 1},
			Workers: map[hivebeat.Live]int{hivebeat.Alive: 3, hivebeat.Late: 1, hivebeat.Lost: 1, "odd": 1},
			States:  map[hivebeat.State]int{hivebeat.Busy: 1, hivebeat.Loading: 1, "dancing": 1},
			GPUs:    3, VRAMTotal: 128 * gib, VRAMUsed: 86*gib + gib/4, VRAMOurs: 83 * gib,
		},
		Hives: sampleHives(), Workers: sampleWorkers(),
	}
}

// Facts that a worker does not report are not invented.
func TestWorkerThatSaysLittle(t *testing.T) {
	w := api.WorkerInfo{Hive: "h", Fresh: true, Record: hivebeat.Record{Worker: "w", Live: hivebeat.Alive, Facts: hivebeat.Facts{Busy: 1}}}
	if got := text(NewWorkers(false, 0).Lines(false, [][]Cell{WorkerRow(&w, 0, noon)})); !regexp.MustCompile(`^h/w +alive +- +0s +- +1 +0 +0 +-`).MatchString(got) {
		t.Errorf("without slots: %s", got)
	}
	if got := text(Worker(&w, &sure, false, noon)); !strings.Contains(got, "  work      1 busy · 0 waiting · 0 done\n") {
		t.Errorf("without slots:\n%s", got)
	}
	s := api.Summary{Workers: map[hivebeat.Live]int{hivebeat.Alive: 3}, States: map[hivebeat.State]int{"": 1, hivebeat.Ready: 2}}
	if got, want := Summary(&s, &sure, false), "0 hives · 3 workers: 3 alive (2 ready 1 without a state) · sure"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

// noon is the time at which the answers of these tests are shown.
var noon = time.Date(2030, 1, 2, 12, 0, 0, 0, time.UTC)

// An announced silence is shown with its end, and not as late.
func TestQuietIsCountedDown(t *testing.T) {
	w := api.WorkerInfo{Hive: "h", Fresh: true, Record: hivebeat.Record{Worker: "w", Live: hivebeat.Alive, Age: 30_000, Facts: hivebeat.Facts{Quiet: 119_000}}}
	for extra, want := range map[time.Duration]string{
		0: "quiet until 12:01:29 (89s left)", 9 * time.Second: "quiet until 12:01:20 (80s left)", time.Hour: "",
	} {
		if got := workerNote(&w, extra, noon).Text; got != want {
			t.Errorf("after %s: %q, want %q", extra, got, want)
		}
	}
	w.Live, w.Fresh, w.Age, w.Quiet = hivebeat.Late, false, 60_000, 260_000 // its hive reports it as alive
	row := WorkerRow(&w, 0, noon)
	if live, note := row[1].Text, row[len(row)-1].Text; live != "quiet" || note != "quiet until 12:03:20 (3m left)" {
		t.Errorf("%q, %q", live, note)
	}
	if got := text(Worker(&w, &sure, false, noon)); !strings.Contains(got, "live      quiet for 0s · quiet until 12:03:20 (3m left)") {
		t.Error(got)
	}
	w.Cause = hivebeat.CauseHive // it was found late
	row = WorkerRow(&w, 0, noon)
	if live, note := row[1].Text, row[len(row)-1].Text; live != "late" || note != "hive" {
		t.Errorf("%q, %q", live, note)
	}
}

// Only a hive that is alive still expects workers.
func TestWarmingUp(t *testing.T) {
	for _, live := range liveOrder {
		h := api.HiveInfo{Hive: "h", Live: live}
		if got := strings.Contains(text(Hive(&h, &sure, false)), "warming up"); got != (live == hivebeat.Alive) {
			t.Errorf("%s: warming up %v", live, got)
		}
	}
}

func sampleEvents() []hivebeat.Event {
	at := time.Date(2026, 3, 1, 14, 5, 6, 0, time.UTC)
	var s hivebeat.Subjects
	return []hivebeat.Event{
		s.NewEvent("a", at, hivebeat.EventData{Hive: "gpu-01", Kind: hivebeat.KindJoined, To: "alive"}),
		s.NewEvent("b", at.Add(time.Second), hivebeat.EventData{Hive: "gpu-01", Worker: "qwen", Kind: hivebeat.KindState, From: "ready", To: "loading", Model: "Qwen/Qwen3-32B"}),
		s.NewEvent("c", at.Add(9*time.Second), hivebeat.EventData{Hive: "gpu-03", Kind: hivebeat.KindLost, From: "late", To: "lost", Cause: hivebeat.CauseMissed, Reason: "not heard for 45.2s"}),
		s.NewEvent("d", at.Add(10*time.Second), hivebeat.EventData{Kind: hivebeat.KindBrake, Reason: "\x1b]0;owned\x07"}),
		s.NewEvent("e", at.Add(11*time.Second), hivebeat.EventData{Hive: "gpu-01", Worker: "qwen", Kind: hivebeat.KindGap, Missing: 4}),
	}
}

func hiveRows(hives []api.HiveInfo) (rows [][]Cell) {
	for i := range hives {
		rows = append(rows, HiveRow(&hives[i], 0))
	}
	return rows
}

func workerRows(workers []api.WorkerInfo) (rows [][]Cell) {
	for i := range workers {
		rows = append(rows, WorkerRow(&workers[i], 0, noon))
	}
	return rows
}

func TestTables(t *testing.T) {
	f := sampleFleet()
	out := text(NewHives(false, 0).Lines(true, hiveRows(f.Hives))) + "\n" +
		text(NewWorkers(false, 0).Lines(true, workerRows(f.Workers))) + "\n" + Summary(&f.Summary, &f.Status, false) + "\n"
	golden(t, "ls.golden", out)

	unsure := api.Status{Warm: true, Unsure: []string{"2 hives are unverified", "JetStream is away"}}
	golden(t, "ls-colour.golden", text(NewHives(true, 100).Lines(true, hiveRows(f.Hives)))+"\n"+
		text(NewWorkers(true, 100).Lines(true, workerRows(f.Workers)))+"\n"+Summary(&f.Summary, &unsure, true)+"\n")
}

func TestABrakeIsShown(t *testing.T) {
	f := sampleFleet()
	f.Status.Brake = []api.BrakeInfo{{Zone: "eu", Held: 12, Since: 3000}, {Held: 1}}
	if got := Summary(&f.Summary, &f.Status, false); !strings.Contains(got, " · brake on in zone eu: 12 hives held · brake on in no zone: 1 hive held · ") {
		t.Errorf("%s", got)
	}
}

func TestNoLineIsLongerThanTheTerminal(t *testing.T) {
	for width := 40; width <= 160; width++ {
		for _, lines := range [][]string{
			NewHives(true, width).Lines(true, hiveRows(sampleHives())),
			NewWorkers(true, width).Lines(true, workerRows(sampleWorkers())),
		} {
			for _, line := range lines {
				if got := Width(line); got > width {
					t.Fatalf("width %d: a line takes %d columns: %q", width, got, line)
				}
			}
		}
	}
}

func TestDetails(t *testing.T) {
	hives, workers := sampleHives(), sampleWorkers()
	cold := api.Status{Queen: "queen-2"}
	golden(t, "get.golden", text(Hive(&hives[0], &sure, false))+"\n"+text(Hive(&hives[2], &cold, false))+"\n"+
		text(Worker(&workers[0], &sure, false, noon))+"\n"+text(Worker(&workers[3], &sure, false, noon))+"\n"+text(Worker(&workers[4], &sure, false, noon)))
}

func TestFrames(t *testing.T) {
	f := Frame{Now: noon, Where: "nats://127.0.0.1:4222", Fleet: sampleFleet(), Age: time.Second / 2, Events: sampleEvents(), Zone: time.UTC}
	golden(t, "watch.golden", text(f.Lines(120, 40)))
	golden(t, "watch-small.golden", text(f.Lines(80, 16)))

	f.Trouble, f.Age = "no queen answers on nats://127.0.0.1:4222", 14*time.Second
	golden(t, "watch-stale.golden", text(f.Lines(120, 40)))
	f.Fleet, f.Events = nil, nil
	golden(t, "watch-nobody.golden", text(f.Lines(120, 40)))
	f.Trouble, f.Fleet = "", &Fleet{Status: sure}
	golden(t, "watch-empty.golden", text(f.Lines(120, 40)))
}

// The last answer of a queen that does not answer any more must not look current.
func TestStaleFrameShowsNothingAsNew(t *testing.T) {
	f := Frame{Now: noon, Fleet: sampleFleet(), Age: 20 * time.Second, Trouble: "no queen answers", Zone: time.UTC, Paint: true}
	out := text(f.Lines(200, 60))
	for _, code := range []string{codes[Good], codes[Notice]} {
		if strings.Contains(out, "\x1b["+code+"m") {
			t.Errorf("something is shown in the colour of good news:\n%s", out)
		}
	}
	for _, want := range []string{"NO ANSWER for 20s", "alive?", "24s"} { // gpu-01 was last heard 4 s before the answer
		if !strings.Contains(out, want) {
			t.Errorf("%q is missing in\n%s", want, out)
		}
	}
}

func TestFramesFitTheirTerminal(t *testing.T) {
	f := Frame{Now: noon, Where: "nats://127.0.0.1:4222", Fleet: sampleFleet(), Events: sampleEvents(), Zone: time.UTC, Paint: true}
	for range 5 {
		f.Fleet.Workers = append(f.Fleet.Workers, f.Fleet.Workers...)
		f.Fleet.Hives = append(f.Fleet.Hives, f.Fleet.Hives...)
		f.Events = append(f.Events, f.Events...)
	}
	f.Fleet.Summary.Workers[hivebeat.Alive], f.Fleet.MoreWorkers = 200_000, true
	for height := 1; height < 80; height++ {
		for _, width := range []int{1, 20, 80, 200} {
			lines := f.Lines(width, height)
			if len(lines) > height {
				t.Fatalf("%d lines on a terminal of %d", len(lines), height)
			}
			if height >= 16 && len(lines) < height {
				t.Errorf("%d of %d lines are used though more is there", len(lines), height)
			}
			for _, line := range lines {
				if got := Width(line); got > width {
					t.Fatalf("%d columns on a terminal of %d: %q", got, width, line)
				}
			}
		}
	}
}

// Erasing after a line that fills the terminal would clear its last column.
func TestScreenErasesBeforeItWrites(t *testing.T) {
	got := Screen([]string{"full", "x"}, 3)
	if want := "\x1b[?2026h\x1b[H\x1b[Kfull\r\n\x1b[Kx\r\n\x1b[K\x1b[?2026l"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestNothingReachesTheTerminalThatMovesIt(t *testing.T) {
	f := Frame{Now: noon, Fleet: sampleFleet(), Events: sampleEvents(), Zone: time.UTC, Where: "nats://\x1b[2J"}
	workers := sampleWorkers()
	for _, line := range append(f.Lines(200, 60), Worker(&workers[4], &sure, false, noon)...) {
		for _, r := range line {
			if r < ' ' || r == 0x7f || r == '\u202e' {
				t.Errorf("%q holds %q", line, r)
			}
		}
	}
}

// A worker without progress is alive, and stands out.
func TestStalled(t *testing.T) {
	w := sampleWorkers()[0]
	w.Stalled = true
	row := WorkerRow(&w, 0, noon)
	if note := row[len(row)-1]; !strings.HasPrefix(note.Text, "stalled") || note.Style < Warn || row[workerLive].Text != "alive" {
		t.Errorf("row %+v", row)
	}
	var s hivebeat.Subjects
	at := time.Date(2026, 3, 4, 5, 6, 7, 0, time.UTC)
	for _, c := range []struct{ from, to, reason, want string }{
		{"", "stalled", "3 busy, and done is still 120", "05:06:07  stalled        gpu-01/w                  stalled · 3 busy, and done is still 120"},
		{"stalled", "", "work advances again", "05:06:07  stalled        gpu-01/w                  no longer stalled · work advances again"},
	} {
		ev := s.NewEvent("a", at, hivebeat.EventData{Hive: "gpu-01", Worker: "w", Kind: hivebeat.KindStalled, From: c.from, To: c.to, Reason: c.reason})
		if got := Event(&ev, time.UTC, false); got != c.want {
			t.Errorf("got  %q\nwant %q", got, c.want)
		}
	}
}

// A worker that restarts repeatedly shows how often, and how long it is up.
func TestLooping(t *testing.T) {
	w := sampleWorkers()[0]
	w.Looping, w.Restarts, w.Up = true, 25, 2500
	row := WorkerRow(&w, 0, noon)
	if note := row[len(row)-1]; !strings.HasPrefix(note.Text, "looping, 25 restarts in the last hour") || note.Style < Warn || row[workerLive].Text != "alive" {
		t.Errorf("row %+v", row)
	}
	got := text(Worker(&w, &sure, false, noon))
	for _, want := range []string{" · looping\n", ") · up 2s · 25 restarts in the last hour\n"} {
		if !strings.Contains(got, want) {
			t.Errorf("no %q in\n%s", want, got)
		}
	}
	ev := hivebeat.Subjects{}.NewEvent("a", noon, hivebeat.EventData{Hive: "gpu-01", Worker: "w", Kind: hivebeat.KindLooping, To: "looping", Reason: "3 restarts in the last hour"})
	if got := Event(&ev, time.UTC, false); !strings.HasSuffix(got, "  looping        gpu-01/w                  looping · 3 restarts in the last hour") {
		t.Errorf("got %q", got)
	}
}

func TestCertaintyIsThatOfTheLeastSureAnswer(t *testing.T) {
	var c Certainty
	c.Add(api.Status{Queen: "a", Warm: true, JetStream: true, Unsure: []string{"x"}})
	c.Add(api.Status{Queen: "b", JetStream: true, Unsure: []string{"y", "x"}})
	c.Add(api.Status{Queen: "c", Warm: true})
	s := c.Sum()
	if s.Queen != "c" || s.Warm || s.JetStream || strings.Join(s.Unsure, "; ") != "x; y" {
		t.Errorf("got %+v", s)
	}
}

func TestWideWorkers(t *testing.T) {
	workers := sampleWorkers()
	table := NewWideWorkers(false)
	var rows [][]Cell
	for i := range workers {
		rows = append(rows, WideWorkerRow(&workers[i], noon))
	}
	golden(t, "wide.golden", text(table.Lines(true, rows)))
}
