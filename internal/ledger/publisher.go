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
// it sends up to 512 messages before it waits for an answer. The rules of Ledger.Publish,
// Republish and Advance apply. It is safe for concurrent use.
type Publisher struct {
	l  *Ledger
	js jetstream.JetStream // its answers go to answered

	gate   sync.RWMutex // held while sending, so that nothing is sent after Close
	closed bool

	room chan struct{} // one element for each message in flight

	mu  sync.Mutex
	way map[*nats.Msg]flight // not answered yet

	// together is p.send; tests replace it with a fake.
	together func(context.Context, []*nats.Msg) []ack
}

// flight is one message of a burst, in flight.
type flight struct {
	b *burst
	i int
}

// burst holds the answers to messages that were sent together.
type burst struct {
	acks []ack
	left int
	done chan struct{}
}

type ack struct {
	seq uint64
	err error
}

// underWay limits the messages in flight over all bursts. The timeout of a message counts
// from when it was sent, and a slow server must not be mistaken for one that is away.
const underWay = 512

// NewPublisher returns a publisher into l. It holds one subscription and two goroutines of
// nats.go from its first use until Close.
func NewPublisher(l *Ledger) (*Publisher, error) {
	p := &Publisher{l: l, room: make(chan struct{}, underWay), way: make(map[*nats.Msg]flight)}
	p.together = p.send
	var err error
	p.js, err = jetstream.New(l.nc, // subjects are complete: a domain makes no difference to them
		jetstream.WithPublishAsyncTimeout(l.cfg.Timeout),
		jetstream.WithPublishAsyncMaxPending(2*underWay), // never reached
		jetstream.WithPublishAsyncErrHandler(func(_ jetstream.JetStream, m *nats.Msg, err error) { p.answered(m, ack{err: err}) }),
		jetstream.WithPublishAsyncAckHandler(func(_ jetstream.JetStream, m *nats.Msg, a *jetstream.PubAck) {
			p.answered(m, ack{seq: a.Sequence})
		}),
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
	b := &burst{acks: make([]ack, len(msgs)), left: len(msgs), done: make(chan struct{})}
	if len(msgs) == 0 {
		return nil
	}
	for i, m := range msgs {
		select {
		case p.room <- struct{}{}:
		case <-ctx.Done():
			p.giveUp(b, ctx.Err())
			for k := i; k < len(msgs); k++ {
				b.acks[k].err = ctx.Err()
			}
			return b.acks
		}
		p.mu.Lock()
		p.way[m] = flight{b, i}
		p.mu.Unlock()
		if err := p.sendOne(m); err != nil {
			p.answered(m, ack{err: err})
		}
	}
	select {
	case <-b.done:
	case <-ctx.Done():
		p.giveUp(b, ctx.Err())
	}
	return b.acks
}

func (p *Publisher) sendOne(m *nats.Msg) error {
	p.gate.RLock()
	defer p.gate.RUnlock()
	if p.closed || !p.l.nc.IsConnected() { // or the reconnect buffer would deliver it late
		return nats.ErrDisconnected
	}
	_, err := p.js.PublishMsgAsync(m, jetstream.WithRetryAttempts(0))
	return err
}

// answered records the answer to a message once: nats.go may report an error twice. nats.go
// may call it with one of its locks held.
func (p *Publisher) answered(m *nats.Msg, a ack) {
	p.mu.Lock()
	defer p.mu.Unlock()
	f, ok := p.way[m]
	if !ok {
		return
	}
	delete(p.way, m)
	<-p.room
	f.b.acks[f.i] = a
	if f.b.left--; f.b.left == 0 {
		close(f.b.done)
	}
}

// giveUp stops waiting for the answers to b.
func (p *Publisher) giveUp(b *burst, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for m, f := range p.way {
		if f.b == b {
			delete(p.way, m)
			<-p.room
			b.acks[f.i].err = err
		}
	}
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

// Publish is Ledger.Publish for many events. It returns one error per event, nil if the
// event is stored or was stored before. The events reach the stream in this order, except
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

// Step is one roster entry to advance, with the arguments of Ledger.Advance.
type Step struct {
	Key      string
	Revision uint64
	Next     RosterEntry
}

// Advanced is the result of a Step.
type Advanced struct {
	Revision uint64 // the new one
	Err      error
}

// Advance is Ledger.Advance for many entries, each with a different key.
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
