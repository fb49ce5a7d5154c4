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

// why tells why a role that nobody stopped ended. It is read after ended.
func (r *running) why() error {
	err := cmp.Or(r.err, errEnded)
	text, _, _ := strings.Cut(plain(err.Error()), "; it is left as it is")
	why := fmt.Errorf("%s: %w", r.name, &reworded{text, err})
	if errors.Is(err, ledger.ErrDiffers) {
		return failed(why, "run the queen with the settings that it has (--storage, --replicas, --events-max), or, if nobody else needs it, "+
			"remove it: nats kv del BUCKET, nats stream rm STREAM; \"hivebeat doctor --role queen\" looks at all of them")
	}
	return why
}

// reworded is an error with a text of its own.
type reworded struct {
	text string
	err  error
}

func (e *reworded) Error() string { return e.text }
func (e *reworded) Unwrap() error { return e.err }

// leave ends the role in order: its goodbye, then what it published is flushed
// and the connection closed. Of one that ended by itself why tells.
func (r *running) leave() error {
	select {
	case <-r.ended:
		r.nc.Close()
		return nil
	default:
	}
	ctx, cancel := context.WithTimeout(context.Background(), leaveIn)
	defer cancel()
	err := r.role.Stop(ctx)
	select {
	case <-r.ended:
		if !errors.Is(r.err, hivebeat.ErrStopped) { // stopped before it had begun: there was nothing to say
			err = errors.Join(err, r.err)
		}
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

// serve runs one role until ctx, which is that of agent, ends.
func serve(ctx context.Context, name string, r role, nc *nats.Conn, log *slog.Logger) error {
	run := begin(ctx, name, r, nc)
	select {
	case <-run.ended:
		nc.Close()
		return run.why()
	case <-ctx.Done():
	}
	log.Info("leaving in order; a second signal leaves at once", slog.String("role", name))
	return run.leave()
}
