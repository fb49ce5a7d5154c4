package query

import (
	"cmp"
	"fmt"
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
	for k := range i.GPUs {
		g := &i.GPUs[k]
		g.Age, g.Since = index.EffectiveAge(g.Age, h.Received(), now), index.EffectiveAge(g.Since, h.Received(), now)
	}
	gpus := h.GPUs()
	for k := range gpus {
		i.Held += gpus[k].Held()
	}
	if i.Fresh {
		i.FreeVRAM = h.FreeMemory()
	}
	i.Loading, i.VRAMBudget, i.VRAMStale = h.Loading(), head.VRAMBudget, h.Stale()
	i.Drained, i.Silenced = imposed(h.Drain(), now), imposed(h.Silence(""), now)
	for k := range i.GPUs {
		if d := imposed(h.GPUDrain(i.GPUs[k].UUID), now); d != nil && d.Of == "gpu" {
			if i.DrainedGPUs == nil {
				i.DrainedGPUs = make(map[string]api.Imposed)
			}
			i.DrainedGPUs[i.GPUs[k].UUID] = *d
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
	i.Up, i.Drained, i.Silenced = w.Up(now), imposed(w.Drain(), now), imposed(h.Silence(w.ID()), now)
	i.Since = index.EffectiveAge(w.Record().Since, w.Received(), now)
	if i.Live != w.Record().Live {
		i.Since = v.LateFor(h, i.Age, now)
	}
	i.Tr = slices.Clone(w.Record().Tr)
	for k := range i.Tr {
		i.Tr[k].Ago = index.EffectiveAge(i.Tr[k].Ago, w.Received(), now)
	}
	if g := w.Worst(); g != nil {
		f := faultOf(g)
		i.GPUFault = &f
	}
	if i.Fresh && h.Fresh() && h.Up() {
		i.MemoryConflict = memoryConflict(h, &i.Record)
	}
	return i
}

func faultOf(g *hivebeat.GPU) api.GPUFault {
	return api.GPUFault{GPU: g.UUID, Index: g.Index, State: g.Condition(), Cause: g.Cause, Evidence: cmp.Or(g.Evidence, g.Err), Action: g.Action}
}

// memoryConflict says in words that a worker claims GPU memory that the driver does not see in its
// processes, or the reverse; "" if it does not. What a worker or the driver does not say is in no conflict.
// The driver says that the processes hold nothing if it lists processes, and the hive sees those of the
// worker.
func memoryConflict(h *index.Hive, r *hivebeat.Record) string {
	claimed, seen := r.VRAM, r.Proc.VRAM
	switch {
	case r.Live != hivebeat.Alive && r.Live != hivebeat.Late, claimed == 0:
		return ""
	case seen == 0 && (h.Head().Collect["procs"] != hivebeat.CollectOK || r.Proc == (hivebeat.Proc{})):
		return ""
	}
	if diff := max(claimed, seen) - min(claimed, seen); diff <= max(1<<30, max(claimed, seen)/5) {
		return ""
	}
	if seen == 0 {
		return fmt.Sprintf("it claims %.1f GiB, and the driver sees none in its processes", gib(claimed))
	}
	return fmt.Sprintf("it claims %.1f GiB, and the driver sees %.1f GiB in its processes", gib(claimed), gib(seen))
}

// Unsure says in words that nothing is known of a GPU of w, so that it may fail; "" if that is not so.
func Unsure(w *index.Worker, now time.Time) string {
	g := w.Worst()
	if g == nil || g.Condition().Usable() || g.Condition().Bad() {
		return ""
	}
	return w.Hive().ID() + "/" + w.ID() + ": " + unread(w.Hive(), g, now)
}

func unread(h *index.Hive, g *hivebeat.GPU, now time.Time) string {
	return fmt.Sprintf("GPU %d was not read for %.0fs", g.Index, index.EffectiveAge(g.Age, h.Received(), now).Duration().Seconds())
}

// Summary counts the fleet, from the totals that the view keeps.
func Summary(v *index.Index) api.Summary {
	t, score := v.Totals(), v.Score()
	s := api.Summary{
		Hives: make(map[hivebeat.Live]int, len(t.Hives)), Workers: make(map[hivebeat.Live]int), States: make(map[hivebeat.State]int),
		GPUs: t.GPUs, VRAMTotal: t.VRAM.Total, VRAMUsed: t.VRAM.Used, VRAMOurs: t.VRAM.Ours, VRAMOrphaned: t.VRAM.Orphaned,
		VRAMForeign: t.VRAM.Foreign, VRAMUnattributed: t.VRAM.Unattributed, VRAMReserved: t.VRAM.Reserved, VRAMStale: t.Stale, GPUStates: t.States.Map(),
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
