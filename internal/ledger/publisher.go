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

// Publisher stores many events, and advances many entries of the roster, in about
// the time of one: up to 512 are on their way before an answer is waited for. The
// rules are those of Ledger.Publish, Republish and Advance. It is safe for
// concurrent use.
type Publisher struct {
	l  *Ledger
	js jetstream.JetStream // its answers come to answered

	gate   sync.RWMutex // held while something is sent, so that nothing is after Close
	closed bool

	room chan struct{} // holds one for each message under way

	mu  sync.Mutex
	way map[*nats.Msg]flight // not answered yet

	// together is p.send; tests put a fake here.
	together func(context.Context, []*nats.Msg) []ack
}

// flight is a message under way: one of a burst.
type flight struct {
	b *burst
	i int
}

// burst is the answers to what was sent at once.
type burst struct {
	acks []ack
	left int
	done chan struct{}
}

type ack struct {
	seq uint64
	err error
}

// underWay is how many messages of all bursts are under way at once: the time that
// each may take counts from when it was sent, and a server that is slow must not
// be taken for one that is away.
const underWay = 512

// NewPublisher returns a publisher into l. It holds one subscription and two
// goroutines of nats.go from its first use on, until Close.
func NewPublisher(l *Ledger) (*Publisher, error) {
	p := &Publisher{l: l, room: make(chan struct{}, underWay), way: make(map[*nats.Msg]flight)}
	p.together = p.send
	var err error
	p.js, err = jetstream.New(l.nc, // subjects are full ones: a domain makes no difference to them
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

// Close ends what is under way with an error that wraps ErrAway, and refuses what
// comes after.
func (p *Publisher) Close() {
	p.gate.Lock()
	closed := p.closed
	p.closed = true
	p.gate.Unlock()
	if !closed {
		p.js.CleanupPublisher()
	}
}

// send sends all of msgs, and returns their answers when it has the last one, or
// when ctx ends.
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

// answered takes the answer to a message, once: nats.go may give an error twice. It
// may be called under a lock of nats.go.
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

// giveUp waits for nothing of b any more.
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

// Letter is an event that is to be stored.
type Letter struct {
	ID           string // the Nats-Msg-Id
	Hive, Worker string
	Kind         hivebeat.Kind
	Body         []byte        // its JSON; not to be changed after
	Age          time.Duration // since it was published first
}

// NewLetter makes a letter of an event and its JSON, at now.
func NewLetter(ev *hivebeat.Event, body []byte, now time.Time) Letter {
	return Letter{ID: ev.ID, Hive: ev.Data.Hive, Worker: ev.Data.Worker, Kind: ev.Data.Kind, Body: body, Age: now.Sub(ev.Time)}
}

// Publish is Ledger.Publish for many: it returns the error of each, nil where it is
// stored or was before. They reach the stream in this order, except that one which
// another queen publishes at this moment is tried again after the others.
func (p *Publisher) Publish(ctx context.Context, letters []Letter) []error {
	errs := make([]error, len(letters))
	open := make([]int, 0, len(letters))
	for i := range letters {
		if errs[i] = p.l.checkLetter(&letters[i]); errs[i] == nil {
			open = append(open, i)
		}
	}
	tctx, cancel := context.WithTimeout(ctx, p.l.cfg.Timeout)
	defer cancel()
	for pause := inProcessFirst; len(open) > 0; pause = min(2*pause, inProcessMost) {
		msgs := make([]*nats.Msg, len(open))
		for k, i := range open {
			msgs[k] = p.l.letterMsg(&letters[i])
		}
		again := open[:0]
		for k, a := range p.together(ctx, msgs) {
			i := open[k]
			errs[i] = p.l.letterError(ctx, &letters[i], a.err)
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
				errs[i] = wrap(ctx, "event "+letters[i].ID, fmt.Errorf("%w: %w", errs[i], tctx.Err()))
			}
			return errs
		}
	}
	return errs
}

// Step is an entry of the roster that is to be advanced: as Ledger.Advance has it.
type Step struct {
	Key      string
	Revision uint64
	Next     RosterEntry
}

// Advanced is what became of a Step.
type Advanced struct {
	Revision uint64 // the new one
	Err      error
}

// Advance is Ledger.Advance for many, each of another key.
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
