//go:build e2e

package gpus

import (
	"fmt"
	"strings"
	"time"

	"github.com/beatfabric/hivebeat"
	"github.com/beatfabric/hivebeat/internal/e2e/rig"
)

const (
	mib = 1 << 20
	gib = 1 << 30
)

// stale is how long it takes until a GPU that no reading shows is unknown: 45 s, a pause
// between two readings, and what a busy machine adds.
const stale = 80 * time.Second

// hung adds the limit of one reading, 30 s.
const hung = stale + 35*time.Second

// scenes is what happens to GPUs, and what everybody is told. One row is one situation.
func scenes() []row {
	one, two := 1, 2
	none := []string{}
	return []row{
		// From public reports; the scenes name them.
		{
			name: "the driver is upgraded under running engines", scene: "driver-mismatch",
			engines: []engine{{id: "w0", gpus: "GPU-11111111-aaaa-0000-0000-000000000000"}},
			steps: []step{
				{want: want{gpus: []string{"ok"}, pick: "0", worker: "w0", collect: "^ok$"}},
				{play: "broken", most: stale, want: want{
					// The GPU may work, and the engine does: no new work on the GPU, and the worker last.
					gpus: []string{"unknown unread"}, pick: "none", worker: "w0", collect: "version mismatch",
					note: "version mismatch", get: "version mismatch", why: map[string]string{"w0": "unknown|not read"},
					events: none, also: noOldFigure,
				}},
				{want: want{gpus: []string{"ok"}, pick: "0", collect: "^ok$", events: none}},
			},
		},
		{
			name: "an engine's child holds the memory", scene: "eight-with-engine-children",
			engines: []engine{{id: "w0", child: true}},
			steps: []step{{want: want{
				gpus: eight("ok"), ours: map[int]uint64{0: 0, 3: 74200 * mib}, pick: "any:0 1 2 4 5 6 7", free: 40 * gib,
				worker: "w0", why: map[string]string{"w0": "000000000003|GPU 3"}, also: partsAddUp,
			}}},
		},
		{
			name: "a machine with unified memory", scene: "gb10-unified-memory",
			steps: []step{{want: want{gpus: []string{"ok"}, pick: "0", free: 100 * mib, collect: "^ok$", get: "unified|shared with the machine", also: unified}}},
		},
		{
			name: "a card that is split is no place; its instances are", scene: "h200-mig",
			steps: []step{
				{want: want{gpus: []string{"ok"}, pick: "any:0/1g.18gb 0/1g.18gb 0/1g.18gb 0/4g.71gb", get: "4g.71gb"}},
				{want: want{pick: "0/4g.71gb", free: 50 * gib}},
				{want: want{pick: "none", free: 100 * gib}},
			},
		},
		{
			name: "nvidia-smi hangs and ignores SIGTERM", scene: "hangs", flags: []string{"--gpu-limit", "5s"},
			steps: []step{
				{want: want{gpus: []string{"ok"}, pick: "0"}},
				{play: "broken", most: hung, want: want{gpus: []string{"unknown unread"}, pick: "none", collect: "no answer", note: "no answer", standIns: &one}},
				{most: hung, want: want{gpus: []string{"ok"}, pick: "0", collect: "^ok$"}},
			},
		},
		{
			name: "one of four is lost, and nothing is known of the others", scene: "one-of-four-lost",
			steps: []step{
				{want: want{gpus: []string{"ok", "ok", "ok", "ok"}, pick: "any:0 1 2 3"}},
				{play: "broken", most: stale, want: want{
					gpus: repeat(4, "unknown unread|failing \\S+ reboot"), pick: "none", collect: "GPU is lost", note: "GPU is lost",
				}},
				{most: stale, want: want{gpus: repeat(4, "ok"), pick: "any:0 1 2 3"}},
			},
		},
		{
			name: "one of four answers with errors", scene: "one-of-four-unknown-error",
			steps: []step{
				{want: want{gpus: repeat(4, "ok"), pick: "any:0 1 2 3"}},
				{play: "broken", most: stale, want: want{
					gpus: []string{"ok", "(failing|gone|unknown) .*", "ok", "ok"}, pick: "any:0 2 3", collect: "Unknown Error", note: "Unknown Error",
				}},
				{want: want{gpus: repeat(4, "ok"), pick: "any:0 1 2 3"}},
			},
		},
		{
			name: "the only GPU is gone", scene: "only-gpu-gone",
			engines: []engine{{id: "w0", gpus: "GPU-55555555-aaaa-0000-0000-000000000000"}},
			steps: []step{
				{want: want{gpus: []string{"ok"}, pick: "0", worker: "w0", events: none}},
				{play: "broken", want: want{
					gpus: []string{"gone missing"}, pick: "none", worker: "none", collect: "^error: .*(gone|no devices were found)",
					note: "gone|lost|missing", get: "gone", why: map[string]string{"w0": "gone"}, events: []string{"gpu-lost 0"}, metric: `hivebeat_hive_gpu_up\{gpu="0"\} 0`,
				}},
				{want: want{gpus: []string{"ok"}, pick: "0", worker: "w0", collect: "^ok$", events: []string{"gpu-lost 0", "gpu-recovered 0"}}},
			},
		},
		{
			name: "the reason is on stderr", scene: "reason-on-stderr",
			steps: []step{{want: want{gpus: []string{"ok"}, pick: "0", collect: "Unable to determine the device handle", note: "Unable to determine", events: none}}},
		},
		{
			name: "one of two requires a reset", scene: "requires-reset",
			steps: []step{{want: want{
				gpus: []string{"failing reset reset", "ok"}, pick: "1", note: "reset", get: "GPU requires reset",
				events: []string{"gpu-failing 0"}, metric: `hivebeat_hive_gpu_up\{gpu="0"\} 0`,
			}}},
		},
		{
			name: "every answer takes 12 s", scene: "slow-12s",
			steps: []step{{most: hung, want: want{gpus: []string{"ok"}, pick: "0", collect: "^ok$", events: none}}},
		},

		// The driver's recovery action, and how each fault ends.
		{
			name: "reset, then good again", scene: "recovery-reset",
			engines: []engine{{id: "w1", gpus: "GPU-b1000001-0000-0000-0000-000000000001"}},
			steps: []step{
				{want: want{gpus: []string{"ok", "ok"}, pick: "any:0 1", worker: "w1"}},
				{play: "reset", want: want{
					gpus: []string{"ok", "failing driver reset"}, pick: "0", worker: "none", note: "reset", why: map[string]string{"w1": "failing"},
					events: []string{"gpu-failing 1"},
				}},
				{play: "mended", want: want{gpus: []string{"ok", "ok"}, pick: "any:0 1", worker: "w1", events: []string{"gpu-failing 1", "gpu-recovered 1"}}},
			},
		},
		{
			name: "reboot holds for the machine", scene: "recovery-reboot",
			steps: []step{
				{want: want{gpus: []string{"ok", "ok"}}},
				{play: "reboot", want: want{
					gpus: []string{"failing driver reboot", "failing machine reboot"}, pick: "none", note: "reboot",
					events: []string{"gpu-failing 0", "gpu-failing 1"},
				}},
			},
		},
		{
			name: "peer-to-peer traffic is to be drained", scene: "recovery-drain-p2p",
			steps: []step{
				{want: want{gpus: []string{"ok", "ok"}}},
				{play: "drain", want: want{gpus: []string{"failing driver drain", "ok"}, pick: "1", note: "drain", events: []string{"gpu-failing 0"}}},
				{play: "mended", want: want{gpus: []string{"ok", "ok"}, events: []string{"gpu-failing 0", "gpu-recovered 0"}}},
			},
		},
		{
			name: "heat: picked last", scene: "thermal-slowdown",
			steps: []step{
				{want: want{gpus: []string{"ok", "ok"}}},
				{play: "hot", most: stale, want: want{gpus: []string{"degraded throttle", "ok"}, pick: "1 0", get: "heat|thermal"}},
				{play: "mended", most: stale, want: want{gpus: []string{"ok", "ok"}, pick: "any:0 1"}},
			},
		},
		{
			name: "rows wait to be remapped: picked last", scene: "remap-pending",
			steps: []step{
				{want: want{gpus: []string{"ok", "ok"}}},
				{play: "pending", want: want{gpus: []string{"degraded remap reset", "ok"}, pick: "1 0", get: "remap", events: []string{"gpu-degraded 0"}}},
				{play: "mended", want: want{gpus: []string{"ok", "ok"}, events: []string{"gpu-degraded 0", "gpu-recovered 0"}}},
			},
		},
		{
			name: "a row cannot be remapped: only an operator ends it", scene: "remap-failure",
			steps: []step{
				{want: want{gpus: []string{"ok", "ok"}}},
				{play: "failure", want: want{gpus: []string{"failing remap replace", "ok"}, pick: "1", note: "replace", events: []string{"gpu-failing 0"}}},
				{play: "mended", do: readAgain, want: want{gpus: []string{"failing remap replace", "ok"}, pick: "1", events: []string{"gpu-failing 0"}}},
			},
		},
		{
			name: "missing from a good reading, and there again", scene: "vanishes",
			engines: []engine{{id: "w1", gpus: "GPU-b1000007-0000-0000-0000-000000000001"}},
			steps: []step{
				{want: want{gpus: repeat(3, "ok"), worker: "w1", events: none}},
				{play: "missing", want: want{
					gpus: []string{"ok", "gone missing", "ok"}, pick: "any:0 2", worker: "none", note: "gone|missing|lost", collect: "^error",
					events: []string{"gpu-lost 1"},
				}},
				{play: "back", want: want{gpus: repeat(3, "ok"), pick: "any:0 1 2", worker: "w1", collect: "^ok$", events: []string{"gpu-lost 1", "gpu-recovered 1"}}},
			},
		},
		{
			name: "a message names the address of the lost one", scene: "lost-by-address",
			steps: []step{
				{want: want{gpus: repeat(4, "ok")}},
				{play: "lost", want: want{
					gpus: []string{"ok|failing machine reboot", "ok|failing machine reboot", "failing gpu_lost( reboot)?", "ok|failing machine reboot"},
					note: "lost", collect: "GPU is lost",
				}},
			},
		},

		// Readings that go wrong.
		{
			name: "the output ends in the middle", scene: "partial-output",
			steps: []step{
				{want: want{gpus: []string{"ok", "ok"}, collect: "^ok$"}},
				{play: "cut", want: want{collect: "^error", events: none}}, // a part is no proof that a GPU is missing
				{play: "mended", want: want{gpus: []string{"ok", "ok"}, collect: "^ok$", events: none}},
			},
		},
		{
			name: "output without end", scene: "huge-output",
			steps: []step{
				{want: want{gpus: []string{"ok", "ok"}, collect: "^ok$"}},
				{play: "flood", want: want{collect: "^error", events: none, also: small}},
				{play: "mended", want: want{gpus: []string{"ok", "ok"}, collect: "^ok$", events: none}},
			},
		},
		{
			name: "nvidia-smi is killed", scene: "killed",
			steps: []step{
				{want: want{gpus: []string{"ok", "ok"}, collect: "^ok$"}},
				{play: "killed", want: want{collect: "^error: .*killed", events: none}},
				{play: "mended", want: want{gpus: []string{"ok", "ok"}, collect: "^ok$", events: none}},
			},
		},
		{
			name: "decimal commas", scene: "other-locale",
			steps: []step{{want: want{gpus: []string{"ok", "ok"}, pick: "any:0 1", free: 70 * gib}}},
		},
		{
			name: "a hung call goes with its child", scene: "hang-with-child", flags: []string{"--gpu-limit", "5s"},
			steps: []step{
				{want: want{gpus: []string{"ok", "ok"}}},
				// Two processes of the call that runs now, and none of those before.
				{play: "hang", most: hung, want: want{gpus: []string{"unknown unread", "unknown unread"}, pick: "none", standIns: &two}},
			},
		},

		// What an operator and other workers take.
		{
			name: "the machine has a budget", scene: "other-locale", flags: []string{"--vram-budget", "60GiB"},
			steps: []step{
				{want: want{gpus: []string{"ok", "ok"}, pick: "any:0 1", free: 25 * gib}},
				{want: want{pick: "none", free: 70 * gib}}, // each GPU has room
			},
		},
		{
			name: "a loading worker has announced what it takes", scene: "other-locale",
			engines: []engine{{id: "w0", gpus: "GPU-b1000012-0000-0000-0000-000000000000", need: 60 * gib}},
			steps:   []step{{want: want{gpus: []string{"ok", "ok"}, pick: "1", free: 40 * gib, worker: "none", get: "announced|60"}}},
		},
		{
			name: "two GPUs at once, or none", scene: "other-locale",
			steps: []step{{want: want{gpus: []string{"ok", "ok"}, pick: "any:0 1", free: 70 * gib, also: bothOrNone}}},
		},
		{
			name: "a GPU was taken out, and an operator says so", scene: "vanishes",
			steps: []step{
				{want: want{gpus: repeat(3, "ok"), events: none}},
				{play: "missing", want: want{gpus: []string{"ok", "gone missing", "ok"}, events: []string{"gpu-lost 1"}}},
				{do: func(m *machine) { m.cli("forget", m.id+"/1") }, want: want{gpus: []string{"ok", "ok"}, pick: "any:0 2", events: []string{"gpu-lost 1", "gpu-forgotten 1"}}},
			},
		},

		// Processes.
		{
			name: "a worker in an instance", scene: "mig-with-worker",
			engines: []engine{{id: "w0", child: true}},
			steps: []step{{want: want{
				gpus: []string{"ok"}, worker: "w0", why: map[string]string{"w0": "MIG-b1000014|4g.71gb"}, also: oursInInstance,
			}}},
		},
		{
			name: "the API server is killed, its engine keeps the memory", scene: "orphaned-engine",
			engines: []engine{{id: "w0", child: true}},
			steps: []step{
				{want: want{gpus: []string{"ok", "ok"}, ours: map[int]uint64{0: 74200 * mib}}},
				{do: func(m *machine) { m.engines["w0"].Kill() }, want: want{
					gpus: []string{"ok", "ok"}, ours: map[int]uint64{0: 0}, get: "orphan", events: []string{"gpu-orphan 0"}, also: orphaned,
				}},
			},
		},
		{
			name: "the parts of each GPU's memory add up to its total", scene: "eight-in-parts",
			engines: []engine{{id: "w0", child: true}},
			steps:   []step{{want: want{gpus: eight("ok"), ours: map[int]uint64{0: 500 * mib, 7: 4000 * mib}, also: partsOfEight}}},
		},
	}
}

