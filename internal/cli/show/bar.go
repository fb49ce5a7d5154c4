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
// text if there is no VRAM.
func VRAM(s *api.Summary, width int, p Paint) string {
	if s.VRAMTotal == 0 {
		return ""
	}
	used := min(s.VRAMUsed, s.VRAMTotal)
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

// GPURow is the row of a GPU in NewGPUs. extra is added to its age.
func GPURow(g *hivebeat.GPU, extra time.Duration, p Paint) []Cell {
	others := g.Used - min(g.Ours, g.Used)
	temp, power, foreign, note := none, none, none, Cell{}
	if g.Temp != 0 {
		temp = strconv.FormatInt(g.Temp, 10) + "°C"
	}
	if g.Power != 0 {
		power = strconv.FormatUint(g.Power/1000, 10) + "W"
	}
	if others > 0 {
		foreign = GiB(others)
	}
	if old := g.Age.Duration() + extra; old >= time.Minute {
		note = Cell{"read " + Age(old) + " ago", Warn}
	}
	if g.Err != "" {
		note = Cell{plaintext.Line(g.Err), Warn}
	}
	return []Cell{
		{Text: strconv.FormatUint(g.Index, 10)},
		{Text: Bar(g.Ours, others, g.Total, gpuBar, p)},
		{Text: usedOf(g.Used, g.Total)},
		{Text: foreign},
		{Text: strconv.FormatUint(g.Util, 10) + "%"},
		{Text: temp},
		{Text: power},
		{Text: plaintext.Line(g.Name)},
		note,
		{plaintext.Line(g.UUID), Faint},
	}
}
