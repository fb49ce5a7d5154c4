package directive

import (
	"encoding/json"
	"os"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestVectors: the entries of testdata/wire/v1 are accepted with their content, or refused.
func TestVectors(t *testing.T) {
	b, err := os.ReadFile("../../testdata/wire/v1/directives.json")
	if err != nil {
		t.Fatal(err)
	}
	var all []struct {
		Name, Payload, Refuse string
		Value                 any
	}
	if err := json.Unmarshal(b, &all); err != nil {
		t.Fatal(err)
	}
	for _, v := range all {
		e, err := Decode([]byte(v.Payload))
		if (err != nil) != (v.Refuse != "") {
			t.Errorf("%s: %v", v.Name, err)
			continue
		}
		if err != nil {
			continue
		}
		again, err := e.Encode()
		if err != nil {
			t.Errorf("%s: %v", v.Name, err)
			continue
		}
		var got any
		if err := json.Unmarshal(again, &got); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(v.Value, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", v.Name, diff)
		}
	}
}

func TestKeys(t *testing.T) {
	if hive, ok := HiveOf(Key("gpu-01")); !ok || hive != "gpu-01" {
		t.Errorf("%q %v", hive, ok)
	}
	for _, key := range []string{"", "op.", "op", "op.a.b", "gpu-01", "gpus.gpu-01", "brake.a"} {
		if hive, ok := HiveOf(key); ok {
			t.Errorf("%q is the key of %q", key, hive)
		}
	}
}

// FuzzDecode: what is accepted can be put again, and is then the same.
func FuzzDecode(f *testing.F) {
	f.Add([]byte(`{"v":1,"n":3,"directives":[{"what":"drain","by":"ann","worker":"w","left":5}],"event":{}}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		e, err := Decode(body)
		if err != nil {
			return
		}
		again, err := e.Encode()
		if err != nil {
			return // escaped, it may be too long
		}
		if got, err := Decode(again); err != nil || len(got.Directives) != len(e.Directives) || got.N != e.N {
			t.Errorf("%q: %+v, and then %+v: %v", body, e, got, err)
		}
	})
}
