package toptest

import (
	"fmt"
	"time"

	"github.com/beatfabric/hivebeat"
	"github.com/beatfabric/hivebeat/queen/api"
)

const gib = 1 << 30

var models = []string{"llama-3-70b", "llama-3-8b", "whisper-large", "sdxl", "qwen-2.5-coder"}

// hive returns hive i. Each 50th hive is late and each 70th lost. Of the workers, each 23rd
// is late and each 40th lost. One GPU of each 100th hive is failing.
func (q *Queen) hive(i int) api.HiveInfo {
	h := api.HiveInfo{
		Hive: fmt.Sprintf("gpu-%05d", i), Live: hivebeat.Alive, Inc: 1_760_000_000_000_000 + uint64(i), Seq: 100, Every: 15_000,
		Age: hivebeat.Millis(1000 * (i % 12)), Fresh: true, Since: 3_600_000, Warm: true, Zone: string(rune('a' + i%3)),
		Labels: map[string]string{"zone": string(rune('a' + i%3)), "tier": "prod"},
		Host: hivebeat.Host{
			Name: fmt.Sprintf("node%d", i), OS: "linux", Arch: "amd64", CPUs: 64, Load1: 3.5, CPU: float64(i % 100), MemTotal: 512 * gib, MemUsed: 80 * gib, Uptime: 90_000,
		},
		Collect: map[string]string{"gpu": "ok", "host": "ok"}, Stats: hivebeat.Stats{Beats: 1234},
		Workers: map[hivebeat.Live]int{},
	}
	for g := range 2 {
		gpu := hivebeat.GPU{
			UUID: fmt.Sprintf("GPU-%05d-%d", i, g), Index: uint64(g), Name: "NVIDIA A100-SXM4-80GB", Total: 80 * gib,
			Ours: uint64(20+i%40) * gib, Used: uint64(24+i%40) * gib, Util: uint64(i % 100), Temp: 61, Power: 210_000,
		}
		if failing(i) && g == 1 {
			gpu.State, gpu.Cause, gpu.Evidence, gpu.Action, gpu.Since = hivebeat.GPUFailing, hivebeat.CauseXID, "XID 79", hivebeat.ActionReboot, 60_000
			h.VRAMStale = gpu.Total
			h.GPUs = append(h.GPUs, gpu)
			continue
		}
		h.GPUs = append(h.GPUs, gpu)
		h.FreeVRAM = max(h.FreeVRAM, gpu.Free())
	}
	switch {
	case i%70 == 69:
		h.Live, h.Cause, h.Age, h.Fresh = hivebeat.Lost, hivebeat.CauseMissed, 600_000, false
	case i%50 == 49:
		h.Live, h.Age = hivebeat.Late, 31_000
	}
	for w := range q.Each {
		x := q.worker(i*q.Each + w)
		h.Workers[x.Live]++
	}
	return h
}

func (q *Queen) worker(i int) api.WorkerInfo {
	h := i / q.Each
	w := api.WorkerInfo{Hive: fmt.Sprintf("gpu-%05d", h), Zone: string(rune('a' + h%3)), Via: hivebeat.ViaHive, Fresh: true}
	w.Worker, w.Live, w.State = fmt.Sprintf("w%02d", i%q.Each), liveOf(i), hivebeat.Ready
	w.Model, w.Slots, w.Busy, w.Queue, w.Done = models[i%len(models)], 4, uint64(i%5), uint64(i%3), uint64(i*7%5000)
	w.VRAM, w.Every, w.Age, w.Since, w.Inc, w.Seq = uint64(8+i%30)*gib, 30_000, hivebeat.Millis(1000*(i%25)), 3_600_000, 1_760_000_000_000_000, 77
	w.Endpoint, w.PID = fmt.Sprintf("http://node%d:%d", h, 8000+i%q.Each), uint64(1000+i)
	w.GPUs = []string{fmt.Sprintf("GPU-%05d-%d", h, i%2)}
	switch {
	case w.Live == hivebeat.Lost:
		w.Cause, w.Age = hivebeat.CauseExit, 120_000
	case w.Live == hivebeat.Late:
		w.Age = 52_000
	case i%5 == 4:
		w.State = hivebeat.Busy
	}
	return w
}

// failing reports whether a GPU of hive i is failing. None of these hives is lost.
func failing(i int) bool { return i%100 == 2 }

func liveOf(i int) hivebeat.Live {
	switch {
	case i%40 == 39:
		return hivebeat.Lost
	case i%23 == 22:
		return hivebeat.Late
	}
	return hivebeat.Alive
}

func (q *Queen) summary() *api.Summary {
	s := &api.Summary{Hives: map[hivebeat.Live]int{}, Workers: map[hivebeat.Live]int{}, States: map[hivebeat.State]int{}}
	n := q.Hives * q.Each
	lost, late := n/40, n/23-n/920 // a worker at both is lost
	s.Workers[hivebeat.Lost], s.Workers[hivebeat.Late], s.Workers[hivebeat.Alive] = lost, late, n-lost-late
	s.States[hivebeat.Busy] = (n - lost - late) / 5
	s.States[hivebeat.Ready] = n - lost - late - s.States[hivebeat.Busy]
	lost, late = q.Hives/70, q.Hives/50-q.Hives/350
	s.Hives[hivebeat.Lost], s.Hives[hivebeat.Late], s.Hives[hivebeat.Alive] = lost, late, q.Hives-lost-late
	bad := (q.Hives + 97) / 100
	s.GPUs = 2*(q.Hives-lost) - bad
	s.GPUStates = map[hivebeat.GPUState]int{hivebeat.GPUOK: s.GPUs, hivebeat.GPUFailing: bad}
	s.VRAMStale = uint64(bad) * 80 * gib
	s.VRAMTotal = uint64(s.GPUs) * 80 * gib
	s.VRAMOurs, s.VRAMUsed = s.VRAMTotal*4/8, s.VRAMTotal*5/8
	return s
}

// events returns one event per worker, 10 s apart, newest first.
func (q *Queen) events(r api.Request, now time.Time) (out []api.Happened, next string) {
	var s hivebeat.Subjects
	first := 0
	_, _ = fmt.Sscanf(r.After, "%d", &first)
	limit := r.Limit
	if limit == 0 {
		limit = 200
	}
	n := q.Hives * q.Each
	for i := first; i < n; i++ {
		if len(out) == limit {
			return out, fmt.Sprint(i)
		}
		w := q.worker(i)
		d := hivebeat.EventData{Hive: w.Hive, Worker: w.Worker, Kind: hivebeat.KindJoined, Model: w.Model, To: "alive", N: 1, Inc: w.Inc}
		switch w.Live {
		case hivebeat.Lost:
			d.Kind, d.From, d.To, d.Cause, d.Reason = hivebeat.KindLost, "alive", "lost", w.Cause, "its process ended"
		case hivebeat.Late:
			d.Kind, d.From, d.To = hivebeat.KindLate, "alive", "late"
		}
		if r.Hive != "" && d.Hive != r.Hive || r.Worker != "" && d.Worker != r.Worker {
			continue
		}
		e := s.NewEvent(fmt.Sprintf("e%d", i), now.Add(-time.Duration(i)*10*time.Second), d)
		out = append(out, api.Happened{StreamSeq: uint64(n - i), Event: e})
	}
	return out, ""
}