func repeat(n int, entry string) []string {
	list := make([]string, n)
	for i := range list {
		list[i] = entry
	}
	return list
}

func eight(entry string) []string { return repeat(8, entry) }

// bothOrNone finds a pick of several GPUs of one machine that is not as asked for.
func bothOrNone(m *machine) string {
	two := m.cli("pick", "--for", "gpu", "--hive", m.id, "--gpus", "2", "--free-vram", "70GiB", "-o", "json")
	if strings.Count(two, "GPU-b1000012-") < 2 {
		return "two GPUs at once: " + two
	}
	if three := m.cli("pick", "--for", "gpu", "--hive", m.id, "--gpus", "3", "--free-vram", "70GiB"); strings.Contains(three, "GPU-b1000012-") {
		return "three of two GPUs: " + three
	}
	return ""
}

// noOldFigure finds free memory that is told although nothing is known.
func noOldFigure(m *machine) string {
	h, err := m.hiveInfo()
	if err != nil || h.FreeVRAM != 0 || h.VRAMStale == 0 {
		return fmt.Sprintf("free_vram %d, vram_stale %d (%v): want none, and how much is stale", h.FreeVRAM, h.VRAMStale, err)
	}
	if text := m.cli("get", m.id); strings.Contains(text, "free at one place") {
		return "get tells an old figure: " + text
	}
	return ""
}

