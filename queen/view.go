package queen

import (
	"slices"
	"strings"
	"time"

	"github.com/beatfabric/hivebeat"
	"github.com/beatfabric/hivebeat/internal/ledger"
	"github.com/beatfabric/hivebeat/internal/liveness"
	"github.com/beatfabric/hivebeat/internal/wire"
)

// view is the fleet as one queen knows it. It is pure: time comes in as an
// argument, what follows from an input is left in its out fields for the loop to
// take, and it has no lock and no goroutine. One goroutine owns it.
//
//	snapshots ──apply──▶ view ──▶ events   worker transitions, to be published
//	bucket ────apply──▶      ──▶ checks   hives whose key must be read before a verdict
//	roster ────learn──▶      ──▶ dirty    hives to be compared with the roster
//	time ──────tick───▶      ──▶ steps    hive transitions, for the log
type view struct {
	fresh time.Duration // age up to which a record may be shown as alive
	hives map[string]*hive
	order []*hive // by id
	due   liveness.Deadlines[*hive]
	blind time.Duration // time this queen could not hear anybody, in all
	gen   uint64        // of checks
	page  wire.SnapshotView
	memos int // bytes that the memos hold on to

	events []happened
	checks []check
	dirty  []*hive
	steps  []step

	accepted   uint64
	refused    map[hivebeat.Reason]uint64
	incomplete uint64 // snapshots that a newer one replaced before all their pages came
}

// hive is what is known of one hive.
type hive struct {
	id   string
	line liveness.Lineage
	verdict

	head     hivebeat.Snapshot // the newest page but its workers; Inc is 0 where none was ever taken over
	received time.Time         // when that was received, or the earliest time it may have been
	every    time.Duration
	left     string // its goodbye

	heardAt time.Time // when a message of it came last
	asm     assembly
	workers map[string]*worker
	sorted  []*worker   // by id; nil when it must be made again
	mixes   map[mix]int // workers by what their records say
	memo    memo
	book    book // what the roster says of it
	isDirty bool
	absent  map[string]uint64 // workers given up as this incarnation did not list them, and their incarnations
	numbers bool              // the numbering of this incarnation was heard from its start
}

// worker is one worker's record and where it comes from.
type worker struct {
	rec      hivebeat.Record
	received time.Time // of the page that holds it
	gen      uint64    // of the assembly that listed it last
	hiveInc  uint64    // whose numbers seen is about
	seen     uint64    // n of the last transition that was taken
	via      string
}

// mix is what a worker is counted by.
type mix struct {
	live  hivebeat.Live
	state hivebeat.State
}

func newView(fresh time.Duration) *view {
	return &view{fresh: fresh, hives: make(map[string]*hive), refused: make(map[hivebeat.Reason]uint64)}
}

// get returns the hive with this id and makes it where it is not known.
func (v *view) get(id string) *hive {
	if h, ok := v.hives[id]; ok {
		return h
	}
	h := &hive{id: id, workers: make(map[string]*worker), mixes: make(map[mix]int)}
	v.hives[id] = h
	at, _ := v.find(id)
	v.order = slices.Insert(v.order, at, h)
	return h
}

// unverified counts the hives that are known from memory alone.
func (v *view) unverified() (n int) {
	for _, h := range v.order {
		if h.live == hivebeat.Unverified {
			n++
		}
	}
	return n
}

// find returns where in the order id is, or would be.
func (v *view) find(id string) (int, bool) {
	return slices.BinarySearchFunc(v.order, id, func(h *hive, id string) int { return strings.Compare(h.id, id) })
}

// forget drops all that is known of h.
func (v *view) forget(h *hive) {
	delete(v.hives, h.id)
	v.memos -= h.memo.size
	v.due.Remove(h)
	if at, ok := v.find(h.id); ok {
		v.order = slices.Delete(v.order, at, at+1)
	}
}

