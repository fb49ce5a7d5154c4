package fleet

import (
	"reflect"
	"slices"
	"unsafe"

	"github.com/beatfabric/hivebeat"
	"github.com/beatfabric/hivebeat/internal/wire"
)

// What changed of a worker or a hive that is kept nowhere else, and so has to be told
// by comparing what it was.

// stable is what of a worker is material, and part of what seldom changes. Two
// equal ones are equal; two of equal texts in other memory may differ.
type stable struct {
	cause              hivebeat.Cause
	inc, rival         uint64
	rivalAt            hivebeat.Place
	addr               string
	stalled, looping   bool
	reason, endpoint   string
	gpus               *string
	ngpus              int
	labels             uintptr
	via                string
	state, live, model string
}

func (w *Worker) stable() stable {
	r := &w.rec
	return stable{
		cause: r.Cause, inc: r.Inc, rival: r.Rival, rivalAt: r.RivalAt, addr: r.Addr, stalled: r.Stalled, looping: r.Looping, reason: r.Reason, endpoint: r.Endpoint,
		gpus: unsafe.SliceData(r.GPUs), ngpus: len(r.GPUs), labels: mapAt(r.Labels), via: w.via, //nolint:gosec // compared, never followed
		state: string(r.State), live: string(r.Live), model: r.Model,
	}
}

// mapAt tells one map from another. A map that a record holds is never written to.
func mapAt(m map[string]string) uintptr { return reflect.ValueOf(m).Pointer() }

// news is how much of a hive changed that is kept nowhere.
type news int

const (
	noNews  news = iota
	numbers      // of its host and its GPUs
	another      // what it is
)

// facts are what of a hive's head is material and kept nowhere else, before a page
// is taken over.
type facts struct {
	inc             uint64
	every           hivebeat.Millis
	warm            bool
	bye             string
	labels, collect uintptr
}

func (h *Hive) facts() facts {
	s := &h.head
	return facts{s.Inc, s.Every, s.Warm, s.Bye, mapAt(s.Labels), mapAt(s.Collect)}
}

// newsIn is how much of a hive a page changed, that was like that before.
func (h *Hive) newsIn(before facts, host hivebeat.Host, sameGPUs bool) news {
	switch {
	case h.facts() != before:
		return another
	case !sameGPUs || h.head.Host != host:
		return numbers
	}
	return noNews
}

// sameGPUs reports whether the GPUs of a page are as they were, but for the age.
func sameGPUs(was []hivebeat.GPU, is []wire.GPUView) bool {
	return slices.EqualFunc(was, is, func(a hivebeat.GPU, b wire.GPUView) bool {
		return a.Used == b.Used && a.Ours == b.Ours && a.Util == b.Util && a.Temp == b.Temp && a.Power == b.Power && a.Total == b.Total &&
			a.Index == b.Index && a.UUID == string(b.UUID) && a.Name == string(b.Name) && a.Err == string(b.Err)
	})
}
