package webhook

import (
	"context"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/beatfabric/hivebeat"
)

// pendingEvents is how many events may wait for the goroutine that queues them.
const pendingEvents = 4096

// knownIDs is how many event ids are remembered, because each queen publishes every
// event.
const knownIDs = 4096

// memory receives events as they are published, and keeps those that wait in a bounded
// queue. Each message goes to one of the queens configured with the URL.
type memory struct {
	nc       *nats.Conn
	subjects hivebeat.Subjects
	t        *target
	wake     chan struct{}

	mu    sync.Mutex
	queue []*item // the one due first is first
	held  int     // being posted, and may be queued again
	known map[string]bool
	ring  []string // the ids in known; once full, the oldest is at index at
	at    int
}

// item is a waiting event.
type item struct {
	id    string
	body  []byte
	tries int
	first time.Time
	due   time.Time
}

func (m *memory) run(ctx context.Context, tell func(*delivery)) {
	msgs := make(chan *nats.Msg, pendingEvents)
	sub, err := m.nc.ChanQueueSubscribe(m.subjects.Events(), m.t.name, msgs)
	if err != nil {
		m.t.log.Error("webhook: cannot subscribe to events", slog.Any("err", err))
		<-ctx.Done()
		return
	}
	defer func() { _ = sub.Unsubscribe() }()
	var wg sync.WaitGroup
	defer wg.Wait()
	items := make(chan *item)
	for range m.t.cfg.Parallel {
		wg.Go(func() {
			for i := range items {
				tell(m.delivery(i))
			}
		})
	}
	defer close(items)
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	var next *item // taken from the queue, for the next free goroutine
	drops := 0
	for {
		out := items
		if next == nil {
			next = m.take(timer, time.Now())
		}
		if next == nil {
			out = nil
		}
		select {
		case <-ctx.Done():
			return
		case msg := <-msgs:
			m.hear(msg, time.Now())
			if d, err := sub.Dropped(); err == nil && d > drops {
				m.t.dropped.Add(uint64(d - drops))
				drops = d
			}
		case out <- next:
			next = nil
		case <-m.wake:
		case <-timer.C:
		}
	}
}

// hear queues an event if its kind is wanted and the queue has space.
func (m *memory) hear(msg *nats.Msg, now time.Time) {
	if !m.t.cfg.wants(kindOf(msg.Subject)) {
		return
	}
	id := eventID(msg.Header.Get(nats.MsgIdHdr), msg.Data)
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.again(id) {
		return
	}
	if len(m.queue)+m.held >= m.t.cfg.Queue {
		m.t.dropped.Add(1)
		return
	}
	m.push(&item{id: id, body: msg.Data, first: now, due: now})
}

// again reports whether this id was seen before, and remembers it.
func (m *memory) again(id string) bool {
	if id == "" {
		return false
	}
	if m.known[id] {
		return true
	}
	if m.known == nil {
		m.known = make(map[string]bool)
	}
	m.known[id] = true
	if len(m.ring) < knownIDs {
		m.ring = append(m.ring, id)
		return false
	}
	delete(m.known, m.ring[m.at])
	m.ring[m.at] = id
	m.at = (m.at + 1) % knownIDs
	return false
}

func (m *memory) push(i *item) {
	at := len(m.queue)
	for at > 0 && i.due.Before(m.queue[at-1].due) {
		at--
	}
	m.queue = slices.Insert(m.queue, at, i)
	m.count()
}

func (m *memory) count() { m.t.waiting.Store(uint64(len(m.queue) + m.held)) }

// take returns an item that is due, or sets the timer to when one will be.
func (m *memory) take(timer *time.Timer, now time.Time) *item {
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.queue) == 0 {
		return nil
	}
	first := m.queue[0]
	if first.due.After(now) {
		timer.Reset(first.due.Sub(now))
		return nil
	}
	m.queue = slices.Delete(m.queue, 0, 1)
	m.held++
	return first
}

func (m *memory) delivery(i *item) *delivery {
	free := func(again bool, after time.Duration) {
		m.mu.Lock()
		defer m.mu.Unlock()
		m.held--
		if again {
			i.tries++
			i.due = time.Now().Add(after)
			m.push(i)
		}
		m.count()
		select {
		case m.wake <- struct{}{}:
		default:
		}
	}
	return &delivery{
		id: i.id, body: i.body, tries: i.tries, first: i.first,
		done:  func() { free(false, 0) },
		later: func(d time.Duration) { free(true, d) },
		never: func(string) { free(false, 0) },
	}
}
