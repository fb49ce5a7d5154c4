package queen

import (
	"context"
	"encoding/hex"
	"hash/fnv"
	"log/slog"
	"math/rand/v2"
	"time"

	"github.com/beatfabric/hivebeat"
	"github.com/beatfabric/hivebeat/internal/directive"
	"github.com/beatfabric/hivebeat/internal/ledger"
	"github.com/beatfabric/hivebeat/internal/queencore"
)

// Errors of Run that callers branch on.
var (
	// ErrDiffers means that a bucket or the stream exists with other settings. The error
	// names each difference; nothing was changed.
	ErrDiffers = ledger.ErrDiffers
	// ErrServerTooOld means that the NATS server lacks a feature that the buckets need.
	ErrServerTooOld = ledger.ErrServerTooOld
)

// store holds the queen's access to JetStream.
type store struct {
	core      *queencore.Core
	ledger    *ledger.Ledger // nil until opened
	putter    *ledger.Putter
	publisher *ledger.Publisher
}

// there reports whether JetStream is usable.
func (s *store) there() bool { return s.core.StoreThere() }

func (s *store) reason() string { return s.core.StoreReason() }

// keep opens the ledger as soon as that is possible, and maintains it from then on. It
// runs beside the loop.
func (q *Queen) keep(work context.Context) {
	report := func(err error) {
		_ = q.post(work, func(now time.Time) { q.core.StoreState(now, err) })
	}
	l, err := ledger.Wait(work, q.nc, ledger.Config{
		Subjects: q.subjects, Replicas: q.cfg.Replicas, Storage: q.cfg.Storage, Placement: q.cfg.Placement,
		EventsMax: q.cfg.EventsMax, Logger: q.log,
	}, report)
	if err != nil {
		if work.Err() == nil {
			report(err)
		}
		return
	}
	p := ledger.NewPutter(l, ledger.PutterConfig{Logger: q.log})
	events, err := ledger.NewPublisher(l)
	if err != nil {
		report(err)
		return
	}
	defer events.Close()
	err = q.post(work, func(now time.Time) {
		q.store.ledger, q.store.putter, q.store.publisher = l, p, events
		q.core.StoreOpened(now)
	})
	if err != nil {
		return
	}
	q.announceStores(work, l)
	q.wg.Go(func() { _ = p.Run(work) })
	q.wg.Go(func() { q.fillEvents(work, l) })
	q.wg.Go(func() { q.watchHolds(work, l) })
	q.wg.Go(func() { q.watchRoster(work, l) })
	q.wg.Go(func() { q.refresh(work, l) })
	q.wg.Go(func() { q.keepGPUs(work, l) })
	q.wg.Go(func() { q.keepDirectives(work, l) })
	q.missedEvents()
	_ = l.Keep(work, func() {
		q.missedEvents()
		q.announceStores(work, l)
		_ = q.post(work, func(now time.Time) {
			q.core.Renewed(now)
			clear(q.gpus.hives)
			q.directives.Renewed()
		})
	}, report, func(what string) {
		_ = q.post(work, func(now time.Time) { q.core.StoreStopped(now, what) })
	})
}

// announceStores publishes, in the service info and to other queens, which buckets and
// stream this queen uses. All queens of a fabric must use the same ones.
func (q *Queen) announceStores(work context.Context, l *ledger.Ledger) {
	made, err := l.Identity(work)
	if err != nil {
		return // the next call publishes them; until then nothing is compared
	}
	h := fnv.New64a() // the identity is compared, not read
	_, _ = h.Write([]byte(made))
	identity := hex.EncodeToString(h.Sum(nil))
	_ = q.post(work, func(time.Time) {
		q.core.Stores(identity)
		q.service.stores.Store(&identity)
	})
}

// noStores is the identity of the stores of a queen without JetStream.
const noStores = "none"

