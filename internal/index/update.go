package index

import (
	"reflect"
	"slices"
	"time"
	"unsafe"

	"github.com/beatfabric/hivebeat"
	"github.com/beatfabric/hivebeat/internal/wire"
)

// change says how much of a hive changed.
type change uint8

const (
	unchanged change = iota
	numbers          // only numbers of its host and its GPUs
	material         // more than numbers
)

// Add adds a hive that is known only by name. The id must not be in the index.
func (x *Index) Add(id string) *Hive {
	h := &Hive{id: id, drains: x.drains[id], silences: x.silences[id]}
	x.hives.Add(h)
	x.enterZone(h)
	return h
}

// Remove removes a hive and its workers, and leaves a tombstone for each.
func (x *Index) Remove(h *Hive) {
	for _, w := range h.workers {
		x.uncount(w)
		x.log.addTombstone(h.id, w.rec.Worker)
	}
	h.workers, h.head, h.headChange = nil, hivebeat.Snapshot{}, unchanged
	h.facts = Facts{Zone: h.facts.Zone}
	x.relabel(h, &h.labels, h.head.Labels)
	h.isFresh, h.troubled, h.rejoin = false, false, false
	x.resum(h, unchanged)
	x.leaveZone(h)
	x.ageing.Remove(h)
	x.hives.Remove(h)
	delete(x.doubts, h)
	h.revision = revision{}
	x.log.addTombstone(h.id, "")
}

// ApplyHead applies a page without its workers. SetHive must follow once the whole page is applied.
func (x *Index) ApplyHead(h *Hive, s *wire.SnapshotView) {
	was, is, sameGPUs := h.head, &h.head, sameGPUs(h.head.GPUs, s.GPUs)
	s.UpdateHead(is)
	h.rejoin = h.rejoin || h.troubled
	h.troubled = slices.ContainsFunc(is.GPUs, func(g hivebeat.GPU) bool { return badnessOf(&g) != isOK })
	h.rejoin = h.rejoin || h.troubled
	h.facts.Zone = is.Labels["zone"]
	x.place(h)
	x.relabel(h, &h.labels, is.Labels)
	relabelled := mapAt(was.Labels) != mapAt(is.Labels)
	switch {
	case relabelled, was.Inc != is.Inc, was.Every != is.Every, was.Warm != is.Warm, was.Bye != is.Bye, was.VRAMBudget != is.VRAMBudget, mapAt(was.Collect) != mapAt(is.Collect):
		h.headChange = material
		h.relabelled = h.relabelled || relabelled && was.Inc != 0
	case !sameGPUs, was.Host != is.Host:
		h.headChange = max(h.headChange, numbers)
	}
}

// AddWorker adds a worker with this id, which h does not have yet. Apply or Set must follow.
func (x *Index) AddWorker(h *Hive, w *Worker, id string) {
	w.hive, w.rec.Worker = h, id
	h.workers.Add(w)
}

// Apply applies a record from a page of the hive of w.
func (x *Index) Apply(w *Worker, r *wire.RecordView, received, now time.Time) {
	same := r.Same && !w.byQueen
	var was hivebeat.Record
	if !same {
		was = w.rec
	}
	r.Update(&w.rec)
	isMaterial := w.byQueen || !same && differ(&was, &w.rec)
	w.received, w.byQueen = received, false
	fresh := EffectiveAge(w.rec.Age, received, now) <= hivebeat.MillisOf(x.fresh)
	if fresh {
		w.hive.oldest = max(w.hive.oldest, w.rec.Age)
	}
	if !same || w.shown.counted != w.counts(fresh) {
		x.reshow(w, isMaterial, now)
	}
}

// Set replaces the record of w with one that the queen judged.
func (x *Index) Set(w *Worker, rec hivebeat.Record, received, now time.Time) {
	isMaterial := !w.byQueen || differ(&w.rec, &rec)
	w.rec, w.received, w.byQueen = rec, received, true
	x.reshow(w, isMaterial, now)
	if rec.Age <= hivebeat.MillisOf(x.fresh) {
		x.lookAt(w.hive, x.tooOldAt(received, rec.Age))
	}
}

// Adopt records that the queen judges w from now on. Until w answers, it is shown as late at best.
func (x *Index) Adopt(w *Worker, answered bool) {
	if !w.byQueen && w.shown.count != nil {
		x.touchWorker(w, true)
	}
	w.byQueen, w.adopted, w.answered = true, true, answered
}

