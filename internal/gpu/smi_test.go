//go:build unix

package gpu

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/beatfabric/hivebeat"
)

// scene is what a stand-in for nvidia-smi plays.
type scene struct {
	xml           string   // a file of testdata/smi
	edit          []string // old, new, old, new: what is different in it, at its first place
	before, after string   // lines of stdout around the XML
	stderr        string
	list          string // what -L prints
	exit          int
}

func (s scene) play(t testing.TB) *SMI {
	t.Helper()
	dir := t.TempDir()
	var xml []byte
	if s.xml != "" {
		var err error
		if xml, err = os.ReadFile(filepath.Join("testdata", "smi", s.xml)); err != nil {
			t.Fatal(err)
		}
	}
	for i := 0; i+1 < len(s.edit); i += 2 {
		if !strings.Contains(string(xml), s.edit[i]) {
			t.Fatalf("%s does not hold %q", s.xml, s.edit[i])
		}
		xml = []byte(strings.Replace(string(xml), s.edit[i], s.edit[i+1], 1))
	}
	for name, text := range map[string]string{"out": s.before + string(xml) + s.after, "err": s.stderr, "list": s.list} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	smi := NewSMI(script(t, fmt.Sprintf(`
case "$*" in
"-q -x") cat %[1]s/out; cat %[1]s/err >&2; exit %[2]d ;;
-L) cat %[1]s/list ;;
*) exit 2 ;;
esac`, dir, s.exit)))
	smi.Sysfs = dir // of no device
	return smi
}

const (
	noAction = "<gpu_recovery_action>None</gpu_recovery_action>"
	otherAct = "<gpu_recovery_action>%s</gpu_recovery_action>"
	b200     = "0 GPU-b2…0 NVIDIA B200 at 0000:1b:00.0, 183359 = 0 used + 734 reserved + 182625 free, 40 °C, 100500 mW\n"
	h100     = "0 GPU-b1…1 NVIDIA H100 80GB HBM3 at 0000:1a:00.0, 81559 = 74210 used + 517 reserved + 6832 free, 98 %, 61 °C, 612200 mW\n"
	h100b    = "1 GPU-b1…2 NVIDIA H100 80GB HBM3 at 0000:1b:00.0, 81559 = 4 used + 517 reserved + 81038 free, 40 °C, 100500 mW\n"
	procs    = "pid 6601 on GPU-b1…1, 74200\npid 6602 on GPU-b1…1, 10\n"
	t4       = "0 GPU-74…1 Tesla T4 at 0000:00:1e.0, 15360 = 1032 used + 389 reserved + 13939 free, 64 %, 40 °C, 26780 mW\n"
	t4proc   = "pid 3301 on GPU-74…1, 1029\n"
)

