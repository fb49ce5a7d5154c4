//go:build e2e

// Package page tests the queen's web page in a real browser, with a generated fleet of any
// size and with a real one.
package page

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/beatfabric/hivebeat"
	"github.com/beatfabric/hivebeat/queen/api"
)

const gib = 1 << 30

// fakeQueen answers like a queen, for a generated fleet that changes.
type fakeQueen struct {
	mu      sync.Mutex
	began   time.Time
	rng     *rand.Rand
	hives   []*fakeHive
	byID    map[string]*fakeHive
	events  []api.Happened // oldest first
	rev     uint64
	changed chan struct{} // closed at the next change
	unsure  []string
	brake   []api.BrakeInfo
	away    bool   // no JetStream
	refused string // why requests are refused; empty: they are answered
}

type fakeHive struct {
	api.HiveInfo
	heard   time.Time
	began   time.Time
	workers []*fakeWorker
}

type fakeWorker struct {
	api.WorkerInfo
	phase time.Duration // of its beats
	heard time.Time     // the last beat, of a worker that is not alive
	since time.Time
}

type sort struct{ model, short string }

var (
	models = []sort{
		{"Qwen/Qwen3-14B-AWQ", "qwen3-14b"},
		{"openai/whisper-large-v3", "whisper"},
		{"black-forest-labs/FLUX.1-schnell", "flux"},
		{"meta-llama/Llama-3.3-70B-Instruct", "llama-70b"},
		{"Qwen/Qwen2.5-Coder-32B-Instruct-AWQ", "coder-32b"},
		{"BAAI/bge-m3", "bge-m3"},
		{"mistralai/Mistral-Small-3.2-24B", "mistral-24b"},
		{"google/gemma-3-12b-it", "gemma-12b"},
		{"nomic-ai/nomic-embed-text-v1.5", "nomic"},
	}
	cards = []struct {
		name string
		size uint64
		n    int
	}{{"NVIDIA GeForce RTX 4090", 24, 2}, {"NVIDIA H100 80GB HBM3", 80, 1}, {"NVIDIA L4", 24, 2}, {"NVIDIA GeForce RTX 3090", 24, 1}, {"NVIDIA A100-SXM4-80GB", 80, 4}}
)

// newFakeQueen generates a fleet with this number of hives and of workers per hive.
func newFakeQueen(hives, workers int) *fakeQueen {
	q := &fakeQueen{began: time.Now(), rng: rand.New(rand.NewPCG(7, uint64(hives))), byID: map[string]*fakeHive{}, changed: make(chan struct{})}
	width := len(strconv.Itoa(hives))
	for i := range hives {
		id := fmt.Sprintf("gpu-%0*d", max(2, width), i+1)
		card := cards[i%len(cards)]
		h := &fakeHive{heard: q.began, began: q.began.Add(-time.Duration(1+q.rng.IntN(400)) * time.Hour)}
		h.HiveInfo = api.HiveInfo{
			Hive: id, Live: hivebeat.Alive, Inc: uint64(h.began.UnixMicro()), Seq: uint64(q.rng.IntN(90000)), Every: 15000, Fresh: true, Warm: true,
			Zone: string(rune('a' + i%3)), Labels: map[string]string{"zone": string(rune('a' + i%3)), "rack": strconv.Itoa(i / 8)},
			Host:    hivebeat.Host{Name: id + ".example", OS: "linux", Arch: "amd64", CPUs: 64, Load1: 4.2, CPU: 12, MemTotal: 256 * gib, MemUsed: 80 * gib, Uptime: 864000},
			Collect: map[string]string{"host": "ok", "gpu": "ok", "procs": "ok"}, Stats: hivebeat.Stats{Beats: 90210},
		}
		for g := range card.n {
			h.GPUs = append(h.GPUs, hivebeat.GPU{UUID: fmt.Sprintf("GPU-%08x-%04x", i, g), Index: uint64(g), Name: card.name, Total: card.size * gib, Temp: 40, Power: 120000})
		}
		for k := range workers {
			m := models[(i*3+k)%len(models)]
			name := m.short
			if k >= len(models) {
				name += "-" + strconv.Itoa(k/len(models)+1)
			}
			w := &fakeWorker{phase: time.Duration(q.rng.IntN(30000)) * time.Millisecond, since: q.began.Add(-time.Duration(q.rng.IntN(90000)) * time.Second)}
			w.WorkerInfo = api.WorkerInfo{Hive: id, Zone: h.Zone, Via: hivebeat.ViaHive, Fresh: true}
			w.Worker, w.Live, w.N = name, hivebeat.Alive, 3
			w.Facts = hivebeat.Facts{
				Inc: h.Inc, Every: 30000, State: hivebeat.Ready, PID: uint64(1000 + k), Model: m.model, Endpoint: "http://" + id + ":" + strconv.Itoa(8000+k) + "/v1",
				GPUs: []string{h.GPUs[k%card.n].UUID}, Slots: 8, Labels: map[string]string{"tier": "prod"}, Seq: uint64(q.rng.IntN(9000)),
				VRAM: card.size * gib * uint64(card.n) * 7 / 10 / uint64(workers), Done: uint64(q.rng.IntN(100000)),
			}
			w.Proc = hivebeat.Proc{RSS: 3 * gib, CPU: 40, VRAM: w.VRAM, Up: 86400000}
			h.workers = append(h.workers, w)
		}
		q.hives = append(q.hives, h)
		q.byID[id] = h
	}
	for i := range min(30, hives*workers) {
		w := q.any()
		d := []hivebeat.EventData{
			{Kind: hivebeat.KindState, From: "loading", To: "ready"},
			{Kind: hivebeat.KindRestarted, Reason: "a higher incarnation"},
			{Kind: hivebeat.KindState, From: "starting", To: "loading", Reason: "reads 28 GiB of weights"},
			{Kind: hivebeat.KindRecovered, From: "late", To: "alive"},
			{Kind: hivebeat.KindState, From: "ready", To: "draining"},
			{Kind: hivebeat.KindJoined, To: "alive"},
		}[(29-i)%6]
		q.tell(q.began.Add(-time.Duration(30-i)*40*time.Second), w, d)
	}
	q.work(len(q.hives))
	return q
}