// Answered records that an adopted worker was heard.
func (x *Index) Answered(w *Worker, now time.Time) {
	w.answered = true
	x.reshow(w, false, now)
}

// Release ends an adoption. The record stays until another one replaces it.
func (x *Index) Release(w *Worker) { w.adopted, w.answered = false, false }

// DropWorker removes a worker and leaves a tombstone.
func (x *Index) DropWorker(w *Worker) {
	h := w.hive
	x.uncount(w)
	x.log.addTombstone(h.id, w.rec.Worker)
	h.workers.Remove(w)
	h.recount = true
}

// SetHive sets the verdict on h. Call it once per input that changed h. Pages that were applied since the
// last call take effect now.
func (x *Index) SetHive(h *Hive, f Facts, now time.Time) {
	was, what := h.facts, h.headChange
	h.facts, h.headChange = f, unchanged
	x.place(h)
	if !f.sameAs(&was) {
		what = material
	}
	x.refresh(h, what, was.Live != f.Live || was.Doubtful != f.Doubtful, now)
	if h.relabelled {
		// Workers inherit the labels of their hive. This comes last: a change of numbers that follows a
		// material change within one input would hide it from a watcher that stops in between.
		for _, w := range h.workers {
			x.touchWorker(w, true)
		}
	}
	if h.isFresh {
		x.lookAt(h, x.tooOldAt(f.Received, h.oldest))
	}
	h.relabelled, h.oldest = false, 0
}

// sameAs reports whether f and o are equal, or differ only in numbers.
func (f *Facts) sameAs(o *Facts) bool {
	return f.Live == o.Live && f.Cause == o.Cause && f.Since.Equal(o.Since) && f.Inc == o.Inc && f.Goodbye == o.Goodbye &&
		f.Zone == o.Zone && f.Doubtful == o.Doubtful && f.Conflict.Believed == o.Conflict.Believed && f.Conflict.Refused == o.Conflict.Refused
}

// Settle updates which hives and workers are fresh.
func (x *Index) Settle(now time.Time) {
	for h := range x.ageing.Due(now) {
		x.rescan(h, now)
	}
}

// rescan checks whether h, or one of its workers, is no longer fresh.
func (x *Index) rescan(h *Hive, now time.Time) {
	limit := hivebeat.MillisOf(x.fresh)
	var next time.Time
	if at := x.tooOldAt(h.facts.Received, 0); h.head.Inc != 0 && at.After(now) {
		next = at
	}
	for _, w := range h.workers {
		fresh := EffectiveAge(w.rec.Age, w.received, now) <= limit
		if at := x.tooOldAt(w.received, w.rec.Age); fresh && (next.IsZero() || at.Before(next)) {
			next = at
		}
		if w.shown.fresh != fresh {
			x.reshow(w, false, now)
		}
	}
	x.refresh(h, unchanged, false, now)
	if next.After(now) {
		x.ageing.Set(h, next)
	}
}

// lookAt makes Settle look at h at the time at, or earlier.
func (x *Index) lookAt(h *Hive, at time.Time) {
	if before, ok := x.ageing.At(h); !ok || at.Before(before) {
		x.ageing.Set(h, at)
	}
}

// tooOldAt returns when a fact that had this age when it was received is no longer fresh.
func (x *Index) tooOldAt(received time.Time, age hivebeat.Millis) time.Time {
	limit := hivebeat.MillisOf(x.fresh)
	return received.Add((limit - min(age, limit)).Duration() + time.Millisecond)
}

// refresh updates the share of h in the index, and, if all is set, the shares of its workers.
func (x *Index) refresh(h *Hive, what change, all bool, now time.Time) {
	fresh := h.head.Inc != 0 && EffectiveAge(0, h.facts.Received, now) <= hivebeat.MillisOf(x.fresh)
	if fresh != h.isFresh {
		h.isFresh, what, all = fresh, material, true
	}
	if all || h.rejoin || h.gpuDrains() {
		for _, w := range h.workers {
			if all || w.shown.gpus != w.gpus() || w.shown.drain != w.drainNow() {
				x.reshow(w, false, now)
			}
		}
	}
	h.rejoin = false
	x.resum(h, what)
}

