package queen

import (
	"context"
	"fmt"
	"log/slog"
	"strconv"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/beatfabric/hivebeat/internal/core"
	"github.com/beatfabric/hivebeat/internal/fleet"
	"github.com/beatfabric/hivebeat/internal/link"
	"github.com/beatfabric/hivebeat/internal/queencore"
)

// begin subscribes and starts the goroutines that run beside the loop.
func (q *Queen) begin(work context.Context) error {
	for _, subject := range []string{q.subjects.Hives(), q.subjects.HivesPinned(), q.subjects.Peers()} {
		sub, err := q.nc.ChanSubscribe(subject, q.msgs)
		if err != nil {
			return fmt.Errorf("queen: subscribe %s: %w", subject, err)
		}
		q.subs = append(q.subs, sub)
	}
	var err error
	if q.link, err = link.Open(q.nc, q.cfg.System, q.log); err != nil {
		return fmt.Errorf("queen: %w", err)
	}
	q.wg.Go(func() { q.link.Run(work) })
	if err := q.followEvents(); err != nil {
		return fmt.Errorf("queen: subscribe %s: %w", q.subjects.Events(), err)
	}
	q.wg.Go(func() { q.readEvents(work) })
	if q.service, err = q.introduce(work); err != nil {
		return err
	}
	q.core.Connection(time.Now(), q.link.Connection())
	if q.cfg.NoJetStream {
		none := noStores
		q.core.Stores(none)
		q.service.stores.Store(&none)
	} else {
		q.wg.Go(func() { q.keep(work) })
	}
	return nil
}

// behind reports whether so many snapshots are waiting that NATS may soon drop some.
func (q *Queen) behind() bool { return len(q.msgs) > cap(q.msgs)/8 }

// unsubscribe ends the subscriptions and closes what only the loop used.
func (q *Queen) unsubscribe() {
	for _, sub := range q.subs {
		_ = sub.Unsubscribe()
	}
	if q.follows.sub != nil {
		_ = q.follows.sub.Unsubscribe()
	}
	if q.service != nil { // the queen did not leave in order
		for _, sub := range q.service.open() {
			_ = sub.Unsubscribe()
		}
	}
	for id := range q.adopted.subs {
		q.unlisten(id)
	}
	if q.link != nil {
		q.link.Close()
	}
}

// adoptedBeats are the subscriptions to the beats of adopted workers, whose hives were lost.
type adoptedBeats struct {
	beats chan *nats.Msg // shared by all subscriptions
	subs  map[string][]*nats.Subscription
	// dropped counts the messages dropped by subscriptions that have ended.
	dropped int
}

// perform does what the core asks for. It reports whether it has already handed a
// result back to the core, which may then have more to do.
func (q *Queen) perform(work context.Context, r *queencore.Ready, now time.Time) (again bool) {
	q.logAll(r.Logs)
	for _, id := range r.Unlisten {
		q.unlisten(id)
	}
	for _, id := range r.Listen {
		q.listen(id)
	}
	for _, c := range r.Calls {
		q.call(c)
	}
	for _, n := range r.Notices {
		q.publish(q.subjects.HiveRollcallOf(n.ID), n.Append(nil))
	}
	q.publishLive(r.Live)
	q.link.Send(work, r.Signals)
	q.link.Locate(work, r.Seek)
	for i := range r.Puts {
		q.store.putter.Offer(r.Puts[i])
	}
	if r.Read {
		l := q.store.ledger
		q.wg.Go(func() { q.read(work, l) })
	}
	for _, op := range r.Ops {
		if op.Kind == queencore.OpPublishPlain {
			op.Errs = q.publishPlain(op.Events)
			q.core.Done(now, op)
			again = true
			continue
		}
		q.wg.Go(func() {
			q.carryOut(work, op)
			_ = q.post(work, func(now time.Time) { q.core.Done(now, op) })
		})
	}
	for _, m := range r.Peers {
		if err := q.nc.Publish(q.subjects.Peers(), m); err != nil {
			q.log.Debug("cannot publish to other queens", slog.Any("err", err))
		}
	}
	if r.Serve {
		if err := q.service.serve(); err != nil {
			q.fatal = err
		}
	}
	if err := q.service.backUp(q.core.Backup(now)); err != nil {
		q.log.Warn("cannot answer in place of another queen", slog.Any("err", err))
	}
	return again
}

func (q *Queen) listen(id string) {
	for _, subject := range []string{q.subjects.Workers(id), q.subjects.WorkersPinned(id)} {
		sub, err := q.nc.ChanSubscribe(subject, q.adopted.beats)
		if err != nil {
			q.log.Warn("cannot subscribe to the workers of a lost hive", slog.String("subject", subject), slog.Any("err", err))
			continue
		}
		q.adopted.subs[id] = append(q.adopted.subs[id], sub)
	}
}

func (q *Queen) unlisten(id string) {
	for _, sub := range q.adopted.subs[id] {
		if n, err := sub.Dropped(); err == nil {
			q.adopted.dropped += n
		}
		_ = sub.Unsubscribe() // fails only on a closed connection
	}
	delete(q.adopted.subs, id)
}

// call publishes a roll call.
func (q *Queen) call(c fleet.RollCall) {
	subject := q.subjects.HiveRollcall()
	switch {
	case c.Workers:
		subject = q.subjects.WorkerRollcall(c.Hive)
	case c.Hive != "":
		subject = q.subjects.HiveRollcallOf(c.Hive)
	}
	q.publish(subject, strconv.AppendInt(nil, c.Spread.Milliseconds(), 10))
}

// publish sends a message that may be lost.
func (q *Queen) publish(subject string, payload []byte) {
	if err := q.nc.Publish(subject, payload); err != nil {
		q.log.Debug("not sent", slog.String("subject", subject), slog.Any("err", err))
	}
}

// countDropped returns how many messages NATS dropped because this queen was too slow.
func (q *Queen) countDropped() int {
	n := q.adopted.dropped
	count := func(subs []*nats.Subscription) {
		for _, sub := range subs {
			if d, err := sub.Dropped(); err == nil {
				n += d
			}
		}
	}
	count(q.subs)
	for _, subs := range q.adopted.subs {
		count(subs)
	}
	if n > q.dropped { // a subscription that has ended no longer reports its count
		q.dropped = n // not after the end of the queen, when several goroutines may ask at once
	}
	return q.dropped
}

// logAll writes the log records that the core has collected.
func (q *Queen) logAll(logs core.Logs) {
	for i := range logs {
		q.log.LogAttrs(context.Background(), logs[i].Level, logs[i].Text, logs[i].Attrs...) //nolint:sloglint // the texts are constants of the core
	}
}

func debugs(log *slog.Logger) bool { return log.Enabled(context.Background(), slog.LevelDebug) }
