package gpu

import (
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/beatfabric/hivebeat"
)

// wordsOfFault returns the verdict of the driver in the text of a field or a message: the
// GPU is lost, or requires a reset.
func wordsOfFault(s string) (Fault, bool) {
	w := strings.ToLower(s)
	switch {
	case strings.Contains(w, "is lost") || strings.Contains(w, "fallen off the bus"):
		return Fault{hivebeat.GPUFailing, hivebeat.CauseLostGPU, oneLine(s, hivebeat.MaxHostText), hivebeat.ActionReboot}, true
	case strings.Contains(w, "requires reset") || strings.Contains(w, "requires a reset"):
		return Fault{hivebeat.GPUFailing, hivebeat.CauseReset, oneLine(s, hivebeat.MaxHostText), hivebeat.ActionReset}, true
	}
	return Fault{}, false
}

// The forms in which messages name a GPU: "GPU 0000:1A:00.0", "GPU0000:02:00.0", "gpu 3".
var (
	busInText   = regexp.MustCompile(`[0-9A-Fa-f]{4,8}:[0-9A-Fa-f]{2}:[0-9A-Fa-f]{2}(?:\.[0-7])?`)
	indexInText = regexp.MustCompile(`(?i)\bgpu ?#?(\d{1,2})\b`)
)

// mention returns the GPU that a message of the driver names, and what it says against it.
// "Unable to determine the device handle for GPU …: Unknown Error" is a lost GPU, as
// NVIDIA's exit status 15 beside it says: "has fallen off the bus or has otherwise become
// inaccessible". It carries no action: a reboot, which the driver asks for in its other
// message, would hold for the whole machine. Any other message about a GPU, such as "infoROM
// is corrupted", is nothing against it.
func mention(line string) (Mention, bool) {
	m := Mention{Bus: NormalBus(busInText.FindString(line)), Index: -1}
	if m.Bus == "" {
		n := indexInText.FindStringSubmatch(line)
		if n == nil {
			return m, false
		}
		m.Index, _ = strconv.Atoi(n[1])
	}
	fault, ok := wordsOfFault(line)
	if w := strings.ToLower(line); !ok && strings.Contains(w, "unable to determine the device handle") && strings.Contains(w, "unknown error") {
		fault = Fault{State: hivebeat.GPUFailing, Cause: hivebeat.CauseLostGPU, Evidence: oneLine(line, hivebeat.MaxHostText)}
		ok = true
	}
	m.Fault = fault
	return m, ok
}

// faults returns what the driver says against the GPU, worst first.
func (g *smiGPU) faults(table Table) []Fault {
	f := g.facts
	var found []Fault
	add := func(fact Fact, detail string) {
		if fault, ok := table.fault(fact, detail); ok {
			found = append(found, fault)
		}
	}
	says, known := f["gpu_recovery_action"]
	_, words := wordsOfFault(says)
	switch action, against := recoveryAction(says); {
	case against && !words && !unknownError(says):
		found = append(found, Fault{hivebeat.GPUFailing, hivebeat.CauseDriver, "the driver's recovery action is " + oneLine(says, maxLine), action})
	case f.yes("gpu_reset_status/reset_required"):
		found = append(found, Fault{hivebeat.GPUFailing, hivebeat.CauseReset, "the driver requires a reset", hivebeat.ActionReset})
	case f.yes("gpu_reset_status/drain_and_reset_recommended"):
		found = append(found, Fault{hivebeat.GPUFailing, hivebeat.CauseDriver, "the driver recommends to drain and reset", hivebeat.ActionDrainReset})
	}
	found = append(found, g.verdicts()...)
	rows, pages := "remapped_rows/remapped_row_", "retired_pages/"
	if f.yes(rows + "failure") {
		add(FactRemapFailure, "")
	}
	if f.yes("ecc_errors/unrepairable_memory") {
		add(FactUnrepairable, "")
	}
	if f.yes("ecc_errors/aggregate/sram_threshold_exceeded") {
		add(FactSRAMThreshold, "")
	}
	if f.yes(rows + "pending") {
		add(FactRemapPending, f.count("uncorrectable", rows+"unc"))
	}
	if f.yes(pages+"pending_retirement") || f.yes(pages+"pending_blacklist") {
		add(FactRetirePending, "")
	}
	if f.yes("ecc_errors/channel_repair_pending") || f.yes("ecc_errors/tpc_repair_pending") {
		add(FactRepairPending, "")
	}
	if !known || absent(says) { // else the driver itself has judged them
		if n := f.count("since the driver was loaded", "ecc_errors/volatile/sram_uncorrectable", "ecc_errors/volatile/sram_uncorrectable_parity",
			"ecc_errors/volatile/sram_uncorrectable_secded", "ecc_errors/volatile/dram_uncorrectable", "ecc_errors/volatile/double_bit/total"); n != "" {
			add(FactUncorrectable, n)
		}
	}
	switch {
	case f.slowed("hw_thermal_slowdown"), f.slowed("sw_thermal_slowdown"):
		add(FactThermal, "")
	case f.slowed("hw_power_brake_slowdown"):
		add(FactPowerBrake, "")
	case f.slowed("hw_slowdown"):
		add(FactHardwareSlowed, "")
	}
	sortFaults(found)
	return found
}

// verdicts returns the words of fault in any field, one for each cause. Fields of processes
// are not among them: a program chooses its name.
func (g *smiGPU) verdicts() (found []Fault) {
	for _, words := range []string{"GPU is lost", "GPU requires reset"} {
		want, _ := wordsOfFault(words)
		says := func(f facts) bool {
			for _, text := range f {
				if got, ok := wordsOfFault(text); ok && got.Cause == want.Cause {
					return true
				}
			}
			return false
		}
		if says(g.facts) || slices.ContainsFunc(g.migs, says) {
			found = append(found, want)
		}
	}
	return found
}

// count returns the sum of fields in words, or nothing if it is 0.
func (f facts) count(of string, paths ...string) string {
	var n float64
	for _, p := range paths {
		v, _, _ := f.amount(1, p)
		n += max(0, v)
	}
	if n == 0 {
		return ""
	}
	return strconv.FormatUint(uint64(n), 10) + " " + of
}

// slowed reports whether the clocks are lowered for a reason. Drivers before 535 call the
// fields throttle reasons.
func (f facts) slowed(reason string) bool {
	return strings.EqualFold(f["clocks_event_reasons/clocks_event_reason_"+reason], "active") ||
		strings.EqualFold(f["clocks_throttle_reasons/clocks_throttle_reason_"+reason], "active")
}

// unknownError reports whether a field could not be read.
func unknownError(s string) bool {
	w := bare(s)
	return strings.Contains(w, "unknown error") || strings.Contains(w, "err!")
}
