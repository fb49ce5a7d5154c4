// Package queencore is the state machine of a queen's loop: what it receives, what it
// may conclude, and what it wants done. It has no NATS, no clock, no goroutine and no
// lock (internal/core says how such a core is driven). internal/fleet judges the hives
// for it.
//
//	snapshots, beats, closed connections,        ┌ roll calls, subscriptions
//	connection, tokens, time ──────────▶  Core  ─┤ snapshots for the bucket
//	roster, bucket, results of an Op ──▶         └ Ops: requests to the store
package queencore

import (
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/beatfabric/hivebeat"
	"github.com/beatfabric/hivebeat/internal/core"
	"github.com/beatfabric/hivebeat/internal/fleet"
	"github.com/beatfabric/hivebeat/internal/ledger"
	"github.com/beatfabric/hivebeat/internal/liveness"
	"github.com/beatfabric/hivebeat/internal/wire"
)

// tickEvery is how often a queen looks after what has no deadline of its own.
const tickEvery = 250 * time.Millisecond

// ErrClosed: the connection is closed for good.
var ErrClosed = errors.New("the connection that the queen was given is closed")

// Config says how a queen judges. All fields but Debug and EventsMax are needed.
type Config struct {
	ID          string
	Subjects    hivebeat.Subjects
	Fresh       time.Duration
	Brake       fleet.BrakeRule
	NoJetStream bool
	Replicas    int    // of buckets and stream; 0 is 1
	EventsMax   int64  // bytes of the stream of events; 0 is not known
	Own         string // the id of the NATS server that runs in this process, if one does
	// Random returns a number from 0 to below 1: what queens do at once each does
	// after a time of its own.
	Random func() float64
	// Debug has lines made that are of level Debug.
	Debug bool
}

// Core is the core of one queen. One goroutine at a time may use it, and whatever it
// hands out.
type Core struct {
	cfg     Config
	view    *fleet.View
	hearing *core.Hearing
	out     fleet.Outbox // transitions of workers
	warned  int          // how many workers there were when makeRoom warned
	began   time.Time

	cold  cold
	wards wards
	store store
	post  post
	live  live
	peers peers

	apart bool      // as the log has it: this queen may be the one that is cut off
	awake time.Time // when a doubt ended after which some hives may not have been heard yet; zero: none

	scratch wire.SnapshotView
	ready   Ready
	taken   Ready
}

// Ready is what is to be done now. Its lists are good until the next Ready.
type Ready struct {
	core.Signals

	// Listen are hives whose workers' beats are to be given to Beat from now on, and
	// Unlisten those whose are not any more. Listen comes before Calls.
	Listen, Unlisten []string
	// Calls are roll calls to be published; that of no hive is one to all hives.
	Calls []fleet.RollCall
	// Seek are connections of hives. Where NATS says from which address one was made,
	// that is for Located.
	Seek []string
	// Notices are to be published where those that they are for hear roll calls.
	Notices []hivebeat.Notice
	// Puts are snapshots to be kept in the bucket. Each is kept until it was put.
	Puts []ledger.Snapshot
	// Ops are requests, each to be handed back by Done. The requests of one hand-back
	// may be carried out side by side.
	Ops []*Op
	// Read has the roster read and given to RosterRead, then the bucket, whose
	// snapshots are newer, given to Kept, and then ReadDone called.
	Read bool
	// Peers are messages for other queens, to be published.
	Peers [][]byte
	// Serve says, once, that this queen knows enough to answer.
	Serve bool

	Steps       []fleet.Step     // changes of verdicts on hives; Logs have them too
	Transitions []fleet.Happened // of workers; Ops publish them
	// Live are events that are to go out before the stream has them, to the subjects
	// of hivebeat.Subjects.LiveEvent. They are not retried.
	Live []hivebeat.Event
	Logs core.Logs

	// Wake is when Tick is to be called at the latest.
	Wake time.Time
	// Err ends this queen.
	Err error
}

// New returns the core of a queen that begins at now.
func New(cfg Config, now time.Time) *Core {
	c := &Core{cfg: cfg, view: fleet.New(cfg.Fresh), began: now}
	c.view.Begin(uint64(now.UnixMicro()))
	c.view.SetBrake(cfg.Brake)
	c.view.SetOwn(cfg.Own)
	if cfg.Replicas > 1 && !cfg.NoJetStream {
		c.view.SetReplicas(cfg.Replicas)
	}
	c.hearing = core.NewHearing("queen", "hive", c.view, &c.ready.Logs)
	c.wards.heard = make(map[string]bool)
	return c
}

// View returns what this queen knows of the fleet, to be read, and for holds.
func (c *Core) View() *fleet.View { return c.view }

// Hearing returns what this queen knows of its own hearing, to be read.
func (c *Core) Hearing() *core.Hearing { return c.hearing }

// Outbox returns how many transitions of workers wait to be published, and how many
// were published and dropped.
func (c *Core) Outbox() (waiting int, published, dropped uint64) { return c.out.Counts() }

// ToldLive returns how many events went out before the stream had them.
func (c *Core) ToldLive() uint64 { return c.live.count }

