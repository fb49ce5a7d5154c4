package wire

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/vmihailenco/msgpack/v5"
	"go.uber.org/goleak"
	"pgregory.net/rapid"

	"github.com/beatfabric/hivebeat"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// seeds returns whole messages, and the same bytes damaged in a repeatable way.
func seeds(tb testing.TB) [][]byte {
	tb.Helper()
	beat, snap := sampleBeat(), sampleSnapshot(3)
	beat.Data, beat.Reason, beat.Quiet = []byte{1, 2, 3}, "loading", 5000
	snap.Workers[1].Tr = []hivebeat.Transition{{N: 1, Kind: hivebeat.KindLost, From: "alive", To: "lost", Cause: "missed", Inc: 7, Ago: 3}}
	all := [][]byte{
		must(EncodeBeat(&beat)), must(EncodeSnapshot(&snap)),
		must(Encode(map[string]any{"v": 1, "hive": "h", "worker": "w", "inc": 1, "seq": 1, "every": 100, "new": []any{1.5, nil, map[string]any{"k": true}}})),
		{0xdf, 0xff, 0xff, 0xff, 0xff},
		{0xdd, 0xff, 0xff, 0xff, 0xff},
		{0xc1},
		{},
		{0x80},
		{0x81, 0xa1, 'v', 0x01},
	}
	rnd := rand.New(rand.NewPCG(1, 2))
	for _, whole := range all[:3] {
		for range 40 {
			b := bytes.Clone(whole)
			for range 1 + rnd.IntN(3) {
				b[rnd.IntN(len(b))] = byte(rnd.IntN(256))
			}
			all = append(all, b[:rnd.IntN(len(b)+1)], b)
		}
	}
	return all
}

func TestRoundTrip(t *testing.T) {
	beat := sampleBeat()
	beat.Data = []byte("opaque")
	got, err := DecodeBeat(must(EncodeBeat(&beat)))
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(beat, got); d != "" {
		t.Errorf("beat, sent - read +:\n%s", d)
	}
	snap := sampleSnapshot(20)
	snap.Workers[7].Tr = []hivebeat.Transition{{N: 3, Kind: "new-kind", From: "a", To: "b", Inc: 1, Ago: 9}}
	again, err := DecodeSnapshot(must(EncodeSnapshot(&snap)))
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(snap, again, cmpopts.EquateEmpty()); d != "" {
		t.Errorf("snapshot, sent - read +:\n%s", d)
	}
}

// A sender may choose any integer width and any string width.
func TestWidths(t *testing.T) {
	for _, seq := range []string{"07", "cc07", "cd0007", "ce00000007", "cf0000000000000007", "d007", "d10007", "d200000007", "d30000000000000007"} {
		for _, str := range []string{"a177", "d90177", "da000177", "db0000000177"} {
			for _, head := range []string{"86", "de0006", "df00000006"} {
				msg := unhex(head + "a17601" + "a468697665a168" + "a6776f726b6572" + str + "a3696e6301" + "a3736571" + seq + "a56576657279cd03e8")
				b, err := DecodeBeat(msg)
				if err != nil {
					t.Fatalf("%x: %v", msg, err)
				}
				if b.Seq != 7 || b.Worker != "w" {
					t.Fatalf("%x: read %+v", msg, b)
				}
			}
		}
	}
}

func unhex(s string) []byte {
	var b []byte
	if _, err := fmt.Sscanf(s, "%x", &b); err != nil {
		panic(err)
	}
	return b
}

