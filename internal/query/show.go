package query

import (
	"maps"
	"slices"
	"time"

	"github.com/beatfabric/hivebeat"
	"github.com/beatfabric/hivebeat/internal/index"
	"github.com/beatfabric/hivebeat/queen/api"
)

// An answer copies all data that the view changes in place, so that the answer may leave
// the goroutine that owns the view. The view must be settled before.

// HiveInfo describes h as of now.
func HiveInfo(v *index.Index, h *index.Hive, now time.Time) api.HiveInfo {
	age := index.EffectiveAge(0, h.Received(), now)
	head := h.Head()
	i := api.HiveInfo{
		Hive: h.ID(), Live: h.Live(), Cause: h.Cause(), Conflict: h.Conflict(now) != nil,
		Inc: h.Inc(), Seq: h.Seq(), Every: hivebeat.MillisOf(h.Every()),
		Age: age, Fresh: head.Inc != 0 && age <= hivebeat.MillisOf(v.Fresh()), Since: hivebeat.MillisOf(now.Sub(h.Since())),
		Warm: head.Warm, Bye: h.Goodbye(), Zone: h.Zone(), Labels: head.Labels,
		Host: head.Host, GPUs: slices.Clone(head.GPUs), Collect: head.Collect, Stats: head.Stats,
		Workers: make(map[hivebeat.Live]int),
	}
	if c := h.Conflict(now); c != nil {
		i.Rival, i.Believed, i.Refused = c.Refused.Inc, new(c.Believed), new(c.Refused)
	}
	gpus := h.GPUs()
	for k := range i.GPUs {
		i.GPUs[k].Age = index.EffectiveAge(i.GPUs[k].Age, h.Received(), now)
		i.Held += gpus[k].Held()
		if i.Fresh && i.GPUs[k].Err == "" {
			i.FreeVRAM = max(i.FreeVRAM, gpus[k].Free())
		}
	}
	h.EachMix(func(m index.Mix, n int) { i.Workers[index.Counted(m.Live)] += n })
	return i
}

// WorkerInfo describes w as of now.
func WorkerInfo(v *index.Index, w *index.Worker, now time.Time) api.WorkerInfo {
	h := w.Hive()
	i := api.WorkerInfo{Hive: h.ID(), Zone: h.Zone(), Via: w.Via(), Held: w.Held(), Record: *w.Record()}
	if i.Rival != 0 && i.Host == "" { // without a conflict, HiveInfo shows the host
		i.Host = h.Head().Host.Name
	}
	i.Live, i.Age, i.Fresh = v.Shown(w, now)
	i.Up = w.Up(now)
	i.Since = index.EffectiveAge(w.Record().Since, w.Received(), now)
	if i.Live != w.Record().Live {
		i.Since = v.LateFor(h, i.Age, now)
	}
	i.Tr = slices.Clone(w.Record().Tr)
	for k := range i.Tr {
		i.Tr[k].Ago = index.EffectiveAge(i.Tr[k].Ago, w.Received(), now)
	}
	return i
}

// Summary counts the fleet, from the totals that the view keeps.
func Summary(v *index.Index) api.Summary {
	t, score := v.Totals(), v.Score()
	s := api.Summary{
		Hives: make(map[hivebeat.Live]int, len(t.Hives)), Workers: make(map[hivebeat.Live]int), States: make(map[hivebeat.State]int),
		GPUs: t.GPUs, VRAMTotal: t.VRAM.Total, VRAMUsed: t.VRAM.Used, VRAMOurs: t.VRAM.Ours,
		Stats: api.Score{
			FalseDead: score.FalseDead + t.Stats.FalseDead, CutOff: score.CutOff + t.Stats.CutOff,
			WireLost: t.Stats.WireLost, SelfPause: t.Stats.SelfPause, Margins: score.Margins.Buckets(), Adopted: score.Adopted,
		},
	}
	maps.Copy(s.Hives, t.Hives)
	v.EachShape(func(m index.Mix, n int) {
		s.Workers[index.Counted(m.Live)] += n
		if m.Live == hivebeat.Alive {
			s.States[m.State] += n
		}
	})
	return s
}