// Idle reports whether no request is under way, and nothing waits that could go out.
func (c *Core) Idle() bool {
	return c.store.announcing == 0 && c.store.checking == 0 && (!c.mayPublish() || c.out.Idle())
}

// Due reports whether a verdict is due: every message that waits has to be given to
// this core before Ready, for who waits to be heard is not late.
func (c *Core) Due(now time.Time) bool {
	next, ok := c.view.Next()
	return ok && !next.After(now)
}

// Snapshot takes one page of a snapshot. pinned is the id in its subject, or empty.
// payload is kept.
func (c *Core) Snapshot(now time.Time, pinned string, payload []byte) {
	c.look(now)
	c.hearing.Prove(now)
	s, err := c.view.Parse(payload)
	if err == nil && pinned != "" && pinned != string(s.Hive) {
		err = &hivebeat.Refusal{Reason: hivebeat.RefusedForeign, Key: "hive", Detail: fmt.Sprintf("it is of hive %.64q", s.Hive)}
	}
	if err != nil {
		c.Refuse(now, "snapshot", err)
		return
	}
	if err := c.view.Apply(s, now); err != nil {
		if c.cfg.Debug {
			c.ready.Logs.Add(slog.LevelDebug, "snapshot refused",
				slog.String("hive", string(s.Hive)), slog.Uint64("inc", s.Inc), slog.Uint64("seq", s.Seq), slog.Any("err", err))
		}
		return
	}
	h := c.view.Hive(string(s.Hive))
	c.view.Keep(payload, s)
	c.cold.heard(h)
	if c.store.opened && c.hearing.Trusts() { // or it is older than it looks
		c.ready.Puts = append(c.ready.Puts, ledger.Snapshot{
			Hive: h.ID(), Page: s.Page, Inc: s.Inc, Seq: s.Seq, Payload: payload, Received: now, Every: h.Every(),
		})
	}
}

// Refuse counts a message that is not what the protocol says, and has that logged now
// and then: somebody should look who sends it.
func (c *Core) Refuse(now time.Time, what string, err error) {
	reason := hivebeat.ReasonOf(err)
	total := c.view.Refuse(reason)
	if n := c.hearing.Limiter.Allow("refused "+string(reason), now); n > 0 {
		c.ready.Logs.Add(slog.LevelWarn, "messages refused", slog.String("what", what), slog.String("reason", string(reason)),
			slog.Uint64("count", n), slog.Uint64("total", total), slog.Any("err", err))
	}
}

// Beat takes a beat of a worker whose hive this queen listens for. pinned is the
// worker's id in the subject, or empty.
func (c *Core) Beat(now time.Time, hive, pinned string, payload []byte) {
	c.look(now)
	c.hearing.Prove(now)
	if err := c.view.Beat(hive, pinned, payload, now); err != nil && c.cfg.Debug {
		c.ready.Logs.Add(slog.LevelDebug, "beat refused", slog.String("hive", hive), slog.Any("err", err))
	}
}

// Tick lets time pass. dropped counts the messages that were dropped so far because
// they came faster than they were handled.
func (c *Core) Tick(now time.Time, dropped uint64) {
	c.look(now)
	c.hearing.Drops(now, dropped)
	c.view.Settle(now)
}

// Look comes before a look at what this queen knows: it may just have been stopped.
func (c *Core) Look(now time.Time) { c.look(now) }

func (c *Core) look(now time.Time) { c.hearing.Look(now) }

// Unheard returns how many hives are alive by what was known before this queen was
// stopped, starved or cut off, and were not heard since, and when that was over.
func (c *Core) Unheard() (n int, since time.Time) {
	if c.awake.IsZero() {
		return 0, c.awake
	}
	for _, h := range c.view.Hives() {
		if h.Live() == hivebeat.Alive && h.HeardAt().Before(c.awake) {
			n++
		}
	}
	if n == 0 {
		c.awake = time.Time{}
	}
	return n, c.awake
}

// Connection follows the connection to NATS.
func (c *Core) Connection(now time.Time, s core.Connection) {
	c.look(now)
	if s.Closed {
		c.ready.Err = ErrClosed
		return
	}
	t := c.hearing.Connection(now, s)
	if t.First || t.Back {
		c.cold.connected(now)
	}
	if t.First && c.cfg.NoJetStream {
		c.callAll(now)
	}
}

// TokenBack hands back Signals.Token. dropped is as in Tick.
func (c *Core) TokenBack(now time.Time, token, dropped uint64) {
	c.look(now)
	c.hearing.Drops(now, dropped)
	blind, roll, ok := c.hearing.TokenBack(now, token)
	if !ok {
		return
	}
	c.view.BlindFor(blind)
	if blind > 0 {
		c.peers.credit(now)
	}
	if roll {
		c.awake = now
		c.callAll(now)
	}
}

// Closed tells of a connection that closed.
func (c *Core) Closed(now time.Time, d liveness.Disconnect) {
	c.look(now)
	c.hearing.Closed(now, d)
}

