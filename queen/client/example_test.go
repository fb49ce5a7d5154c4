package client_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/beatfabric/hivebeat"
	"github.com/beatfabric/hivebeat/queen/api"
	"github.com/beatfabric/hivebeat/queen/client"
)

// A program asks any queen for the state of the fleet, and reads how sure the answer is.
func Example() {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	fabric := start(ctx) // where a queen runs; a program connects to its NATS instead
	defer fabric.stop()

	c, err := client.New(fabric.nc, client.Config{})
	if err != nil {
		panic(err)
	}
	s, err := c.Summary(ctx)
	if err != nil {
		panic(err)
	}
	fmt.Println(s.Workers[hivebeat.Alive], "workers are alive, says", s.Status.Queen)
	fmt.Println("sure:", s.Status.Sure())
	// Output:
	// 2 workers are alive, says q1
	// sure: true
}

// The rows of a list come one by one; their pages are fetched on the way.
func ExampleClient_Workers() {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	fabric := start(ctx)
	defer fabric.stop()
	c, err := client.New(fabric.nc, client.Config{})
	if err != nil {
		panic(err)
	}

	for w, err := range c.Workers(ctx, client.Query{Hive: "gpu-01", Sort: "model"}) {
		if err != nil {
			panic(err)
		}
		fmt.Printf("%s/%s is %s and %s: %d of %d slots busy with %s\n", w.Hive, w.Worker, w.Live, w.State, w.Busy, w.Slots, w.Model)
	}
	// Output:
	// gpu-01/llama is alive and ready: 1 of 4 slots busy with Llama-3.3-70B
	// gpu-01/whisper is alive and busy: 1 of 1 slots busy with whisper-large-v3
}

// An empty list says nothing by itself. Its pages say how sure the queen is.
func ExampleClient_WorkerPages() {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	fabric := start(ctx)
	defer fabric.stop()
	c, err := client.New(fabric.nc, client.Config{})
	if err != nil {
		panic(err)
	}

	n, sure := 0, true
	for page, err := range c.WorkerPages(ctx, client.Query{Filter: api.Filter{Live: []hivebeat.Live{hivebeat.Lost}}}) {
		if err != nil {
			panic(err)
		}
		n += len(page.Rows)
		sure = sure && page.Status.Sure()
	}
	fmt.Printf("%d workers are lost, sure: %v\n", n, sure)
	// Output:
	// 0 workers are lost, sure: true
}

// Branch on ErrNotFound for an unknown worker. The status says whether the queen may not
// have heard from every hive yet.
func ExampleClient_Worker() {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	fabric := start(ctx)
	defer fabric.stop()
	c, err := client.New(fabric.nc, client.Config{})
	if err != nil {
		panic(err)
	}

	for _, id := range []string{"llama", "sdxl"} {
		w, err := c.Worker(ctx, "gpu-01", id)
		switch {
		case errors.Is(err, client.ErrNotFound):
			fmt.Println(id, "is not known, sure:", w.Status.Sure())
		case err != nil:
			panic(err)
		default:
			fmt.Println(id, "is", w.Live)
		}
	}
	// Output:
	// llama is alive
	// sdxl is not known, sure: true
}

// A dispatcher asks for a place for its work. If nothing fits, the result says why.
func ExampleClient_Pick() {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	fabric := start(ctx)
	defer fabric.stop()
	c, err := client.New(fabric.nc, client.Config{})
	if err != nil {
		panic(err)
	}

	for _, model := range []string{"*Llama-3*", "whisper*"} {
		p, err := c.Pick(ctx, client.PickRequest{Model: model})
		switch {
		case errors.Is(err, client.ErrNothingFits):
			fmt.Println(model, "has to wait:", p.Passed)
		case err != nil:
			panic(err)
		default:
			best := p.Places[0]
			fmt.Printf("%s goes to %s/%s, which has %d free slots\n", model, best.Hive, best.Worker, best.FreeSlots)
		}
	}
	p, err := c.Pick(ctx, client.PickRequest{For: api.ForGPU, FreeVRAM: 20 << 30})
	if err != nil {
		panic(err)
	}
	fmt.Printf("%s of %s has room for another worker\n", p.Places[0].GPU, p.Places[0].Hive)
	// Output:
	// *Llama-3* goes to gpu-01/llama, which has 3 free slots
	// whisper* has to wait: map[no free slot:1]
	// GPU-7f3a of gpu-01 has room for another worker
}

// Two dispatchers that pick at once may get the same place. Each holds its own until its
// work has begun.
func ExampleClient_Hold() {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	fabric := start(ctx)
	defer fabric.stop()
	c, err := client.New(fabric.nc, client.Config{Asker: "dispatcher-1"})
	if err != nil {
		panic(err)
	}

	job := client.HoldRequest{
		PickRequest: client.PickRequest{Model: "*Llama-3*", Slots: 3},
		ID:          "job-42",
		Duration:    time.Minute,
	}
	p, err := c.Hold(ctx, job)
	if err != nil {
		panic(err)
	}
	fmt.Println("held by", p.Places[0].Asker, "for", p.Places[0].Hold, "on", p.Places[0].Worker)

	other, err := client.New(fabric.nc, client.Config{Asker: "dispatcher-2"})
	if err != nil {
		panic(err)
	}
	_, err = other.Pick(ctx, client.PickRequest{Model: "*Llama-3*"})
	fmt.Println("free for another:", !errors.Is(err, client.ErrNothingFits))

	if _, err := c.Release(ctx, job.ID); err != nil { // the work has begun, or will not
		panic(err)
	}
	_, err = c.Release(ctx, job.ID)
	fmt.Println("released before:", errors.Is(err, client.ErrNotFound))
	// Output:
	// held by dispatcher-1 for job-42 on llama
	// free for another: false
	// released before: true
}

// A watch mirrors the fleet: everything first, then what changes.
func ExampleClient_Watch() {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	fabric := start(ctx)
	defer fabric.stop()
	c, err := client.New(fabric.nc, client.Config{})
	if err != nil {
		panic(err)
	}

	workers, last := map[string]hivebeat.State{}, hivebeat.State("")
	for ch, err := range c.Watch(ctx, client.WatchQuery{Only: []string{"workers"}}) {
		if err != nil {
			continue // Watch tries again
		}
		if ch.Resync != "" { // another queen took over
			clear(workers)
		}
		for _, id := range ch.Gone {
			delete(workers, id)
		}
		for _, w := range ch.Workers {
			workers[w.Cursor()] = w.State
		}
		if state := workers["gpu-01/llama"]; !ch.More && state != last {
			fmt.Println(len(workers), "workers; llama is", state)
			last = state
		}
		if last == hivebeat.Draining {
			break
		}
		if err := fabric.llama.SetState(hivebeat.Draining, "maintenance"); err != nil {
			panic(err)
		}
	}
	// Output:
	// 2 workers; llama is ready
	// 2 workers; llama is draining
}

// Answers that are shown together come from one queen, so that they agree.
func ExampleClient_Follow() {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	fabric := start(ctx)
	defer fabric.stop()
	c, err := client.New(fabric.nc, client.Config{})
	if err != nil {
		panic(err)
	}

	view := c.Follow()
	s, err := view.Summary(ctx)
	if err != nil {
		panic(err)
	}
	var ids []string
	for h, err := range view.Hives(ctx, client.Query{}) {
		if err != nil {
			panic(err)
		}
		ids = append(ids, h.Hive)
	}
	fmt.Printf("%d hives: %s\n", s.Hives[hivebeat.Alive], strings.Join(ids, ", "))
	// Output:
	// 1 hives: gpu-01
}
