package worker

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/beatfabric/hivebeat"
	"github.com/beatfabric/hivebeat/bus"
)

// ErrContended: Update gave up because concurrent calls of Update were faster each
// time.
var ErrContended = errors.New("facts kept changing during Update")

// updateTries is how often Update tries. Only an Update within an Update, or a slow one
// among many fast ones, needs more than a few attempts.
const updateTries = 1000

// SetState sets the state of the worker, and a reason for people to read. A new state
// is sent at once, gathered with others as bus.Schedule describes. A change between
// ready and busy, or of the reason alone, is sent within a second. Setting the current
// state and reason again costs nothing. A new state ends a silence that Quiet
// announced.
//
// A reason is cut to 256 bytes. A state that no beat may hold is an error that wraps
// ErrInvalid, and so are stopped and failed, which Stop and Fail set. After Stop or
// Fail the error is hivebeat.ErrStopped. SetState never waits for NATS.
func (w *Worker) SetState(state hivebeat.State, reason string) error {
	if err := checkState(state); err != nil {
		w.n.refused.Add(1)
		return fmt.Errorf("worker: SetState: %w", err)
	}
	reason = w.clip(reason)
	w.mu.Lock()
	if w.bye != "" {
		w.mu.Unlock()
		return fmt.Errorf("worker: SetState: %w", hivebeat.ErrStopped)
	}
	was := w.state
	if state == was && reason == w.reason {
		w.mu.Unlock()
		return nil
	}
	if state != was {
		w.quiet = time.Time{}
	}
	w.state, w.reason = state, reason
	w.mu.Unlock()
	if was.SameAs(state) {
		w.pulse.Touch()
	} else {
		w.pulse.Changed()
	}
	return nil
}

// clip returns reason in a form that a beat may hold.
func (w *Worker) clip(reason string) string {
	if len(reason) <= hivebeat.MaxReason && utf8.ValidString(reason) {
		return reason
	}
	w.n.clipped.Add(1)
	const ellipsis = "…"
	// Only the part that can stay is worth repairing: the text may be of any length.
	reason = strings.ToValidUTF8(reason[:min(len(reason), hivebeat.MaxReason+1)], "?")
	if len(reason) <= hivebeat.MaxReason {
		return reason
	}
	end := hivebeat.MaxReason - len(ellipsis)
	for !utf8.RuneStart(reason[end]) {
		end--
	}
	return reason[:end] + ellipsis
}

// Update changes the facts. change receives the current facts, with maps and slices
// that it may write to. If it changes anything, the new facts are sent within a second;
// Tokens, KV and Probed alone wait for the next beat.
// Update may be called from any goroutine, also concurrently: change may then run
// again, on newer facts, so it should have no other effect. No lock is held meanwhile.
//
// Facts that no beat may hold are refused with an error that wraps ErrInvalid and names
// the field, and the facts remain unchanged. Update never waits for NATS.
func (w *Worker) Update(change func(*Facts)) error {
	for range updateTries {
		old := w.facts.Load()
		next := old.clone()
		change(&next)
		kept, same := next.keep(old)
		if err := kept.check(); err != nil {
			w.n.refused.Add(1)
			return fmt.Errorf("worker: Update: %w", err)
		}
		if w.facts.CompareAndSwap(old, kept) {
			if !same {
				w.pulse.Touch()
			}
			return nil
		}
	}
	w.n.refused.Add(1)
	return fmt.Errorf("worker: Update: %w", ErrContended)
}

// Touch reports that the result of Config.Facts has changed: a beat with it is sent
// within a second. Without Touch it is sent with the next beat.
func (w *Worker) Touch() { w.pulse.Touch() }

const (
	quietTimes = 3                      // how often a silence is announced,
	quietGap   = 250 * time.Millisecond // and how far apart: within 1 s in all
	quietWait  = 5 * time.Second        // longest wait of Quiet for NATS
)

// Quiet announces that no beat may come for d, 10 min at most, because the next step of
// the program may stop the whole process. The hive then waits that long before it
// considers the worker late. Call Quiet right before that step:
//
//	w.SetState(hivebeat.Loading, "llama-3-70b")
//	w.Quiet(ctx, 5*time.Minute)
//	load() // may block every thread
//	w.SetState(hivebeat.Ready, "")
//
// Quiet returns when the announcement was sent 3 times and flushed, after about half a
// second. If ctx ends or 5 s pass first, it returns an error, and the announcement is
// sent with the next beats instead. The worker continues to beat if it can, each time
// with the rest of d. The silence ends with d, with the next SetState to another state,
// or with Quiet(ctx, 0), which returns at once.
func (w *Worker) Quiet(ctx context.Context, d time.Duration) error {
	d = min(d, hivebeat.MaxQuiet)
	w.mu.Lock()
	if w.bye != "" {
		w.mu.Unlock()
		return fmt.Errorf("worker: Quiet: %w", hivebeat.ErrStopped)
	}
	if d <= 0 {
		was := w.quiet
		w.quiet = time.Time{}
		w.mu.Unlock()
		if !was.IsZero() {
			w.pulse.Changed()
		}
		return nil
	}
	w.quiet = time.Now().Add(d)
	w.mu.Unlock()

	ctx, cancel := context.WithTimeout(ctx, quietWait)
	defer cancel()
	said, err := w.announce(ctx)
	if err == nil {
		err = w.nc.FlushWithContext(ctx)
	}
	if err != nil {
		return fmt.Errorf("worker: Quiet: announced only %d of %d times: %w", said, quietTimes, err)
	}
	return nil
}

// announce beats three times. A beat that cannot be sent is tried again, at the pace of
// the pulse, until ctx ends.
func (w *Worker) announce(ctx context.Context) (said int, err error) {
	for said < quietTimes {
		wait := quietGap
		switch last := w.pulse.Now(ctx); {
		case last == nil:
			if said++; said == quietTimes {
				return said, nil
			}
		case errors.Is(last, bus.ErrNotRunning):
			err, wait = last, 10*time.Millisecond // Run may be about to begin
		case errors.Is(last, context.DeadlineExceeded) && err != nil:
			return said, err // err says more than that the time is over
		default:
			err, wait = last, 10*time.Millisecond // the next Now waits for its turn
		}
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
		case <-w.pulse.Done():
			timer.Stop()
			return said, hivebeat.ErrStopped
		case <-ctx.Done():
			timer.Stop()
			if err == nil {
				err = ctx.Err()
			}
			return said, err
		}
	}
	return said, nil
}
