// Package hivecore is the core of a hive: the state machine of its loop. It decides
// when silence is evidence, which parts of a verdict cannot wait, when to call the
// workers' roll, and what to log; package internal/detector reaches the verdicts
// themselves. It has no NATS, no clock, no goroutine and no lock.
//
//	Beat  RollCall  Refused  Exited ──┐         ┌──▶ snapshots, a roll call, a token
//	Connection  TokenBack  Closed     ├──▶ Core ┼──▶ processes to be watched
//	Settled  System  Progress         │   Ready ├──▶ transitions and log lines
//	Tick, at Ready.Wake ──────────────┘         └──▶ when to wake up
//
// Package hive is its shell on NATS, internal/sim its shell under a virtual clock. Both
// pass it inputs with the time when they arrived, which never goes backwards, and carry
// out what Ready returns.
package hivecore

import (
	"log/slog"
	"time"

	"github.com/beatfabric/hivebeat"
	"github.com/beatfabric/hivebeat/internal/core"
	"github.com/beatfabric/hivebeat/internal/detector"
	"github.com/beatfabric/hivebeat/internal/liveness"
)

const (
	// RollGap is the least time between two answers to roll calls of queens.
	RollGap = 5 * time.Second

	askEvery = 5 * time.Second        // minimum time between two roll calls of askBack
	askPace  = 100 * time.Microsecond // time per answer: 10,000 answers arrive within a second, which is before the windows end
)

// The kernel is faster than the network: what a process sent before its end, a goodbye
// above all, may still be on its way. So a shell waits for it before it calls Exited.
const (
	// LastWordsSettle is the wait for beats that were written but not yet read by the
	// server, or that cross a cluster. A goodbye that was flushed, as package worker
	// does, arrives without it.
	LastWordsSettle = 5 * time.Millisecond
	// LastWordsWithin bounds the whole wait where NATS does not answer: the process has
	// certainly ended.
	LastWordsWithin = 100 * time.Millisecond
)

// Config configures the core of one hive.
type Config struct {
	ID string
	// Subject is the subject of beats. The core logs it, and recognizes by it the
	// pinned form, which appends the worker's id.
	Subject string
	// NS is the pid namespace of this process, PID its id. The core asks to watch
	// processes of workers if both are set.
	NS  string
	PID uint64
	// Own is the id of the NATS server that runs in this process, if one does.
	Own string
	// StallAfter and PushFacts are as in hive.Config.
	StallAfter, PushFacts time.Duration
}

// Ready is the work that follows from the inputs since the last one. Its slices belong
// to the caller.
type Ready struct {
	// Inputs for bus.Schedule: Ended and Changed ask for a snapshot at once, Touch for
	// one at the pace of facts, Reconnected for one soon. Answer reports a queen's roll
	// call, to be answered within Spread.
	Ended, Changed, Touch, Reconnected, Answer bool
	Spread                                     time.Duration

	// Roll, if not 0, asks for a roll call of the workers with this spread.
	Roll time.Duration
	// Notices are for refused workers. The shell publishes them where workers receive
	// roll calls.
	Notices []hivebeat.Notice
	// Watches are processes to watch, or to stop watching, in this order. The shell
	// reports their ends with Exited.
	Watches []detector.Watch
	// Seek are connections of workers, as named in their beats. If NATS knows the
	// address of one, the shell reports it with Located.
	Seek []string
	// Signals are answered with TokenBack and Settled.
	Signals core.Signals

	// Steps are the transitions of workers. Each has a line in Logs as well.
	Steps []detector.Step
	Logs  core.Logs

	// Wake is the latest time for the next Tick.
	Wake time.Time
	// Closed reports that the connection is closed for good: the hive must end.
	Closed bool
}