// Generations of devices and drivers.
func TestSMIDevices(t *testing.T) {
	for _, c := range []struct {
		name string
		scene
		want string
	}{
		{
			"a Tesla of 2013, driver 340: no reserved memory, errors counted by bits",
			scene{xml: "k20-v6.xml"},
			"0 GPU-20200000-0000-0000-0000-000000000001 Tesla K20m at 0000:05:00.0, 4799 = 1120 used + 0 reserved + 3679 free, 37 %, 41 °C, 52300 mW\n" +
				"pid 2101 on GPU-20200000-0000-0000-0000-000000000001, 1105\n",
		},
		{"a T4, driver 515: figures are rounded, and the power cap is no fault", scene{xml: "t4-v11.xml"}, t4 + t4proc},
		{
			"a laptop on Windows, driver 537: no minor number, no power, no memory of processes, and a program called GPU is lost",
			scene{xml: "laptop-v12.xml"},
			"0 GPU-30600000-0000-0000-0000-000000000001 NVIDIA GeForce RTX 3060 Laptop GPU at 0000:01:00.0, 6144 = 1200 used + 132 reserved + 4812 free, 3 %, 51 °C\n" +
				"pid 4401 on GPU-30600000-0000-0000-0000-000000000001, 0\n",
		},
		{"two H100, driver 550", scene{xml: "h100-v12.xml"}, h100 + h100b + procs},
		{
			"A100, one of them split, driver 535: the index is the place on the bus, not the minor number",
			scene{xml: "a100-mig-v12.xml", list: "GPU 0: NVIDIA A100-SXM4-80GB (UUID: GPU-a1000000-0000-0000-0000-000000000001)\n" +
				"  MIG 2g.20gb     Device  0: (UUID: MIG-a1000000-0000-0000-0000-000000000011)\n" +
				"  MIG 2g.20gb     Device  1: (UUID: MIG-a1000000-0000-0000-0000-000000000012)\n" +
				"GPU 1: NVIDIA A100-SXM4-80GB (UUID: GPU-a1000000-0000-0000-0000-000000000002)\n"},
			"0 GPU-a1…1 NVIDIA A100-SXM4-80GB at 0000:01:00.0, 81920 = 50 used + 871 reserved + 80999 free, 27 °C, 67030 mW, MIG\n" +
				"  MIG-a1000000-0000-0000-0000-000000000011 2g.20gb 3/0, 19968 = 12 used + 1 reserved + 19955 free\n" +
				"  MIG-a1000000-0000-0000-0000-000000000012 2g.20gb 4/0, 19968 = 9012 used + 1 reserved + 10955 free\n" +
				"1 GPU-a1…2 NVIDIA A100-SXM4-80GB at 0000:41:00.0, 81920 = 0 used + 870 reserved + 81050 free, 26 °C, 60000 mW\n" +
				"pid 5501 on MIG-a1000000-0000-0000-0000-000000000012, 9000\n",
		},
		{
			"an H200 in three parts, driver 590; a process that names no compute instance",
			scene{xml: "h200-mig-v13.xml", list: "GPU 0: NVIDIA H200 (UUID: GPU-20000000-0000-0000-0000-000000000001)\n" +
				"  MIG 4g.71gb     Device  0: (UUID: MIG-21000000-0000-0000-0000-000000000001)\n" +
				"  MIG 1g.18gb+me  Device  1: (UUID: MIG-21000000-0000-0000-0000-000000000002)\n" +
				"  MIG 1g.18gb     Device  2: (UUID: MIG-21000000-0000-0000-0000-000000000003)\n"},
			"0 GPU-20…1 NVIDIA H200 at 0000:9a:00.0, 143771 = 16959 used + 611 reserved + 126201 free, 33 °C, 231400 mW, MIG\n" +
				"  MIG-21…1 4g.71gb 1/0, 70144 = 13526 used + 1 reserved + 56617 free\n" +
				"  MIG-21…2 1g.18gb+me 9/0, 16384 = 2194 used + 1 reserved + 14189 free\n" +
				"  MIG-21…3 1g.18gb 10/0, 16384 = 1170 used + 1 reserved + 15213 free\n" +
				"pid 7701 on MIG-21…1, 13500\npid 7702 on MIG-21…2, 2150\npid 7703 on MIG-21…3, 1100\n",
		},
		{
			"a split card whose instances -L does not list: they have the names of drivers before 470",
			scene{xml: "h200-mig-v13.xml"},
			"0 GPU-20…1 NVIDIA H200 at 0000:9a:00.0, 143771 = 16959 used + 611 reserved + 126201 free, 33 °C, 231400 mW, MIG\n" +
				"  MIG-GPU-20…1/1/0  1/0, 70144 = 13526 used + 1 reserved + 56617 free\n" +
				"  MIG-GPU-20…1/9/0  9/0, 16384 = 2194 used + 1 reserved + 14189 free\n" +
				"  MIG-GPU-20…1/10/0  10/0, 16384 = 1170 used + 1 reserved + 15213 free\n" +
				"pid 7701 on MIG-GPU-20…1/1/0, 13500\npid 7702 on MIG-GPU-20…1/9/0, 2150\npid 7703 on MIG-GPU-20…1/10/0, 1100\n",
		},
		{
			"a GB10: its memory is the machine's; a process that computes and draws counts once",
			scene{xml: "gb10-v13.xml"},
			"0 GPU-10…1 NVIDIA GB10 at 000f:01:00.0, unified, 12 %, 44 °C, 11980 mW\npid 8801 on GPU-10…1, 69564\npid 8802 on GPU-10…1, 18\n",
		},
		{
			"eight B200, driver 575",
			scene{xml: "b200-v13.xml"},
			b200 + "1 GPU-b2…1 NVIDIA B200 at 0000:43:00.0, 183359 = 1000 used + 734 reserved + 181625 free, 1 %, 40 °C, 100500 mW\n" +
				"2 GPU-b2…2 NVIDIA B200 at 0000:52:00.0, 183359 = 2000 used + 734 reserved + 180625 free, 2 %, 40 °C, 100500 mW\n" +
				"3 GPU-b2…3 NVIDIA B200 at 0000:61:00.0, 183359 = 3000 used + 734 reserved + 179625 free, 3 %, 40 °C, 100500 mW\n" +
				"4 GPU-b2…4 NVIDIA B200 at 0000:9d:00.0, 183359 = 4000 used + 734 reserved + 178625 free, 4 %, 40 °C, 100500 mW\n" +
				"5 GPU-b2…5 NVIDIA B200 at 0000:c3:00.0, 183359 = 5000 used + 734 reserved + 177625 free, 5 %, 40 °C, 100500 mW\n" +
				"6 GPU-b2…6 NVIDIA B200 at 0000:d1:00.0, 183359 = 6000 used + 734 reserved + 176625 free, 6 %, 40 °C, 100500 mW\n" +
				"7 GPU-b2…7 NVIDIA B200 at 0000:df:00.0, 183359 = 7000 used + 734 reserved + 175625 free, 7 %, 40 °C, 100500 mW\n",
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			r, err := c.play(t).Read(t.Context())
			if err != nil || r.Partial != nil || r.ProcsErr != nil || r.Driver == "" || r.Took <= 0 {
				t.Errorf("error %v, partial %v, of processes %v, driver %q, took %s", err, r.Partial, r.ProcsErr, r.Driver, r.Took)
			}
			if got := told(r); got != c.want {
				t.Errorf("got\n%swant\n%s", got, c.want)
			}
		})
	}
}

