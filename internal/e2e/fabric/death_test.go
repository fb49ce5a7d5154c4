//go:build e2e

package fabric

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/beatfabric/hivebeat"
	"github.com/beatfabric/hivebeat/internal/e2e/rig"
)

// A hive is killed while two queens watch: its key expires with its TTL, and its death is
// published once.
func TestHiveKilled(t *testing.T) {
	f := start(t)
	events := rig.Listen(t, f.nc)
	f.queen("q1")
	f.queen("q2")
	hive := f.hive("gpu-01")
	f.hive("gpu-02")
	f.worker("gpu-01", "w1")
	f.sees(rig.Fleet{"gpu-01": hivebeat.Alive, "gpu-02": hivebeat.Alive, "gpu-01/w1": hivebeat.Alive})
	rig.Until(t, moment, "the key", func() (bool, string) { return f.key("gpu-01") })

	killed := time.Now()
	hive.Kill()
	lost := events.Wait(t, moment, hivebeat.KindLost, "gpu-01")
	t.Logf("kill -9 of a hive that promises every %s → lost: %.1f s", beat, time.Since(killed).Seconds())
	if lost.Data.Cause != hivebeat.CauseMissed || lost.Data.AgeMS == 0 || lost.Data.Seq == 0 {
		t.Errorf("lost without cause and evidence: %+v", lost.Data)
	}
	rig.Until(t, moment, "the key to go", func() (bool, string) {
		there, state := f.key("gpu-01")
		return !there, state
	})
	f.sees(rig.Fleet{"gpu-01": hivebeat.Lost, "gpu-02": hivebeat.Alive})

	f.hive("gpu-01")
	events.Wait(t, moment, hivebeat.KindRestarted, "gpu-01")
	f.sees(rig.Fleet{"gpu-01": hivebeat.Alive, "gpu-01/w1": hivebeat.Alive})
	events.Once(t, hivebeat.KindLost, "gpu-01")
	f.once(hivebeat.KindLost, "gpu-01")
	f.once(hivebeat.KindRestarted, "gpu-01")
}

func TestWorkerKilledAndRestarted(t *testing.T) {
	f := start(t)
	events := rig.Listen(t, f.nc)
	f.queen("q1")
	f.hive("gpu-01")
	w := f.worker("gpu-01", "w1")
	f.worker("gpu-01", "w2")
	f.sees(rig.Fleet{"gpu-01/w1": hivebeat.Alive, "gpu-01/w2": hivebeat.Alive})

	killed := time.Now()
	w.Kill()
	lost := events.Wait(t, moment, hivebeat.KindLost, "gpu-01/w1")
	t.Logf("kill -9 of a worker whose process its hive sees → lost: %.3f s", time.Since(killed).Seconds())
	if lost.Data.Cause != hivebeat.CauseExit || lost.Data.Via != "hive" || lost.Data.From != "alive" || !strings.HasSuffix(lost.Data.Reason, "ended") {
		t.Errorf("lost without cause and evidence: %+v", lost.Data)
	}
	if d := lost.Data.DetectMS; d == nil || *d == 0 || hivebeat.Millis(time.Since(killed).Milliseconds()) < *d {
		t.Errorf("no time from its end to the verdict: %+v", lost.Data)
	} else {
		t.Logf("of which its hive took %d ms", *d)
	}
	none(t, events, hivebeat.KindLate)
	f.sees(rig.Fleet{"gpu-01/w1": hivebeat.Lost, "gpu-01/w2": hivebeat.Alive})

	f.worker("gpu-01", "w1")
	events.Wait(t, moment, hivebeat.KindRestarted, "gpu-01/w1")
	f.sees(rig.Fleet{"gpu-01/w1": hivebeat.Alive})
	f.once(hivebeat.KindLost, "gpu-01/w1")
	f.once(hivebeat.KindJoined, "gpu-01/w1")
}

