package ledger

import "time"

// Paces of the queue.
const (
	putPace    = time.Second
	backoff    = 100 * time.Millisecond // after the first failure
	backoffMax = time.Second
)

// outcome is what became of a page that was under way.
type outcome int

const (
	stored  outcome = iota
	stale           // the bucket holds one as new
	known           // the same, and nobody had to be asked
	failed          // JetStream is away: the page waits, unless a newer one came
	refused         // it will never be taken
)

// queue decides what a Putter puts when. It is pure: no clock, no goroutine, no
// lock. Of each hive it holds the newest snapshot at most.
//
//	offer ──▶ waiting ──▶ begin ──▶ under way ──▶ finish ──▶ idle for the rest of the second
//	             ▲                                  │ failed, and nothing newer came
//	             └──────────────────────────────────┘
type queue struct {
	pace    time.Duration // least time between two snapshots of one hive
	hives   map[string]*slot
	ready   fifo[*slot] // may be put now, in the order they became so
	cooling fifo[*slot] // put within the last second, oldest first
	busy    int         // pages under way

	failing bool // the last page that was decided failed
	pause   time.Duration
	until   time.Time // nothing is begun before this

	stats PutterStats
}

// slot is one hive.
type slot struct {
	newest  Snapshot   // one page of the newest snapshot offered; its payload is not kept
	pages   []Snapshot // of that snapshot, waiting
	put     Snapshot   // one page of the snapshot put last; its payload is not kept
	cooling bool       // in the queue's cooling, until:
	until   time.Time
	ready   bool // in the queue's ready
	busy    int  // pages under way
}

func newQueue() *queue { return &queue{pace: putPace, hives: make(map[string]*slot)} }

// offer takes over one page. Of another incarnation than the one before it the
// later one is the newer: who is whose successor was decided before.
func (q *queue) offer(s Snapshot) {
	q.stats.Offered++
	h := q.hives[s.Hive]
	if h == nil {
		h = &slot{}
		q.hives[s.Hive] = h
	} else if h.newest.Inc == s.Inc && s.Seq < h.newest.Seq {
		q.stats.Replaced++
		return
	}
	if !h.newest.sameAs(s) {
		q.stats.Replaced += uint64(len(h.pages))
		clear(h.pages)
		h.pages = h.pages[:0]
	}
	h.newest = s
	h.newest.Payload = nil
	for i := range h.pages {
		if h.pages[i].Page == s.Page { // said twice
			q.stats.Replaced++
			h.pages[i] = s
			return
		}
	}
	h.pages = append(h.pages, s)
	q.schedule(h)
}

// schedule makes a hive ready whose waiting pages may be put now: more pages of
// the snapshot put last at once, another snapshot when the second is over.
func (q *queue) schedule(h *slot) {
	if len(h.pages) == 0 || h.ready || h.busy > 0 {
		return
	}
	if q.due(h) {
		h.ready = true
		q.ready.push(h)
	}
}

// due reports whether the pace allows what waits; if not, schedule is called
// again when the second is over.
func (q *queue) due(h *slot) bool { return !h.cooling || h.put.sameAs(h.newest) }

// begin returns the pages to put now, all of one hive. Without any it returns how
// long to wait for the next if nothing is offered and nothing ends before; 0
// means until then. Each page has to be given to finish.
func (q *queue) begin(now time.Time) (pages []Snapshot, wait time.Duration) {
	for q.cooling.len() > 0 && !q.cooling.first().until.After(now) {
		h := q.cooling.pop()
		h.cooling = false
		q.schedule(h)
		q.drop(h)
	}
	if q.failing {
		// One at a time finds out whether JetStream is back.
		switch {
		case q.busy > 0:
			return nil, 0
		case q.ready.len() > 0 && q.until.After(now):
			return nil, q.until.Sub(now)
		}
	}
	for q.ready.len() > 0 {
		h := q.ready.pop()
		h.ready = false
		if !q.due(h) {
			continue // a newer snapshot came while one that failed was to be tried again
		}
		q.expire(h, now)
		if len(h.pages) == 0 {
			q.drop(h)
			continue
		}
		if !h.cooling {
			h.cooling, h.until = true, now.Add(q.pace)
			q.cooling.push(h)
		}
		h.put = h.newest
		pages, h.pages = h.pages, nil
		h.busy = len(pages)
		q.busy += len(pages)
		return pages, 0
	}
	if q.cooling.len() > 0 {
		return nil, q.cooling.first().until.Sub(now)
	}
	return nil, 0
}

// expire throws out what was received too long ago.
func (q *queue) expire(h *slot, now time.Time) {
	kept := h.pages[:0]
	for _, s := range h.pages {
		if now.Sub(s.Received) > s.Every {
			q.stats.Old++
			continue
		}
		kept = append(kept, s)
	}
	clear(h.pages[len(kept):])
	h.pages = kept
}

// finish tells what became of a page that begin returned.
func (q *queue) finish(s Snapshot, o outcome, now time.Time) {
	h := q.hives[s.Hive]
	if h == nil {
		return // the queue was emptied meanwhile
	}
	h.busy--
	q.busy--
	if o != known { // which says nothing of JetStream
		q.failing = o == failed
	}
	switch o {
	case stored:
		q.stats.Put++
	case stale, known:
		q.stats.Stale++
	case refused:
		q.stats.Failed++
	case failed:
		q.stats.Failed++
		q.pause = min(max(backoff, 2*q.pause), backoffMax)
		q.until = now.Add(q.pause)
		q.again(h, s)
	}
	if !q.failing {
		q.pause = 0
	}
	q.schedule(h)
	q.drop(h)
}

// again lets a page wait once more, unless a newer one does.
func (q *queue) again(h *slot, s Snapshot) {
	if !h.newest.sameAs(s) {
		q.stats.Replaced++
		return
	}
	for i := range h.pages {
		if h.pages[i].Page == s.Page {
			q.stats.Replaced++
			return
		}
	}
	h.pages = append(h.pages, s)
}

// drop forgets a hive of which there is nothing to remember.
func (q *queue) drop(h *slot) {
	if len(h.pages) == 0 && h.busy == 0 && !h.cooling && !h.ready {
		delete(q.hives, h.newest.Hive)
	}
}

// waiting counts the hives with something to put.
func (q *queue) waiting() int {
	n := 0
	for _, h := range q.hives {
		if len(h.pages) > 0 {
			n++
		}
	}
	return n
}

// fifo is a first-in first-out queue that keeps its memory.
type fifo[T any] struct {
	items []T
	head  int
}

func (f *fifo[T]) len() int { return len(f.items) - f.head }

func (f *fifo[T]) first() T { return f.items[f.head] }

func (f *fifo[T]) push(v T) {
	if f.head > 64 && f.head > len(f.items)/2 {
		n := copy(f.items, f.items[f.head:])
		clear(f.items[n:])
		f.items, f.head = f.items[:n], 0
	}
	f.items = append(f.items, v)
}

func (f *fifo[T]) pop() T {
	var zero T
	v := f.items[f.head]
	f.items[f.head] = zero
	f.head++
	if f.head == len(f.items) {
		f.items, f.head = f.items[:0], 0
	}
	return v
}