// carryOut carries out a request of the core. It runs beside the loop.
func (q *Queen) carryOut(work context.Context, op *queencore.Op) {
	l, p := q.store.ledger, q.store.publisher // set before the first request, and never again
	ctx, cancel := work, context.CancelFunc(func() {})
	if op.Within > 0 {
		ctx, cancel = context.WithTimeout(work, op.Within)
	}
	defer cancel()
	if op.Patient {
		yield(ctx, q.behind)
	}
	switch op.Kind {
	case queencore.OpHeads:
		op.Heads = l.Heads(ctx, op.Keys)
	case queencore.OpProbe:
		_, op.Err = l.Identity(ctx)
	case queencore.OpPublish:
		op.Errs = p.Publish(ctx, op.Msgs)
	case queencore.OpAdvance:
		op.Advanced = p.Advance(ctx, op.Steps)
	case queencore.OpRosters:
		op.Rosters = l.RostersOf(ctx, op.Keys)
	}
	if op.Quorum && op.Err == nil {
		op.Ago, op.Err = l.Quorum(ctx)
	}
}

// Receiving goes before publishing: a snapshot that finds no space is dropped, while an
// event is only late. So a batch waits while receiving is behind, but not forever.
const (
	yieldStep = 2 * time.Millisecond
	yieldMost = 100 * time.Millisecond
)

// yield waits while behind reports true, for at most yieldMost.
func yield(ctx context.Context, behind func() bool) {
	for waited := time.Duration(0); waited < yieldMost && behind() && ctx.Err() == nil; waited += yieldStep {
		time.Sleep(yieldStep)
	}
}

// publishPlain publishes events to their own subjects.
func (q *Queen) publishPlain(events []hivebeat.Event) []error {
	errs := make([]error, len(events))
	for i := range events {
		ev := &events[i]
		body, err := ev.Encode()
		if err != nil {
			q.log.Error("cannot encode an event", slog.String("id", ev.ID), slog.Any("err", err))
			continue
		}
		errs[i] = q.nc.Publish(q.subjects.Event(ev.Data.Hive, ev.Data.Worker, ev.Data.Kind), body)
	}
	return errs
}

// publishLive publishes events that the stream does not have yet.
func (q *Queen) publishLive(events []hivebeat.Event) {
	for i := range events {
		ev := &events[i]
		body, err := ev.Encode()
		if err == nil {
			err = q.nc.Publish(q.subjects.LiveEvent(ev.Data.Hive, ev.Data.Worker, ev.Data.Kind), body)
		}
		if err != nil {
			q.log.Warn("cannot publish a death or return", slog.String("id", ev.ID), slog.Any("err", err))
		}
	}
}

// keptAtOnce is how many snapshots from the bucket are passed to the loop in one call.
const keptAtOnce = 64

// read reads the roster, and then the bucket, whose snapshots are newer.
func (q *Queen) read(work context.Context, l *ledger.Ledger) {
	roster, err := l.Roster(work, func(id string, item directive.Item) {
		_ = q.post(work, func(now time.Time) { q.learn(id, item, now) })
	})
	if err == nil {
		_ = q.post(work, func(now time.Time) { q.core.RosterRead(now, roster) })
		var some []ledger.Entry
		hand := func() {
			list := some
			some = nil
			_ = q.post(work, func(now time.Time) {
				for i := range list {
					q.core.Kept(now, &list[i])
				}
			})
		}
		err = l.EachHive(work, func(e ledger.Entry) {
			if some = append(some, e); len(some) == keptAtOnce {
				hand()
			}
		})
		hand()
	}
	_ = q.post(work, func(now time.Time) { q.core.ReadDone(now, err) })
}

func (q *Queen) watchRoster(work context.Context, l *ledger.Ledger) {
	for work.Err() == nil {
		err := l.WatchRoster(work, func(id string, item ledger.RosterItem) {
			_ = q.post(work, func(now time.Time) { q.core.Roster(now, id, item) })
		}, func(id string, item directive.Item) {
			_ = q.post(work, func(now time.Time) { q.learn(id, item, now) })
		})
		if err != nil && work.Err() == nil {
			q.log.Warn("the watch of the roster ended, starting it again", slog.Any("err", err))
			select {
			case <-work.Done():
			case <-time.After(time.Second):
			}
		}
	}
}

// refresh keeps the entries of living hives from expiring.
func (q *Queen) refresh(work context.Context, l *ledger.Ledger) {
	for {
		select {
		case <-work.Done():
			return
		case <-time.After(time.Hour + rand.N(time.Hour)):
		}
		if n, err := l.Refresh(work); err != nil && work.Err() == nil {
			q.log.Warn("cannot refresh roster entries, trying again within 2 hours", slog.Any("err", err))
		} else {
			q.log.Debug("roster entries refreshed", slog.Int("entries", n))
		}
	}
}
