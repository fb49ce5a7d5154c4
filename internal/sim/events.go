package sim

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"github.com/beatfabric/hivebeat"
)

// checkEvents reads the stream from its beginning, as somebody would who wants to
// know what happened.
func (w *world) checkEvents() {
	type row struct {
		worker  string
		hive    string
		hiveInc uint64
	}
	var (
		workers = map[row][]*stored{}
		rows    []row
		hives   = map[string][]*stored{}
		ids     []string
		seen    = map[string]bool{}
		brakes  []*stored
	)
	for i := range w.store.events {
		e := &w.store.events[i]
		if seen[e.id] {
			continue // told again after the store had lost all
		}
		seen[e.id] = true
		if e.data.Kind == hivebeat.KindBrake {
			brakes = append(brakes, e)
			continue
		}
		if e.id == hivebeat.HiveEventID(e.data.Hive, e.data.N) { // numbered by the roster
			if hives[e.data.Hive] == nil {
				ids = append(ids, e.data.Hive)
			}
			hives[e.data.Hive] = append(hives[e.data.Hive], e)
			continue
		}
		if e.data.Kind == hivebeat.KindJoined && e.data.Via == hivebeat.ViaQueen {
			continue // of a worker that a queen judged: its number is the roster's, and its id the worker's
		}
		r := row{e.data.Worker, e.data.Hive, e.data.HiveInc}
		if workers[r] == nil {
			rows = append(rows, r)
		}
		workers[r] = append(workers[r], e)
	}
	wiped := w.store.epoch > 1
	for _, id := range w.store.owed {
		if !w.store.ever[id] {
			w.breaks(EventsOnce, "%s was in the roster, and never in the stream", id)
		}
	}
	for _, id := range ids {
		w.checkHiveEvents(id, hives[id], wiped)
	}
	w.checkBrakes(brakes, wiped)
	for _, r := range rows {
		w.checkWorkerEvents(workers[r])
	}
	for _, h := range w.hives {
		if w.truth.usurped(life{h.id, h.inc}) {
			continue
		}
		var s hivebeat.Snapshot
		h.core.Fill(w.time(), &s)
		for _, r := range s.Workers {
			list := workers[row{r.Worker, h.id, h.inc}]
			last := uint64(0)
			for _, e := range list {
				last = max(last, e.data.N)
			}
			if r.N > last && last > 0 && w.truth.couldTell(&h.proc, r.Worker, r.N) && !w.rejoined(h, r) {
				w.breaks(EventsOnce, "%s/%s went through %d transitions, and the last one told is %d", h.id, r.Worker, r.N, last)
			}
		}
	}
}

// rejoined reports whether all that was not told of a worker is that it joined once
// more: after its record went, and with an id that the stream knows already.
func (w *world) rejoined(h *hive, r hivebeat.Record) bool {
	return w.store.ever[hivebeat.WorkerEventID(h.id, h.inc, r.Worker, r.Inc, hivebeat.KindJoined, r.N)]
}

// joinedBefore reports whether number 1 may be that the worker joined once more,
// with an id that the stream knew: under another incarnation of its hive.
func (w *world) joinedBefore(d *hivebeat.EventData) bool {
	for l := range w.truth.procs {
		if l.ident == d.Hive+"/"+d.Worker && w.store.ever[hivebeat.WorkerEventID(d.Hive, d.HiveInc, d.Worker, l.inc, hivebeat.KindJoined, 1)] {
			return true
		}
	}
	return false
}

