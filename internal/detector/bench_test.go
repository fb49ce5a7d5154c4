package detector

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"testing"
	"time"

	"github.com/beatfabric/hivebeat"
)

// fleet returns a registry with n workers, the bytes of a beat of each, and within them the
// eight bytes that hold seq.
func fleet(b testing.TB, n int) (r *Registry, msgs [][]byte, seqs [][]byte) {
	r = New(thisHive)
	r.Start(t0)
	for i := range n {
		f := newFake(fmt.Sprintf("worker-%04d", i))
		f.Seq = 1 << 40
		f.VRAM, f.Busy, f.Queue, f.Done = 40<<30, 3, 1, 12345
		msg := f.Next(b)
		if _, err := r.Receive(t0, msg, ""); err != nil {
			b.Fatal(err)
		}
		at := bytes.Index(msg, []byte("\xa3seq\xcf")) + 5
		msgs, seqs = append(msgs, msg), append(seqs, msg[at:at+8])
	}
	r.TakeSteps()
	return r, msgs, seqs
}

func benchBeats(b *testing.B, n int) {
	r, msgs, seqs := fleet(b, n)
	now, seq, i := t0, uint64(1<<40)+1, 0
	b.SetBytes(int64(len(msgs[0])))
	b.ReportAllocs()
	for b.Loop() {
		if i%n == 0 {
			seq++
		}
		binary.BigEndian.PutUint64(seqs[i%n], seq)
		now = now.Add(every / time.Duration(n))
		if _, err := r.Receive(now, msgs[i%n], ""); err != nil {
			b.Fatal(err)
		}
		if next, _ := r.Next(); !now.Before(next) {
			r.Detect(now)
		}
		i++
	}
	if r.stats.Stale+r.stats.Refused+r.stats.WireLost > 0 || len(r.steps) > 0 {
		b.Fatalf("not a steady state: %+v, %d transitions", r.stats, len(r.steps))
	}
}

// BenchmarkBeat measures one beat from bytes to registry, including its deadline.
func BenchmarkBeat(b *testing.B) {
	for _, n := range []int{100, 1000, hivebeat.MaxWorkers} {
		b.Run(fmt.Sprintf("workers=%d", n), func(b *testing.B) { benchBeats(b, n) })
	}
}
