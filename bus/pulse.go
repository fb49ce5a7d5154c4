package bus

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"strconv"
	"sync"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/beatfabric/hivebeat"
)

// Errors of a Pulse that callers branch on, besides hivebeat.ErrStopped.
var (
	ErrRunning    = errors.New("already running") // Run, while the first one still runs
	ErrNotRunning = errors.New("not running")     // Now, before Run or after it
)

// PulseConfig says what a Pulse sends, and how often. Every, Snapshot and Send are
// required.
type PulseConfig[T any] struct {
	// Every is the promise: the next pulse is sent within it, after a random 0.85–0.95
	// × Every. It ranges from hivebeat.MinEvery to hivebeat.MaxEvery.
	Every time.Duration
	// Snapshot builds the message to send. Only Run's goroutine calls it, one call at a
	// time and with no lock held.
	Snapshot func(why Why) (T, error)
	// Send sends it, on the same goroutine. An error is counted, and the pulse is built
	// and sent again about a second later, or once reconnected.
	Send func(T) error
	// Flush, if set, waits until the last message has left this process. It is called
	// after the last pulse; its context has a deadline.
	Flush func(context.Context) error
	// RollGap is the least time between two answers to roll calls. Default 1 s.
	RollGap time.Duration
	// LastWait bounds the attempts to send and flush the last pulse. Default 2 s.
	LastWait time.Duration
	// Logger receives a Warn when pulses begin to fail, and an Info when they are sent
	// again. Default: nothing is logged.
	Logger *slog.Logger
}

func (c PulseConfig[T]) withDefaults() PulseConfig[T] {
	if c.LastWait <= 0 {
		c.LastWait = 2 * time.Second
	}
	c.Logger = cmp.Or(c.Logger, slog.New(slog.DiscardHandler))
	return c
}

func (c PulseConfig[T]) validate() error {
	switch {
	case c.Every < hivebeat.MinEvery || c.Every > hivebeat.MaxEvery:
		return fmt.Errorf("bus: PulseConfig.Every: %s is not between %s and %s", c.Every, hivebeat.MinEvery, hivebeat.MaxEvery)
	case c.Snapshot == nil:
		return errors.New("bus: PulseConfig.Snapshot: required")
	case c.Send == nil:
		return errors.New("bus: PulseConfig.Send: required")
	}
	return nil
}

// Pulse sends a T every interval, with jitter; at once when something changed or ended;
// once more on reconnect and on roll call; and a last one when it stops. Schedule
// describes its pace, which no caller can exceed. Workers and hives both use it, and the
// package comment describes how another kind of sender does.
//
// All methods are safe for concurrent use, and all but Run, Stop and Now return at
// once. After the end of Run they do nothing.
type Pulse[T any] struct {
	cfg  PulseConfig[T]
	wake chan struct{} // capacity 1: a pulse is due sooner than Run knows
	stop chan struct{} // closed by the first Stop
	done chan struct{} // closed when Run has ended

	mu      sync.Mutex
	sched   *Schedule
	phase   phase
	stopCtx context.Context // of the first Stop: bounds the last pulse
	asked   *round          // the callers that wait for the next pulse
	armed   time.Time       // when Run wakes next
	stats   PulseStats
	lastErr error // of the last pulse, once done
}

type phase uint8

const (
	phaseNew phase = iota
	phaseRunning
	phaseDone // or stopped before it ran
)

// round is one pulse that callers wait for.
type round struct {
	done chan struct{}
	err  error // valid once done is closed
}

// PulseStats counts the outcomes of the pulses of one Pulse.
type PulseStats struct {
	Sent   uint64    // pulses sent
	Failed uint64    // attempts that could not be built or sent
	Late   uint64    // pulses that began later than promised: this process was stopped or starved, or could not send
	Last   time.Time // start of the last pulse that was sent; zero before the first
}

// NewPulse returns a Pulse that does nothing until Run.
func NewPulse[T any](cfg PulseConfig[T]) (*Pulse[T], error) {
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	return &Pulse[T]{
		cfg:  cfg.withDefaults(),
		wake: make(chan struct{}, 1),
		stop: make(chan struct{}),
		done: make(chan struct{}),
	}, nil
}

