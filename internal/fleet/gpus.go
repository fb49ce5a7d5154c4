package fleet

import (
	"time"

	"github.com/beatfabric/hivebeat"
)

// gpuTransitions publishes the new transitions of the GPUs of h that its newest page carries, in order of n.
// Each is published once per incarnation of the hive, and missing ones become a gap, as for a worker. A queen
// that did not hear the incarnation from its start takes the numbers before the first one carried as published.
func (v *View) gpuTransitions(h *Hive, received, now time.Time) {
	s := h.head()
	if h.gpus.inc != s.Inc {
		was := h.gpusBefore
		h.gpusBefore, h.gpus = h.gpus, life{inc: s.Inc}
		switch {
		case was.inc == s.Inc: // an incarnation that came back continues its numbers
			h.gpus.seq = min(was.seq, s.GPUN)
		case h.fromStart:
		case len(s.GPUTr) > 0:
			h.gpus.seq = s.GPUTr[0].N - 1
		default:
			h.gpus.seq = s.GPUN
		}
	}
	for i := range s.GPUTr {
		t := &s.GPUTr[i]
		if t.N <= h.gpus.seq || t.N > s.GPUN || !hivebeat.ValidID(t.Kind) {
			continue
		}
		v.gpuGap(h, t.N-1, now)
		h.gpus.seq = t.N
		v.publish(hivebeat.EventData{
			Hive: h.id, Inc: s.Inc, HiveInc: s.Inc, N: t.N, Kind: t.Kind, From: string(t.From), To: string(t.To), Cause: t.Cause, Reason: t.Evidence,
			Via: hivebeat.ViaHive, GPU: t.GPU, GPUIndex: new(t.Index), Action: t.Action, Owner: t.Worker, Asker: t.Asker,
		}, received.Add(-min(t.Ago, hivebeat.MillisOf(time.Hour)).Duration()))
	}
	v.gpuGap(h, s.GPUN, now)
}

// gpuGap publishes that the transitions of GPUs up to n are not available.
func (v *View) gpuGap(h *Hive, n uint64, now time.Time) {
	inc := h.head().Inc
	v.missed(&h.gpus.seq, n, hivebeat.EventData{Hive: h.id, Inc: inc, HiveInc: inc}, now)
}
