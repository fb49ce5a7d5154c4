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

// ErrContended: Update gave up because other calls of Update were faster each time.
var ErrContended = errors.New("facts changed while they were being changed")

// updateTries is how often Update tries; only an Update within an Update, or a
// slow one among many fast ones, needs more than a few.
const updateTries = 1000

// SetState says in which state the worker is, and why, in words for people. A new
// state goes out at once, gathered with others as bus.Schedule says; between ready
// and busy, and for a new reason alone, it goes out within a second. The state
// that the worker is in already costs nothing. A new state ends a silence that
// Quiet announced.
//
// A reason is cut to 256 bytes. A state that no beat may hold is an error that
// wraps ErrInvalid, and so are stopped and failed, which Stop and Fail say; after
// those the error is hivebeat.ErrStopped. It never waits for NATS.
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

// clip returns reason as a beat may hold it.
func (w *Worker) clip(reason string) string {
	if len(reason) <= hivebeat.MaxReason && utf8.ValidString(reason) {
		return reason
	}
	w.n.clipped.Add(1)
	const ellipsis = "…"
	// Only what can stay is worth mending: the text may be of any length.
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

// Update changes facts: change is given the present ones, with maps and slices it
// may write to. If they differ afterwards they go out within a second. It may be
// called from any goroutine, also concurrently: change may then run again, on
// newer facts, so it should do nothing else. No lock is held meanwhile.
//
// Facts that no beat may hold are refused with an error that wraps ErrInvalid and
// names the field, and the facts stay as they were. It never waits for NATS.
func (w *Worker) Update(change func(*Facts)) error {
	for range updateTries {
		old := w.facts.Load()
		next := old.clone()
		change(&next)
		kept, same := next.keep(old)
		if same {
			return nil
		}
		if err := kept.check(); err != nil {
			w.n.refused.Add(1)
			return fmt.Errorf("worker: Update: %w", err)
		}
		if w.facts.CompareAndSwap(old, kept) {
			w.pulse.Touch()
			return nil
		}
	}
	w.n.refused.Add(1)
	return fmt.Errorf("worker: Update: %w", ErrContended)
}

// Touch says that what Config.Facts returns has changed: a beat with it goes out
// within a second. Without it, it goes out with the next beat.
func (w *Worker) Touch() { w.pulse.Touch() }

const (
	quietTimes = 3                      // so often is a silence announced,
	quietGap   = 250 * time.Millisecond // so far apart: within 1 s
	quietWait  = 5 * time.Second        // longest wait of Quiet for NATS
)

// Quiet announces that no beat may come for d, 10 min at most, because what
// follows may stop the whole process: the hive then waits for that long before it
// calls the worker late. It is called right before:
//
//	w.SetState(hivebeat.Loading, "llama-3-70b")
//	w.Quiet(ctx, 5*time.Minute)
//	load() // may block every thread
//	w.SetState(hivebeat.Ready, "")
//
// Quiet returns when the announcement was sent 3 times and flushed, after about
// half a second; after ctx, or 5 s, it returns an error, and the announcement goes
// out with the next beats instead. The worker goes on beating if it can, each time
// with what is left of d. The silence ends with d, with the next SetState to
// another state, or with Quiet(ctx, 0), which returns at once.
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
		return fmt.Errorf("worker: Quiet: announced %d of %d times: %w", said, quietTimes, err)
	}
	return nil
}

// announce beats three times. A beat that can not be sent is tried again, at the
// pace of the pulse, until ctx ends.
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
			return said, err // says more than that the time is over
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