func (q *fakeQueen) any() *fakeWorker {
	h := q.hives[q.rng.IntN(len(q.hives))]
	return h.workers[q.rng.IntN(len(h.workers))]
}

// run changes the fleet until ctx ends.
func (q *fakeQueen) run(ctx context.Context) {
	tick := time.NewTicker(500 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		q.change(func() { q.work(1 + len(q.hives)/20) })
	}
}

// change changes the fleet with do, and wakes the watchers.
func (q *fakeQueen) change(do func()) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.rev++
	do()
	close(q.changed)
	q.changed = make(chan struct{})
}

// refuse makes it refuse all requests with this reason. An empty reason ends that.
func (q *fakeQueen) refuse(why string) { q.change(func() { q.refused = why }) }

// work simulates a moment of requests on some hives.
func (q *fakeQueen) work(hives int) {
	for i := range min(hives, len(q.hives)) {
		h := q.hives[i]
		if hives < len(q.hives) {
			h = q.hives[q.rng.IntN(len(q.hives))]
		}
		if h.Live != hivebeat.Alive {
			continue
		}
		ours, busy, slots := make([]uint64, len(h.GPUs)), uint64(0), uint64(0)
		for i, w := range h.workers {
			if w.Live != hivebeat.Alive {
				continue
			}
			if w.State.SameAs(hivebeat.Ready) {
				w.Busy = uint64(q.rng.IntN(int(w.Slots) + 1))
				w.Queue = uint64(max(0, q.rng.IntN(9)-6))
				w.Done += w.Busy
				w.State = hivebeat.Ready
				if w.Busy > 0 {
					w.State = hivebeat.Busy
				}
			}
			ours[i%len(ours)] += w.VRAM
			busy, slots = busy+w.Busy, slots+w.Slots
		}
		for i := range h.GPUs {
			g := &h.GPUs[i]
			g.Ours = ours[i]
			g.Used = g.Ours + g.Total*uint64((len(h.Hive)+i+int(h.Inc%5))%4)/40
			g.Util = 100 * busy / max(1, slots)
			g.Temp = 38 + int64(g.Util)/3
		}
		h.Host.CPU = float64(8 + q.rng.IntN(30))
		h.heard = time.Now()
		h.Seq++
	}
}

// tell adds an event of a worker, or of a hive if w has no id.
func (q *fakeQueen) tell(at time.Time, w *fakeWorker, d hivebeat.EventData) {
	d.Hive, d.Worker, d.Model, d.Inc, d.Via = w.Hive, w.Worker, w.Model, w.Inc, hivebeat.ViaHive
	n := uint64(len(q.events) + 1)
	e := hivebeat.Subjects{}.NewEvent(fmt.Sprintf("%s.%d", w.Hive, n), at, d)
	q.events = append(q.events, api.Happened{StreamSeq: n, Event: e})
}

// judge changes the verdict on a worker, and adds the event.
func (q *fakeQueen) judge(hive, worker string, live hivebeat.Live, cause hivebeat.Cause, reason string) {
	q.change(func() {
		for _, w := range q.byID[hive].workers {
			if w.Worker != worker {
				continue
			}
			from := w.Live
			w.Live, w.Cause, w.since, w.heard = live, cause, time.Now(), time.Now().Add(-3*time.Second)
			w.N++
			kind := hivebeat.Kind(live)
			if live == hivebeat.Alive {
				kind = hivebeat.KindRecovered
			}
			q.tell(time.Now(), w, hivebeat.EventData{Kind: kind, From: string(from), To: string(live), Cause: cause, Reason: reason, N: w.N})
		}
	})
}

func (w *fakeWorker) show(now time.Time, began time.Time) api.WorkerInfo {
	out := w.WorkerInfo
	if w.Live == hivebeat.Alive {
		out.Age = hivebeat.MillisOf((now.Sub(began) + w.phase) % (28 * time.Second))
	} else {
		out.Age = hivebeat.MillisOf(now.Sub(w.heard))
	}
	out.Fresh = out.Age <= 45000
	out.Since = hivebeat.MillisOf(now.Sub(w.since))
	return out
}

func (h *fakeHive) show(now time.Time) api.HiveInfo {
	out := h.HiveInfo
	if h.Live == hivebeat.Alive {
		out.Age = hivebeat.MillisOf(now.Sub(h.heard) % (15 * time.Second))
	} else {
		out.Age = hivebeat.MillisOf(now.Sub(h.heard))
	}
	out.Fresh = out.Age <= 45000
	out.Since = hivebeat.MillisOf(now.Sub(h.began))
	out.Workers = map[hivebeat.Live]int{}
	out.GPUs = slices.Clone(h.GPUs)
	for _, w := range h.workers {
		out.Workers[w.Live]++
	}
	for _, g := range h.GPUs {
		out.FreeVRAM = max(out.FreeVRAM, g.Free())
	}
	return out
}