func TestRefusals(t *testing.T) {
	valid := func() map[string]any {
		return map[string]any{"v": 1, "hive": "h", "worker": "w", "inc": 1, "seq": 1, "every": 1000}
	}
	with := func(kv ...any) []byte {
		m := valid()
		for i := 0; i < len(kv); i += 2 {
			if m[kv[i].(string)] = kv[i+1]; kv[i+1] == "-" {
				delete(m, kv[i].(string))
			}
		}
		return must(Encode(m))
	}
	deep := any(1)
	for range 8 {
		deep = []any{deep}
	}
	many := map[string]string{}
	for i := range 33 {
		many[fmt.Sprint(i)] = ""
	}
	tests := []struct {
		name string
		msg  []byte
		want hivebeat.Reason // "" = accepted
	}{
		{"valid", with(), ""},
		{"unknown keys are skipped", with("later", map[string]any{"a": []any{1, "x", nil}}, "zz", 1.5), ""},
		{"an unknown state is kept", with("state", "hibernating"), ""},
		{"empty", nil, hivebeat.RefusedMalformed},
		{"not msgpack", []byte("{\"v\":1}"), hivebeat.RefusedMalformed},
		{"truncated", with()[:20], hivebeat.RefusedMalformed},
		{"bytes after the value", append(with(), 0xc0), hivebeat.RefusedMalformed},
		{"a bomb of 5 bytes, map", []byte{0xdf, 0xff, 0xff, 0xff, 0xff}, hivebeat.RefusedMalformed},
		{"a bomb of 5 bytes, array", []byte{0xdd, 0xff, 0xff, 0xff, 0xff}, hivebeat.RefusedMalformed},
		{"an ext type", with("x", msgpack.RawMessage{0xd4, 0x01, 0x00}), hivebeat.RefusedMalformed},
		{"the reserved byte", with("x", msgpack.RawMessage{0xc1}), hivebeat.RefusedMalformed},
		{"8 levels", with("x", deep.([]any)[0]), ""},
		{"9 levels", with("x", deep), hivebeat.RefusedDepth},
		{"oversized", with("data", make([]byte, 1024), "x", strings.Repeat("x", 8<<10)), hivebeat.RefusedSize},
		{"not a map", []byte{0x93, 1, 2, 3}, hivebeat.RefusedType},
		{"a key that is no string", unhex("8101a0"), hivebeat.RefusedKey},
		{"a doubled key", unhex("82a17601a17601"), hivebeat.RefusedKey},
		{"a doubled unknown key", with("x", msgpack.RawMessage(unhex("82a17001a17002"))), hivebeat.RefusedKey},
		{"the same key in another width", unhex("82a17601d9017601"), hivebeat.RefusedKey},
		{"invalid utf-8 in a value", with("model", "\xff"), hivebeat.RefusedUTF8},
		{"invalid utf-8 in a key", with("\xc3", 1), hivebeat.RefusedUTF8},
		{"nil for a known key", with("model", nil), hivebeat.RefusedType},
		{"str for uint", with("vram", "1"), hivebeat.RefusedType},
		{"float for uint", with("vram", 1.0), hivebeat.RefusedType},
		{"negative uint", with("vram", -1), hivebeat.RefusedType},
		{"bin for str", with("model", []byte("m")), hivebeat.RefusedType},
		{"str for bin", with("data", "d"), hivebeat.RefusedType},
		{"a label that is no string", with("labels", map[string]any{"a": 1}), hivebeat.RefusedType},
		{"gpus that is no array", with("gpus", "GPU-1"), hivebeat.RefusedType},
		{"2^53 - 1", with("done", uint64(1<<53-1)), ""},
		{"2^53", with("done", uint64(1<<53)), hivebeat.RefusedLimit},
		{"2^64 - 1", with("inc", uint64(1<<64-1)), hivebeat.RefusedLimit},
		{"every too short", with("every", 99), hivebeat.RefusedLimit},
		{"every too long", with("every", 3_600_001), hivebeat.RefusedLimit},
		{"quiet too long", with("quiet", 600_001), hivebeat.RefusedLimit},
		{"a long state", with("state", strings.Repeat("s", 33)), hivebeat.RefusedLimit},
		{"a long model", with("model", strings.Repeat("m", 257)), hivebeat.RefusedLimit},
		{"33 labels", with("labels", many), hivebeat.RefusedLimit},
		{"a long label", with("labels", map[string]string{"k": strings.Repeat("v", 129)}), hivebeat.RefusedLimit},
		{"a long label key", with("labels", map[string]string{strings.Repeat("k", 64): ""}), hivebeat.RefusedLimit},
		{"much data", with("data", make([]byte, 1025)), hivebeat.RefusedLimit},
		{"65 gpus", with("gpus", make([]string, 65)), hivebeat.RefusedLimit},
		{"no inc", with("inc", "-"), hivebeat.RefusedMissing},
		{"inc 0", with("inc", 0), hivebeat.RefusedMissing},
		{"no seq", with("seq", "-"), hivebeat.RefusedMissing},
		{"no every", with("every", "-"), hivebeat.RefusedMissing},
		{"no hive", with("hive", "-"), hivebeat.RefusedMissing},
		{"an empty worker", with("worker", ""), hivebeat.RefusedMissing},
		{"no v", with("v", "-"), hivebeat.RefusedMissing},
		{"v 2", with("v", 2), hivebeat.RefusedVersion},
		{"v 0", with("v", 0), hivebeat.RefusedVersion},
		{"v 2 before any other fault", with("v", 2, "inc", "another type"), hivebeat.RefusedVersion},
		{"a dot in an id", with("worker", "a.b"), hivebeat.RefusedID},
		{"a wildcard id", with("hive", "*"), hivebeat.RefusedID},
		{"a long id", with("hive", strings.Repeat("h", 65)), hivebeat.RefusedID},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := DecodeBeat(tt.msg)
			if got := hivebeat.ReasonOf(err); got != tt.want || (err == nil) != (tt.want == "") {
				t.Errorf("%x: refused for %q (%v), want %q", tt.msg, got, err, tt.want)
			}
		})
	}
}

