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
	h := &Hive{id: id}
	x.hives.Add(h)
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
	x.relabelHive(h)
	h.isFresh, h.troubled, h.rejoin = false, false, false
	x.resum(h, unchanged)
	if h.zone != nil {
		x.leaveZone(h)
	}
	x.ageing.Remove(h)
	x.hives.Remove(h)
	delete(x.doubts, h)
	x.log.drop(&h.revision)
	x.log.addTombstone(h.id, "")
}

// ApplyHead applies a page without its workers. SetHive must follow once the whole page is applied.
func (x *Index) ApplyHead(h *Hive, s *wire.SnapshotView) {
	before, host, same := h.headFacts(), h.head.Host, sameGPUs(h.head.GPUs, s.GPUs)
	s.UpdateHead(&h.head)
	h.rejoin = h.rejoin || h.troubled
	h.troubled = slices.ContainsFunc(h.head.GPUs, func(g hivebeat.GPU) bool { return badnessOf(&g) != isOK })
	h.rejoin = h.rejoin || h.troubled
	h.facts.Zone = h.head.Labels["zone"]
	x.place(h)
	x.relabelHive(h)
	switch after := h.headFacts(); {
	case after != before:
		h.headChange = material
		h.relabelled = h.relabelled || before.inc != 0 && after.labels != before.labels
	case !same || h.head.Host != host:
		h.headChange = max(h.headChange, numbers)
	}
}

// AddWorker adds a worker without a record to h. Apply or Set must follow.
func (x *Index) AddWorker(h *Hive, w *Worker) {
	w.hive = h
	h.workers = append(h.workers, w)
	h.isSorted = false
}

// Apply applies a record from a page of the hive of w.
func (x *Index) Apply(w *Worker, r *wire.RecordView, received, now time.Time) {
	same := r.Same && !w.byQueen
	var was stable
	if !same {
		was = w.stable()
	}
	r.Update(&w.rec)
	w.received, w.byQueen = received, false
	fresh := EffectiveAge(w.rec.Age, received, now) <= hivebeat.MillisOf(x.fresh)
	if fresh {
		w.hive.oldest = max(w.hive.oldest, w.rec.Age)
	}
	if !same || !w.isAsCounted(fresh) {
		x.reshow(w, !same && w.stable() != was, now)
	}
}

// Set replaces the record of w with one that the queen judged.
func (x *Index) Set(w *Worker, rec hivebeat.Record, received, now time.Time) {
	was := w.stable()
	w.rec, w.received, w.byQueen = rec, received, true
	x.reshow(w, w.stable() != was, now)
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
	h.workers = slices.DeleteFunc(h.workers, func(o *Worker) bool { return o == w })
	h.recount = true
}

