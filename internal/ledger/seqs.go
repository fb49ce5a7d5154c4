package ledger

import (
	"hash/maphash"
	"sync"
	"time"
)

// sequences remembers of each key its last sequence, so that a put costs one
// request, and what was put with it: an older snapshot could otherwise be put
// over a newer one whose sequence is known.
type sequences struct {
	mu    sync.Mutex
	last  map[string]sequence
	sweep int // size at which those of hives long gone are thrown out
}

type sequence struct {
	seq       uint64    // in the stream
	inc, hive uint64    // the snapshot's (inc, seq); zero for a marker
	until     time.Time // the key has expired by then
	at        time.Time // when this was learnt
}

// keepSequence is longer than a key lives without being put.
const (
	keepSequence = 4 * time.Hour
	firstSweep   = 1024
)

// expect returns the sequence that a put of s has to expect, 0 for an unknown
// key, and whether the bucket holds a snapshot as new.
func (s *sequences) expect(snap Snapshot, now time.Time) (seq uint64, stale bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	last := s.last[snap.key()]
	return last.seq, now.Before(last.until) && asNew(last.inc, last.hive, snap)
}

// asNew reports whether (inc, seq) is as new as s, or newer.
func asNew(inc, seq uint64, s Snapshot) bool {
	return inc > s.Inc || inc == s.Inc && seq >= s.Seq
}

func (s *sequences) set(key string, v sequence) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.last == nil {
		s.last = make(map[string]sequence)
		s.sweep = firstSweep
	}
	s.last[key] = v
	if len(s.last) <= s.sweep {
		return
	}
	for k, old := range s.last {
		if v.at.Sub(old.at) > keepSequence {
			delete(s.last, k)
		}
	}
	s.sweep = max(firstSweep, 2*len(s.last))
}

func (s *sequences) clear() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.last = nil
}

// writes remembers of each key of the roster what was put there last by this
// ledger, until its watch has seen it: then that need not be read again.
type writes struct {
	mu   sync.Mutex
	seed maphash.Seed
	last map[string]written
}

type written struct{ seq, sum uint64 }

func (w *writes) set(key string, seq uint64, body []byte) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.last == nil {
		w.last, w.seed = make(map[string]written), maphash.MakeSeed()
	}
	w.last[key] = written{seq, maphash.Bytes(w.seed, body)}
}

// saw reports whether a message of the roster is what this ledger put there last.
// The body counts too: a bucket that was made anew begins its sequences anew.
func (w *writes) saw(key string, seq uint64, body []byte) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	last, ok := w.last[key]
	if !ok || seq < last.seq {
		return false
	}
	delete(w.last, key)
	return last == written{seq, maphash.Bytes(w.seed, body)}
}
