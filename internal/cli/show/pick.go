package show

import (
	"cmp"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/beatfabric/hivebeat/internal/plaintext"
	"github.com/beatfabric/hivebeat/queen/api"
)

// NewPicks returns the table of picked workers, or of picked GPUs.
func NewPicks(gpus bool, p Paint, width int) *Table {
	what, free := Column{Title: "WORKER", Least: 20}, Column{Title: "FREE SLOTS", Right: true}
	if gpus {
		what, free = Column{Title: "HIVE", Least: 16}, Column{Title: "GPU", Right: true}
	}
	return &Table{Paint: p, Width: width, Columns: []Column{
		{Title: "RANK", Right: true},
		what,
		{Title: "ZONE", Least: 4, Drop: 3},
		{Title: "MODEL", Least: 12, Drop: 5},
		free,
		{Title: "FREE GiB", Right: true, Drop: 4},
		{Title: "AGE", Right: true},
		{Title: "ENDPOINT", Least: 24, Drop: 2},
		{Title: "HOLD", Least: 8, Drop: 6},
		{Title: "WHY", Least: 20, Drop: 1},
	}}
}

// PickRow is the row of a pick in NewPicks.
func PickRow(k *api.Pick, gpus bool) []Cell {
	what := k.Hive + "/" + k.Worker
	free := none
	switch {
	case gpus:
		what = k.Hive
		free = pickedGPU(k)
	case k.Slots > 0:
		free = strconv.FormatUint(k.FreeSlots, 10) + "/" + strconv.FormatUint(k.Slots, 10)
	}
	why := strings.Join(k.Reasons, "; ")
	if len(k.GPUs) > 1 || k.Profile != "" { // their indexes do not name them
		names := strings.Join(k.GPUs, ", ")
		why = strings.TrimSuffix(cmp.Or(names, k.GPU)+"; "+why, "; ")
	}
	vram := none
	if k.FreeVRAM > 0 {
		vram = GiB(k.FreeVRAM)
	}
	return []Cell{
		{Text: strconv.Itoa(k.Rank)},
		{plaintext.Line(what), Strong},
		{Text: plaintext.Line(cmp.Or(k.Zone, none))},
		{Text: plaintext.Line(cmp.Or(k.Model, none))},
		{Text: free},
		{Text: vram},
		{Text: age(k.Age)},
		{Text: plaintext.Line(cmp.Or(k.Endpoint, none))},
		{Text: plaintext.Line(cmp.Or(k.Hold, none))},
		{plaintext.Line(why), Faint},
	}
}

// pickedGPU renders the index of a picked GPU, the profile of a MIG instance on it, or the
// number of GPUs.
func pickedGPU(k *api.Pick) string {
	var s string
	switch {
	case len(k.GPUs) > 1:
		return plural(len(k.GPUs), "GPU")
	case k.GPUIndex != nil:
		s = strconv.FormatUint(*k.GPUIndex, 10)
	}
	if k.Profile != "" {
		s = strings.TrimSpace(s + " MIG " + plaintext.Line(k.Profile))
	}
	return cmp.Or(s, none)
}

// Passed renders how many were passed over for each reason, most frequent first.
func Passed(passed map[string]int) string {
	reasons := slices.SortedFunc(maps.Keys(passed), func(a, b string) int {
		return cmp.Or(cmp.Compare(passed[b], passed[a]), cmp.Compare(a, b))
	})
	var parts []string
	for _, why := range reasons {
		if n := passed[why]; n > 0 {
			parts = append(parts, count(uint64(n))+" "+plaintext.Line(why))
		}
	}
	return strings.Join(parts, ", ")
}