// Core is the core of one hive. Use New. Its methods are inputs, which take the time;
// Ready, to be called after each input, or after several that came at once; and
// queries, which need no Ready.
type Core struct {
	cfg  Config
	reg  *detector.Registry
	hear *core.Hearing
	logs core.Logs
	out  Ready // decided, but not handed out yet

	seq     uint64    // of the last snapshot
	unheard bool      // a deadline has passed, and the hive does not know whether messages reach it
	answers time.Time // end of the wait for answers to a roll call; zero: no wait
	asked   time.Time // when askBack last called the roll
	pushAt  time.Time // no facts are pushed before
	pushing bool      // some facts wait for pushAt
	closed  bool
	kept    kept
}

// New returns the core of a hive that knows no workers and was never connected.
func New(cfg Config) *Core {
	c := &Core{cfg: cfg, reg: detector.New(cfg.ID)}
	c.hear = core.NewHearing(c.reg, &c.logs)
	c.reg.TellLoops()
	c.reg.SetStallAfter(cfg.StallAfter)
	c.reg.SetOwn(cfg.Own)
	if cfg.NS != "" && cfg.PID != 0 {
		c.reg.WatchExits(cfg.NS, cfg.PID)
	}
	return c
}

// Ready returns the work that follows from the inputs since the last call.
func (c *Core) Ready() Ready {
	r := c.out
	c.out = Ready{}
	r.Signals = c.hear.TakeSignals()
	r.Logs, c.logs = c.logs, nil
	r.Wake, r.Closed = c.nextTick(), c.closed
	return r
}

func (c *Core) nextTick() time.Time {
	at := c.hear.NextLook()
	if c.hear.Trusts() && !c.unheard {
		if next, ok := c.reg.Next(); ok {
			at = earlier(at, next)
		}
	}
	if !c.answers.IsZero() {
		at = earlier(at, c.answers)
	}
	if c.pushing {
		at = earlier(at, c.pushAt)
	}
	if twins, ok := c.reg.TwinsAt(); ok && c.hear.Connected() {
		at = earlier(at, twins)
	}
	return at
}

func earlier(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}

// wakeUp starts every input: it checks whether this hive was stopped or starved.
func (c *Core) wakeUp(now time.Time) {
	if paused := c.hear.Look(now); paused > 0 {
		c.reg.Paused(paused)
	}
	c.reg.Ran(now)
}

// conclude ends every input: it collects the consequences in c.out.
func (c *Core) conclude(now time.Time) {
	if steps := c.reg.TakeSteps(); len(steps) > 0 {
		// A snapshot that reports an end does not wait for the pace of other changes.
		if detector.Ended(steps) {
			c.out.Ended = true
		} else {
			c.out.Changed = true
		}
		for i := range steps {
			logStep(&c.logs, &steps[i])
		}
		c.out.Steps = append(c.out.Steps, steps...)
	}
	c.out.Notices = append(c.out.Notices, c.reg.TakeNotices()...)
	// The same holds for a worker that must not be picked.
	set, cleared := c.reg.TakeClosed()
	c.out.Ended, c.out.Changed = c.out.Ended || set, c.out.Changed || cleared
	if list := c.reg.TakeWatches(); len(list) > 0 {
		c.out.Watches = append(c.out.Watches, list...)
	}
	if c.reg.TakeAsk() {
		c.askBack(now)
	}
	if c.hear.Connected() && c.reg.AskTwins(now) {
		c.out.Roll = max(c.out.Roll, c.askSpread())
	}
	c.out.Seek = append(c.out.Seek, c.reg.TakeSeek()...)
	// One more snapshot, at the pace of facts. While NATS is away it is not needed:
	// another roll call will follow.
	if c.reg.Answered(now) && c.hear.Connected() {
		c.out.Touch = true
	}
	c.hear.Ask(now)
}

// Beat handles a message of a worker. It reports whether the message was accepted.
func (c *Core) Beat(now time.Time, subject string, payload []byte) (ok bool) {
	c.wakeUp(now)
	c.proved(now)
	pinned := ""
	if at := len(c.cfg.Subject) + 1; len(subject) > at {
		pinned = subject[at:]
	}
	heard, err := c.reg.Receive(now, payload, pinned)
	if err != nil {
		c.refuse(now, subject, err)
	}
	if heard.Facts && c.cfg.PushFacts > 0 && !c.pushing {
		c.pushFacts(now)
	}
	c.conclude(now)
	return err == nil
}

