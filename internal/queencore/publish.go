package queencore

import (
	"errors"
	"log/slog"
	"time"

	"github.com/beatfabric/hivebeat/internal/fleet"
	"github.com/beatfabric/hivebeat/internal/ledger"
)

// postAgain is how long events wait after a failure to publish one.
const postAgain = time.Second

// post publishes the transitions of workers: one batch at a time, in order for one worker
// and in parallel for different workers. It publishes the first transitions of all workers
// together, after that the second of each worker whose first is stored, and so on.
type post struct {
	busy    bool
	notNow  time.Time // earliest next batch, after a failure
	batch   []fleet.Happened
	rounds  [][]int // indexes into batch
	failed  map[workerKey]bool
	again   []bool
	stored  int
	problem error // the first error
}

type workerKey struct{ hive, id string }

// next returns when there is work even without any input; zero if there is none.
func (p *post) next(now time.Time) time.Time {
	if p.busy || !p.notNow.After(now) {
		return time.Time{}
	}
	return p.notNow
}

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
	p := &c.post
	if p.busy || now.Before(p.notNow) || !c.mayPublish() {
		return
	}
	batch := c.out.Take(now)
	if len(batch) == 0 {
		return
	}
	*p = post{busy: true, batch: batch, failed: make(map[workerKey]bool), again: make([]bool, len(batch))}
	nth := make(map[workerKey]int, len(batch))
	for i := range batch {
		key := p.key(i)
		n := nth[key]
		nth[key]++
		if n == len(p.rounds) {
			p.rounds = append(p.rounds, nil)
		}
		p.rounds[n] = append(p.rounds[n], i)
	}
	c.publishRound(now)
}

func (p *post) key(i int) workerKey { return workerKey{p.batch[i].Data.Hive, p.batch[i].Data.Worker} }

// publishRound publishes the next round, or ends the batch.
func (c *Core) publishRound(now time.Time) {
	p := &c.post
	op := &Op{Kind: OpPublish, Patient: true}
	if c.cfg.NoJetStream {
		op = &Op{Kind: OpPublishPlain}
	}
	var of []int
	for len(p.rounds) > 0 && len(of) == 0 {
		round := p.rounds[0]
		p.rounds = p.rounds[1:]
		for _, i := range round {
			if p.failed[p.key(i)] {
				p.again[i] = true
				continue
			}
			ev := c.cfg.Subjects.NewEvent(p.batch[i].ID, now, p.batch[i].Data)
			if op.Kind == OpPublishPlain {
				op.Events = append(op.Events, ev)
			} else {
				body, err := ev.Encode()
				if err != nil {
					c.ready.Logs.Add(slog.LevelError, "cannot encode an event", slog.String("id", ev.ID), slog.Any("err", err))
					p.stored++ // it is settled, and does not hold up the others
					continue
				}
				op.Msgs = append(op.Msgs, ledger.NewEventMsg(&ev, body, now))
			}
			of = append(of, i)
		}
	}
	if len(of) == 0 {
		c.endBatch(now)
		return
	}
	c.do(op, func(now time.Time, op *Op) {
		for k, err := range op.Errs {
			i := of[k]
			switch {
			case err == nil, errors.Is(err, ledger.ErrTooOld):
				p.stored++
				c.live.done(p.batch[i].ID)
				c.store.full = c.store.full && err != nil
			case c.cfg.NoJetStream, errors.Is(err, ledger.ErrAway), errors.Is(err, ledger.ErrNoSpace):
				p.again[i], p.failed[p.key(i)] = true, true
				p.problem = firstOf(p.problem, err)
			default: // it can never be stored, and does not hold up the others
				c.ready.Logs.Add(slog.LevelError, "an event was refused and is given up", slog.String("id", p.batch[i].ID), slog.Any("err", err))
				p.stored++
				c.live.done(p.batch[i].ID)
			}
		}
		c.publishRound(now)
	})
}

// endBatch returns the transitions that could not be published to the outbox.
func (c *Core) endBatch(now time.Time) {
	p := &c.post
	var back []fleet.Happened
	for i, again := range p.again {
		if again {
			back = append(back, p.batch[i])
		}
	}
	c.out.Done(p.stored, back)
	problem := p.problem
	*p = post{}
	if problem != nil {
		p.notNow = now.Add(postAgain)
		c.trouble(problem, now)
	}
}