// unified finds a GPU whose memory is not that of the host.
func unified(m *machine) string {
	h, err := m.hiveInfo()
	if err != nil || len(h.GPUs) != 1 {
		return fmt.Sprint(len(h.GPUs), " GPUs: ", err)
	}
	if g := &h.GPUs[0]; !g.Unified || g.Total != h.Host.MemTotal || g.Free() == 0 || g.Err != "" || !strings.Contains(g.Name, "GB10") {
		return fmt.Sprintf("GPU %+v of a host with %d bytes", *g, h.Host.MemTotal)
	}
	return ""
}

// parts returns the parts of a GPU's memory in bytes.
func parts(g *hivebeat.GPU) (sum uint64, list string) {
	for _, p := range []struct {
		name string
		n    uint64
	}{
		{"ours", g.Ours}, {"orphaned", g.Orphaned}, {"foreign", g.Foreign()}, {"unattributed", g.Unattributed}, {"reserved", g.Reserved}, {"free", g.Free()},
	} {
		sum += p.n
		list += fmt.Sprintf(" %s %d", p.name, p.n/mib)
	}
	return sum, list
}

// partsAddUp finds a GPU whose parts are not its total.
func partsAddUp(m *machine) string {
	h, err := m.hiveInfo()
	if err != nil {
		return err.Error()
	}
	for i := range h.GPUs {
		if sum, list := parts(&h.GPUs[i]); sum != h.GPUs[i].Total || sum == 0 {
			return fmt.Sprintf("GPU %d: parts %s add up to %d MiB of %d", i, list, sum/mib, h.GPUs[i].Total/mib)
		}
	}
	return ""
}

