package show

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/beatfabric/hivebeat"
	"github.com/beatfabric/hivebeat/internal/plaintext"
	"github.com/beatfabric/hivebeat/queen/api"
)

// none fills an empty column, so that columns can be counted.
const none = "-"

// Columns of the verdict in the rows of hives and workers.
const hiveLive, workerLive = 2, 1

// NewHives returns the table of hives.
func NewHives(p Paint, width int) *Table {
	return &Table{Paint: p, Width: width, Columns: []Column{
		{Title: "HIVE", Least: 16},
		{Title: "ZONE", Least: 4, Drop: 6},
		{Title: "LIVE"},
		{Title: "AGE", Right: true},
		{Title: "WORKERS", Least: 14},
		{Title: "CPU", Right: true, Drop: 2},
		{Title: "RAM GiB", Right: true, Drop: 1},
		{Title: "GPU", Least: 10, Drop: 3},
		{Title: "UTIL", Right: true, Drop: 4},
		{Title: "VRAM GiB", Right: true, Drop: 5},
		{Title: "NOTE", Least: 22, Drop: 7}, // GPU 12 failing: reboot
	}}
}

// NewWorkers returns the table of workers.
func NewWorkers(p Paint, width int) *Table {
	return &Table{Paint: p, Width: width, Columns: []Column{
		{Title: "WORKER", Least: 20},
		{Title: "LIVE"},
		{Title: "STATE"},
		{Title: "AGE", Right: true},
		{Title: "MODEL", Least: 16, Drop: 6},
		{Title: "BUSY", Right: true, Drop: 4},
		{Title: "QUEUE", Right: true, Drop: 2},
		{Title: "DONE", Right: true, Drop: 1},
		{Title: "VRAM GiB", Right: true, Drop: 3},
		{Title: "NOTE", Least: 14, Drop: 5},
	}}
}

// HiveRow is the row of a hive in NewHives. extra is the time since the answer arrived; it
// is added to ages.
func HiveRow(h *api.HiveInfo, extra time.Duration) []Cell {
	cpu, ram, gpu, util, vram := none, none, none, none, none
	if h.Fresh {
		if h.Host.CPUs > 0 {
			cpu = percent(h.Host.CPU)
		}
		ram = usedOf(h.Host.MemUsed, h.Host.MemTotal)
		if len(h.GPUs) > 0 {
			gpu = gpuNames(h.GPUs)
			if sum := sumUp(h.GPUs); sum.n > 0 {
				util = strconv.FormatUint(sum.util/uint64(sum.n), 10) + "%"
				vram = usedOf(sum.used, sum.total)
			}
		}
	}
	faint := Plain
	if !h.Fresh {
		faint = Faint
	}
	return []Cell{
		{Text: plaintext.Line(h.Hive)},
		{plaintext.Line(cmp.Or(h.Zone, none)), faint},
		{plaintext.Line(string(h.Live)), liveStyle(h.Live)},
		{Age(h.Age.Duration() + extra), faint},
		{lives(h.Workers), faint},
		{cpu, faint},
		{ram, faint},
		{gpu, faint},
		{util, faint},
		{vram, faint},
		hiveNote(h, extra),
	}
}

func hiveNote(h *api.HiveInfo, extra time.Duration) Cell {
	var notes []string
	st := Faint
	add := func(s string, as Style) {
		notes = append(notes, s)
		st = max(st, as)
	}
	if h.Conflict {
		add("conflict: two hives beat as this one; stop one, or give it another --id", Bad)
	}
	for _, note := range imposedNotes(h, extra) {
		add(note, Notice)
	}
	if h.Cause != "" {
		add(string(h.Cause), Plain)
	}
	if h.Bye != "" {
		add(h.Bye, Plain)
	}
	if h.Fresh {
		if !h.Warm && h.Live == hivebeat.Alive {
			add("warming up", Notice)
		}
		gpus, style := gpuNotes(h.GPUs)
		for _, note := range gpus {
			add(note, style)
		}
		for _, source := range slices.Sorted(maps.Keys(h.Collect)) {
			if what := h.Collect[source]; what != hivebeat.CollectOK && what != hivebeat.CollectNone {
				add(sourceName(source)+": "+what, Warn)
			}
		}
		sum := sumUp(h.GPUs)
		if sum.orphaned > 0 {
			add(size(sum.orphaned)+" orphaned", Warn)
		}
		if sum.foreign >= gib {
			add(GiB(sum.foreign)+" GiB by others", Plain)
		}
	}
	return Cell{plaintext.Line(strings.Join(notes, "; ")), st}
}

// sourceName is a source of facts in words that tell the two lists of processes apart:
// "procs none" beside a list of processes looks like a fault.
func sourceName(source string) string {
	switch source {
	case "procs":
		return "GPU processes"
	case "os":
		return "worker processes"
	}
	return source
}

