package fleet

import "github.com/beatfabric/hivebeat"

// alarms reports whether an event of this kind is one that wakes people: what an operator silenced makes it all the
// same, but marked.
func alarms(k hivebeat.Kind) bool {
	switch k {
	case hivebeat.KindLate, hivebeat.KindLost, hivebeat.KindLeft, hivebeat.KindUnverified, hivebeat.KindStalled, hivebeat.KindLooping, hivebeat.KindConflict,
		hivebeat.KindGPULost, hivebeat.KindGPUFailing, hivebeat.KindGPUDegraded, hivebeat.KindGPUOrphan:
		return true
	}
	return false
}

// silenced reports whether an event of this kind of h, or of one of its workers, must not alarm, because an operator
// silenced it.
func (h *Hive) silenced(worker string, k hivebeat.Kind) bool {
	return alarms(k) && h.entry.Silence(worker) != nil
}

// uncounted reports whether the counters that alerts use leave such an event out: the same, and each recovery.
func (h *Hive) uncounted(worker string, k hivebeat.Kind) bool {
	return (alarms(k) || k == hivebeat.KindRecovered) && h.entry.Silence(worker) != nil
}
