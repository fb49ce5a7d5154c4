package ledger

import (
	"context"
	"encoding/json"
	"time"

	"github.com/beatfabric/hivebeat"
)

// RosterEntry is the value of a key of queen_roster, as JSON: the queens' last
// verdict on a hive, and what it was when it was reached.
type RosterEntry struct {
	V       uint64                  `json:"v"` // 1; Advance sets it
	N       uint64                  `json:"n"` // number of the event inside
	Live    hivebeat.Live           `json:"live"`
	Cause   hivebeat.Cause          `json:"cause,omitempty"`
	Inc     uint64                  `json:"inc"`
	Seq     uint64                  `json:"seq"`
	Every   hivebeat.Millis         `json:"every"`
	Zone    string                  `json:"zone,omitempty"`
	HoldMS  hivebeat.Millis         `json:"hold_ms,omitempty"`
	Workers map[string]RosterWorker `json:"workers,omitempty"`
	Event   json.RawMessage         `json:"event,omitempty"` // the body of event N
}

// RosterWorker is what the queens know of a worker whose hive they judged.
type RosterWorker struct {
	Inc   uint64         `json:"inc"`
	Live  hivebeat.Live  `json:"live"`
	Cause hivebeat.Cause `json:"cause,omitempty"`
	State hivebeat.State `json:"state,omitempty"`
	Model string         `json:"model,omitempty"`
}

// RosterItem is an entry as it was read.
type RosterItem struct {
	RosterEntry
	// Revision is what Advance has to be given. It only grows within one Epoch.
	Revision uint64
	// Epoch is when the bucket was made, in Unix ns by the server's clock.
	// Revisions of two epochs can not be compared.
	Epoch int64
	// Stored is how long ago it was put, by the server's clock alone: the age of
	// its event, unless it was put again by Refresh since.
	Stored time.Duration
	// Gone: the key was removed by hand, or has expired. RosterEntry is zero.
	Gone bool
}

// Roster returns all entries, by hive.
func (l *Ledger) Roster(ctx context.Context) (map[string]RosterItem, error) { panic("TODO") }

// RosterOf reads one entry, after ErrConflict. ok is false where there is none.
func (l *Ledger) RosterOf(ctx context.Context, hive string) (item RosterItem, ok bool, err error) {
	panic("TODO")
}

// Advance replaces the entry that was read at revision, and returns the new
// revision. Revision 0 means that there is none. ErrConflict: it is another one
// by now, and this one was not written.
func (l *Ledger) Advance(ctx context.Context, hive string, revision uint64, next RosterEntry) (uint64, error) {
	panic("TODO")
}

// Refresh puts again, unchanged, every entry that was put over 20 h ago, so that
// it does not expire: to be called daily or more often, by every queen. Entries
// that are lost or left stay as they are, and are forgotten 7 days later. It
// returns how many it put.
func (l *Ledger) Refresh(ctx context.Context) (int, error) { panic("TODO") }

// WatchRoster calls fn with every entry there is, and then with every change, in
// order and from one goroutine, until ctx ends. It goes on by itself after cuts
// and restarts; where the bucket was lost and made again it begins anew, with
// another Epoch. It never waits for JetStream to be there before it can be ended.
func (l *Ledger) WatchRoster(ctx context.Context, fn func(hive string, item RosterItem)) error {
	panic("TODO")
}
