// Package hivecore is the core of a hive: the state machine of its loop. It knows when
// silence is evidence, what of a verdict cannot wait, when the workers' roll is called,
// and what is worth a line in the log; the verdicts themselves are internal/detector's.
// It has no NATS, no clock, no goroutine and no lock.
//
//	Beat  RollCall  Refused  Exited ──┐         ┌──▶ snapshots, a roll call, a token
//	Connection  TokenBack  Closed     ├──▶ Core ┼──▶ processes to be watched
//	Settled  System  Progress         │   Ready ├──▶ transitions and log lines
//	Tick, at Ready.Wake ──────────────┘         └──▶ when to wake up
//
// Package hive is its shell on NATS, and internal/sim the one under a virtual clock.
// Both hand it inputs with the time at which they came, which never goes backwards,
// and do what Ready returns.
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

	askEvery = 5 * time.Second        // workers are asked whether they came back, at most
	askPace  = 100 * time.Microsecond // of the answers, one for each: 10,000 within a second, which is before the windows end
)

// The kernel is faster than the network: what a process said before its end, a goodbye
// above all, may still be on its way. So a shell waits for that before Exited.
const (
	// LastWordsSettle is the wait for beats that were written, and that the server has
	// not read yet, or that cross a cluster. A goodbye that was flushed, as package
	// worker does, is there without.
	LastWordsSettle = 5 * time.Millisecond
	// LastWordsWithin bounds the whole wait where NATS does not answer: the process has
	// ended for sure.
	LastWordsWithin = 100 * time.Millisecond
)

// Config says which hive a core is of.
type Config struct {
	ID string
	// Subject is that of beats. It is for the log, and tells the pinned form, which has
	// the worker's id behind it.
	Subject string
	// NS is the pid namespace of this process, PID is its id. Processes of workers are
	// watched where both are known.
	NS  string
	PID uint64
	// Own is the id of the NATS server that runs in this process, if one does.
	Own string
	// StallAfter and PushFacts are as in hive.Config.
	StallAfter, PushFacts time.Duration
}

// Ready is what is to be done because of the inputs since the last one. Its slices
// belong to the caller.
type Ready struct {
	// What bus.Schedule is to be told of: Ended and Changed ask for a snapshot at once,
	// Touch for one at the pace of facts, Reconnected for one soon. Answer is a queen's
	// roll call, to be answered within Spread.
	Ended, Changed, Touch, Reconnected, Answer bool
	Spread                                     time.Duration

	// Roll, if not 0, asks for a roll call of the workers, with this spread.
	Roll time.Duration
	// Notices are for workers that are refused, to be published where they hear roll
	// calls.
	Notices []hivebeat.Notice
	// Watches are processes to watch, and not to watch any more, in this order. What
	// became of them is for Exited.
	Watches []detector.Watch
	// Seek are connections of workers, as their beats name them. Where NATS says from
	// which address one was made, that is for Located.
	Seek []string
	// Signals are answered by TokenBack and Settled.
	Signals core.Signals

	// Steps are the transitions of workers. Each has a line in Logs, too.
	Steps []detector.Step
	Logs  core.Logs

	// Wake is when Tick is to be called at the latest.
	Wake time.Time
	// Closed says that the connection is closed for good: the hive ends.
	Closed bool
}

// Core is the core of one hive. Use New. Its methods are inputs, which take the time;
// Ready, which is called after each input, or after several that came at once; and
// questions, which need no Ready.
type Core struct {
	cfg  Config
	reg  *detector.Registry
	hear *core.Hearing
	logs core.Logs
	out  Ready // what is decided, and was not handed out

	seq     uint64    // of the last snapshot
	unheard bool      // a deadline has passed, and the hive does not know whether it hears
	answers time.Time // the end of the wait for answers to a roll call; zero: there is none
	asked   time.Time // when askBack called the roll last
	pushAt  time.Time // facts are not pushed before
	pushing bool      // some wait for pushAt
	closed  bool
	kept    kept
}

