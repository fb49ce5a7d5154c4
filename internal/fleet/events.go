package fleet

import (
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/beatfabric/hivebeat"
	"github.com/beatfabric/hivebeat/internal/index"
	"github.com/beatfabric/hivebeat/internal/liveness"
	"github.com/beatfabric/hivebeat/verdict"
)

// Happened is a transition of a worker, or of a hive's GPU, to be published as an event.
type Happened struct {
	Data hivebeat.EventData
	ID   string
	At   time.Time // when it happened, by this queen's clock
}

// transitions publishes the new transitions in the record of w, in order of n. Each is published once per
// (hive incarnation, worker), and missing ones become a gap. inc is the incarnation of the worker before this
// record, or 0.
func (v *View) transitions(h *Hive, w *Worker, inc uint64, received, now time.Time) {
	r := w.rec()
	same := w.hiveInc == h.head().Inc
	if !same {
		// The numbers of a worker start again with each incarnation of its hive, at joined. A queen that
		// did not hear the start cannot distinguish a hole from earlier transitions.
		was := w.earlier
		w.earlier, w.hiveInc, w.seen = life{w.hiveInc, w.seen}, h.head().Inc, 0
		switch {
		case was.inc == h.head().Inc: // an incarnation that came back continues its numbers
			w.seen = min(was.seq, r.N)
		case len(r.Tr) > 0 && (!h.fromStart || r.Tr[0].Kind == hivebeat.KindJoined || cameBack(&r.Tr[0])):
			w.seen = r.Tr[0].N - 1
		case !h.fromStart:
			w.seen = r.N
		}
	}
	for i := range r.Tr {
		t := &r.Tr[i]
		if t.N <= w.seen || t.N > r.N || !hivebeat.ValidID(t.Kind) {
			continue
		}
		v.gap(h, w, t.N-1, now)
		w.seen = t.N
		d := h.eventOf(w, t)
		if t.Kind == hivebeat.KindJoined {
			switch given, ok := h.absent[r.Worker]; {
			case ok && given == t.Inc: // it was reported as lost, because its restarted hive did not know it
				d.Kind, d.From = hivebeat.KindRecovered, string(hivebeat.Lost)
			case inc == t.Inc && !same, h.rosterKnows(r.Worker, t.Inc):
				continue // it joined before its hive restarted
			}
			delete(h.absent, r.Worker)
		}
		at := received.Add(-min(t.Ago, hivebeat.MillisOf(time.Hour)).Duration())
		v.publish(d, at)
	}
	v.gap(h, w, r.N, now)
}

// cameBack reports whether t is the return of a worker that its hive no longer listed, after hivebeat.KeepGone
// as lost. All its earlier transitions were published.
func cameBack(t *hivebeat.Transition) bool {
	return t.Kind == hivebeat.KindRecovered && t.From == string(hivebeat.Lost) && t.Margin >= hivebeat.MillisOf(hivebeat.KeepGone)
}

// gap publishes that the transitions of w up to n are not available.
func (v *View) gap(h *Hive, w *Worker, n uint64, now time.Time) {
	r := w.rec()
	v.missed(&w.seen, n, hivebeat.EventData{Hive: h.id, Worker: r.Worker, Inc: r.Inc, HiveInc: w.hiveInc, Model: r.Model}, now)
}

// missed publishes that the transitions from seen to n are not available, and sets seen to n. d says whose they are.
func (v *View) missed(seen *uint64, n uint64, d hivebeat.EventData, now time.Time) {
	if n <= *seen {
		return
	}
	d.N, d.Missing = n, n-*seen
	*seen = n
	v.publish(GapOf(d), now)
}

// GapOf returns d with the fields of a gap set.
func GapOf(d hivebeat.EventData) hivebeat.EventData {
	d.Kind, d.Via = hivebeat.KindGap, hivebeat.ViaQueen
	d.Reason = fmt.Sprintf("%d transitions up to %d were not received and can no longer be reported", d.Missing, d.N)
	return d
}

