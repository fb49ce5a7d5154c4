package show

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/beatfabric/hivebeat"
	"github.com/beatfabric/hivebeat/internal/plaintext"
	"github.com/beatfabric/hivebeat/queen/api"
)

// NewModels returns the table of models.
func NewModels(p Paint, width int) *Table {
	return &Table{Paint: p, Width: width, Columns: []Column{
		{Title: "MODEL", Least: 20},
		{Title: "ABLE", Right: true},
		{Title: "WORKERS", Right: true, Drop: 8},
		{Title: "BUSY", Right: true, Drop: 7},
		{Title: "FREE", Right: true},
		{Title: "QUEUE", Right: true, Drop: 6},
		{Title: "REQ/S", Right: true, Drop: 4},
		{Title: "TOK/S", Right: true, Drop: 3},
		{Title: "VRAM GiB", Right: true, Drop: 5},
		{Title: "ZONES", Least: 10, Drop: 1},
		{Title: "ENGINES", Least: 12, Drop: 2},
		{Title: "NOTE", Least: 14, Drop: 9},
	}}
}

// ModelRow is the row of a model in NewModels.
func ModelRow(m *api.ModelInfo) []Cell {
	able := Cell{count(uint64(m.Able)), Plain}
	if m.Able == 0 {
		able.Style = Bad
	}
	busy, rate, tps, vram := none, none, none, none
	if m.Slots > 0 {
		busy = fmt.Sprintf("%d/%d", m.Busy, m.Slots)
	} else if m.Busy > 0 {
		busy = strconv.FormatUint(m.Busy, 10)
	}
	if m.Rate > 0 {
		rate = fmt.Sprintf("%.3g", m.Rate)
	}
	if m.TPS > 0 {
		tps = count(uint64(m.TPS))
	}
	if m.VRAM > 0 {
		vram = GiB(m.VRAM)
	}
	notes, st := modelNotes(m)
	return []Cell{
		{Text: plaintext.Line(m.Model)},
		able,
		{Text: count(uint64(Total(m.Workers)))},
		{Text: busy},
		{Text: count(m.Free)},
		{Text: count(m.Queue)},
		{Text: rate},
		{Text: tps},
		{Text: vram},
		{Text: tallied(m.Zones)},
		{Text: tallied(m.Engines)},
		{strings.Join(notes, ", "), st},
	}
}

// modelNotes says which workers of a model cannot take work: those that are not alive, by verdict, and
// those that are, by state.
func modelNotes(m *api.ModelInfo) (notes []string, st Style) {
	st = Faint
	for _, l := range []hivebeat.Live{hivebeat.Lost, hivebeat.Late, hivebeat.Left, hivebeat.Unverified} {
		if n := m.Workers[l]; n > 0 {
			notes, st = append(notes, fmt.Sprintf("%d %s", n, l)), max(st, liveStyle(l))
		}
	}
	for _, s := range slices.Sorted(maps.Keys(m.States)) {
		if s != hivebeat.Ready && s != hivebeat.Busy {
			notes, st = append(notes, fmt.Sprintf("%d %s", m.States[s], plaintext.Line(string(s)))), max(st, stateStyle(s))
		}
	}
	return notes, st
}

// tallied renders counts by name, the largest first: "eu-1 3, eu-2 1".
func tallied(of map[string]int) string {
	names := slices.SortedFunc(maps.Keys(of), func(a, b string) int { return cmp.Or(cmp.Compare(of[b], of[a]), strings.Compare(a, b)) })
	if len(names) == 1 && names[0] != "" {
		return plaintext.Line(names[0])
	}
	var parts []string
	for _, n := range names {
		if n != "" {
			parts = append(parts, fmt.Sprintf("%s %d", plaintext.Line(n), of[n]))
		}
	}
	return cmp.Or(strings.Join(parts, ", "), none)
}

// NewGPUTable returns the table of GPUs.
func NewGPUTable(p Paint, width int) *Table {
	return &Table{Paint: p, Width: width, Columns: []Column{
		{Title: "GPU", Least: 16},
		{Title: "NAME", Least: 12, Drop: 3},
		{Title: "STATE"},
		{Title: "FREE GiB", Right: true},
		{Title: "USED GiB", Right: true, Drop: 8},
		{Title: "OURS", Right: true, Drop: 5},
		{Title: "FOREIGN", Right: true, Drop: 6},
		{Title: "HELD", Right: true, Drop: 4},
		{Title: "UTIL", Right: true, Drop: 1},
		{Title: "AGE", Right: true, Drop: 2},
		{Title: "WORKERS", Least: 12, Drop: 7},
		{Title: "NOTE", Least: 14, Drop: 9},
	}}
}

// GPURow is the row of a GPU in NewGPUTable.
func GPURow(g *api.GPUInfo) []Cell {
	state := g.Condition()
	st, free, used, util := Plain, none, none, none
	if !state.Usable() {
		st = Faint // its figures are old
	}
	if state.Usable() && g.Total > 0 {
		free = GiB(g.Free)
	}
	if g.Total > 0 {
		used, util = usedOf(g.Used, g.Total), strconv.FormatUint(g.Util, 10)+"%"
	}
	bytes := func(n uint64) Cell {
		if n == 0 {
			return Cell{none, st}
		}
		return Cell{GiB(n), st}
	}
	var notes []string
	if g.Live != hivebeat.Alive {
		notes = append(notes, "its hive is "+string(g.Live))
	}
	if state != hivebeat.GPUOK {
		notes = append(notes, cmp.Or(g.Evidence, string(g.Cause)), actionText(g.Action))
	}
	notes = append(notes, Imposed(Drained, g.Drained, "gpu", 0))
	if g.MIG {
		notes = append(notes, Plural(len(g.Instances), "instance"))
	}
	return []Cell{
		{Text: plaintext.Line(fmt.Sprintf("%s/%d", g.Hive, g.Index))},
		{plaintext.Line(cmp.Or(strings.TrimPrefix(g.Name, "NVIDIA "), none)), st},
		{plaintext.Line(string(state)), gpuStyle(state)},
		{free, st},
		{used, st},
		bytes(g.Ours), bytes(g.Foreign), bytes(g.Held),
		{util, st},
		{Age(g.Age.Duration()), st},
		{plaintext.Line(cmp.Or(strings.Join(g.Workers, ", "), none)), Plain},
		{plaintext.Line(join(notes...)), gpuStyle(state)},
	}
}
