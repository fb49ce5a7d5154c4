package enginefile

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/beatfabric/hivebeat/internal/probe"
	"github.com/beatfabric/hivebeat/worker"
)

func TestParse(t *testing.T) {
	list, err := Parse("engines.yaml", []byte(`
# Two engines of one machine.
x-note: &every 10s
engines: []
`))
	if err == nil || list != nil {
		t.Errorf("a key of its own passes: %v, %v", list, err)
	}
	list, err = Parse("engines.yaml", []byte(`
engines:
  - id: llama
    model: meta-llama/Llama-3.3-70B
    endpoint: http://gpu-01:8000
    slots: 256
    gpus: [GPU-1, GPU-2]
    need: 40GiB
    labels: {role: decode, "1": "2"}
    probe: {kind: vllm, url: "http://127.0.0.1:8000", every: &every 10s, timeout: 3s, token_file: /etc/token}
    attach: {port: 8000}
    stall_after: 10m
  - id: own
    probe:
      kind: http
      url: http://127.0.0.1:9000/status
      every: *every
      map: {state: status, busy: load.running, kv_cap: kv.tokens}
    attach: {unit: own.service}
  - id: unread
    attach: {pid_file: /run/engine.pid}
`))
	if err != nil {
		t.Fatal(err)
	}
	want := []Engine{
		{
			Line: 3,
			Worker: worker.Config{
				ID: "llama", Model: "meta-llama/Llama-3.3-70B", Endpoint: "http://gpu-01:8000", Slots: 256,
				GPUs: []string{"GPU-1", "GPU-2"}, Need: 40 << 30, Labels: map[string]string{"role": "decode", "1": "2", "stall_after": "10m0s"},
			},
			Probe:  &probe.Config{Kind: probe.VLLM, URL: "http://127.0.0.1:8000", Every: 10 * time.Second, Timeout: 3 * time.Second, TokenFile: "/etc/token"},
			Attach: Attach{Port: 8000},
		},
		{
			Line: 13, Worker: worker.Config{ID: "own", Labels: map[string]string{}},
			Probe: &probe.Config{
				Kind: probe.HTTP, URL: "http://127.0.0.1:9000/status", Every: 10 * time.Second,
				Mapping: probe.Mapping{State: "status", Busy: "load.running", KVCap: "kv.tokens"},
			},
			Attach: Attach{Unit: "own.service"},
		},
		{Line: 20, Worker: worker.Config{ID: "unread", Labels: map[string]string{}}, Attach: Attach{PIDFile: "/run/engine.pid"}},
	}
	if diff := cmp.Diff(want, list); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
}