// proved records that a message arrived. That proves that messages reach the hive, so a
// deadline that waits for a proof counts again.
func (c *Core) proved(now time.Time) {
	c.hear.Prove(now)
	c.unheard = false
}

// RollCall handles a roll call of a queen, whose answer is due within spread.
func (c *Core) RollCall(now time.Time, spread time.Duration) {
	c.wakeUp(now)
	c.proved(now)
	if !c.out.Answer || spread < c.out.Spread {
		c.out.Answer, c.out.Spread = true, spread
	}
	c.conclude(now)
}

// Noticed handles a queen's notice that it refuses this hive's own snapshots.
func (c *Core) Noticed(now time.Time, n hivebeat.Notice) {
	c.wakeUp(now)
	c.proved(now)
	if c.hear.Limiter.Allow("notice", now) > 0 {
		text, hint := n.Text("hive")
		c.logs.Add(slog.LevelWarn, text, slog.Uint64("inc", n.Inc), slog.Uint64("believed", n.Believed), slog.String("hint", hint))
	}
	c.conclude(now)
}

// Refused handles a message that the shell cannot parse.
func (c *Core) Refused(now time.Time, subject string, err error) {
	c.wakeUp(now)
	c.proved(now)
	c.refuse(now, subject, err)
	c.conclude(now)
}

func (c *Core) refuse(now time.Time, subject string, err error) {
	c.reg.Refuse(err)
	c.logs.Add(slog.LevelDebug, "message refused", slog.String("subject", subject), slog.Any("err", err))
	reason := hivebeat.ReasonOf(err)
	if reason == hivebeat.RefusedStale { // not unusual, and counted
		return
	}
	if n := c.hear.Limiter.Allow(string(reason), now); n > 0 {
		c.logs.Add(slog.LevelWarn, "messages refused", slog.String("reason", string(reason)), slog.Uint64("count", n),
			slog.String("subject", subject), slog.Any("err", err))
	}
}

// pushFacts reports changed facts, or waits until pushAt.
func (c *Core) pushFacts(now time.Time) {
	if c.pushing = now.Before(c.pushAt); !c.pushing {
		c.pushAt = now.Add(c.cfg.PushFacts)
		c.out.Touch = true
	}
}

// Exited handles processes that ended, after their last messages. A worker whose
// process this hive can see is lost when that process ends, and need not be silent for
// long enough. boot is the boot clock of the machine at now, in ms, or 0 where there is
// none: a message that was sent before the end does not revive the worker, however late
// it arrives.
func (c *Core) Exited(now time.Time, boot uint64, list []detector.Exit) {
	c.wakeUp(now)
	for _, x := range list {
		// Rounded up, because the clocks of beats are rounded down.
		if ago := uint64(hivebeat.MillisOf(now.Sub(x.At))); boot > ago {
			x.Boot = boot - ago + 1
		}
		c.reg.Exit(now, x)
	}
	c.conclude(now)
}

// Progress handles readings of the processes of workers from the operating system: a
// silent worker whose process is loading is late, not lost.
func (c *Core) Progress(now time.Time, list []detector.Reading) {
	c.wakeUp(now)
	c.reg.Progress(now, list)
	c.conclude(now)
}

// Unwatched reports that a process of Ready.Watches cannot be watched.
func (c *Core) Unwatched(p detector.Process) { c.reg.Unwatched(p) }

// Tick handles the passage of time. dropped counts all messages dropped so far because
// they came faster than they were handled. The caller must first handle all beats that
// have arrived: a worker whose beat waits is not late.
func (c *Core) Tick(now time.Time, dropped uint64) {
	c.wakeUp(now)
	c.hear.Drops(now, dropped)
	c.judge(now)
	if !now.Before(c.answers) {
		c.answers = time.Time{}
	}
	if c.pushing {
		c.pushFacts(now)
	}
	c.conclude(now)
}

