package queen

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/beatfabric/hivebeat"
	"github.com/beatfabric/hivebeat/internal/bustest"
	"github.com/beatfabric/hivebeat/internal/wire"
	"github.com/beatfabric/hivebeat/queen/client"
)

const (
	bigHives   = 10_000 // with 100 workers each
	bigModels  = 20
	bigZones   = 16
	bigPromise = 15 * time.Second
)

// bigSnapshot is snapshot number seq of hive i in a big fleet.
func bigSnapshot(i int, seq uint64) *hivebeat.Snapshot {
	s := fleetSnapshot(fmt.Sprintf("gpu-%05d", i), 100)
	s.Seq, s.Every = seq, hivebeat.MillisOf(time.Hour) // silence does not matter here
	s.Labels = map[string]string{"zone": fmt.Sprintf("zone-%d", i%bigZones)}
	for k := range s.Workers {
		w := &s.Workers[k]
		w.Model = fmt.Sprintf("model-%d", (i+k%3)%bigModels)
		w.Busy, w.Seq, w.Done = (uint64(i+7*k)+seq)%17, w.Seq+seq, w.Done+seq
	}
	return s
}

// BenchmarkPick is a pick from a fleet of 1,000,000 workers by a client, over TCP on
// loopback. Server, queen and client are in this process. A hold is a pick that writes
// to JetStream, in a file, before it is answered. In "busy" the hives also report at
// their normal rate, and their snapshots go into the bucket.
func BenchmarkPick(b *testing.B) {
	srv := bustest.Server(b)
	q := startQueen(b, bustest.Conn(b, srv), Config{ID: "q1", Fresh: time.Hour})
	q.warm()
	for i := range bigHives {
		var page wire.SnapshotView
		if err := wire.ParseSnapshot(encode(b, bigSnapshot(i, 100)), &page); err != nil {
			b.Fatal(err)
		}
		err := q.do(b.Context(), func(now time.Time) {
			if err := q.view.Apply(&page, now); err != nil {
				b.Error(err)
			}
			q.view.Take() // writing 10,000 hives into the roster takes minutes, and does not matter here
		})
		if err != nil {
			b.Fatal(err)
		}
	}
	c, err := client.New(bustest.Conn(b, srv), client.Config{})
	if err != nil {
		b.Fatal(err)
	}
	n := 0
	pick := func(b *testing.B, hold bool) {
		var took []time.Duration
		for b.Loop() {
			n++
			r := client.PickRequest{Model: fmt.Sprintf("model-%d", n%bigModels)}
			ask := func() (client.Pick, error) { return c.Pick(b.Context(), r) }
			if hold {
				ask = func() (client.Pick, error) {
					return c.Hold(b.Context(), client.HoldRequest{PickRequest: r, ID: fmt.Sprintf("job-%d", n)})
				}
			}
			began := time.Now()
			a, err := ask()
			if err != nil || len(a.Places) != 1 {
				b.Fatalf("%v, %+v", err, a)
			}
			took = append(took, time.Since(began))
		}
		slices.Sort(took)
		for _, p := range []int{50, 99} {
			b.ReportMetric(float64(took[len(took)*p/100].Nanoseconds()), fmt.Sprintf("p%d-ns", p))
		}
	}
	b.Run("quiet", func(b *testing.B) { pick(b, false) })
	b.Run("quiet-hold", func(b *testing.B) { pick(b, true) })
	defer report(b, bustest.Conn(b, srv))()
	b.Run("busy", func(b *testing.B) { pick(b, false) })
	b.Run("busy-hold", func(b *testing.B) { pick(b, true) })
}

// report lets hives report until stop is called, spread as evenly as hives that each
// report once per bigPromise. It prepares the messages of some seconds in advance.
func report(b *testing.B, nc *nats.Conn) (stop func()) {
	b.Helper()
	msgs := make([][]byte, bigHives/2)
	for i := range msgs {
		msgs[i] = encode(b, bigSnapshot(i, 101))
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		tick := time.NewTicker(bigPromise / bigHives)
		defer tick.Stop()
		for _, m := range msgs {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
			if err := nc.Publish(hivebeat.Subjects{}.Hives(), m); err != nil {
				b.Error(err)
				return
			}
		}
		b.Error("the messages did not last as long as the benchmark: is -benchtime more than 2s?")
	}()
	return func() { cancel(); <-ended }
}
