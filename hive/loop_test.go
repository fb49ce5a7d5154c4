package hive

import (
	"encoding/binary"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/beatfabric/hivebeat"
	"github.com/beatfabric/hivebeat/internal/bustest"
	"github.com/beatfabric/hivebeat/internal/core"
	"github.com/beatfabric/hivebeat/internal/link"
)

// turning returns the loop of a connected hive, whose turns the test takes itself, and
// its channel of beats.
func turning(t testing.TB) (*loop, chan *nats.Msg) {
	t.Helper()
	nc := bustest.Conn(t, bustest.Server(t, bustest.NoJetStream()))
	h, err := New(nc, quickConfig())
	if err != nil {
		t.Fatal(err)
	}
	outside, err := link.Open(nc, nil, h.log)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(outside.Close)
	waiting := make(chan *nats.Msg, core.PendingBeats)
	l := newLoop(h, outside, waiting)
	h.core.Connection(time.Now(), core.Connection{Up: true})
	return l, waiting
}

// All waiting beats are handled before any worker is judged, however many wait.
func TestWhoWaitsToBeHeardIsNotLate(t *testing.T) {
	l, waiting := turning(t)
	const many = 3*core.Batch + 1
	list := make([]*fake, many)
	for i := range list {
		list[i] = newFake(fmt.Sprint("w", i))
		l.core.Beat(time.Now().Add(-50*second), beats, list[i].Next(t))
	}
	for _, f := range list {
		waiting <- &nats.Msg{Subject: beats, Data: f.Next(t)}
	}
	if err := l.turn(t.Context(), l.core.Tick); err != nil {
		t.Fatal(err)
	}
	for _, w := range l.Snapshot().Workers {
		if w.Live != hivebeat.Alive || w.N != 1 || w.Seq != 2 {
			t.Errorf("judged before it was heard: %+v", w)
		}
	}
	if n := len(l.Snapshot().Workers); n != many {
		t.Errorf("%d workers, want %d", n, many)
	}
}

// A wake-up handles one batch, and leaves the other beats to the next one.
func TestAWakeUpTakesABatch(t *testing.T) {
	l, waiting := turning(t)
	f := newFake("w")
	for range core.Batch + 10 {
		waiting <- &nats.Msg{Subject: beats, Data: f.Next(t)}
	}
	for _, want := range []uint64{core.Batch, core.Batch + 10} {
		if err := l.hearBeats(t.Context(), <-waiting); err != nil {
			t.Fatal(err)
		}
		if got := l.Stats().Beats; got != want {
			t.Errorf("%d beats, want %d", got, want)
		}
	}
}

// BenchmarkTurn measures a beat from the channel to the registry, with batch beats
// waiting.
func BenchmarkTurn(b *testing.B) {
	for _, batch := range []int{1, core.Batch} {
		b.Run(fmt.Sprintf("waiting=%d", batch), func(b *testing.B) {
			l, waiting := turning(b)
			const n = 100
			msgs, seqs := make([]*nats.Msg, n), make([][]byte, n)
			for i := range msgs {
				f := newFake(fmt.Sprintf("worker-%04d", i))
				f.Seq = 1 << 40
				data := f.Next(b)
				at := strings.Index(string(data), "\xa3seq\xcf") + 5
				msgs[i], seqs[i] = &nats.Msg{Subject: beats, Data: data}, data[at:at+8]
			}
			seq, i := uint64(1<<40), 0
			send := func() {
				if i%n == 0 {
					seq++
				}
				binary.BigEndian.PutUint64(seqs[i%n], seq)
				waiting <- msgs[i%n]
				i++
			}
			hear := func() {
				if err := l.hearBeats(b.Context(), <-waiting); err != nil {
					b.Fatal(err)
				}
			}
			for range n {
				send()
				hear()
			}
			b.ReportAllocs()
			b.ResetTimer()
			for range b.N {
				if send(); len(waiting) == batch {
					hear()
				}
			}
		})
	}
}
