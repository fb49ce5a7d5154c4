package queen

import (
	"cmp"
	"context"
	"encoding/json"
	"log/slog"
	"strconv"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/beatfabric/hivebeat"
	"github.com/beatfabric/hivebeat/internal/ledger"
	"github.com/beatfabric/hivebeat/internal/query"
	"github.com/beatfabric/hivebeat/queen/api"
)

const (
	// eventsPending is how many events may wait to be read before NATS drops them. Dropped
	// events are read from the stream.
	eventsPending = 1 << 14
	eventsBatch   = 256
	// Older events are read from the stream in windows of eventsWindow sequence numbers.
	// One answer reads at most eventsWindows windows.
	eventsWindow  = 2_000
	eventsWindows = 8
)

// follower holds what the goroutine that reads events beside the loop uses.
type follower struct {
	sub     *nats.Subscription
	msgs    chan *nats.Msg
	again   chan struct{} // holds a value when events may be missing
	dropped int
}

// followEvents subscribes to all events.
func (q *Queen) followEvents() error {
	f := &q.follows
	f.msgs, f.again = make(chan *nats.Msg, eventsPending), make(chan struct{}, 1)
	var err error
	f.sub, err = q.nc.ChanSubscribe(q.subjects.Events(), f.msgs)
	return err
}

// readEvents passes received events to the loop in batches.
func (q *Queen) readEvents(work context.Context) {
	for {
		var batch []api.Happened
		select {
		case <-work.Done():
			return
		case m := <-q.follows.msgs:
			batch = q.appendEvent(batch, m)
		}
		for len(batch) < eventsBatch && len(q.follows.msgs) > 0 {
			batch = q.appendEvent(batch, <-q.follows.msgs)
		}
		if len(batch) > 0 && q.post(work, func(time.Time) { q.tookEvents(batch) }) != nil {
			return
		}
	}
}

func (q *Queen) tookEvents(batch []api.Happened) {
	for _, h := range batch {
		q.events.Add(h, q.view.Index().Bump)
	}
}

func (q *Queen) appendEvent(batch []api.Happened, m *nats.Msg) []api.Happened {
	h := api.Happened{}
	if err := json.Unmarshal(m.Data, &h.Event); err != nil {
		q.log.Debug("cannot decode an event", slog.String("subject", m.Subject), slog.Any("err", err))
		return batch
	}
	if h.IsLive() { // it comes again once it is stored
		return batch
	}
	if !q.cfg.NoJetStream { // an event that did not come from the stream has no sequence number in it
		seq, err := strconv.ParseUint(m.Header.Get(jetstream.SequenceHeader), 10, 64)
		if err != nil || m.Header.Get(jetstream.StreamHeader) != q.subjects.Stream(hivebeat.StreamEvents) {
			return batch
		}
		h.StreamSeq = seq
	}
	return append(batch, h)
}

// missedEvents requests a read of the stream for events that may not have arrived.
func (q *Queen) missedEvents() {
	select {
	case q.follows.again <- struct{}{}:
	default:
	}
}

// fillEvents reads from the stream the events that did not arrive by subscription: the
// newest ones at the start, and missed ones whenever that is requested.
func (q *Queen) fillEvents(work context.Context, l *ledger.Ledger) {
	for first := true; ; {
		select {
		case <-work.Done():
			return
		case <-q.follows.again:
		}
		var last uint64
		if q.do(work, func(time.Time) { last = q.events.Last() }) != nil {
			return
		}
		oldest, newest, err := l.EventsHeld(work)
		if err == nil && newest > 0 {
			from := max(oldest, newest-min(newest, query.KeepEvents)+1)
			if !first {
				from = max(from, last-min(last, eventsBatch)) // one that was in flight may arrive late
			}
			err = q.fillFrom(work, l, from, newest, !first)
		}
		switch {
		case work.Err() != nil:
			return
		case err != nil:
			q.log.Debug("cannot read events from the stream", slog.Any("err", err))
			select {
			case <-work.Done():
				return
			case <-time.After(time.Second):
			}
			q.missedEvents()
		default:
			first = false
		}
	}
}

