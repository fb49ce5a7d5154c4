package queen

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/beatfabric/hivebeat"
	"github.com/beatfabric/hivebeat/internal/fleet"
	"github.com/beatfabric/hivebeat/internal/ledger"
)

// tickEvery is how often the loop looks after what has no deadline of its own.
const tickEvery = 250 * time.Millisecond

// begin subscribes and starts what runs beside the loop.
func (q *Queen) begin(work context.Context) error {
	for _, subject := range []string{q.subjects.Hives(), q.subjects.HivesPinned()} {
		sub, err := q.nc.ChanSubscribe(subject, q.msgs)
		if err != nil {
			return fmt.Errorf("queen: subscribe %s: %w", subject, err)
		}
		q.subs = append(q.subs, sub)
	}
	if err := q.hearClosings(); err != nil {
		return err
	}
	if err := q.followEvents(); err != nil {
		return fmt.Errorf("queen: subscribe %s: %w", q.subjects.Events(), err)
	}
	q.wg.Go(func() { q.readEvents(work) })
	var err error
	if q.service, err = q.introduce(work); err != nil {
		return err
	}
	now := time.Now()
	q.conn.watch(q.nc)
	if q.nc.IsConnected() {
		q.conn.up = now
		q.conn.sight.Connect(now)
		q.cold.connected(now)
	} else {
		q.conn.since = now
		q.log.Warn("NATS is not there yet: this queen waits for it")
	}
	if q.cfg.NoJetStream {
		if !q.conn.isCut() {
			q.openStraight()
			q.callAll(now)
		}
	} else {
		q.wg.Go(func() { q.keep(work) })
	}
	q.wg.Go(func() {
		q.out.run(work, q.behind, func(err error) { _ = q.post(work, func(now time.Time) { q.trouble(work, err, now) }) })
	})
	return nil
}

// behind reports whether so many snapshots wait that some may soon be dropped.
func (q *Queen) behind() bool { return len(q.msgs) > cap(q.msgs)/8 }

// unsubscribe ends the subscriptions, and what only the loop used.
func (q *Queen) unsubscribe() {
	for _, sub := range q.subs {
		_ = sub.Unsubscribe()
	}
	if q.follows.sub != nil {
		_ = q.follows.sub.Unsubscribe()
	}
	if q.service != nil { // of a queen that did not leave in order
		for _, sub := range q.service.subs {
			_ = sub.Unsubscribe()
		}
	}
	for _, subs := range q.wards.subs {
		q.endWards(subs)
	}
	q.wards.subs = nil
	q.endClosings()
	if q.conn.status != nil {
		q.nc.RemoveStatusListener(q.conn.status)
	}
}

// loop owns the view. It takes one input at a time, and whatever follows from it
// is sent on without waiting.
func (q *Queen) loop(ctx, work context.Context) {
	q.timer = time.NewTimer(time.Hour)
	defer q.timer.Stop()
	tick := time.NewTicker(tickEvery)
	defer tick.Stop()
	stop, stopping, left := ctx.Done(), (<-chan struct{})(q.stopping), make(chan struct{})
	leave := func() {
		stop, stopping = nil, nil
		q.cold.leaving = true
		close(q.leaving)
		svc := q.service
		if !q.cold.warm { // nothing was asked
			svc = nil
		}
		q.wg.Go(func() { q.leave(work, svc); close(left) })
	}
	for q.fatal == nil {
		select {
		case m := <-q.msgs:
			q.take(m, q.now())
		case m := <-q.wards.beats:
			q.beat(m, q.now())
		case f := <-q.calls:
			now := q.now()
			q.catchUp(now)
			f(now)
		case <-q.timer.C:
			q.wake = time.Time{}
			q.catchUp(q.now())
		case s := <-q.conn.status:
			q.statusChanged(work, s, q.now())
		case m := <-q.closings.messages:
			q.closed(work, m, q.now())
		case s, ok := <-q.closings.status:
			q.systemStatus(s, ok)
		case <-tick.C:
			q.housekeeping(work, q.now())
		case <-stop:
			leave()
		case <-stopping:
			leave()
		case <-left:
			return
		}
		q.settle(work, q.now())
	}
}

