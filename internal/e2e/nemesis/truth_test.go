//go:build e2e

package nemesis

import (
	"cmp"
	"encoding/json"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/beatfabric/hivebeat"
	"github.com/beatfabric/hivebeat/bus"
)

// A spell is a period when a subject (hive or hive/worker) was really absent: dead,
// stopped, or cut off.
type spell struct {
	from, to time.Time // to is zero while it lasts
	dead     bool
	must     bool             // it must be reported lost
	by       []hivebeat.Cause // with one of these causes; empty: any cause
	tail     time.Duration    // how long after it a verdict about it may be reported; 0: grace
}

// covers reports whether a verdict received at that time is about s. Messages on their way at
// the end of s may still arrive.
func (s spell) covers(at time.Time) bool {
	return !at.Before(s.from) && (s.to.IsZero() || at.Before(s.to.Add(cmp.Or(s.tail, grace))))
}

// grace is how long after the end of a spell a verdict about it is still correct: a message
// may be on its way, no more.
const grace = 250 * time.Millisecond

// truth is what really happened, by the clock of this process.
type truth struct {
	mu     sync.Mutex
	spells map[string][]spell
}

func (tr *truth) began(subject string, s spell) {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	if tr.spells == nil {
		tr.spells = map[string][]spell{}
	}
	tr.spells[subject] = append(tr.spells[subject], s)
}

// ended ends the last spell of a subject, if it lasts.
func (tr *truth) ended(subject string, at time.Time) {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	if of := tr.spells[subject]; len(of) > 0 && of[len(of)-1].to.IsZero() {
		of[len(of)-1].to = at
	}
}

// of returns the spell that a verdict received at that time is about: the last one that covers
// it.
func (tr *truth) of(subject string, at time.Time) (spell, bool) {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	for _, s := range slices.Backward(tr.spells[subject]) {
		if s.covers(at) {
			return s, true
		}
	}
	return spell{}, false
}

func (tr *truth) all() map[string][]spell {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	all := make(map[string][]spell, len(tr.spells))
	for subject, of := range tr.spells {
		all[subject] = append([]spell(nil), of...)
	}
	return all
}

// ears are plain subscribers of queen.events.>, with the time of each arrival, and of
// queen.hives for the statistics of the hives.
type ears struct {
	mu     sync.Mutex
	all    []heard           // stored events
	of     map[about][]heard // the same events, by kind and subject
	copies []heard           // live copies, received before the event was stored
	scores map[string]hivebeat.Stats
	arrive chan struct{} // capacity 1: something has arrived
}

type about struct {
	kind    hivebeat.Kind
	subject string
}

type heard struct {
	at time.Time
	by int // index of the subscriber
	hivebeat.Event
}

// listen subscribes on each of the connections.
func listen(t testing.TB, conns ...*nats.Conn) *ears {
	t.Helper()
	e := &ears{of: map[about][]heard{}, scores: map[string]hivebeat.Stats{}, arrive: make(chan struct{}, 1)}
	for by, nc := range conns {
		e.subscribe(t, by, nc)
	}
	return e
}

func (e *ears) subscribe(t testing.TB, by int, nc *nats.Conn) {
	t.Helper()
	var s hivebeat.Subjects
	hear := func(subject string, f nats.MsgHandler) {
		sub, err := nc.Subscribe(subject, f)
		if err == nil {
			err = sub.SetPendingLimits(-1, -1)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	hear(s.Events(), func(m *nats.Msg) {
		at := time.Now()
		var ev hivebeat.Event
		if err := json.Unmarshal(m.Data, &ev); err != nil {
			t.Errorf("%s: %v in %q", m.Subject, err, m.Data)
			return
		}
		h, key := heard{at, by, ev}, about{ev.Data.Kind, ev.Subject}
		e.mu.Lock()
		if ev.IsLive() { // it is published again when it is stored
			e.copies = append(e.copies, h)
		} else {
			e.all, e.of[key] = append(e.all, h), append(e.of[key], h)
		}
		e.mu.Unlock()
		select {
		case e.arrive <- struct{}{}:
		default:
		}
	})
	score := func(m *nats.Msg) {
		var snap hivebeat.Snapshot
		if err := bus.Decode(m.Data, &snap); err != nil {
			t.Errorf("%s: %v", m.Subject, err)
			return
		}
		e.mu.Lock()
		e.scores[fmt.Sprint(snap.Hive, snap.Inc)] = snap.Stats
		e.mu.Unlock()
	}
	hear(s.Hives(), score)
	hear(s.HivesPinned(), score)
	if err := nc.Flush(); err != nil {
		t.Fatal(err)
	}
}

func (e *ears) events() []heard {
	e.mu.Lock()
	defer e.mu.Unlock()
	return slices.Clone(e.all)
}

// unstored returns the live copies.
func (e *ears) unstored() []heard {
	e.mu.Lock()
	defer e.mu.Unlock()
	return slices.Clone(e.copies)
}

// since returns the first event of a kind about a subject at or after a time.
func (e *ears) since(kind hivebeat.Kind, subject string, from time.Time) (heard, bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, h := range e.of[about{kind, subject}] {
		if !h.at.Before(from) {
			return h, true
		}
	}
	return heard{}, false
}

// count returns the number of events of a kind received at or after a time, and when the first
// and the last one arrived.
func (e *ears) count(kind hivebeat.Kind, from time.Time) (n int, first, last time.Time) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, h := range e.all {
		if h.Data.Kind == kind && !h.at.Before(from) {
			if n++; n == 1 {
				first = h.at
			}
			last = h.at
		}
	}
	return n, first, last
}

// score sums up the statistics of the hives.
func (e *ears) score() (falseDead, cutOff uint64) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, s := range e.scores {
		falseDead, cutOff = falseDead+s.FalseDead, cutOff+s.CutOff
	}
	return falseDead, cutOff
}
