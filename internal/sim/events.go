package sim

import (
	"cmp"
	"slices"
	"time"

	"github.com/beatfabric/hivebeat"
)

// row identifies a sequence of event numbers.
type row struct {
	zone    string // of a brake: numbered by its queen
	hive    string // of a hive: numbered by the roster
	hiveInc uint64 // of a worker: numbered by this incarnation of its hive
	worker  string
}

// checkEvents reads the stream from its start, and compares it with what happened.
func (w *world) checkEvents() {
	var rows []row // in a fixed order
	told, seen := make(map[row][]*stored), make(map[string]bool)
	for i := range w.store.events {
		e := &w.store.events[i]
		if seen[e.id] {
			continue // published again after the store had lost everything
		}
		seen[e.id] = true
		r := row{hive: e.data.Hive, hiveInc: e.data.HiveInc, worker: e.data.Worker}
		switch {
		case e.data.Kind == hivebeat.KindBrake:
			r = row{zone: e.data.Zone}
		case e.id == hivebeat.HiveEventID(r.hive, e.data.N):
			r = row{hive: r.hive}
		case e.data.Kind == hivebeat.KindJoined && e.data.Via == hivebeat.ViaQueen:
			continue // of a worker that a queen judged: the number is the roster's, and the id the worker's
		}
		if told[r] == nil {
			rows = append(rows, r)
		}
		told[r] = append(told[r], e)
	}
	for _, id := range w.store.owed {
		if !w.store.ever[id] {
			w.breaks(EventsOnce, "%s was in the roster, but never in the stream", id)
		}
	}
	for _, r := range rows {
		slices.SortStableFunc(told[r], func(a, b *stored) int { return cmp.Compare(a.data.N, b.data.N) })
		switch {
		case r.hive == "":
			w.checkBrakeEvents(told[r])
		case r == row{hive: r.hive}:
			w.checkHiveEvents(told[r])
		default:
			w.checkWorkerEvents(told[r])
		}
	}
	for _, h := range w.hives {
		var s hivebeat.Snapshot
		h.core.Fill(w.time(), &s)
		for _, r := range s.Workers {
			list := told[row{hive: h.id, hiveInc: h.inc, worker: r.Worker}]
			if len(list) == 0 || !h.couldTell(r.Worker, r.N) {
				continue
			}
			// The stream may lack only that the worker joined again: after its record was dropped,
			// and with an id that the stream knew already.
			rejoined := w.store.ever[hivebeat.WorkerEventID(h.id, h.inc, r.Worker, r.Inc, hivebeat.KindJoined, r.N)]
			if last := list[len(list)-1].data.N; last > 0 && r.N > last && !rejoined {
				w.breaks(EventsOnce, "%s/%s went through %d transitions, but the last one published is %d", h.id, r.Worker, r.N, last)
			}
		}
	}
}

// joinedBefore reports whether event 1 may be that the worker joined again, with an id that
// the stream knew: under another incarnation of its hive.
func (w *world) joinedBefore(d *hivebeat.EventData) bool {
	for l := range w.lives {
		if l.ident == d.Hive+"/"+d.Worker && w.store.ever[hivebeat.WorkerEventID(d.Hive, d.HiveInc, d.Worker, l.inc, hivebeat.KindJoined, 1)] {
			return true
		}
	}
	return false
}

