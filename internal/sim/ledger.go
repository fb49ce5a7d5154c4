package sim

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/beatfabric/hivebeat"
	"github.com/beatfabric/hivebeat/internal/ledger"
	"github.com/beatfabric/hivebeat/internal/queencore"
	"github.com/beatfabric/hivebeat/internal/wire"
)

// This file simulates package ledger for a queen: requests that take time and may get no
// answer, the putter, the watch of the roster, and Keep.

// Behaviour of package ledger.
const (
	askWithin  = 2 * time.Second // how long a request waits for its answer
	askMin     = 500 * time.Microsecond
	askMax     = 8 * time.Millisecond
	keepEvery  = 10 * time.Second
	retryFirst = 250 * time.Millisecond
	retryMost  = 5 * time.Second
)

// errAway is the result of a request without an answer. The request may have been executed.
var errAway = fmt.Errorf("no answer: %w", ledger.ErrAway)

// keeper is the state of a queen's ledger.
type keeper struct {
	opened  bool
	epoch   int64 // of the last read
	seen    int64 // at the last look
	away    bool  // as reported to the core
	owed    bool  // a reconnect that has not been reported to the core
	retry   time.Duration
	look    uint64 // the timer of the next look
	watched uint64 // the last revision from the watch
	rewatch bool   // the watch continues soon
	wrote   map[string]uint64
	putting map[string]*putting
}

// putting is the state of storing one hive in the bucket: the pages of its newest snapshot.
type putting struct {
	inc, seq uint64
	pages    map[uint64]ledger.Snapshot
	last     time.Duration
	armed    bool
}

// lookNow simulates ledger.Wait until the ledger is open, and Ledger.Keep from then on, which
// checks regularly that everything is there and unchanged.
func (q *queen) lookNow() {
	k := &q.kept
	look, epoch := k.look, k.seen
	q.request(func(s *store) { epoch = s.epoch }, func(err error) {
		if k.look != look {
			return // the next look has started
		}
		if away := err != nil; away != k.away && (away || k.opened) {
			q.core.StoreState(q.w.time(), err)
		}
		if k.away = err != nil; k.away {
			q.lookLater(k.retry)
			k.retry = min(2*k.retry, retryMost)
			return
		}
		switch {
		case !k.opened:
			k.opened = true
			q.core.StoreOpened(q.w.time())
		case epoch != k.seen || k.owed:
			q.core.Renewed(q.w.time())
		}
		k.seen, k.owed, k.retry = epoch, false, retryFirst
		q.lookLater(keepEvery)
	})
}

func (q *queen) lookLater(d time.Duration) { q.setTimer(&q.kept.look, q.w.now+d, q.lookNow) }

// ledgerConnected makes the ledger look at once, because the connection is back.
func (q *queen) ledgerConnected() {
	if k := &q.kept; k.opened {
		k.owed, k.retry = true, retryFirst
		q.lookLater(0)
		q.after(between(q.rng, 50*time.Millisecond, time.Second), q.watchLedger)
	}
}

// request runs op at the store, and calls done as an input of the core: with nil when the
// answer arrives, or with errAway if none arrives in time.
func (q *queen) request(op func(s *store), done func(err error)) {
	s, answered := q.w.store, false
	finish := func(err error) {
		if !answered {
			answered = true
			q.drive(func(time.Time) { done(err) })
		}
	}
	within := askWithin
	if !q.through(func() {
		q.w.at(q.w.now+between(q.rng, askMin, askMax), func() {
			if s.away > 0 {
				return
			}
			op(s)
			q.w.at(q.w.now+between(q.rng, askMin, askMax), func() {
				if q.cuts == 0 && !q.noticed {
					q.after(0, func() { finish(nil) })
				}
			})
		})
	}) {
		within = 0
	}
	q.after(within, func() { finish(errAway) })
}

// fulfil carries out a request of the core. If a request has many keys, the answer may cover
// only the first ones.
func (q *queen) fulfil(op *queencore.Op) {
	n := max(len(op.Keys), len(op.Msgs), len(op.Steps))
	op.Errs = make([]error, n)
	op.Heads, op.Rosters, op.Advanced = make([]ledger.Head, n), make([]ledger.RosterRead, n), make([]ledger.Advanced, n)
	keys := slices.Clone(op.Keys)
	for i := range op.Steps {
		keys = append(keys, op.Steps[i].Key)
		for _, ev := range q.w.eventsOf(&op.Steps[i].Next) {
			q.adoptedLostByClosing(&ev.Data)
		}
	}
	var part func(from, to int)
	part = func(from, to int) {
		q.request(func(s *store) {
			for i := from; i < to; i++ {
				q.one(s, op, i)
			}
		}, func(err error) {
			for i := from; i < to; i++ {
				if err != nil {
					op.Errs[i], op.Heads[i], op.Rosters[i], op.Advanced[i] = err, ledger.Head{Err: err}, ledger.RosterRead{Err: err}, ledger.Advanced{Err: err}
				} else if op.Kind == queencore.OpAdvance && op.Advanced[i].Err == nil {
					q.kept.wrote[op.Steps[i].Key] = op.Advanced[i].Revision
				}
			}
			if op.Err = errors.Join(op.Err, err); err != nil && q.kept.opened {
				q.lookLater(0)
			}
			if to < n {
				part(to, n)
			} else {
				q.learning(keys, func(now time.Time) { q.core.Done(now, op) })
			}
		})
	}
	first := n
	if n > 1 {
		first = 1 + q.rng.IntN(n)
	}
	part(0, first)
}

