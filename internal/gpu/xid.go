package gpu

import (
	"bufio"
	"io"
	"regexp"
	"strconv"
	"strings"

	"github.com/beatfabric/hivebeat"
)

// XID is an error that NVIDIA's driver has written into the kernel log, or sent as an event.
type XID struct {
	Bus    string // PCI address, as NormalBus returns it; empty if unknown
	Number int
	PID    uint64 // of the program, in the pid namespace of the kernel log's reader or of the host; 0 if unknown
	Name   string // of the program; empty if unknown
	Text   string // the driver's words
}

// xidRules is NVIDIA's catalog of XIDs for Ampere and later, by its column "immediate
// action": RESET_GPU and RESTART_BM are the GPU's, RESTART_APP the program's, and IGNORE is
// neither. Workflows are decided by what they lead to without further evidence. Where the
// driver also sends XID 154 or sets its recovery action, those say the same with more right.
// A number that is not listed is ignored, as are those that the catalog calls unused.
//
// See https://docs.nvidia.com/deploy/xid-errors/analyzing-xid-catalog.html.
func xidRules() Table {
	t := Table{}
	add := func(m Meaning, action, text string, numbers ...int) {
		for _, n := range numbers {
			t[FactXID(n)] = Rule{m, action, hivebeat.CauseXID, text}
		}
	}
	add(Failing, hivebeat.ActionReboot, "the GPU has fallen off the bus", 79)
	add(Failing, hivebeat.ActionReboot, "error of key rotation", 151) // RESTART_VM

	add(Failing, hivebeat.ActionReset, "the GPU has stopped processing", 46)
	add(Failing, hivebeat.ActionReset, "uncorrectable memory error", 48) // WORKFLOW_XID_48
	add(Failing, hivebeat.ActionReset, "a microcontroller of the GPU has halted", 62, 169)
	add(Failing, hivebeat.ActionReset, "a row of its memory could not be remapped", 64)
	add(Failing, hivebeat.ActionReset, "a memory error reached several programs", 95)
	add(Failing, hivebeat.ActionReset, "a context switch did not end", 109)
	add(Failing, hivebeat.ActionReset, "security fault", 110)
	add(Failing, hivebeat.ActionReset, "the GPU's system processor does not answer", 119)
	add(Failing, hivebeat.ActionReset, "error of the GPU's system processor", 120)
	add(Failing, hivebeat.ActionReset, "an NVLink could not be trained", 136)
	add(Failing, hivebeat.ActionReset, "a memory error was not contained", 140)
	add(Failing, hivebeat.ActionReset, "the GPU could not be initialized", 143)
	add(Failing, hivebeat.ActionReset, "fatal NVLink error", 144, 145, 146, 147, 148, 149, 150) // unless the text says Nonfatal
	add(Failing, hivebeat.ActionReset, "an NVLink went down", 155)
	add(Failing, hivebeat.ActionReset, "a part of the GPU is retired at the next reset", 156)
	add(Failing, hivebeat.ActionReset, "fatal timeout", 158)
	add(Failing, hivebeat.ActionReset, "fatal timeout of PCI Express", 167)

	add(Degraded, hivebeat.ActionReset, "NVLink error", 74) // WORKFLOW_NVLINK_ERR: bits decide, many of them harmless
	add(Degraded, "", "auxiliary power is not connected", 54)
	add(Degraded, "", "less memory than it should have", 168)

	add(Program, "", "error of the program on the GPU", 8, 11, 13, 25, 32, 60, 69, 80, 137)
	add(Program, "", "the program accessed memory that is not its own", 31)
	add(Program, "", "the program ended with an error on the GPU", 43)
	add(Program, "", "the program's work on the GPU was cleaned up", 45) // beside another XID, or because it was killed
	add(Program, "", "error of a copy engine", 39, 40, 41, 70, 71, 72, 75, 76, 77, 85,
		126, 127, 128, 129, 130, 131, 132, 133, 134, 135)
	add(Program, "", "error of a video engine", 68, 82, 83, 84, 86, 88, 89,
		96, 97, 98, 99, 100, 101, 102, 103, 104, 105, 139, 142)
	add(Program, "", "a memory error was contained in the program", 94) // a pending row remap makes the GPU degraded

	add(Ignored, "", "row of memory remapped", 63) // what is pending is a fact of the next reading
	add(Ignored, "", "error of the driver's firmware", 37, 38, 44, 66, 67)
	add(Ignored, "", "many memory errors, all corrected", 92)
	add(Ignored, "", "the InfoROM is worn", 93)
	add(Ignored, "", "message of a test", 14, 106, 107)
	add(Ignored, "", "NVLink access fault", 108)
	add(Ignored, "", "corrected errors of the link to the CPU", 121, 159)
	add(Ignored, "", "error of the fast path", 141)
	add(Ignored, "", "accelerator error", 152, 153)
	add(Ignored, "", "recovery action changed", 154) // decided by its text
	add(Ignored, "", "nothing is left to retire in its place", 157)
	add(Ignored, "", "a memory channel was retired", 160, 161)
	add(Ignored, "", "power smoothing changed", 162, 163, 164, 165)
	add(Ignored, "", "details of an uncorrectable memory error", 171, 172) // beside XID 48
	add(Ignored, "", "the vGPU could not be started", 78)
	return t
}