// checkWorkerEvents checks the events of one worker within one incarnation of its hive:
// every number occurs once, as an event or within a gap.
func (w *world) checkWorkerEvents(list []*stored) {
	next, live, said := uint64(0), "", make(map[hivebeat.Kind]string) // last values in the events; empty: unknown
	for i, e := range list {
		d := &e.data
		first := d.N
		if d.Kind == hivebeat.KindGap {
			first = d.N - d.Missing + 1
		}
		if i == 0 {
			next = first
		}
		for n := next; n < first; n++ {
			if p := w.lives[life{d.Hive, d.HiveInc}]; p != nil && p.self.(*hive).couldTell(d.Worker, n) && !(n == 1 && w.joinedBefore(d)) {
				w.breaks(EventsOnce, "%s/%s: after number %d comes %d, %s", d.Hive, d.Worker, next-1, first, e.id)
			}
		}
		// joined has its own id. A queen that missed it publishes a gap, and a queen that started
		// in the meantime does not know that the worker had been declared lost: it publishes
		// joined where the others publish recovered, before them or after.
		if i > 0 && list[0].data.N == 0 && d.N == list[i-1].data.N && d.Kind == hivebeat.KindRecovered && list[i-1].data.Kind == hivebeat.KindJoined {
			continue
		}
		if d.N < next && d.Kind != hivebeat.KindGap && !(d.Kind == hivebeat.KindJoined && (list[i-1].data.Kind == hivebeat.KindGap || list[0].data.N == 0)) {
			w.breaks(EventsOnce, "%s/%s: number %d is published twice, last as %s", d.Hive, d.Worker, d.N, e.id)
		}
		if first > next || d.Kind == hivebeat.KindGap {
			live = ""
			clear(said)
		}
		next = max(next, d.N+1)
		switch d.Kind {
		case hivebeat.KindGap, hivebeat.KindState, hivebeat.KindConflict:
		case hivebeat.KindStalled, hivebeat.KindLooping:
			now := d.From + ">" + d.To
			if now == said[d.Kind] {
				w.breaks(Stalls, "%s/%s: %s changes from %q to %q, and so did the one before", d.Hive, d.Worker, e.id, d.From, d.To)
			}
			said[d.Kind] = now
		default:
			if live != "" && d.From != live && d.Kind != hivebeat.KindJoined {
				w.breaks(EventsOnce, "%s/%s: %s changes from %s, but it was %s", d.Hive, d.Worker, e.id, d.From, live)
			}
			live = d.To
			if d.Kind != hivebeat.KindLate && d.Kind != hivebeat.KindRecovered {
				said[hivebeat.KindStalled] = "stalled>" // ends without an event
			}
		}
	}
}

// arguing is a number of events about one hive, or about one of its workers that queens
// judge. So many within ten seconds occur only if queens overrule each other in the roster.
// Several workers together have as many if each queen misses other beats of theirs: late
// and recovered by the next beat (seed 1023).
const arguing = 30

// checkHiveEvents checks the events that the roster numbers: those of one hive, and those of
// its workers that queens judged.
func (w *world) checkHiveEvents(list []*stored) {
	var was *hivebeat.EventData               // the last verdict on the hive itself
	about := make(map[string][]time.Duration) // when there were events, by worker; of the hive itself under ""
	for i, e := range list {
		d := &e.data
		if i > 0 && d.N == list[i-1].data.N {
			w.breaks(EventsOnce, "%s: number %d is published twice", d.Hive, d.N)
		}
		about[d.Worker] = append(about[d.Worker], e.at)
		at := about[d.Worker]
		if n := len(at) - 1 - arguing; n >= 0 && e.at-at[n] < 10*time.Second {
			w.breaks(Convergence, "%s has %d events about %q within %v, the last one %s", d.Hive, arguing, d.Worker, e.at-at[n], e.id)
		}
		if d.Worker != "" {
			continue
		}
		if was != nil && w.store.epoch == 1 { // never wiped
			if d.From != was.To {
				w.breaks(EventsOnce, "%s: number %d changes from %s, but it was %s", d.Hive, d.N, d.From, was.To)
			}
			if d.Kind == hivebeat.KindLost && d.To == was.To && d.Inc == was.Inc {
				w.breaks(EventsOnce, "%s: lost twice, last as number %d", d.Hive, d.N)
			}
		}
		was = d
	}
}

// brakeForgotten is how long another queen waits before it publishes the end of a brake, if the
// queen that published its start is gone.
const brakeForgotten = 10*time.Minute + 5*time.Second

// checkBrakeEvents checks that each event that turned the brake of a zone on is followed by
// one that turned it off.
func (w *world) checkBrakeEvents(list []*stored) {
	if w.store.epoch > 1 { // wiped
		return
	}
	for i, e := range list[1:] {
		if e.data.To == list[i].data.To {
			w.breaks(EventsOnce, "the brake of zone %q is published as %s twice, last as %s", e.data.Zone, e.data.To, e.id)
		}
	}
	if last := list[len(list)-1]; last.data.To == "on" && w.now-last.at > brakeForgotten {
		w.breaks(BrakeEnds, "the brake of zone %q was published as on, but never as off", last.data.Zone)
	}
}
