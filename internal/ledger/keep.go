package ledger

import (
	"context"

	"github.com/nats-io/nats.go"
)

// Wait opens a ledger as soon as that is possible: it tries again, at most every
// 5 s and at once after a reconnect, until Open succeeds or ctx ends. report gets
// each error that is another one than the one before; it may be nil.
func Wait(ctx context.Context, nc *nats.Conn, cfg Config, report func(error)) (*Ledger, error) {
	panic("TODO")
}

// Identity tells the buckets and the stream from those of the same names that
// were made later: it changes when one of them was made anew, and holds "absent"
// where one is not there.
func (l *Ledger) Identity(ctx context.Context) (string, error) { panic("TODO") }

// Reopen makes what is missing, checks what is there, and reports whether one of
// them is another one than at the last Open or Reopen: then what was read from it
// is no longer true, and has to be read anew. Its errors are those of Open.
func (l *Ledger) Reopen(ctx context.Context) (changed bool, err error) { panic("TODO") }

// Keep runs until ctx ends. After every reconnect, and every 10 s, it does what
// Reopen does. renewed is called where something was made anew, or NATS was away
// in between: the queen then reads bucket and roster again. state is called when
// the ledger becomes usable (nil) or stops being so (the error). Both may be nil,
// and are called from Keep's goroutine.
func (l *Ledger) Keep(ctx context.Context, renewed func(), state func(error)) error { panic("TODO") }
