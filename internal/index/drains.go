package index

import (
	"slices"
	"time"
)

// A hive, worker or GPU that an operator drained takes no new work. A worker is drained with its hive, and with each
// GPU that it names or holds memory of.

// Drain says who drained something, and why. A Drain is never changed: another one replaces it.
type Drain struct {
	Worker, GPU string // of the hive; without either, the hive itself is drained
	By, Reason  string
	Since       time.Time
	Until       time.Time // zero: it does not end by itself
}

// Of returns what was drained: "hive", "worker" or "gpu".
func (d *Drain) Of() string {
	switch {
	case d.Worker != "":
		return "worker"
	case d.GPU != "":
		return "gpu"
	}
	return "hive"
}

// SetDrains replaces what is drained of a hive. Drains of a hive, worker or GPU that is not known yet count once it
// appears.
func (x *Index) SetDrains(hive string, list []*Drain, now time.Time) {
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
func (h *Hive) drained(worker, gpu string) *Drain {
	for _, d := range h.drains {
		if d.Worker == worker && d.GPU == gpu {
			return d
		}
	}
	return nil
}

// Drain returns the drain of the hive as a whole, or nil.
func (h *Hive) Drain() *Drain { return h.drained("", "") }

// WorkerDrain returns the drain of a worker of the hive alone, or nil.
func (h *Hive) WorkerDrain(id string) *Drain { return h.drained(id, "") }

// GPUDrain returns the drain of a GPU of the hive alone, or nil.
func (h *Hive) GPUDrain(uuid string) *Drain { return h.drained("", uuid) }

// Drain returns the drain of its hive, its own, or else that of one of its GPUs, as of the last Settle; nil if there is
// none.
func (w *Worker) Drain() *Drain { return w.shown.drain }

func (w *Worker) drainNow() *Drain {
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
func (h *Hive) ofGPU(uuid string) *Drain {
	if uuid == "" {
		return nil
	}
	if g := h.listed(uuid); g != nil {
		uuid = g.UUID
	}
	return h.drained("", uuid)
}

// Drain returns the drain of its hive or its GPU; nil if there is none.
func (g *GPU) Drain() *Drain {
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
	return slices.ContainsFunc(h.drains, func(d *Drain) bool { return d.GPU != "" })
}
