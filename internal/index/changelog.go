package index

import (
	"slices"
	"sort"
)

// Every hive and worker has the revision of its last change. The change log lists them in order of
// their revisions, so a watcher reads all later changes by starting at its own revision. Nothing is
// queued per watcher; a slow watcher still sees each change once. An entry that a later change made
// void stays until the sweep finds it.

// sweepEach is how many entries the sweep looks at for each new one. It has to be more than 1, or the
// log would grow for ever; a sweep of the whole log at once would hold up all questions.
const sweepEach = 2

// maxTombstones bounds the tombstones.
const maxTombstones = 1 << 16

// revision is the position of a hive or worker in the log.
type revision struct {
	rev uint64 // 0: not in the log
	key uint64 // revision of the last change that was more than numbers
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

// Tombstone records that a hive or a worker was removed. Worker is empty for a hive.
type Tombstone struct {
	Rev          uint64
	Hive, Worker string
}

// changeLog lists hives and workers in order of their last change.
type changeLog struct {
	rev     uint64
	floor   uint64      // changes up to here are not in the log
	entries []entry     // in order of their revisions: those up to kept, and those from read on
	kept    int         // entries up to here were found valid by this sweep
	read    int         // the sweep has not looked at the entries from here on
	gone    []Tombstone // oldest first
	lost    uint64      // revision of the newest tombstone that was discarded
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
	c.rev = l.rev
	if last := len(l.entries) - 1; t.rev != 0 && l.entries[last].rev == t.rev { // it is the last entry already
		l.entries[last], t.rev = c, c.rev
		return
	}
	t.rev = c.rev // this makes its earlier entry void
	l.entries = append(l.entries, c)
	for range sweepEach {
		e := l.entries[l.read]
		l.entries[l.read] = entry{}
		if l.read++; e.valid() {
			l.entries[l.kept] = e
			l.kept++
		}
		if l.read == len(l.entries) {
			l.entries, l.kept, l.read = l.entries[:l.kept], 0, 0
		}
	}
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
	for _, part := range [][]entry{x.log.entries[:x.log.kept], x.log.entries[x.log.read:]} {
		from := sort.Search(len(part), func(i int) bool { return part[i].rev > rev })
		for i := range part[from:] {
			e := &part[from+i]
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
