package worker_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/beatfabric/hivebeat"
	"github.com/beatfabric/hivebeat/bus"
	"github.com/beatfabric/hivebeat/bus/embedded"
	"github.com/beatfabric/hivebeat/worker"
)

// A program that serves a model beats while it does, and says goodbye at its end.
func Example() {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	if err := serve(ctx); err != nil {
		fmt.Fprintln(os.Stderr, err)
	}
	// Output:
	// llama is loading
	// llama is ready, 3 of 8 slots are in use
	// llama is stopped
}

func serve(ctx context.Context) (err error) {
	srv, err := embedded.Start(ctx, embedded.Config{}) // in production NATS is there already
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, srv.Stop(ctx)) }()
	nc, err := bus.Connect(ctx, bus.Config{URL: srv.URL()}) // or nats.Connect
	if err != nil {
		return err
	}
	defer nc.Close()

	w, err := worker.New(nc, worker.Config{Hive: "gpu-01", ID: "llama", Model: "llama-3.3-70b", Slots: 8, State: hivebeat.Loading})
	if err != nil {
		return err
	}

	// The hive of the machine listens here. hear returns the first beat in a state.
	beats, err := nc.SubscribeSync(hivebeat.Subjects{}.Workers("gpu-01"))
	if err != nil {
		return err
	}
	hear := func(state hivebeat.State) (b hivebeat.Beat, err error) {
		for err == nil && b.State != state {
			m, errNext := beats.NextMsgWithContext(ctx)
			if errNext != nil {
				return b, errNext
			}
			err = bus.Decode(m.Data, &b)
		}
		return b, err
	}

	ended := make(chan error, 1)
	go func() { ended <- w.Run(ctx) }() // beats at once, and then every 30 s
	b, err := hear(hivebeat.Loading)
	if err != nil {
		return err
	}
	fmt.Printf("%s is %s\n", b.Worker, b.State)

	// The model is loaded, and requests come in.
	err = errors.Join(w.Update(func(f *worker.Facts) { f.Busy = 3 }), w.SetState(hivebeat.Ready, ""))
	if err != nil {
		return err
	}
	if b, err = hear(hivebeat.Ready); err != nil {
		return err
	}
	fmt.Printf("%s is %s, %d of %d slots are in use\n", b.Worker, b.State, b.Busy, b.Slots)

	if err := w.Stop(ctx); err != nil {
		return err
	}
	if b, err = hear(hivebeat.Stopped); err != nil {
		return err
	}
	fmt.Printf("%s is %s\n", b.Worker, b.State)
	return <-ended
}
