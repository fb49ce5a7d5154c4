package bus_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/beatfabric/hivebeat"
	"github.com/beatfabric/hivebeat/bus"
	"github.com/beatfabric/hivebeat/bus/embedded"
	"github.com/beatfabric/hivebeat/verdict"
)

// report is the message of a storage node.
type report struct {
	Node  string          `msgpack:"node"`
	Inc   uint64          `msgpack:"inc"` // Unix µs when the node began
	Seq   uint64          `msgpack:"seq"`
	Every hivebeat.Millis `msgpack:"every"`
	Free  uint64          `msgpack:"free"` // GB
	Bye   bool            `msgpack:"bye,omitempty"`
}

// node is a storage node that beats.
type node struct {
	id       string
	inc, seq uint64
	free     atomic.Uint64
	pulse    *bus.Pulse[report]
}

const every = time.Minute // the promise of a node

// newNode returns a node that beats on nc, which it borrows, once its pulse runs.
func newNode(nc *nats.Conn, id string, free uint64) (*node, error) {
	n := &node{id: id, inc: uint64(time.Now().UnixMicro())}
	n.free.Store(free)
	var err error
	n.pulse, err = bus.NewPulse(bus.PulseConfig[report]{
		Every: every,
		Snapshot: func(why bus.Why) (report, error) { // one call at a time, so that seq needs no lock
			n.seq++
			return report{Node: n.id, Inc: n.inc, Seq: n.seq, Every: hivebeat.MillisOf(every), Free: n.free.Load(), Bye: why == bus.WhyLast}, nil
		},
		Send: func(b report) error {
			payload, err := bus.Encode(b)
			if err != nil {
				return err
			}
			return nc.Publish("storage.nodes", payload)
		},
		Flush: nc.FlushWithContext,
	})
	return n, err
}

// run beats until ctx ends, and answers roll calls and reconnects with a beat.
func (n *node) run(ctx context.Context, nc *nats.Conn) error {
	calls, err := nc.Subscribe("storage.rollcall", func(m *nats.Msg) {
		if spread, err := bus.ParseSpread(m.Data, 2*time.Second); err == nil {
			n.pulse.Call(spread)
		}
	})
	if err != nil {
		return err
	}
	defer func() { _ = calls.Unsubscribe() }()
	status := nc.StatusChanged(nats.CONNECTED)
	defer nc.RemoveStatusListener(status)
	go func() {
		for range status {
			n.pulse.Reconnected()
		}
	}()
	return n.pulse.Run(ctx)
}

// A storage node is a sender of its own kind: it beats by a Pulse, and its receiver
// judges it by package verdict.
func ExamplePulse() {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	if err := storage(ctx); err != nil {
		fmt.Fprintln(os.Stderr, err)
	}
	// Output:
	// node-1: first, 120 GB free, lost after 3m0s without a beat
	// node-1: next, 80 GB free
	// node-1: next, 80 GB free
	// node-1: next, left
}

func storage(ctx context.Context) (err error) {
	srv, err := embedded.Start(ctx, embedded.Config{}) // in production NATS is there already
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, srv.Stop(ctx)) }()
	nc, err := bus.Connect(ctx, bus.Config{URL: srv.URL(), Name: "storage node-1", Every: every})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, bus.Drain(ctx, nc)) }()

	// The receiver, mostly another process, keeps a guard for each node.
	beats, err := nc.SubscribeSync("storage.nodes")
	if err != nil {
		return err
	}
	var guard verdict.Guard
	receive := func() (b report, o verdict.Outcome, err error) {
		m, err := beats.NextMsgWithContext(ctx)
		if err != nil {
			return b, o, err
		}
		if err := bus.Decode(m.Data, &b); err != nil {
			return b, o, err
		}
		return b, guard.Hear(b.Inc, b.Seq, true), nil
	}

	n, err := newNode(nc, "node-1", 120)
	if err != nil {
		return err
	}
	ended := make(chan error, 1)
	go func() { ended <- n.run(ctx, nc) }()

	b, o, err := receive() // the first beat is sent at once
	if err != nil {
		return err
	}
	fmt.Printf("%s: %s, %d GB free, lost after %s without a beat\n", b.Node, o, b.Free, verdict.LostAfter(b.Every.Duration(), 0))

	for _, happens := range []func() error{
		func() error { n.free.Store(80); n.pulse.Changed(); return nil },
		func() error { return nc.Publish("storage.rollcall", []byte("0")) }, // milliseconds to spread the answers over
	} {
		if err := happens(); err != nil {
			return err
		}
		if b, o, err = receive(); err != nil {
			return err
		}
		fmt.Printf("%s: %s, %d GB free\n", b.Node, o, b.Free)
	}

	if err := n.pulse.Stop(ctx); err != nil { // sends the goodbye
		return err
	}
	if b, o, err = receive(); err != nil {
		return err
	}
	if b.Bye {
		guard.End()
		fmt.Printf("%s: %s, left\n", b.Node, o)
	}
	return <-ended
}