// apply takes over one page of a snapshot that was heard now. It returns a
// *hivebeat.Refusal where the message is no news; then nothing has changed.
func (v *view) apply(s *wire.SnapshotView, now time.Time) error {
	h := v.hives[string(s.Hive)]
	if h == nil {
		h = v.get(string(s.Hive))
	}
	o, refusal := h.hear(s, now)
	if refusal != nil {
		v.refused[refusal.Reason]++
		v.refusedOf(h, s, o, now)
		return refusal
	}
	v.accepted++
	h.heardAt = now
	v.takeOver(h, s, o, now, now)
	return nil
}

// adopt takes over one page that was kept in the bucket, where it is news. It
// was received by another queen age ago, at most. For the verdict the hive counts
// as heard now, as there was nobody here to hear it before; the ages that are
// shown count from when it was received.
func (v *view) adopt(s *wire.SnapshotView, age time.Duration, now time.Time) {
	h := v.hives[string(s.Hive)]
	if h == nil {
		h = v.get(string(s.Hive))
	}
	if o, refusal := h.hear(s, now); refusal == nil {
		v.takeOver(h, s, o, now.Add(-age), now)
	}
}

// Refusals of snapshots that are no news.
var (
	refusedPages = &hivebeat.Refusal{Reason: hivebeat.RefusedLimit, Key: "pages", Detail: "another number than in the page before of this seq"}
	refusedStale = &hivebeat.Refusal{Reason: hivebeat.RefusedStale, Detail: "seq not above the last, or an incarnation that is over"}
	refusedOlder = &hivebeat.Refusal{Reason: hivebeat.RefusedOlder, Detail: "a higher incarnation is alive"}
)

// hear judges whether the page is news: by the hive's lineage, or as one more
// page of what is being put together.
func (h *hive) hear(s *wire.SnapshotView, now time.Time) (liveness.Outcome, *hivebeat.Refusal) {
	if h.asm.is(s.Inc, s.Seq) && s.Inc == h.line.Inc() {
		switch {
		case s.Pages != h.asm.pages:
			return liveness.Stale, refusedPages
		case h.asm.has(s.Page):
			return liveness.Stale, refusedStale
		}
		return liveness.Next, nil
	}
	o := h.hearLine(s.Inc, s.Seq, now)
	switch {
	case o.Accepted(), o == liveness.Same && !h.line.Ended(): // Same: its number is known from elsewhere, its content is not
		return o, nil
	case o == liveness.Older:
		return o, refusedOlder
	}
	return o, refusedStale
}

// takeOver copies the page and draws the conclusions.
func (v *view) takeOver(h *hive, s *wire.SnapshotView, o liveness.Outcome, received, now time.Time) {
	v.copy(h, s, received, now)
	if o != liveness.Same || h.live == "" || h.live == hivebeat.Unverified {
		v.heard(h, o, now)
	}
	if len(s.Bye) > 0 {
		v.leave(h, now)
	}
	if h.asm.complete() && s.Warm {
		v.absent(h, now)
	}
}

// copy takes over what the page says.
func (v *view) copy(h *hive, s *wire.SnapshotView, received, now time.Time) {
	if h.head.Inc != s.Inc { // all that it numbers begins anew
		h.numbers = s.Seq == 1
		clear(h.absent)
	}
	if !h.asm.is(s.Inc, s.Seq) {
		if h.asm.pages > 0 && !h.asm.complete() {
			v.incomplete++
		}
		h.asm.begin(s.Inc, s.Seq, s.Pages, received)
	}
	h.asm.add(s.Page)
	s.UpdateHead(&h.head)
	h.received, h.every = received, h.head.Every.Duration()
	for i := range s.Workers {
		v.record(h, &s.Workers[i], received, now)
	}
}

