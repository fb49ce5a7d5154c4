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
)

// sumOf adds up the GPUs whose figures are current. Those of the others are in no sum but
// stale, which counts their total memory.
type sumOf struct {
	n                             int // GPUs that are ok or degraded
	total, used, util             uint64
	foreign, orphaned, staleBytes uint64
	stale                         int
}

func sumUp(gpus []hivebeat.GPU) (s sumOf) {
	for i := range gpus {
		g := &gpus[i]
		if !g.Condition().Usable() {
			s.stale++
			s.staleBytes += g.Total
			continue
		}
		s.n++
		s.total, s.used, s.util = s.total+g.Total, s.used+g.Used, s.util+g.Util
		s.foreign, s.orphaned = s.foreign+g.Foreign(), s.orphaned+g.Orphaned
	}
	return s
}

// notKnown renders how much memory is left out of a sum because its figures are old.
func notKnown(bytes uint64, gpus int) string {
	switch {
	case bytes == 0 && gpus <= 0:
		return ""
	case bytes == 0:
		return Plural(gpus, "GPU") + " not known"
	case gpus <= 0:
		return size(bytes) + " not known"
	}
	return size(bytes) + " of " + Plural(gpus, "GPU") + " not known"
}

// badFirst is the order in which the states of GPUs are noted.
var badFirst = []hivebeat.GPUState{hivebeat.GPUFailing, hivebeat.GPUGone, hivebeat.GPUUnknown, hivebeat.GPUDegraded}

// gpuNotes names the GPUs of a hive that are not ok, worst first: one short text for each
// state, however many GPUs have it.
func gpuNotes(gpus []hivebeat.GPU) (notes []string, st Style) {
	by := map[hivebeat.GPUState][]*hivebeat.GPU{}
	for i := range gpus {
		if s := gpus[i].Condition(); s != hivebeat.GPUOK {
			by[s] = append(by[s], &gpus[i])
		}
	}
	order := slices.Clone(badFirst)
	for _, s := range slices.Sorted(maps.Keys(by)) {
		if !slices.Contains(order, s) {
			order = append(order, s)
		}
	}
	for _, s := range order {
		of := by[s]
		if len(of) == 0 {
			continue
		}
		note := Plural(len(of), "GPU")
		if len(of) == 1 {
			note = gpuName(of[0].Index)
		}
		note += " " + string(s)
		what := shortly(of[0])
		for _, g := range of[1:] {
			if shortly(g) != what {
				what = ""
			}
		}
		if what != "" {
			note += ": " + what
		}
		notes, st = append(notes, note), max(st, gpuStyle(s))
	}
	return notes, st
}

// shortly is what there is to do about a GPU, or else why it is in its state, in a few words.
func shortly(g *hivebeat.GPU) string {
	switch {
	case g.Action != "":
		return g.Action
	case g.State == hivebeat.GPUGone: // the state says it
		return ""
	case g.Cause == hivebeat.CauseLostGPU:
		return "lost"
	case g.Cause == hivebeat.CauseUnread:
		return "not read"
	}
	return string(g.Cause)
}

func gpuName(index uint64) string { return "GPU " + strconv.FormatUint(index, 10) }

func gpuStyle(s hivebeat.GPUState) Style {
	switch {
	case s == hivebeat.GPUOK:
		return Good
	case s.Bad():
		return Bad
	}
	return Warn
}

// gpuStates renders "8 GPUs", or "8 GPUs: 6 ok 1 degraded 1 gone" if not all are ok.
func gpuStates(usable int, states map[hivebeat.GPUState]int, p Paint) string {
	n := max(usable, Total(states)) // an older queen does not report the states
	if n == 0 {
		return ""
	}
	text := Plural(n, "GPU")
	if states[hivebeat.GPUOK] < Total(states) { // not all are ok
		text += ": " + words(states, append([]hivebeat.GPUState{hivebeat.GPUOK, hivebeat.GPUDegraded}, badFirst[:3]...),
			func(s hivebeat.GPUState, text string) string { return p.Text(text, gpuStyle(s)) })
	}
	return text
}

// actionText says in words what ends a fault.
func actionText(action string) string {
	switch action {
	case hivebeat.ActionReset:
		return "reset the GPU"
	case hivebeat.ActionReboot:
		return "reboot the machine"
	case hivebeat.ActionDrain:
		return "drain peer-to-peer traffic, then reset the GPU"
	case hivebeat.ActionDrainReset:
		return "let the work end, then reset the GPU"
	case hivebeat.ActionReplace:
		return "replace the GPU, then \"hivebeat forget\" it"
	}
	return action
}

// gpuLines renders everything about one GPU but its index. old says that the facts of the
// whole hive are too old to be used.
func gpuLines(g *hivebeat.GPU, old bool, p Paint) []string {
	state := g.Condition()
	current := !old && (state.Usable() || state == hivebeat.GPUFailing && g.Err == "" && g.Age.Duration() < time.Minute)
	parts := join(g.Name)
	add := func(s string) {
		if parts != "" && s != "" {
			parts += " · "
		}
		parts += s
	}
	if g.Unified {
		add("memory shared with the machine")
	}
	if current {
		if g.Util > 0 || state.Usable() && !g.MIG { // otherwise the driver has no value
			add(fmt.Sprintf("%d%% busy", g.Util))
		}
		if g.Temp != 0 {
			add(fmt.Sprintf("%d °C", g.Temp))
		}
		if g.Power != 0 {
			add(fmt.Sprintf("%d W", g.Power/1000))
		}
	}
	if !current && g.Age > 0 || g.Age.Duration() >= time.Minute {
		add(p.Text("last read "+age(g.Age)+" ago", Warn))
	}
	add(p.Text(plaintext.Line(g.UUID), Faint))
	lines := []string{parts}
	if state != hivebeat.GPUOK {
		lines = append(lines, gpuWhy(g, p))
	}
	if g.Err != "" && g.Err != g.Evidence {
		lines = append(lines, p.Text(plaintext.Line(g.Err), Warn))
	}
	if m := memory(g, current, state.Usable()); m != "" {
		lines = append(lines, m)
	}
	for i := range g.Instances {
		lines = append(lines, instance(&g.Instances[i], current, state.Usable(), p))
	}
	return lines
}

