package hive_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/beatfabric/hivebeat"
	"github.com/beatfabric/hivebeat/bus"
	"github.com/beatfabric/hivebeat/bus/embedded"
	"github.com/beatfabric/hivebeat/hive"
	"github.com/beatfabric/hivebeat/worker"
)

// The hive of a machine hears its workers, and sends what it knows in snapshots.
func Example() {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	if err := machine(ctx); err != nil {
		fmt.Fprintln(os.Stderr, err)
	}
	// Output:
	// gpu-01 has 1 GPU with 16 GiB free
	// llama is alive, ready
	// llama is left, stopped
	// gpu-01 leaves
}

func machine(ctx context.Context) (err error) {
	srv, err := embedded.Start(ctx, embedded.Config{}) // in production NATS is there already
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, srv.Stop(ctx)) }()
	nc, err := bus.Connect(ctx, bus.Config{URL: srv.URL()})
	if err != nil {
		return err
	}
	defer nc.Close()

	h, err := hive.New(nc, hive.Config{
		ID: "gpu-01",
		// By default a hive reads these from the system and from nvidia-smi.
		Host: func(context.Context) (hivebeat.Host, error) { return hivebeat.Host{Name: "gpu-01"}, nil },
		GPUs: func(context.Context) ([]hivebeat.GPU, error) {
			return []hivebeat.GPU{{UUID: "GPU-1", Total: 24 << 30, Used: 8 << 30}}, nil
		},
	})
	if err != nil {
		return err
	}
	w, err := worker.New(nc, worker.Config{Hive: "gpu-01", ID: "llama"}) // mostly in another process
	if err != nil {
		return err
	}

	// Queens listen here. await returns the first snapshot for which ok holds.
	snapshots, err := nc.SubscribeSync(hivebeat.Subjects{}.Hives())
	if err != nil {
		return err
	}
	await := func(ok func(s *hivebeat.Snapshot) bool) (*hivebeat.Snapshot, error) {
		for {
			m, err := snapshots.NextMsgWithContext(ctx)
			if err != nil {
				return nil, err
			}
			var s hivebeat.Snapshot
			if err := bus.Decode(m.Data, &s); err != nil || ok(&s) {
				return &s, err
			}
		}
	}
	showWorker := func(live hivebeat.Live) error {
		s, err := await(func(s *hivebeat.Snapshot) bool { return len(s.Workers) == 1 && s.Workers[0].Live == live })
		if err == nil {
			fmt.Printf("%s is %s, %s\n", s.Workers[0].Worker, s.Workers[0].Live, s.Workers[0].State)
		}
		return err
	}

	ended := make(chan error, 2)
	go func() { ended <- h.Run(ctx) }()
	s, err := await(func(s *hivebeat.Snapshot) bool { return len(s.GPUs) > 0 })
	if err != nil {
		return err
	}
	fmt.Printf("%s has %d GPU with %d GiB free\n", s.Hive, len(s.GPUs), s.GPUs[0].Free()>>30)

	go func() { ended <- w.Run(ctx) }()
	if err := showWorker(hivebeat.Alive); err != nil {
		return err
	}
	if err := w.Stop(ctx); err != nil { // says goodbye
		return err
	}
	if err := showWorker(hivebeat.Left); err != nil {
		return err
	}
	if err := h.Stop(ctx); err != nil {
		return err
	}
	if s, err = await(func(s *hivebeat.Snapshot) bool { return s.Bye != "" }); err != nil {
		return err
	}
	fmt.Println(s.Hive, "leaves")
	return errors.Join(<-ended, <-ended)
}