// Judge returns what an XID means, and the fault of the GPU if it means one. Evidence
// carries the number and the driver's words in any case, for a note at the program.
func (t Table) Judge(x XID) (Meaning, Fault) {
	fact := FactXID(x.Number)
	r := t[fact]
	f, _ := t.fault(fact, "")
	what := r.Text
	if x.Text != "" {
		what = x.Text
	}
	f.Evidence = oneLine("XID "+strconv.Itoa(x.Number)+": "+what, hivebeat.MaxHostText)
	lower := strings.ToLower(x.Text)
	switch {
	case x.Number == 154:
		// "GPU recovery action changed from 0x0 (None) to 0x2 (Node Reboot Required)"
		_, to, _ := strings.Cut(lower, " to ")
		action, against := recoveryAction(to)
		if !against {
			return Ignored, f
		}
		f.State, f.Cause, f.Action = hivebeat.GPUFailing, hivebeat.CauseDriver, action
		return Failing, f
	case x.Number >= 144 && x.Number <= 150 && (strings.Contains(lower, "nonfatal") || strings.Contains(lower, "non-fatal")):
		return Ignored, f
	}
	if r.Meaning < Degraded {
		return r.Meaning, Fault{Evidence: f.Evidence}
	}
	return r.Meaning, f
}

// Incident returns an XID as a Fleet takes it.
func (t Table) Incident(x XID) Incident {
	m, f := t.Judge(x)
	in := Incident{Bus: x.Bus, PID: x.PID}
	if m >= Degraded {
		in.Fault = f
	} else {
		in.Note = f.Evidence
	}
	return in
}

// recoveryAction returns the action that the driver's words recommend. against is false if
// they say that none is needed, or nothing at all.
func recoveryAction(words string) (action string, against bool) {
	w := strings.ToLower(words)
	switch {
	case absent(w) || strings.Contains(w, "none"):
		return "", false
	case strings.Contains(w, "p2p") && !strings.Contains(w, "reset"):
		return hivebeat.ActionDrain, true
	case strings.Contains(w, "drain"):
		return hivebeat.ActionDrainReset, true
	case strings.Contains(w, "reboot"):
		return hivebeat.ActionReboot, true
	case strings.Contains(w, "reset"):
		return hivebeat.ActionReset, true
	}
	return "", true // an action that this version does not know: the words are the evidence
}

// A line of the kernel log, and its parts. Older drivers print no pid, or '<unknown>' for it.
//
//	NVRM: Xid (PCI:0000:1a:00): 79, pid=1234, name=python, GPU has fallen off the bus.
//	NVRM: Xid (PCI:0000:1a:00): 31, pid='<unknown>', name=<unknown>, Ch 0000000a, …
//	NVRM: Xid (0000:01:00): 13, 0001 00000000 0000902d 00000694 00000000
var (
	xidLine = regexp.MustCompile(`NVRM: Xid \((?:PCI:)?([0-9A-Fa-f:.]+)\): (\d{1,4})(?:, )?(.*)`)
	xidPID  = regexp.MustCompile(`^pid='?(\d+|<unknown>)'?(?:, |$)`)
	xidName = regexp.MustCompile(`^name=([^,]*)(?:, |$)`)
)

// ParseXID returns the XID in a line of the kernel log, if there is one.
func ParseXID(line string) (XID, bool) {
	m := xidLine.FindStringSubmatch(line)
	if m == nil {
		return XID{}, false
	}
	x := XID{Bus: NormalBus(m[1])}
	x.Number, _ = strconv.Atoi(m[2])
	rest := m[3]
	if m := xidPID.FindStringSubmatch(rest); m != nil {
		x.PID, _ = strconv.ParseUint(m[1], 10, 32)
		rest = rest[len(m[0]):]
	}
	if m := xidName.FindStringSubmatch(rest); m != nil {
		if x.Name = oneLine(m[1], maxLine); x.Name == "<unknown>" {
			x.Name = ""
		}
		rest = rest[len(m[0]):]
	}
	x.Text = oneLine(rest, maxLine)
	return x, true
}

// ParseXIDs returns the XIDs in a kernel log, in its order, such as the output of dmesg or
// journalctl -k.
func ParseXIDs(r io.Reader) ([]XID, error) {
	var all []XID
	b := bufio.NewReader(r)
	for {
		line, err := b.ReadString('\n')
		if x, ok := ParseXID(line); ok {
			all = append(all, x)
		}
		if err == io.EOF {
			return all, nil
		}
		if err != nil {
			return all, err
		}
	}
}