// Run sends the first pulse at once, and continues until ctx ends or Stop is called.
// Before it returns it sends the last pulse, for at most LastWait, and returns its
// error. Run works once: a second call, or a call after Stop, returns
// hivebeat.ErrStopped.
func (p *Pulse[T]) Run(ctx context.Context) error {
	p.mu.Lock()
	switch p.phase {
	case phaseRunning:
		p.mu.Unlock()
		return fmt.Errorf("bus: pulse: %w", ErrRunning)
	case phaseDone:
		p.mu.Unlock()
		return fmt.Errorf("bus: pulse: %w", hivebeat.ErrStopped)
	}
	p.phase = phaseRunning
	p.sched = NewSchedule(time.Now(), p.cfg.Every, p.cfg.RollGap, rand.Float64)
	p.mu.Unlock()

	p.loop(ctx)
	err := p.last(ctx)

	p.mu.Lock()
	p.phase, p.lastErr = phaseDone, err
	r := p.asked
	p.asked = nil
	p.mu.Unlock()
	r.end(hivebeat.ErrStopped)
	close(p.done)
	return err
}

func (p *Pulse[T]) loop(ctx context.Context) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		p.mu.Lock()
		p.armed, _ = p.sched.Next()
		timer.Reset(time.Until(p.armed))
		p.mu.Unlock()
		select {
		case <-ctx.Done():
			return
		case <-p.stop:
			return
		case <-p.wake:
			continue // rearm the timer
		case <-timer.C:
		}
		// Several channels may be ready: a stopped Pulse sends only the last pulse.
		select {
		case <-ctx.Done():
			return
		case <-p.stop:
			return
		default:
		}
		p.beat()
	}
}

// beat sends one pulse, if it is due.
func (p *Pulse[T]) beat() {
	p.mu.Lock()
	now := time.Now()
	if at, _ := p.sched.Next(); at.After(now) {
		p.mu.Unlock()
		return
	}
	why, late := p.sched.Begin(now)
	if late {
		p.stats.Late++
	}
	r := p.asked
	p.asked = nil
	p.mu.Unlock()

	err := p.send(why)

	p.mu.Lock()
	failing := p.sched.failing
	if err == nil {
		p.sched.Sent()
		p.stats.Sent++
		p.stats.Last = now
	} else {
		p.sched.Failed(time.Now())
		p.stats.Failed++
	}
	p.mu.Unlock()
	r.end(err)

	switch {
	case err != nil && !failing:
		p.cfg.Logger.Warn("cannot send, trying again", slog.Any("err", err))
	case err == nil && failing:
		p.cfg.Logger.Info("sending again")
	}
}

func (p *Pulse[T]) send(why Why) error {
	v, err := p.cfg.Snapshot(why)
	if err != nil {
		return err
	}
	return p.cfg.Send(v)
}

// lastRetry is the pause between attempts to send the last pulse.
const lastRetry = 100 * time.Millisecond

// last sends the last pulse. If none was sent before, no receiver knows this sender:
// one attempt is made, and its error is ignored.
func (p *Pulse[T]) last(ctx context.Context) error {
	p.mu.Lock()
	base, known := p.stopCtx, p.stats.Sent > 0
	p.mu.Unlock()
	if base == nil {
		base = context.WithoutCancel(ctx)
	}
	bounded, cancel := context.WithTimeout(base, p.cfg.LastWait)
	defer cancel()

	err := p.send(WhyLast)
	for err != nil && known && !errors.Is(err, nats.ErrConnectionClosed) && sleep(bounded, lastRetry) {
		err = p.send(WhyLast)
	}
	if err == nil {
		p.mu.Lock()
		p.stats.Sent++
		p.stats.Last = time.Now()
		p.mu.Unlock()
		if p.cfg.Flush != nil {
			err = p.cfg.Flush(bounded)
		}
	}
	if err != nil && known {
		return fmt.Errorf("last message not sent: %w", err)
	}
	return nil
}

// sleep reports whether it slept for all of d.
func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}

