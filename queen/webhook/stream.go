package webhook

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/beatfabric/hivebeat"
)

const (
	requestTimeout = 5 * time.Second
	pullWait       = time.Second // how long a stop may wait for it
	ackWait        = maxTimeout + 30*time.Second
	ackPending     = 256                // events that wait for their next try; while there are more, none is handed out
	unusedFor      = 7 * 24 * time.Hour // as long as the stream keeps events
	openAgain      = time.Second
	openAtLast     = 15 * time.Second
)

// stream reads the stream of events by a durable consumer, which all queens that
// name the URL share.
type stream struct {
	js       jetstream.JetStream
	subjects hivebeat.Subjects
	t        *target

	// Of the goroutine of run alone.
	consumer jetstream.Consumer // nil: to be looked for
	since    time.Time          // what happened from then on is to be told, where it must be made
	waitFor  time.Duration
	away     bool // and it was logged
}

func (s *stream) run(ctx context.Context, tell func(*delivery)) {
	s.since = time.Now()
	var wg sync.WaitGroup
	defer wg.Wait()
	free := make(chan struct{}, s.t.cfg.Parallel)
	for {
		select {
		case free <- struct{}{}:
		case <-ctx.Done():
			return
		}
		if ctx.Err() != nil { // of two cases that are ready select takes any
			return
		}
		d := s.next(ctx)
		if d == nil {
			<-free
			continue
		}
		wg.Go(func() {
			defer func() { <-free }()
			tell(d)
		})
	}
}

// next returns the next event, if one comes within a while. A pull is never broken
// off: what the server sends into one that was is nobody's until ackWait is over.
func (s *stream) next(ctx context.Context) *delivery {
	c, err := s.open(ctx)
	if err != nil {
		return nil // it has waited
	}
	began := time.Now()
	m, err := c.Next(jetstream.FetchMaxWait(pullWait))
	if err != nil {
		s.missed(ctx, began, err)
		return nil
	}
	s.since = began
	meta, err := m.Metadata()
	if err != nil {
		return nil // not from a stream: whoever sent it knows why
	}
	s.t.waiting.Store(meta.NumPending)
	d := &delivery{
		id: eventID(m.Headers().Get(jetstream.MsgIDHeader), m.Data()), body: m.Data(), tries: int(meta.NumDelivered) - 1, first: meta.Timestamp,
		done:  func() { s.settled(m.Ack()) },
		later: func(d time.Duration) { s.settled(m.NakWithDelay(d)) },
		never: func(why string) { s.settled(m.TermWithReason(why)) },
	}
	if ctx.Err() != nil { // it is for another queen, or the next start
		d.later(0)
		return nil
	}
	return d
}

// settled notes what became of an acknowledgement: one that got lost means that the
// event comes again.
func (s *stream) settled(err error) {
	if err != nil {
		s.t.log.Debug("webhook: acknowledgement not sent", slog.Any("error", err))
	}
}

// missed draws the conclusion from a pull without a message.
func (s *stream) missed(ctx context.Context, began time.Time, err error) {
	if errors.Is(err, nats.ErrTimeout) || errors.Is(err, jetstream.ErrNoMessages) {
		s.since = began // nothing happened
		return
	}
	s.t.log.Debug("webhook: pull", slog.Any("error", err))
	s.consumer = nil
	pause(ctx, openAgain/4)
}

// open returns the consumer, and makes it where there is none. Where that fails it
// waits.
func (s *stream) open(ctx context.Context) (jetstream.Consumer, error) {
	if s.consumer != nil {
		return s.consumer, nil
	}
	c, err := s.find(ctx)
	if err == nil {
		s.consumer, s.waitFor = c, 0
		if s.away {
			s.t.log.Info("webhook: the event stream is there")
		}
		s.away = false
		return c, nil
	}
	if ctx.Err() != nil {
		return nil, err
	}
	if s.waitFor > 0 && !s.away { // at the start the queen may just be about to make it
		s.away = true
		s.t.log.Warn("webhook: the event stream can not be read: events wait there", slog.Any("error", err))
	}
	s.waitFor = min(max(openAgain, 2*s.waitFor), openAtLast)
	pause(ctx, s.waitFor)
	return nil, err
}

func (s *stream) find(ctx context.Context) (jetstream.Consumer, error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	name := s.subjects.Stream(hivebeat.StreamEvents)
	c, err := s.js.Consumer(ctx, name, s.t.name)
	if !errors.Is(err, jetstream.ErrConsumerNotFound) {
		return c, err
	}
	since := s.since
	c, err = s.js.CreateConsumer(ctx, name, jetstream.ConsumerConfig{
		Durable:           s.t.name,
		Description:       "webhook " + shown(s.t.url),
		DeliverPolicy:     jetstream.DeliverByStartTimePolicy,
		OptStartTime:      &since,
		AckPolicy:         jetstream.AckExplicitPolicy,
		AckWait:           ackWait,
		MaxDeliver:        -1,
		MaxAckPending:     ackPending,
		FilterSubjects:    filters(s.subjects, s.t.cfg.Kinds),
		InactiveThreshold: unusedFor,
	})
	if errors.Is(err, jetstream.ErrConsumerExists) { // another queen was faster, with another start
		return s.js.Consumer(ctx, name, s.t.name)
	}
	return c, err
}

// pause waits, until ctx ends.
func pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}

// idOf reads the id of an event. What is no event has none.
func idOf(body []byte) string {
	var e struct {
		ID string `json:"id"`
	}
	if json.Unmarshal(body, &e) != nil {
		return ""
	}
	return e.ID
}
