package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/beatfabric/hivebeat"
	"github.com/beatfabric/hivebeat/bus"
	"github.com/beatfabric/hivebeat/internal/ledger"
)

// leaveIn bounds each step of a shutdown: the goodbye or last snapshot, and the drain of
// the connection.
const leaveIn = 5 * time.Second

// errEnded reports a role that ended without Stop and without an error.
var errEnded = errors.New("ended unexpectedly")

// role is a worker, hive or queen. Run lasts until Stop; Stop says goodbye.
type role interface {
	Run(ctx context.Context) error
	Stop(ctx context.Context) error
}

// running is a role that runs on its own connection.
type running struct {
	name  string
	role  role
	nc    *nats.Conn
	ended chan struct{} // closed when Run has returned
	err   error         // of Run; read after ended
}

// begin starts a role, which runs until leave.
func begin(ctx context.Context, name string, r role, nc *nats.Conn) *running {
	run := &running{name: name, role: r, nc: nc, ended: make(chan struct{})}
	go func() {
		defer close(run.ended)
		run.err = r.Run(context.WithoutCancel(ctx)) // Stop ends it, in order
	}()
	return run
}

// why returns the error of a role that ended without Stop. Call it after ended is closed.
func (r *running) why() error {
	err := cmp.Or(r.err, errEnded)
	text, _, _ := strings.Cut(plain(err.Error()), "; it was not changed")
	why := fmt.Errorf("%s: %w", r.name, &reworded{text, err})
	if errors.Is(err, ledger.ErrDiffers) {
		return failed(why, "run the queen with the existing settings (--storage, --replicas, --events-max), or, if nothing else needs it, "+
			"remove it: nats kv del BUCKET, nats stream rm STREAM; \"hivebeat doctor --role queen\" looks at all of them")
	}
	return why
}

// reworded is an error with another text.
type reworded struct {
	text string
	err  error
}

func (e *reworded) Error() string { return e.text }
func (e *reworded) Unwrap() error { return e.err }

// leave stops the role in order: it says goodbye, its last messages are flushed, and the
// connection is closed. If the role has ended by itself, leave returns nil, and why returns
// the error.
func (r *running) leave() error { return r.leaveWithin(leaveIn) }

// leaveWithin is leave for a role whose goodbye may take longer.
func (r *running) leaveWithin(d time.Duration) error {
	select {
	case <-r.ended:
		r.nc.Close()
		return nil
	default:
	}
	ctx, cancel := context.WithTimeout(context.Background(), d)
	defer cancel()
	err := r.role.Stop(ctx)
	select {
	case <-r.ended:
		if !errors.Is(r.err, hivebeat.ErrStopped) { // stopped before it started: there is nothing to report
			err = errors.Join(err, r.err)
		}
	case <-ctx.Done():
		err = errors.Join(err, context.Cause(ctx))
	}
	drain, cancel := context.WithTimeout(context.Background(), leaveIn)
	defer cancel()
	if err = errors.Join(err, bus.Drain(drain, r.nc)); err != nil {
		return fmt.Errorf("%s did not stop in order: %w", r.name, err)
	}
	return nil
}

// serve runs one role until ctx, which agent passes, ends.
func serve(ctx context.Context, name string, r role, nc *nats.Conn, log *slog.Logger) error {
	run := begin(ctx, name, r, nc)
	n := notify(log)
	defer n.close()
	n.say(ready)
	select {
	case <-run.ended:
		nc.Close()
		return run.why()
	case <-ctx.Done():
	}
	n.say(stopping)
	log.Info("shutting down; a second signal exits at once", slog.String("role", name))
	return run.leave()
}
