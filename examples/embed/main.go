// Command embed is a Go program that contains a whole hivebeat fabric: a NATS server, a
// queen, a hive and a worker. A program that only wants to be visible needs only the
// lines about the worker, and a connection to the NATS of the others.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/beatfabric/hivebeat"
	"github.com/beatfabric/hivebeat/bus/embedded"
	"github.com/beatfabric/hivebeat/hive"
	"github.com/beatfabric/hivebeat/queen"
	"github.com/beatfabric/hivebeat/queen/api"
	"github.com/beatfabric/hivebeat/worker"
)

func main() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if err := run(ctx, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "embed:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, out io.Writer) error {
	srv, err := embedded.Start(ctx, embedded.Config{JetStream: true, Port: -1})
	if err != nil {
		return err
	}
	nc, err := srv.Connect() // all roles borrow this connection
	if err == nil {
		err = fabric(ctx, out, nc)
		nc.Close()
	}
	return errors.Join(err, srv.Stop(ctx))
}

func fabric(ctx context.Context, out io.Writer, nc *nats.Conn) error {
	q, errQ := queen.New(nc, queen.Config{})
	h, errH := hive.New(nc, hive.Config{ID: "gpu-01"})
	w, errW := worker.New(nc, worker.Config{Hive: "gpu-01", ID: "llama", Model: "llama-3-8b", State: hivebeat.Loading})
	if err := errors.Join(errQ, errH, errW); err != nil {
		return err
	}
	running, leave := context.WithCancel(ctx)
	ended := make(chan error)
	for _, run := range []func(context.Context) error{q.Run, h.Run, w.Run} {
		go func() { ended <- run(running) }()
	}
	err := life(ctx, out, q, w)
	leave() // each leaves in order, and returns
	return errors.Join(err, <-ended, <-ended, <-ended)
}

func life(ctx context.Context, out io.Writer, q *queen.Queen, w *worker.Worker) error {
	if err := await(ctx, out, q, hivebeat.Alive, hivebeat.Loading); err != nil {
		return err
	}
	if err := w.SetState(hivebeat.Ready, ""); err != nil { // the model is loaded
		return err
	}
	if err := await(ctx, out, q, hivebeat.Alive, hivebeat.Ready); err != nil {
		return err
	}
	if err := w.Stop(ctx); err != nil { // says goodbye: it left, it did not die
		return err
	}
	return await(ctx, out, q, hivebeat.Left, hivebeat.Stopped)
}

// await asks the queen until it shows the worker as live and in state.
func await(ctx context.Context, out io.Writer, q *queen.Queen, live hivebeat.Live, state hivebeat.State) error {
	for ; ctx.Err() == nil; time.Sleep(10 * time.Millisecond) {
		for _, w := range q.Answer(ctx, api.VerbWorkers, api.Request{}).Workers {
			if w.Live == live && w.State == state {
				_, err := fmt.Fprintf(out, "%s/%s serves %s: %s, %s\n", w.Hive, w.Worker, w.Model, w.Live, w.State)
				return err
			}
		}
	}
	return ctx.Err()
}