// leave is the way out, beside the loop: answer what was asked, tell what waits.
func (q *Queen) leave(work context.Context, svc *service) {
	ctx, cancel := context.WithTimeout(work, lastWords)
	defer cancel()
	if svc != nil {
		svc.drain(ctx)
	}
	for {
		busy := false
		if q.do(ctx, func(time.Time) { busy = q.working > 0 || q.running > 0 }) != nil {
			return
		}
		if !busy && q.out.idle() {
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// catchUp takes the messages that wait already, so that neither an answer nor a
// verdict is older than what this queen was told.
func (q *Queen) catchUp(now time.Time) {
	q.catchUpWards(now)
	for range len(q.msgs) {
		select {
		case m := <-q.msgs:
			q.take(m, now)
		default:
			return
		}
	}
}

// take takes one snapshot.
func (q *Queen) take(m *nats.Msg, now time.Time) {
	q.conn.sight.Prove(now)
	s, err := q.view.Parse(m.Data)
	if err != nil {
		q.refuseSnapshot(m.Subject, hivebeat.ReasonOf(err), err, now)
		return
	}
	if pinned, err := q.subjects.ParseHives(m.Subject); err != nil || pinned != "" && pinned != string(s.Hive) {
		q.refuseSnapshot(m.Subject, hivebeat.RefusedForeign, fmt.Errorf("it is of hive %.64q", s.Hive), now)
		return
	}
	if err := q.view.Apply(s, now); err != nil {
		if q.log.Enabled(context.Background(), slog.LevelDebug) {
			q.log.Debug("snapshot refused", slog.String("hive", string(s.Hive)), slog.Uint64("inc", s.Inc), slog.Uint64("seq", s.Seq), slog.Any("err", err))
		}
		return
	}
	h := q.view.Hive(string(s.Hive))
	q.view.Keep(m.Data, s)
	q.cold.heard(h)
	if q.store.putter != nil && q.conn.sight.Trusts() { // or it is older than it looks
		q.store.putter.Offer(ledger.Snapshot{
			Hive: h.ID(), Page: s.Page, Inc: s.Inc, Seq: s.Seq, Payload: m.Data, Received: now, Every: h.Every(),
		})
	}
}

// refuseSnapshot counts a message that is not the protocol, and tells now and then: somebody
// should look who sends it.
func (q *Queen) refuseSnapshot(subject string, reason hivebeat.Reason, err error, now time.Time) {
	n := q.view.Refuse(reason)
	q.log.Debug("snapshot refused", slog.String("subject", subject), slog.Any("err", err))
	if q.mayWarn("refused "+string(reason), now) {
		q.log.Warn("messages refused", slog.String("reason", string(reason)), slog.Uint64("total", n), slog.String("subject", subject), slog.Any("err", err))
	}
}

// settle sends on what followed from the inputs.
func (q *Queen) settle(work context.Context, now time.Time) {
	v := q.view
	if at, ok := v.Next(); ok && !at.After(now) {
		q.catchUp(now) // who waits to be heard is not late
	}
	// Silence is a verdict only where something proves that this queen hears: a
	// connection may be dead and nobody knows.
	if next, due := v.Next(); !due || next.After(now) || q.conn.sight.Hears(now) {
		v.Tick(now)
	}
	more := q.followWards(now)
	q.sendToken(work, now)
	q.callBraked(v.TakeCalls())
	q.askClosing()
	q.checks = append(q.checks, v.TakeChecks()...)
	q.startChecks(work, now)
	for _, s := range v.TakeSteps() {
		q.logStep(s)
	}
	q.out.push(v.TakeEvents())
	q.tellDifferences(work, now)
	q.warmUp(now)
	q.tellWatchers()
	next, ok := v.Next()
	if ok = ok && next.After(now); !more.IsZero() && (!ok || more.Before(next)) {
		next, ok = more, true
	}
	if ok && (q.wake.IsZero() || next.Before(q.wake)) {
		q.wake = next
		q.timer.Reset(max(0, next.Sub(now)))
	}
}

// logStep tells one change of a verdict.
func (q *Queen) logStep(s fleet.Step) {
	level := slog.LevelInfo
	switch s.Kind {
	case hivebeat.KindLate, hivebeat.KindLost, hivebeat.KindConflict, hivebeat.KindUnverified:
		level = slog.LevelWarn
	}
	if !q.log.Enabled(context.Background(), level) {
		return
	}
	var room [7]slog.Attr
	attrs := room[:0]
	add := func(key, value string) {
		if value != "" {
			attrs = append(attrs, slog.String(key, value))
		}
	}
	add("hive", s.Hive)
	add("kind", string(s.Kind))
	add("from", string(s.From))
	add("to", string(s.To))
	add("cause", string(s.Cause))
	attrs = append(attrs, slog.Uint64("inc", s.Inc))
	add("reason", s.Reason)
	q.log.LogAttrs(context.Background(), level, "hive verdict", attrs...)
}

// Keys are read in batches before verdicts, a few of which are under way at once.
const (
	checkBatch   = 64
	checkBatches = 4
)

// checkTimeout is how long a verdict waits for the read of its key.
const checkTimeout = 2 * time.Second

// startChecks reads the keys of hives that are about to be late or lost. Where
// that is not possible the verdicts stand.
func (q *Queen) startChecks(work context.Context, now time.Time) {
	for len(q.checks) > 0 && !q.store.there() {
		c := q.checks[0]
		q.checks = q.checks[1:]
		q.view.Checked(c, 0, 0, now)
	}
	for len(q.checks) > 0 && q.running < checkBatches {
		n := min(checkBatch, len(q.checks))
		batch := q.checks[:n:n]
		q.checks = q.checks[n:]
		q.running++
		l, ids := q.store.ledger, make([]string, n)
		for i, c := range batch {
			ids[i] = c.Hive.ID()
		}
		q.wg.Go(func() {
			ctx, cancel := context.WithTimeout(work, checkTimeout)
			defer cancel()
			heads := l.Heads(ctx, ids)
			_ = q.post(work, func(now time.Time) { q.checked(work, batch, heads, now) })
		})
	}
}

// checked gives the answers to the view.
func (q *Queen) checked(work context.Context, batch []fleet.Check, heads []ledger.Head, now time.Time) {
	q.running--
	var failed error
	for i, h := range heads {
		if h.Err != nil || !h.OK {
			h.Inc, h.Seq = 0, 0
		}
		q.view.Checked(batch[i], h.Inc, h.Seq, now)
		if failed == nil {
			failed = h.Err
		}
	}
	if failed != nil {
		q.trouble(work, failed, now)
	}
}

// housekeeping looks after what has no deadline of its own.
func (q *Queen) housekeeping(work context.Context, now time.Time) {
	if q.conn.isCut() == q.nc.IsConnected() { // a change of status that got lost
		q.statusChanged(work, q.nc.Status(), now)
	}
	q.countDrops(now)
	q.countMissedEvents()
	q.holds.Expire(q.view, now)
	q.view.Settle(now)
	q.history.Sample(q.view, q.cold.warm && !q.conn.isCut(), now)
	q.probe(work, now)
	q.store.confirm(work, q, now)
}

// countDrops follows the messages that NATS dropped: who was not heard may have
// been dropped.
func (q *Queen) countDrops(now time.Time) {
	n := q.countDropped()
	if q.conn.sight.Dropped(now, uint64(n)) > 0 {
		q.doubt()
	}
	if n > q.dropped && q.mayWarn("dropped", now) {
		q.log.Warn("this queen is too slow: NATS dropped snapshots, the next ones heal that", slog.Int("dropped", n-q.dropped), slog.Int("total", n))
		q.dropped = n
	}
}

func (q *Queen) countDropped() (n int) {
	for _, sub := range q.subs {
		if d, err := sub.Dropped(); err == nil {
			n += d
		}
	}
	n += q.countWardDrops()
	return max(n, q.dropped) // what ended says nothing any more
}

// mayWarn keeps one warning from filling the log.
func (q *Queen) mayWarn(what string, now time.Time) bool {
	if at, ok := q.warnAt[what]; ok && now.Sub(at) < 10*time.Second {
		return false
	}
	q.warnAt[what] = now
	return true
}
