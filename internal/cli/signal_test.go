//go:build !windows

package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"syscall"
	"testing"
	"time"

	"github.com/beatfabric/hivebeat"
	"github.com/beatfabric/hivebeat/internal/bustest"
)

// The first signal ends the context. The second one exits at once, with the terminal restored.
func TestSignals(t *testing.T) {
	left, restored := make(chan int, 1), make(chan struct{}, 1)
	c := newConsole(Streams{Exit: func(code int) { left <- code }})
	c.takeTerminal(func() { restored <- struct{}{} })
	ctx, stop := c.untilSignal(t.Context())
	defer stop()
	kill := func(sig syscall.Signal) {
		if err := syscall.Kill(os.Getpid(), sig); err != nil {
			t.Fatal(err)
		}
	}
	kill(syscall.SIGTERM)
	select {
	case <-ctx.Done():
	case <-time.After(10 * time.Second):
		t.Fatal("the first signal does nothing")
	}
	if !errors.Is(context.Cause(ctx), errInterrupted) {
		t.Error(context.Cause(ctx))
	}
	select {
	case code := <-left:
		t.Fatalf("left at the first signal, with %d", code)
	default:
	}
	kill(syscall.SIGINT)
	select {
	case code := <-left:
		if code != ExitFailed {
			t.Errorf("left with %d", code)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("the second signal does nothing")
	}
	select {
	case <-restored:
	default:
		t.Error("the terminal is left as it is")
	}
}

// After stop, signals are ignored.
func TestSignalsStop(t *testing.T) {
	c := newConsole(Streams{Exit: func(int) { t.Error("left") }})
	ctx, stop := c.untilSignal(t.Context())
	stop()
	stop()
	if err := context.Cause(ctx); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

// stoppable is a role that starts to run after Stop, as can happen on an overloaded machine.
type stoppable struct{ stop chan struct{} }

func (s stoppable) Run(context.Context) error {
	<-s.stop
	return fmt.Errorf("role: %w", hivebeat.ErrStopped)
}

func (s stoppable) Stop(context.Context) error { close(s.stop); return nil }

// A signal while the role still connects gives exit code 0 too. An error from before the
// signal is reported.
func TestSignalWhileItStarts(t *testing.T) {
	c := newConsole(Streams{Exit: func(int) { t.Error("left") }})
	broken := errors.New("broken")
	for _, tt := range []struct{ err, want error }{{nil, nil}, {broken, broken}} {
		err := c.agent(t.Context(), func(ctx context.Context) error {
			if err := syscall.Kill(os.Getpid(), syscall.SIGINT); err != nil {
				return err
			}
			<-ctx.Done()
			return cmp.Or(tt.err, fmt.Errorf("listen: %w", context.Canceled))
		})
		if !errors.Is(err, tt.want) {
			t.Errorf("%v, want %v", err, tt.want)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := c.agent(ctx, func(ctx context.Context) error { return ctx.Err() }); !errors.Is(err, context.Canceled) {
		t.Errorf("nobody sent a signal: %v", err)
	}
}

// A signal before the role runs ends it in order as well: signals are handled from the first
// step of a command on.
func TestSignalBeforeTheRoleRuns(t *testing.T) {
	c := newConsole(Streams{Exit: func(int) { t.Error("left") }})
	r := stoppable{make(chan struct{})}
	nc := bustest.Conn(t, bustest.Server(t, bustest.NoJetStream()))
	err := c.agent(t.Context(), func(ctx context.Context) error {
		if err := syscall.Kill(os.Getpid(), syscall.SIGTERM); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
		case <-time.After(patience):
			return errors.New("the signal does nothing")
		}
		return serve(ctx, "role", r, nc, slog.New(slog.DiscardHandler))
	})
	select {
	case <-r.stop:
	default:
		t.Error("the role was not stopped")
	}
	if err != nil || !nc.IsClosed() {
		t.Errorf("%v; the connection is closed: %v", err, nc.IsClosed())
	}
}
