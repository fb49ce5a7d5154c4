package worker

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/beatfabric/hivebeat"
	"github.com/beatfabric/hivebeat/bus"
	"github.com/beatfabric/hivebeat/internal/bootid"
)

// Worker beats for one worker. Its methods are safe for concurrent use, in any order.
type Worker struct {
	cfg      Config
	nc       *nats.Conn
	subjects hivebeat.Subjects
	subject  string // subject of its beats
	log      *slog.Logger
	inc      uint64
	pid      uint64
	ns       string
	host     string // name of the machine
	pulse    *bus.Pulse[hivebeat.Beat]

	ran  atomic.Bool   // Run began
	done chan struct{} // closed when Run has ended

	facts atomic.Pointer[Facts] // configured and updated; the value it points to never changes
	read  atomic.Pointer[Facts] // the last result of Config.Facts; likewise

	mu     sync.Mutex // no call out of this package is made while it is held, except of pulse
	state  hivebeat.State
	reason string
	bye    hivebeat.State // the goodbye, once there is one
	exit   string         // in its place: how the process ended
	quiet  time.Time      // end of the announced silence; zero: none
	told   time.Time      // when a refusal by the hive was last logged

	// Used only by the goroutine of pulse.
	seq     uint64
	seqAt   time.Time // when seq was drawn
	sent    bool      // a beat with seq was passed to NATS
	begun   bool      // any beat was passed to NATS
	said    hivebeat.State
	reading chan struct{} // closed when the last call of Config.Facts has ended; nil: none was made

	n counts

	hall hall // whether the beats have a subscriber
}

type counts struct {
	refused, clipped                     atomic.Uint64
	factsPanics, factsSlow, factsRefused atomic.Uint64
	calls, badCalls, unheard             atomic.Uint64
	factsFailing                         atomic.Bool // the last call of Config.Facts failed: logged once
}

// Stats counts the outcomes of a worker's beats and of calls to the worker.
type Stats struct {
	Sent         uint64    // beats passed to NATS
	Failed       uint64    // failed attempts, mostly because NATS was away
	Late         uint64    // beats later than promised: the process was stopped or starved, or NATS was away
	Refused      uint64    // calls of SetState and Update with values that no beat may hold
	Clipped      uint64    // reasons that were cut to 256 bytes of UTF-8
	FactsSlow    uint64    // beats that stopped waiting for Config.Facts
	FactsPanics  uint64    // calls of Config.Facts that did not return
	FactsRefused uint64    // results of Config.Facts that no beat may hold
	Calls        uint64    // roll calls received
	BadCalls     uint64    // roll calls among these with an invalid payload, which were ignored
	Unheard      uint64    // beats reported by NATS to have no subscriber; only some beats ask for that
	Last         time.Time // when the last beat was sent; zero before the first
}

// lastInc is the incarnation assigned last. Two workers of one process may use one id,
// one after the other, within one tick of a coarse clock: the later worker must have
// the higher incarnation. Nothing else of this package outlives a Worker.
var lastInc atomic.Uint64

func newInc(now time.Time) uint64 {
	for {
		last := lastInc.Load()
		inc := max(uint64(max(now.UnixMicro(), 1)), last+1)
		if lastInc.CompareAndSwap(last, inc) {
			return inc
		}
	}
}

// hostName returns the name of the machine, or "" if a beat may not hold that name.
func hostName() string {
	name, err := os.Hostname()
	if err != nil || checkText("host", name, hivebeat.MaxHostText) != nil {
		return ""
	}
	return name
}

