package show

import (
	"strings"
	"testing"

	"github.com/beatfabric/hivebeat"
	"github.com/beatfabric/hivebeat/queen"
)

// False deaths are told where there are any, and only there.
func TestSummaryTellsFalseDeaths(t *testing.T) {
	for n, want := range map[uint64]string{0: "", 1: "1 false death ", 3: "3 false deaths "} {
		s := &queen.Summary{Hives: map[hivebeat.Live]int{hivebeat.Alive: 1}, Stats: queen.Score{FalseDead: n, CutOff: 7}}
		got := Summary(s, &queen.Status{Warm: true, JetStream: true}, false)
		if want == "" && strings.Contains(got, "false") || !strings.Contains(got, want) {
			t.Errorf("%d: %q, want %q in it", n, got, want)
		}
	}
}
