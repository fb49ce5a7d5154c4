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
	pullWait       = time.Second // how long a stop may have to wait for a pull
	ackWait        = maxTimeout + 30*time.Second
	ackPending     = 256                // events waiting for their next try; at this number the server hands out no more
	unusedFor      = 7 * 24 * time.Hour // the retention of the stream
	openAgain      = time.Second
	openAtLast     = 15 * time.Second
)

// stream reads the event stream through a durable consumer, which is shared by all
// queens configured with the URL.
type stream struct {
	js       jetstream.JetStream
	subjects hivebeat.Subjects
	t        *target

	// Used only by the goroutine of run.
	consumer jetstream.Consumer // nil: to be looked up
	since    time.Time          // start time of the consumer, if it must be created
	waitFor  time.Duration
	away     bool // the stream is unavailable, and that was logged
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
		if ctx.Err() != nil { // select takes any of two ready cases
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

// next returns the next event, or nil if none comes within pullWait. A pull is never
// aborted: a message that the server sends to an aborted pull reaches no consumer until
// ackWait is over.
func (s *stream) next(ctx context.Context) *delivery {
	c, err := s.open(ctx)
	if err != nil {
		return nil // open has already waited
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
		return nil // not from a stream; only its sender knows why
	}
	s.t.waiting.Store(meta.NumPending)
	d := &delivery{
		id: eventID(m.Headers().Get(jetstream.MsgIDHeader), m.Data()), body: m.Data(), tries: int(meta.NumDelivered) - 1, first: meta.Timestamp,
		done:  func() { s.settled(m.Ack()) },
		later: func(d time.Duration) { s.settled(m.NakWithDelay(d)) },
		never: func(why string) { s.settled(m.TermWithReason(why)) },
	}
	if ctx.Err() != nil { // leave it to another queen, or the next start
		d.later(0)
		return nil
	}
	return d
}

// settled logs an acknowledgement that was not sent. The event then comes again.
func (s *stream) settled(err error) {
	if err != nil {
		s.t.log.Debug("webhook: acknowledgement not sent", slog.Any("err", err))
	}
}

// missed handles a pull that returned no message.
func (s *stream) missed(ctx context.Context, began time.Time, err error) {
	if errors.Is(err, nats.ErrTimeout) || errors.Is(err, jetstream.ErrNoMessages) {
		s.since = began // there was no event
		return
	}
	s.t.log.Debug("webhook: pull", slog.Any("err", err))
	s.consumer = nil
	pause(ctx, openAgain/4)
}

// open returns the consumer, and creates it if there is none. If that fails, it waits
// before it returns.
func (s *stream) open(ctx context.Context) (jetstream.Consumer, error) {
	if s.consumer != nil {
		return s.consumer, nil
	}
	c, err := s.find(ctx)
	if err == nil {
		s.consumer, s.waitFor = c, 0
		if s.away {
			s.t.log.Info("webhook: the event stream is available")
		}
		s.away = false
		return c, nil
	}
	if ctx.Err() != nil {
		return nil, err
	}
	if s.waitFor > 0 && !s.away { // at the start the queen may be about to create the stream
		s.away = true
		s.t.log.Warn("webhook: cannot read the event stream: events wait there", slog.Any("err", err))
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
	if errors.Is(err, jetstream.ErrConsumerExists) { // another queen was faster, with another start time
		return s.js.Consumer(ctx, name, s.t.name)
	}
	return c, err
}

// pause waits for d, or until ctx ends.
func pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}

// idOf returns the id of an event, or "" if body is not one.
func idOf(body []byte) string {
	var e struct {
		ID string `json:"id"`
	}
	if json.Unmarshal(body, &e) != nil {
		return ""
	}
	return e.ID
}
