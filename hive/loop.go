package hive

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/beatfabric/hivebeat"
	"github.com/beatfabric/hivebeat/bus"
	"github.com/beatfabric/hivebeat/internal/bootid"
	"github.com/beatfabric/hivebeat/internal/core"
	"github.com/beatfabric/hivebeat/internal/detector"
	"github.com/beatfabric/hivebeat/internal/hivecore"
	"github.com/beatfabric/hivebeat/internal/link"
	"github.com/beatfabric/hivebeat/internal/wire"
)

// loop passes inputs to the core of a hive, one turn each, and carries out what the
// core asks for. What to judge, and when, is up to the core.
type loop struct {
	*Hive
	link  *link.Link
	beats <-chan *nats.Msg
	wake  *time.Timer
	armed time.Time // when wake fires
	heard []*nats.Msg
}

// listen drives the core until ctx ends. It returns an error if the connection is
// closed.
func (h *Hive) listen(ctx context.Context, beats, calls <-chan *nats.Msg, exits <-chan []detector.Exit) error {
	outside, err := link.Open(h.nc, h.cfg.System, h.log)
	if err != nil {
		return fmt.Errorf("hive: %w", err)
	}
	defer outside.Close()
	ctx, cancel := context.WithCancel(ctx)
	followed := make(chan struct{})
	go func() {
		defer close(followed)
		outside.Run(ctx)
	}()
	defer func() {
		cancel()
		<-followed
	}()
	l := newLoop(h, outside, beats)
	defer l.wake.Stop()

	err = l.turn(ctx, func(now time.Time, _ uint64) { h.core.Connection(now, outside.Connection()) })
	for err == nil {
		select {
		case <-ctx.Done():
			return nil
		case m := <-beats:
			err = l.hearBeats(ctx, m)
		case m := <-calls:
			err = l.turn(ctx, func(now time.Time, _ uint64) { h.called(now, m) })
		case list := <-exits:
			err = l.turn(ctx, func(now time.Time, _ uint64) { h.core.Exited(now, bootid.Clock(), list) })
		case list := <-h.readings:
			err = l.turn(ctx, func(now time.Time, _ uint64) { h.core.Progress(now, list) })
		case e := <-outside.Events():
			err = l.turn(ctx, func(now time.Time, dropped uint64) { e.Feed(now, dropped, h.core) })
		case <-l.wake.C:
			l.armed = time.Time{}
			outside.Look()
			err = l.turn(ctx, h.core.Tick)
		}
	}
	return err
}

func newLoop(h *Hive, outside *link.Link, beats <-chan *nats.Msg) *loop {
	return &loop{Hive: h, link: outside, beats: beats, wake: time.NewTimer(0), heard: make([]*nats.Msg, 0, core.Batch)}
}

// hearBeats handles m, and as many of the waiting beats behind it as fit a batch: a
// wide select costs more than a beat.
func (l *loop) hearBeats(ctx context.Context, m *nats.Msg) error {
	debug := l.log.Enabled(ctx, slog.LevelDebug)
	heard := l.heard[:0]
	now := time.Now() // when m was taken; the beats behind it look older by the time that the batch takes
	l.mu.Lock()
	for more := min(len(l.beats), core.Batch-1); ; more-- {
		if l.core.Beat(now, m.Subject, m.Data) && debug {
			heard = append(heard, m)
		}
		if more == 0 {
			break
		}
		m = <-l.beats
	}
	r := l.core.Ready()
	l.mu.Unlock()
	for _, m := range heard {
		l.log.Debug("beat", slog.String("worker", string(wire.PeekWorker(m.Data))), slog.Int("bytes", len(m.Data)))
	}
	return l.do(ctx, &r)
}

// turn handles an input other than a beat. All waiting beats come first, so that no
// worker is judged while its beat waits.
func (l *loop) turn(ctx context.Context, input func(now time.Time, dropped uint64)) error {
	for n := len(l.beats); n > 0; n -= core.Batch {
		if err := l.hearBeats(ctx, <-l.beats); err != nil {
			return err
		}
	}
	now := time.Now()
	l.mu.Lock()
	input(now, l.droppedLocked())
	r := l.core.Ready()
	l.mu.Unlock()
	return l.do(ctx, &r)
}

// called handles a queen's roll call, a notice of a queen about this hive, or a request to
// forget a GPU.
func (h *Hive) called(now time.Time, m *nats.Msg) {
	if f, ok := hivebeat.ParseForget(m.Data); ok {
		if m.Subject == h.subjects.HiveRollcallOf(h.cfg.ID) { // a GPU belongs to one hive
			select {
			case h.forgets <- f:
			default: // as many as fit wait; the asker repeats the request
			}
		}
		return
	}
	if n, ok := hivebeat.ParseNotice(m.Data); ok {
		if n.ID == h.cfg.ID && n.Inc == h.inc { // otherwise it is for another process
			h.core.Noticed(now, n)
		}
		return
	}
	if spread, err := bus.ParseSpread(m.Data, hivebeat.HiveRollSpread); err != nil {
		h.core.Refused(now, m.Subject, err)
	} else {
		h.core.RollCall(now, spread)
	}
}

// do carries out what the core asks for.
func (l *loop) do(ctx context.Context, r *hivecore.Ready) error {
	l.watchProcs(r.Watches)
	l.urge(r)
	l.write(ctx, r.Logs)
	if r.Roll > 0 {
		l.callRoll(r.Roll)
	}
	for _, n := range r.Notices {
		l.publish(n.Append(nil))
	}
	l.link.Send(ctx, r.Signals)
	l.link.Locate(ctx, r.Seek)
	if !r.Wake.Equal(l.armed) {
		l.armed = r.Wake
		l.wake.Reset(time.Until(r.Wake))
	}
	if r.Closed {
		return fmt.Errorf("hive: %w", nats.ErrConnectionClosed)
	}
	return nil
}
