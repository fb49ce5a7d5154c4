package show

import (
	"testing"
	"time"
)

func TestAge(t *testing.T) {
	for d, want := range map[time.Duration]string{
		-time.Second:                         "0s",
		0:                                    "0s",
		999 * time.Millisecond:               "0s",
		12 * time.Second:                     "12s",
		119 * time.Second:                    "119s",
		2 * time.Minute:                      "2m",
		119 * time.Minute:                    "119m",
		2 * time.Hour:                        "2h",
		47*time.Hour + time.Minute:           "47h",
		9*24*time.Hour + time.Hour:           "9d",
		time.Duration(1<<63 - 1):             "106751d",
		45*time.Second + 99*time.Millisecond: "45s",
	} {
		if got := Age(d); got != want {
			t.Errorf("Age(%s) = %q, want %q", d, got, want)
		}
	}
}

func TestNumbers(t *testing.T) {
	for _, tt := range [][2]string{
		{GiB(0), "0"},
		{GiB(24 * gib), "24"},
		{GiB(24564 << 20), "24"}, // what a 24 GB card really has
		{GiB(18*gib + 2*gib/5), "18.4"},
		{usedOf(gib, 0), "-"},
		{usedOf(61*gib, 96*gib), "61/96"},
		{size(3 << 20), "3 MiB"},
		{size(512), "0 KiB"},
		{count(0), "0"},
		{count(999), "999"},
		{count(1000), "1,000"},
		{count(1<<64 - 1), "18,446,744,073,709,551,615"},
		{Plural(1, "hive"), "1 hive"},
		{Plural(1234, "hive"), "1,234 hives"},
	} {
		if tt[0] != tt[1] {
			t.Errorf("got %q, want %q", tt[0], tt[1])
		}
	}
}

func TestWidthAndCut(t *testing.T) {
	red := Paint(true).Text("hello", Bad)
	for _, tt := range []struct {
		s     string
		width int
		to    int
		cut   string
	}{
		{"hello", 5, 5, "hello"},
		{"hello", 5, 4, "hel…"},
		{"hello", 5, 0, ""},
		{"日本語", 6, 5, "日本…"},
		{"日本語", 6, 4, "日…"},
		{"e\u0301a", 2, 2, "e\u0301a"},
		{red, 5, 5, red},
		{red, 5, 3, "\x1b[31mhe…\x1b[0m"},
		{"ab" + red, 7, 2, "a…\x1b[31m\x1b[0m"},
	} {
		if got := Width(tt.s); got != tt.width {
			t.Errorf("Width(%q) = %d, want %d", tt.s, got, tt.width)
		}
		if got := Cut(tt.s, tt.to); got != tt.cut {
			t.Errorf("Cut(%q, %d) = %q, want %q", tt.s, tt.to, got, tt.cut)
		}
	}
}

func TestTableIsAlignedAcrossBatches(t *testing.T) {
	tab := Table{Columns: []Column{{Title: "ID"}, {Title: "N", Right: true}, {Title: "X"}}}
	row := func(a, b, c string) []Cell { return []Cell{{Text: a}, {Text: b}, {Text: c}} }
	got := tab.Lines(true, [][]Cell{row("a", "1", "x"), row("bb", "10", "")})
	got = append(got, tab.Lines(false, [][]Cell{row("c", "", "y"), row("dddd", "5", "z")})...)
	want := []string{
		"ID   N  X",
		"a    1  x",
		"bb  10",
		"c         y",
		"dddd   5  z",
	}
	for i := range want {
		if got[i] != want[i] {
			t.Errorf("line %d is %q, want %q", i, got[i], want[i])
		}
	}
}
