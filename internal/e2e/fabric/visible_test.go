//go:build e2e

package fabric

import (
	"encoding/json"
	"slices"
	"testing"
	"time"

	"github.com/beatfabric/hivebeat"
	"github.com/beatfabric/hivebeat/internal/e2e/rig"
	"github.com/beatfabric/hivebeat/internal/wire"
	"github.com/beatfabric/hivebeat/queen/api"
)

// TestVisible measures how long a snapshot takes from its publisher to readers. nats-server,
// queen and reader are separate processes, over TCP on loopback. The figures are for people;
// the test fails only above a second.
func TestVisible(t *testing.T) {
	f := start(t)
	f.queen("q1").Said("queen is warm", moment)
	v := newVisible(t, f)
	const rounds = 200
	answers, lists := make([]time.Duration, rounds), make([]time.Duration, 20)
	for i := range answers {
		answers[i] = v.answer(t)
	}
	for i := range lists {
		lists[i] = v.list(t)
	}
	for _, of := range []struct {
		what string
		took []time.Duration
	}{{"a queen's answer", answers}, {"the end of the command hivebeat ls -o json", lists}} {
		slices.Sort(of.took)
		n := len(of.took)
		t.Logf("a 100-worker snapshot published → in %s: p50 %.2f ms, p99 %.2f ms, max %.2f ms (%d rounds, wanted: under 50 ms on an idle machine)",
			of.what, ms(of.took[n/2]), ms(of.took[n*99/100]), ms(of.took[n-1]), n)
		if p50 := of.took[n/2]; p50 > time.Second {
			t.Errorf("half of the snapshots took %s or longer to show", p50)
		}
	}
}

// BenchmarkVisible measures the same for make bench.
func BenchmarkVisible(b *testing.B) {
	f := start(b)
	f.queen("q1").Said("queen is warm", moment)
	v := newVisible(b, f)
	for b.Loop() {
		v.answer(b)
	}
}

func ms(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

// visible is a hive of 100 workers, simulated by the test.
type visible struct {
	f    *fabric
	snap hivebeat.Snapshot
}

func newVisible(tb testing.TB, f *fabric) *visible {
	tb.Helper()
	inc := uint64(time.Now().UnixMicro())
	v := &visible{f: f, snap: hivebeat.Snapshot{V: hivebeat.Version, Hive: "gpu-01", Inc: inc, Every: hivebeat.MillisOf(hivebeat.HiveEvery), Warm: true, Pages: 1}}
	for i := range 100 {
		id := "w" + string(rune('0'+i/10)) + string(rune('0'+i%10))
		v.snap.Workers = append(v.snap.Workers, hivebeat.Record{
			Worker: id, Live: hivebeat.Alive,
			Facts: hivebeat.Facts{Inc: inc, Every: hivebeat.MillisOf(hivebeat.WorkerEvery), State: hivebeat.Ready, Model: "meta-llama/Llama-3.3-70B-Instruct", Endpoint: "http://10.0.0.1:8000/v1", Seq: 1},
		})
	}
	v.answer(tb)
	return v
}

// publish sends the next snapshot and returns when it was sent.
func (v *visible) publish(tb testing.TB) time.Time {
	tb.Helper()
	v.snap.Seq++
	b, err := wire.EncodeSnapshot(&v.snap)
	if err != nil {
		tb.Fatal(err)
	}
	var s hivebeat.Subjects
	sent := time.Now()
	if err := v.f.nc.Publish(s.Hives(), b); err != nil {
		tb.Fatal(err)
	}
	if err := v.f.nc.FlushTimeout(moment); err != nil {
		tb.Fatal(err)
	}
	return sent
}

// answer publishes a snapshot, asks the queen until it has it, and returns how long that took.
func (v *visible) answer(tb testing.TB) time.Duration {
	tb.Helper()
	for sent := v.publish(tb); ; {
		a, err := rig.Ask(v.f.nc, api.VerbHive, api.Request{Hive: "gpu-01"})
		took := time.Since(sent)
		if err == nil && len(a.Hives) == 1 && a.Hives[0].Seq == v.snap.Seq {
			return took
		}
		if took > moment {
			tb.Fatalf("snapshot %d is not there after %s: %+v, %v", v.snap.Seq, took, a, err)
		}
	}
}

// list publishes a snapshot, runs ls until it shows it, and returns how long that took.
func (v *visible) list(tb testing.TB) time.Duration {
	tb.Helper()
	for sent := v.publish(tb); ; {
		out, errs, code := rig.CLI(tb, []string{"HIVEBEAT_NATS=" + v.f.nats.URL}, "ls", "hives", "-o", "json")
		took := time.Since(sent)
		var l ls
		if err := json.Unmarshal([]byte(out), &l); err != nil || code != 0 {
			tb.Fatalf("exit code %d, %v: %s%s", code, err, out, errs)
		}
		if len(l.Hives) == 1 && l.Hives[0].Seq == v.snap.Seq {
			return took
		}
		if took > moment {
			tb.Fatalf("snapshot %d is not in ls after %s: %s", v.snap.Seq, took, out)
		}
	}
}