// record takes over one worker's record and its transitions.
func (v *view) record(h *hive, r *wire.RecordView, received, now time.Time) {
	w, known := h.workers[string(r.Worker)]
	if !known {
		if r.Same || len(h.workers) >= hivebeat.MaxWorkers {
			v.refused[hivebeat.RefusedFull]++
			return
		}
		w = &worker{}
		h.workers[string(r.Worker)] = w
		h.sorted = nil
	}
	before, was := w.rec.Inc, w.mix()
	if w.via == "" {
		was = mix{}
	}
	r.Update(&w.rec)
	w.received, w.via = received, hivebeat.ViaHive
	if w.gen != h.asm.gen {
		w.gen = h.asm.gen
		h.asm.listed++
	}
	if w.rec.Live == hivebeat.Alive {
		h.asm.oldest = max(h.asm.oldest, w.rec.Age)
	}
	h.count(was, w.mix())
	if w.seen != w.rec.N || w.hiveInc != h.head.Inc {
		v.transitions(h, w, before, received, now)
	}
}

func (w *worker) mix() mix { return mix{w.rec.Live, w.rec.State} }

// count moves one worker from one mix to another; the zero mix is nowhere.
func (h *hive) count(from, to mix) {
	if from == to {
		return
	}
	if from != (mix{}) {
		if h.mixes[from]--; h.mixes[from] <= 0 {
			delete(h.mixes, from)
		}
	}
	if to != (mix{}) {
		h.mixes[to]++
	}
}

// remove drops a worker for good.
func (h *hive) remove(w *worker) {
	h.count(w.mix(), mix{})
	delete(h.workers, w.rec.Worker)
	h.sorted = nil
}

// absent draws the conclusion from a complete, warm snapshot: who is not in it
// is gone for good if he was given up before, and lost otherwise.
func (v *view) absent(h *hive, now time.Time) {
	if h.asm.listed == len(h.workers) {
		return
	}
	for _, w := range h.byID() { // in order, so that the events are
		if w.gen == h.asm.gen {
			continue
		}
		if w.rec.Live == hivebeat.Lost || w.rec.Live == hivebeat.Left {
			h.remove(w)
			continue
		}
		v.loseAbsent(h, w, now)
	}
}

// byID returns the workers in the order of their ids. The slice is not to be kept.
func (h *hive) byID() []*worker {
	if h.sorted == nil {
		h.sorted = make([]*worker, 0, len(h.workers))
		for _, w := range h.workers {
			h.sorted = append(h.sorted, w)
		}
		slices.SortFunc(h.sorted, func(a, b *worker) int { return strings.Compare(a.rec.Worker, b.rec.Worker) })
	}
	return h.sorted
}

// assembly puts the pages of one (inc, seq) together. Their records are taken
// over as they arrive; what only all of them prove is who is absent.
type assembly struct {
	inc, seq uint64
	pages    uint64
	got      [(hivebeat.MaxPages + 63) / 64]uint64
	n        uint64
	gen      uint64
	listed   int // workers

	began  time.Time       // when the first page was received
	oldest hivebeat.Millis // greatest age of a record that says alive
}

func (a *assembly) is(inc, seq uint64) bool { return a.inc == inc && a.seq == seq }
func (a *assembly) has(page uint64) bool    { return a.got[page/64]&(1<<(page%64)) != 0 }
func (a *assembly) complete() bool          { return a.pages > 0 && a.n == a.pages }

func (a *assembly) begin(inc, seq, pages uint64, received time.Time) {
	*a = assembly{inc: inc, seq: seq, pages: pages, gen: a.gen + 1, began: received}
}

func (a *assembly) add(page uint64) {
	a.got[page/64] |= 1 << (page % 64)
	a.n++
}

// book is what the roster says of a hive, as far as this queen knows.
type book struct {
	item      ledger.RosterItem // N is 0 where it never had one, Revision where there is none now
	readAt    time.Time
	confirmed uint64 // n of the last event that is known to be stored
	conflict  uint64 // the incarnation whose conflict was told last
	busy      bool   // an announcement is under way
	again     bool   // and what it was about has changed since
}
