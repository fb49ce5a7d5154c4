package ledger

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// PutterStats counts the offered snapshots by outcome.
type PutterStats struct {
	Offered  uint64 // pages
	Put      uint64 // pages that this putter stored in the bucket
	Replaced uint64 // pages replaced by a newer snapshot of the same hive, before or after they were offered
	Stale    uint64 // pages that the bucket had already, or newer: another queen was faster
	Old      uint64 // pages that waited longer than the promise of their hive
	Failed   uint64 // tries that failed; the page is tried again, unless a newer one comes
	Waiting  int    // hives with pages to put
}

// PutterConfig configures a Putter. The zero value is usable.
type PutterConfig struct {
	// Parallel limits the pages in flight; the pages of one snapshot may exceed it. Default
	// 64.
	Parallel int
	// Logger gets a Warn when puts begin to fail and an Info when they succeed again. nil
	// discards them.
	Logger *slog.Logger
}

const defaultParallel = 64

// Putter puts the newest snapshot of every hive, without blocking its caller. It is safe
// for concurrent use.
type Putter struct {
	l   *Ledger
	cfg PutterConfig

	wake chan struct{}  // a page was offered, or a put has ended
	work sync.WaitGroup // one goroutine for each page in flight

	mu      sync.Mutex
	queue   *queue
	ended   bool
	failing bool // puts fail, and the log says so
}

// NewPutter returns a putter into l. It does nothing until Run.
func NewPutter(l *Ledger, cfg PutterConfig) *Putter {
	cfg.Parallel = cmp.Or(max(0, cfg.Parallel), defaultParallel)
	cfg.Logger = cmp.Or(cfg.Logger, slog.New(slog.DiscardHandler))
	return &Putter{l: l, cfg: cfg, wake: make(chan struct{}, 1), queue: newQueue()}
}

// Offer hands over one page, and never blocks. Only the newest snapshot of a hive waits,
// with all its pages: a page with a higher seq of the same incarnation, or of another
// incarnation, replaces the waiting pages; a page with a lower seq is ignored. A page is
// put at once if the last put of this hive was a second ago, and never once it is older
// than its Every.
func (p *Putter) Offer(s Snapshot) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.ended {
		p.queue.stats.Offered++
		return
	}
	p.queue.offer(s)
	p.notify()
}

// Stats returns the counts so far.
func (p *Putter) Stats() PutterStats {
	p.mu.Lock()
	defer p.mu.Unlock()
	stats := p.queue.stats
	stats.Waiting = p.queue.waiting()
	return stats
}

func (p *Putter) notify() {
	select {
	case p.wake <- struct{}{}:
	default:
	}
}

// Run puts pages until ctx ends. It then waits until nothing is in flight, and returns nil.
// Waiting pages are dropped, and Offer only counts from there on. Call Run once.
func (p *Putter) Run(ctx context.Context) error {
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for ctx.Err() == nil {
		pages, wait := p.begin()
		for _, s := range pages {
			p.work.Go(func() { p.finish(ctx, s, p.l.PutSnapshot(ctx, s, time.Now())) })
		}
		if len(pages) > 0 {
			continue
		}
		if wait <= 0 {
			wait = time.Hour
		}
		timer.Reset(wait)
		select {
		case <-ctx.Done():
		case <-p.wake:
		case <-timer.C:
		}
	}
	p.mu.Lock()
	p.ended = true
	p.mu.Unlock()
	p.work.Wait()
	p.mu.Lock()
	defer p.mu.Unlock()
	stats := p.queue.stats
	p.queue = newQueue()
	p.queue.stats = stats
	return nil
}

// begin returns the pages to put now if Parallel allows more, and how long to wait if there
// are none.
func (p *Putter) begin() ([]Snapshot, time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.queue.busy >= p.cfg.Parallel {
		return nil, 0
	}
	return p.queue.begin(time.Now())
}

// finish records how the put of a page ended.
func (p *Putter) finish(ctx context.Context, s Snapshot, err error) {
	o := failed
	switch {
	case err == nil:
		o = stored
	case errors.Is(err, errKnown):
		o = known
	case errors.Is(err, ErrStale), errors.Is(err, ErrConflict):
		o = stale
	case errors.Is(err, nats.ErrMaxPayload), codeOf(err) == jetstream.JSErrCodeStreamMessageExceedsMaximum:
		o = refused
	}
	p.mu.Lock()
	p.queue.finish(s, o, time.Now())
	p.notify()
	began := o == failed && !p.failing
	again := (o == stored || o == stale) && p.failing
	p.failing = began || p.failing && !again
	p.mu.Unlock()
	switch {
	case ctx.Err() != nil:
	case o == refused:
		p.cfg.Logger.Warn("cannot store snapshot", slog.String("hive", s.Hive), slog.Any("err", err))
	case began:
		p.cfg.Logger.Warn("snapshots are not being stored", slog.String("hive", s.Hive), slog.Any("err", err))
	case again:
		p.cfg.Logger.Info("snapshots are being stored again")
	}
}
