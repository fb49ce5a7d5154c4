package queen

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/beatfabric/hivebeat"
	"github.com/beatfabric/hivebeat/internal/bustest"
	"github.com/beatfabric/hivebeat/internal/gpu"
	"github.com/beatfabric/hivebeat/queen/api"
)

// gpuOf returns GPU i of a machine, with 80 GiB free.
func gpuOf(i uint64) hivebeat.GPU {
	return hivebeat.GPU{UUID: fmt.Sprint("GPU-", i), Index: i, Name: "H100", Total: 80 << 30, State: hivebeat.GPUOK}
}

// changes gives GPU i of a snapshot a state, with its transition.
func changes(s *hivebeat.Snapshot, i int, kind hivebeat.Kind, to hivebeat.GPUState) {
	g := &s.GPUs[i]
	s.GPUN++
	tr := hivebeat.GPUTransition{N: s.GPUN, Kind: kind, GPU: g.UUID, Index: g.Index, From: g.State, To: to, Ago: 10}
	if g.State = to; to.Bad() {
		g.Cause, g.Evidence, g.Action = hivebeat.CauseMissing, "not in the last reading", hivebeat.ActionReboot
		tr.Cause, tr.Evidence, tr.Action = g.Cause, g.Evidence, g.Action
	}
	s.GPUTr = append(s.GPUTr, tr)
}

// memoryOf returns what the roster keeps of a hive's GPUs, by UUID.
func memoryOf(t *testing.T, nc *nats.Conn, hive string) map[string]hivebeat.GPUState {
	t.Helper()
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	kv, err := js.KeyValue(t.Context(), hivebeat.BucketRoster)
	if err != nil {
		t.Fatal(err)
	}
	e, err := kv.Get(t.Context(), gpu.MemoryKey(hive))
	if err != nil {
		return nil
	}
	m, err := gpu.DecodeMemory(e.Value())
	if err != nil {
		t.Fatal(err)
	}
	states := map[string]hivebeat.GPUState{}
	for _, k := range m.GPUs {
		states[k.UUID] = k.State
	}
	return states
}

