package msgjson_test

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"github.com/vmihailenco/msgpack/v5"

	"github.com/beatfabric/hivebeat"
	"github.com/beatfabric/hivebeat/internal/cli/msgjson"
)

func TestAppend(t *testing.T) {
	for _, tt := range []struct{ name, hex, want string }{
		{"map keeps its order", "83a17a01a16102a16dc3", `{"z":1,"a":2,"m":true}`},
		{"empty", "80", `{}`},
		{"nil, array", "93c0c290", `[null,false,[]]`},
		{
			"every width of number", "99" + "7f" + "e0" + "cc80" + "cd0100" + "ce00010000" + "cfffffffffffffffff" + "d080" + "d18000" + "d38000000000000000",
			`[127,-32,128,256,65536,18446744073709551615,-128,-32768,-9223372036854775808]`,
		},
		{"float32 as it was meant", "ca3dcccccd", `0.1`},
		{"float64", "cb3ff199999999999a", `1.1`},
		{"floats that JSON does not have", "92cb7ff8000000000001cb7ff0000000000000", `["NaN","+Inf"]`},
		{"bytes", "c403000102", `"AAEC"`},
		{"text", "a63c26223e0a5c", `"<&\">\n\\"`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			b, err := hex.DecodeString(tt.hex)
			if err != nil {
				t.Fatal(err)
			}
			got, err := msgjson.Append([]byte("> "), b)
			if err != nil {
				t.Fatal(err)
			}
			if string(got) != "> "+tt.want {
				t.Errorf("got %s, want %s", got, tt.want)
			}
		})
	}
}

func TestHostileBytesAreRefused(t *testing.T) {
	for name, h := range map[string]string{
		"nothing":          "",
		"map of 4 billion": "dfffffffff",
		"list of them":     "ddffffffff",
		"bytes after":      "8000",
		"truncated":        "82a161",
		"nested too deep":  strings.Repeat("91", 9) + "c0",
		"ext":              "d40100",
		"reserved":         "c1",
		"number as key":    "8101c0",
		"key twice":        "82a16101a16102",
		"not UTF-8":        "a1ff",
	} {
		b, err := hex.DecodeString(h)
		if err != nil {
			t.Fatal(err)
		}
		out, err := msgjson.Append(nil, b)
		if !errors.Is(err, hivebeat.ErrRefused) || len(out) != 0 {
			t.Errorf("%s: got %q, %v", name, out, err)
		}
	}
}

// FuzzAppend: for any input, the result is JSON or a refusal, and the JSON is the same as that
// of msgpack/v5 and encoding/json together.
func FuzzAppend(f *testing.F) {
	f.Add([]byte{0x82, 0xa1, 'a', 1, 0xa1, 'b', 0x92, 0xc3, 0xc4, 1, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		got, err := msgjson.Append(nil, b)
		if err != nil {
			if !errors.Is(err, hivebeat.ErrRefused) {
				t.Fatalf("%x: %v", b, err)
			}
			return
		}
		if !json.Valid(got) {
			t.Fatalf("%x became %s, which is no JSON", b, got)
		}
		var v any
		if err := msgpack.Unmarshal(b, &v); err != nil {
			t.Fatal(err)
		}
		var buf bytes.Buffer
		enc := json.NewEncoder(&buf)
		enc.SetEscapeHTML(false)
		if enc.Encode(v) != nil {
			return // NaN
		}
		var a, c any
		if json.Unmarshal(buf.Bytes(), &a) != nil || json.Unmarshal(got, &c) != nil {
			t.Fatalf("%s or %s is no JSON", buf.Bytes(), got)
		}
		x, _ := json.Marshal(a)
		y, _ := json.Marshal(c)
		if !bytes.Equal(x, y) {
			t.Fatalf("%x: got %s, want %s", b, y, x)
		}
	})
}