// New returns a worker that beats once Run is called. It is a new incarnation, numbered
// by the time of this call. An error names the invalid field of cfg.
func New(nc *nats.Conn, cfg Config) (*Worker, error) {
	if nc == nil {
		return nil, errors.New("worker: nc is nil")
	}
	cfg = cfg.withDefaults()
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	subjects, err := hivebeat.NewSubjects(cfg.Prefix)
	if err != nil {
		return nil, fmt.Errorf("worker: Config.Prefix: %w", err)
	}
	cfg.Every = hivebeat.MillisOf(cfg.Every).Duration()
	w := &Worker{
		cfg: cfg, nc: nc, subjects: subjects,
		subject: subjects.Workers(cfg.Hive),
		log:     cfg.Logger.With(slog.String("hive", cfg.Hive), slog.String("worker", cfg.ID)),
		inc:     newInc(time.Now()), pid: uint64(os.Getpid()), ns: bootid.Namespace(), host: hostName(),
		done:  make(chan struct{}),
		state: cfg.State, said: cfg.State,
	}
	if cfg.Pinned {
		w.subject = subjects.Worker(cfg.Hive, cfg.ID)
	}
	facts := cfg.facts()
	facts = facts.clone()
	w.facts.Store(&facts)
	w.pulse, err = bus.NewPulse(bus.PulseConfig[hivebeat.Beat]{
		Every: cfg.Every, Snapshot: w.snapshot, Send: w.send, Flush: nc.FlushWithContext, Logger: w.log,
	})
	if err != nil {
		return nil, fmt.Errorf("worker: %w", err)
	}
	return w, nil
}

// Incarnation returns the inc of this worker's beats: the Unix µs of New.
func (w *Worker) Incarnation() uint64 { return w.inc }

// Run beats, at once and then every cfg.Every, until ctx ends, or Stop or Fail is
// called. Before it returns it says goodbye, which takes 2 s at most. It then returns
// nil, even if the goodbye could not be sent: that is logged, and returned by Stop.
//
// An absent NATS is not an error: Run waits for it. An error that wraps
// nats.ErrConnectionClosed means that the connection was closed while Run used it. Run
// works once. After Stop, and on a second call, it returns hivebeat.ErrStopped; while
// the first call is running, a second one returns bus.ErrRunning.
func (w *Worker) Run(ctx context.Context) error {
	if !w.ran.CompareAndSwap(false, true) {
		select {
		case <-w.pulse.Done():
			return fmt.Errorf("worker: %w", hivebeat.ErrStopped)
		default:
			return fmt.Errorf("worker: %w", bus.ErrRunning)
		}
	}
	defer close(w.done)
	select {
	case <-w.pulse.Done(): // stopped before
		return fmt.Errorf("worker: %w", hivebeat.ErrStopped)
	default:
	}

	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	followed := w.follow(cancel)
	defer followed()
	calls, err := w.nc.Subscribe(w.subjects.WorkerRollcall(w.cfg.Hive), w.called)
	if err != nil {
		// Nothing was sent, so the pulse ends without a goodbye.
		_ = w.pulse.Stop(ctx)
		return fmt.Errorf("worker: roll call: %w", err)
	}
	defer func() { _ = calls.Unsubscribe() }()
	// The handler only counts, so a longer backlog than this is an attack.
	if err := calls.SetPendingLimits(4096, 1<<20); err != nil {
		w.log.Debug("roll call: limits", slog.Any("err", err))
	}

	err = w.pulse.Run(ctx)
	switch {
	case errors.Is(context.Cause(ctx), nats.ErrConnectionClosed):
		return fmt.Errorf("worker: %w", nats.ErrConnectionClosed)
	case errors.Is(err, hivebeat.ErrStopped):
		return fmt.Errorf("worker: %w", hivebeat.ErrStopped)
	case err != nil:
		w.log.Warn("goodbye not sent", slog.Any("err", err))
	}
	return nil
}

// follow requests a beat on each reconnect and cancels the context when the connection
// is closed. end stops both.
func (w *Worker) follow(cancel context.CancelCauseFunc) (end func()) {
	status := w.nc.StatusChanged(nats.CONNECTED, nats.CLOSED)
	if w.nc.IsClosed() { // closed before the listener was added
		cancel(nats.ErrConnectionClosed)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for s := range status {
			if s == nats.CLOSED {
				cancel(nats.ErrConnectionClosed)
				continue
			}
			w.hall.do((*audience).reconnected)
			w.pulse.Reconnected()
		}
	}()
	return func() {
		w.nc.RemoveStatusListener(status) // closes status
		<-ended
	}
}

