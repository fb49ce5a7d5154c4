package hive

import (
	"log/slog"
	"strconv"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/beatfabric/hivebeat"
	"github.com/beatfabric/hivebeat/bus"
)

// Roll calls: those that this hive calls of its workers, and those of queens that it
// answers.

// callRoll asks the workers to beat now: at the start nobody is known, and after a
// cut nobody knows who came through. It returns the spread of the call.
func (e *ear) callRoll(workers int) time.Duration {
	spread := max(hivebeat.WorkerRollSpread, time.Duration(workers)*time.Millisecond)
	err := e.nc.Publish(e.subjects.WorkerRollcall(e.cfg.ID), strconv.AppendInt(nil, spread.Milliseconds(), 10))
	if err != nil {
		e.log.Debug("roll call not sent", slog.Any("error", err))
	}
	return spread
}

// awaitAnswers waits for the answers to a roll call. What was sent on reconnect shows
// the workers as old as the time in which nobody was heard, and as late therefore;
// nothing else would tell before the next regular snapshot that they are there, as
// their verdict never changed.
func (e *ear) awaitAnswers(now time.Time, spread time.Duration) {
	e.mu.Lock()
	until, ok := e.reg.AwaitAnswers(now, spread)
	e.mu.Unlock()
	if ok {
		e.answers.Reset(until.Sub(now))
	}
}

// answered ends the wait for all.
func (e *ear) answered(beats <-chan *nats.Msg) {
	e.look(time.Now())
	e.hearAll(beats)
	e.mu.Lock()
	answered := e.reg.Answered(time.Now())
	e.mu.Unlock()
	if answered {
		e.tellAges()
	}
}

// tellAges has one more snapshot sent, at the pace of facts. If NATS is away again
// there will be another call.
func (e *ear) tellAges() {
	if e.sight.Connected() {
		e.pulse.Touch()
	}
}

// called answers a roll call of a queen.
func (e *ear) called(m *nats.Msg) {
	e.look(time.Now())
	e.sight.Prove(time.Now())
	spread, err := bus.ParseSpread(m.Data, hivebeat.HiveRollSpread)
	if err != nil {
		e.mu.Lock()
		e.reg.Refuse(err)
		e.mu.Unlock()
		e.logRefused(time.Now(), m.Subject, err)
		return
	}
	e.pulse.Call(spread)
}
