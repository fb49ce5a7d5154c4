package ledger

import (
	"context"
	"time"
)

// Entry is one value of queen_hives.
type Entry struct {
	Hive     string
	Page     uint64
	Inc, Seq uint64
	Payload  []byte
	Stored   time.Duration // since it was put, by the server's clock alone
	TTL      time.Duration // what it was put with; 0 = none: put by other hands
}

// Age returns how long ago the snapshot was received by the queen that put it,
// as far as its TTL tells: up to 1 s more, never less than since it was put.
func (e Entry) Age(every time.Duration) time.Duration { panic("TODO") }

// Hives returns every page of every hive that is in the bucket. Expired ones are
// not. With 10,000 hives of 100 workers that is some 200 MB at once: EachHive
// needs one at a time.
func (l *Ledger) Hives(ctx context.Context) ([]Entry, error) { panic("TODO") }

// EachHive calls fn with every page of every hive that is in the bucket, in the
// order they were put, and returns when it has seen them all. Payload is fn's to
// keep.
func (l *Ledger) EachHive(ctx context.Context, fn func(Entry)) error { panic("TODO") }

// Hive returns (inc, seq) of the last snapshot put for a hive (of its page 0). ok
// is false where there is none, or it has expired: that proves only that nobody
// put.
func (l *Ledger) Hive(ctx context.Context, id string) (inc, seq uint64, ok bool, err error) {
	panic("TODO")
}
