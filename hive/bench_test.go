package hive

import (
	"encoding/binary"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/beatfabric/hivebeat"
	"github.com/beatfabric/hivebeat/internal/bustest"
	"github.com/beatfabric/hivebeat/internal/core"
	"github.com/beatfabric/hivebeat/internal/detector"
)

// fleet returns a registry with n workers that have just joined.
func fleet(b testing.TB, n int) *detector.Registry {
	r := detector.New(thisHive)
	r.Start(t0)
	for i := range n {
		f := newFake(fmt.Sprintf("worker-%04d", i))
		f.VRAM, f.Busy, f.Queue, f.Done = 40<<30, 3, 1, 12345
		if _, err := r.Receive(t0, f.Next(b), ""); err != nil {
			b.Fatal(err)
		}
	}
	r.TakeSteps()
	return r
}

// BenchmarkSnapshot measures one snapshot, from the registry to its pages.
func BenchmarkSnapshot(b *testing.B) {
	for _, n := range []int{100, 5000} {
		b.Run(fmt.Sprintf("workers=%d", n), func(b *testing.B) {
			r := fleet(b, n)
			b.ReportAllocs()
			size := 0
			for b.Loop() {
				s := hivebeat.Snapshot{V: 1, Hive: thisHive, Inc: 1, Seq: 1, Every: 15000}
				s.Workers = r.Records(t0.Add(70 * time.Second))
				list, err := pages(s, 1<<20)
				if err != nil {
					b.Fatal(err)
				}
				size = 0
				for _, p := range list {
					size += len(p)
				}
			}
			b.ReportMetric(float64(size), "bytes")
		})
	}
}

// BenchmarkOverTCP measures a beat from a publisher over TCP to the hive's registry.
// The same run also measures the floor: the same bytes to a plain subscriber with a
// channel, which only counts them. The publisher stays at most 3,000 beats ahead, so
// that no message is dropped.
func BenchmarkOverTCP(b *testing.B) {
	srv := bustest.Server(b, bustest.NoJetStream())
	b.Run("floor", func(b *testing.B) {
		nc := bustest.Conn(b, srv)
		waiting := make(chan *nats.Msg, core.PendingBeats)
		sub, err := nc.ChanSubscribe(beats, waiting)
		if err != nil {
			b.Fatal(err)
		}
		defer close(waiting)
		defer func() { _ = sub.Unsubscribe() }()
		if err := nc.Flush(); err != nil {
			b.Fatal(err)
		}
		var heard atomic.Uint64
		go func() {
			for range waiting {
				heard.Add(1)
			}
		}()
		overTCP(b, bustest.Conn(b, srv), heard.Load)
	})
	b.Run("hive", func(b *testing.B) {
		nc := bustest.Conn(b, srv)
		h := running(b, nc, quickConfig())
		subscribed(b, nc, h)
		before := h.Stats().Beats
		overTCP(b, bustest.Conn(b, srv), func() uint64 { return h.Stats().Beats - before })
	})
}

// overTCP publishes b.N beats of 100 workers, and waits until all are received.
func overTCP(b *testing.B, nc *nats.Conn, heard func() uint64) {
	const workers, ahead = 100, 2000
	msgs, seqs := make([][]byte, workers), make([][]byte, workers)
	for i := range msgs {
		f := newFake(fmt.Sprintf("worker-%04d", i))
		f.Seq = 1 << 40
		msgs[i] = f.Next(b)
		at := strings.Index(string(msgs[i]), "\xa3seq\xcf") + 5
		seqs[i] = msgs[i][at : at+8]
	}
	send := func(i int) {
		binary.BigEndian.PutUint64(seqs[i%workers], uint64(1<<40+1+i/workers))
		if err := nc.Publish(beats, msgs[i%workers]); err != nil {
			b.Fatal(err)
		}
	}
	tick := time.NewTicker(200 * time.Microsecond)
	defer tick.Stop()
	wait := func(n uint64) {
		for heard() < n {
			<-tick.C // a busy loop would take CPU time from the hive
		}
	}
	b.ReportAllocs()
	b.ResetTimer()
	for i := range b.N {
		if send(i); i >= ahead && i%(ahead/2) == 0 {
			wait(uint64(i - ahead))
		}
	}
	if err := nc.Flush(); err != nil {
		b.Fatal(err)
	}
	wait(uint64(b.N))
}
