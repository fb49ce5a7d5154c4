//go:build e2e

package fabric

import (
	"fmt"
	"testing"
	"time"

	"github.com/beatfabric/hivebeat"
	"github.com/beatfabric/hivebeat/internal/e2e/rig"
	"github.com/beatfabric/hivebeat/queen/api"
)

// A hive's process is killed, and its workers are adopted. When the hive comes back, nothing
// has happened to them. Then the hive is killed again, together with two workers.
func TestHiveKilledItsWorkersLiveOn(t *testing.T) {
	f := start(t)
	events := rig.Listen(t, f.nc)
	f.queen("q1")
	f.queen("q2")
	hive := f.hive("gpu-01")
	workers := map[string]*rig.Proc{}
	alive := rig.Fleet{"gpu-01": hivebeat.Alive}
	for i := range 5 {
		id := fmt.Sprintf("w%d", i)
		args := []string{}
		if i%2 == 1 {
			args = append(args, "--pinned")
		}
		workers[id] = f.worker("gpu-01", id, args...)
		alive["gpu-01/"+id] = hivebeat.Alive
	}
	f.sees(alive)

	hive.Kill()
	events.Wait(t, moment, hivebeat.KindLost, "gpu-01")
	verdict := time.Now()
	f.via("queen", alive, 5)
	t.Logf("verdict on the hive → 5 workers alive via queen: %d ms", time.Since(verdict).Milliseconds())
	if took := time.Since(verdict); took > moment/4 {
		t.Errorf("its workers answered after %s", took)
	}

	hive = f.hive("gpu-01")
	f.via("hive", alive, 5)
	f.sees(alive)
	for _, kind := range []hivebeat.Kind{hivebeat.KindLate, hivebeat.KindLost, hivebeat.KindRecovered, hivebeat.KindGap} {
		for id := range workers {
			if n := len(events.Of(kind, "gpu-01/"+id)); n != 0 {
				t.Errorf("%d events %s of %s, which was alive all along", n, kind, id)
			}
		}
	}

	hive.Kill()
	workers["w0"].Kill()
	workers["w1"].Kill()
	for _, id := range []string{"w0", "w1"} {
		lost := events.Wait(t, moment, hivebeat.KindLost, "gpu-01/"+id)
		if lost.Data.Cause != hivebeat.CauseHive || lost.Data.Via != "queen" {
			t.Errorf("%s: %+v", id, lost.Data)
		}
	}
	f.via("queen", rig.Fleet{"gpu-01/w2": hivebeat.Alive, "gpu-01/w3": hivebeat.Alive, "gpu-01/w4": hivebeat.Alive}, 3)
	f.once(hivebeat.KindLost, "gpu-01/w0")
	f.once(hivebeat.KindLost, "gpu-01/w1")
}

// via waits until n workers of the fleet are alive according to this judge.
func (f *fabric) via(judge string, want rig.Fleet, n int) {
	f.t.Helper()
	rig.Until(f.t, moment, "workers via "+judge, func() (bool, string) {
		a, err := rig.Ask(f.nc, api.VerbWorkers, api.Request{Hive: "gpu-01"})
		if err != nil {
			return false, err.Error()
		}
		have, state := 0, ""
		for _, w := range a.Workers {
			state += fmt.Sprintf("%s %s via %s; ", w.Worker, w.Live, w.Via)
			if want["gpu-01/"+w.Worker] == hivebeat.Alive && w.Live == hivebeat.Alive && w.Via == judge {
				have++
			}
		}
		return have == n, state
	})
}
