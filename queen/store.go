package queen

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"time"

	"github.com/beatfabric/hivebeat"
	"github.com/beatfabric/hivebeat/internal/fleet"
	"github.com/beatfabric/hivebeat/internal/ledger"
	"github.com/beatfabric/hivebeat/internal/liveness"
	"github.com/beatfabric/hivebeat/internal/wire"
)

// Errors of Run that callers branch on.
var (
	// ErrDiffers: a bucket or the stream exists with other settings. The error
	// names each difference; nothing was changed.
	ErrDiffers = ledger.ErrDiffers
	// ErrServerTooOld: the server lacks what the buckets need.
	ErrServerTooOld = ledger.ErrServerTooOld
)

// store is what the loop knows of JetStream.
type store struct {
	ledger    *ledger.Ledger // nil until it was opened
	putter    *ledger.Putter
	publisher *ledger.Publisher
	roster    bool // was read

	keepErr error // what keeps the buckets from being used, as Keep says
	opErr   error // what failed last, until a probe goes well
	told    bool  // there, as the log has it
	since   time.Time

	probeAt time.Time
	backoff time.Duration
	probing bool

	queue   []fleet.Teller                   // to be compared with the roster
	unsure  liveness.Deadlines[fleet.Teller] // whose last event somebody should publish again, for its author may have died
	scratch wire.SnapshotView
}

// there reports whether JetStream can be used.
func (s *store) there() bool { return s.ledger != nil && s.keepErr == nil && s.opErr == nil }

func (s *store) reason() string {
	for _, err := range []error{s.keepErr, s.opErr} {
		if err != nil {
			return err.Error()
		}
	}
	return "not opened yet"
}

// keep opens the ledger when it can be opened, and looks after it from then on.
// It runs beside the loop.
func (q *Queen) keep(work context.Context) {
	report := func(err error) {
		_ = q.post(work, func(now time.Time) { q.store.keepErr = err; q.storeChanged(work, now) })
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
		q.store.ledger, q.store.putter, q.store.publisher, q.store.keepErr = l, p, events, nil
		q.storeChanged(work, now)
	})
	if err != nil {
		return
	}
	renewed := make(chan struct{}, 1)
	renewed <- struct{}{}
	q.wg.Go(func() { _ = p.Run(work) })
	q.wg.Go(func() { q.readLoop(work, l, renewed) })
	q.wg.Go(func() { q.fillEvents(work, l) })
	q.wg.Go(func() { q.watchHolds(work, l) })
	q.wg.Go(func() { q.watchRoster(work, l) })
	q.wg.Go(func() { q.refresh(work, l) })
	q.missedEvents()
	_ = l.Keep(work, func() {
		q.missedEvents()
		select {
		case renewed <- struct{}{}:
		default:
		}
	}, report)
}

// storeChanged draws the conclusions when JetStream came or went.
func (q *Queen) storeChanged(work context.Context, now time.Time) {
	s := &q.store
	there, err := s.there(), errors.Join(s.keepErr, s.opErr)
	if !there {
		q.cold.failed = true
	}
	first := s.ledger == nil
	if first && (errors.Is(err, ErrDiffers) || errors.Is(err, ErrServerTooOld)) {
		q.fatal = fmt.Errorf("queen: %w", err)
		return
	}
	switch {
	case there && !s.told:
		if s.since.IsZero() {
			q.log.Info("JetStream is there")
		} else {
			q.log.Info("JetStream is back", slog.Duration("after", now.Sub(s.since)))
		}
		q.out.open(q.publishTo(s.publisher))
	case !there && (s.told || s.since.IsZero()):
		s.since = now
		q.out.open(nil)
		switch {
		case errors.Is(err, ErrDiffers):
			q.log.Error("JetStream can not be used: what another made in place of ours has other settings; remove it, or give the queen the same settings", slog.Any("err", err))
		case errors.Is(err, ledger.ErrNoSpace):
			q.log.Error("JetStream has no space: events wait, the view goes on in memory; make room, or lower --events-max", slog.Any("err", err))
		default:
			q.log.Warn("JetStream is away: events wait, the view goes on in memory", slog.Any("err", err))
		}
		if first { // nobody will tell us who there is
			q.callAll(now)
		}
	}
	s.told = there
	if there {
		q.startAnnouncements(work, now)
	} else {
		q.startChecks(work, now)
	}
}

// trouble notes that something failed in JetStream. It counts as away until a
// probe goes well.
func (q *Queen) trouble(work context.Context, err error, now time.Time) {
	s := &q.store
	if q.cfg.NoJetStream || work.Err() != nil || s.opErr != nil || errors.Is(err, context.Canceled) {
		return
	}
	if s.backoff == 0 || now.Sub(s.probeAt) > 30*time.Second {
		s.backoff = time.Second / 2
	}
	s.backoff = min(2*s.backoff, 10*time.Second)
	s.opErr, s.probeAt = err, now.Add(s.backoff)
	q.storeChanged(work, now)
}

// probe looks whether JetStream answers again.
func (q *Queen) probe(work context.Context, now time.Time) {
	s := &q.store
	if s.opErr == nil || s.probing || now.Before(s.probeAt) || s.ledger == nil {
		return
	}
	s.probing = true
	l := s.ledger
	q.wg.Go(func() {
		ctx, cancel := context.WithTimeout(work, checkTimeout)
		defer cancel()
		_, err := l.Identity(ctx)
		_ = q.post(work, func(now time.Time) {
			s.probing, s.probeAt = false, now
			if err == nil {
				s.opErr = nil
				q.storeChanged(work, now)
				return
			}
			s.backoff = min(2*s.backoff, 10*time.Second)
			s.probeAt = now.Add(s.backoff)
		})
	})
}

