package fleet

import (
	"time"

	"github.com/beatfabric/hivebeat"
	"github.com/beatfabric/hivebeat/internal/ledger"
	"github.com/beatfabric/hivebeat/internal/liveness"
)

// Book is what the roster says of a hive, as far as this queen knows, and how far
// its owner is with telling the difference.
type Book struct {
	Item      ledger.RosterItem // N is 0 where it never had one, Revision where there is none now
	ReadAt    time.Time
	Confirmed uint64 // n of the last event that is known to be stored
	Conflict  uint64 // the incarnation whose conflict was told last
	Busy      bool   // an announcement is under way
	Again     bool   // and what it was about has changed since
	said      said
}

// said is what this queen wanted to put last.
type said struct{ n, inc, seq uint64 }

func (s said) is(item *ledger.RosterItem) bool { return s == said{item.N, item.Inc, item.Seq} }

func (b *Book) says(s *Saying, ok bool) {
	if ok {
		b.said = said{s.Next.N, s.Next.Inc, s.Next.Seq}
	}
}

// put is when the entry was put.
func (b *Book) put(now time.Time) time.Time {
	return now.Add(-max(0, b.Item.Stored) - now.Sub(b.ReadAt))
}

// heard is when a hive with the promise every was heard last, at the latest, as the
// entry has it: without an age it was given up right then.
func (b *Book) heard(every time.Duration, now time.Time) time.Time {
	if b.Item.Age > 0 {
		return b.put(now).Add(-min(b.Item.Age, maxAge).Duration())
	}
	return b.put(now).Add(-liveness.LostAfter(every, 0))
}

// age is how old an entry of h that is put now is to say that its last message is,
// at least 1.
func (b *Book) age(h *Hive, now time.Time) hivebeat.Millis {
	heard := h.received
	if heard.IsZero() {
		heard = b.heard(h.every, now)
	}
	return max(1, EffectiveAge(0, heard, now))
}

// Anew returns the entry as it is to be put again after a loss of the roster.
func (b *Book) Anew(now time.Time) ledger.RosterEntry {
	e := b.Item.RosterEntry
	e.Event, e.Events, e.Workers = nil, nil, b.workers(now)
	if e.Age > 0 {
		e.Age += hivebeat.MillisOf(now.Sub(b.put(now)))
	}
	return e
}

// workers returns a copy of the workers in the entry, for one that is put now.
func (b *Book) workers(now time.Time) map[string]ledger.RosterWorker {
	if b.Item.Workers == nil {
		return nil
	}
	m, put := make(map[string]ledger.RosterWorker, len(b.Item.Workers)+1), b.put(now)
	for id, r := range b.Item.Workers {
		if r.Since > 0 {
			r.Since = EffectiveAge(r.Since, put, now)
		}
		m[id] = r
	}
	return m
}

// isNews reports whether an entry of the roster is not older than the one that is
// known.
func (b *Book) isNews(item *ledger.RosterItem) bool {
	return item.Epoch > b.Item.Epoch || item.Epoch == b.Item.Epoch && item.Revision >= b.Item.Revision
}

// rosterWorker is what the roster is to know of a worker.
func rosterWorker(f *hivebeat.Facts, live hivebeat.Live, cause hivebeat.Cause) ledger.RosterWorker {
	return ledger.RosterWorker{
		Inc: f.Inc, Live: live, Cause: cause, State: f.State, Model: f.Model, Seq: f.Seq, Every: f.Every, Quiet: f.Quiet,
	}
}

// promise returns what the roster says that a worker promised, within what a beat
// may; the default promise where it does not say.
func promise(r *ledger.RosterWorker) (every, quiet hivebeat.Millis, known bool) {
	if r.Every == 0 {
		return hivebeat.MillisOf(hivebeat.WorkerEvery), 0, false
	}
	every = min(max(r.Every, hivebeat.MillisOf(hivebeat.MinEvery)), hivebeat.MillisOf(hivebeat.MaxEvery))
	return every, min(r.Quiet, hivebeat.MillisOf(hivebeat.MaxQuiet)), true
}

// oldest is how old a worker in the roster can have been when its hive was heard
// last.
func oldest(r *ledger.RosterWorker) time.Duration {
	every, quiet, _ := promise(r)
	age := liveness.LostAfter(every.Duration(), quiet.Duration())
	if isGone(r.Live) {
		age += hivebeat.KeepGone
	}
	return age
}
