package client_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/beatfabric/hivebeat"
	"github.com/beatfabric/hivebeat/bus/embedded"
	"github.com/beatfabric/hivebeat/internal/wire"
	"github.com/beatfabric/hivebeat/queen"
	"github.com/beatfabric/hivebeat/queen/api"
	"github.com/beatfabric/hivebeat/queen/client"
)

// A program that wants to know which workers are alive asks any queen.
func Example() {
	url, stop, err := fabric() // where a queen runs; in production nats://…:4222
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return
	}
	defer stop()
	nc, err := nats.Connect(url)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return
	}
	defer nc.Close()
	c, err := client.New(nc, client.Config{})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()

	s, err := c.Summary(ctx)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return
	}
	fmt.Println(s.Summary.Workers[hivebeat.Alive], "workers are alive, sure:", len(s.Status.Unsure) == 0)

	for page, err := range c.Workers(ctx, api.Request{Hive: "gpu-01"}) {
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return
		}
		for _, w := range page.Workers {
			fmt.Printf("%s/%s is %s and serves %s\n", w.Hive, w.Worker, w.Live, w.Model)
		}
	}

	_, err = c.Hive(ctx, "gpu-99")
	fmt.Println(errors.Is(err, client.ErrNotFound), err)
	// Output:
	// 2 workers are alive, sure: true
	// gpu-01/llama is alive and serves llama-3.3-70b
	// gpu-01/whisper is alive and serves whisper-large-v3
	// true client: hive: not found: no hive gpu-99 is known
}

// fabric runs a server with a queen that has heard one hive.
func fabric() (url string, stop func(), err error) {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	srv, err := embedded.Start(ctx, embedded.Config{JetStream: true})
	if err != nil {
		return "", nil, err
	}
	nc, err := nats.Connect(srv.URL())
	if err != nil {
		return "", nil, errors.Join(err, srv.Stop(ctx))
	}
	q, err := queen.New(nc, queen.Config{ID: "q1"})
	if err != nil {
		return "", nil, err
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = q.Run(context.Background())
	}()
	worker := func(id, model string) hivebeat.Record {
		return hivebeat.Record{Worker: id, Live: hivebeat.Alive, Facts: hivebeat.Facts{Inc: 1, Every: 3_600_000, Seq: 1, State: hivebeat.Ready, Model: model}}
	}
	snapshot, err := wire.EncodeSnapshot(&hivebeat.Snapshot{
		V: 1, Hive: "gpu-01", Inc: 1, Every: 3_600_000, Seq: 1, Warm: true, Pages: 1,
		Workers: []hivebeat.Record{worker("llama", "llama-3.3-70b"), worker("whisper", "whisper-large-v3")},
	})
	for err == nil && ctx.Err() == nil {
		a := q.Answer(ctx, api.VerbSummary, api.Request{})
		if a.Summary != nil && len(a.Status.Unsure) == 0 && a.Summary.Workers[hivebeat.Alive] == 2 {
			break
		}
		err = nc.Publish(hivebeat.Subjects{}.Hives(), snapshot)
		time.Sleep(10 * time.Millisecond)
	}
	return srv.URL(), func() {
		ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
		defer cancel()
		_ = q.Stop(ctx)
		<-ended
		nc.Close()
		_ = srv.Stop(ctx)
	}, errors.Join(err, ctx.Err())
}