// A map of many pairs takes a different path from one of few.
func TestDoubledKeyAmongMany(t *testing.T) {
	for _, n := range []int{2, 63, 64, 65, 300} {
		msg := must(Encode(map[string]int{}))
		msg = append(msg[:0], 0xde, byte((n+1)>>8), byte(n+1))
		for i := range n {
			msg = append(append(msg, must(Encode(fmt.Sprintf("key-%d", i)))...), 1)
		}
		doubled := append(append(bytes.Clone(msg), must(Encode(fmt.Sprintf("key-%d", n/2)))...), 1)
		if got := hivebeat.ReasonOf(Scan(doubled)); got != hivebeat.RefusedKey {
			t.Errorf("%d pairs and a doubled one: %q", n, got)
		}
		fine := append(append(msg, must(Encode("another"))...), 1)
		if err := Scan(fine); err != nil {
			t.Errorf("%d different pairs: %v", n+1, err)
		}
	}
}

// Scan accepts everything that a msgpack encoder produces within the limits.
func TestScanAcceptsMsgpack(t *testing.T) {
	value := rapid.Custom(func(t *rapid.T) any { return tree(t, 0) })
	rapid.Check(t, func(t *rapid.T) {
		b := must(Encode(value.Draw(t, "value")))
		if err := Scan(b); err != nil {
			t.Fatalf("%x: %v", b, err)
		}
		if len(b) > 1 {
			if Scan(b[:len(b)-1]) == nil {
				t.Fatalf("%x: accepted without its last byte", b)
			}
		}
	})
}

func tree(t *rapid.T, depth int) any {
	kinds := 6
	if depth == hivebeat.MaxDepth {
		kinds = 4
	}
	switch rapid.IntRange(0, kinds-1).Draw(t, "kind") {
	case 0:
		return rapid.Int64().Draw(t, "int")
	case 1:
		return rapid.String().Draw(t, "str")
	case 2:
		return rapid.SliceOf(rapid.Byte()).Draw(t, "bin")
	case 3:
		return rapid.Float64().Draw(t, "float")
	case 4:
		list := make([]any, rapid.IntRange(0, 4).Draw(t, "len"))
		for i := range list {
			list[i] = tree(t, depth+1)
		}
		return list
	}
	m := map[string]any{}
	for range rapid.IntRange(0, 4).Draw(t, "pairs") {
		m[rapid.String().Draw(t, "key")] = tree(t, depth+1)
	}
	return m
}

// A hostile header must not cost memory, and an unchanged message must not allocate.
func TestAllocations(t *testing.T) {
	beat, snap := sampleBeat(), sampleSnapshot(10)
	msg, page := must(EncodeBeat(&beat)), must(EncodeSnapshot(&snap))
	var (
		bv   BeatView
		sv   SnapshotView
		dst  hivebeat.Beat
		head hivebeat.Snapshot
		rows = make([]hivebeat.Record, 10)
	)
	all := func() {
		if err := ParseBeat(msg, &bv); err != nil {
			t.Fatal(err)
		}
		bv.Update(&dst)
		if err := ParseSnapshot(page, &sv); err != nil {
			t.Fatal(err)
		}
		sv.UpdateHead(&head)
		for i := range sv.Workers {
			sv.Workers[i].Update(&rows[i])
		}
	}
	all()
	if n := testing.AllocsPerRun(100, all); n != 0 {
		t.Errorf("%v allocations for messages that did not change, want 0", n)
	}
	if n := testing.AllocsPerRun(100, func() { _ = Scan([]byte{0xdf, 0xff, 0xff, 0xff, 0xff}) }); n > 2 {
		t.Errorf("%v allocations for a bomb, want the error's alone", n)
	}
}
