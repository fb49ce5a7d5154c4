package ledger

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/beatfabric/hivebeat"
)

// Publisher stores many events, or advances many roster entries, in about the time of one:
// it sends up to 512 messages before it waits for an answer. It is safe for concurrent use.
type Publisher struct {
	l  *Ledger
	js jetstream.JetStream

	gate   sync.RWMutex // held while sending, so that nothing is sent after Close
	closed bool

	// together is p.send; tests replace it with a fake.
	together func(context.Context, []*nats.Msg) []ack
}

type ack struct {
	seq uint64
	err error
}

// underWay limits the messages in flight over all calls. The timeout of a message counts
// from when it was sent, and a slow server must not be mistaken for one that is away.
const underWay = 512

// NewPublisher returns a publisher into l. It holds one subscription and two goroutines of
// nats.go from its first use until Close.
func NewPublisher(l *Ledger) (*Publisher, error) {
	p := &Publisher{l: l}
	p.together = p.send
	var err error
	p.js, err = jetstream.New(l.nc, // subjects are complete: a domain makes no difference to them
		jetstream.WithPublishAsyncTimeout(l.cfg.Timeout),
		jetstream.WithPublishAsyncMaxPending(underWay),
	)
	if err != nil {
		return nil, fmt.Errorf("ledger: %w", err)
	}
	return p, nil
}

// Close ends all publishing in flight with an error, and refuses later calls with one that
// wraps ErrAway.
func (p *Publisher) Close() {
	p.gate.Lock()
	closed := p.closed
	p.closed = true
	p.gate.Unlock()
	if !closed {
		p.js.CleanupPublisher()
	}
}

// send sends all msgs. It returns their answers when it has the last one, or when ctx ends.
func (p *Publisher) send(ctx context.Context, msgs []*nats.Msg) []ack {
	acks := make([]ack, len(msgs))
	futures := make([]jetstream.PubAckFuture, len(msgs))
	for i, m := range msgs {
		futures[i], acks[i].err = p.sendOne(ctx, m)
	}
	for i, f := range futures {
		if acks[i].err != nil {
			continue
		}
		select {
		case a := <-f.Ok():
			acks[i].seq = a.Sequence
		case acks[i].err = <-f.Err():
		case <-ctx.Done():
			acks[i].err = ctx.Err()
		}
	}
	return acks
}

func (p *Publisher) sendOne(ctx context.Context, m *nats.Msg) (jetstream.PubAckFuture, error) {
	p.gate.RLock()
	defer p.gate.RUnlock()
	switch {
	case ctx.Err() != nil:
		return nil, ctx.Err()
	case p.closed || !p.l.nc.IsConnected(): // or the reconnect buffer would deliver it late
		return nil, nats.ErrDisconnected
	}
	return p.js.PublishMsgAsync(m, jetstream.WithRetryAttempts(0), jetstream.WithStallWait(p.l.cfg.Timeout))
}

// EventMsg is an event to publish.
type EventMsg struct {
	ID           string // the Nats-Msg-Id
	Hive, Worker string
	Kind         hivebeat.Kind
	Body         []byte        // its JSON; must not change afterwards
	Age          time.Duration // since it was first published
}

// NewEventMsg returns the message for an event and its JSON, with its age at now.
func NewEventMsg(ev *hivebeat.Event, body []byte, now time.Time) EventMsg {
	return EventMsg{ID: ev.ID, Hive: ev.Data.Hive, Worker: ev.Data.Worker, Kind: ev.Data.Kind, Body: body, Age: now.Sub(ev.Time)}
}

// Publish stores events in the stream. It returns one error per event, nil if the event is
// stored, or was stored before by any queen. ErrTooOld: its Age is over 50 minutes, and the
// stream could no longer detect a duplicate. ErrAway: no answer came, and the event may be
// stored all the same; publish it again. The events reach the stream in this order, except
// that an event which another queen is publishing at this moment is tried again after the
// others.
func (p *Publisher) Publish(ctx context.Context, events []EventMsg) []error {
	errs := make([]error, len(events))
	open := make([]int, 0, len(events))
	for i := range events {
		if errs[i] = p.l.checkEvent(&events[i]); errs[i] == nil {
			open = append(open, i)
		}
	}
	tctx, cancel := context.WithTimeout(ctx, p.l.cfg.Timeout)
	defer cancel()
	for pause := inProcessFirst; len(open) > 0; pause = min(2*pause, inProcessMost) {
		msgs := make([]*nats.Msg, len(open))
		for k, i := range open {
			msgs[k] = p.l.natsMsg(&events[i])
		}
		again := open[:0]
		for k, a := range p.together(ctx, msgs) {
			i := open[k]
			errs[i] = p.l.eventError(ctx, &events[i], a.err)
			if codeOf(a.err) == codeDuplicateInProgress {
				again = append(again, i)
			}
		}
		if open = again; len(open) == 0 {
			break
		}
		select {
		case <-time.After(pause):
		case <-tctx.Done():
			for _, i := range open {
				errs[i] = wrap(ctx, "event "+events[i].ID, fmt.Errorf("%w: %w", errs[i], tctx.Err()))
			}
			return errs
		}
	}
	return errs
}

// Step is one roster entry to advance.
type Step struct {
	Key      string // a hive, or a brake
	Revision uint64 // at which the entry was read; 0: there is none
	Next     RosterEntry
}

// Advanced is the result of a Step.
type Advanced struct {
	Revision uint64 // the new one
	Err      error
}

// Advance replaces entries, each with a different key. ErrConflict: the entry has changed
// since it was read, and Next was not written. ErrAway: Next may have been written all the
// same; read before judging again.
func (p *Publisher) Advance(ctx context.Context, steps []Step) []Advanced {
	out := make([]Advanced, len(steps))
	bodies := make([][]byte, len(steps))
	msgs, of := make([]*nats.Msg, 0, len(steps)), make([]int, 0, len(steps))
	for i := range steps {
		s := &steps[i]
		if out[i].Err = checkKey(s.Key); out[i].Err != nil {
			continue
		}
		if bodies[i], out[i].Err = s.Next.encode(); out[i].Err != nil {
			out[i].Err = fmt.Errorf("ledger: roster of %s: %w", s.Key, out[i].Err)
			continue
		}
		m := &nats.Msg{Subject: p.l.subject(atRoster, s.Key), Header: nats.Header{}, Data: bodies[i]}
		expect(m, s.Revision)
		msgs, of = append(msgs, m), append(of, i)
	}
	for k, a := range p.together(ctx, msgs) {
		i := of[k]
		s, o := &steps[i], &out[i]
		if o.Revision, o.Err = a.seq, p.l.putError(ctx, s.Key, s.Revision, a.err); o.Err == nil {
			p.l.wrote.set(s.Key, a.seq, bodies[i])
		}
		if s.Revision == 0 && errors.Is(o.Err, ErrConflict) {
			o.Revision, o.Err = p.l.overMarker(ctx, s.Key, bodies[i], o.Err)
		}
	}
	return out
}
