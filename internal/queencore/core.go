// Package queencore is the state machine of a queen's loop: its inputs, its conclusions,
// and the work it requests. It has no NATS, no clock, no goroutine and no lock
// (internal/core describes how such a core is driven). internal/fleet judges the hives for
// it.
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

// tickEvery is how often a queen checks anything that has no deadline.
const tickEvery = 250 * time.Millisecond

// ErrClosed means that the connection is closed for good.
var ErrClosed = errors.New("the connection of the queen is closed")

// Config says how a queen judges. ID, Subjects, Fresh and Random are required.
type Config struct {
	ID          string
	Subjects    hivebeat.Subjects
	Fresh       time.Duration
	Brake       fleet.BrakeRule
	NoJetStream bool
	Replicas    int    // of buckets and stream; 0 means 1
	EventsMax   int64  // size of the stream of events in bytes; 0 means unknown
	Own         string // id of the NATS server that runs in this process, if any
	// Random returns a number in [0, 1). It spreads work that all queens would otherwise do
	// at the same time.
	Random func() float64
	// Debug enables log lines of level Debug.
	Debug bool
}

// Core is the core of one queen. Only one goroutine at a time may use it and everything it
// returns.
type Core struct {
	cfg     Config
	view    *fleet.View
	hearing *core.Hearing
	out     Outbox // transitions of workers
	warned  int    // number of workers when makeRoom last warned
	began   time.Time

	startup   startup
	listening listening
	store     store
	live      live
	peers     peers

	apart bool      // as last logged: this queen may be the one that is cut off
	awake time.Time // end of the last doubt, since when some hives may not have been heard; zero: none

	scratch wire.SnapshotView
	ready   Ready
	taken   Ready
}

// Ready is the work to do now. Its lists are valid until the next Ready.
type Ready struct {
	core.Signals

	// Listen names the hives whose workers' beats must be passed to Beat from now on.
	// Unlisten names the hives for which that ends. Process Listen before Calls.
	Listen, Unlisten []string
	// Calls are roll calls to publish. A call without a hive goes to all hives.
	Calls []fleet.RollCall
	// Seek names connections of hives. If NATS reports the address that one came from, pass
	// it to Located.
	Seek []string
	// Notices must be published where their addressees receive roll calls.
	Notices []hivebeat.Notice
	// Puts are snapshots to store in the bucket. Their payloads stay in use until they are
	// put.
	Puts []ledger.Snapshot
	// Ops are requests; each must be passed to Done afterwards. The requests of one Ready
	// may run concurrently.
	Ops []*Op
	// Read asks for a read of the roster, passed to RosterRead, and after that of the
	// bucket, whose snapshots are newer, passed to Kept. ReadDone must be called at the
	// end.
	Read bool
	// Peers are messages to publish for other queens.
	Peers [][]byte
	// Serve is set once, when this queen knows enough to answer.
	Serve bool

	Steps       []fleet.Step     // changes of verdicts on hives; Logs contains them too
	Transitions []fleet.Happened // of workers; Ops publish them
	// Live are events to publish before the stream has them, on the subjects of
	// hivebeat.Subjects.LiveEvent. They are not retried.
	Live []hivebeat.Event
	Logs core.Logs

	// Wake is the latest time for the next Tick.
	Wake time.Time
	// Err ends this queen.
	Err error
}

// New returns the core of a queen that starts at now.
func New(cfg Config, now time.Time) *Core {
	c := &Core{cfg: cfg, view: fleet.New(cfg.Fresh), began: now}
	c.view.Index().Begin(uint64(now.UnixMicro()))
	c.view.SetBrake(cfg.Brake)
	c.view.SetOwn(cfg.Own)
	if cfg.Replicas > 1 && !cfg.NoJetStream {
		c.view.SetReplicas(cfg.Replicas)
	}
	c.hearing = core.NewHearing(c.view, &c.ready.Logs)
	c.listening.heard = make(map[string]bool)
	return c
}

// View returns this queen's view of the fleet. Callers may read it, and use it for holds.
func (c *Core) View() *fleet.View { return c.view }

// Hearing returns the state of this queen's own hearing. Callers may only read it.
func (c *Core) Hearing() *core.Hearing { return c.hearing }

// Outbox returns how many transitions of workers wait to be published, and how many
// were published and dropped.
func (c *Core) Outbox() (waiting int, published, dropped uint64) { return c.out.Counts() }

// PublishedLive returns how many events went out before the stream had them.
func (c *Core) PublishedLive() uint64 { return c.live.count }

// Idle reports whether no request is in flight and nothing waits that could go out.
func (c *Core) Idle() bool {
	return c.store.announcing == 0 && c.store.checking == 0 && (!c.mayPublish() || c.out.Idle())
}

// Due reports whether a verdict is due. Every waiting message must then be passed to this
// core before Ready: a hive or worker is not late while its message waits.
func (c *Core) Due(now time.Time) bool {
	next, ok := c.view.Next()
	return ok && !next.After(now)
}

