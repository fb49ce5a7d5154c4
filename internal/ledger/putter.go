package ledger

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// PutterStats counts what became of the snapshots that were offered.
type PutterStats struct {
	Offered  uint64 // pages
	Put      uint64 // pages that are in the bucket by this putter
	Replaced uint64 // pages given up for a newer snapshot of the same hive, and such as came too late
	Stale    uint64 // pages the bucket had as new already: another queen was faster
	Old      uint64 // pages that waited longer than their hive's every
	Failed   uint64 // tries that failed; the page waits for the next, unless a newer one comes
	Waiting  int    // hives with something to put now
}

// PutterConfig is the configuration of a Putter. The zero one is usable.
type PutterConfig struct {
	// Parallel is how many pages may be under way at once, give or take the pages
	// of one snapshot. Default 64.
	Parallel int
	// Logger gets a Warn when puts begin to fail and an Info when they go on. nil
	// discards it.
	Logger *slog.Logger
}

const defaultParallel = 64

// Putter puts the newest snapshot of every hive, without holding up the one who
// offers it. It is safe for concurrent use.
type Putter struct {
	l   *Ledger
	cfg PutterConfig
	js  jetstream.JetStream // its answers come to answered

	wake chan struct{}  // something was offered, or ended
	work sync.WaitGroup // goroutines of conflicts

	mu      sync.Mutex
	queue   *queue
	way     map[*nats.Msg]Snapshot // under way, not answered yet
	ended   bool
	failing bool // and it was logged
}

// NewPutter returns a putter into l. It does nothing until Run.
func NewPutter(l *Ledger, cfg PutterConfig) *Putter {
	cfg.Parallel = cmp.Or(max(0, cfg.Parallel), defaultParallel)
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	return &Putter{l: l, cfg: cfg, wake: make(chan struct{}, 1), queue: newQueue(), way: make(map[*nats.Msg]Snapshot)}
}

// Offer hands over one page, and never blocks. Of one hive only the newest
// snapshot waits, all its pages together: a page of a higher seq of the same
// incarnation, or of another incarnation, replaces what waits; one of a lower seq
// is ignored. It is put at once if this hive's last put is a second ago, and
// never once it is older than its Every.
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

// Run puts until ctx ends, and returns nil then, when nothing is under way any
// more. What waits then is forgotten, and Offer only counts. Run is called once.
func (p *Putter) Run(ctx context.Context) error {
	opts := []jetstream.JetStreamOpt{
		jetstream.WithPublishAsyncTimeout(p.l.cfg.Timeout),
		jetstream.WithPublishAsyncErrHandler(func(_ jetstream.JetStream, m *nats.Msg, err error) { p.answered(ctx, m, 0, err) }),
		jetstream.WithPublishAsyncAckHandler(func(_ jetstream.JetStream, m *nats.Msg, ack *jetstream.PubAck) {
			p.answered(ctx, m, ack.Sequence, nil)
		}),
	}
	js, err := jetstream.New(p.l.nc, opts...) // puts have full subjects: a domain makes no difference to them
	if err != nil {
		return fmt.Errorf("ledger: %w", err)
	}
	p.js = js
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for ctx.Err() == nil {
		pages, wait := p.begin()
		if len(pages) > 0 {
			for _, s := range pages {
				p.send(s)
			}
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
	js.CleanupPublisher() // answers all that is under way with an error
	p.work.Wait()
	p.mu.Lock()
	defer p.mu.Unlock()
	stats := p.queue.stats
	p.queue = newQueue()
	p.queue.stats = stats
	return nil
}

// begin returns what to put now, if there is room for it.
func (p *Putter) begin() ([]Snapshot, time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.queue.busy >= p.cfg.Parallel {
		return nil, 0
	}
	return p.queue.begin(time.Now())
}

// send puts one page on its way. It does not wait for the answer.
func (p *Putter) send(s Snapshot) {
	now := time.Now()
	last, asNew := p.l.seqs.expect(s, now)
	if asNew {
		p.mu.Lock()
		p.queue.finish(s, known, now)
		p.mu.Unlock()
		return
	}
	m := p.l.putMsg(s, now)
	expect(m, last)
	p.mu.Lock()
	p.way[m] = s
	p.mu.Unlock()
	err := nats.ErrDisconnected
	if p.l.nc.IsConnected() { // or the reconnect buffer would deliver it late
		_, err = p.js.PublishMsgAsync(m, jetstream.WithRetryAttempts(0))
	}
	if err != nil {
		p.answered(context.Background(), m, 0, err)
	}
}

// answered takes the answer to a put, once: nats.go may give an error twice. It
// is called under a lock of nats.go, so it hands on what takes time.
func (p *Putter) answered(ctx context.Context, m *nats.Msg, seq uint64, err error) {
	p.mu.Lock()
	s, ok := p.way[m]
	delete(p.way, m)
	// Not after Run began to wait for this work to end.
	read := ok && !p.ended && conflict(err)
	if read {
		p.work.Add(1)
	}
	p.mu.Unlock()
	switch {
	case !ok:
	case read:
		go func() {
			defer p.work.Done()
			p.finish(s, p.l.settle(ctx, s, time.Now()))
		}()
	default:
		p.finish(s, p.l.stored(ctx, s, seq, time.Now(), err))
	}
}

func (p *Putter) finish(s Snapshot, err error) {
	o := failed
	switch {
	case err == nil:
		o = stored
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
	quiet := p.ended
	p.mu.Unlock()
	switch {
	case quiet:
	case o == refused:
		p.cfg.Logger.Warn("snapshot can not be kept", slog.String("hive", s.Hive), slog.Any("cause", err))
	case began:
		p.cfg.Logger.Warn("snapshots are not being kept", slog.String("hive", s.Hive), slog.Any("cause", err))
	case again:
		p.cfg.Logger.Info("snapshots are being kept again")
	}
}
