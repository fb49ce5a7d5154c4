package show

import (
	"strings"
	"testing"

	"github.com/beatfabric/hivebeat"
	"github.com/beatfabric/hivebeat/queen/api"
)

// False deaths are shown only if there are any.
func TestSummaryTellsFalseDeaths(t *testing.T) {
	for n, want := range map[uint64]string{0: "", 1: "1 false death ", 3: "3 false deaths "} {
		s := &api.Summary{Hives: map[hivebeat.Live]int{hivebeat.Alive: 1}, Stats: api.Score{FalseDead: n, CutOff: 7}}
		got := Summary(s, &api.Status{Warm: true, JetStream: true}, false)
		if want == "" && strings.Contains(got, "false") || !strings.Contains(got, want) {
			t.Errorf("%d: %q, want %q in it", n, got, want)
		}
	}
}