// Snapshot takes one page of a snapshot. pinned is the id in its subject, or empty. The
// core keeps payload.
func (c *Core) Snapshot(now time.Time, pinned string, payload []byte) {
	c.look(now)
	c.hearing.Prove(now)
	s, err := c.view.Parse(payload)
	if err == nil && pinned != "" && pinned != string(s.Hive) {
		err = &hivebeat.Refusal{Reason: hivebeat.RefusedForeign, Key: "hive", Detail: fmt.Sprintf("it belongs to hive %.64q", s.Hive)}
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
	c.startup.heard(h)
	if c.store.opened && c.hearing.Trusts() { // or it is older than it looks
		c.ready.Puts = append(c.ready.Puts, ledger.Snapshot{
			Hive: h.ID(), Page: s.Page, Inc: s.Inc, Seq: s.Seq, Payload: payload, Received: now, Every: h.Every(),
		})
	}
}

// Refuse counts a message that violates the protocol, and logs a limited number of such
// messages, so that a person can look for the sender.
func (c *Core) Refuse(now time.Time, what string, err error) {
	reason := hivebeat.ReasonOf(err)
	total := c.view.Refuse(reason)
	if n := c.hearing.Limiter.Allow("refused "+string(reason), now); n > 0 {
		c.ready.Logs.Add(slog.LevelWarn, "messages refused", slog.String("what", what), slog.String("reason", string(reason)),
			slog.Uint64("count", n), slog.Uint64("total", total), slog.Any("err", err))
	}
}

// Beat takes a beat of a worker of a hive that this queen listens for. pinned is the
// worker's id in the subject, or empty.
func (c *Core) Beat(now time.Time, hive, pinned string, payload []byte) {
	c.look(now)
	c.hearing.Prove(now)
	if err := c.view.Beat(hive, pinned, payload, now); err != nil && c.cfg.Debug {
		c.ready.Logs.Add(slog.LevelDebug, "beat refused", slog.String("hive", hive), slog.Any("err", err))
	}
}

// Tick advances time. dropped counts all messages dropped so far because they came faster
// than they were handled.
func (c *Core) Tick(now time.Time, dropped uint64) {
	c.look(now)
	c.hearing.Drops(now, dropped)
	c.view.Settle(now)
}

// Look must be called before reading this queen's state: the process may just have been
// stopped.
func (c *Core) Look(now time.Time) { c.look(now) }

func (c *Core) look(now time.Time) { c.hearing.Look(now) }

// Unheard returns how many hives count as alive only by knowledge from before this queen
// was stopped, starved or cut off, since they have not been heard after that. It also
// returns when that ended.
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

// Connection takes the state of the connection to NATS.
func (c *Core) Connection(now time.Time, s core.Connection) {
	c.look(now)
	if s.Closed {
		c.ready.Err = ErrClosed
		return
	}
	t := c.hearing.Connection(now, s)
	if t.First || t.Back {
		c.startup.connected(now)
	}
	if t.First && c.cfg.NoJetStream {
		c.callAll(now)
	}
}

// TokenBack takes back Signals.Token. dropped is as in Tick.
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

// Closed takes a client connection that closed.
func (c *Core) Closed(now time.Time, d liveness.Disconnect) {
	c.look(now)
	c.hearing.Closed(now, d)
}

// Settled answers Signals.Settle.
func (c *Core) Settled(now time.Time, by liveness.Path) {
	c.look(now)
	c.hearing.Settled(now, by)
}

// System takes the state of the connection to the system account.
func (c *Core) System(now time.Time, up bool) {
	c.look(now)
	c.hearing.System(up)
}

// Located takes the address that a connection in Ready.Seek came from.
func (c *Core) Located(now time.Time, conn, addr string) {
	c.look(now)
	c.view.Located(conn, addr, now)
}

// Ready ends a turn: it judges, and returns the work that follows from all inputs since the
// last call.
func (c *Core) Ready(now time.Time) *Ready {
	c.look(now)
	v := c.view
	// Silence leads to a verdict only while something proves that this queen hears: a
	// connection may be dead without notice.
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
		c.compare(r.Announcers, now)
		again = c.check(now)
	}
	more := c.listenMore(now)
	c.announce(now)
	c.publish(now)
	c.publishLive(now)
	c.warmUp(now)
	c.logApart()
	c.peer(now)
	c.hearing.Ask(now)
	c.ready.Signals = c.hearing.TakeSignals()
	c.ready.Wake = now.Add(tickEvery)
	for _, at := range []time.Time{more, c.out.Next(now), c.peers.next(now)} {
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

// do asks the shell to carry out op. done is called when op comes back.
func (c *Core) do(op *Op, done func(now time.Time, op *Op)) {
	op.done = done
	c.ready.Ops = append(c.ready.Ops, op)
}

// Done takes back an Op with its results.
func (c *Core) Done(now time.Time, op *Op) {
	c.look(now)
	op.done(now, op)
}

// logApart logs when this queen may be the one that is cut off, and when that is over.
func (c *Core) logApart() {
	why := c.view.Apart()
	apart := why != ""
	switch {
	case apart && !c.apart:
		c.ready.Logs.Add(slog.LevelWarn, "this queen may be the one that is cut off: no hive is lost by silence until JetStream acknowledges a request", slog.String("why", why))
	case !apart && c.apart:
		c.ready.Logs.Add(slog.LevelInfo, "JetStream acknowledges again: this queen is not cut off, and calls the hives that it does not hear")
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