// What a field of a GPU says against it.
func TestSMIFaults(t *testing.T) {
	recovery := func(s string) []string { return []string{noAction, fmt.Sprintf(otherAct, s)} }
	field := func(name, old, now string) []string {
		return []string{"<" + name + ">" + old + "<", "<" + name + ">" + now + "<"}
	}
	const driver = "failing, driver: the driver's recovery action is "
	for _, c := range []struct {
		name, xml string
		edit      []string
		want      string // of the first GPU
		unread    string
	}{
		{"nothing", "b200-v13.xml", nil, "", ""},
		{"recovery action reset", "b200-v13.xml", recovery("Reset"), driver + "Reset -> reset", ""},
		{"recovery action reboot", "b200-v13.xml", recovery("Reboot"), driver + "Reboot -> reboot", ""},
		{"recovery action drain P2P", "b200-v13.xml", recovery("Drain P2P"), driver + "Drain P2P -> drain", ""},
		{"recovery action drain and reset", "b200-v13.xml", recovery("Drain and Reset"), driver + "Drain and Reset -> drain_reset", ""},
		{"a recovery action of a later driver", "b200-v13.xml", recovery("Recover IMEX Domain"), driver + "Recover IMEX Domain", ""},
		{"no recovery action in this driver", "b200-v13.xml", recovery("N/A"), "", ""},
		{"reset required, before driver 565", "h100-v12.xml", field("reset_required", "No", "Yes"), "failing, reset: the driver requires a reset -> reset", ""},
		{"drain and reset, before driver 565", "h100-v12.xml", field("drain_and_reset_recommended", "No", "Yes"), "failing, driver: the driver recommends to drain and reset -> drain_reset", ""},
		{"a field requires a reset", "b200-v13.xml", field("gpu_util", "0 %", "[GPU requires reset]"), "failing, reset: GPU requires reset -> reset", ""},
		{"a field that is not read requires a reset", "k20-v6.xml", field("fan_speed", "N/A", "GPU requires reset"), "failing, reset: GPU requires reset -> reset", ""},
		{"a field is lost", "b200-v13.xml", field("gpu_temp", "40 C", "GPU is lost"), "failing, gpu_lost: GPU is lost -> reboot", ""},
		{"a field of an instance is lost", "h200-mig-v13.xml", field("sram_uncorrectable", "0", "[GPU is lost]"), "failing, gpu_lost: GPU is lost -> reboot", ""},
		{"the driver's action stands before its words", "b200-v13.xml", append(recovery("Reboot"), field("gpu_util", "0 %", "GPU requires reset")...), driver + "Reboot -> reboot; failing, reset: GPU requires reset -> reset", ""},
		{"an unknown error is no fault, but its figures are not to be used", "b200-v13.xml", field("total", "183359 MiB", "[Unknown Error]"), "", "fb_memory_usage/total: [Unknown Error]"},
		{"ERR!", "b200-v13.xml", append(field("average_power_draw", "100.50 W", "ERR!"), field("gpu_util", "0 %", "ERR!")...), "", "utilization/gpu_util: ERR!; gpu_power_readings/average_power_draw: ERR!"},
		{"an unknown error in a field that is not read", "h100-v12.xml", field("pending_blacklist", "N/A", "[Unknown Error]"), "", ""},
		{"rows to be remapped", "b200-v13.xml", append(field("remapped_row_pending", "No", "Yes"), field("remapped_row_unc", "0", "2")...), "degraded, remap: rows of its memory are remapped at the next reset (2 uncorrectable) -> reset", ""},
		{"a row that could not be remapped", "b200-v13.xml", append(field("remapped_row_pending", "No", "Yes"), field("remapped_row_failure", "No", "Yes")...), "failing, remap: a row of its memory could not be remapped -> replace; degraded, remap: rows of its memory are remapped at the next reset -> reset", ""},
		{"rows that were remapped long ago", "b200-v13.xml", field("remapped_row_unc", "0", "5"), "", ""},
		{"pages to be retired, before Ampere", "t4-v11.xml", field("pending_retirement", "No", "Yes"), "degraded, remap: pages of its memory are retired at the next reset -> reset", ""},
		{"the same in older words", "t4-v11.xml", field("pending_blacklist", "No", "Yes"), "degraded, remap: pages of its memory are retired at the next reset -> reset", ""},
		{"memory errors, before driver 565", "t4-v11.xml", field("dram_uncorrectable", "0", "3"), "degraded, ecc: uncorrectable memory errors (3 since the driver was loaded) -> reset", ""},
		{"memory errors of a Tesla of 2013", "k20-v6.xml", []string{"<total>0</total>\n\t\t\t\t</double_bit>", "<total>1</total>\n\t\t\t\t</double_bit>"}, "degraded, ecc: uncorrectable memory errors (1 since the driver was loaded) -> reset", ""},
		{"memory errors which the driver itself has judged", "b200-v13.xml", field("dram_uncorrectable", "0", "3"), "", ""},
		{"more SRAM errors than allowed", "b200-v13.xml", field("sram_threshold_exceeded", "No", "Yes"), "degraded, ecc: more SRAM errors than NVIDIA tolerates -> replace", ""},
		{"a repair at the next reset", "b200-v13.xml", field("tpc_repair_pending", "No", "Yes"), "degraded, ecc: it is repaired at the next reset -> reset", ""},
		{"memory that cannot be repaired", "b200-v13.xml", field("unrepairable_memory", "No", "Yes"), "failing, ecc: its memory cannot be repaired -> replace", ""},
		{"heat, as the hardware sees it", "b200-v13.xml", append(field("clocks_event_reason_hw_slowdown", "Not Active", "Active"), field("clocks_event_reason_hw_thermal_slowdown", "Not Active", "Active")...), "degraded, throttle: slower because of heat", ""},
		{"heat, as the driver sees it", "b200-v13.xml", field("clocks_event_reason_sw_thermal_slowdown", "Not Active", "Active"), "degraded, throttle: slower because of heat", ""},
		{"the power brake", "b200-v13.xml", field("clocks_event_reason_hw_power_brake_slowdown", "Not Active", "Active"), "degraded, throttle: slowed down by the power supply", ""},
		{"a slowdown without a reason, before driver 535", "k20-v6.xml", field("clocks_throttle_reason_hw_slowdown", "Not Active", "Active"), "degraded, throttle: slowed down by its hardware", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			r, err := scene{xml: c.xml, edit: c.edit}.play(t).Read(t.Context())
			if err != nil || len(r.Devices) == 0 {
				t.Fatalf("%d devices, error %v", len(r.Devices), err)
			}
			var got []string
			for _, f := range r.Devices[0].Faults {
				got = append(got, verdict(f))
			}
			if s := strings.Join(got, "; "); s != c.want || r.Devices[0].Err != c.unread {
				t.Errorf("got  %s, unread %q\nwant %s, unread %q", s, r.Devices[0].Err, c.want, c.unread)
			}
			for _, d := range r.Devices[1:] {
				if len(d.Faults) > 0 || d.Err != "" {
					t.Errorf("GPU %d beside it: %v %s", d.Index, d.Faults, d.Err)
				}
			}
		})
	}
}

