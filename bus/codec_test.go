package bus_test

import (
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/beatfabric/hivebeat"
	"github.com/beatfabric/hivebeat/bus"
)

func beat() hivebeat.Beat {
	return hivebeat.Beat{V: 1, Hive: "gpu-01", Worker: "llama", Facts: hivebeat.Facts{
		Inc: 1_700_000_000_000_000, Seq: 7, Every: 30_000, State: hivebeat.Ready, Model: "m",
		GPUs: []string{"GPU-1"}, Labels: map[string]string{"zone": "a"}, Data: []byte{1, 2},
	}}
}

func TestCodecRoundTrip(t *testing.T) {
	want := beat()
	b, err := bus.Encode(&want)
	if err != nil {
		t.Fatal(err)
	}
	var got hivebeat.Beat
	if err := bus.Decode(b, &got); err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}

	snap := hivebeat.Snapshot{
		V: 1, Hive: "gpu-01", Inc: 1, Every: 15_000, Seq: 1, Pages: 1,
		Workers: []hivebeat.Record{{Worker: "llama", Live: hivebeat.Alive, Facts: want.Facts, Age: 5}},
	}
	if b, err = bus.Encode(&snap); err != nil {
		t.Fatal(err)
	}
	var back hivebeat.Snapshot
	if err := bus.Decode(b, &back); err != nil {
		t.Fatal(err)
	}
	if len(back.Workers) != 1 || back.Workers[0].Worker != "llama" || back.Workers[0].Age != 5 {
		t.Errorf("got %+v", back)
	}

	type other struct {
		A uint64 `msgpack:"a"`
	}
	if b, err = bus.Encode(other{A: 5}); err != nil {
		t.Fatal(err)
	}
	var o other
	if err := bus.Decode(b, &o); err != nil || o.A != 5 {
		t.Errorf("got %+v, %v", o, err)
	}
}

// Input that would exhaust the memory of the process, or that decodes to another value,
// is refused before msgpack sees it, whatever the target type.
func TestDecodeRefuses(t *testing.T) {
	good, err := bus.Encode(map[string]uint64{"a": 1})
	if err != nil {
		t.Fatal(err)
	}
	type other struct {
		A uint64 `msgpack:"a"`
	}
	for _, c := range []struct {
		name string
		in   []byte
		want hivebeat.Reason
	}{
		{"empty", nil, hivebeat.RefusedMalformed},
		{"map bomb", []byte{0xdf, 0xff, 0xff, 0xff, 0xff}, hivebeat.RefusedMalformed},
		{"array bomb", []byte{0xdd, 0xff, 0xff, 0xff, 0xff}, hivebeat.RefusedMalformed},
		{"truncated", good[:len(good)-1], hivebeat.RefusedMalformed},
		{"trailing", append(append([]byte(nil), good...), 0), hivebeat.RefusedMalformed},
		{"nest", append([]byte{0x91, 0x91, 0x91, 0x91, 0x91, 0x91, 0x91, 0x91, 0x91}, 0), hivebeat.RefusedDepth},
		{"type", []byte{0x81, 0xa1, 'a', 0xa1, 'x'}, hivebeat.RefusedType},
	} {
		for _, into := range []any{new(other), new(map[string]uint64), new(hivebeat.Beat), new(hivebeat.Snapshot)} {
			err := bus.Decode(c.in, into)
			if !errors.Is(err, hivebeat.ErrRefused) {
				t.Errorf("%s into %T: %v", c.name, into, err)
				continue
			}
			_, isOther := into.(*other)
			if isOther && hivebeat.ReasonOf(err) != c.want {
				t.Errorf("%s: %v, want %s", c.name, err, c.want)
			}
		}
	}
}

func TestDecodeLeavesTheOldBeatWhole(t *testing.T) {
	was := beat()
	got := beat()
	bad := beat()
	bad.Seq = 0 // required
	b, err := bus.Encode(&bad)
	if err != nil {
		t.Fatal(err)
	}
	if err := bus.Decode(b, &got); hivebeat.ReasonOf(err) != hivebeat.RefusedMissing {
		t.Fatalf("got %v", err)
	}
	if d := cmp.Diff(was, got); d != "" {
		t.Error(d)
	}
}

func TestEncodeNamesWhatItCanNot(t *testing.T) {
	if _, err := bus.Encode(make(chan int)); err == nil {
		t.Error("a channel was encoded")
	}
}