func (q *Queen) fillFrom(work context.Context, l *ledger.Ledger, from, to uint64, news bool) error {
	var batch []api.Happened
	send := func() {
		list := batch
		batch = nil
		_ = q.post(work, func(time.Time) {
			for _, h := range list {
				if news || h.Time.After(q.began) {
					q.events.Add(h, q.view.Index().Bump)
				} else {
					q.events.Add(h, nil)
				}
			}
		})
	}
	err := l.EachEvent(work, from, to, "", "", func(seq uint64, body []byte) {
		h := api.Happened{StreamSeq: seq}
		if json.Unmarshal(body, &h.Event) == nil {
			batch = append(batch, h)
		}
		if len(batch) >= eventsBatch {
			send()
		}
	})
	send()
	return err
}

// countMissedEvents requests a read of the stream if NATS has dropped events since the
// last call.
func (q *Queen) countMissedEvents() {
	if n, err := q.follows.sub.Dropped(); err == nil && n > q.follows.dropped {
		q.follows.dropped = n
		q.missedEvents()
	}
}

// listEvents lists events: first those in memory, then older ones from the stream.
func (q *Queen) listEvents(ctx context.Context, r api.Request) api.Answer {
	c, err := query.ParseEventCursor(r.After)
	if err != nil {
		return q.refuse(ctx, api.CodeBadRequest, err.Error())
	}
	limit := cmp.Or(r.Limit, query.DefaultLimit)
	var (
		a     api.Answer
		f     query.EventFilter
		end   bool
		l     *ledger.Ledger
		first uint64
	)
	err = q.ask(ctx, func(now time.Time) {
		f = query.EventFilterOf(&r, now)
		c, end = q.events.Page(&a, &f, c, limit)
		if q.store.there() {
			l = q.store.ledger
		}
		first = q.events.First()
		a = q.withStatus(a, now)
	})
	switch {
	case err != nil:
		return q.unavailable(err)
	case !end:
		a.Next = c.String()
		return a
	case l == nil && q.cfg.NoJetStream:
		a.Status.Unsure = append(a.Status.Unsure, "events are kept only in memory: this queen knows none from before it started")
		return a
	case l == nil:
		a.Status.Unsure = append(a.Status.Unsure, "JetStream is away: older events cannot be read now")
		return a
	}
	if c.Seq == 0 {
		c.Seq = first // 0: nothing is in memory
	}
	if err := q.olderEvents(ctx, l, &a, &f, c, limit); err != nil {
		a.Status.Unsure = append(a.Status.Unsure, "older events cannot be read now: "+err.Error())
	}
	return a
}

// olderEvents adds events from the stream that are older than the cursor.
func (q *Queen) olderEvents(ctx context.Context, l *ledger.Ledger, a *api.Answer, f *query.EventFilter, c query.EventCursor, limit int) error {
	select {
	case q.reads <- struct{}{}:
		defer func() { <-q.reads }()
	case <-ctx.Done():
		return ctx.Err()
	}
	oldest, newest, err := l.EventsHeld(ctx)
	if err != nil {
		return err
	}
	before := newest + 1
	if c.Seq > 0 {
		before = min(c.Seq, before)
	}
	window := uint64(eventsWindow)
	for range eventsWindows {
		if before <= oldest || newest == 0 {
			return nil
		}
		from := max(oldest, before-min(before, window))
		var found []api.Happened
		old := false
		err := l.EachEvent(ctx, from, before-1, f.Hive, f.Worker, func(seq uint64, body []byte) {
			h := api.Happened{StreamSeq: seq}
			if json.Unmarshal(body, &h.Event) != nil {
				return
			}
			old = old || h.Time.Before(f.NotBefore)
			if f.Fits(&h.Event) {
				found = append(found, h)
			}
		})
		if err != nil {
			return err
		}
		for i := len(found) - 1; i >= 0; i-- {
			if len(a.Events) == limit {
				a.Next = query.EventCursor{Seq: found[i].StreamSeq + 1}.String()
				return nil
			}
			a.Events = append(a.Events, found[i])
		}
		before = from
		if old { // everything before is older still
			return nil
		}
		if f.Hive != "" {
			window *= 4 // the server skips the events of other hives
		}
	}
	if before > oldest {
		a.Next = query.EventCursor{Seq: before}.String()
	}
	return nil
}