// What nvidia-smi says beside its XML, and how it ends.
func TestSMIMessages(t *testing.T) {
	const (
		isLost  = "Unable to determine the device handle for GPU 0000:1A:00.0: GPU is lost.  Reboot the system to recover this GPU\n"
		unknown = "Unable to determine the device handle for GPU0000:1A:00.0: Unknown Error\n"
		infoROM = "WARNING: infoROM is corrupted at gpu 0000:1A:00.0\n"
		at1a    = `mention of "0000:1a:00.0", index -1: failing, gpu_lost: Unable to determine the device handle for `
		twice   = "<attached_gpus>2<"
	)
	firstGone := func() []string { // the XML of the two H100 without the first
		b, err := os.ReadFile(filepath.Join("testdata", "smi", "h100-v12.xml"))
		if err != nil {
			t.Fatal(err)
		}
		_, rest, _ := strings.Cut(string(b), "\t<gpu id")
		gpu, _, _ := strings.Cut(rest, "\t<gpu id")
		return []string{"\t<gpu id" + gpu, ""}
	}()
	for _, c := range []struct {
		name string
		scene
		want    string
		partial string // part of it
		err     string // part of it
	}{
		{"no devices", scene{before: "No devices were found\n", exit: 6}, "", "", ""},
		{"no devices, as a success", scene{before: "No devices were found\n"}, "", "", ""},
		{"an XML of no devices", scene{before: "<nvidia_smi_log><attached_gpus>0</attached_gpus></nvidia_smi_log>\n"}, "", "", ""},
		{
			"the driver was upgraded under running programs",
			scene{before: "Failed to initialize NVML: Driver/library version mismatch\nNVML library version: 550.144\n", exit: 18},
			"", "", "nvidia-smi: exit status 18: Failed to initialize NVML: Driver/library version mismatch",
		},
		{
			"no driver",
			scene{before: "NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver. Make sure that the latest NVIDIA driver is installed and running.\n\n", exit: 9},
			"", "", "exit status 9: NVIDIA-SMI has failed because it couldn't communicate",
		},
		{
			"no library, said on stderr",
			scene{stderr: "NVIDIA-SMI couldn't find libnvidia-ml.so library in your system.\n", exit: 12},
			"", "", "exit status 12: NVIDIA-SMI couldn't find libnvidia-ml.so",
		},
		{"nothing at all", scene{}, "", "", "no GPU in its output"},
		{"another program of that name", scene{before: "hello\n"}, "", "", "no GPU in its output: hello"},
		{"one is lost, and nothing is known of the others", scene{before: isLost, exit: 15}, at1a + "GPU 0000:1A:00.0: GPU is lost. Reboot the system to recover this GPU -> reboot\n", "exit status 15: Unable", ""},
		{"one is lost, and the other is read: it keeps its index", scene{xml: "h100-v12.xml", edit: firstGone, before: unknown, exit: 15}, h100b + at1a + "GPU0000:1A:00.0: Unknown Error\n", "exit status 15: Unable", ""},
		{"the same, with the message between two GPUs", scene{xml: "h100-v12.xml", edit: append(firstGone, "\t<gpu id", unknown+"\t<gpu id"), exit: 15}, h100b + at1a + "GPU0000:1A:00.0: Unknown Error\n", "exit status 15: Unable", ""},
		{"the same, with the message inside the other GPU", scene{xml: "h100-v12.xml", edit: append(firstGone, "\t\t<uuid>", unknown+"\t\t<uuid>"), exit: 15}, h100b + at1a + "GPU0000:1A:00.0: Unknown Error\n", "exit status 15: Unable", ""},
		{"the same, on stderr and as a success", scene{xml: "h100-v12.xml", edit: firstGone, stderr: isLost}, h100b + at1a + "GPU 0000:1A:00.0: GPU is lost. Reboot the system to recover this GPU -> reboot\n", "GPU is lost", ""},
		{"one is named by its index", scene{xml: "h100-v12.xml", edit: firstGone, before: "Unable to determine the device handle for gpu 0: GPU requires a reset\n", exit: 15}, h100b + `mention of "", index 0: failing, reset: Unable to determine the device handle for gpu 0: GPU requires a reset -> reset` + "\n", "requires a reset", ""},
		{"one is lost, and only the exit status says so", scene{xml: "h100-v12.xml", edit: firstGone, exit: 15}, h100b + `mention of "", index -1: failing, gpu_lost: nvidia-smi ends with status 15: a GPU has fallen off the bus or cannot be reached` + "\n", "exit status 15", ""},
		{"one may not be read", scene{xml: "h100-v12.xml", edit: firstGone, stderr: "Unable to determine the device handle for GPU 0000:1A:00.0: Insufficient Permissions\n", exit: 4}, h100b, "exit status 4: Unable", ""},
		{"one is counted and not described", scene{xml: "h100-v12.xml", edit: firstGone}, h100b, "it counts 2 GPUs and describes 1", ""},
		{"one has no UUID", scene{xml: "h100-v12.xml", edit: []string{"<uuid>GPU-b1000000-0000-0000-0000-000000000001<", "<uuid>[GPU is lost]<"}}, h100b + `mention of "0000:1a:00.0", index -1: failing, gpu_lost: GPU is lost -> reboot` + "\n", "the GPU at 0000:1a:00.0 has no UUID: [GPU is lost]", ""},
		{"a warning is nothing against a GPU", scene{xml: "t4-v11.xml", after: infoROM, exit: 14}, t4 + t4proc, "", ""},
		{"a warning, and good GPUs with a failure", scene{xml: "t4-v11.xml", after: infoROM, stderr: "the reason\n", exit: 255}, t4 + t4proc, "exit status 255: the reason", ""},
		{"GPUs that share an address have none", scene{xml: "h100-v12.xml", edit: []string{"00000000:1B:00.0", "00000000:1A:00.0"}}, strings.ReplaceAll(strings.ReplaceAll(h100+h100b, " at 0000:1a:00.0", ""), " at 0000:1b:00.0", "") + procs, "", ""},
		{"a UUID that comes twice", scene{xml: "h100-v12.xml", edit: []string{"0000-000000000002<", "0000-000000000001<"}}, h100 + procs, "", ""},
		{"control codes do not get through", scene{xml: "t4-v11.xml", edit: []string{"<product_name>Tesla T4", "<product_name>Tesla\u202e\tT4"}}, strings.Replace(t4, "Tesla T4", "Tesla� T4", 1) + t4proc, "", ""},
		{"other GPUs than it counts", scene{xml: "h100-v12.xml", edit: []string{twice, "<attached_gpus>ERR!<"}}, h100 + h100b + procs, "", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			r, err := c.play(t).Read(t.Context())
			if !says(err, c.err) || !says(r.Partial, c.partial) && (err == nil || c.partial != "") {
				t.Errorf("error %v, partial %v; want %q, %q", err, r.Partial, c.err, c.partial)
			}
			if got := told(r); got != c.want {
				t.Errorf("got\n%swant\n%s", got, c.want)
			}
		})
	}
}