// Settled answers Signals.Settle.
func (c *Core) Settled(now time.Time, by liveness.Path) {
	c.look(now)
	c.hearing.Settled(now, by)
}

// System follows the connection to the system account.
func (c *Core) System(now time.Time, up bool) {
	c.look(now)
	c.hearing.System(up)
}

// Located takes from which address a connection of Ready.Seek was made.
func (c *Core) Located(now time.Time, conn, addr string) {
	c.look(now)
	c.view.Located(conn, addr, now)
}

// Ready ends a turn: it judges, and returns what is to be done because of all inputs
// since the last call.
func (c *Core) Ready(now time.Time) *Ready {
	c.look(now)
	v := c.view
	// Silence is a verdict only where something proves that this queen hears: a
	// connection may be dead and nobody knows.
	if !c.Due(now) || c.hearing.Hears(now) {
		v.Tick(now)
	}
	c.makeRoom()
	c.read(now)
	c.probe(now)
	c.confirm(now)
	for again := true; again; {
		r := v.Take()
		c.listen(r, now)
		c.store.checks = append(c.store.checks, r.Checks...)
		c.ready.Steps = append(c.ready.Steps, r.Steps...)
		c.ready.Seek = append(c.ready.Seek, r.Seek...)
		c.logSteps(r.Steps)
		c.ready.Transitions = append(c.ready.Transitions, r.Events...)
		c.ready.Notices = append(c.ready.Notices, r.Notices...)
		c.out.Push(r.Events)
		if !c.cfg.NoJetStream {
			c.live.worker(r.Events, now)
		}
		c.compare(r.Tellers, now)
		again = c.check(now)
	}
	more := c.listenMore(now)
	c.announce(now)
	c.publish(now)
	c.tellLive(now)
	c.warmUp(now)
	c.logApart()
	c.peer(now)
	c.hearing.Ask(now)
	c.ready.Signals = c.hearing.TakeSignals()
	c.ready.Wake = now.Add(tickEvery)
	for _, at := range []time.Time{more, c.post.next(now), c.peers.next(now)} {
		if !at.IsZero() && at.Before(c.ready.Wake) {
			c.ready.Wake = at
		}
	}
	if c.live.more && now.Add(liveAgain).Before(c.ready.Wake) {
		c.ready.Wake = now.Add(liveAgain)
	}
	if at, ok := v.Next(); ok && at.After(now) && at.Before(c.ready.Wake) {
		c.ready.Wake = at
	}
	return c.take()
}

// take swaps two sets of lists, so that nothing is allocated in steady state.
func (c *Core) take() *Ready {
	c.ready, c.taken = c.taken, c.ready
	r := &c.ready
	clear(r.Puts)
	clear(r.Ops)
	clear(r.Peers)
	clear(r.Transitions)
	clear(r.Live)
	clear(r.Logs)
	*r = Ready{
		Listen: r.Listen[:0], Unlisten: r.Unlisten[:0], Calls: r.Calls[:0], Seek: r.Seek[:0], Puts: r.Puts[:0], Ops: r.Ops[:0], Peers: r.Peers[:0], Notices: r.Notices[:0],
		Steps: r.Steps[:0], Transitions: r.Transitions[:0], Live: r.Live[:0], Logs: r.Logs[:0], Err: c.taken.Err,
	}
	return &c.taken
}

// do asks the shell to carry out op. done is called when it is handed back.
func (c *Core) do(op *Op, done func(now time.Time, op *Op)) {
	op.done = done
	c.ready.Ops = append(c.ready.Ops, op)
}

// Done hands back an Op with its results.
func (c *Core) Done(now time.Time, op *Op) {
	c.look(now)
	op.done(now, op)
}

// logApart tells when this queen may be the one that is cut off, and when it is not any more.
func (c *Core) logApart() {
	why := c.view.Apart()
	apart := why != ""
	switch {
	case apart && !c.apart:
		c.ready.Logs.Add(slog.LevelWarn, "this queen may be the one that is cut off: nobody is lost by silence until JetStream acknowledges something again", slog.String("why", why))
	case !apart && c.apart:
		c.ready.Logs.Add(slog.LevelInfo, "JetStream acknowledges again: this queen is not cut off, and calls those that it does not hear")
	}
	c.apart = apart
}

func (c *Core) logSteps(steps []fleet.Step) {
	for i := range steps {
		s := &steps[i]
		level := slog.LevelInfo
		switch s.Kind {
		case hivebeat.KindLate, hivebeat.KindLost, hivebeat.KindConflict, hivebeat.KindUnverified:
			level = slog.LevelWarn
		}
		var attrs []slog.Attr
		add := func(key, value string) {
			if value != "" {
				attrs = append(attrs, slog.String(key, value))
			}
		}
		add("hive", s.Hive)
		add("kind", string(s.Kind))
		add("from", string(s.From))
		add("to", string(s.To))
		add("cause", string(s.Cause))
		attrs = append(attrs, slog.Uint64("inc", s.Inc))
		add("reason", s.Reason)
		c.ready.Logs.Add(level, "hive verdict", attrs...)
	}
}
