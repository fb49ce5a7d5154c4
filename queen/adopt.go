package queen

import (
	"log/slog"
	"strconv"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/beatfabric/hivebeat"
)

// wards is what the loop needs to hear the workers of hives that were lost.
type wards struct {
	beats chan *nats.Msg // of all of them
	subs  map[string][]*nats.Subscription
	queue wardQueue
	// dropped messages of subscriptions that ended.
	dropped int
}

// pendingBeats is how many beats of adopted workers may wait before NATS drops the
// newest.
const pendingBeats = 4096

// followWards subscribes to the beats of workers that were adopted, calls their
// roll, and lets go of those that went back. It returns when it has more to do; zero
// is not before something else happens.
func (q *Queen) followWards(now time.Time) (next time.Time) {
	w := &q.wards
	for _, id := range q.view.TakeAdoptions() {
		switch subs, heard := w.subs[id]; {
		case q.view.Adopted(id) && !heard:
			w.queue.push(id)
		case !q.view.Adopted(id) && heard:
			q.endWards(subs)
			delete(w.subs, id)
			q.log.Info("a hive judges its workers again, or is gone", slog.String("hive", id))
		}
	}
	for _, c := range q.view.TakeRollCalls() {
		if _, heard := w.subs[c.Hive]; heard {
			q.callWards(c.Hive, c.Spread)
		} else {
			w.queue.call(c.Hive, c.Spread)
		}
	}
	for {
		id, spread, ok := w.queue.pop(now)
		if !ok {
			return w.queue.next(now)
		}
		if _, heard := w.subs[id]; heard || !q.view.Adopted(id) {
			continue // it came and went, and came
		}
		w.queue.took(now)
		w.subs[id] = q.subscribeWards(id)
		q.log.Info("hears the workers of a hive that was lost", slog.String("hive", id))
		if spread > 0 {
			q.callWards(id, spread)
		}
	}
}

func (q *Queen) callWards(id string, spread time.Duration) {
	subject := q.subjects.WorkerRollcall(id)
	if err := q.nc.Publish(subject, strconv.AppendInt(nil, spread.Milliseconds(), 10)); err != nil {
		q.log.Debug("roll call failed", slog.String("subject", subject), slog.Any("err", err))
	}
}

func (q *Queen) subscribeWards(id string) []*nats.Subscription {
	list := make([]*nats.Subscription, 0, 2)
	for _, subject := range []string{q.subjects.Workers(id), q.subjects.WorkersPinned(id)} {
		sub, err := q.nc.ChanSubscribe(subject, q.wards.beats)
		if err != nil {
			q.log.Warn("can not hear the workers of a hive that was lost", slog.String("subject", subject), slog.Any("err", err))
			continue
		}
		list = append(list, sub)
	}
	return list
}

func (q *Queen) endWards(subs []*nats.Subscription) {
	for _, sub := range subs {
		if n, err := sub.Dropped(); err == nil {
			q.wards.dropped += n
		}
		_ = sub.Unsubscribe() // fails only on a connection that is closed
	}
}

// beat takes a beat of an adopted worker.
func (q *Queen) beat(m *nats.Msg, now time.Time) {
	q.conn.sight.Prove(now)
	hive, worker, err := q.subjects.ParseWorkers(m.Subject)
	if err != nil {
		return // nothing else was subscribed to
	}
	if err := q.view.Beat(hive, worker, m.Data, now); err != nil {
		q.log.Debug("beat refused", slog.String("subject", m.Subject), slog.String("reason", string(hivebeat.ReasonOf(err))))
	}
}

// catchUpWards takes the beats that wait already.
func (q *Queen) catchUpWards(now time.Time) {
	for range len(q.wards.beats) {
		q.beat(<-q.wards.beats, now)
	}
}

func (q *Queen) countWardDrops() (n int) {
	n = q.wards.dropped
	for _, subs := range q.wards.subs {
		for _, sub := range subs {
			if d, err := sub.Dropped(); err == nil {
				n += d
			}
		}
	}
	return n
}
