package gpu

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestParseXID(t *testing.T) {
	for _, c := range []struct {
		line string
		want XID
	}{
		{
			"[12.5] NVRM: Xid (PCI:0000:1a:00): 79, pid=1234, name=python, GPU has fallen off the bus.",
			XID{Bus: "0000:1a:00.0", Number: 79, PID: 1234, Name: "python", Text: "GPU has fallen off the bus."},
		},
		{
			"3,1234,98765,-;NVRM: Xid (PCI:0000:c3:00): 31, pid='<unknown>', name=<unknown>, Ch 0000000a, intr 00000000. MMU Fault",
			XID{Bus: "0000:c3:00.0", Number: 31, Text: "Ch 0000000a, intr 00000000. MMU Fault"},
		},
		{
			"kernel: NVRM: Xid (PCI:0000:2b:00): 79, GPU has fallen off the bus.", // open modules name no process
			XID{Bus: "0000:2b:00.0", Number: 79, Text: "GPU has fallen off the bus."},
		},
		{"NVRM: Xid (0000:01:00): 13, 0001 00000000 0000902d", XID{Bus: "0000:01:00.0", Number: 13, Text: "0001 00000000 0000902d"}}, // driver 3xx
		{"NVRM: Xid (PCI:0000:06:00): 43", XID{Bus: "0000:06:00.0", Number: 43}},
		{"NVRM: Xid (PCI:0000:06:00): 13, pid=7, name=a\x1b[31mb, Graphics Exception", XID{Bus: "0000:06:00.0", Number: 13, PID: 7, Name: "a�[31mb", Text: "Graphics Exception"}},
	} {
		got, ok := ParseXID(c.line)
		if diff := cmp.Diff(c.want, got); diff != "" || !ok {
			t.Errorf("%s\n%s", c.line, diff)
		}
	}
	for _, line := range []string{
		"", "NVRM: loading NVIDIA UNIX x86_64 Kernel Module", "Xid (PCI:0000:06:00): 79, not by the driver",
		"NVRM: Xid (PCI:0000:06:00): many", "nvidia-nvswitch0: SXid (PCI:0000:c1:00.0): 12028, Non-fatal, Link 10",
	} {
		if x, ok := ParseXID(line); ok {
			t.Errorf("%q is %+v", line, x)
		}
	}
	all, err := ParseXIDs(strings.NewReader("a line\nNVRM: Xid (PCI:0000:06:00): 43, x\n\nNVRM: Xid (PCI:0000:07:00): 79, y"))
	if err != nil || len(all) != 2 || all[1].Number != 79 {
		t.Errorf("%+v, %v", all, err)
	}
}