// Each fault is reported with its line and key, and nothing else is.
func TestFaults(t *testing.T) {
	entry := func(lines ...string) string {
		return "engines:\n  - id: a\n    attach: {port: 8000}\n    " + strings.Join(lines, "\n    ") + "\n"
	}
	for _, tt := range []struct{ name, file, want string }{
		{"a typo in a key", entry("modle: m"), `f:4: engines[0].modle: is not a key here; model is`},
		{"a typo deeper down", entry("probe: {kind: vllm, ulr: http://x}"), `f:4: engines[0].probe.ulr: is not a key here; url is`},
		{"case", entry("stallAfter: 10m"), `f:4: engines[0].stallAfter: is not a key here; stall_after is`},
		{"an unknown key", entry("command: x"), `f:4: engines[0].command: is not a key here; these are: attach, endpoint, gpus, id, labels, model, need, probe, slots, stall_after`},
		{"a typo at the top", "engine:\n  - id: a\n", `f:1: engine: is not a key here; engines is`},
		{"twice", entry("model: a", "model: b"), `f:5: engines[0].model: is there twice`},
		{"a text for a number", entry("slots: many"), `f:4: engines[0].slots: is "many", not a whole number`},
		{"a number for a text", entry("model: 70"), `f:4: engines[0].model: is "70", not a text: put it in quotes`},
		{"a negative number", entry("slots: -1"), `f:4: engines[0].slots: is "-1", not a whole number`},
		{"a size", entry("need: lots"), `f:4: engines[0].need: is "lots", not a size such as 40GiB`},
		{"a time without a unit", entry("stall_after: 600"), `f:4: engines[0].stall_after: is "600", not a time such as 10s or 5m`},
		{"stalled too soon", entry("stall_after: 30s"), `f:4: engines[0].stall_after: is 30s, not 5m0s to 24h0m0s`},
		{"an empty value", entry("model:"), `f:4: engines[0].model: is empty, not a text`},
		{"a list for a text", entry("model: [a]"), `f:4: engines[0].model: is a list, not a text`},
		{"a text for a list", entry("gpus: GPU-1"), `f:4: engines[0].gpus: is "GPU-1", not a list`},
		{"a kind", entry("probe: {kind: vlm, url: http://127.0.0.1:8000}"), `f:4: engines[0].probe.kind: "vlm" is none of [auto vllm sglang llamacpp ollama trtllm tgi openai http prometheus tcp]`},
		{"a URL", entry("probe:", "  kind: vllm", "  url: 127.0.0.1:8000"), `f:6: engines[0].probe.url: `},
		{"a password in a URL", entry("probe: {url: 'http://a:b@127.0.0.1'}"), `f:4: engines[0].probe.url: has a user or password`},
		{"a mapping for an engine that is known", entry("probe: {kind: vllm, url: 'http://127.0.0.1', map: {busy: x}}"), `f:4: engines[0].probe.map: kind vllm needs none`},
		{"a metric", entry("probe:", "  kind: prometheus", "  url: http://127.0.0.1", "  map:", "    busy: 'x{'"), `f:8: engines[0].probe.map.busy: `},
		{"a timeout above the interval", entry("probe: {url: 'http://127.0.0.1', every: 5s, timeout: 5s}"), `f:4: engines[0].probe.timeout: 5s must be above 0, and below Every`},
		{"a file that is not there", entry("probe: {url: 'https://127.0.0.1', ca_file: /nowhere}"), `f:4: engines[0].probe.ca_file: open /nowhere`},
		{"a port", "engines:\n  - id: a\n    attach: {port: 80000}\n", `f:3: engines[0].attach.port: is 80000, not 1 to 65535`},
		{"two ways to attach", "engines:\n  - id: a\n    attach: {port: 80, pid: 7}\n", `f:3: engines[0].attach: has more than one of pid, pid_file, port and unit: keep one`},
		{"an id", "engines:\n  - id: a.b\n    attach: {port: 80}\n", `f:2: engines[0].id: "a.b" is no id: 1 to 64 of A-Z a-z 0-9 _ -`},
		{"no id", "engines:\n  - attach: {port: 80}\n", `f:2: engines[0]: has no id`},
		{"nothing to watch", "engines:\n  - id: a\n", `f:2: engines[0]: has neither probe nor attach: there is nothing to watch`},
		{"one id twice", "engines:\n  - {id: a, attach: {port: 80}}\n  - {id: a, attach: {port: 81}}\n", `f:3: engines[1].id: "a" is that of the engine in line 2 too`},
		{"no YAML", "engines:\n  - id: a\n  bad\n", `f:3: is not YAML: `},
		{"an entry that is a text", "engines:\n  - vllm\n", `f:2: engines[0]: is "vllm", not keys with values`},
		{"nothing", "", `f: is empty: it needs a list "engines"`},
		{"only a comment", "# engines\n", `f: is empty: it needs a list "engines"`},
		{"no engines", "engines: []\n", `f:1: engines: is empty`},
		{"a second document", entry() + "---\nengines: []\n", `f:5: has a second document`},
		{"a key of YAML", entry("<<: {model: m}"), `f:4: engines[0].<<: is not a key here`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			list, err := Parse("f", []byte(tt.file))
			if err == nil {
				t.Fatalf("it passes: %+v", list)
			}
			if got := err.Error(); !strings.HasPrefix(got, tt.want) || strings.Contains(got, "\n") {
				t.Errorf("it reports\n%s\nwant\n%s", got, tt.want)
			}
		})
	}
}

// All faults are reported at once, by line.
func TestAllFaults(t *testing.T) {
	_, err := Parse("f", []byte("engines:\n  - id: a\n    slots: x\n    modle: m\n    attach: {port: 1}\n  - id: a\n    probe: {url: 'http://x', kind: y}\n"))
	want := `f:3: engines[0].slots: is "x", not a whole number
f:4: engines[0].modle: is not a key here; model is
f:6: engines[1].id: "a" is that of the engine in line 2 too
f:7: engines[1].probe.kind: "y" is none of [auto vllm sglang llamacpp ollama trtllm tgi openai http prometheus tcp]`
	if err == nil || err.Error() != want {
		t.Errorf("it reports\n%v\nwant\n%s", err, want)
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte("engines:\n  - id: a\n    probe: &p {url: 'http://x', map: {a: b}}\n    attach: *p\n"))
	f.Add([]byte("a: &a [*a]"))
	f.Fuzz(func(t *testing.T, b []byte) {
		list, err := Parse(filepath.Join(os.TempDir(), "f"), b)
		if err == nil && len(list) == 0 {
			t.Error("no engine and no error")
		}
	})
}
