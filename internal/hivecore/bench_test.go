package hivecore

import (
	"encoding/binary"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/beatfabric/hivebeat"
	"github.com/beatfabric/hivebeat/internal/core"
	"github.com/beatfabric/hivebeat/internal/sampletest"
)

// steady returns a core with n workers, and a function that sends beats that change
// nothing.
func steady(t testing.TB, n int) (c *Core, beat func()) {
	c = New(Config{ID: sampletest.Hive, Subject: subject, NS: "boot/1", PID: 1, PushFacts: second})
	now := time.Now()
	c.Connection(now, core.Connection{Up: true})
	msgs, seqs := make([][]byte, n), make([][]byte, n)
	for i, f := range names(n) {
		f.Seq = 1 << 40
		msgs[i] = f.Next(t)
		at := strings.Index(string(msgs[i]), "\xa3seq\xcf") + 5
		seqs[i] = msgs[i][at : at+8]
		c.Beat(now, subject, msgs[i])
	}
	c.Tick(now, 0)
	c.Ready()
	seq, i := uint64(1<<40)+1, 0
	return c, func() {
		if i%n == 0 {
			seq++
		}
		binary.BigEndian.PutUint64(seqs[i%n], seq)
		now = now.Add(sampletest.Every / time.Duration(n+1))
		if !c.Beat(now, subject, msgs[i%n]) {
			t.Fatal("refused")
		}
		i++
	}
}

func TestAnUnchangedBeatAllocatesNothing(t *testing.T) {
	c, beat := steady(t, 100)
	if n := testing.AllocsPerRun(10_000, func() { beat(); c.Ready() }); n != 0 {
		t.Errorf("%g allocations", n)
	}
}

// BenchmarkBeat measures one beat through the core, including Ready.
func BenchmarkBeat(b *testing.B) {
	for _, n := range []int{100, 1000, hivebeat.MaxWorkers} {
		b.Run(fmt.Sprintf("workers=%d", n), func(b *testing.B) {
			c, beat := steady(b, n)
			b.ReportAllocs()
			for b.Loop() {
				beat()
				if r := c.Ready(); len(r.Steps) > 0 {
					b.Fatalf("not a steady state: %+v", r.Steps)
				}
			}
		})
	}
}