// New returns the core of a hive that knows nobody, and was never connected.
func New(cfg Config) *Core {
	c := &Core{cfg: cfg, reg: detector.New(cfg.ID)}
	c.hear = core.NewHearing("hive", "worker", c.reg, &c.logs)
	c.reg.TellLoops()
	c.reg.SetStallAfter(cfg.StallAfter)
	c.reg.SetOwn(cfg.Own)
	if cfg.NS != "" && cfg.PID != 0 {
		c.reg.WatchExits(cfg.NS, cfg.PID)
	}
	return c
}

// Ready returns what is to be done, once.
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

// wakeUp begins every input: was this hive stopped or starved?
func (c *Core) wakeUp(now time.Time) {
	if paused := c.hear.Look(now); paused > 0 {
		c.reg.Paused(paused)
	}
	c.reg.Ran(now)
}

// conclude ends every input: it gathers what follows.
func (c *Core) conclude(now time.Time) {
	if steps := c.reg.TakeSteps(); len(steps) > 0 {
		// One that tells an end does not wait for those that told something else.
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
	// Who must not be picked does not wait for what else there is to tell either.
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
	// One more snapshot, at the pace of facts. Where NATS is away again another roll call
	// will follow.
	if c.reg.Answered(now) && c.hear.Connected() {
		c.out.Touch = true
	}
	c.hear.Ask(now)
}

// Beat takes a message of a worker. It reports whether that was accepted.
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

// proved notes that a message came in. That proves that the hive hears, so a deadline
// that waits for a proof counts again.
func (c *Core) proved(now time.Time) {
	c.hear.Prove(now)
	c.unheard = false
}

// RollCall takes a roll call of a queen, whose answer is due within spread.
func (c *Core) RollCall(now time.Time, spread time.Duration) {
	c.wakeUp(now)
	c.proved(now)
	if !c.out.Answer || spread < c.out.Spread {
		c.out.Answer, c.out.Spread = true, spread
	}
	c.conclude(now)
}

// Noticed takes that a queen refuses this hive's own snapshots.
func (c *Core) Noticed(now time.Time, n hivebeat.Notice) {
	c.wakeUp(now)
	c.proved(now)
	if c.hear.Limiter.Allow("notice", now) > 0 {
		text, hint := n.Text("hive")
		c.logs.Add(slog.LevelWarn, text, slog.Uint64("inc", n.Inc), slog.Uint64("believed", n.Believed), slog.String("hint", hint))
	}
	c.conclude(now)
}

// Refused takes a message that the shell cannot read.
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
	if reason == hivebeat.RefusedStale { // happens, and is counted
		return
	}
	if n := c.hear.Limiter.Allow(string(reason), now); n > 0 {
		c.logs.Add(slog.LevelWarn, "messages refused", slog.String("reason", string(reason)), slog.Uint64("count", n),
			slog.String("subject", subject), slog.Any("err", err))
	}
}

// pushFacts tells what changed, or waits until it may.
func (c *Core) pushFacts(now time.Time) {
	if c.pushing = now.Before(c.pushAt); !c.pushing {
		c.pushAt = now.Add(c.cfg.PushFacts)
		c.out.Touch = true
	}
}

// Exited takes processes that ended, after their last words. A worker whose process
// this hive can see is lost when that ends, and not when it has been silent for long
// enough. boot is the boot clock of the machine at that time, in ms, and 0 where there is
// none: what was sent before an end stays what it is, however late it arrives.
func (c *Core) Exited(now time.Time, boot uint64, list []detector.Exit) {
	c.wakeUp(now)
	for _, x := range list {
		// Rounded up, as the clocks of beats are rounded down.
		if ago := uint64(hivebeat.MillisOf(now.Sub(x.At))); boot > ago {
			x.Boot = boot - ago + 1
		}
		c.reg.Exit(now, x)
	}
	c.conclude(now)
}

