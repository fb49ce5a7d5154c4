package fleet

import (
	"time"

	"github.com/beatfabric/hivebeat"
	"github.com/beatfabric/hivebeat/internal/index"
	"github.com/beatfabric/hivebeat/internal/liveness"
	"github.com/beatfabric/hivebeat/internal/wire"
)

// A snapshot is applied in one pass. Apply or Adopt calls receive, which decides whether the page is new,
// and takeOver, which copies the page and draws the conclusions: the verdict on the hive, its connection,
// absent workers, the end of an adoption. updateIndex comes last.

// Refusals of snapshots that change nothing.
var (
	refusedPages = &hivebeat.Refusal{Reason: hivebeat.RefusedLimit, Key: "pages", Detail: "not the number of the previous page with this seq"}
	refusedStale = &hivebeat.Refusal{Reason: hivebeat.RefusedStale, Detail: "seq not above the last one, or an older incarnation"}
	refusedOlder = &hivebeat.Refusal{Reason: hivebeat.RefusedOlder, Detail: "a higher incarnation is alive"}
)

// Apply applies one page of a snapshot that was heard now. For an old or invalid page it returns a
// *hivebeat.Refusal, and the page is not applied.
func (v *View) Apply(s *wire.SnapshotView, now time.Time) error {
	h := v.hives[string(s.Hive)]
	if h == nil {
		h = v.get(string(s.Hive))
	}
	if !v.doubt.IsZero() && h.decidedSince(v.doubt, s.Inc, true) {
		v.refused[hivebeat.RefusedStale]++
		return refusedStale
	}
	up := h.Up()
	o, refusal := h.receive(s, v.heardAs(now), now)
	v.besides(h, s, o, up, now)
	if refusal != nil {
		v.refused[refusal.Reason]++
		v.updateIndex(now)
		return refusal
	}
	v.accepted++
	h.heardAt = v.heardAs(now)
	v.takeOver(h, s, o, latest(h.heardAt, h.received), now)
	h.early = h.received.Before(now)
	v.updateIndex(now)
	return nil
}

// Adopt applies one page from the bucket, if it is new. Another queen received it at most age ago. For the
// verdict the hive counts as heard now, because this queen could not hear it before. The ages that are
// shown count from the time of receipt.
func (v *View) Adopt(s *wire.SnapshotView, age time.Duration, now time.Time) {
	h := v.hives[string(s.Hive)]
	if h == nil {
		h = v.get(string(s.Hive))
	}
	if h.decidedSince(now.Add(-age), s.Inc, false) {
		return // the key holds an incarnation that was replaced by a lower one, which cannot overwrite it before it expires
	}
	if o, refusal := h.receive(s, now.Add(-age), now); refusal == nil {
		v.takeOver(h, s, o, now.Add(-age), now)
		h.early = true
		v.updateIndex(now)
	}
}

// receive decides whether a page is new: by the lineage of the hive, or as one more page of the snapshot
// that is being assembled.
func (h *Hive) receive(s *wire.SnapshotView, heard, now time.Time) (liveness.Outcome, *hivebeat.Refusal) {
	if h.assembly.is(s.Inc, s.Seq) && s.Inc == h.line.Inc() {
		switch {
		case s.Pages != h.assembly.pages:
			return liveness.Stale, refusedPages
		case h.assembly.has(s.Page):
			return liveness.Stale, refusedStale
		case h.live == hivebeat.Lost:
			return liveness.Same, nil // it was sent before, and is no sign of life
		}
		return liveness.Next, nil
	}
	if h.live == hivebeat.Alive {
		if refusal := h.line.Implausible(now, s.Inc, s.Seq); refusal != nil {
			return liveness.Stale, refusal
		}
	}
	o := h.advance(message(s, now), hivebeat.Millis(s.Every).Duration()/2, heard)
	switch {
	case o.Accepted(), o == liveness.Same && !h.line.Ended(): // Same: its seq is known from another queen, its content is not
		return o, nil
	case o == liveness.Older:
		return o, refusedOlder
	}
	return o, refusedStale
}

// takeOver copies the page and draws the conclusions.
func (v *View) takeOver(h *Hive, s *wire.SnapshotView, o liveness.Outcome, received, now time.Time) {
	if h.live == hivebeat.Lost && h.head().Inc == s.Inc && !h.early {
		h.skipped = h.skipped || liveness.WasHeld(h.head().Sent, s.Sent, received.Sub(h.received), received.Sub(h.since))
	}
	v.copy(h, s, received, now)
	v.link(h, o)
	if o != liveness.Same || h.live == "" || h.live == hivebeat.Unverified {
		v.heard(h, o, now)
	}
	if len(s.Bye) > 0 {
		v.leave(h, now)
	}
	switch {
	case h.live == hivebeat.Lost: // the page was sent before
		v.adoptAgain(h, now)
	case h.assembly.complete() && s.Warm && v.doubt.IsZero():
		v.giveUpAbsent(h, now)
	}
	v.handBackAll(h, now)
	v.change(h)
}

