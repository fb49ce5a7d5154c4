package queencore

import (
	"errors"
	"log/slog"
	"time"

	"github.com/beatfabric/hivebeat/internal/fleet"
	"github.com/beatfabric/hivebeat/internal/ledger"
)

// makeRoom makes room in the outbox for a burst of events of the whole fleet. If the stream
// is too small for that, it logs a warning, and repeats it when the fleet has doubled.
func (c *Core) makeRoom() {
	workers := c.view.Index().Totals().Workers
	c.out.Room(workers)
	most := c.cfg.EventsMax
	if need := ledger.BurstBytes(workers); most <= 0 || need <= most || workers < 2*c.warned || c.cfg.NoJetStream {
		return
	}
	c.warned = workers
	c.ready.Logs.Add(slog.LevelWarn, "a burst of events of the whole fleet does not fit into the stream and would drop its oldest events: raise --events-max",
		slog.Int("workers", workers), slog.Int64("needed", ledger.BurstBytes(workers)), slog.Int64("events_max", most))
}

// mayPublish reports whether events can go out now.
func (c *Core) mayPublish() bool {
	if c.cfg.NoJetStream {
		return c.hearing.Connected()
	}
	return c.store.there()
}

// publish starts publishing the transitions that wait.
func (c *Core) publish(now time.Time) {
	if !c.mayPublish() {
		return
	}
	batch := c.out.Take(now)
	if len(batch) == 0 {
		return
	}
	op := &Op{Kind: OpPublish, Patient: true}
	if c.cfg.NoJetStream {
		op = &Op{Kind: OpPublishPlain}
	}
	var sent []fleet.Happened
	settled := 0
	for _, h := range batch {
		ev := c.cfg.Subjects.NewEvent(h.ID, now, h.Data)
		if op.Kind == OpPublishPlain {
			op.Events = append(op.Events, ev)
		} else {
			body, err := ev.Encode()
			if err != nil {
				c.ready.Logs.Add(slog.LevelError, "cannot encode an event", slog.String("id", ev.ID), slog.Any("err", err))
				settled++ // it does not hold up the others
				continue
			}
			op.Msgs = append(op.Msgs, ledger.NewEventMsg(&ev, body, now))
		}
		sent = append(sent, h)
	}
	if len(sent) == 0 {
		c.out.Done(now, settled, nil)
		return
	}
	c.do(op, func(now time.Time, op *Op) {
		var back []fleet.Happened
		var problem error
		for i, err := range op.Errs {
			switch {
			case err == nil, errors.Is(err, ledger.ErrTooOld):
				c.store.full = c.store.full && err != nil
			case c.cfg.NoJetStream, errors.Is(err, ledger.ErrAway), errors.Is(err, ledger.ErrNoSpace):
				back = append(back, sent[i])
				problem = firstOf(problem, err)
				continue
			default: // it can never be stored, and does not hold up the others
				c.ready.Logs.Add(slog.LevelError, "an event was refused and is given up", slog.String("id", sent[i].ID), slog.Any("err", err))
			}
			settled++
			c.live.done(sent[i].ID)
		}
		c.out.Done(now, settled, back)
		c.trouble(problem, now)
	})
}