// partsOfEight also checks each part: GPU i has (i+1) times 500 MiB of ours, 300 of
// another process and 200 of which the driver names no owner.
func partsOfEight(m *machine) string {
	h, err := m.hiveInfo()
	if err != nil || len(h.GPUs) != 8 {
		return fmt.Sprint(len(h.GPUs), " GPUs: ", err)
	}
	for i := range h.GPUs {
		g, n := &h.GPUs[i], uint64(i+1)*mib
		if _, list := parts(g); g.Ours != 500*n || g.Foreign() != 300*n || g.Unattributed != 200*n || g.Reserved != 551*mib {
			return fmt.Sprintf("GPU %d: %s MiB, want %d of ours, %d foreign, %d unattributed, 551 reserved", i, list, 500*n/mib, 300*n/mib, 200*n/mib)
		}
	}
	return partsAddUp(m)
}

func orphaned(m *machine) string {
	h, err := m.hiveInfo()
	if err != nil || len(h.GPUs) == 0 || h.GPUs[0].Orphaned != 74200*mib || h.GPUs[0].Foreign() != 0 {
		return fmt.Sprintf("%+v (%v), want 74200 MiB orphaned", h.GPUs, err)
	}
	for _, ev := range m.events.Of(hivebeat.KindGPUOrphan, m.id) {
		if ev.Data.Owner != "w0" {
			return fmt.Sprintf("an orphan of %q, want w0", ev.Data.Owner)
		}
	}
	return partsAddUp(m)
}