// SetHive sets the verdict on h. Call it once per input that changed h. Pages that were applied since the
// last call take effect now.
func (x *Index) SetHive(h *Hive, f Facts, now time.Time) {
	was, what := h.facts, h.headChange
	h.facts, h.headChange = f, unchanged
	if f.Live != "" || h.zone != nil {
		x.place(h)
	}
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
	conflict := (f.Conflict == nil) == (o.Conflict == nil)
	if conflict && f.Conflict != nil {
		conflict = f.Conflict.Believed == o.Conflict.Believed && f.Conflict.Refused == o.Conflict.Refused
	}
	return conflict && f.Live == o.Live && f.Cause == o.Cause && f.Since.Equal(o.Since) && f.Inc == o.Inc && f.Goodbye == o.Goodbye &&
		f.Zone == o.Zone && f.Doubtful == o.Doubtful
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
	if all || h.rejoin {
		for _, w := range h.workers {
			if all || w.shown.gpus != w.gpus() {
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
	if h.zone == nil {
		x.place(h)
	}
	m := Mix{live, r.State, r.Model}
	to := s.count
	if to == nil || to.Mix != m {
		to = h.mixes.get(m, func() *count { return x.zoneCount(h.zone, m) })
	}
	load, gpus := Load{r.Busy, r.Slots, r.Queue}, w.gpus()
	isMaterial = isMaterial || s.count != to || s.fresh != fresh || s.closed != r.Closed || s.looping != r.Looping || s.gpus != gpus
	changed := isMaterial || s.load != load || s.vram != r.VRAM
	if s.count != nil && s.count.Live == hivebeat.Alive {
		h.load.sub(s.load)
		x.totals.Load.sub(s.load)
	}
	if live == hivebeat.Alive {
		h.load.add(load)
		x.totals.Load.add(load)
	}
	if s.count == nil {
		x.totals.Workers++
		if len(x.holds) > 0 {
			s.held = x.holds[Place{Hive: h.id, Worker: r.Worker}]
		}
	}
	if s.count != to {
		h.recount = true
	}
	x.recount(w, to)
	x.relabelWorker(w)
	s.fresh, s.load, s.vram, s.gpus = fresh, load, r.VRAM, gpus
	h.setLoads(w, w.loads(live))
	x.countFlags(s, r.Closed, r.Looping)
	x.relist(w)
	if changed {
		x.touchWorker(w, isMaterial)
	}
}

// uncount removes w from all counts, lists and the change log.
func (x *Index) uncount(w *Worker) {
	h, s := w.hive, &w.shown
	x.countFlags(s, false, false)
	if s.count == nil {
		return
	}
	if s.count.Live == hivebeat.Alive {
		h.load.sub(s.load)
		x.totals.Load.sub(s.load)
	}
	x.unlist(w)
	h.setLoads(w, false)
	x.recount(w, nil)
	x.bear(h, s.labels, -1, false)
	s.labels = nil
	x.totals.Workers--
	x.log.drop(&s.revision)
}

// isAsCounted reports whether the present numbers of w are the ones that were counted.
func (w *Worker) isAsCounted(fresh bool) bool {
	s, r := &w.shown, &w.rec
	return s.count != nil && s.fresh == fresh && s.closed == r.Closed && s.looping == r.Looping && s.load.Busy == r.Busy && s.load.Queue == r.Queue && s.vram == r.VRAM
}

// stable has the fields of a worker that are more than numbers. Some of them are compared by address, so two
// different values may stand for equal texts.
type stable struct {
	cause              hivebeat.Cause
	inc, rival         uint64
	rivalAt            hivebeat.Place
	addr               string
	stalled, looping   bool
	reason, endpoint   string
	gpus, on           *string
	ngpus, non         int
	fault              string
	need               uint64
	labels             uintptr
	byQueen            bool
	state, live, model string
}

func (w *Worker) stable() stable {
	r := &w.rec
	return stable{
		cause: r.Cause, inc: r.Inc, rival: r.Rival, rivalAt: r.RivalAt, addr: r.Addr, stalled: r.Stalled, looping: r.Looping, reason: r.Reason, endpoint: r.Endpoint,
		gpus: unsafe.SliceData(r.GPUs), ngpus: len(r.GPUs), labels: mapAt(r.Labels), byQueen: w.byQueen, //nolint:gosec // compared, never followed
		on: unsafe.SliceData(r.On), non: len(r.On), fault: r.Fault, need: r.Need, //nolint:gosec // compared, never followed
		state: string(r.State), live: string(r.Live), model: r.Model,
	}
}

// mapAt returns the address of a map, as its identity: a map in a record is never written to.
func mapAt(m map[string]string) uintptr { return reflect.ValueOf(m).Pointer() }

// headFacts has the fields of a page that are more than numbers.
type headFacts struct {
	inc, budget     uint64
	every           hivebeat.Millis
	warm            bool
	bye             string
	labels, collect uintptr
}

func (h *Hive) headFacts() headFacts {
	s := &h.head
	return headFacts{s.Inc, s.VRAMBudget, s.Every, s.Warm, s.Bye, mapAt(s.Labels), mapAt(s.Collect)}
}

// sameGPUs reports whether the GPUs of a page are unchanged, apart from their age.
func sameGPUs(was []hivebeat.GPU, is []wire.GPUView) bool {
	return slices.EqualFunc(was, is, func(a hivebeat.GPU, b wire.GPUView) bool {
		return a.Used == b.Used && a.Ours == b.Ours && a.Util == b.Util && a.Temp == b.Temp && a.Power == b.Power && a.Total == b.Total &&
			a.Index == b.Index && a.UUID == string(b.UUID) && a.Name == string(b.Name) && a.Err == string(b.Err) &&
			a.Orphaned == b.Orphaned && a.Unattributed == b.Unattributed && a.Reserved == b.Reserved && a.Unified == b.Unified && a.MIG == b.MIG &&
			a.State == hivebeat.GPUState(b.State) && a.Cause == hivebeat.Cause(b.Cause) && a.Evidence == string(b.Evidence) && a.Action == string(b.Action) && a.Boots == b.Boots &&
			slices.EqualFunc(a.Instances, b.Instances, func(i hivebeat.GPUInstance, v wire.InstanceView) bool { return v.Is(&i) })
	})
}
