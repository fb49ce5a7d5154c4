package ledger

import "time"

// Intervals of the queue.
const (
	putPace    = time.Second
	backoff    = 100 * time.Millisecond // after the first failure
	backoffMax = time.Second
)

// outcome is the result of a page that was in flight.
type outcome int

const (
	stored  outcome = iota
	stale           // the bucket holds this snapshot or a newer one
	known           // the same, known without a request
	failed          // JetStream is away: the page waits, unless a newer one came
	refused         // it is never accepted
)

// queue decides which pages a Putter puts, and when. It is pure: no clock, no goroutine, no
// lock. It holds at most the newest snapshot of each hive.
//
//	offer ──▶ waiting ──▶ begin ──▶ in flight ──▶ finish ──▶ idle for the rest of the second
//	             ▲                                  │ failed, and nothing newer came
//	             └──────────────────────────────────┘
type queue struct {
	pace    time.Duration // least time between two snapshots of one hive
	hives   map[string]*slot
	ready   fifo[*slot] // may be put now, in the order they became ready
	cooling fifo[*slot] // put within the last second, oldest first
	busy    int         // pages in flight

	failing bool // the last outcome was a failure
	pause   time.Duration
	until   time.Time // nothing begins before this

	stats PutterStats
}

// slot is the state of one hive.
type slot struct {
	newest  Snapshot   // one page of the newest snapshot offered; its payload is not kept
	pages   []Snapshot // of that snapshot, waiting
	put     Snapshot   // one page of the snapshot put last; its payload is not kept
	cooling bool       // in queue.cooling, until:
	until   time.Time
	ready   bool // in queue.ready
	busy    int  // pages in flight
}

func newQueue() *queue { return &queue{pace: putPace, hives: make(map[string]*slot)} }

// offer takes one page. If its incarnation differs from that of the page before, the later
// page is the newer one: the caller has already decided which incarnation follows which.
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
		if h.pages[i].Page == s.Page { // offered twice
			q.stats.Replaced++
			h.pages[i] = s
			return
		}
	}
	h.pages = append(h.pages, s)
	q.schedule(h)
}

// schedule makes a hive ready if its waiting pages may be put now: more pages of the
// snapshot put last at once, another snapshot when the second is over.
func (q *queue) schedule(h *slot) {
	if len(h.pages) == 0 || h.ready || h.busy > 0 {
		return
	}
	if q.due(h) {
		h.ready = true
		q.ready.push(h)
	}
}

// due reports whether the pace allows the waiting pages. If not, schedule is called again
// when the second is over.
func (q *queue) due(h *slot) bool { return !h.cooling || h.put.sameAs(h.newest) }

// begin returns the pages to put now, all of one hive. If there are none, it returns how
// long to wait for the next, unless a page is offered or finished before; 0 means to wait
// for that alone. Each page must be passed to finish.
func (q *queue) begin(now time.Time) (pages []Snapshot, wait time.Duration) {
	for q.cooling.len() > 0 && !q.cooling.first().until.After(now) {
		h := q.cooling.pop()
		h.cooling = false
		q.schedule(h)
		q.drop(h)
	}
	if q.failing {
		// One page at a time finds out whether JetStream is back.
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
			continue // a newer snapshot came while a failed one waited for its next try
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

// expire drops the pages that were received too long ago.
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

// finish records the outcome of a page that begin returned.
func (q *queue) finish(s Snapshot, o outcome, now time.Time) {
	h := q.hives[s.Hive]
	if h == nil {
		return // the queue was emptied meanwhile
	}
	h.busy--
	q.busy--
	if o != known { // known says nothing about JetStream
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

// again makes a page wait once more, unless a newer snapshot or the same page waits.
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

// drop removes a hive that has no state to remember.
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

// fifo is a first-in first-out queue that reuses its memory.
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
