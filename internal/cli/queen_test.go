package cli

import (
	"bytes"
	"strings"
	"testing"
)

func TestSizes(t *testing.T) {
	for text, want := range map[string]byteSize{"0": 0, "67108864": 64 << 20, "1KiB": 1 << 10, "128MiB": 128 << 20, "2 GiB": 2 << 30} {
		var n byteSize
		if err := n.UnmarshalText([]byte(text)); err != nil || n != want {
			t.Errorf("%s: %d, %v", text, n, err)
		}
	}
	for _, text := range []string{"", "MiB", "64MB", "1.5GiB", "-1", "-1MiB", "9223372036854775807KiB", "64mib", "64MiBMiB"} {
		var n byteSize
		if err := n.UnmarshalText([]byte(text)); err == nil {
			t.Errorf("%s is taken for %d", text, n)
		}
	}
	var out bytes.Buffer
	if code := Main(t.Context(), []string{"queen", "--help"}, Streams{Out: &out, Err: &out}); code != ExitDone || !strings.Contains(out.String(), "64MiB") {
		t.Errorf("exit code %d, %s", code, out.String())
	}
}