// checkWorkerEvents looks at what was told of one worker within one incarnation of
// its hive: every number once, told or within a gap.
func (w *world) checkWorkerEvents(list []*stored) {
	slices.SortStableFunc(list, func(a, b *stored) int { return cmp.Compare(a.data.N, b.data.N) })
	next, live, stalled := uint64(0), "", unknown
	for i, e := range list {
		d := &e.data
		first := d.N
		if d.Kind == hivebeat.KindGap {
			first = d.N - d.Missing + 1
		}
		if i > 0 && first > next {
			for n := next; n < first; n++ {
				if p := w.truth.procs[life{d.Hive, d.HiveInc}]; p != nil && w.truth.couldTell(p, d.Worker, n) && !(n == 1 && w.joinedBefore(d)) {
					w.breaks(EventsOnce, "%s/%s: after number %d comes %d, %s", d.Hive, d.Worker, next-1, first, e.id)
				}
			}
		}
		// joined has an id of its own: who did not hear it tells of a gap, and a queen
		// that began meanwhile does not know that the worker was given up.
		if i > 0 && d.N < next && d.Kind != hivebeat.KindGap && !(d.Kind == hivebeat.KindJoined && (list[i-1].data.Kind == hivebeat.KindGap || list[0].data.N == 0)) {
			w.breaks(EventsOnce, "%s/%s: number %d is told twice, at last as %s", d.Hive, d.Worker, d.N, e.id)
		}
		if i == 0 || first > next || d.Kind == hivebeat.KindGap {
			stalled = unknown
			if i > 0 {
				live = "" // nobody told
			}
		}
		gap := i == 0 || d.Kind == hivebeat.KindGap || first > next
		next = max(next, d.N+1)
		switch d.Kind {
		case hivebeat.KindGap:
			live = ""
		case hivebeat.KindStalled:
			is := working
			if d.To != "" {
				is = hanging
			}
			if is == stalled {
				w.breaks(Stalls, "%s/%s: %s says from %q to %q, and so said the one before", d.Hive, d.Worker, e.id, d.From, d.To)
			}
			stalled = is
		case hivebeat.KindState, hivebeat.KindConflict:
		default:
			if !gap && live != "" && d.From != live && d.Kind != hivebeat.KindJoined {
				w.breaks(EventsOnce, "%s/%s: %s says from %s, and it was %s", d.Hive, d.Worker, e.id, d.From, live)
			}
			live = d.To
			if d.Kind != hivebeat.KindLate && d.Kind != hivebeat.KindRecovered {
				stalled = working // ended without a word
			}
		}
	}
}

// What the events of a worker said last of its work.
const (
	unknown = iota
	working
	hanging
)

// arguing is how many things nobody has to tell of one hive within ten seconds: then
// queens tell the roster in turn that the others are wrong.
const arguing = 30

// checkHiveEvents looks at what was told of one hive: the roster numbers it.
func (w *world) checkHiveEvents(id string, list []*stored, wiped bool) {
	slices.SortStableFunc(list, func(a, b *stored) int { return cmp.Compare(a.data.N, b.data.N) })
	said := map[string]string{} // of the hive, and of workers that a queen judged
	inc := uint64(0)            // that the last verdict on the hive was about
	for i, e := range list {
		d := &e.data
		if i > 0 && d.N == list[i-1].data.N {
			w.breaks(EventsOnce, "%s: number %d is told twice", id, d.N)
		}
		if i >= arguing && e.at-list[i-arguing].at < 10*time.Second {
			w.breaks(Convergence, "of %s %d things are told within %v, at last %s", id, arguing, e.at-list[i-arguing].at, e.id)
		}
		before, known := said[d.Worker]
		if known && d.Worker == "" && d.From != before && !wiped {
			w.breaks(EventsOnce, "%s: number %d says from %s, and it was %s", id, d.N, d.From, before)
		}
		if known && d.Kind == hivebeat.KindLost && d.Worker == "" && before == d.To && inc == d.Inc && !wiped {
			w.breaks(EventsOnce, "%s %s: lost twice, at last as number %d", id, d.Worker, d.N)
		}
		said[d.Worker] = d.To
		if d.Worker == "" {
			inc = d.Inc
		}
	}
}

// brakeForgotten is when another queen tells the end of a brake, where the one that
// told its start is gone.
const brakeForgotten = 10*time.Minute + 5*time.Second

// checkBrakes looks whether each brake that was told to be on was told to be off.
func (w *world) checkBrakes(list []*stored, wiped bool) {
	on, at := map[string]string{}, map[string]time.Duration{}
	slices.SortStableFunc(list, func(a, b *stored) int { return cmp.Compare(a.data.N, b.data.N) })
	for _, e := range list {
		d := &e.data
		if on[d.Zone] == d.To && !wiped {
			w.breaks(EventsOnce, "the brake of zone %q is told to be %s twice, at last as %s", d.Zone, d.To, e.id)
		}
		on[d.Zone], at[d.Zone] = d.To, e.at
	}
	for i := range w.plan.Zones {
		zone := fmt.Sprintf("z%d", i)
		if on[zone] == "on" && !wiped && w.now-at[zone] > brakeForgotten {
			w.breaks(BrakeEnds, "the brake of zone %q was told to be on, and never to be off", zone)
		}
	}
}
