package index

import (
	"slices"
	"time"
)

// What operators say. A hive, worker or GPU that one drained takes no new work. A worker is drained with its hive, and with each
// GPU that it names or holds memory of.

// Directive is a drain or silence, with its author and reason. It is never changed: another one replaces
// it.
type Directive struct {
	Worker, GPU string // of the hive; without either, it is about the hive itself
	By, Reason  string
	Since       time.Time
	Until       time.Time // zero: it does not end by itself
}

// Of returns its subject: "hive", "worker" or "gpu".
func (d *Directive) Of() string {
	switch {
	case d.Worker != "":
		return "worker"
	case d.GPU != "":
		return "gpu"
	}
	return "hive"
}

// SetDrains replaces the drains of a hive. Drains of a hive, worker or GPU that is not known yet count once it
// appears.
func (x *Index) SetDrains(hive string, list []*Directive, now time.Time) {
	if slices.Equal(x.drains[hive], list) {
		return
	}
	if len(list) == 0 {
		delete(x.drains, hive)
	} else {
		x.drains[hive] = slices.Clone(list)
	}
	h := x.Hive(hive)
	if h == nil {
		return
	}
	h.drains = x.drains[hive]
	for _, w := range h.workers {
		if w.shown.count != nil && w.shown.drain != w.drainNow() {
			x.reshow(w, true, now)
		}
	}
	x.resum(h, material)
}

// drained returns the drain of the hive (with "" and ""), or of one of its workers or GPUs alone; nil if there is none.
func (h *Hive) drained(worker, gpu string) *Directive {
	for _, d := range h.drains {
		if d.Worker == worker && d.GPU == gpu {
			return d
		}
	}
	return nil
}

// Drain returns the drain of the hive as a whole, or nil.
func (h *Hive) Drain() *Directive { return h.drained("", "") }

// WorkerDrain returns the drain of a worker of the hive alone, or nil.
func (h *Hive) WorkerDrain(id string) *Directive { return h.drained(id, "") }

// GPUDrain returns the drain of a GPU of the hive alone, or nil.
func (h *Hive) GPUDrain(uuid string) *Directive { return h.drained("", uuid) }

// Drain returns the drain of its hive, its own, or else that of one of its GPUs, as of the last Settle; nil if there is
// none.
func (w *Worker) Drain() *Directive { return w.shown.drain }

func (w *Worker) drainNow() *Directive {
	h := w.hive
	if len(h.drains) == 0 {
		return nil
	}
	if d := h.Drain(); d != nil {
		return d
	}
	if d := h.drained(w.rec.Worker, ""); d != nil {
		return d
	}
	for _, names := range [...][]string{w.rec.GPUs, w.rec.On} {
		for _, uuid := range names {
			if d := h.ofGPU(uuid); d != nil {
				return d
			}
		}
	}
	return nil
}

// ofGPU returns the drain of the GPU with this UUID, or of the GPU that has an instance with it.
func (h *Hive) ofGPU(uuid string) *Directive {
	if uuid == "" {
		return nil
	}
	if g := h.listed(uuid); g != nil {
		uuid = g.UUID
	}
	return h.drained("", uuid)
}

// Drain returns the drain of its hive or its GPU; nil if there is none.
func (g *GPU) Drain() *Directive {
	h := g.hive
	if len(h.drains) == 0 {
		return nil
	}
	if d := h.Drain(); d != nil {
		return d
	}
	return h.ofGPU(h.head.GPUs[g.index].UUID)
}

// gpuDrains reports whether GPUs of h are drained: a change of its head may then put workers under another drain.
func (h *Hive) gpuDrains() bool {
	return slices.ContainsFunc(h.drains, func(d *Directive) bool { return d.GPU != "" })
}

// SetSilences replaces the silences of a hive, as SetDrains does for drains.
func (x *Index) SetSilences(hive string, list []*Directive) {
	if slices.Equal(x.silences[hive], list) {
		return
	}
	if len(list) == 0 {
		delete(x.silences, hive)
	} else {
		x.silences[hive] = slices.Clone(list)
	}
	h := x.Hive(hive)
	if h == nil {
		return
	}
	was := h.silences
	h.silences = x.silences[hive]
	for _, w := range h.workers {
		if w.shown.count != nil && silence(was, w.rec.Worker) != silence(h.silences, w.rec.Worker) {
			x.touchWorker(w, true)
		}
	}
	if h.facts.Live != "" {
		x.touchHive(h, true)
	}
}

// silence returns the silence of a hive, or else that of a worker of it; nil if there is none.
func silence(list []*Directive, worker string) *Directive {
	for _, id := range [...]string{"", worker} {
		for _, d := range list {
			if d.Worker == id {
				return d
			}
		}
	}
	return nil
}

// Silence returns the silence of the hive, or else that of its worker with this id, as it was last set; nil if there is
// none. For the hive alone the id is empty.
func (h *Hive) Silence(worker string) *Directive { return silence(h.silences, worker) }