// copy copies the page into the view and the index.
func (v *View) copy(h *Hive, s *wire.SnapshotView, received, now time.Time) {
	if h.head().Inc != s.Inc { // all its numbers start again
		h.fromStart = s.Seq == 1
		h.firstPage, h.firstFrom = now, received
		clear(h.absent)
	}
	if a := &h.assembly; !a.is(s.Inc, s.Seq) {
		if a.pages > 0 && !a.complete() {
			v.incomplete++
		}
		a.begin(s.Inc, s.Seq, s.Pages)
	}
	h.assembly.add(s.Page)
	v.index.ApplyHead(h.entry, s)
	h.zone = h.head().Labels["zone"]
	h.received, h.every = received, h.head().Every.Duration()
	for i := range s.Workers {
		v.record(h, &s.Workers[i], received, now)
	}
	v.gpuTransitions(h, received, now)
}

// record applies the record of one worker, and publishes its transitions.
func (v *View) record(h *Hive, r *wire.RecordView, received, now time.Time) {
	w, known := h.workers[string(r.Worker)]
	if !known {
		if r.Same || len(h.workers) >= hivebeat.MaxWorkers {
			v.refused[hivebeat.RefusedFull]++
			return
		}
		w = v.add(h, string(r.Worker))
	}
	rec := w.rec()
	before := life{rec.Inc, rec.Seq}
	if w.adopted != nil {
		v.handBack(h, w, now)
	}
	v.index.Apply(&w.entry, r, received, now)
	if before.inc != 0 && before.inc != rec.Inc {
		prior := before // before itself stays on the stack
		w.prior = &prior
	}
	if w.gen != h.assembly.gen {
		w.gen = h.assembly.gen
		h.assembly.listed++
	}
	if w.lost != nil {
		v.disproved(h, w)
	}
	if w.seen != rec.N || w.hiveInc != h.head().Inc {
		v.transitions(h, w, before.inc, received, now)
	}
}

// assembly tracks the pages of one (inc, seq). The records in them are applied as they arrive, but only a
// complete snapshot proves which workers are absent.
type assembly struct {
	inc, seq uint64
	pages    uint64
	got      [(hivebeat.MaxPages + 63) / 64]uint64
	n        uint64
	gen      uint64
	listed   int // workers
}

func (a *assembly) is(inc, seq uint64) bool { return a.inc == inc && a.seq == seq }

func (a *assembly) has(page uint64) bool { return a.got[page/64]&(1<<(page%64)) != 0 }

func (a *assembly) complete() bool { return a.pages > 0 && a.n == a.pages }

func (a *assembly) begin(inc, seq, pages uint64) {
	*a = assembly{inc: inc, seq: seq, pages: pages, gen: a.gen + 1}
}

func (a *assembly) add(page uint64) {
	a.got[page/64] |= 1 << (page % 64)
	a.n++
}

// giveUpAbsent acts on a complete, warm snapshot. A worker that is not in it is lost. A worker that was lost
// or left before is removed once its hive would have stopped listing it.
func (v *View) giveUpAbsent(h *Hive, now time.Time) {
	if h.assembly.listed == len(h.workers) {
		return
	}
	var absent []*Worker
	for w := range h.inOrder() { // the events are published in this order
		if w.gen != h.assembly.gen {
			absent = append(absent, w)
		}
	}
	for _, w := range absent {
		switch {
		case isGone(w.rec().Live):
			if w.goneFor(now) >= hivebeat.MillisOf(hivebeat.KeepGone) {
				v.remove(h, w)
			}
		case w.adopted != nil && w.adopted.answered && now.Sub(w.heard()) < w.patience():
			// This queen hears it, and judges it until the hive lists it: the hive may still wait for
			// another incarnation of it.
		case w.hiveInc != h.head().Inc && now.Sub(h.firstPage) < w.patience():
			// A hive that restarted is warm before it could miss a worker with a long promise
			// or an announced silence. One lost answer to its roll call must not make the
			// worker lost.
		default:
			v.loseAbsent(h, w, now)
		}
	}
}

// goneFor returns how long ago w became lost or left.
func (w *Worker) goneFor(now time.Time) hivebeat.Millis {
	return index.EffectiveAge(w.rec().Since, w.entry.Received(), now)
}

// memoBytes bounds the bytes that all memos keep: the last snapshot of each hive.
const memoBytes = 256 << 20

// memo is the last snapshot of a hive. Rows of the next one that have the same bytes need no parsing. It is
// valid while the records of the hive are those of that snapshot.
type memo struct {
	wire.SnapshotMemo
	gen  uint64 // of the assembly that applied the snapshot; 0: there is no memo
	size int
}

// Parse parses a message, with the memo of its hive if that is valid. The result is valid until the next
// Parse.
func (v *View) Parse(b []byte) (*wire.SnapshotView, error) {
	s := &v.page
	if h, ok := v.hives[string(wire.PeekHive(b))]; ok && h.memo.gen != 0 && h.memo.gen == h.assembly.gen {
		if err := h.memo.Parse(b, s); err != nil {
			return nil, err
		}
		if string(s.Hive) == h.id {
			return s, nil
		}
	}
	if err := wire.ParseSnapshot(b, s); err != nil {
		return nil, err
	}
	return s, nil
}

// Keep remembers a message that was parsed into s and applied. It keeps b.
func (v *View) Keep(b []byte, s *wire.SnapshotView) {
	h := v.hives[string(s.Hive)]
	if h == nil {
		return
	}
	v.memos -= h.memo.size
	if s.Pages > 1 || v.memos+len(b) > memoBytes {
		h.memo = memo{}
		return
	}
	v.memos += len(b)
	h.memo.Keep(b, s)
	h.memo.gen, h.memo.size = h.assembly.gen, len(b)
}