// eventOf returns the data of the event for a transition that the hive numbered.
func (h *Hive) eventOf(w *Worker, t *hivebeat.Transition) hivebeat.EventData {
	r := w.rec()
	d := hivebeat.EventData{
		Hive: h.id, Worker: r.Worker, Inc: t.Inc, HiveInc: h.head().Inc, N: t.N,
		Kind: t.Kind, From: t.From, To: t.To, Cause: t.Cause, Via: hivebeat.ViaHive, Model: r.Model,
	}
	if t.Detect > 0 {
		d.DetectMS = new(t.Detect)
	}
	if t.Margin > 0 {
		d.MarginMS = new(t.Margin)
	}
	if t.Kind == hivebeat.KindState {
		d.State = hivebeat.State(t.To)
	}
	if t.Kind == hivebeat.KindConflict { // t.Inc is the refused incarnation
		believed, refused := h.places(r, t.Inc)
		d.Reason = liveness.ConflictReason("worker", h.id+"/"+r.Worker, believed, refused)
		d.Believed, d.Refused = &believed, &refused
	}
	if t.N != r.N || t.Inc != r.Inc {
		return d // the other fields of the record are of a later time
	}
	d.State, d.Seq = r.State, r.Seq
	switch t.Kind {
	case hivebeat.KindLate, hivebeat.KindLost:
		d.AgeMS = r.Age - min(r.Age, t.Ago)
		switch d.Reason = silence("beat", d.AgeMS, r.Every, r.Quiet); t.Cause {
		case hivebeat.CauseExit:
			d.Reason = ended(r, fmt.Sprintf("process %d ended", r.PID))
		case hivebeat.CauseOOM:
			d.Reason = ended(r, fmt.Sprintf("process %d was killed for want of memory", r.PID))
		case hivebeat.CauseSilent:
			d.Reason = "its process runs, " + d.Reason
		case hivebeat.CauseDisconnect:
			d.Reason = "its connection closed and it did not reconnect: " + d.Reason
		}
	case hivebeat.KindStalled:
		if d.Reason = "work advances again"; t.To != "" {
			d.Reason = fmt.Sprintf("%d busy, and done is still %d", r.Busy, r.Done)
			if r.Queue > 0 {
				d.Reason = fmt.Sprintf("%d busy and %d waiting, and done is still %d", r.Busy, r.Queue, r.Done)
			}
		}
	case hivebeat.KindLooping:
		d.Reason = fmt.Sprintf("%d restarts in the last hour", r.Restarts)
		if t.To == "" {
			d.Reason = "none for 10 minutes, " + d.Reason
		}
	default:
		d.Reason = r.Reason
	}
	return d
}

// ended describes the end of a process, with what its last beat adds: how it ended and why.
func ended(r *hivebeat.Record, what string) string {
	if r.Exit == "" {
		return what
	}
	if r.Exit != hivebeat.ExitOOM && r.Exit != hivebeat.ExitEnded {
		what += ": " + r.Exit
	}
	if r.Reason != "" {
		what += ": " + r.Reason
	}
	return what
}

// silence describes a silence in words: "no beat for 90.2s, 3 were due". A verdict with another cause may come
// before a message was due: then silence says when the next one is.
func silence(what string, age, every, quiet hivebeat.Millis) string {
	said := fmt.Sprintf("no %s for %.1fs", what, float64(age)/1000)
	switch due := verdict.Missed(min(age, maxAge).Duration(), every.Duration(), quiet.Duration()); {
	case due > 1:
		return fmt.Sprintf("%s, %d were due", said, due)
	case due == 1:
		return said + ", 1 was due"
	case quiet > every:
		return fmt.Sprintf("%s, it announced silence for %gs", said, float64(quiet)/1000)
	case every > 0:
		return fmt.Sprintf("%s, the next is due within %gs of the last", said, float64(every)/1000)
	}
	return said
}

// maxAge keeps an age from the wire within the range of a time.Duration.
const maxAge = hivebeat.Millis(100 * 365 * 24 * time.Hour / time.Millisecond)

// loseAbsent makes a worker lost that its hive no longer lists. It is a verdict of the queen, because this
// incarnation of the hive does not know the worker, but every queen gives it the same number: 0, which comes
// before all numbers of the hive. Only a hive of another implementation drops a worker that it did list; then
// the number is the next one after the last.
func (v *View) loseAbsent(h *Hive, w *Worker, now time.Time) {
	r := w.rec()
	age := index.EffectiveAge(r.Age, w.entry.Received(), now)
	d := hivebeat.EventData{
		Hive: h.id, Worker: r.Worker, Inc: r.Inc, HiveInc: h.head().Inc, Kind: hivebeat.KindLost,
		From: string(r.Live), To: string(hivebeat.Lost), Cause: hivebeat.CauseMissed, State: r.State, Seq: r.Seq,
		Via: hivebeat.ViaQueen, Model: r.Model, AgeMS: age,
		Reason: fmt.Sprintf("not in a complete snapshot of its hive, last heard %.1fs ago", float64(age)/1000),
	}
	if w.hiveInc != h.head().Inc {
		w.hiveInc, w.seen = h.head().Inc, 0
		if h.absent == nil {
			h.absent = make(map[string]uint64)
		}
		if len(h.absent) < hivebeat.MaxWorkers {
			h.absent[r.Worker] = r.Inc
		}
	} else {
		w.seen++
	}
	d.N = w.seen

	rec := *r
	rec.Live, rec.Cause, rec.N, rec.Tr, rec.Since, rec.Age = hivebeat.Lost, hivebeat.CauseMissed, w.seen, nil, 0, age
	v.index.Set(&w.entry, rec, now, now)
	v.publish(d, now)
}

