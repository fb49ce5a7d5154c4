package index

import (
	"slices"
	"sort"
)

// Every hive and worker has the revision of its last change. The change log lists them in order of
// their revisions, so a watcher reads all later changes by starting at its own revision. Nothing is
// queued per watcher; a slow watcher still sees each change once. An entry that a later change made
// void stays until most of its chunk is void.

// chunkSize is the number of entries in one chunk of the log.
const chunkSize = 512

// maxTombstones bounds the tombstones.
const maxTombstones = 1 << 16

// revision is the position of a hive or worker in the log.
type revision struct {
	rev uint64 // 0: not in the log
	key uint64 // revision of the last change that was more than numbers
	in  *chunk
}

// entry is the last change of a worker, or of a hive where worker is nil.
type entry struct {
	rev    uint64
	hive   *Hive
	worker *Worker
}

func (c *entry) of() *revision {
	if c.worker != nil {
		return &c.worker.shown.revision
	}
	return &c.hive.revision
}

// valid reports whether no later change made the entry void.
func (c *entry) valid() bool { return c.of().rev == c.rev }

// chunk is a part of the log.
type chunk struct {
	entries []entry
	last    uint64 // highest revision that was ever in the chunk
	valid   int
}

// Tombstone records that a hive or a worker was removed. Worker is empty for a hive.
type Tombstone struct {
	Rev          uint64
	Hive, Worker string
}

// changeLog lists hives and workers in order of their last change.
type changeLog struct {
	rev    uint64
	floor  uint64 // changes up to here are not in the log
	chunks []*chunk
	gone   []Tombstone // oldest first
	lost   uint64      // revision of the newest tombstone that was discarded
}

// Begin sets the first revision of the log. It must be higher than any revision of this queen before
// its restart, so that old cursors are recognised.
func (x *Index) Begin(rev uint64) { x.log.rev, x.log.floor, x.log.lost = rev, rev, rev }

// Rev returns the revision of the last change.
func (x *Index) Rev() uint64 { return x.log.rev }

// Bump returns the next revision, for a change outside the index.
func (x *Index) Bump() uint64 {
	x.log.rev++
	return x.log.rev
}

// Since reports whether the log still has every change after rev.
func (x *Index) Since(rev uint64) bool {
	return rev >= x.log.floor && rev >= x.log.lost && rev <= x.log.rev
}

// Floor returns the revision that the log started with. Every change is newer.
func (x *Index) Floor() uint64 { return x.log.floor }

func (x *Index) touchWorker(w *Worker, key bool) {
	x.log.touch(entry{hive: w.hive, worker: w})
	if key {
		w.shown.key = w.shown.rev
	}
}

func (x *Index) touchHive(h *Hive, key bool) {
	x.log.touch(entry{hive: h})
	if key {
		h.key = h.rev
	}
}

func (l *changeLog) touch(c entry) {
	t := c.of()
	l.rev++
	if t.in != nil && t.in == l.tail() && t.in.entries[len(t.in.entries)-1].rev == t.rev { // it is the last entry already
		t.in.entries[len(t.in.entries)-1].rev = l.rev
		t.rev, t.in.last = l.rev, l.rev
		return
	}
	l.drop(t)
	tail := l.tail()
	var full *chunk
	if tail == nil || len(tail.entries) == cap(tail.entries) {
		full = tail
		tail = &chunk{entries: make([]entry, 0, chunkSize)}
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

func (l *changeLog) tail() *chunk {
	if len(l.chunks) == 0 {
		return nil
	}
	return l.chunks[len(l.chunks)-1]
}

// drop makes the entry of t void.
func (l *changeLog) drop(t *revision) {
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

// shrink removes a chunk if few of its entries are valid.
func (l *changeLog) shrink(c *chunk) {
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
	// The valid entries move to the end of the chunk before, if they fit. The order of revisions
	// stays.
	into := l.chunks[at-1]
	if into.valid+c.valid > chunkSize {
		return
	}
	into.entries = slices.DeleteFunc(into.entries, func(e entry) bool { return !e.valid() })
	for _, e := range c.entries {
		if e.valid() {
			into.entries = append(into.entries, e)
			e.of().in = into
		}
	}
	into.valid, into.last = len(into.entries), c.last
	l.chunks = slices.Delete(l.chunks, at, at+1)
}

// addTombstone adds a tombstone.
func (l *changeLog) addTombstone(hive, worker string) {
	l.rev++
	if len(l.gone) >= maxTombstones {
		n := maxTombstones / 8
		l.lost = l.gone[n-1].Rev
		l.gone = slices.Delete(l.gone, 0, n)
	}
	l.gone = append(l.gone, Tombstone{l.rev, hive, worker})
}

// Changed yields, oldest first, each hive (with a nil worker) and each worker that changed after rev.
// The rev that it yields is the revision of the last change, key that of the last change of more than
// numbers.
func (x *Index) Changed(rev uint64, yield func(h *Hive, w *Worker, rev, key uint64) bool) {
	chunks := x.log.chunks
	from := sort.Search(len(chunks), func(i int) bool { return chunks[i].last > rev })
	for _, c := range chunks[from:] {
		at := sort.Search(len(c.entries), func(i int) bool { return c.entries[i].rev > rev })
		for i := at; i < len(c.entries); i++ {
			e := &c.entries[i]
			if t := e.of(); t.rev == e.rev && !yield(e.hive, e.worker, e.rev, t.key) {
				return
			}
		}
	}
}

// Tombstones returns the removals after rev, oldest first.
func (x *Index) Tombstones(rev uint64) []Tombstone {
	g := x.log.gone
	return g[sort.Search(len(g), func(i int) bool { return g[i].Rev > rev }):]
}

// Revision returns the revision of the last change of w, and of the last change of more than numbers.
func (w *Worker) Revision() (rev, key uint64) { return w.shown.rev, w.shown.key }

// Revision returns the revision of the last change of h, and of the last change of more than numbers.
func (h *Hive) Revision() (rev, key uint64) { return h.rev, h.key }
