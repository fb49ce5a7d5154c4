package wire

import (
	"encoding/hex"
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/vmihailenco/msgpack/v5"

	"github.com/beatfabric/hivebeat"
)

var update = flag.Bool("update", false, "write testdata/wire/v1 anew from the tables of this file")

const vectorDir = "../../testdata/wire/v1"

// vector is one message in the file format that docs/PROTOCOL.md describes.
type vector struct {
	Name   string          `json:"name"`
	About  string          `json:"about"`
	Hex    string          `json:"hex"`
	Refuse hivebeat.Reason `json:"refuse,omitempty"` // the reason why a reader refuses it
	Value  json.RawMessage `json:"value,omitempty"`  // the value that a reader decodes, if it accepts it
}

func accepted(name, about string, msg []byte, read func([]byte) (any, error)) vector {
	v := must(read(msg))
	return vector{Name: name, About: about, Hex: hex.EncodeToString(msg), Value: must(json.Marshal(v))}
}

func readBeat(b []byte) (any, error)     { return DecodeBeat(b) }
func readSnapshot(b []byte) (any, error) { return DecodeSnapshot(b) }

// raw encodes pairs in the order given; a map literal has no order.
func raw(kv ...any) []byte {
	b := []byte{0xde, byte(len(kv) / 2 >> 8), byte(len(kv) / 2)}
	if len(kv) < 32 {
		b = []byte{0x80 | byte(len(kv)/2)}
	}
	for _, v := range kv {
		b = append(b, must(Encode(v))...)
	}
	return b
}

