package gpu

import (
	"bufio"
	"cmp"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/beatfabric/hivebeat"
)

// Fact names a condition of a GPU that the driver reports without a verdict of its own.
type Fact string

// The facts. An XID is the fact "xid 79" and so on.
const (
	FactRemapFailure   Fact = "remap-failure"       // a row of its memory could not be remapped
	FactUnrepairable   Fact = "unrepairable-memory" // its memory has an error that cannot be repaired
	FactSRAMThreshold  Fact = "sram-threshold"      // more errors of its SRAM than NVIDIA tolerates
	FactRemapPending   Fact = "remap-pending"       // rows are remapped at the next reset
	FactRetirePending  Fact = "retire-pending"      // pages are retired at the next reset
	FactRepairPending  Fact = "repair-pending"      // a channel or a TPC is repaired at the next reset
	FactUncorrectable  Fact = "ecc-uncorrectable"   // memory errors since the driver was loaded
	FactThermal        Fact = "throttle-thermal"    // it runs slower because of heat
	FactPowerBrake     Fact = "throttle-power"      // the power supply slows it down
	FactHardwareSlowed Fact = "throttle-hardware"   // its hardware slows it down, for heat or power
)

// FactXID is the fact that a GPU, or a program on it, has caused the XID n.
func FactXID(n int) Fact { return Fact("xid " + strconv.Itoa(n)) }

// Meaning is what a fact means.
type Meaning uint8

// The meanings.
const (
	Ignored  Meaning = iota // nothing: at most a note at the worker that had the pid
	Program                 // the program's fault: noted at the worker that had the pid, never at the GPU
	Degraded                // the GPU is degraded
	Failing                 // the GPU is failing
)

var meanings = []string{"ignore", "program", "degraded", "failing"} // by Meaning

// Rule says what a fact means.
type Rule struct {
	Meaning Meaning
	Action  string // one of hivebeat.Action…, if the GPU is degraded or failing; empty if nothing needs to be done
	Cause   hivebeat.Cause
	Text    string // in words
}

// Table says what facts mean. The driver's own verdict (its recovery action, "GPU is lost",
// "GPU requires reset") stands above it. A fact that a Table lacks is ignored.
type Table map[Fact]Rule

// DefaultFaults is the table that holds without a file: NVIDIA's catalog of XIDs, and its
// guides to memory errors.
func DefaultFaults() Table {
	t := xidRules()
	maps.Copy(t, Table{
		FactRemapFailure:   {Failing, hivebeat.ActionReplace, hivebeat.CauseRemap, "a row of its memory could not be remapped"},
		FactUnrepairable:   {Failing, hivebeat.ActionReplace, hivebeat.CauseECC, "its memory cannot be repaired"},
		FactSRAMThreshold:  {Degraded, hivebeat.ActionReplace, hivebeat.CauseECC, "more SRAM errors than NVIDIA tolerates"},
		FactRemapPending:   {Degraded, hivebeat.ActionReset, hivebeat.CauseRemap, "rows of its memory are remapped at the next reset"},
		FactRetirePending:  {Degraded, hivebeat.ActionReset, hivebeat.CauseRemap, "pages of its memory are retired at the next reset"},
		FactRepairPending:  {Degraded, hivebeat.ActionReset, hivebeat.CauseECC, "it is repaired at the next reset"},
		FactUncorrectable:  {Degraded, hivebeat.ActionReset, hivebeat.CauseECC, "uncorrectable memory errors"},
		FactThermal:        {Degraded, "", hivebeat.CauseThrottle, "slower because of heat"},
		FactPowerBrake:     {Degraded, "", hivebeat.CauseThrottle, "slowed down by the power supply"},
		FactHardwareSlowed: {Degraded, "", hivebeat.CauseThrottle, "slowed down by its hardware"},
	})
	return t
}

// fault returns what the fact means of a GPU; ok is false if it is nothing against the GPU.
// detail, if any, follows the words of the rule.
func (t Table) fault(fact Fact, detail string) (f Fault, ok bool) {
	r := t[fact]
	f = Fault{State: hivebeat.GPUDegraded, Cause: r.Cause, Evidence: r.Text, Action: r.Action}
	if r.Meaning == Failing {
		f.State = hivebeat.GPUFailing
	}
	if f.Evidence == "" {
		f.Evidence = string(fact)
	}
	if detail != "" {
		f.Evidence += " (" + detail + ")"
	}
	f.Evidence = oneLine(f.Evidence, hivebeat.MaxHostText)
	return f, r.Meaning >= Degraded
}

// LoadFaults returns the default table with the rules of a file in place of its own. A line
// is a fact, its meaning, an action if the GPU is degraded or failing, and words of your own:
//
//	# comment
//	xid 79        failing reboot  fell off the bus
//	xid 63        ignore
//	xid 31        program
//	remap-pending failing drain_reset
//
// A later line wins over an earlier one. An error names the line.
func LoadFaults(r io.Reader) (Table, error) {
	t := DefaultFaults()
	s := bufio.NewScanner(r)
	for n := 1; s.Scan(); n++ {
		line, _, _ := strings.Cut(s.Text(), "#")
		if fields := strings.Fields(line); len(fields) > 0 {
			if err := t.rule(fields); err != nil {
				return nil, fmt.Errorf("line %d: %w", n, err)
			}
		}
	}
	return t, s.Err()
}

func (t Table) rule(f []string) error {
	fact := Fact(f[0])
	f = f[1:]
	if fact == "xid" {
		if len(f) == 0 {
			return fmt.Errorf("xid without a number")
		}
		n, err := strconv.ParseUint(f[0], 10, 16)
		if err != nil {
			return fmt.Errorf("xid %q is no number", f[0])
		}
		fact, f = FactXID(int(n)), f[1:]
	} else if _, ok := t[fact]; !ok {
		return fmt.Errorf("no fact is called %q; there are xid and %s", fact, strings.Join(t.named(), ", "))
	}
	if len(f) == 0 {
		return fmt.Errorf("%s has no meaning: one of %s", fact, strings.Join(meanings, ", "))
	}
	m := slices.Index(meanings, f[0])
	if m < 0 {
		return fmt.Errorf("%s means %q; it must be one of %s", fact, f[0], strings.Join(meanings, ", "))
	}
	r := Rule{Meaning: Meaning(m), Cause: t[fact].Cause, Text: t[fact].Text}
	if r.Cause == "" {
		r.Cause = hivebeat.CauseXID
	}
	f = f[1:]
	if len(f) > 0 && slices.Contains(actions, f[0]) {
		if r.Meaning < Degraded {
			return fmt.Errorf("%s: %s has no action, but %q is one", fact, meanings[m], f[0])
		}
		r.Action, f = f[0], f[1:]
	}
	if len(f) > 0 {
		r.Text = oneLine(strings.Join(f, " "), hivebeat.MaxHostText)
	}
	t[fact] = r
	return nil
}

var actions = []string{hivebeat.ActionReset, hivebeat.ActionReboot, hivebeat.ActionDrain, hivebeat.ActionDrainReset, hivebeat.ActionReplace}

// named lists the facts that are no XIDs.
func (t Table) named() (all []string) {
	for f := range t {
		if !strings.HasPrefix(string(f), "xid ") {
			all = append(all, string(f))
		}
	}
	slices.Sort(all)
	return all
}

// sortFaults puts the worst first, and keeps the order of those that are equally bad.
func sortFaults(faults []Fault) {
	slices.SortStableFunc(faults, func(a, b Fault) int { return cmp.Compare(rank(b.State), rank(a.State)) })
}