// Stop makes Run send the last pulse and return, and waits for that. ctx bounds the
// wait as well as the last pulse. Stop may be called any number of times, from anywhere
// but Snapshot, Send and Flush. If it is called before Run, Run never begins. It
// returns the error of the last pulse, or of ctx if that ended first.
func (p *Pulse[T]) Stop(ctx context.Context) error {
	p.mu.Lock()
	switch {
	case p.phase == phaseNew:
		p.phase = phaseDone
		close(p.stop)
		close(p.done)
	case p.phase == phaseRunning && p.stopCtx == nil:
		p.stopCtx = ctx
		close(p.stop)
	}
	p.mu.Unlock()
	select {
	case <-p.done:
	case <-ctx.Done():
		select {
		case <-p.done: // both are ready: the result counts
		default:
			return ctx.Err()
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.lastErr
}

// Done is closed when Run has ended, or can no longer begin.
func (p *Pulse[T]) Done() <-chan struct{} { return p.done }

// Ended requests a pulse at once, because something ended. Ends that follow are
// gathered for 50 ms; 20 are sent in a burst, then two a second, whatever else was
// sent.
func (p *Pulse[T]) Ended() { p.ask((*Schedule).Ended) }

// Changed requests a pulse at once, because of another change that cannot wait. Changes
// that follow are gathered for 50 ms; 5 are sent in a burst, then one a second.
func (p *Pulse[T]) Changed() { p.ask((*Schedule).Changed) }

// Touch reports that facts changed: they are sent within a second of the pulse before.
func (p *Pulse[T]) Touch() { p.ask((*Schedule).Touch) }

// Call requests a pulse for a roll call, after a random wait within spread. A pulse
// that is due sooner is the answer.
func (p *Pulse[T]) Call(spread time.Duration) {
	p.ask(func(s *Schedule, now time.Time) { s.Call(now, spread) })
}

// Reconnected requests one pulse, soon, and ends the wait after a failure.
func (p *Pulse[T]) Reconnected() { p.ask((*Schedule).Reconnected) }

// ask changes the schedule, and wakes Run if a pulse is now due sooner.
func (p *Pulse[T]) ask(f func(*Schedule, time.Time)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.phase != phaseRunning {
		return // the first pulse carries the change, or Run has ended
	}
	p.askLocked(f)
}

func (p *Pulse[T]) askLocked(f func(*Schedule, time.Time)) {
	f(p.sched, time.Now())
	if at, _ := p.sched.Next(); at.Before(p.armed) {
		p.armed = at
		select {
		case p.wake <- struct{}{}:
		default:
		}
	}
}

// Now sends a pulse at once, 10 a second at most. It returns when a pulse that began
// after the call was passed to Send, with the error of Send, or when ctx ends. If the
// Pulse is not running, the error wraps ErrNotRunning.
func (p *Pulse[T]) Now(ctx context.Context) error {
	p.mu.Lock()
	if p.phase != phaseRunning {
		p.mu.Unlock()
		return ErrNotRunning
	}
	if p.asked == nil {
		p.asked = &round{done: make(chan struct{})}
	}
	r := p.asked
	p.askLocked((*Schedule).Ask)
	p.mu.Unlock()
	select {
	case <-r.done:
		return r.err
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (r *round) end(err error) {
	if r != nil {
		r.err = err
		close(r.done)
	}
}

// Stats returns the counts so far.
func (p *Pulse[T]) Stats() PulseStats {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.stats
}

// ParseSpread parses the payload of a roll call: milliseconds as decimal text, of 9
// digits at most; empty means def. Anything else is an error that wraps
// hivebeat.ErrRefused: the caller must count and ignore the roll call.
func ParseSpread(payload []byte, def time.Duration) (time.Duration, error) {
	if len(payload) == 0 {
		return def, nil
	}
	bad := len(payload) > 9
	for i := 0; i < len(payload) && !bad; i++ {
		bad = payload[i] < '0' || payload[i] > '9'
	}
	if bad {
		return 0, &hivebeat.Refusal{
			Reason: hivebeat.RefusedMalformed,
			Detail: fmt.Sprintf("spread %.40q is not milliseconds as decimal text", payload),
		}
	}
	ms, err := strconv.ParseInt(string(payload), 10, 64)
	return time.Duration(ms) * time.Millisecond, err
}