func oursInInstance(m *machine) string {
	h, err := m.hiveInfo()
	if err != nil || len(h.GPUs) == 0 || len(h.GPUs[0].Instances) == 0 {
		return fmt.Sprintf("no instances: %+v (%v)", h.GPUs, err)
	}
	for i := range h.GPUs[0].Instances {
		in, want := &h.GPUs[0].Instances[i], uint64(0)
		if in.Profile == "4g.71gb" {
			want = 13526 * mib
		}
		if in.Ours != want {
			return fmt.Sprintf("instance %s: %d of ours, want %d", in.Profile, in.Ours, want)
		}
	}
	return ""
}

// small finds a hive that keeps too much of what it reads.
func small(m *machine) string {
	if n := m.hive.Memory("VmRSS"); n > 100<<20 {
		return fmt.Sprintf("the hive's RSS is %d MiB", n>>20)
	}
	return ""
}

// readAgain waits until two more readings have come.
func readAgain(m *machine) {
	m.t.Helper()
	last, seen := hivebeat.Millis(0), 0
	rig.Until(m.t, moment, "two readings", func() (bool, string) {
		h, err := m.hiveInfo()
		if err != nil || len(h.GPUs) == 0 {
			return false, fmt.Sprint(err)
		}
		age := h.GPUs[len(h.GPUs)-1].Age
		if age < last {
			seen++
		}
		last = age
		return seen >= 2, fmt.Sprintf("%d readings, the last %d ms ago", seen, age)
	})
}