func vectors() map[string][]vector {
	full := sampleBeat()
	full.Reason, full.Quiet, full.Data = "warming the cache", 60000, []byte{0, 1, 254, 255}
	full.Boot = 86_400_123
	full.Need = 70 << 30
	full.Engine, full.Ver, full.Ctx, full.KVCap, full.Tokens, full.Probed = "vllm", "0.11.2", 131_072, 524_288, 9_876_543, 1_200
	full.KV = new(0.25)
	full.LoRA = hivebeat.LoRA{Max: 4, On: []string{"sql", "legal"}, Wait: []string{"medical"}}
	full.Cold = []string{"qwen3:8b"}
	full.Exit = "code 3"
	full.Labels = map[string]string{"zone": "eu-1"}
	idle := hivebeat.Beat{V: 1, Hive: "gpu-01", Worker: "w-0", Facts: hivebeat.Facts{Inc: 1795435200000000, Every: 30000, State: hivebeat.Ready, Seq: 1}}
	ended := idle
	ended.State, ended.Reason, ended.Exit, ended.Seq = hivebeat.Degraded, "CUDA error; starts again in 2s (restart 1)", hivebeat.ExitOOM, 9
	snap := sampleSnapshot(1)
	snap.Bye, snap.GPUs = "maintenance", snap.GPUs[:1]
	snap.PID = 4242
	snap.Conn, snap.RW = "NCXU3YJ3Y5KX7O2Z2VJ6QWTTWRRNQ7VQ4YAKQPLW6J3JQKQ5QJ2F4X2M/8", 250
	snap.Collect = map[string]string{"gpu": "error: nvidia-smi did not answer within 5s"}
	snap.GPUs[0].Err = "power: [Unknown Error]"
	snap.Host.Kernel, snap.Host.Driver = "6.8.0-90-generic", "590.48.01"
	snap.Host.CacheTotal, snap.Host.CacheFree, snap.Host.StoreTotal, snap.Host.StoreFree = 2<<40, 1<<40, 100<<30, 99<<30
	snap.VRAMBudget, snap.GPUN = 120<<30, 4
	snap.GPUs = append(snap.GPUs, hivebeat.GPU{
		UUID: "GPU-cccccccc-0000-0000-0000-000000000000", Index: 1, Name: "NVIDIA H200", Bus: "00000000:1B:00.0",
		Total: 143_771 << 20, Used: 13_526 << 20, Ours: 10_000 << 20, Orphaned: 2_000 << 20, OrphanOf: "llama-2", Unattributed: 526 << 20, Reserved: 600 << 20,
		State: hivebeat.GPUFailing, Cause: hivebeat.CauseXID, Evidence: "XID 48: double-bit ECC error", Action: hivebeat.ActionReset, Since: 61_000, Boots: 1, Age: 900,
		MIG: true,
		Instances: []hivebeat.GPUInstance{{
			UUID: "MIG-aaaaaaaa-0000-0000-0000-000000000002", Profile: "1g.18gb", GI: 9, CI: 1,
			Total: 16_384 << 20, Used: 2_194 << 20, Ours: 1_000 << 20, Orphaned: 500 << 20, Unattributed: 194 << 20, Reserved: 33 << 20,
		}},
	}, hivebeat.GPU{UUID: "GPU-66666666-aaaa-0000-0000-000000000000", Index: 2, Name: "NVIDIA GB10", Unified: true, Total: 119 << 30, Used: 20 << 30})
	snap.GPUTr = []hivebeat.GPUTransition{
		{N: 2, Kind: hivebeat.KindGPUForgotten, GPU: "GPU-0", From: hivebeat.GPUGone, Cause: hivebeat.CauseForgot, Asker: "ann", Ago: 9_000},
		{N: 3, Kind: hivebeat.KindGPUOrphan, GPU: "GPU-cccccccc-0000-0000-0000-000000000000", Index: 1, Cause: hivebeat.CauseOrphan, Evidence: "2.0 GiB held by process 4711", Worker: "llama-2", Ago: 5_000},
		{
			N: 4, Kind: hivebeat.KindGPUFailing, GPU: "GPU-cccccccc-0000-0000-0000-000000000000", Index: 1, From: hivebeat.GPUOK, To: hivebeat.GPUFailing,
			Cause: hivebeat.CauseXID, Evidence: "XID 48: double-bit ECC error", Action: hivebeat.ActionReset, Ago: 61_000,
		},
	}
	snap.Stats = hivebeat.Stats{Beats: 7, Refused: 6, Stale: 5, WireLost: 4, FalseDead: 3, CutOff: 2, SelfPause: 1}
	r := &snap.Workers[0]
	r.Facts = full.Facts
	r.Live, r.Cause, r.Missed, r.Stalled = hivebeat.Lost, hivebeat.CauseExit, 3, true
	r.N, r.Rival, r.Ended, r.Closed = 3, r.Inc-1, 86_401_000, true
	r.RivalAt = hivebeat.Place{Host: "gpu-02", PID: 4711, Conn: "NCXU3YJ3Y5KX7O2Z2VJ6QWTTWRRNQ7VQ4YAKQPLW6J3JQKQ5QJ2F4X2M/9", Addr: "192.0.2.7:50312"}
	r.Addr = "[2001:db8::1]:50310"
	r.On, r.Fault = []string{"MIG-aaaaaaaa-0000-0000-0000-000000000002"}, "XID 31: MMU fault, 12s ago"
	r.Proc.Procs, r.Proc.Threads, r.Proc.Files, r.Proc.MemMax, r.Proc.OOM = 3, 212, 97, 64<<30, 1
	r.Rate, r.TPS = 0.5, 1834.25
	r.Proc.Read, r.Restarts, r.Looping = 9<<30, 25, true
	r.Tr = []hivebeat.Transition{
		{N: 1, Kind: hivebeat.KindLost, From: "late", To: "lost", Cause: hivebeat.CauseMissed, Inc: r.Inc, Ago: 30040},
		{N: 2, Kind: hivebeat.KindRecovered, From: "lost", To: "alive", Inc: r.Inc, Margin: 1700, Ago: 29040},
		{N: 3, Kind: hivebeat.KindLost, From: "alive", To: "lost", Cause: hivebeat.CauseExit, Inc: r.Inc, Detect: 7, Ago: 40},
	}

	least := raw("v", 1, "hive", "h", "worker", "w", "inc", 1, "seq", 1, "every", 100)
	beat := func(kv ...any) []byte {
		return raw(append([]any{"v", 1, "hive", "h", "worker", "w", "inc", 1, "seq", 1, "every", 1000}, kv...)...)
	}
	refused := func(name, about string, why hivebeat.Reason, msg []byte) vector {
		return vector{Name: name, About: about, Hex: hex.EncodeToString(msg), Refuse: why}
	}
	deep := any(nil)
	for range 8 {
		deep = []any{deep}
	}
	return map[string][]vector{
		"beat.json": {
			accepted("least", "the required keys alone", least, readBeat),
			accepted("full", "every key, in the order this project sends them: volatile ones last", must(EncodeBeat(&full)), readBeat),
			accepted("ended", "the last beat of a worker whose process the kernel killed, which its supervisor sends", must(EncodeBeat(&ended)), readBeat),
			accepted("idle", "this project sends the volatile keys even if zero, so that the bytes before them repeat", must(EncodeBeat(&idle)), readBeat),
			accepted("wide", "each integer and string in its widest form; a reader takes any width",
				unhex("df00000006"+"db0000000176"+"d30000000000000001"+"db0000000468697665"+"db0000000168"+"db00000006776f726b6572"+"db0000000177"+
					"db00000003696e63"+"cf0006615b10f88000"+"db00000003736571"+"cf0000000000000001"+"db000000056576657279"+"cf0000000000007530"), readBeat),
			accepted("unknown-keys", "keys of a later version are skipped, whatever they hold", beat("later", map[string]any{"a": []any{1.5, nil, true}}, "z", "z"), readBeat),
			accepted("unknown-state", "a state of a later version is kept as it is", beat("state", "hibernating"), readBeat),
			accepted("no-state", "a text that is empty is as if its key were missing", beat("state", ""), readBeat),
			accepted("goodbye", "the worker leaves in order", beat("state", "stopped", "reason", "interrupt"), readBeat),
			accepted("host", "the host name of the machine, as the worker sees it", beat("host", "gpu-01.example"), readBeat),
			accepted("greatest", "the greatest integer is 2^53 - 1", beat("done", uint64(hivebeat.MaxInt)), readBeat),
		},
		"snapshot.json": {
			accepted("least", "the required keys alone; pages absent means 0 of 1", raw("v", 1, "hive", "h", "inc", 1, "seq", 1, "every", 15000), readSnapshot),
			accepted("full", "every key, in the order this project sends them", must(EncodeSnapshot(&snap)), readSnapshot),
			accepted("connection", "a hive names its connection; what a transition says of its time may be missing, and is not known then",
				raw("v", 1, "hive", "h", "inc", 1, "seq", 1, "every", 15000, "conn", "NDXS/8", "rw", 2000,
					"workers", []any{map[string]any{
						"worker": "w", "live": "lost", "inc": 1, "seq": 1, "every": 1000,
						"tr": []any{
							map[string]any{"n": 1, "kind": "lost", "inc": 1, "cause": "exit"},
							map[string]any{"n": 2, "kind": "lost", "inc": 1, "cause": "disconnect", "detect": 2004},
						},
					}}), readSnapshot),
			accepted("loop", "a worker that restarts over and over, and the transition that says so",
				raw("v", 1, "hive", "h", "inc", 1, "seq", 1, "every", 15000,
					"workers", []any{map[string]any{
						"worker": "w", "live": "alive", "inc": 4, "seq": 1, "every": 1000, "restarts": 3, "looping": true,
						"tr": []any{
							map[string]any{"n": 7, "kind": "restarted", "inc": 4, "from": "lost", "to": "alive"},
							map[string]any{"n": 8, "kind": "looping", "inc": 4, "to": "looping"},
						},
					}}), readSnapshot),
			accepted("gpu-unknown-words", "a state, cause and action of a later version are kept; such a GPU is never picked",
				raw("v", 1, "hive", "h", "inc", 1, "seq", 1, "every", 15000,
					"gpus", []any{map[string]any{"uuid": "GPU-0", "index": 0, "state": "resting", "cause": "tired", "action": "wait"}}), readSnapshot),
			accepted("integer-for-float", "a float may be sent as an integer", raw("v", 1, "hive", "h", "inc", 1, "seq", 1, "every", 15000,
				"host", map[string]any{"cpu": 12}), readSnapshot),
			accepted("unknown-words", "an unknown live and an unknown kind are kept", raw("v", 1, "hive", "h", "inc", 1, "seq", 1, "every", 15000,
				"workers", []any{map[string]any{
					"worker": "w", "live": "dormant", "inc": 1, "seq": 1, "every": 1000,
					"tr": []any{map[string]any{"n": 1, "kind": "slept", "inc": 1}},
				}}), readSnapshot),
		},
		"beat-refused.json": {
			refused("empty", "no byte at all", hivebeat.RefusedMalformed, nil),
			refused("text", "JSON is not msgpack", hivebeat.RefusedMalformed, []byte(`{"v":1,"hive":"h"}`)),
			refused("truncated", "ends within a value", hivebeat.RefusedMalformed, least[:len(least)-2]),
			refused("trailing", "a byte after the value", hivebeat.RefusedMalformed, append(append([]byte{}, least...), 0xc0)),
			refused("bomb-map", "declares 2^32 - 1 pairs and holds none: must cost no memory", hivebeat.RefusedMalformed, unhex("dfffffffff")),
			refused("bomb-array", "the same for an array, under an unknown key", hivebeat.RefusedMalformed, append(raw("x", 0)[:3], unhex("ddffffffff")...)),
			refused("bomb-str", "a string of 2^32 - 1 bytes", hivebeat.RefusedMalformed, append(raw("x", 0)[:3], unhex("dbffffffff")...)),
			refused("ext", "an ext type under an unknown key", hivebeat.RefusedMalformed, beat("x", msgpack.RawMessage{0xd4, 1, 0})),
			refused("reserved", "the byte that msgpack never uses", hivebeat.RefusedMalformed, beat("x", msgpack.RawMessage{0xc1})),
			refused("deep", "nested 9 levels deep, under an unknown key", hivebeat.RefusedDepth, beat("x", deep)),
			refused("oversized", "more than 8 KiB", hivebeat.RefusedSize, beat("x", strings.Repeat("x", hivebeat.MaxBeat))),
			refused("key-integer", "a key that is no string", hivebeat.RefusedKey, append(raw("v", 1)[:0], 0x81, 0x01, 0x01)),
			refused("key-doubled", "a key that stands twice, in another width", hivebeat.RefusedKey, append(append([]byte{0x82}, unhex("a17601")...), unhex("d9017601")...)),
			refused("utf8", "a string that is not UTF-8", hivebeat.RefusedUTF8, beat("model", "\xff\xfe")),
			refused("not-a-map", "an array", hivebeat.RefusedType, []byte{0x93, 1, 2, 3}),
			refused("nil", "nil is no string", hivebeat.RefusedType, beat("model", nil)),
			refused("negative", "a negative uint", hivebeat.RefusedType, beat("vram", -1)),
			refused("float-for-uint", "a float is no uint", hivebeat.RefusedType, beat("slots", 4.0)),
			refused("str-for-bin", "a string is no bin", hivebeat.RefusedType, beat("data", "x")),
			refused("too-great", "2^53 would be another number in JSON", hivebeat.RefusedLimit, beat("done", uint64(hivebeat.MaxInt)+1)),
			refused("every-short", "a promise below 100 ms", hivebeat.RefusedLimit, raw("v", 1, "hive", "h", "worker", "w", "inc", 1, "seq", 1, "every", 99)),
			refused("quiet-long", "a silence of more than 10 min", hivebeat.RefusedLimit, beat("quiet", 600_001)),
			refused("host-long", "a host name of 257 bytes", hivebeat.RefusedLimit, beat("host", strings.Repeat("h", 257))),
			refused("host-map", "host is a map in a snapshot, and a str in a beat and a record", hivebeat.RefusedType, beat("host", map[string]any{"name": "gpu-01"})),
			refused("model-long", "a model of 257 bytes", hivebeat.RefusedLimit, beat("model", strings.Repeat("m", 257))),
			refused("kv-percent", "a share of 73, where 0 to 1 is meant", hivebeat.RefusedLimit, beat("kv", 73.0)),
			refused("cold-many", "65 models on disk", hivebeat.RefusedLimit, beat("cold", make([]string, 65))),
			refused("lora-list", "lora is a map", hivebeat.RefusedType, beat("lora", []string{"sql"})),
			refused("no-inc", "a required key is missing", hivebeat.RefusedMissing, raw("v", 1, "hive", "h", "worker", "w", "seq", 1, "every", 1000)),
			refused("version", "v 2: whatever else it holds", hivebeat.RefusedVersion, raw("v", 2, "hive", 3)),
			refused("id", "an id that would be two tokens of a subject", hivebeat.RefusedID, raw("v", 1, "hive", "h", "worker", "a.b", "inc", 1, "seq", 1, "every", 1000)),
		},
		"snapshot-refused.json": {
			refused("beat", "a beat, which has all that a snapshot requires: it must not take over the hive", hivebeat.RefusedForeign, must(EncodeBeat(&full))),
			refused("beat-first", "whatever else is wrong for a snapshot: gpus is of texts, and stands first", hivebeat.RefusedForeign,
				raw("gpus", []any{"GPU-0"}, "worker", "w", "v", 1, "hive", "h", "inc", 1, "seq", 1, "every", 1000)),
			refused("worker-nil", "whatever its worker is", hivebeat.RefusedForeign, raw("v", 1, "hive", "h", "inc", 1, "seq", 1, "every", 15000, "worker", nil)),
			refused("beat-version", "another version goes before it", hivebeat.RefusedVersion, raw("v", 2, "worker", "w")),
			refused("page", "page 2 of 2: pages count from 0", hivebeat.RefusedLimit, raw("v", 1, "hive", "h", "inc", 1, "seq", 1, "every", 15000, "page", 2, "pages", 2)),
			refused("conn-long", "a connection's name of 129 bytes", hivebeat.RefusedLimit, raw("v", 1, "hive", "h", "inc", 1, "seq", 1, "every", 15000,
				"conn", strings.Repeat("N", 129))),
			refused("detect-negative", "a time is a uint", hivebeat.RefusedType, raw("v", 1, "hive", "h", "inc", 1, "seq", 1, "every", 15000,
				"workers", []any{map[string]any{
					"worker": "w", "live": "lost", "inc": 1, "seq": 1, "every": 1000,
					"tr": []any{map[string]any{"n": 1, "kind": "lost", "inc": 1, "detect": -1}},
				}})),
			refused("record", "one record at fault refuses the whole snapshot", hivebeat.RefusedMissing, raw("v", 1, "hive", "h", "inc", 1, "seq", 1, "every", 15000,
				"workers", []any{map[string]any{"worker": "w", "live": "alive", "inc": 1, "seq": 1}})),
			refused("instances", "17 MIG instances of one GPU", hivebeat.RefusedLimit, raw("v", 1, "hive", "h", "inc", 1, "seq", 1, "every", 15000,
				"gpus", []any{map[string]any{"uuid": "GPU-0", "index": 0, "instances": slices.Repeat([]any{map[string]any{"uuid": "MIG-0"}}, 17)}})),
			refused("gpu-transition", "a GPU's transition without its GPU", hivebeat.RefusedMissing, raw("v", 1, "hive", "h", "inc", 1, "seq", 1, "every", 15000,
				"gpu_tr", []any{map[string]any{"n": 1, "kind": "gpu-lost"}})),
			refused("not-finite", "a float that JSON has no word for", hivebeat.RefusedLimit, raw("v", 1, "hive", "h", "inc", 1, "seq", 1, "every", 15000,
				"host", msgpack.RawMessage(unhex("81a3637075cb7ff8000000000000")))),
		},
	}
}

