package queen

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/beatfabric/hivebeat/internal/ledger"
	"github.com/beatfabric/hivebeat/internal/query"
	"github.com/beatfabric/hivebeat/queen/api"
)

// forgetHive answers the verb forget for a hive. The entry of the hive in the roster is removed by compare-and-set,
// so that a queen that has just announced its return is first; every queen that sees the entry go forgets the hive.
// After that an entry of its directives records the asker, and ends the directives in force.
func (q *Queen) forgetHive(ctx context.Context, asker, hive string) api.Answer {
	done, err := q.directs(ctx)
	if err != nil {
		return q.unavailable(err)
	}
	defer done()
	l, why, err := q.mayChange(ctx)
	switch {
	case err != nil:
		return q.unavailable(err)
	case why != "":
		return q.refuse(ctx, api.CodeUnavailable, why)
	}
	var a api.Answer
	var was ledger.RosterItem
	var pages uint64
	if err := q.ask(ctx, func(now time.Time) {
		if a = q.withStatus(query.ForgetHive(q.view.Index(), hive, now), now); a.Error == nil {
			was, pages = q.view.Hive(hive).Roster().Item, q.view.Index().Hive(hive).Head().Pages
		}
	}); err != nil {
		return q.unavailable(err)
	}
	switch {
	case a.Error != nil:
		return a
	case was.Revision == 0:
		return q.refuse(ctx, api.CodeUnavailable, "the verdict on hive "+hive+" is not stored yet")
	}
	if err := l.RemoveRoster(ctx, hive, was.Revision); errors.Is(err, ledger.ErrConflict) {
		return q.refuse(ctx, api.CodeUnavailable, "another queen has just changed its verdict on hive "+hive+": look at it again")
	} else if err != nil {
		return q.refuse(ctx, api.CodeUnavailable, "it could not be removed: "+err.Error())
	}
	// It is removed: the rest does not depend on whether the asker still waits.
	work := context.WithoutCancel(ctx)
	_ = q.do(work, func(now time.Time) { q.core.Roster(now, hive, ledger.RosterItem{Gone: true, Epoch: was.Epoch}) })
	if err := l.RemoveSnapshot(work, hive, pages); err != nil {
		q.log.Warn("the last snapshot of a hive that was forgotten is still stored: a queen that starts now may know the hive again", slog.String("hive", hive), slog.Any("err", err))
	}
	if err := q.recordForgotten(work, l, hive, asker, was.N); err != nil {
		q.log.Warn("a hive was forgotten, and no event says so", slog.String("hive", hive), slog.String("by", asker), slog.Any("err", err))
	}
	return a
}

// recordForgotten puts the entry that names the asker.
func (q *Queen) recordForgotten(ctx context.Context, l *ledger.Ledger, hive, asker string, last uint64) (err error) {
	for range directTries {
		item, failed := l.Directives(ctx, hive)
		if failed != nil {
			return failed
		}
		var c query.Change
		if err := q.do(ctx, func(now time.Time) {
			q.learn(hive, item, now)
			c = q.directives.Forgotten(hive, asker, last, now)
		}); err != nil {
			return err
		}
		if err = q.putChange(ctx, l, &c, item.Epoch); !errors.Is(err, ledger.ErrConflict) {
			return err
		}
	}
	return err
}
