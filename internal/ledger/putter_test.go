package ledger

import (
	"fmt"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/beatfabric/hivebeat/bus/embedded"
	"github.com/beatfabric/hivebeat/internal/bustest"
)

func putting(t testing.TB, l *Ledger, cfg PutterConfig) *Putter {
	t.Helper()
	p := NewPutter(l, cfg)
	running(t, p.Run)
	return p
}

// holds waits until the bucket holds a seq of a hive.
func holds(t testing.TB, l *Ledger, hive string, seq uint64) {
	t.Helper()
	bustest.Eventually(t, patience, func() (bool, string) {
		_, got, ok, err := headOf(t, l, hive)
		return ok && got == seq, fmt.Sprintf("%s: %d %v %v, want %d", hive, got, ok, err, seq)
	})
}

func (p *Putter) waitStats(t testing.TB, what string, cond func(PutterStats) bool) {
	t.Helper()
	bustest.Eventually(t, patience, func() (bool, string) { s := p.Stats(); return cond(s), fmt.Sprintf("%s: %+v", what, s) })
}

func TestPutterPutsAtOnce(t *testing.T) {
	srv := bustest.Server(t)
	l := opened(t, srv, Config{})
	p := putting(t, l, PutterConfig{})
	best := time.Hour
	for i := range 10 {
		hive := "h" + strconv.Itoa(i)
		begin := time.Now()
		p.Offer(snap(hive, 1, 1))
		p.waitStats(t, "put", func(s PutterStats) bool { return s.Put == uint64(i+1) })
		best = min(best, time.Since(begin))
		holds(t, l, hive, 1)
	}
	t.Logf("put within %v (looked at every 5ms)", best)
	if best > putPace/2 {
		t.Errorf("the fastest of ten took %v, as if it waited for the pace", best)
	}
}

func TestPutterNewestWins(t *testing.T) {
	srv := bustest.Server(t)
	l := opened(t, srv, Config{})
	p := putting(t, l, PutterConfig{})
	begin := time.Now()
	for seq := uint64(1); seq <= 100; seq++ {
		p.Offer(snap("a", 1, seq))
	}
	holds(t, l, "a", 100)
	// The bucket holds the last one before the putter has its acknowledgement.
	p.waitStats(t, "100 put or replaced", func(s PutterStats) bool { return s.Put+s.Replaced == 100 })
	took := time.Since(begin)
	if s := p.Stats(); s.Offered != 100 || s.Failed+s.Stale+s.Old > 0 || s.Put > 1+uint64(took/putPace) {
		t.Errorf("%+v within %v: more than one put a second", s, took)
	}
}

func TestPutterPages(t *testing.T) {
	srv := bustest.Server(t)
	l := opened(t, srv, Config{})
	p := putting(t, l, PutterConfig{Parallel: 2})
	s := snap("a", 1, 1)
	for s.Page = range 10 {
		p.Offer(s)
	}
	p.waitStats(t, "ten pages", func(s PutterStats) bool { return s.Put == 10 })
	all, err := hivesOf(t, l)
	if err != nil || len(all) != 10 {
		t.Errorf("%d pages, %v; want 10", len(all), err)
	}
}

// Three queens put everything that they hear: all hives are fresh in the bucket, and each
// page was put by one of the queens.
func TestThreePutters(t *testing.T) {
	srv := bustest.Server(t)
	const hives = 300
	var putters []*Putter
	for range 3 {
		putters = append(putters, putting(t, opened(t, srv, Config{}), PutterConfig{}))
	}
	var wg sync.WaitGroup
	for _, p := range putters {
		wg.Go(func() {
			for i := range hives {
				p.Offer(snap("h"+strconv.Itoa(i), 1, 1))
			}
		})
	}
	wg.Wait()
	bustest.Eventually(t, patience, func() (bool, string) {
		var sum PutterStats
		for _, p := range putters {
			s := p.Stats()
			sum.Put += s.Put
			sum.Stale += s.Stale
			sum.Failed += s.Failed
		}
		return sum.Put == hives && sum.Stale == 2*hives, fmt.Sprintf("%+v", sum)
	})
}

