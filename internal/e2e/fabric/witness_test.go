//go:build e2e

package fabric

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/beatfabric/hivebeat"
	"github.com/beatfabric/hivebeat/internal/bustest"
	"github.com/beatfabric/hivebeat/internal/e2e/rig"
	"github.com/beatfabric/hivebeat/queen/api"
)

// A queen sees connections close. Hives that promise a snapshot every 15 s are killed with
// SIGKILL, one after the other: they are lost within seconds, and their workers are adopted.
// A hive whose connection is kicked is not lost.
func TestHiveKilledWhereAQueenHearsConnections(t *testing.T) {
	f, _ := hub(t)
	events := rig.Listen(t, f.nc)
	q := f.hivebeat("queen q1", "queen", "--id", "q1", "--system-nats", "nats://hives:hives@"+f.nats.URL[len("nats://"):])
	q.Said("receiving disconnect advisories", moment)
	line := bustest.NewProxy(t, f.nats.URL)
	rig.Start(t, "hive kicked", []string{"HIVEBEAT_NATS=" + line.URL()}, rig.Hivebeat(t), "hive", "--id", "kicked")
	f.sees(rig.Fleet{"kicked": hivebeat.Alive})

	var past []float64
	for i := range 3 { // a fourth death within 10 s would be held by the brake
		id := fmt.Sprint("gpu-", i)
		hive := f.hivebeat("hive "+id, "hive", "--id", id)
		f.sees(rig.Fleet{id: hivebeat.Alive})
		f.worker(id, "w")
		f.sees(rig.Fleet{id + "/w": hivebeat.Alive})
		line.Kick()
		killed := time.Now()
		hive.Kill()
		lost := events.Wait(t, moment, hivebeat.KindLost, id)
		past = append(past, float64(time.Since(killed)-window)/1e6)
		if d := lost.Data; d.Cause != hivebeat.CauseDisconnect || d.From != "alive" || d.Via != hivebeat.ViaQueen || d.DetectMS == nil || *d.DetectMS < 2000 {
			t.Errorf("lost without cause and evidence: %+v", d)
		}
		rig.Until(t, moment, "its worker, via queen", func() (bool, string) {
			a, err := rig.Ask(f.nc, api.VerbWorker, api.Request{Hive: id, Worker: "w"})
			if err != nil || len(a.Workers) != 1 {
				return false, fmt.Sprintf("%+v, %v", a, err)
			}
			return a.Workers[0].Via == hivebeat.ViaQueen && a.Workers[0].Live == hivebeat.Alive, fmt.Sprintf("%+v", a.Workers[0])
		})
		f.once(hivebeat.KindLost, id)
	}
	slices.Sort(past)
	t.Logf("kill -9 of a hive → lost, past the window of %s: from %.1f to %.1f ms", window, past[0], past[len(past)-1])
	if past[0] < 0 {
		t.Errorf("lost %.1f ms before its window was over", -past[0])
	}
	for _, id := range []string{"kicked", "gpu-0/w", "gpu-2/w"} {
		if list := events.Of(hivebeat.KindLost, id); len(list) != 0 {
			t.Errorf("%s was lost: %+v", id, list)
		}
	}
	f.sees(rig.Fleet{"kicked": hivebeat.Alive})
}