// judge detects the workers whose deadline has passed, if silence is evidence.
func (c *Core) judge(now time.Time) {
	c.unheard = false
	if next, ok := c.reg.Next(); !ok || now.Before(next) || !c.hear.Trusts() {
		return
	}
	if !c.hear.Hears(now) {
		c.unheard = true // a token is due; its return calls judge again
		return
	}
	c.reg.Detect(now)
}

// Connection handles the state of the connection.
func (c *Core) Connection(now time.Time, conn core.Connection) {
	c.wakeUp(now)
	if conn.Closed {
		c.closed = true
		return
	}
	switch turn := c.hear.Connection(now, conn); {
	case turn.First: // at the start no worker is known
		c.reg.Start(now)
		c.logs.Add(slog.LevelInfo, "listening to workers", slog.String("subject", c.cfg.Subject))
		c.callWorkers()
	case turn.Back:
		c.out.Reconnected = true
	}
	c.conclude(now)
}

// TokenBack handles a token that returned, after everything that NATS had for this hive
// before it. dropped is as in Tick.
func (c *Core) TokenBack(now time.Time, token, dropped uint64) {
	c.wakeUp(now)
	c.hear.Drops(now, dropped)
	if blind, roll, ok := c.hear.TokenBack(now, token); ok {
		c.reg.Credit(blind)
		if roll { // it is not known which workers came through the cut
			c.awaitAnswers(now, c.callWorkers())
		}
		c.judge(now)
	}
	c.conclude(now)
}

// Closed handles a client's connection that closed. The client may or may not be a
// worker.
//
// The server is the first to know that a client is gone. What the client sent before
// may still be on its way to this hive, over another connection. So Signals.Settle
// follows when a window opens; until it is answered, a beat over the closed connection
// closes no window.
func (c *Core) Closed(now time.Time, d liveness.Disconnect) {
	c.wakeUp(now)
	c.hear.Closed(now, d)
	c.conclude(now)
}

// Settled answers Signals.Settle.
func (c *Core) Settled(now time.Time, by liveness.Path) {
	c.wakeUp(now)
	c.hear.Settled(now, by)
	c.conclude(now)
}

// System handles the state of the connection to the system account.
func (c *Core) System(now time.Time, up bool) {
	c.wakeUp(now)
	c.hear.System(up)
	c.conclude(now)
}

// callWorkers asks all workers to beat, and returns the spread.
func (c *Core) callWorkers() (spread time.Duration) {
	spread = max(hivebeat.WorkerRollSpread, time.Duration(c.reg.Len())*time.Millisecond)
	c.out.Roll = max(c.out.Roll, spread)
	return spread
}

// askBack calls the roll when windows of workers are about to end: a worker may have
// come back, and its beat may be lost.
func (c *Core) askBack(now time.Time) {
	if !c.asked.IsZero() && now.Sub(c.asked) < askEvery {
		return
	}
	c.asked = now
	c.out.Roll = max(c.out.Roll, c.askSpread())
}

// askSpread returns the spread of a roll call whose answers are urgent.
func (c *Core) askSpread() time.Duration {
	return max(hivebeat.WorkerRollSpread, time.Duration(c.reg.Len())*askPace)
}

// Located handles the client address of a connection of Ready.Seek.
func (c *Core) Located(now time.Time, conn, addr string) {
	c.wakeUp(now)
	if c.reg.Located(conn, addr) {
		c.out.Touch = true
	}
	c.conclude(now)
}

// awaitAnswers waits for the answers to a roll call. The snapshot at the reconnect
// shows each worker as late, because the hive received nothing for that long. The
// verdicts never changed, so that before the next regular snapshot nothing else would
// report that the workers are there.
func (c *Core) awaitAnswers(now time.Time, spread time.Duration) {
	c.answers, _ = c.reg.AwaitAnswers(now, spread)
}
