package client_test

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/beatfabric/hivebeat"
	"github.com/beatfabric/hivebeat/bus/embedded"
	"github.com/beatfabric/hivebeat/hive"
	"github.com/beatfabric/hivebeat/queen"
	"github.com/beatfabric/hivebeat/queen/client"
	"github.com/beatfabric/hivebeat/worker"
)

// demo is the fabric of the examples: a server, queen q1, hive gpu-01, and its workers
// llama, which has three of four slots free, and whisper, which has none.
type demo struct {
	nc    *nats.Conn
	llama *worker.Worker
	stop  func()
}

// start runs a demo until its stop is called. It returns when the queen is sure of both
// workers.
func start(ctx context.Context) *demo {
	srv, err := embedded.Start(ctx, embedded.Config{JetStream: true, Port: -1})
	if err != nil {
		panic(err)
	}
	nc, err := srv.Connect()
	if err != nil {
		panic(err)
	}
	q, errQ := queen.New(nc, queen.Config{ID: "q1"})
	h, errH := hive.New(nc, hive.Config{
		ID:   "gpu-01",
		Host: func(context.Context) (hivebeat.Host, error) { return hivebeat.Host{}, nil },
		GPUs: func(context.Context) ([]hivebeat.GPU, error) {
			return []hivebeat.GPU{{UUID: "GPU-7f3a", Total: 80 << 30, Used: 50 << 30}}, nil
		},
	})
	llama, errL := worker.New(nc, worker.Config{Hive: "gpu-01", ID: "llama", Model: "Llama-3.3-70B", Slots: 4, State: hivebeat.Ready})
	whisper, errW := worker.New(nc, worker.Config{Hive: "gpu-01", ID: "whisper", Model: "whisper-large-v3", Slots: 1, State: hivebeat.Busy})
	if err := errors.Join(errQ, errH, errL, errW); err != nil {
		panic(err)
	}
	busy := func(f *worker.Facts) { f.Busy = 1 }
	if err := errors.Join(llama.Update(busy), whisper.Update(busy)); err != nil {
		panic(err)
	}
	running, leave := context.WithCancel(context.Background())
	var all sync.WaitGroup
	for _, run := range []func(context.Context) error{q.Run, h.Run, llama.Run, whisper.Run} {
		all.Go(func() {
			if err := run(running); err != nil {
				panic(err)
			}
		})
	}
	d := &demo{nc: nc, llama: llama, stop: func() {
		ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
		defer cancel()
		leave()
		all.Wait()
		nc.Close()
		if err := srv.Stop(ctx); err != nil {
			panic(err)
		}
	}}
	d.await(ctx)
	return d
}

// await watches until the queen is sure of a hive with its GPU and of two workers.
func (d *demo) await(ctx context.Context) {
	c, err := client.New(d.nc, client.Config{})
	if err != nil {
		panic(err)
	}
	alive, gpus := map[string]bool{}, 0
	for ch := range c.Watch(ctx, client.WatchQuery{Wait: 100 * time.Millisecond}) { // an error passes when the queen is warm
		for _, h := range ch.Hives {
			gpus = len(h.GPUs)
		}
		for _, w := range ch.Workers {
			alive[w.Worker] = w.Live == hivebeat.Alive
		}
		if ch.Status.Warm && ch.Status.Sure() && gpus == 1 && alive["llama"] && alive["whisper"] {
			return
		}
	}
	panic(ctx.Err())
}
