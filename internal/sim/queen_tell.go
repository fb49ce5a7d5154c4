package sim

import (
	"time"

	"github.com/beatfabric/hivebeat"
	"github.com/beatfabric/hivebeat/internal/fleet"
	"github.com/beatfabric/hivebeat/internal/wire"
)

// offer is ledger.Putter: the newest of each hive, once a second.
func (q *queen) offer(h *fleet.Hive, s *wire.SnapshotView, payload []byte) {
	p := q.putting[h.ID()]
	if p == nil {
		p = &putting{last: -time.Hour}
		q.putting[h.ID()] = p
	}
	if p.inc != s.Inc || p.seq != s.Seq {
		p.inc, p.seq, p.pages = s.Inc, s.Seq, make(map[uint64][]byte)
	}
	p.pages[s.Page], p.received, p.every = payload, q.w.now, h.Every()
	if p.armed {
		return
	}
	p.armed = true
	id := h.ID()
	q.when(p.last+time.Second, func() {
		p.armed, p.last = false, q.w.now
		c := *p
		p.pages = make(map[uint64][]byte)
		q.ask(func(s *store) {
			for page := range uint64(hivebeat.MaxPages) {
				b, ok := c.pages[page]
				if !ok {
					break
				}
				s.putSnapshot(id, page, c.inc, c.seq, b, c.received, c.every)
			}
		}, func(error) {})
	})
}

// pump publishes events of workers, one after the other.
func (q *queen) pump() {
	if q.pumping || !q.there() {
		return
	}
	batch := append([]fleet.Happened(nil), q.out.Take(q.w.time())...)
	if len(batch) == 0 {
		return
	}
	q.pumping = true
	q.publishAll(batch, 0)
}

func (q *queen) publishAll(batch []fleet.Happened, at int) {
	if at == len(batch) {
		q.pumping = false
		q.out.Done(at, nil)
		return // settle goes on
	}
	ev := subjects.NewEvent(batch[at].ID, q.w.time(), batch[at].Data)
	q.ask(func(s *store) { s.publish(&ev) }, func(err error) {
		if err == nil {
			q.publishAll(batch, at+1)
			return
		}
		q.out.Done(at, append([]fleet.Happened(nil), batch[at:]...))
		q.trouble(err)
		q.after(time.Second, func() { q.pumping = false; q.settle() })
	})
}