func TestVectors(t *testing.T) {
	for file, want := range vectors() {
		path := filepath.Join(vectorDir, file)
		if *update {
			writeJSON(t, path, want)
		}
		var got []vector
		readJSON(t, path, &got)
		if d := cmp.Diff(compact(want), compact(got)); d != "" {
			t.Errorf("%s is not what its table says; if the wire changed on purpose, run `make vectors`:\n%s", file, d)
		}
		for _, v := range got {
			msg := must(hex.DecodeString(v.Hex))
			read := readBeat
			if strings.HasPrefix(file, "snapshot") {
				read = readSnapshot
			}
			val, err := read(msg)
			if why := hivebeat.ReasonOf(err); why != v.Refuse {
				t.Errorf("%s: %s: refused for %q, want %q", file, v.Name, why, v.Refuse)
			}
			if v.Refuse == "" {
				if d := cmp.Diff(string(compact([]vector{v})[0].Value), string(must(json.Marshal(val)))); d != "" {
					t.Errorf("%s: %s: vector - read +:\n%s", file, v.Name, d)
				}
			}
		}
	}
}

// Readers in other languages cannot test a key that is in no vector.
func TestEveryKeyHasVector(t *testing.T) {
	types := map[string]reflect.Type{
		"beat": reflect.TypeFor[hivebeat.Beat](), "snapshot": reflect.TypeFor[hivebeat.Snapshot](), "record": reflect.TypeFor[hivebeat.Record](),
		"host": reflect.TypeFor[hivebeat.Host](), "gpu": reflect.TypeFor[hivebeat.GPU](), "transition": reflect.TypeFor[hivebeat.Transition](),
		"instance": reflect.TypeFor[hivebeat.GPUInstance](), "gpu transition": reflect.TypeFor[hivebeat.GPUTransition](),
		"proc": reflect.TypeFor[hivebeat.Proc](), "stats": reflect.TypeFor[hivebeat.Stats](),
	}
	all := string(must(os.ReadFile(filepath.Join(vectorDir, "beat.json")))) + string(must(os.ReadFile(filepath.Join(vectorDir, "snapshot.json"))))
	for typ, goType := range types {
		for _, name := range keysOf(goType) {
			if !strings.Contains(all, `"`+name+`":`) {
				t.Errorf("%s: no vector holds the key %q", typ, name)
			}
		}
	}
}

func keysOf(t reflect.Type) (keys []string) {
	for f := range t.Fields() {
		if f.Anonymous {
			keys = append(keys, keysOf(f.Type)...)
			continue
		}
		name, _, _ := strings.Cut(f.Tag.Get("msgpack"), ",")
		keys = append(keys, name)
	}
	return keys
}

func compact(list []vector) []vector {
	out := make([]vector, len(list))
	for i, v := range list {
		if v.Value != nil {
			var any json.RawMessage
			_ = json.Unmarshal(v.Value, &any)
			v.Value = must(json.Marshal(any))
		}
		out[i] = v
	}
	return out
}

func writeJSON(t *testing.T, path string, v any) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, append(must(json.MarshalIndent(v, "", "  ")), '\n'), 0o644); err != nil {
		t.Fatal(err)
	}
}

func readJSON(t *testing.T, path string, v any) {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatalf("%v (`make vectors` writes it)", err)
	}
	if err := json.Unmarshal(b, v); err != nil {
		t.Fatal(err)
	}
}
