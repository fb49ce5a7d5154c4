package show

import (
	"strconv"
	"strings"
	"time"

	"github.com/beatfabric/hivebeat"
	"github.com/beatfabric/hivebeat/internal/plaintext"
	"github.com/beatfabric/hivebeat/queen/api"
)

// The parts of a bar differ in shape, not only in colour.
const (
	barOurs   = "█"
	barOthers = "▒"
	barFree   = "·"
)

// Bar renders the shares of total that are ours and that others hold, width columns wide
// including the brackets. A part that is not zero takes at least one column.
func Bar(ours, others, total uint64, width int, p Paint) string {
	room := width - 2
	if room < 1 {
		return ""
	}
	ours = min(ours, total)
	others = min(others, total-ours)
	a, b := columnsOf(ours, total, room), columnsOf(others, total, room)
	for a+b > room { // both were rounded up
		if a > b {
			a--
		} else {
			b--
		}
	}
	return "[" + p.Text(strings.Repeat(barOurs, a), Notice) + p.Text(strings.Repeat(barOthers, b), Warn) +
		p.Text(strings.Repeat(barFree, room-a-b), Faint) + "]"
}

func columnsOf(part, total uint64, room int) int {
	if part == 0 || total == 0 {
		return 0
	}
	return max(1, int(float64(part)/float64(total)*float64(room)+0.5))
}

// VRAM renders how the fleet's VRAM is used, with a bar if width allows it, and an empty
// text if there is no VRAM. What the driver keeps counts with that of others. The memory of
// GPUs whose figures are old is only named.
func VRAM(s *api.Summary, width int, p Paint) string {
	if s.VRAMTotal == 0 {
		unknown := notKnown(s.VRAMStale, staleGPUs(s))
		if unknown == "" {
			return ""
		}
		return p.Text("VRAM", Strong) + " " + p.Text(unknown, Warn)
	}
	used := min(s.VRAMUsed+s.VRAMReserved, s.VRAMTotal) // used or reserved
	ours := min(s.VRAMOurs, used)
	unit, scale := "GiB", uint64(1)
	if s.VRAMTotal >= 10<<40 {
		unit, scale = "TiB", 1<<10
	}
	amount := func(bytes uint64) string { return GiB(bytes / scale) }
	text := p.Text("VRAM", Strong) + " "
	legend := barOurs + " ours " + amount(ours) + "  " + barOthers + " others " + amount(used-ours) + "  " + barFree + " free " + amount(s.VRAMTotal-used)
	if of := " of " + amount(s.VRAMTotal) + " " + unit; Width(text+legend+of) <= width {
		legend += of
		if unknown := notKnown(s.VRAMStale, staleGPUs(s)); unknown != "" && Width(text+legend+unknown)+2 <= width {
			legend += ", " + p.Text(unknown, Warn)
		}
		if gpus := ", " + Plural(s.GPUs, "GPU"); Width(text+legend+gpus) <= width {
			legend += gpus
		}
	}
	if room := min(40, width-Width(text)-Width(legend)-2); room >= 10 {
		text += Bar(ours, used-ours, s.VRAMTotal, room, p) + "  "
	}
	return text + legend
}

const gpuBar = 22 // columns

// NewGPUs returns the table of a hive's GPUs.
func NewGPUs(p Paint, width int) *Table {
	return &Table{Paint: p, Width: width, Columns: []Column{
		{Title: "GPU", Right: true},
		{Title: "VRAM", Least: 12, Drop: 6},
		{Title: "GiB", Right: true},
		{Title: "OTHERS", Right: true, Drop: 5},
		{Title: "UTIL", Right: true},
		{Title: "TEMP", Right: true, Drop: 3},
		{Title: "POWER", Right: true, Drop: 2},
		{Title: "NAME", Least: 8, Drop: 4},
		{Title: "NOTE", Least: 14, Drop: 7},
		{Title: "UUID", Least: 12, Drop: 1},
	}}
}

// GPURows are the rows of a GPU in NewGPUs: one for the GPU and one for each of its MIG
// instances. extra is added to its ages.
func GPURows(g *hivebeat.GPU, extra time.Duration, p Paint) [][]Cell {
	state := g.Condition()
	bar, held, foreign, util, temp, power := "", none, none, none, none, none
	switch {
	case state.Usable():
		bar = Bar(g.Ours, g.Used-min(g.Ours, g.Used)+g.Reserved, g.Total, gpuBar, p)
		held, util = usedOf(g.Used, g.Total), strconv.FormatUint(g.Util, 10)+"%"
		if others := g.Used - min(g.Ours, g.Used); others > 0 {
			foreign = GiB(others)
		}
		if g.Temp != 0 {
			temp = strconv.FormatInt(g.Temp, 10) + "°C"
		}
		if g.Power != 0 {
			power = strconv.FormatUint(g.Power/1000, 10) + "W"
		}
	case g.Total > 0: // its use is unknown now
		held = "?/" + GiB(g.Total)
	}
	rows := [][]Cell{{
		{Text: strconv.FormatUint(g.Index, 10)},
		{Text: bar},
		{Text: held},
		{Text: foreign},
		{Text: util},
		{Text: temp},
		{Text: power},
		{Text: plaintext.Line(g.Name)},
		gpuNote(g, extra),
		{plaintext.Line(g.UUID), Faint},
	}}
	for i := range g.Instances {
		rows = append(rows, instanceRow(g, &g.Instances[i], p))
	}
	return rows
}

// gpuNote is a remark on a GPU beside its figures.
func gpuNote(g *hivebeat.GPU, extra time.Duration) Cell {
	var notes []string
	st := Plain
	add := func(s string, as Style) { notes, st = append(notes, s), max(st, as) }
	state := g.Condition()
	if state != hivebeat.GPUOK {
		text := string(state)
		if what := shortly(g); what != "" {
			text += ": " + what
		}
		if g.Evidence != "" {
			text += " (" + g.Evidence + ")"
		}
		add(text, gpuStyle(state))
	}
	if g.Orphaned > 0 && state.Usable() {
		add(size(g.Orphaned)+" "+orphaned(g), Warn)
	}
	if g.Err != "" && g.Err != g.Evidence {
		add(g.Err, Warn)
	}
	if old := g.Age.Duration() + extra; old >= time.Minute && g.Err == "" {
		add("read "+Age(old)+" ago", Warn)
	}
	if g.MIG && state.Usable() {
		add("MIG: "+Plural(len(g.Instances), "instance"), Plain)
	}
	return Cell{plaintext.Line(strings.Join(notes, "; ")), st}
}

func instanceRow(g *hivebeat.GPU, m *hivebeat.GPUInstance, p Paint) []Cell {
	bar, held, foreign := "", "?/"+GiB(m.Total), none
	if g.Condition().Usable() {
		others := m.Used - min(m.Ours, m.Used)
		bar, held = Bar(m.Ours, others+m.Reserved, m.Total, gpuBar, p), usedOf(m.Used, m.Total)
		if others > 0 {
			foreign = GiB(others)
		}
	}
	return []Cell{
		{},
		{Text: bar},
		{Text: held},
		{Text: foreign},
		{Text: none},
		{Text: none},
		{Text: none},
		{Text: plaintext.Line("MIG " + m.Profile)},
		{},
		{plaintext.Line(m.UUID), Faint},
	}
}