// step renders a change from one value to another. Either may be empty.
func step(from, to string) string {
	switch {
	case from == "":
		return to
	case to == "" && (from == string(hivebeat.KindStalled) || from == string(hivebeat.KindLooping)):
		return "no longer " + from
	case to == "":
		return "was " + from
	}
	return from + " → " + to
}

func gpuNames(gpus []hivebeat.GPU) string {
	var names []string
	counts := map[string]int{}
	for _, g := range gpus {
		name := cmp.Or(strings.TrimPrefix(strings.TrimPrefix(g.Name, "NVIDIA "), "GeForce "), "GPU")
		if counts[name]++; counts[name] == 1 {
			names = append(names, name)
		}
	}
	for i, name := range names {
		if n := counts[name]; n > 1 {
			names[i] = fmt.Sprintf("%d× %s", n, name)
		}
	}
	return plaintext.Line(strings.Join(names, ", "))
}

// NewWideWorkers returns the table of workers with the facts of their engines, in lines of any length.
func NewWideWorkers(p Paint) *Table {
	t := NewWorkers(p, 0)
	note := len(t.Columns) - 1
	t.Columns = append(t.Columns[:note:note], Column{Title: "ENGINE"}, Column{Title: "CONTEXT", Right: true}, Column{Title: "KV", Right: true}, Column{Title: "REQ/S", Right: true},
		Column{Title: "TOK/S", Right: true}, Column{Title: "ADAPTERS"}, Column{Title: "ENDPOINT"}, t.Columns[note])
	return t
}

// WideWorkerRow is the row of a worker in NewWideWorkers.
func WideWorkerRow(w *api.WorkerInfo, now time.Time) []Cell {
	row := WorkerRow(w, 0, now)
	st := row[4].Style // as the model: faint if it may be outdated
	context, kv, rate, tps := none, none, none, none
	if w.Ctx > 0 {
		context = count(w.Ctx)
	}
	if w.KV != nil {
		kv = fmt.Sprintf("%.0f%%", *w.KV*100)
	}
	if w.Rate > 0 {
		rate = fmt.Sprintf("%.3g", w.Rate)
	}
	if w.TPS > 0 {
		tps = fmt.Sprintf("%.0f", w.TPS)
	}
	text := func(s string) Cell { return Cell{plaintext.Line(cmp.Or(s, none)), st} }
	note := len(row) - 1
	return append(row[:note:note], text(strings.TrimSpace(w.Engine+" "+w.Ver)), Cell{context, st}, Cell{kv, st}, Cell{rate, st}, Cell{tps, st},
		text(strings.Join(w.LoRA.On, ", ")), text(w.Endpoint), row[note])
}

// WorkerRow is the row of a worker in NewWorkers. now is the time of the reader's clock, and
// extra is added to ages.
func WorkerRow(w *api.WorkerInfo, extra time.Duration, now time.Time) []Cell {
	st := Plain
	if !w.Fresh || w.Live != hivebeat.Alive {
		st = Faint // the last report, which may be outdated
	}
	state := stateStyle(w.State)
	if st == Faint {
		state = Faint
	}
	busy, vram := none, none
	queue, done := strconv.FormatUint(w.Queue, 10), count(w.Done)
	if w.LoadUnknown() {
		queue, done = none, none
	}
	shown := cmp.Or(string(w.State), none)
	if w.Live == hivebeat.Lost && w.Exit != "" { // the state of its last beat was the end
		shown = none
	}
	switch {
	case w.LoadUnknown():
	case w.Slots > 0:
		busy = strconv.FormatUint(w.Busy, 10) + "/" + strconv.FormatUint(w.Slots, 10)
	case w.Busy > 0: // it does not report its slots
		busy = strconv.FormatUint(w.Busy, 10)
	}
	if held := cmp.Or(w.Proc.VRAM, w.VRAM); held > 0 {
		vram = GiB(held)
	}
	return []Cell{
		{Text: plaintext.Line(w.Hive + "/" + w.Worker)},
		workerLiveCell(w, extra),
		{plaintext.Line(shown), state},
		{Age(w.Age.Duration() + extra), st},
		{plaintext.Line(cmp.Or(w.Model, none)), st},
		{busy, st},
		{queue, st},
		{done, st},
		{vram, st},
		workerNote(w, extra, now),
	}
}

// workerLiveCell is the verdict on a worker. It is "quiet" if the worker is late only by the
// age of its last beat, and the worker had announced that silence.
func workerLiveCell(w *api.WorkerInfo, extra time.Duration) Cell {
	if w.Live == hivebeat.Late && quietLeft(w, extra) > 0 {
		return Cell{"quiet", Notice}
	}
	return Cell{plaintext.Line(string(w.Live)), liveStyle(w.Live)}
}