// Progress takes readings of the processes of workers, as the operating system has them:
// a silent worker whose process loads is late, and not lost.
func (c *Core) Progress(now time.Time, list []detector.Reading) {
	c.wakeUp(now)
	c.reg.Progress(now, list)
	c.conclude(now)
}

// Unwatched takes that a process of Ready.Watches cannot be watched.
func (c *Core) Unwatched(p detector.Process) { c.reg.Unwatched(p) }

// Tick takes the passage of time. dropped counts the messages that were dropped so far,
// as they came faster than they were handled. All beats that have come in are to be
// handled before: a worker whose beat waits is not late.
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

// judge detects the workers whose deadline has passed, where silence is evidence.
func (c *Core) judge(now time.Time) {
	c.unheard = false
	if next, ok := c.reg.Next(); !ok || now.Before(next) || !c.hear.Trusts() {
		return
	}
	if !c.hear.Hears(now) {
		c.unheard = true // a token is due, and its return goes on
		return
	}
	c.reg.Detect(now)
}

// Connection follows the connection.
func (c *Core) Connection(now time.Time, conn core.Connection) {
	c.wakeUp(now)
	if conn.Closed {
		c.closed = true
		return
	}
	switch turn := c.hear.Connection(now, conn); {
	case turn.First: // at the start no worker is known
		c.reg.Start(now)
		c.logs.Add(slog.LevelInfo, "hears workers", slog.String("subject", c.cfg.Subject))
		c.callWorkers()
	case turn.Back:
		c.out.Reconnected = true
	}
	c.conclude(now)
}

// TokenBack takes a token that is back, after everything that NATS had for this hive
// before it. dropped is as in Tick.
func (c *Core) TokenBack(now time.Time, token, dropped uint64) {
	c.wakeUp(now)
	c.hear.Drops(now, dropped)
	if blind, roll, ok := c.hear.TokenBack(now, token); ok {
		c.reg.Credit(blind)
		if roll { // which workers came through a cut is not known
			c.awaitAnswers(now, c.callWorkers())
		}
		c.judge(now)
	}
	c.conclude(now)
}

// Closed takes that the connection of a client closed, which may be a worker or not.
//
// The server is the first to know that a client is gone. What the client said before
// may still be on its way to this hive, in another connection: so Signals.Settle
// follows each, and until that is answered a beat over the closed connection closes no
// window.
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

// System follows the connection to the system account.
func (c *Core) System(now time.Time, up bool) {
	c.wakeUp(now)
	c.hear.System(up)
	c.conclude(now)
}

// callWorkers asks all workers to beat, and returns within which time.
func (c *Core) callWorkers() (spread time.Duration) {
	spread = max(hivebeat.WorkerRollSpread, time.Duration(c.reg.Len())*time.Millisecond)
	c.out.Roll = max(c.out.Roll, spread)
	return spread
}

// askBack calls the roll as the windows of workers are about to end: one may have come
// back, and its beat was lost.
func (c *Core) askBack(now time.Time) {
	if !c.asked.IsZero() && now.Sub(c.asked) < askEvery {
		return
	}
	c.asked = now
	c.out.Roll = max(c.out.Roll, c.askSpread())
}

// askSpread is within which time the answers come to a roll call that is not to take
// long.
func (c *Core) askSpread() time.Duration {
	return max(hivebeat.WorkerRollSpread, time.Duration(c.reg.Len())*askPace)
}

// Located takes from which address a connection of Ready.Seek was made.
func (c *Core) Located(now time.Time, conn, addr string) {
	c.wakeUp(now)
	if c.reg.Located(conn, addr) {
		c.out.Touch = true
	}
	c.conclude(now)
}

// awaitAnswers waits for the answers to a roll call. The snapshot of a reconnect shows
// the workers as old as the time in which the hive heard nothing, and as late
// therefore. Their verdicts never changed, so that nothing else would tell before the
// next regular snapshot that they are there.
func (c *Core) awaitAnswers(now time.Time, spread time.Duration) {
	c.answers, _ = c.reg.AwaitAnswers(now, spread)
}