// publish counts an event that a hive numbered and adds it to Ready.
func (v *View) publish(d hivebeat.EventData, at time.Time) {
	h := v.hives[d.Hive]
	d.Silenced = h.silenced(d.Worker, d.Kind)
	switch {
	case h.uncounted(d.Worker, d.Kind):
	case d.Worker == "": // of a GPU
		v.counts.Hives.add(&d)
	default:
		v.counts.worker(&d)
	}
	v.ready.Events = append(v.ready.Events, HappenedAt(at, d))
}

// HappenedAt returns the event of a worker, or of a hive's GPU if d names no worker, for data d. Its id
// follows from d.
func HappenedAt(at time.Time, d hivebeat.EventData) Happened {
	id := hivebeat.GPUEventID(d.Hive, d.HiveInc, d.N)
	if d.Worker != "" {
		id = hivebeat.WorkerEventID(d.Hive, d.HiveInc, d.Worker, d.Inc, d.Kind, d.N)
	}
	return Happened{Data: d, ID: id, At: at}
}

// rosterKnows reports whether the roster has this incarnation of a worker.
func (h *Hive) rosterKnows(worker string, inc uint64) bool {
	w, ok := h.roster.Item.Workers[worker]
	return ok && w.Inc == inc
}

// Urgent reports whether an event of this kind is published even if it cannot be stored: a verdict that ends an
// incarnation, or revokes such a verdict.
func Urgent(k hivebeat.Kind) bool {
	return k == hivebeat.KindLost || k == hivebeat.KindLeft || k == hivebeat.KindRecovered
}

// Unannounced returns the urgent events of h and its adopted workers that are not in the roster yet, without
// numbers. Unlike Announce, it may be called at any time.
func (h *Hive) Unannounced(now time.Time) (list []hivebeat.EventData) {
	if kind, to, ok := h.Difference(now); ok && Urgent(kind) {
		d, _ := h.Next(kind, to, now)
		d.N = 0
		list = append(list, d)
	}
	if a := h.adoption; a != nil {
		for _, id := range slices.Sorted(maps.Keys(a.differ)) {
			if kind, to, ok := h.differs(id, a.workers[id]); ok && Urgent(kind) {
				list = append(list, h.workerEvent(h.workers[id], kind, to, a.workers[id].why))
			}
		}
	}
	for _, id := range slices.Sorted(maps.Keys(h.roster.Item.Workers)) {
		if h.returned(id) {
			list = append(list, h.workerEvent(h.workers[id], hivebeat.KindRecovered, hivebeat.Alive, listedAgain))
		}
	}
	return list
}

// TakenBack returns the recovery of h, or of one of its workers, after a death that was published and never
// stored. The roster does not ask for this event, because it never had the death. It returns false if the hive or
// worker is not alive in that incarnation, or if the roster has the death.
func (h *Hive) TakenBack(worker string, inc uint64) (hivebeat.EventData, bool) {
	d := hivebeat.EventData{
		Hive: h.id, Worker: worker, Inc: inc, HiveInc: h.line.Inc(), Kind: hivebeat.KindRecovered, From: string(hivebeat.Lost), To: string(hivebeat.Alive),
		Seq: h.line.Seq(), Via: hivebeat.ViaQueen, Reason: "heard again before the death was stored",
	}
	if worker == "" {
		return d, h.Up() && h.line.Inc() == inc && h.roster.Item.Live != hivebeat.Lost
	}
	w := h.workers[worker]
	if w == nil {
		return d, false
	}
	r := w.rec()
	base, _ := h.announced(worker, w.adopted)
	d.Seq, d.State, d.Model = r.Seq, r.State, r.Model
	return d, r.Live == hivebeat.Alive && r.Inc == inc && base.Live != hivebeat.Lost
}