// gpuWhy renders the state of a GPU that is not ok, since when, why, and what ends it.
func gpuWhy(g *hivebeat.GPU, p Paint) string {
	state := g.Condition()
	text := string(state)
	if g.Since > 0 {
		text += " for " + age(g.Since)
	}
	if why := cmp.Or(g.Evidence, string(g.Cause)); why != "" {
		text += ": " + why
	}
	if todo := advice(g); todo != "" {
		text += " · to do: " + todo
	}
	return p.Text(plaintext.Line(text), gpuStyle(state))
}

// advice says what to do about a GPU that cannot be used. Where the driver recommends
// nothing, it says where to look.
func advice(g *hivebeat.GPU) string {
	switch state := g.Condition(); {
	case g.Action != "":
		return actionText(g.Action)
	case state == hivebeat.GPUGone:
		return fmt.Sprintf("look at the machine's kernel log; if the GPU was removed, hivebeat forget HIVE/%d", g.Index)
	case state == hivebeat.GPUFailing:
		return "look at the machine's kernel log, and reboot the machine"
	case state == hivebeat.GPUUnknown && g.Cause == hivebeat.CauseUnread:
		return "run nvidia-smi, or the driver's other tool, on the machine"
	}
	return ""
}

// memory renders the parts of a GPU's memory, which add up to its total. Of figures that
// are not current it says so, and nothing is called free.
func memory(g *hivebeat.GPU, current, usable bool) string {
	if g.Total == 0 {
		if current {
			return "its memory is not known"
		}
		return ""
	}
	free := "free"
	switch {
	case !current:
		free = "unused"
	case !usable:
		free = "not offered"
	case g.MIG:
		free = "free in all"
	}
	text := GiB(g.Total) + " GiB"
	switch {
	case current:
		text += ": "
	case g.Used == 0 && g.Reserved == 0: // after a restart of the hive, what was used is not known
		return text
	default:
		text += ", when last read: "
	}
	return text + addUp(g.Total, []part{
		{"ours", g.Ours}, {orphaned(g), g.Orphaned}, {"foreign", g.Foreign()}, {"unattributed", g.Unattributed}, {"reserved", g.Reserved}, {free, g.Free()},
	})
}

// orphaned says whose the memory of ended workers was, or that of most of it.
func orphaned(g *hivebeat.GPU) string {
	if g.OrphanOf == "" {
		return "orphaned"
	}
	return "orphan of " + g.OrphanOf
}

// instance renders a MIG instance.
func instance(m *hivebeat.GPUInstance, current, usable bool, p Paint) string {
	text := "MIG " + cmp.Or(m.Profile, "instance") + " · "
	switch {
	case !current:
		text += size(m.Total)
	case !usable:
		text += usedOf(m.Used, m.Total) + " GiB used"
	default:
		text += GiB(m.Free()) + " of " + GiB(m.Total) + " GiB free"
	}
	if current {
		for _, q := range []part{{"ours", m.Ours}, {"orphaned", m.Orphaned}, {"foreign", m.Foreign()}, {"unattributed", m.Unattributed}} {
			if q.bytes > 0 {
				text += ", " + size(q.bytes) + " " + q.name
			}
		}
	}
	return plaintext.Line(text) + " · " + p.Text(plaintext.Line(m.UUID), Faint)
}

// part is a named share of memory.
type part struct {
	name  string
	bytes uint64
}

// addUp renders parts of total in GiB, so that the printed numbers add up to the printed
// total: each is rounded down, and the tenths that are missing go to those that lost most.
// A part that is too small for that is shown in MiB.
func addUp(total uint64, parts []part) string {
	const tenth = gib / 10.0
	left := int(float64(total)/tenth + 0.5)
	tenths, lost := make([]int, len(parts)), make([]float64, len(parts))
	for i, q := range parts {
		exact := float64(q.bytes) / tenth
		tenths[i] = int(exact)
		lost[i] = exact - float64(tenths[i])
		left -= tenths[i]
	}
	for ; left > 0; left-- {
		at := 0
		for i := range parts {
			if lost[i] > lost[at] {
				at = i
			}
		}
		if lost[at] <= 0 { // the parts do not add up to the total
			break
		}
		tenths[at]++
		lost[at] = 0
	}
	var out []string
	for i, q := range parts {
		switch {
		case tenths[i] > 0:
			out = append(out, strings.TrimSuffix(strconv.FormatFloat(float64(tenths[i])/10, 'f', 1, 64), ".0")+" "+q.name)
		case q.bytes >= 1<<20:
			out = append(out, size(q.bytes)+" "+q.name)
		}
	}
	return strings.Join(out, " + ")
}