// reshow updates the share of w in the index. isMaterial says that more than numbers changed, outside the
// fields that reshow compares itself.
func (x *Index) reshow(w *Worker, isMaterial bool, now time.Time) {
	live, _, fresh := x.Shown(w, now)
	h, s, r := w.hive, &w.shown, &w.rec
	m := Mix{live, r.State, r.Model}
	to := s.count
	if to == nil || to.Mix != m {
		to = h.mixes.get(m, func() *count { return x.zoneCount(h.zone, m) })
	}
	is := w.counts(fresh)
	isMaterial = isMaterial || s.count != to || s.fresh != is.fresh || s.closed != is.closed || s.looping != is.looping || s.gpus != is.gpus || s.drain != is.drain
	changed := isMaterial || s.counted != is
	if s.count == nil && len(x.holds) > 0 {
		s.held = x.holds[Place{Hive: h.id, Worker: r.Worker}]
	}
	h.recount = h.recount || s.count != to
	x.tally(w, -1)
	x.recount(w, to)
	s.counted = is
	x.tally(w, 1)
	h.setLoads(w, w.loads(live))
	x.relabel(h, &s.labels, r.Labels)
	x.relist(w)
	if changed {
		x.touchWorker(w, isMaterial)
	}
}

// uncount removes w from all counts, lists and the change log.
func (x *Index) uncount(w *Worker) {
	h, s := w.hive, &w.shown
	if s.count == nil {
		return
	}
	x.tally(w, -1)
	x.unlist(w)
	x.uncountFree(w)
	h.setLoads(w, false)
	x.recount(w, nil)
	x.relabel(h, &s.labels, nil)
	s.revision = revision{}
}

// differ reports whether two records of a worker differ in more than numbers. GPUs and labels are compared by
// address, so equal ones may count as different.
func differ(a, b *hivebeat.Record) bool {
	return a.Cause != b.Cause || a.Inc != b.Inc || a.Rival != b.Rival || a.RivalAt != b.RivalAt || a.Addr != b.Addr ||
		a.Stalled != b.Stalled || a.Looping != b.Looping || a.Reason != b.Reason || a.Endpoint != b.Endpoint ||
		a.Fault != b.Fault || a.Need != b.Need || a.Exit != b.Exit || a.Engine != b.Engine || a.Ver != b.Ver || a.Ctx != b.Ctx || a.KVCap != b.KVCap ||
		!sameList(a.Cold, b.Cold) || !sameList(a.LoRA.On, b.LoRA.On) || !sameList(a.LoRA.Wait, b.LoRA.Wait) || a.LoRA.Max != b.LoRA.Max ||
		!sameList(a.GPUs, b.GPUs) || !sameList(a.On, b.On) || mapAt(a.Labels) != mapAt(b.Labels) ||
		a.State != b.State || a.Live != b.Live || a.Model != b.Model
}

// sameList reports whether two lists are one in memory: a list in a record is never written to.
func sameList(a, b []string) bool {
	return len(a) == len(b) && unsafe.SliceData(a) == unsafe.SliceData(b) //nolint:gosec // compared, never followed
}

// mapAt returns the address of a map, as its identity: a map in a record is never written to.
func mapAt(m map[string]string) uintptr { return reflect.ValueOf(m).Pointer() }

// sameGPUs reports whether the GPUs of a page are unchanged, apart from their age.
func sameGPUs(was []hivebeat.GPU, is []wire.GPUView) bool {
	return slices.EqualFunc(was, is, func(a hivebeat.GPU, b wire.GPUView) bool {
		return a.Used == b.Used && a.Ours == b.Ours && a.Util == b.Util && a.Temp == b.Temp && a.Power == b.Power && a.Total == b.Total &&
			a.Index == b.Index && a.UUID == string(b.UUID) && a.Name == string(b.Name) && a.Err == string(b.Err) &&
			a.Orphaned == b.Orphaned && a.OrphanOf == string(b.OrphanOf) && a.Unattributed == b.Unattributed && a.Reserved == b.Reserved && a.Unified == b.Unified && a.MIG == b.MIG &&
			a.State == hivebeat.GPUState(b.State) && a.Cause == hivebeat.Cause(b.Cause) && a.Evidence == string(b.Evidence) && a.Action == string(b.Action) && a.Boots == b.Boots &&
			slices.EqualFunc(a.Instances, b.Instances, func(i hivebeat.GPUInstance, v wire.InstanceView) bool { return v.Is(&i) })
	})
}