// Two queens publish each transition of a hive's GPUs once, report a hole in the numbers once, and keep what the
// GPUs are in the roster: one of them writes.
func TestGPUsOfAHive(t *testing.T) {
	t.Parallel()
	srv := bustest.Server(t)
	nc := bustest.Conn(t, srv)
	events := subscribeEvents(t, bustest.Conn(t, srv))
	puts, err := nc.SubscribeSync("$KV." + hivebeat.BucketRoster + ".gpus.>")
	if err != nil {
		t.Fatal(err)
	}
	if err := nc.Flush(); err != nil {
		t.Fatal(err)
	}
	var queens []*runningQueen
	for i := range 2 {
		queens = append(queens, startQueen(t, bustest.Conn(t, srv), Config{ID: fmt.Sprint("q", i)}))
	}
	for _, q := range queens {
		q.warm()
	}
	h := startHive(t, bustest.Conn(t, srv), "gpu-01", 15*time.Second)
	h.send(func(s *hivebeat.Snapshot) { s.GPUs = []hivebeat.GPU{gpuOf(0), gpuOf(1)} })
	kept := func(want map[string]hivebeat.GPUState) {
		t.Helper()
		bustest.Eventually(t, patience, func() (bool, string) {
			got := memoryOf(t, nc, "gpu-01")
			return fmt.Sprint(got) == fmt.Sprint(want), fmt.Sprintf("the roster keeps %v, not %v", got, want)
		})
	}
	kept(map[string]hivebeat.GPUState{"GPU-0": "ok", "GPU-1": "ok"})

	h.send(func(s *hivebeat.Snapshot) { changes(s, 1, hivebeat.KindGPUFailing, hivebeat.GPUFailing) })
	h.send(func(s *hivebeat.Snapshot) { changes(s, 1, hivebeat.KindGPULost, hivebeat.GPUGone) })
	ev := waitStored(t, nc, hivebeat.KindGPULost, "gpu-01", "")
	d := ev.Data
	if ev.ID != hivebeat.GPUEventID("gpu-01", d.HiveInc, 2) || d.GPU != "GPU-1" || d.GPUIndex == nil || *d.GPUIndex != 1 || d.Cause != hivebeat.CauseMissing ||
		d.Reason != "not in the last reading" || d.Action != hivebeat.ActionReboot || d.From != "failing" || d.To != "gone" || d.Via != hivebeat.ViaHive {
		t.Errorf("%+v", ev)
	}
	kept(map[string]hivebeat.GPUState{"GPU-0": "ok", "GPU-1": "gone"})

	// Numbers 3 and 4 never arrive.
	h.send(func(s *hivebeat.Snapshot) {
		s.GPUN, s.GPUTr = s.GPUN+2, nil
		changes(s, 1, hivebeat.KindGPURecovered, hivebeat.GPUOK)
	})
	ev = waitStored(t, nc, hivebeat.KindGap, "gpu-01", "")
	if ev.ID != hivebeat.GPUEventID("gpu-01", ev.Data.HiveInc, 4) || ev.Data.Missing != 2 {
		t.Errorf("%+v", ev)
	}
	waitStored(t, nc, hivebeat.KindGPURecovered, "gpu-01", "")

	// A queen that starts now publishes what the snapshot carries again, and the stream knows it.
	late := startQueen(t, bustest.Conn(t, srv), Config{ID: "q2"})
	late.warm()
	h.send(func(s *hivebeat.Snapshot) { changes(s, 0, hivebeat.KindGPUDegraded, hivebeat.GPUDegraded) })
	waitStored(t, nc, hivebeat.KindGPUDegraded, "gpu-01", "")
	late.eventually("the late queen has published", func() bool {
		var published uint64
		_ = late.do(t.Context(), func(time.Time) { _, published, _ = late.core.Outbox() })
		return published >= 2
	})
	for _, kind := range []hivebeat.Kind{hivebeat.KindGPUFailing, hivebeat.KindGPULost, hivebeat.KindGap, hivebeat.KindGPURecovered, hivebeat.KindGPUDegraded} {
		if n := countStored(t, nc, kind, "gpu-01"); n != 1 {
			t.Errorf("%s is stored %d times", kind, n)
		}
	}
	events.once(t)
	kept(map[string]hivebeat.GPUState{"GPU-0": "degraded", "GPU-1": "ok"})

	// Each of the three states of the list was written by one queen; two may have raced for the same key.
	accepted := map[uint64]bool{}
	for {
		m, err := puts.NextMsg(50 * time.Millisecond)
		if err != nil {
			break
		}
		if meta := m.Header.Get(jetstream.ExpectedLastSubjSeqHeader); meta != "" {
			var seq uint64
			_, _ = fmt.Sscan(meta, &seq)
			accepted[seq] = true
		}
	}
	if len(accepted) == 0 || len(accepted) > 4 {
		t.Errorf("the key was written on top of %d revisions: %v", len(accepted), accepted)
	}

	// A hive that has just begun lists nothing yet: the roster still has what it knew.
	h.send(func(s *hivebeat.Snapshot) { s.Inc, s.Seq, s.GPUs, s.GPUTr, s.GPUN = s.Inc+1_000_000, 0, nil, nil, 0 })
	queens[0].eventually("it began again", func() bool {
		a := queens[0].ask(api.VerbHive, api.Request{Hive: "gpu-01"})
		return len(a.Hives) == 1 && len(a.Hives[0].GPUs) == 0
	})
	kept(map[string]hivebeat.GPUState{"GPU-0": "degraded", "GPU-1": "ok"})
	for _, id := range []string{"gpus.gpu-01", "gpus"} { // no queen takes the key for a hive
		if a := queens[1].ask(api.VerbHive, api.Request{Hive: strings.ReplaceAll(id, ".", "-")}); a.Error == nil {
			t.Errorf("%s: %+v", id, a.Hives)
		}
	}
	if a := queens[1].ask(api.VerbHives, api.Request{}); len(a.Hives) != 1 {
		t.Errorf("%+v", a.Hives)
	}
}

// A GPU that is gone is forgotten at the request of an asker: the hive is asked, and the roster forgets it.
func TestForgetAGPU(t *testing.T) {
	t.Parallel()
	srv := bustest.Server(t)
	nc := bustest.Conn(t, srv)
	q := startQueen(t, bustest.Conn(t, srv), Config{ID: "q1"})
	q.warm()
	h := startHive(t, bustest.Conn(t, srv), "gpu-01", 15*time.Second)
	h.send(func(s *hivebeat.Snapshot) {
		s.GPUs = []hivebeat.GPU{gpuOf(0), gpuOf(1)}
		changes(s, 1, hivebeat.KindGPULost, hivebeat.GPUGone)
	})
	calls, err := nc.SubscribeSync("queen.rollcall.gpu-01")
	if err != nil {
		t.Fatal(err)
	}
	if err := nc.Flush(); err != nil {
		t.Fatal(err)
	}
	bustest.Eventually(t, patience, func() (bool, string) {
		got := memoryOf(t, nc, "gpu-01")
		return got["GPU-1"] == hivebeat.GPUGone, fmt.Sprint(got)
	})
	forget := func(hive, uuid string) (a api.Answer) {
		t.Helper()
		return requestAt(t, nc, "queen.as.ann.forget", api.Request{Hive: hive, GPU: uuid})
	}
	for _, c := range []struct{ hive, uuid, code, says string }{
		{"gpu-02", "GPU-1", api.CodeNotFound, "no hive gpu-02 is known"},
		{"gpu-01", "GPU-7", api.CodeNotFound, "no GPU GPU-7 is known on hive gpu-01"},
		{"gpu-01", "GPU-0", api.CodeBadRequest, "GPU 0 of gpu-01 is ok: only a GPU that is gone"},
		{"gpu-01", "", api.CodeBadRequest, "hive gpu-01 is alive: only one that is lost or left can be forgotten"},
	} {
		if a := forget(c.hive, c.uuid); a.Error == nil || a.Error.Code != c.code || !strings.Contains(a.Error.Message, c.says) {
			t.Errorf("%s %s: %+v", c.hive, c.uuid, a.Error)
		}
	}
	a := forget("gpu-01", "GPU-1")
	if a.Error != nil || a.Forgot == nil || a.Forgot.GPU != "GPU-1" || a.Forgot.State != hivebeat.GPUGone || a.Status.Asker != "ann" {
		b, _ := json.Marshal(a)
		t.Fatalf("%s", b)
	}
	for {
		m, err := calls.NextMsg(patience)
		if err != nil {
			t.Fatal("the hive was not asked: ", err)
		}
		if f, ok := hivebeat.ParseForget(m.Data); ok {
			if f.GPU != "GPU-1" || f.Asker != "ann" {
				t.Errorf("%+v", f)
			}
			break
		}
	}
	h.send(func(s *hivebeat.Snapshot) { // what a hive does then
		s.GPUN++
		s.GPUTr = append(s.GPUTr, hivebeat.GPUTransition{N: s.GPUN, Kind: hivebeat.KindGPUForgotten, GPU: "GPU-1", Index: 1, From: hivebeat.GPUGone, Asker: "ann"})
		s.GPUs = s.GPUs[:1]
	})
	if ev := waitStored(t, nc, hivebeat.KindGPUForgotten, "gpu-01", ""); ev.Data.Asker != "ann" || ev.Data.GPU != "GPU-1" {
		t.Errorf("%+v", ev.Data)
	}
	bustest.Eventually(t, patience, func() (bool, string) {
		got := memoryOf(t, nc, "gpu-01")
		return len(got) == 1 && got["GPU-0"] == hivebeat.GPUOK, fmt.Sprint(got)
	})
	if a := forget("gpu-01", "GPU-1"); a.Error == nil || a.Error.Code != api.CodeNotFound {
		t.Errorf("again: %+v", a.Error)
	}
}