// readLoop reads bucket and roster at the start, and anew whenever they may be
// others than before.
func (q *Queen) readLoop(work context.Context, l *ledger.Ledger, renewed <-chan struct{}) {
	for {
		select {
		case <-work.Done():
			return
		case <-renewed:
		}
		for wait := time.Second / 2; ; wait = min(2*wait, 5*time.Second) {
			err := q.read(work, l)
			if err == nil || work.Err() != nil {
				break
			}
			_ = q.post(work, func(now time.Time) { q.trouble(work, err, now) })
			select {
			case <-work.Done():
				return
			case <-time.After(wait):
			}
		}
	}
}

// read reads the roster, and then the bucket, whose snapshots are newer.
func (q *Queen) read(work context.Context, l *ledger.Ledger) error {
	began := time.Now()
	roster, err := l.Roster(work)
	if err != nil {
		return err
	}
	err = q.post(work, func(now time.Time) {
		for id, item := range roster {
			q.rosterItem(id, item, now, 30*time.Second)
		}
		var gone []string
		q.view.EachKey(func(key string) {
			if _, ok := roster[key]; !ok {
				gone = append(gone, key)
			}
		})
		for _, key := range gone {
			q.view.UnlearnKey(key, false)
		}
		q.store.roster = true
		q.startAnnouncements(work, now)
	})
	if err != nil {
		return err
	}
	present := make(map[string]bool)
	if err := l.EachHive(work, func(e ledger.Entry) {
		present[e.Hive] = true
		_ = q.post(work, func(now time.Time) { q.adopt(&e, now) })
	}); err != nil {
		return err
	}
	return q.post(work, func(now time.Time) { q.bucketRead(present, began, now) })
}

// adopt takes a snapshot over that was kept in the bucket.
func (q *Queen) adopt(e *ledger.Entry, now time.Time) {
	s := &q.store.scratch
	err := wire.ParseSnapshot(e.Payload, s)
	if err == nil && string(s.Hive) != e.Hive {
		err = &hivebeat.Refusal{Reason: hivebeat.RefusedForeign, Key: "hive", Detail: "not the one of its key"}
	}
	if err != nil {
		q.view.Refuse(hivebeat.ReasonOf(err))
		q.log.Warn("a snapshot in the bucket was refused", slog.String("hive", e.Hive), slog.Any("err", err))
		return
	}
	// An entry tells its age to the second, so that it may be that much older.
	q.view.Adopt(s, e.Age(hivebeat.Millis(s.Every).Duration())+time.Second, now)
}

// rosterItem takes one entry of the roster, and sees to it that its event gets
// out even if the queen that wrote it died before it could publish.
func (q *Queen) rosterItem(id string, item ledger.RosterItem, now time.Time, within time.Duration) {
	if item.Own { // finish takes it over; where the bucket is another one now, that is learnt here
		if t := q.view.Teller(id); t != nil {
			b := t.Roster()
			b.Item.Epoch = max(b.Item.Epoch, item.Epoch)
		}
		return
	}
	if item.Gone {
		q.view.UnlearnKey(id, true)
		return
	}
	q.lookAfter(q.view.LearnKey(id, item, now), now, within)
}

// lookAfter has the event in the entry of t published again in a while, where
// nobody knows that it is stored and nothing else is under way that finds out.
func (q *Queen) lookAfter(t fleet.Teller, now time.Time, within time.Duration) {
	b := t.Roster()
	if e := &b.Item; e.N > b.Confirmed && len(e.Event) > 0 && e.Stored < fleet.TooOld && !b.Busy {
		q.store.unsure.Set(t, now.Add(5*time.Second+rand.N(within)))
	}
}

func (q *Queen) watchRoster(work context.Context, l *ledger.Ledger) {
	for work.Err() == nil {
		err := l.WatchRoster(work, func(id string, item ledger.RosterItem) {
			_ = q.post(work, func(now time.Time) { q.rosterItem(id, item, now, 5*time.Second) })
		})
		if err != nil && work.Err() == nil {
			q.log.Warn("the watch of the roster ended, and begins again", slog.Any("err", err))
			select {
			case <-work.Done():
			case <-time.After(time.Second):
			}
		}
	}
}

// confirm publishes again what may never have been published.
func (s *store) confirm(work context.Context, q *Queen, now time.Time) {
	if !s.there() {
		return
	}
	for t := range s.unsure.Due(now) {
		b := t.Roster()
		if !q.view.Knows(t) || b.Item.N <= b.Confirmed || b.Busy {
			continue
		}
		l, item := s.ledger, b.Item
		item.Stored += now.Sub(b.ReadAt)
		q.wg.Go(func() {
			err := l.Republish(work, item)
			_ = q.post(work, func(now time.Time) {
				if err == nil || errors.Is(err, ledger.ErrTooOld) {
					b.Confirmed = max(b.Confirmed, item.N)
					return
				}
				s.unsure.Set(t, now.Add(5*time.Second))
				q.trouble(work, err, now)
			})
		})
	}
}

// refresh keeps the entries of hives that live from expiring.
func (q *Queen) refresh(work context.Context, l *ledger.Ledger) {
	for {
		select {
		case <-work.Done():
			return
		case <-time.After(time.Hour + rand.N(time.Hour)):
		}
		if n, err := l.Refresh(work); err != nil && work.Err() == nil {
			q.log.Warn("entries of the roster could not be put again, the next try is in an hour", slog.Any("err", err))
		} else {
			q.log.Debug("entries of the roster put again", slog.Int("entries", n))
		}
	}
}
