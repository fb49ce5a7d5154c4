package queencore

import (
	"time"
	"unique"
	"unsafe"

	"github.com/beatfabric/hivebeat"
	"github.com/beatfabric/hivebeat/internal/fleet"
)

const (
	// OutboxMax is the number of waiting events that an Outbox always has space for.
	OutboxMax = 10_000
	// OutboxEach is the number of waiting events per worker of the fleet that an Outbox has
	// space for: a worker that joins, loads and is ready makes three.
	OutboxEach = 3
	// OutboxBytes bounds the memory of waiting events, however large the fleet is.
	OutboxBytes = 64 << 20
	// OutboxBatch is the largest number of events that Take returns.
	OutboxBatch = 512
	// outboxPause is how long events wait after a failure to publish one.
	outboxPause = time.Second
)

// Outbox holds the events that hives numbered, of workers and GPUs, until they are published,
// in order for one worker and for the GPUs of one hive, and in parallel otherwise. If too many
// wait, it keeps the newest and turns the others into gaps. It is pure, and not safe for
// concurrent use.
type Outbox struct {
	room      int // 0 is OutboxMax
	queue     []*held
	bytes     int
	from      time.Time                      // the zero of held.at
	gaps      map[gapKey]*hivebeat.EventData // published before the queue: they are older
	busy      bool                           // a batch is under way
	notNow    time.Time                      // earliest next batch, after a failure
	published uint64
	dropped   uint64
}

type gapKey struct {
	hive, worker string
	hiveInc      uint64
}

// held is a waiting fleet.Happened in less memory, because hundreds of thousands may wait.
// Its id follows from the other fields, and words that many events share are stored once.
type held struct {
	at                            time.Duration
	hive, worker, model, reason   string
	inc, hiveInc, n, seq, missing uint64
	age                           hivebeat.Millis
	detect, margin                *hivebeat.Millis
	believed, refused             *hivebeat.Place
	more                          *heldMore
	kind, from, to                unique.Handle[string]
	cause, state, via             unique.Handle[string]
}

// heldMore is the part of an event that only those about a GPU, and silenced ones, have.
type heldMore struct {
	uuid, action, owner, asker string
	index                      *uint64
	silenced                   bool
}

func (o *Outbox) hold(h *fleet.Happened) *held {
	if o.from.IsZero() {
		o.from = h.At
	}
	d := &h.Data
	w := &held{
		at: h.At.Sub(o.from), hive: d.Hive, worker: d.Worker, model: d.Model, reason: d.Reason,
		inc: d.Inc, hiveInc: d.HiveInc, n: d.N, seq: d.Seq, missing: d.Missing, age: d.AgeMS, detect: d.DetectMS, margin: d.MarginMS,
		believed: d.Believed, refused: d.Refused,
		kind: unique.Make(string(d.Kind)), from: unique.Make(d.From), to: unique.Make(d.To),
		cause: unique.Make(string(d.Cause)), state: unique.Make(string(d.State)), via: unique.Make(d.Via),
	}
	if d.GPU != "" || d.Silenced {
		w.more = &heldMore{uuid: d.GPU, action: d.Action, owner: d.Owner, asker: d.Asker, index: d.GPUIndex, silenced: d.Silenced}
	}
	return w
}

func (o *Outbox) happened(w *held) fleet.Happened {
	d := hivebeat.EventData{
		Hive: w.hive, Worker: w.worker, Model: w.model, Reason: w.reason,
		Inc: w.inc, HiveInc: w.hiveInc, N: w.n, Seq: w.seq, Missing: w.missing, AgeMS: w.age, DetectMS: w.detect, MarginMS: w.margin,
		Believed: w.believed, Refused: w.refused,
		Kind: hivebeat.Kind(w.kind.Value()), From: w.from.Value(), To: w.to.Value(),
		Cause: hivebeat.Cause(w.cause.Value()), State: hivebeat.State(w.state.Value()), Via: w.via.Value(),
	}
	if m := w.more; m != nil {
		d.GPU, d.Action, d.Owner, d.Asker, d.GPUIndex, d.Silenced = m.uuid, m.action, m.owner, m.asker, m.index, m.silenced
	}
	return fleet.HappenedAt(o.from.Add(w.at), d)
}

// size returns the memory of w in bytes, with its place in the queue. It does not count the
// ids and the model, which w shares with the worker's record.
func (w *held) size() int {
	n := int(unsafe.Sizeof(*w)+unsafe.Sizeof(w)) + len(w.reason)
	if w.detect != nil {
		n += 8
	}
	if w.margin != nil {
		n += 8
	}
	for _, p := range []*hivebeat.Place{w.believed, w.refused} {
		if p != nil {
			n += int(unsafe.Sizeof(*p)) + len(p.Host) + len(p.Conn) + len(p.Addr)
		}
	}
	if m := w.more; m != nil {
		n += int(unsafe.Sizeof(*m)) + len(m.uuid) + len(m.action) + len(m.owner) + len(m.asker) + 8
	}
	return n
}