// Two GPUs of one machine are held together or not at all, by whichever queen is asked.
func TestSeveralGPUsAreHeldTogether(t *testing.T) {
	t.Parallel()
	srv := bustest.Server(t)
	q1 := startQueen(t, bustest.Conn(t, srv), Config{ID: "q1"})
	q2 := startQueen(t, bustest.Conn(t, srv), Config{ID: "q2"})
	q1.warm()
	q2.warm()
	for _, id := range []string{"gpu-01", "gpu-02"} {
		h := startHive(t, bustest.Conn(t, srv), id, 15*time.Second)
		h.send(func(s *hivebeat.Snapshot) {
			for i := range uint64(3) {
				g := gpuOf(i)
				g.UUID += "-" + id
				s.GPUs = append(s.GPUs, g)
			}
		})
		for _, q := range []*runningQueen{q1, q2} {
			q.eventually("heard", func() bool {
				a := q.ask(api.VerbHive, api.Request{Hive: id})
				return len(a.Hives) == 1 && len(a.Hives[0].GPUs) == 3
			})
		}
	}
	two := func(hold string) api.Request {
		return api.Request{For: api.ForGPU, GPUs: 2, Hold: hold, Filter: api.Filter{FreeVRAM: 60 << 30}}
	}
	used := map[string]bool{}
	for i, q := range []*runningQueen{q1, q2} {
		hold := fmt.Sprint("job-", i)
		a := q.ask(api.VerbHold, two(hold))
		if a.Error != nil || len(a.Picks) != 1 || len(a.Picks[0].GPUs) != 2 || a.Picks[0].GPU != a.Picks[0].GPUs[0] {
			t.Fatalf("%s: %+v, %+v", hold, a.Picks, a.Error)
		}
		for _, uuid := range a.Picks[0].GPUs {
			if used[uuid] || !strings.HasSuffix(uuid, a.Picks[0].Hive) {
				t.Errorf("%s is held twice, or of another machine than %s", uuid, a.Picks[0].Hive)
			}
			used[uuid] = true
		}
		for _, other := range []*runningQueen{q1, q2} {
			other.eventually("it knows the hold", func() bool { return len(other.ask(api.VerbHolds, api.Request{}).Holds) == 2*(i+1) })
		}
		if again := q.ask(api.VerbHold, two(hold)); len(again.Picks) != 1 || fmt.Sprint(again.Picks[0].GPUs) != fmt.Sprint(a.Picks[0].GPUs) {
			t.Errorf("again: %+v", again.Picks)
		}
	}
	a := q1.ask(api.VerbHold, two("job-2")) // one GPU is left on each machine
	if len(a.Picks) != 0 || a.Passed["too few such GPUs on its machine"] != 2 {
		t.Errorf("%+v, %v", a.Picks, a.Passed)
	}
	if holds := q1.ask(api.VerbHolds, api.Request{}).Holds; len(holds) != 4 {
		t.Errorf("%+v", holds)
	}
	if a := q2.ask(api.VerbRelease, api.Request{Hold: "job-0"}); len(a.Holds) != 2 {
		t.Errorf("%+v", a)
	}
}