// called handles every roll call and notice, and the answers of NATS to beats that ask.
func (w *Worker) called(m *nats.Msg) {
	if w.unheard(m) {
		return
	}
	if n, ok := hivebeat.ParseNotice(m.Data); ok {
		w.noticed(n)
		return
	}
	w.n.calls.Add(1)
	spread, err := bus.ParseSpread(m.Data, hivebeat.WorkerRollSpread)
	if err != nil {
		w.n.badCalls.Add(1)
		w.answered(m.Data)
		w.log.Debug("roll call ignored", slog.Any("err", err))
		return
	}
	w.heardBy()
	w.pulse.Call(spread)
}

// Stop says goodbye with state stopped, ends Run and waits for it. ctx bounds the wait
// and the goodbye, which takes 2 s at most. Before Run, Stop only prevents Run from
// starting. Later calls also wait, and change nothing.
//
// The error is ctx's if ctx ended first, or says why the goodbye could not be sent.
// Without a goodbye the worker shows as lost after 3 × Every.
func (w *Worker) Stop(ctx context.Context) error { return w.leave(ctx, hivebeat.Stopped, "", "") }

// StopFor is Stop with a reason for people to read: the worker is taken out on purpose. Its
// return under the same id is not counted as a restart, which repeated would be a loop.
func (w *Worker) StopFor(ctx context.Context, reason string) error {
	return w.leave(ctx, hivebeat.Stopped, reason, "")
}

// Fail is Stop with state failed: the worker gives up, and reason says why.
func (w *Worker) Fail(ctx context.Context, reason string) error {
	return w.leave(ctx, hivebeat.Failed, reason, "")
}

// Exited is Stop for a worker whose process, Facts.PID, has ended unexpectedly. The hive
// declares it lost at once, with cause exit, or oom if how is "oom". how says how it ended:
// "code 3", "signal 9", "oom"; it has 64 bytes at most, and must not be empty. The reason is
// for people: the last line of its errors, and what happens next. A process that returns is
// another incarnation, and so another Worker.
func (w *Worker) Exited(ctx context.Context, how, reason string) error {
	if err := checkText("how", how, hivebeat.MaxEngine); err != nil {
		return fmt.Errorf("worker: Exited: %w", err)
	}
	if how == "" {
		return fmt.Errorf("worker: Exited: %w: how is empty", ErrInvalid)
	}
	return w.leave(ctx, hivebeat.Degraded, reason, how)
}

func (w *Worker) leave(ctx context.Context, bye hivebeat.State, reason, exit string) error {
	reason = w.clip(reason)
	w.mu.Lock()
	if w.bye == "" {
		w.bye, w.reason, w.exit = bye, reason, exit
	}
	w.mu.Unlock()
	err := w.pulse.Stop(ctx)
	if w.ran.Load() {
		select {
		case <-w.done:
		case <-ctx.Done():
			select {
			case <-w.done:
			default:
				err = ctx.Err()
			}
		}
	}
	if err != nil {
		return fmt.Errorf("worker: stop: %w", err)
	}
	return nil
}

// Stats returns the counts so far.
func (w *Worker) Stats() Stats {
	p := w.pulse.Stats()
	return Stats{
		Sent: p.Sent, Failed: p.Failed, Late: p.Late, Last: p.Last,
		Refused: w.n.refused.Load(), Clipped: w.n.clipped.Load(),
		FactsSlow: w.n.factsSlow.Load(), FactsPanics: w.n.factsPanics.Load(), FactsRefused: w.n.factsRefused.Load(),
		Calls: w.n.calls.Load(), BadCalls: w.n.badCalls.Load(), Unheard: w.n.unheard.Load(),
	}
}