func TestSMIThatBreaksOff(t *testing.T) {
	xml, err := os.ReadFile(filepath.Join("testdata", "smi", "h100-v12.xml"))
	if err != nil {
		t.Fatal(err)
	}
	second := strings.LastIndex(string(xml), "<gpu id")
	for name, c := range map[string]struct {
		cut     int
		devices int
		says    string
	}{
		"before the first GPU":   {100, 0, "no GPU in its output"},
		"within the first":       {second / 2, 0, "breaks off"},
		"within the second":      {second + 500, 1, "breaks off"},
		"in a tag of the second": {second + 5, 1, "breaks off"},
		"after the last":         {len(xml) - 5, 2, "breaks off"},
	} {
		t.Run(name, func(t *testing.T) {
			s := scene{before: string(xml[:c.cut])}
			r, err := s.play(t).Read(t.Context())
			if c.devices == 0 && err == nil || c.devices > 0 && !says(r.Partial, c.says) || len(r.Devices) != c.devices {
				t.Errorf("%d devices, partial %v, error %v; want %d, %q", len(r.Devices), r.Partial, err, c.devices, c.says)
			}
		})
	}
}

func TestNoSMI(t *testing.T) {
	if _, err := NewSMI(filepath.Join(t.TempDir(), "nvidia-smi")).Read(t.Context()); !errors.Is(err, ErrNone) {
		t.Errorf("a path that is not there: %v", err)
	}
	t.Setenv("PATH", t.TempDir())
	if _, err := NewSMI("").Read(t.Context()); !errors.Is(err, ErrNone) {
		t.Errorf("not in the PATH: %v", err)
	}
}