func TestPutterWhileJetStreamIsAway(t *testing.T) {
	srv := bustest.Server(t)
	l := opened(t, srv, Config{})
	p := putting(t, l, PutterConfig{})
	p.Offer(snap("a", 1, 1))
	holds(t, l, "a", 1)
	bustest.Stop(t, srv)
	bustest.Eventually(t, patience, func() (bool, string) { return l.nc.Status() == nats.RECONNECTING, l.nc.Status().String() })
	const hives = 50
	begin := time.Now()
	for seq := uint64(2); seq <= 40; seq++ {
		for i := range hives {
			p.Offer(snap("h"+strconv.Itoa(i), 1, seq))
		}
	}
	if took := time.Since(begin); took > patience/3 {
		t.Errorf("offering took %v", took)
	}
	old := snap("old", 1, 1)
	old.Every = 100 * time.Millisecond
	p.Offer(old)
	if s := p.Stats(); s.Waiting > hives+1 {
		t.Errorf("%d wait, want the newest of %d", s.Waiting, hives+1)
	}
	p.waitStats(t, "failures", func(s PutterStats) bool { return s.Failed > 1 })
	if _, wait := p.begin(); wait > time.Second {
		t.Errorf("it waits %v before it tries again", wait)
	}
	<-time.After(time.Until(old.Received.Add(old.Every))) // it is old when JetStream is back
	bustest.Restart(t, srv)
	for i := range hives {
		holds(t, l, "h"+strconv.Itoa(i), 40)
	}
	p.waitStats(t, "the old one is dropped", func(s PutterStats) bool { return s.Old == 1 && s.Waiting == 0 })
	if _, _, ok, err := headOf(t, l, "old"); ok || err != nil {
		t.Errorf("the old one was put: %v %v", ok, err)
	}
	if s := p.Stats(); s.Put > hives+1 {
		t.Errorf("%+v: more was put than the newest", s)
	}
}

func TestPutterOnFullDisk(t *testing.T) {
	srv := bustest.Server(t, func(c *embedded.Config) { c.JetStreamMaxStore = 2 << 20 })
	l := opened(t, srv, Config{EventsMax: 1 << 20})
	p := putting(t, l, PutterConfig{})
	for i := range 30 {
		s := snap("h"+strconv.Itoa(i), 1, 1)
		s.Payload = make([]byte, 200<<10)
		p.Offer(s)
	}
	p.waitStats(t, "failures", func(s PutterStats) bool { return s.Failed > 2 })
	// With space again, puts resume.
	st, err := l.js.Stream(ctxOf(t), "KV_queen_hives")
	if err != nil {
		t.Fatal(err)
	}
	if err := st.Purge(ctxOf(t)); err != nil {
		t.Fatal(err)
	}
	before := p.Stats().Put
	p.waitStats(t, "puts", func(s PutterStats) bool { return s.Put > before })
}

func TestPutterTooLargeIsNotTriedAgain(t *testing.T) {
	srv := bustest.Server(t)
	l := opened(t, srv, Config{})
	p := putting(t, l, PutterConfig{})
	s := snap("big", 1, 1)
	s.Payload = make([]byte, l.nc.MaxPayload()+1)
	p.Offer(s)
	p.waitStats(t, "refused", func(s PutterStats) bool { return s.Failed == 1 && s.Waiting == 0 })
	p.Offer(snap("a", 1, 1))
	holds(t, l, "a", 1)
	if s := p.Stats(); s.Failed != 1 {
		t.Errorf("%+v", s)
	}
}

func TestPutterEnds(t *testing.T) {
	srv := bustest.Server(t)
	l := opened(t, srv, Config{})
	p := NewPutter(l, PutterConfig{})
	ctx, cancel := contextWithCancel(t)
	done := make(chan error)
	go func() { done <- p.Run(ctx) }()
	for i := range 500 {
		p.Offer(snap("h"+strconv.Itoa(i), 1, 1))
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	before := p.Stats()
	p.Offer(snap("a", 1, 1))
	if s := p.Stats(); s.Offered != before.Offered+1 || s.Waiting != 0 {
		t.Errorf("%+v after %+v", s, before)
	}
}

// The cost of a put through a Putter with a full queue.
func BenchmarkPutter(b *testing.B) {
	l := opened(b, bustest.Server(b), Config{})
	p := NewPutter(l, PutterConfig{})
	p.queue.pace = 0
	running(b, p.Run)
	ids := make([]string, 1000)
	for i := range ids {
		ids[i] = "gpu-" + strconv.Itoa(i)
	}
	payload := make([]byte, 16<<10)
	var n uint64
	b.SetBytes(int64(len(payload)))
	b.ReportAllocs()
	tick := time.NewTicker(50 * time.Microsecond)
	defer tick.Stop()
	for b.Loop() {
		for p.Stats().Waiting > 100 {
			<-tick.C // a busy loop would take CPU time from the putter
		}
		n++
		p.Offer(Snapshot{Hive: ids[n%1000], Inc: 1, Seq: n, Payload: payload, Received: time.Now(), Every: 15 * time.Second})
	}
	p.waitStats(b, "all put", func(s PutterStats) bool { return s.Put+s.Replaced == n })
	b.ReportMetric(float64(p.Stats().Put)/float64(n), "put/op")
}
