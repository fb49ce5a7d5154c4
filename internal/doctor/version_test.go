package doctor

import (
	"strings"
	"testing"
)

func TestVersion(t *testing.T) {
	for _, c := range []struct {
		version string
		level   Level
		do      string
	}{
		{"2.9.10", Fail, "2.14.8"},
		{"2.11.1", Fail, "2.14.8"},
		{"2.11.2-RC.1", Fail, "2.14.8"},
		{"2.11.2", Warn, "2.14.8"},
		{"2.14.7", Warn, "2.14.8"},
		{"2.14.8-RC.2", Warn, "2.14.8"},
		{"2.14.8", OK, ""},
		{"2.14.20", OK, ""},
		{"2.15.0", Warn, "2.15.1"},
		{"2.15.0-RC.1", Warn, "2.15.1"},
		{"2.15.1", OK, ""},
		{"v2.15.2", OK, ""},
		{"2.15.2+build.5", OK, ""},
		{"3.0.0", OK, ""},
		{"1.4.1", Fail, "2.14.8"},
		{"", Warn, "2.11.2"},
		{"2.11", Warn, "2.11.2"},
		{"latest", Warn, "2.11.2"},
	} {
		f := version(c.version)
		if f.Level != c.level || !strings.Contains(f.Do, c.do) || (f.Do == "") != (c.do == "") {
			t.Errorf("%q: %+v, want %s … %s", c.version, f, c.level, c.do)
		}
	}
}
