package show

import (
	"strings"
	"testing"
	"time"

	"github.com/beatfabric/hivebeat"
	"github.com/beatfabric/hivebeat/queen/api"
)

func TestBar(t *testing.T) {
	for _, c := range []struct {
		ours, others, total uint64
		width               int
		want                string
	}{
		{0, 0, 100, 12, "[··········]"},
		{50, 20, 100, 12, "[█████▒▒···]"},
		{1, 1, 1000, 12, "[█▒········]"}, // small parts are visible
		{999, 1, 1000, 12, "[█████████▒]"},
		{100, 0, 100, 12, "[██████████]"},
		{500, 500, 100, 12, "[██████████]"}, // more than the total
		{0, 0, 0, 12, "[··········]"},
		{1, 1, 2, 3, "[█]"},
		{1, 1, 2, 2, ""},
		{1, 1, 2, -5, ""},
	} {
		if got := Bar(c.ours, c.others, c.total, c.width, false); got != c.want {
			t.Errorf("%+v: %s", c, got)
		}
	}
	for _, w := range []int{3, 4, 7, 40} {
		for a := uint64(0); a <= 100; a += 7 {
			if s := Bar(a, 100-a, 100, w, true); Width(s) != w {
				t.Errorf("%q is %d wide", s, Width(s))
			}
		}
	}
}

func TestVRAM(t *testing.T) {
	s := &api.Summary{GPUs: 3, VRAMTotal: 96 << 30, VRAMUsed: 40 << 30, VRAMOurs: 30 << 30}
	for width, want := range map[int]string{
		100: "VRAM [████████████▒▒▒▒······················]  █ ours 30  ▒ others 10  · free 56 of 96 GiB, 3 GPUs",
		50:  "VRAM █ ours 30  ▒ others 10  · free 56 of 96 GiB",
		36:  "VRAM █ ours 30  ▒ others 10  · free 56",
	} {
		if got := VRAM(s, width, false); got != want {
			t.Errorf("%d: %q", width, got)
		}
	}
	if got := VRAM(&api.Summary{}, 80, false); got != "" {
		t.Errorf("%q of nothing", got)
	}
	s.VRAMTotal = 20 << 40
	if got := VRAM(s, 100, false); !strings.Contains(got, "of 20 TiB") {
		t.Errorf("%q", got)
	}
}

func TestGPURow(t *testing.T) {
	g := &hivebeat.GPU{UUID: "GPU-1", Index: 2, Name: "A100\x1b[2J", Total: 80 << 30, Used: 24 << 30, Ours: 20 << 30, Util: 7, Temp: 61, Power: 210_500, Age: 50_000}
	lines := NewGPUs(true, 0).Lines(true, append(GPURows(g, 0, true), GPURows(g, 15*time.Second, true)...))
	for _, want := range []string{"24/80", "4", "7%", "61°C", "210W", "GPU-1", "▒"} {
		if !strings.Contains(lines[1], want) {
			t.Errorf("%q has no %s", lines[1], want)
		}
	}
	if strings.Contains(lines[1], "read") || !strings.Contains(lines[2], "read 65s ago") || strings.Contains(lines[1], "\x1b[2J") {
		t.Errorf("%q", lines)
	}
}

func TestBare(t *testing.T) {
	p := Paint(true)
	if got := Bare("a" + p.Text("b", Bad) + p.Text("é", Chosen)); got != "abé" {
		t.Errorf("%q", got)
	}
}

func TestParseSize(t *testing.T) {
	for text, want := range map[string]int64{"5": 5, "2KiB": 2048, "20GiB": 20 << 30, "1 MiB": 1 << 20, "20G": 20 << 30, "20Gi": 20 << 30, "3M": 3 << 20, "4 K": 4 << 10, "5Mi": 5 << 20} {
		if n, err := ParseSize(text); err != nil || n != want {
			t.Errorf("%s: %d, %v", text, n, err)
		}
	}
	for _, text := range []string{"", "-1", "1GB", "20g", "1T", "G", "2GG", "2GiBG", "GiB", "9999999999GiB", "9999999999G"} {
		if _, err := ParseSize(text); err == nil {
			t.Errorf("%q is a size", text)
		}
	}
}
