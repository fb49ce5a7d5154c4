package sim

import (
	"maps"
	"slices"
	"strconv"
	"time"

	"github.com/beatfabric/hivebeat"
	"github.com/beatfabric/hivebeat/internal/ledger"
)

// dedupe is how long the stream remembers the ids of stored events.
const dedupe = time.Hour

// store is JetStream as the queens see it: linearizable, with compare-and-set, TTLs and
// deduplication. It may be away, and it may lose everything.
type store struct {
	w      *world
	away   int
	turned time.Duration // when it last went away or came back
	epoch  int64
	rev    uint64
	hives  map[string]kept
	roster map[string]rosterItem
	ids    map[string]time.Duration
	events []stored // events that a subscriber has received, since the start
	ever   map[string]bool
	owed   []string // ids of the events that the roster held
}

type kept struct {
	ledger.Entry
	at time.Duration // when it was stored
}

type rosterItem struct {
	ledger.RosterItem
	at time.Duration // when it was stored
}

type stored struct {
	id   string
	at   time.Duration
	data hivebeat.EventData
}

// awayBy starts or ends one fault that keeps the store away.
func (s *store) awayBy(by int) {
	s.away += by
	s.turned = s.w.now
}

// wipe drops everything in the store. A new store starts with it too.
func (s *store) wipe() {
	s.owed = nil // without the roster, no queen publishes them
	s.epoch++
	s.hives, s.roster, s.ids = make(map[string]kept), make(map[string]rosterItem), make(map[string]time.Duration)
}

func hivesKey(hive string, page uint64) string {
	if page == 0 {
		return hive
	}
	return hive + "." + strconv.FormatUint(page, 10)
}

// putSnapshot stores one page, unless the stored one is as new.
func (s *store) putSnapshot(x *ledger.Snapshot) {
	key, age := hivesKey(x.Hive, x.Page), s.w.now-since(x.Received)
	if k, ok := s.get(key); ok && (k.Inc > x.Inc || k.Inc == x.Inc && k.Seq >= x.Seq) || age > x.Every {
		return
	}
	ttl := max(time.Second, (3*x.Every - age + time.Second - 1).Truncate(time.Second))
	s.hives[key] = kept{ledger.Entry{Hive: x.Hive, Page: x.Page, Inc: x.Inc, Seq: x.Seq, Payload: x.Payload, TTL: ttl}, s.w.now}
}

// get returns a page as a reader sees it now.
func (s *store) get(key string) (kept, bool) {
	k, ok := s.hives[key]
	k.Stored = s.w.now - k.at
	return k, ok && k.Stored < k.TTL
}

// entries returns the entries of the bucket, in the order of their keys.
func (s *store) entries() (list []ledger.Entry) {
	for _, key := range slices.Sorted(maps.Keys(s.hives)) {
		if k, ok := s.get(key); ok {
			list = append(list, k.Entry)
		}
	}
	return list
}

// item returns an entry of the roster as a reader sees it now.
func (s *store) item(hive string) (ledger.RosterItem, bool) {
	it, ok := s.roster[hive]
	it.Stored = s.w.now - it.at
	return it.RosterItem, ok
}

// keysAfter returns the keys of the roster in the order of their revisions.
func (s *store) keysAfter(after uint64) (list []string) {
	for hive := range s.roster {
		if s.roster[hive].Revision > after {
			list = append(list, hive)
		}
	}
	slices.SortFunc(list, func(a, b string) int { return int(s.roster[a].Revision) - int(s.roster[b].Revision) })
	return list
}

// swap replaces an entry by compare-and-set. If before is set, it leaves out promises and
// ages, like a queen of an earlier version.
func (s *store) swap(hive string, revision uint64, next ledger.RosterEntry, before bool) (uint64, error) {
	if s.roster[hive].Revision != revision {
		return 0, ledger.ErrConflict
	}
	s.rev++
	next.V = 1
	if before {
		next.Age = 0
		next.Workers = maps.Clone(next.Workers)
		for id, w := range next.Workers {
			w.Every, w.Quiet, w.Since = 0, 0, 0
			next.Workers[id] = w
		}
	}
	s.roster[hive] = rosterItem{ledger.RosterItem{RosterEntry: next, Revision: s.rev, Epoch: s.epoch}, s.w.now}
	for _, ev := range s.w.eventsOf(&next) {
		s.owed = append(s.owed, ev.ID)
	}
	s.w.trace("roster", "%s: n %d %s %s, seq %d, revision %d", hive, next.N, next.Live, next.Cause, next.Seq, s.rev)
	for _, q := range s.w.queens {
		q.after(between(q.rng, time.Millisecond, 20*time.Millisecond), q.watchLedger)
	}
	return s.rev, nil
}

// addEvent stores an event once.
func (s *store) addEvent(ev *hivebeat.Event) {
	if at, ok := s.ids[ev.ID]; ok && s.w.now-at < dedupe {
		s.w.trace("stream", "%s %s is there already", ev.ID, ev.Data.Kind)
		return
	}
	s.ids[ev.ID], s.ever[ev.ID] = s.w.now, true
	s.events = append(s.events, stored{ev.ID, s.w.now, ev.Data})
	s.w.stats.Events++
	s.w.trace("stream", "%s %s %s to %s", ev.ID, ev.Data.Kind, ev.Data.From, ev.Data.To)
}

// hear records an event that a queen published without the stream. Readers identify it by
// its id.
func (s *store) hear(ev *hivebeat.Event) {
	if !s.ever[ev.ID] {
		s.ever[ev.ID] = true
		s.w.stats.Events++
		s.w.trace("events", "%s %s %s to %s", ev.ID, ev.Data.Kind, ev.Data.From, ev.Data.To)
	}
}
