package sim

import (
	"time"

	"github.com/beatfabric/hivebeat"
	"github.com/beatfabric/hivebeat/internal/fleet"
	"github.com/beatfabric/hivebeat/internal/ledger"
	"github.com/beatfabric/hivebeat/internal/wire"
)

// read reads the roster, and then the bucket.
func (q *queen) read() {
	if q.reading {
		return
	}
	q.reading = true
	began := q.w.time()
	roster, epoch := make(map[string]ledger.RosterItem), int64(0)
	var order []string
	q.ask(func(s *store) {
		order, epoch = s.all(0), s.epoch
		for _, id := range order {
			roster[id], _ = s.item(id)
		}
	}, func(err error) {
		if err != nil {
			q.reading = false
			q.trouble(err)
			q.after(time.Second, q.read)
			return
		}
		for _, id := range order {
			q.rosterItem(id, roster[id], 30*time.Second)
		}
		var gone []string
		q.view.EachKey(func(key string) {
			if _, ok := roster[key]; !ok {
				gone = append(gone, key)
			}
		})
		for _, key := range gone {
			q.view.UnlearnKey(key, false)
		}
		q.rosterOK = true
		if q.epoch != epoch {
			q.epoch, q.watched = epoch, 0
		}
		var entries []ledger.Entry
		q.ask(func(s *store) { entries = s.entries() }, func(err error) {
			q.reading = false
			if err != nil {
				q.trouble(err)
				q.after(time.Second, q.read)
				return
			}
			q.adopt(entries, began)
		})
	})
}

// adopt takes over what was kept, and calls the roll of those that are missing.
func (q *queen) adopt(entries []ledger.Entry, began time.Time) {
	now := q.w.time()
	present := make(map[string]bool)
	for i := range entries {
		e := &entries[i]
		var s wire.SnapshotView
		if err := wire.ParseSnapshot(e.Payload, &s); err != nil {
			q.w.breaks(Sound, "the bucket holds what can not be read: %v", err)
			return
		}
		present[string(s.Hive)] = true
		q.hearsay(string(s.Hive), func() {
			q.view.Adopt(&s, e.Age(hivebeat.Millis(s.Every).Duration())+time.Second, now)
		})
		q.w.truth.adopted(q, &s)
	}
	first := q.coldRead.IsZero()
	q.coldRead, q.missing = now, make(map[*fleet.Hive]struct{})
	var missing []*fleet.Hive
	from := began
	if q.upAt.After(from) {
		from = q.upAt
	}
	known := 0
	for _, h := range q.view.Hives() {
		gone := h.Live() == hivebeat.Lost || h.Live() == hivebeat.Left
		if !gone {
			known++
		}
		if gone || h.HeardAt().After(from) {
			continue
		}
		missing = append(missing, h)
		if present[h.ID()] {
			q.missing[h] = struct{}{}
		}
	}
	switch {
	case !first && len(missing) == 0:
	case 4*len(missing) >= 3*known && (len(missing) > 1 || known == 0):
		q.callAll()
	default:
		for _, h := range missing {
			q.publish(&message{topic: topicHiveCall, hive: h.ID(), spread: q.view.Spread()})
		}
	}
}

func (q *queen) callAll() {
	if q.w.now-q.calledAt >= callAllEvery {
		q.calledAt = q.w.now
		q.publish(&message{topic: topicHivesCall, spread: q.view.Spread()})
	}
}

func (q *queen) warmUp() {
	now := q.w.time()
	switch {
	case q.warm:
	case !q.coldRead.IsZero():
		q.warm = len(q.missing) == 0 || now.Sub(q.coldRead) >= coldStart
	default:
		q.warm = now.Sub(q.upAt) >= openAtMost
	}
}

// hearsay notes whether learn told this queen more of a hive than it knew: that
// counts as heard now.
func (q *queen) hearsay(id string, learn func()) {
	inc, seq := q.heardOf(id)
	learn()
	if i, s := q.heardOf(id); i != inc || s != seq {
		q.told[id] = q.w.now
	}
}

func (q *queen) heardOf(id string) (inc, seq uint64) {
	if h := q.view.Hive(id); h != nil {
		return h.Inc(), h.Seq()
	}
	return 0, 0
}
