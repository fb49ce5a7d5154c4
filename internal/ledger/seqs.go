package ledger

import (
	"hash/maphash"
	"sync"
	"time"
)

// sequences remembers the last sequence of each key, so that a put costs one request. It
// also remembers which snapshot was put with it: otherwise an older snapshot could
// overwrite a newer one whose sequence is known.
type sequences struct {
	mu    sync.Mutex
	last  map[string]sequence
	sweep int // size at which the entries of hives long gone are removed
}

type sequence struct {
	seq       uint64    // in the stream
	inc, hive uint64    // the snapshot's (inc, seq); zero for a marker
	until     time.Time // the key has expired by then
	at        time.Time // when this was learned
}

// keepSequence exceeds the lifetime of a key that is not put again.
const (
	keepSequence = 4 * time.Hour
	firstSweep   = 1024
)

// expect returns the sequence that a put of snap must expect, 0 for an unknown key, and
// whether the bucket holds this snapshot or a newer one.
func (s *sequences) expect(snap Snapshot, now time.Time) (seq uint64, stale bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	last := s.last[snap.key()]
	return last.seq, now.Before(last.until) && asNew(last.inc, last.hive, snap)
}

// asNew reports whether (inc, seq) is that of s, or newer.
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

// writes remembers the last write of this ledger to each roster key until the watch has
// seen it, so that the watch need not decode it.
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

// saw reports whether a message of the roster is the last write of this ledger to its key.
// The body counts too: a bucket that was created again restarts its sequences.
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
