package ledger

import (
	"context"
	"log/slog"
)

// PutterStats counts what became of the snapshots that were offered.
type PutterStats struct {
	Offered  uint64 // pages
	Put      uint64 // pages that are in the bucket by this putter
	Replaced uint64 // pages given up for a newer snapshot of the same hive
	Stale    uint64 // pages the bucket had as new already: another queen was faster
	Old      uint64 // pages that waited longer than their hive's every
	Failed   uint64 // tries that failed; the page waits for the next, unless a newer one comes
	Waiting  int    // hives with something to put now
}

// PutterConfig is the configuration of a Putter. The zero one is usable.
type PutterConfig struct {
	// Parallel is how many pages may be under way at once. Default 64.
	Parallel int
	// Logger gets a Warn when puts begin to fail and an Info when they go on. nil
	// discards it.
	Logger *slog.Logger
}

// Putter puts the newest snapshot of every hive, without holding up the one who
// offers it. It is safe for concurrent use.
type Putter struct{}

// NewPutter returns a putter into l. It does nothing until Run.
func NewPutter(l *Ledger, cfg PutterConfig) *Putter { panic("TODO") }

// Offer hands over one page, and never blocks. Of one hive only the newest
// snapshot waits, all its pages together: a page of a higher seq of the same
// incarnation, or of another incarnation, replaces what waits; one of a lower seq
// is ignored. It is put at once if this hive's last put is a second ago, and
// never once it is older than its Every.
func (p *Putter) Offer(s Snapshot) { panic("TODO") }

// Run puts until ctx ends. It returns when nothing is under way any more; what
// waits then is forgotten. Offer after that only counts.
func (p *Putter) Run(ctx context.Context) error { panic("TODO") }

// Stats returns the counts so far.
func (p *Putter) Stats() PutterStats { panic("TODO") }