// Three queens, and a small fleet that changes. One queen is killed and replaced. Every event
// is stored once and received once.
func TestThreeQueens(t *testing.T) {
	f := start(t)
	events := rig.Listen(t, f.nc)
	queens := []*rig.Proc{f.queen("q1"), f.queen("q2"), f.queen("q3")}
	const hives, workers = 3, 3
	want := rig.Fleet{}
	procs := map[string]*rig.Proc{}
	for h := range hives {
		hive := fmt.Sprintf("gpu-%02d", h)
		want[hive] = hivebeat.Alive
		procs[hive] = f.hive(hive)
		for w := range workers {
			id := fmt.Sprintf("w%d", w)
			procs[hive+"/"+id] = f.worker(hive, id)
			want[hive+"/"+id] = hivebeat.Alive
		}
	}
	f.sees(want)

	queens[0].Kill()
	procs["gpu-00/w0"].Kill()
	procs["gpu-01/w1"].Interrupt()
	procs["gpu-02"].Interrupt()
	events.Wait(t, moment, hivebeat.KindLost, "gpu-00/w0")
	events.Wait(t, moment, hivebeat.KindLeft, "gpu-01/w1")
	events.Wait(t, moment, hivebeat.KindLeft, "gpu-02")
	again := f.queen("q4")
	again.Said("queen is warm", moment)
	f.sees(rig.Fleet{"gpu-00": hivebeat.Alive, "gpu-00/w0": hivebeat.Lost, "gpu-01/w1": hivebeat.Left, "gpu-02": hivebeat.Left})

	seen := map[string]int{}
	for _, ev := range f.stored() {
		seen[fmt.Sprint(ev.Data.Kind, " ", ev.Subject, " ", ev.Data.Inc)]++
	}
	for id := range want {
		if n := count(f, hivebeat.KindJoined, id); n != 1 {
			t.Errorf("%s joined %d times, want once", id, n)
		}
	}
	for what, n := range seen {
		if n != 1 {
			t.Errorf("stored %d times: %s", n, what)
		}
	}
	if doubled := events.Doubled(); len(doubled) > 0 {
		t.Errorf("heard twice: %v", doubled)
	}
	for _, gone := range []string{"gpu-00/w0"} {
		events.Once(t, hivebeat.KindLost, gone)
	}
}

func count(f *fabric, kind hivebeat.Kind, subject string) int {
	n := 0
	for _, ev := range f.stored() {
		if ev.Data.Kind == kind && ev.Subject == subject {
			n++
		}
	}
	return n
}

// The only queen is killed and another starts. It knows the fleet from the bucket, and
// reports only dead processes as lost.
func TestQueenKilled(t *testing.T) {
	f := start(t)
	events := rig.Listen(t, f.nc)
	queen := f.queen("q1")
	f.hive("gpu-01")
	dead := f.hive("gpu-02")
	f.worker("gpu-01", "w1")
	f.sees(rig.Fleet{"gpu-01": hivebeat.Alive, "gpu-02": hivebeat.Alive, "gpu-01/w1": hivebeat.Alive})

	queen.Kill()
	dead.Kill() // no queen sees it die
	f.queen("q2").Said("queen is warm", moment)
	f.sees(rig.Fleet{"gpu-01": hivebeat.Alive, "gpu-01/w1": hivebeat.Alive})
	lost := events.Wait(t, moment, hivebeat.KindLost, "gpu-02")
	t.Logf("the death that no queen saw: %+v", lost.Data)
	f.sees(rig.Fleet{"gpu-01": hivebeat.Alive, "gpu-02": hivebeat.Lost, "gpu-01/w1": hivebeat.Alive})
	if of := events.Of(hivebeat.KindLost, ""); len(of) != 1 {
		t.Errorf("%d were called lost, only gpu-02 was: %v", len(of), of)
	}
	f.once(hivebeat.KindJoined, "gpu-01/w1")
}

// A hive starts again with no workers in memory. That is no evidence that its workers died.
func TestHiveRestarted(t *testing.T) {
	f := start(t)
	events := rig.Listen(t, f.nc)
	f.queen("q1")
	hive := f.hive("gpu-01")
	f.worker("gpu-01", "quick")
	f.worker("gpu-01", "slow", "--every", "30s")
	f.sees(rig.Fleet{"gpu-01/quick": hivebeat.Alive, "gpu-01/slow": hivebeat.Alive})

	hive.Kill()
	f.hive("gpu-01")
	events.Wait(t, moment, hivebeat.KindRestarted, "gpu-01")
	f.sees(rig.Fleet{"gpu-01": hivebeat.Alive, "gpu-01/quick": hivebeat.Alive, "gpu-01/slow": hivebeat.Alive})
	for _, w := range []string{"gpu-01/quick", "gpu-01/slow"} {
		if lost := events.Of(hivebeat.KindLost, w); len(lost) > 0 {
			t.Errorf("%s lived and was called lost: %v", w, lost)
		}
		f.once(hivebeat.KindJoined, w)
	}
}