func workerNote(w *api.WorkerInfo, extra time.Duration, now time.Time) Cell {
	var notes []string
	st := Faint
	if w.Rival != 0 {
		notes, st = append(notes, "conflict: two processes beat as this one; stop one, or give it another --id"), Bad
	}
	for _, note := range []string{Imposed(Drained, w.Drained, "worker", extra), Imposed(Silenced, w.Silenced, "worker", extra)} {
		if note != "" {
			notes, st = append(notes, note), max(st, Notice)
		}
	}
	switch {
	case w.Cause == hivebeat.CauseLoads && w.Proc.RSS > 0:
		notes = append(notes, loads(&w.Proc))
	case w.Exit != "" && w.Exit != hivebeat.ExitEnded && w.Cause == hivebeat.CauseExit:
		notes = append(notes, causeText(w.Cause)+", "+w.Exit)
	case w.Cause != "" && string(w.Cause) != w.Reason:
		notes = append(notes, causeText(w.Cause))
	}
	if w.Stalled {
		notes, st = append(notes, "stalled"), max(st, Warn)
	}
	if w.Looping {
		notes, st = append(notes, "looping, "+restarts(w.Restarts)), max(st, Warn)
	}
	if f := w.GPUFault; f != nil {
		g := hivebeat.GPU{Index: f.Index, State: f.State, Cause: f.Cause, Action: f.Action}
		texts, style := gpuNotes([]hivebeat.GPU{g})
		notes, st = append(notes, texts...), max(st, style)
	}
	if w.MemoryConflict != "" {
		notes, st = append(notes, w.MemoryConflict), max(st, Warn)
	}
	quiet := quietLeft(w, extra)
	if quiet > 0 {
		notes, st = append(notes, quietText(quiet, now)), max(st, Notice)
	}
	if w.Reason != "" {
		notes, st = append(notes, w.Reason), max(st, Plain)
	}
	if !w.Fresh && w.Live == hivebeat.Late && w.Cause == "" && quiet == 0 {
		notes = append(notes, "not fresh")
	}
	if w.Via == hivebeat.ViaQueen {
		notes = append(notes, "via queen")
	}
	return Cell{plaintext.Line(strings.Join(notes, "; ")), st}
}

// restarts renders how often a worker has restarted.
func restarts(n uint64) string {
	return Plural(int(min(n, 1<<30)), "restart") + " in the last hour"
}

// causeText is a cause in words, if its own word needs them.
func causeText(c hivebeat.Cause) string {
	if c == hivebeat.CauseOOM {
		return "oom: killed because memory ran out"
	}
	return string(c)
}

// loads renders what a loading process has read and holds.
func loads(p *hivebeat.Proc) string {
	return fmt.Sprintf("loads: %s read, %s in memory", size(p.Read), size(p.RSS))
}

// quietLeft is the rest of the silence that a worker announced with its last beat. It is 0
// if the worker was declared late, lost or left all the same.
func quietLeft(w *api.WorkerInfo, extra time.Duration) time.Duration {
	if w.Live != hivebeat.Alive && (w.Live != hivebeat.Late || w.Cause != "") {
		return 0
	}
	return max(0, w.Quiet.Duration()-w.Age.Duration()-extra)
}

// quietText renders until when a worker is quiet. now is the time of the reader's clock.
func quietText(left time.Duration, now time.Time) string {
	return "quiet until " + now.Add(left).Format("15:04:05") + " (" + Age(left) + " left)"
}

func liveStyle(l hivebeat.Live) Style {
	switch l {
	case hivebeat.Alive:
		return Good
	case hivebeat.Lost:
		return Bad
	case hivebeat.Left:
		return Faint
	}
	return Warn // late, unverified, and verdicts of newer queens
}

func stateStyle(s hivebeat.State) Style {
	switch s {
	case hivebeat.Ready:
		return Good
	case hivebeat.Busy, hivebeat.Starting, hivebeat.Loading:
		return Notice
	case hivebeat.Failed:
		return Bad
	case hivebeat.Stopped:
		return Faint
	}
	return Warn
}

var liveOrder = []hivebeat.Live{hivebeat.Alive, hivebeat.Late, hivebeat.Unverified, hivebeat.Lost, hivebeat.Left}

// lives renders "8 alive 1 lost", or - if all counts are zero.
func lives(counts map[hivebeat.Live]int) string {
	return cmp.Or(words(counts, liveOrder, nil), none)
}

// words renders counts in the given order, then the words that are not in it.
func words[W ~string](counts map[W]int, order []W, text func(W, string) string) string {
	var parts []string
	add := func(w W) {
		if n := counts[w]; n > 0 {
			s := count(uint64(n)) + " " + plaintext.Line(string(w))
			if text != nil {
				s = text(w, s)
			}
			parts = append(parts, s)
		}
	}
	for _, w := range order {
		add(w)
	}
	for _, w := range slices.Sorted(maps.Keys(counts)) {
		if !slices.Contains(order, w) {
			add(w)
		}
	}
	return strings.Join(parts, " ")
}