// one carries out part i of a request.
func (q *queen) one(s *store, op *queencore.Op, i int) {
	switch op.Kind {
	case queencore.OpHeads:
		if k, ok := s.get(op.Keys[i]); ok {
			op.Heads[i] = ledger.Head{Inc: k.Inc, Seq: k.Seq, OK: true}
		}
	case queencore.OpRosters:
		op.Rosters[i].Item, op.Rosters[i].OK = s.item(op.Keys[i])
	case queencore.OpPublish:
		s.addEvent(q.w.decode(op.Msgs[i].Body))
	case queencore.OpAdvance:
		x := &op.Steps[i]
		op.Advanced[i].Revision, op.Advanced[i].Err = s.swap(x.Key, x.Revision, x.Next, q.before)
	}
}

// decode decodes an event. One that cannot be decoded ends the run.
func (w *world) decode(body []byte) *hivebeat.Event {
	ev := new(hivebeat.Event)
	if err := json.Unmarshal(body, ev); err != nil {
		w.breaks(Sound, "an event cannot be read: %v", err)
	}
	return ev
}

// eventsOf returns the events in an entry, in order.
func (w *world) eventsOf(e *ledger.RosterEntry) (list []*hivebeat.Event) {
	for _, body := range append(slices.Clone(e.Events), e.Event) {
		if len(body) > 0 {
			list = append(list, w.decode(body))
		}
	}
	return list
}

// readLedger reads the roster, and then the bucket.
func (q *queen) readLedger() {
	k := &q.kept
	roster, epoch := make(map[string]ledger.RosterItem), int64(0)
	var keys []string
	q.request(func(s *store) {
		keys, epoch = s.keysAfter(0), s.epoch
		for _, key := range keys {
			roster[key], _ = s.item(key)
		}
	}, func(err error) {
		if err != nil {
			q.core.ReadDone(q.w.time(), err)
			return
		}
		q.learning(keys, func(now time.Time) { q.core.RosterRead(now, roster) })
		if k.epoch != epoch {
			k.epoch, k.watched, k.wrote = epoch, 0, make(map[string]uint64)
		}
		var entries []ledger.Entry
		q.request(func(s *store) { entries = s.entries() }, func(err error) {
			for i := range entries {
				q.learning([]string{entries[i].Hive}, func(now time.Time) { q.core.Kept(now, &entries[i]) })
				var s wire.SnapshotView
				if wire.ParseSnapshot(entries[i].Payload, &s) == nil {
					q.adopted(&s)
				}
			}
			q.core.ReadDone(q.w.time(), err)
		})
	})
}

// watchLedger delivers new revisions of the roster.
func (q *queen) watchLedger() {
	s, k := q.w.store, &q.kept
	if !q.up() || !k.opened || s.epoch != k.epoch {
		return // the next watch or the next read delivers them
	}
	if q.cuts > 0 || s.away > 0 { // unnoticed: it continues when it can
		if !k.rewatch {
			k.rewatch = true
			q.after(time.Second, func() {
				k.rewatch = false
				q.watchLedger()
			})
		}
		return
	}
	for _, key := range s.keysAfter(k.watched) {
		item, _ := s.item(key)
		k.watched = item.Revision
		if item.Own = k.wrote[key] == item.Revision; item.Own {
			item = ledger.RosterItem{Revision: item.Revision, Epoch: item.Epoch, Stored: item.Stored, Own: true}
		}
		q.drive(func(time.Time) {
			q.learning([]string{key}, func(now time.Time) { q.core.Roster(now, key, item) })
		})
	}
}

// offer simulates ledger.Putter: it stores the newest snapshot of each hive, once a second.
func (q *queen) offer(s *ledger.Snapshot) {
	p := q.kept.putting[s.Hive]
	if p == nil {
		p = &putting{last: -time.Hour}
		q.kept.putting[s.Hive] = p
	}
	if p.inc != s.Inc || p.seq != s.Seq {
		p.inc, p.seq, p.pages = s.Inc, s.Seq, make(map[uint64]ledger.Snapshot)
	}
	p.pages[s.Page] = *s
	if p.armed {
		return
	}
	p.armed = true
	q.when(p.last+time.Second, func() {
		pages := p.pages
		p.armed, p.last, p.pages = false, q.w.now, make(map[uint64]ledger.Snapshot)
		q.request(func(s *store) {
			for x, ok := pages[0]; ok; x, ok = pages[x.Page+1] {
				s.putSnapshot(&x)
			}
		}, func(error) {})
	})
}
