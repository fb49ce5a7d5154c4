package bootid

import (
	"os"
	"path/filepath"
	"testing"
)

func TestFrom(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct{ name, boot, link, want string }{
		{"a plain machine", "a1b2-c3\n", "pid:[4026531836]", "a1b2-c3/4026531836"},
		{"no boot id", "", "pid:[4026531836]", ""},
		{"no namespaces", "a1b2-c3\n", "", ""},
		{"another kind of link", "a1b2-c3\n", "/proc/1/ns", ""},
		{"an empty boot id", "\n", "pid:[4026531836]", ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			proc := t.TempDir()
			must(t, os.MkdirAll(filepath.Join(proc, "sys/kernel/random"), 0o755))
			must(t, os.MkdirAll(filepath.Join(proc, "self/ns"), 0o755))
			if tc.boot != "" {
				must(t, os.WriteFile(filepath.Join(proc, "sys/kernel/random/boot_id"), []byte(tc.boot), 0o600))
			}
			if tc.link != "" {
				must(t, os.Symlink(tc.link, filepath.Join(proc, "self/ns/pid")))
			}
			if got := from(proc); got != tc.want {
				t.Errorf("got %q, want %q", got, tc.want)
			}
		})
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
