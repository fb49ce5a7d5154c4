package fleet

import (
	"slices"
	"sort"
)

// Every hive and worker has the revision of its last material change. The log has
// them in the order of their revisions, so that whoever knows the fleet as of one
// revision gets what changed since by walking on from there: nothing is queued for
// him, and however slow he is, he gets each of them once. An entry that a later
// change made void stays until its chunk is mostly such.

// chunkSize is how many entries one chunk of the log has.
const chunkSize = 512

// maxGone is how many are remembered that are known no more.
const maxGone = 1 << 16

// trace is where a hive or worker stands in the log.
type trace struct {
	rev uint64 // 0: nowhere
	key uint64 // the last change of what it is, as opposed to numbers
	in  *chunk
}

// change is an entry of the log: of a worker, or of its hive.
type change struct {
	rev    uint64
	hive   *Hive
	worker *Worker
}

func (c *change) trace() *trace {
	if c.worker != nil {
		return &c.worker.shown.trace
	}
	return &c.hive.trace
}

// valid reports whether that is the last change of what it is about.
func (c *change) valid() bool { return c.trace().rev == c.rev }

// chunk is a part of the log.
type chunk struct {
	entries []change
	last    uint64 // revision of the last entry it ever had
	valid   int
}

// Gone is who is known no more: a hive, or a worker.
type Gone struct {
	Rev          uint64
	Hive, Worker string
}

// log has all changes, in order.
type log struct {
	rev    uint64
	floor  uint64 // what changed up to here is not told one by one
	chunks []*chunk
	gone   []Gone // oldest first, as a ring would have it
	lost   uint64 // revision of the last one of them that was forgotten
}

// Begin sets the revision that the log begins with. It is to be higher than any
// that this queen had in an earlier life, so that a cursor of that is not taken for
// one of this.
func (v *View) Begin(rev uint64) { v.log.rev, v.log.floor, v.log.lost = rev, rev, rev }

// Rev is the revision of the last change.
func (v *View) Rev() uint64 { return v.log.rev }

// Bump returns a revision for something else that happened, in the same order.
func (v *View) Bump() uint64 {
	v.log.rev++
	return v.log.rev
}

// Since reports whether all that changed since rev can still be told.
func (v *View) Since(rev uint64) bool {
	return rev >= v.log.floor && rev >= v.log.lost && rev <= v.log.rev
}

// Floor is the revision that the log begins with: everything is newer.
func (v *View) Floor() uint64 { return v.log.floor }

func (v *View) touchWorker(w *Worker, key bool) {
	v.log.touch(change{hive: w.hive, worker: w})
	if key {
		w.shown.key = w.shown.rev
	}
}

func (v *View) touchHive(h *Hive, key bool) {
	v.log.touch(change{hive: h})
	if key {
		h.key = h.rev
	}
}

func (l *log) touch(c change) {
	t := c.trace()
	l.rev++
	if t.in != nil && t.in == l.tail() && t.in.entries[len(t.in.entries)-1].rev == t.rev { // it is the last already
		t.in.entries[len(t.in.entries)-1].rev = l.rev
		t.rev, t.in.last = l.rev, l.rev
		return
	}
	l.drop(t)
	tail := l.tail()
	var full *chunk
	if tail == nil || len(tail.entries) == cap(tail.entries) {
		full = tail
		tail = &chunk{entries: make([]change, 0, chunkSize)}
		l.chunks = append(l.chunks, tail)
	}
	c.rev = l.rev
	tail.entries = append(tail.entries, c)
	tail.last = l.rev
	tail.valid++
	t.rev, t.in = l.rev, tail
	if full != nil {
		l.shrink(full)
	}
}

func (l *log) tail() *chunk {
	if len(l.chunks) == 0 {
		return nil
	}
	return l.chunks[len(l.chunks)-1]
}

// drop makes the entry of t void.
func (l *log) drop(t *trace) {
	c := t.in
	if c == nil {
		return
	}
	t.rev, t.in = 0, nil
	c.valid--
	if c != l.tail() {
		l.shrink(c)
	}
}

// shrink removes a chunk of which little is left.
func (l *log) shrink(c *chunk) {
	if c.valid > chunkSize/4 {
		return
	}
	at := sort.Search(len(l.chunks), func(i int) bool { return l.chunks[i].last >= c.last })
	if c.valid == 0 {
		l.chunks = slices.Delete(l.chunks, at, at+1)
		return
	}
	if at == 0 {
		return
	}
	// Those that are left move to the end of the chunk before, if they fit. The
	// order of revisions stays.
	into := l.chunks[at-1]
	if into.valid+c.valid > chunkSize {
		return
	}
	into.entries = slices.DeleteFunc(into.entries, func(e change) bool { return !e.valid() })
	for _, e := range c.entries {
		if e.valid() {
			into.entries = append(into.entries, e)
			e.trace().in = into
		}
	}
	into.valid, into.last = len(into.entries), c.last
	l.chunks = slices.Delete(l.chunks, at, at+1)
}

func (l *log) bury(hive, worker string) {
	l.rev++
	if len(l.gone) >= maxGone {
		n := maxGone / 8
		l.lost = l.gone[n-1].Rev
		l.gone = slices.Delete(l.gone, 0, n)
	}
	l.gone = append(l.gone, Gone{l.rev, hive, worker})
}

// Changed yields, oldest first, each hive (with a nil worker) and each worker whose
// last change is later than rev, with the revision of that, and of the last change
// of what it is, as opposed to its numbers.
func (v *View) Changed(rev uint64, yield func(h *Hive, w *Worker, rev, key uint64) bool) {
	chunks := v.log.chunks
	from := sort.Search(len(chunks), func(i int) bool { return chunks[i].last > rev })
	for _, c := range chunks[from:] {
		at := sort.Search(len(c.entries), func(i int) bool { return c.entries[i].rev > rev })
		for i := at; i < len(c.entries); i++ {
			e := &c.entries[i]
			if t := e.trace(); t.rev == e.rev && !yield(e.hive, e.worker, e.rev, t.key) {
				return
			}
		}
	}
}

// GoneSince returns who was dropped later than rev, oldest first. The slice is not
// to be kept.
func (v *View) GoneSince(rev uint64) []Gone {
	g := v.log.gone
	return g[sort.Search(len(g), func(i int) bool { return g[i].Rev > rev }):]
}

// Trace returns the revision of the last change of w, and of what it is.
func (w *Worker) Trace() (rev, key uint64) { return w.shown.rev, w.shown.key }

// Trace returns the revision of the last change of h, and of what it is.
func (h *Hive) Trace() (rev, key uint64) { return h.rev, h.key }