// Whose fault an XID is, by NVIDIA's catalog.
func TestXIDs(t *testing.T) {
	table := DefaultFaults()
	for _, c := range []struct {
		line string // without the beginning
		want string
	}{
		{"79, GPU has fallen off the bus.", "failing, xid: XID 79: GPU has fallen off the bus. -> reboot"},
		{"48, pid=1, name=x, DBE (double bit error) framebuffer", "failing, xid: XID 48: DBE (double bit error) framebuffer -> reset"},
		{"119", "failing, xid: XID 119: the GPU's system processor does not answer -> reset"},
		{"95, Uncontained: HUB", "failing, xid: XID 95: Uncontained: HUB -> reset"},
		{"74, NVLink: fatal error", "degraded, xid: XID 74: NVLink: fatal error -> reset"},
		{"145, NVLINK: RLW_REMAP Fatal XC0 i0 Link 05", "failing, xid: XID 145: NVLINK: RLW_REMAP Fatal XC0 i0 Link 05 -> reset"},
		{"145, NVLINK: RLW_RXPIPE Nonfatal XC0 i0 Link 05", "note: XID 145: NVLINK: RLW_RXPIPE Nonfatal XC0 i0 Link 05"},
		{"154, GPU recovery action changed from 0x0 (None) to 0x2 (Node Reboot Required)", "failing, driver: XID 154: GPU recovery action changed from 0x0 (None) to 0x2 (Node Reboot Required) -> reboot"},
		{"154, GPU recovery action changed from 0x0 (None) to 0x1 (GPU Reset Required)", "failing, driver: XID 154: GPU recovery action changed from 0x0 (None) to 0x1 (GPU Reset Required) -> reset"},
		{"154, GPU recovery action changed from 0x0 (None) to 0x3 (Drain P2P)", "failing, driver: XID 154: GPU recovery action changed from 0x0 (None) to 0x3 (Drain P2P) -> drain"},
		{"154, GPU recovery action changed from 0x0 (None) to 0x4 (Drain and Reset)", "failing, driver: XID 154: GPU recovery action changed from 0x0 (None) to 0x4 (Drain and Reset) -> drain_reset"},
		{"154, GPU recovery action changed from 0x1 (GPU Reset Required) to 0x0 (None)", "note: XID 154: GPU recovery action changed from 0x1 (GPU Reset Required) to 0x0 (None)"},
		{"31, pid=4711, name=vllm, MMU Fault", "note at 4711: XID 31: MMU Fault"},
		{"13, pid=4711, name=vllm, Graphics Exception", "note at 4711: XID 13: Graphics Exception"},
		{"43, pid=4711, name=vllm, Ch 00000008", "note at 4711: XID 43: Ch 00000008"},
		{"94, pid=4711, name=vllm, Contained: CE User Channel", "note at 4711: XID 94: Contained: CE User Channel"},
		{"63, Row Remapper: New row marked for remapping", "note: XID 63: Row Remapper: New row marked for remapping"},
		{"9999, of a later driver", "note: XID 9999: of a later driver"},
	} {
		x, ok := ParseXID("NVRM: Xid (PCI:0000:1a:00): " + c.line)
		in := table.Incident(x)
		got := "note: " + in.Note
		switch {
		case in.Fault.State != "":
			got = verdict(in.Fault)
		case in.PID != 0:
			got = strings.Replace(got, "note", "note at 4711", 1)
		}
		if !ok || got != c.want || in.Bus != "0000:1a:00.0" || (in.Note == "") == (in.Fault.State == "") {
			t.Errorf("%s\ngot  %s\nwant %s", c.line, got, c.want)
		}
	}
	if m, _ := table.Judge(XID{Number: 31}); m != Program {
		t.Errorf("XID 31 means %d", m)
	}
	if m, _ := table.Judge(XID{Number: 63}); m != Ignored {
		t.Errorf("XID 63 means %d", m)
	}
}

func TestLoadFaults(t *testing.T) {
	table, err := LoadFaults(strings.NewReader(`
# our machines
xid 79        failing replace   we send these back
xid 31        failing reset     # not the program's fault here
xid 48        ignore
xid 700       degraded
remap-pending failing drain_reset
throttle-thermal ignore
xid 13        ignore
xid 13        program
`))
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		fact    Fact
		meaning Meaning
		want    string
	}{
		{FactXID(79), Failing, "failing, xid: we send these back -> replace"},
		{FactXID(31), Failing, "failing, xid: the program accessed memory that is not its own -> reset"},
		{FactXID(48), Ignored, ""},
		{FactXID(700), Degraded, "degraded, xid: xid 700"},
		{FactXID(13), Program, ""},
		{FactXID(119), Failing, "failing, xid: the GPU's system processor does not answer -> reset"}, // not in the file
		{FactRemapPending, Failing, "failing, remap: rows of its memory are remapped at the next reset -> drain_reset"},
		{FactThermal, Ignored, ""},
	} {
		f, ok := table.fault(c.fact, "")
		if table[c.fact].Meaning != c.meaning || ok != (c.want != "") || ok && verdict(f) != c.want {
			t.Errorf("%s means %d: %s; want %d: %s", c.fact, table[c.fact].Meaning, verdict(f), c.meaning, c.want)
		}
	}
	for text, want := range map[string]string{
		"xid 79 failing\nxid\n":      "line 2: xid without a number",
		"xid many failing":           `line 1: xid "many" is no number`,
		"xid 70000 failing":          `line 1: xid "70000" is no number`,
		"\n\nxid 79":                 "line 3: xid 79 has no meaning: one of ignore, program, degraded, failing",
		"xid 79 broken":              `line 1: xid 79 means "broken"; it must be one of ignore, program, degraded, failing`,
		"remap failing":              `line 1: no fact is called "remap"; there are xid and ecc-uncorrectable, remap-failure`,
		"xid 79 ignore reboot":       `line 1: xid 79: ignore has no action, but "reboot" is one`,
		strings.Repeat("x", 100_000): "token too long",
	} {
		if _, err := LoadFaults(strings.NewReader(text)); !says(err, want) || err == nil {
			t.Errorf("%.40q: %v, want %s", text, err, want)
		}
	}
	if d := DefaultFaults(); d[FactXID(79)].Action == "replace" {
		t.Error("a file changed the default table")
	}
}
