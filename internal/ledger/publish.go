package ledger

import (
	"context"

	"github.com/beatfabric/hivebeat"
)

// Publish hands an event to the stream, and returns when it is stored or was
// stored before, by whichever queen. ErrTooOld: its Time is over 50 minutes ago,
// or in the future by as much; it is too late to tell whether it was published.
// ErrAway: nobody answered; it may be stored all the same, publish it again.
func (l *Ledger) Publish(ctx context.Context, ev hivebeat.Event) error { panic("TODO") }

// Republish publishes the event inside a roster entry again, word by word: it
// makes sure of event n before n + 1 goes out. ErrTooOld: the entry was put over
// 50 minutes ago, so the event was published or is lost. An entry without an
// event is no error.
func (l *Ledger) Republish(ctx context.Context, item RosterItem) error { panic("TODO") }
