//go:build e2e

package fabric

import (
	"fmt"
	"strings"
	"testing"

	"github.com/beatfabric/hivebeat"
	"github.com/beatfabric/hivebeat/internal/e2e/rig"
	"github.com/beatfabric/hivebeat/queen/api"
)

// A supervisor restarts a worker each time it dies. That is reported as looping. Its
// deaths from then on are not events, and pick returns it only if no other worker fits.
func TestWorkerThatLoops(t *testing.T) {
	f := start(t)
	events := rig.Listen(t, f.nc)
	f.queen("q1")
	f.hive("gpu-01")
	f.worker("gpu-01", "calm", "--slots", "1")
	f.sees(rig.Fleet{"gpu-01/calm": hivebeat.Alive})

	const times, loops = 7, "gpu-01/loops"
	// The last process stays. Each of the others runs for a second, which is enough to be heard.
	script := fmt.Sprintf(`for i in $(seq %d); do "$@" & sleep 1; kill -9 $!; wait $! 2>/dev/null; done; exec "$@"`, times)
	rig.Start(t, "supervisor", []string{"HIVEBEAT_NATS=" + f.nats.URL}, "sh", "-c", script, "sh",
		rig.Hivebeat(t), "worker", "--hive", "gpu-01", "--id", "loops", "--model", "test", "--slots", "8", "--every", beat.String())
	told := events.Wait(t, 2*moment, hivebeat.KindLooping, loops)
	if told.Data.To != "looping" || told.Data.Via != "hive" || told.Data.Cause != "" {
		t.Errorf("%+v", told.Data)
	}
	restarts := fmt.Sprintf("%d restarts in the last hour", times)
	rig.Until(t, 2*moment, restarts, func() (bool, string) {
		a, err := rig.Ask(f.nc, api.VerbWorker, api.Request{Hive: "gpu-01", Worker: "loops"})
		if err != nil || len(a.Workers) != 1 {
			return false, fmt.Sprint(err)
		}
		w := &a.Workers[0]
		return w.Restarts == times && w.Looping && w.Live == hivebeat.Alive, fmt.Sprintf("%+v", w)
	})

	if out, _ := f.cli(0, "ls", "workers"); !strings.Contains(out, "looping, "+restarts) {
		t.Errorf("ls:\n%s", out)
	}
	if out, _ := f.cli(0, "get", loops); !strings.Contains(out, "looping") || !strings.Contains(out, restarts) {
		t.Errorf("get:\n%s", out)
	}
	for range 5 { // the looping worker has more free slots
		if out, _ := f.cli(0, "pick", "--model", "test"); !strings.Contains(out, "gpu-01/calm") || strings.Contains(out, loops) {
			t.Errorf("pick:\n%s", out)
		}
	}
	if out, _ := f.cli(0, "pick", "--model", "test", "-n", "2", "-o", "json"); !strings.Contains(out, `"looping: `+restarts+`"`) {
		t.Errorf("pick of both:\n%s", out)
	}
	if _, errs := f.cli(1, "pick", "--model", "test", "--min-uptime", "1h"); !strings.Contains(errs, "2 started too recently") {
		t.Errorf("pick of none that is young: %s", errs)
	}

	kinds := map[hivebeat.Kind]int{}
	for _, ev := range f.stored() {
		if ev.Subject == loops {
			kinds[ev.Data.Kind]++
		}
	}
	want := map[hivebeat.Kind]int{hivebeat.KindJoined: 1, hivebeat.KindLost: 3, hivebeat.KindRestarted: 3, hivebeat.KindLooping: 1}
	if fmt.Sprint(kinds) != fmt.Sprint(want) {
		t.Errorf("%d deaths are told by %v, want %v", times, kinds, want)
	}
}
