package fleet

import (
	"time"

	"github.com/beatfabric/hivebeat"
	"github.com/beatfabric/hivebeat/internal/ledger"
)

// A worker that is lost or left is shown for hivebeat.KeepGone, also where its hive
// begins again meanwhile and does not know it: by this view, and where the queen begins
// again too by the roster.

// isGone reports whether the verdict is that of an end.
func isGone(live hivebeat.Live) bool { return live == hivebeat.Lost || live == hivebeat.Left }

// goneFor returns how long ago w, which is lost or left, became so.
func (w *Worker) goneFor(now time.Time) hivebeat.Millis {
	return EffectiveAge(w.rec.Since, w.received, now)
}

// inRoster returns what an entry of the roster that is put now holds of w, which is
// known by the roster or its hive: what became of a ward since is told after that.
func (w *Worker) inRoster(now time.Time) (r ledger.RosterWorker, known bool) {
	r = rosterWorker(&w.rec.Facts, w.rec.Live, w.rec.Cause)
	if c := w.ward; c != nil {
		if !c.listed {
			return r, false
		}
		r = c.base
	}
	if isGone(r.Live) && r.Live == w.rec.Live && r.Inc == w.rec.Inc {
		r.Since = max(1, w.goneFor(now))
	}
	return r, true
}

// whileUp returns the workers in the entry of h, which is up: those whose verdict by a
// queen still stands, and those that are gone and that h does not list.
func (h *Hive) whileUp(now time.Time) map[string]ledger.RosterWorker {
	m, size := h.unsettled(now), 0
	for _, w := range h.Workers() {
		if w.gen == h.asm.gen {
			continue
		}
		r, known := w.inRoster(now)
		if !known || r.Since == 0 || w.goneFor(now) >= hivebeat.MillisOf(hivebeat.KeepGone) {
			continue
		}
		if size += entryRow(&w.rec); size > rosterBytes {
			break
		}
		if m == nil {
			m = make(map[string]ledger.RosterWorker)
		}
		if was := m[w.rec.Worker]; was.Inc == r.Inc && was.Live == r.Live {
			r.Via = was.Via
		}
		m[w.rec.Worker] = r
	}
	return m
}

// entryRow is about what a worker takes in an entry, but for its promise.
func entryRow(r *hivebeat.Record) int {
	return len(r.Worker) + len(r.Live) + len(r.Cause) + len(r.State) + len(r.Model) + 96
}