// A reading that prints its XML and then hangs has its GPUs, and says why it is not good.
func TestSMIThatHangs(t *testing.T) {
	xml, err := filepath.Abs(filepath.Join("testdata", "smi", "t4-v11.xml"))
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct{ script, want string }{
		"at once":       {"sleep 1000", ""},
		"after its XML": {"cat " + xml + "; sleep 1000", t4 + t4proc},
	} {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
			defer cancel()
			r, err := NewSMI(script(t, c.script)).Read(ctx)
			if got := told(r); got != c.want || c.want == "" && !errors.Is(err, context.DeadlineExceeded) || c.want != "" && !errors.Is(r.Partial, context.DeadlineExceeded) {
				t.Errorf("%s, partial %v, error %v", got, r.Partial, err)
			}
		})
	}
}

// A table of one's own decides, and the driver's verdict stands above it.
func TestSMITable(t *testing.T) {
	table, err := LoadFaults(strings.NewReader("remap-pending failing drain_reset ask the operator\n"))
	if err != nil {
		t.Fatal(err)
	}
	smi := scene{xml: "b200-v13.xml", edit: []string{"_pending>No</remapped", "_pending>Yes</remapped"}}.play(t)
	smi.Faults = table
	r, err := smi.Read(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if got := verdict(r.Devices[0].Faults[0]); got != "failing, remap: ask the operator -> drain_reset" {
		t.Error(got)
	}
	smi.Faults = Table{}
	if r, err = smi.Read(t.Context()); err != nil || len(r.Devices[0].Faults) != 0 {
		t.Errorf("an empty table: %v, %v", r.Devices[0].Faults, err)
	}
}

func FuzzSMI(f *testing.F) {
	files, err := filepath.Glob(filepath.Join("testdata", "smi", "*.xml"))
	if err != nil || len(files) == 0 {
		f.Fatal("no fixtures", err)
	}
	for _, name := range files {
		b, err := os.ReadFile(name)
		if err != nil {
			f.Fatal(err)
		}
		if len(b) < 4096 { // the fuzzer spends its time on shortening longer ones
			f.Add(b)
		}
	}
	f.Add([]byte("Unable to determine the device handle for GPU 0000:1A:00.0: GPU is lost.\n<nvidia_smi_log><gpu><uuid>GPU-1</uuid></gpu>"))
	table := DefaultFaults()
	f.Fuzz(func(t *testing.T, out []byte) {
		log := parseSMI(out)
		r, err := log.reading(table, parseList(out), nil)
		if err == nil && r.Partial == nil && len(r.Devices) == 0 && len(r.Mentions) > 0 {
			t.Error("a mention without a reason")
		}
		if len(r.Devices) > hivebeat.MaxGPUs || len(r.Procs) > maxProcesses || len(log.messages) > 4*len(out) {
			t.Errorf("%d devices, %d processes", len(r.Devices), len(r.Procs))
		}
		seen := map[string]bool{}
		for _, d := range r.Devices {
			if d.UUID == "" || len(d.UUID) > hivebeat.MaxGPUID || seen[d.UUID] || len(d.Name) > hivebeat.MaxHostText || len(d.Err) > hivebeat.MaxHostText || d.Util > 100 ||
				d.Total > hivebeat.MaxInt || d.Used > hivebeat.MaxInt || d.Reserved > hivebeat.MaxInt || d.Power > hivebeat.MaxInt || len(d.Instances) > hivebeat.MaxInstances {
				t.Errorf("%+v is no GPU", d)
			}
			if d.Used <= d.Total && d.Used+d.Reserved+d.Free() != d.Total {
				t.Errorf("the parts do not add up: %+v", d)
			}
			seen[d.UUID] = true
			for _, i := range d.Instances {
				if i.UUID == "" || len(i.UUID) > hivebeat.MaxGPUID || i.Total > hivebeat.MaxInt || i.Used > hivebeat.MaxInt {
					t.Errorf("%+v is no instance", i)
				}
			}
		}
	})
}

// Eight GPUs as a real driver prints them: most of the text is lists of supported clocks.
func BenchmarkSMIParse(b *testing.B) {
	xml, err := os.ReadFile(filepath.Join("testdata", "smi", "b200-v13.xml"))
	if err != nil {
		b.Fatal(err)
	}
	list := "<supported_clocks>" + strings.Repeat("<supported_graphics_clock>1000 MHz</supported_graphics_clock>\n\t\t\t\t", 1500) + clocksEnd
	out := []byte(strings.ReplaceAll(string(xml), "<processes>", list+"<processes>"))
	table := DefaultFaults()
	b.SetBytes(int64(len(out)))
	for b.Loop() {
		log := parseSMI(out)
		if r, err := log.reading(table, nil, nil); err != nil || len(r.Devices) != 8 {
			b.Fatal(err)
		}
	}
}
