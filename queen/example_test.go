package queen_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/beatfabric/hivebeat"
	"github.com/beatfabric/hivebeat/bus"
	"github.com/beatfabric/hivebeat/bus/embedded"
	"github.com/beatfabric/hivebeat/hive"
	"github.com/beatfabric/hivebeat/queen"
	"github.com/beatfabric/hivebeat/queen/api"
	"github.com/beatfabric/hivebeat/worker"
)

// A queen hears all hives, announces each change as an event, and answers questions.
func Example() {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	if err := fleet(ctx); err != nil {
		fmt.Fprintln(os.Stderr, err)
	}
	// Output:
	// event: gpu-01/llama joined
	// 1 worker is alive
	// gpu-01/llama serves llama-3.3-70b: ready
	// event: gpu-01/llama left
}

func fleet(ctx context.Context) (err error) {
	srv, err := embedded.Start(ctx, embedded.Config{JetStream: true}) // in production NATS is there already
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, srv.Stop(ctx)) }()
	nc, err := bus.Connect(ctx, bus.Config{URL: srv.URL()})
	if err != nil {
		return err
	}
	defer nc.Close()

	q, errQ := queen.New(nc, queen.Config{ID: "q1"})
	h, errH := hive.New(nc, hive.Config{ID: "gpu-01"}) // on each machine
	w, errW := worker.New(nc, worker.Config{Hive: "gpu-01", ID: "llama", Model: "llama-3.3-70b"})
	if err := errors.Join(errQ, errH, errW); err != nil {
		return err
	}

	// Any program may subscribe to the events. show prints the next event of this kind.
	events, err := nc.SubscribeSync("queen.events.*.*.*") // of workers
	if err != nil {
		return err
	}
	show := func(kind hivebeat.Kind) error {
		for {
			m, err := events.NextMsgWithContext(ctx)
			if err != nil {
				return err
			}
			var e hivebeat.Event
			if err := json.Unmarshal(m.Data, &e); err != nil {
				return err
			}
			if e.Data.Kind == kind {
				fmt.Println("event:", e.Subject, e.Data.Kind)
				return nil
			}
		}
	}

	ended := make(chan error, 3)
	for _, run := range []func(context.Context) error{q.Run, h.Run, w.Run} {
		go func() { ended <- run(ctx) }()
	}
	if err := show(hivebeat.KindJoined); err != nil {
		return err
	}
	a := q.Answer(ctx, api.VerbSummary, api.Request{})
	if a.Error != nil {
		return errors.New(a.Error.Message)
	}
	fmt.Println(a.Summary.Workers[hivebeat.Alive], "worker is alive") // a.Status.Unsure says why an answer may be incomplete
	for _, w := range q.Answer(ctx, api.VerbWorkers, api.Request{Filter: api.Filter{Model: "*llama*"}}).Workers {
		fmt.Printf("%s/%s serves %s: %s\n", w.Hive, w.Worker, w.Model, w.State)
	}

	if err := w.Stop(ctx); err != nil {
		return err
	}
	if err := show(hivebeat.KindLeft); err != nil {
		return err
	}
	if err := errors.Join(h.Stop(ctx), q.Stop(ctx)); err != nil {
		return err
	}
	return errors.Join(<-ended, <-ended, <-ended)
}
