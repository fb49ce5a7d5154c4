package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/beatfabric/hivebeat/bus"
)

// leaveIn bounds the way out of each step: the goodbye or last snapshot, and the
// drain of the connection.
const leaveIn = 5 * time.Second

// errEnded: a role ended though nobody stopped it, and did not say why.
var errEnded = errors.New("ended by itself")

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

// begin runs a role until its leave.
func begin(ctx context.Context, name string, r role, nc *nats.Conn) *running {
	run := &running{name: name, role: r, nc: nc, ended: make(chan struct{})}
	go func() {
		defer close(run.ended)
		run.err = r.Run(context.WithoutCancel(ctx)) // it ends by Stop, in order
	}()
	return run
}

// leave ends the role in order: its goodbye, then what it published is flushed
// and the connection closed.
func (r *running) leave() error {
	ctx, cancel := context.WithTimeout(context.Background(), leaveIn)
	defer cancel()
	err := r.role.Stop(ctx)
	select {
	case <-r.ended:
		err = errors.Join(err, r.err)
	case <-ctx.Done():
		err = errors.Join(err, context.Cause(ctx))
	}
	drain, cancel := context.WithTimeout(context.Background(), leaveIn)
	defer cancel()
	if err = errors.Join(err, bus.Drain(drain, r.nc)); err != nil {
		return fmt.Errorf("%s did not leave in order: %w", r.name, err)
	}
	return nil
}

// serve runs one role until a signal comes.
func (c *console) serve(ctx context.Context, name string, r role, nc *nats.Conn, log *slog.Logger) error {
	ctx, stop := c.untilSignal(ctx)
	defer stop()
	run := begin(ctx, name, r, nc)
	select {
	case <-run.ended:
		nc.Close()
		return fmt.Errorf("%s: %w", name, cmp.Or(run.err, errEnded))
	case <-ctx.Done():
	}
	log.Info("leaving in order; a second signal leaves at once", slog.String("role", name))
	return run.leave()
}
