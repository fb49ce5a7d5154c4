package fleet

import (
	"maps"
	"slices"
	"time"

	"github.com/beatfabric/hivebeat"
)

// Urgent reports whether an event of this kind is told even if it can not be stored: a
// verdict that ends a life, or takes that back.
func Urgent(k hivebeat.Kind) bool {
	return k == hivebeat.KindLost || k == hivebeat.KindLeft || k == hivebeat.KindRecovered
}

// Unsaid returns the urgent events of h and its wards that the roster does not have yet,
// without numbers. Unlike Say it may be called at any time.
func (h *Hive) Unsaid(now time.Time) (list []hivebeat.EventData) {
	if kind, to, ok := h.Difference(now); ok && Urgent(kind) {
		d, _ := h.Next(kind, to, now)
		d.N = 0
		list = append(list, d)
	}
	if a := h.adopted; a != nil {
		for _, id := range slices.Sorted(maps.Keys(a.differ)) {
			if kind, to, ok := h.differs(id, a.wards[id]); ok && Urgent(kind) {
				list = append(list, h.wardEvent(h.workers[id], kind, to, a.wards[id].why))
			}
		}
	}
	if h.Up() {
		for _, id := range slices.Sorted(maps.Keys(h.Book.Item.Workers)) {
			if h.returned(id) {
				list = append(list, h.wardEvent(h.workers[id], hivebeat.KindRecovered, hivebeat.Alive, listedAgain))
			}
		}
	}
	return list
}

// TakenBack describes the recovery of h, or of a worker of it, after a death that was
// told and never stored: the roster has no difference, as it never had the death. It is
// false where it is not alive in that incarnation, or the roster has the death.
func (h *Hive) TakenBack(worker string, inc uint64) (hivebeat.EventData, bool) {
	d := hivebeat.EventData{
		Hive: h.id, Worker: worker, Inc: inc, HiveInc: h.line.Inc(), Kind: hivebeat.KindRecovered, From: string(hivebeat.Lost), To: string(hivebeat.Alive),
		Seq: h.line.Seq(), Via: hivebeat.ViaQueen, Reason: "heard again before the death was stored",
	}
	if worker == "" {
		return d, h.Up() && h.line.Inc() == inc && h.Book.Item.Live != hivebeat.Lost
	}
	w := h.workers[worker]
	if w == nil {
		return d, false
	}
	r := &w.rec
	base, _ := h.known(worker, w.ward)
	d.Seq, d.State, d.Model = r.Seq, r.State, r.Model
	return d, r.Live == hivebeat.Alive && r.Inc == inc && base.Live != hivebeat.Lost
}