// Room makes space for the events of this many workers. It gives none up while events wait:
// some of them are about workers that are gone.
func (o *Outbox) Room(workers int) {
	room := max(OutboxMax, OutboxEach*workers)
	if room > o.room || len(o.queue) == 0 {
		o.room = room
	}
}

// Push adds events, and drops the oldest if there are too many.
func (o *Outbox) Push(list []fleet.Happened) {
	for i := range list {
		w := o.hold(&list[i])
		o.queue = append(o.queue, w)
		o.bytes += w.size()
	}
	n, bytes := 0, o.bytes
	for len(o.queue)-n > max(o.room, OutboxMax) || bytes > OutboxBytes {
		bytes -= o.queue[n].size()
		o.drop(o.queue[n])
		n++
	}
	o.shift(n)
}

// shift removes the first n events from the queue. It does not move the others: append does
// that when the space is used up, once in some thousand events.
func (o *Outbox) shift(n int) {
	for _, w := range o.queue[:n] {
		o.bytes -= w.size()
	}
	clear(o.queue[:n]) // release their memory now
	if o.queue = o.queue[n:]; len(o.queue) == 0 {
		o.queue, o.from = nil, time.Time{}
	}
}

// drop turns an event into part of a gap.
func (o *Outbox) drop(w *held) {
	o.dropped++
	key := gapKey{w.hive, w.worker, w.hiveInc}
	missing := max(1, w.missing)
	g := o.gaps[key]
	if g == nil {
		if len(o.gaps) >= OutboxMax {
			return // counted, and the worker's next event shows the hole in n
		}
		if o.gaps == nil {
			o.gaps = make(map[gapKey]*hivebeat.EventData)
		}
		g = &hivebeat.EventData{Hive: w.hive, Worker: w.worker, HiveInc: w.hiveInc}
		o.gaps[key] = g
	}
	g.Inc, g.N, g.Model = w.inc, max(g.N, w.n), w.model
	g.Missing += missing
}

// Take returns the next events to be published: at most one of each worker, so that none
// overtakes the one before it. Done must follow before there are more.
func (o *Outbox) Take(now time.Time) []fleet.Happened {
	if o.busy || now.Before(o.notNow) {
		return nil
	}
	old := 0
	for old < len(o.queue) && now.Sub(o.from.Add(o.queue[old].at)) > fleet.TooOld {
		o.drop(o.queue[old])
		old++
	}
	o.shift(old)
	var batch []fleet.Happened
	taken := make(map[[2]string]bool)
	first := func(hive, worker string) bool {
		key := [2]string{hive, worker}
		if taken[key] || len(batch) == OutboxBatch {
			return false
		}
		taken[key] = true
		return true
	}
	for key, g := range o.gaps {
		if first(key.hive, key.worker) {
			delete(o.gaps, key)
			batch = append(batch, fleet.HappenedAt(now, fleet.GapOf(*g)))
		}
	}
	front := o.queue[:min(OutboxBatch, len(o.queue))]
	var later []*held
	n := 0
	for _, w := range front {
		if first(w.hive, w.worker) {
			batch = append(batch, o.happened(w))
			front[n] = w
			n++
		} else {
			later = append(later, w)
		}
	}
	copy(front[n:], later)
	o.shift(n)
	o.busy = len(batch) > 0
	return batch
}

// Next returns when there is work even without any input; zero if there is none.
func (o *Outbox) Next(now time.Time) time.Time {
	if o.busy || !o.notNow.After(now) {
		return time.Time{}
	}
	return o.notNow
}

// Done says how many of a batch were published, and returns what could not be to the front.
func (o *Outbox) Done(now time.Time, published int, failed []fleet.Happened) {
	o.published += uint64(published)
	if len(failed) > 0 {
		front := make([]*held, len(failed), len(failed)+len(o.queue))
		for i := range failed {
			front[i] = o.hold(&failed[i])
			o.bytes += front[i].size()
		}
		o.queue = append(front, o.queue...)
		o.notNow = now.Add(outboxPause)
	}
	o.busy = false
}

// Idle reports whether nothing waits and nothing is under way.
func (o *Outbox) Idle() bool { return !o.busy && len(o.queue) == 0 && len(o.gaps) == 0 }

// Counts returns how many events wait, and how many were published and dropped.
func (o *Outbox) Counts() (waiting int, published, dropped uint64) {
	return len(o.queue), o.published, o.dropped
}
