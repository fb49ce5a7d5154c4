package ledger

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"pgregory.net/rapid"

	"github.com/beatfabric/hivebeat/bus/embedded"
	"github.com/beatfabric/hivebeat/internal/bustest"
)

func TestTTL(t *testing.T) {
	for _, c := range []struct{ every, age, want time.Duration }{
		{15 * time.Second, 0, 45 * time.Second},
		{15 * time.Second, time.Millisecond, 45 * time.Second},
		{15 * time.Second, time.Second, 44 * time.Second},
		{15 * time.Second, 15 * time.Second, 30 * time.Second},
		{100 * time.Millisecond, 0, time.Second},
		{time.Second, 2*time.Second + 999*time.Millisecond, time.Second},
		{time.Second, time.Hour, time.Second},
		{500 * time.Millisecond, 0, 2 * time.Second},
		{15 * time.Second, -time.Second, 45 * time.Second},
	} {
		if got := ttl(c.every, c.age); got != c.want {
			t.Errorf("ttl(%v, %v) = %v, want %v", c.every, c.age, got, c.want)
		}
	}
}

func TestKey(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := Snapshot{Hive: rapid.StringMatching(`[A-Za-z0-9_-]{1,64}`).Draw(t, "hive"), Page: rapid.Uint64().Draw(t, "page")}
		if hive, page, ok := parseKey(s.key()); !ok || hive != s.Hive || page != s.Page {
			t.Fatalf("%q read as %q, %d, %v", s.key(), hive, page, ok)
		}
	})
	for _, bad := range []string{"", "a.0", "a.01", "a.x", "a.1.2", "a.-1", ".1", "a b", "a.", "ä"} {
		if _, _, ok := parseKey(bad); ok {
			t.Errorf("%q is taken for a key", bad)
		}
	}
}

func TestPutAsTheContractSays(t *testing.T) {
	srv := bustest.Server(t)
	l := opened(t, srv, prefixed(t, "acme"))
	s := snap("gpu-01", 7, 3)
	s.Received = time.Now().Add(-5 * time.Second)
	put(t, l, s)
	s.Page, s.Payload = 2, []byte("page two")
	put(t, l, s)
	kv, err := l.js.KeyValue(ctxOf(t), "acme_queen_hives")
	if err != nil {
		t.Fatal(err)
	}
	for key, want := range map[string]string{"gpu-01": "gpu-01 7 3", "gpu-01.2": "page two"} {
		e, err := kv.Get(ctxOf(t), key)
		if err != nil || string(e.Value()) != want {
			t.Errorf("%s holds %q, %v; want %q", key, e.Value(), err, want)
		}
	}
	m, err := l.last(ctxOf(t), atHives, "gpu-01", false)
	if err != nil || m.header.Get("Hivebeat-Inc") != "7" || m.header.Get("Hivebeat-Seq") != "3" || m.header.Get("Nats-TTL") != "40s" {
		t.Errorf("headers %v, %v; want Inc 7, Seq 3, TTL 40s", m.header, err)
	}
	viaLeader, err := l.last(ctxOf(t), atHives, "gpu-01", true)
	if err != nil || viaLeader.seq != m.seq || viaLeader.header.Get("Hivebeat-Seq") != "3" || string(viaLeader.data) != string(m.data) || !viaLeader.stored.Equal(m.stored) {
		t.Errorf("the leader says %+v, %v; direct %+v", viaLeader, err, m)
	}
	for _, leader := range []bool{false, true} {
		if m, err := l.last(ctxOf(t), atHives, "nobody", leader); err != nil || m.seq != 0 {
			t.Errorf("an absent key: %+v, %v", m, err)
		}
	}
}

func TestKeyExpiresAndLeavesMarker(t *testing.T) {
	srv := bustest.Server(t)
	l := opened(t, srv, Config{})
	s := snap("gpu-01", 7, 3)
	s.Every = 200 * time.Millisecond // lives 1 s
	put(t, l, s)
	if inc, seq, ok, err := headOf(t, l, "gpu-01"); inc != 7 || seq != 3 || !ok || err != nil {
		t.Fatalf("Hive: %d %d %v %v", inc, seq, ok, err)
	}
	bustest.Eventually(t, patience, func() (bool, string) {
		_, _, ok, err := headOf(t, l, "gpu-01")
		return !ok && err == nil, fmt.Sprint(ok, err)
	})
	m, err := l.last(ctxOf(t), atHives, "gpu-01", false)
	if err != nil || m.header.Get(jetstream.MarkerReasonHeader) != "MaxAge" {
		t.Fatalf("last message %v %v, want a marker with reason MaxAge", m.header, err)
	}
	if all, err := hivesOf(t, l); len(all) != 0 || err != nil {
		t.Errorf("Hives: %v %v, want none", all, err)
	}
	// Puts after the marker: by a queen that remembers the key, by one that does not (and
	// expects 0, which fails at the marker), and by one with an older incarnation, which is
	// accepted by now.
	put(t, l, snap("gpu-01", 7, 4))
	put(t, opened(t, srv, Config{}), snap("gpu-01", 8, 1))
}

func TestLowerIncarnationAfterExpiry(t *testing.T) {
	srv := bustest.Server(t)
	for name, l := range map[string]*Ledger{"same": opened(t, srv, Config{}), "other": opened(t, srv, prefixed(t, "p"))} {
		s := snap("gpu-01", 7, 3)
		s.Every = 200 * time.Millisecond
		put(t, l, s)
		if err := l.PutSnapshot(ctxOf(t), snap("gpu-01", 6, 9), time.Now()); !errors.Is(err, ErrStale) {
			t.Errorf("%s: got %v, want ErrStale while the key is there", name, err)
		}
		if name == "other" {
			l.seqs.clear()
			if err := l.PutSnapshot(ctxOf(t), snap("gpu-01", 6, 9), time.Now()); !errors.Is(err, ErrStale) {
				t.Errorf("%s: got %v, want ErrStale by reading", name, err)
			}
		}
		bustest.Eventually(t, patience, func() (bool, string) {
			err := l.PutSnapshot(ctxOf(t), snap("gpu-01", 6, 9), time.Now())
			return err == nil, fmt.Sprint(err)
		})
	}
}

func TestPutRefusesOld(t *testing.T) {
	l := opened(t, bustest.Server(t), Config{})
	s := snap("gpu-01", 1, 1)
	if err := l.PutSnapshot(ctxOf(t), s, s.Received.Add(s.Every+time.Millisecond)); !errors.Is(err, ErrTooOld) {
		t.Errorf("got %v, want ErrTooOld", err)
	}
	if err := l.PutSnapshot(ctxOf(t), s, s.Received.Add(s.Every)); err != nil {
		t.Errorf("exactly one every: %v", err)
	}
}

// Several queens put the same snapshots, and some come late. An older snapshot never
// follows a newer one in the bucket.
func TestRacingPutsNeverGoBack(t *testing.T) {
	srv := bustest.Server(t)
	watch := opened(t, srv, Config{})
	w, err := watch.js.Stream(ctxOf(t), "KV_queen_hives")
	if err != nil {
		t.Fatal(err)
	}
	cons, err := w.CreateConsumer(ctxOf(t), jetstream.ConsumerConfig{AckPolicy: jetstream.AckNonePolicy})
	if err != nil {
		t.Fatal(err)
	}
	const newest = 60
	var wg sync.WaitGroup
	for range 3 {
		l := opened(t, srv, Config{})
		wg.Go(func() {
			r := rand.New(rand.NewPCG(uint64(time.Now().UnixNano()), 1))
			for seq := uint64(1); seq <= newest; seq++ {
				s := snap("gpu-01", 1, seq)
				if r.IntN(4) == 0 && seq > 3 && seq < newest { // a delayed snapshot
					s = snap("gpu-01", 1, seq-uint64(r.IntN(3)))
				}
				if err := l.PutSnapshot(ctxOf(t), s, time.Now()); err != nil && !errors.Is(err, ErrStale) {
					t.Errorf("put %d: %v", seq, err)
				}
			}
		})
	}
	wg.Wait()
	if _, seq, ok, err := headOf(t, watch, "gpu-01"); seq != newest || !ok || err != nil {
		t.Errorf("in the end the bucket holds %d %v %v, want %d", seq, ok, err, newest)
	}
	// History is 1, so at each look the consumer sees the last value.
	var last uint64
	batch, err := cons.FetchNoWait(3 * newest)
	if err != nil {
		t.Fatal(err)
	}
	for m := range batch.Messages() {
		seq, _ := strconv.ParseUint(m.Headers().Get(HeaderSeq), 10, 64)
		if seq <= last {
			t.Errorf("%d after %d", seq, last)
		}
		last = seq
	}
	if last != newest {
		t.Errorf("the last one seen is %d, want %d", last, newest)
	}
}

func TestPutOverOtherHands(t *testing.T) {
	l := opened(t, bustest.Server(t), Config{})
	kv, err := l.js.KeyValue(ctxOf(t), "queen_hives")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := kv.PutString(ctxOf(t), "gpu-01", "what is this"); err != nil {
		t.Fatal(err)
	}
	if err := kv.Delete(ctxOf(t), "gpu-02"); err != nil {
		t.Fatal(err)
	}
	if _, err := kv.PutString(ctxOf(t), "no.hive.at.all", "x"); err != nil {
		t.Fatal(err)
	}
	if all, err := hivesOf(t, l); err != nil || len(all) != 0 {
		t.Errorf("Hives: %v %v, want none of it", all, err)
	}
	for _, hive := range []string{"gpu-01", "gpu-02"} {
		if _, _, ok, err := headOf(t, l, hive); ok || err != nil {
			t.Errorf("Hive(%s): %v %v", hive, ok, err)
		}
		put(t, l, snap(hive, 1, 1))
	}
	if all, err := hivesOf(t, l); err != nil || len(all) != 2 {
		t.Errorf("Hives: %v %v, want two", all, err)
	}
}

func TestHivesReadsThousands(t *testing.T) {
	srv := bustest.Server(t)
	l := opened(t, srv, Config{Storage: jetstream.MemoryStorage})
	if all, err := hivesOf(t, l); err != nil || len(all) != 0 {
		t.Fatalf("an empty bucket: %v %v", all, err)
	}
	const n = 5000
	nc := bustest.Conn(t, srv)
	for i := range n {
		s := snap("h"+strconv.Itoa(i), 1, uint64(i+1))
		s.Received = s.Received.Add(-3 * time.Second)
		m := l.putMsg(s, time.Now())
		if err := nc.PublishMsg(m); err != nil {
			t.Fatal(err)
		}
	}
	bustest.Flush(t, nc)
	put(t, l, Snapshot{Hive: "h0", Page: 1, Inc: 1, Seq: 1, Payload: []byte("x"), Received: time.Now(), Every: 15 * time.Second})
	fresh := opened(t, srv, Config{Storage: jetstream.MemoryStorage})
	begin := time.Now()
	all, err := hivesOf(t, fresh)
	if err != nil || len(all) != n+1 {
		t.Fatalf("%d entries, %v; want %d", len(all), err, n+1)
	}
	t.Logf("%d entries in %v", len(all), time.Since(begin))
	for i, e := range all[:n] {
		if e.Hive != "h"+strconv.Itoa(i) || e.Seq != uint64(i+1) || e.TTL != 42*time.Second || !strings.HasPrefix(string(e.Payload), e.Hive+" ") {
			t.Fatalf("entry %d is %+v", i, e)
		}
		if age := e.Age(15 * time.Second); age < 3*time.Second || age != e.Stored+3*time.Second {
			t.Fatalf("entry %d: age %v, stored %v", i, age, e.Stored)
		}
	}
	if e := all[n]; e.Hive != "h0" || e.Page != 1 {
		t.Errorf("the last entry is %+v", e)
	}
	// The read taught the ledger the sequences: the next put needs no second try.
	if seq, _ := fresh.seqs.expect(snap("h7", 1, 99), time.Now()); seq != 8 {
		t.Errorf("h7 is expected at %d, want 8", seq)
	}
}

func TestHivesWhileKeysExpire(t *testing.T) {
	srv := bustest.Server(t)
	l := opened(t, srv, Config{})
	for i := range 200 {
		s := snap("h"+strconv.Itoa(i), 1, 1)
		s.Every = 100 * time.Millisecond
		put(t, l, s)
	}
	bustest.Eventually(t, patience, func() (bool, string) {
		all, err := hivesOf(t, l)
		if err != nil {
			t.Fatal(err)
		}
		return len(all) == 0, fmt.Sprint(len(all), " are left")
	})
}

func TestFullDisk(t *testing.T) {
	srv := bustest.Server(t, func(c *embedded.Config) { c.JetStreamMaxStore = 2 << 20 })
	l := opened(t, srv, Config{EventsMax: 1 << 20})
	payload := make([]byte, 200<<10)
	var err error
	for i := 0; i < 20 && err == nil; i++ {
		s := snap("h"+strconv.Itoa(i), 1, 1)
		s.Payload = payload
		begin := time.Now()
		err = l.PutSnapshot(ctxOf(t), s, time.Now())
		if d := time.Since(begin); d > patience/2 {
			t.Errorf("it took %v", d)
		}
	}
	if !errors.Is(err, ErrNoSpace) {
		t.Fatalf("got %v, want ErrNoSpace", err)
	}
	t.Log(err)
	// The space that the stream of events has reserved does not help it: the server refuses
	// everything once the total exceeds its limit, and says so at once.
	if err := publish(ctxOf(t), t, l, event(l, "gpu-01", 1, time.Now())); err != nil && !errors.Is(err, ErrNoSpace) {
		t.Errorf("an event: %v, want ErrNoSpace", err)
	}
	if _, err := tryAdvance(t, l, "gpu-01", 0, RosterEntry{N: 1}); err != nil && !errors.Is(err, ErrNoSpace) {
		t.Errorf("the roster: %v, want ErrNoSpace", err)
	}
}

func TestPutWithoutBucketAndWithoutNATS(t *testing.T) {
	srv := bustest.Server(t)
	l := opened(t, srv, Config{})
	if err := l.js.DeleteStream(ctxOf(t), "KV_queen_hives"); err != nil {
		t.Fatal(err)
	}
	if err := l.PutSnapshot(ctxOf(t), snap("gpu-01", 1, 1), time.Now()); !errors.Is(err, ErrAway) {
		t.Errorf("without a bucket: %v, want ErrAway", err)
	}
	if _, _, _, err := headOf(t, l, "gpu-01"); !errors.Is(err, ErrAway) {
		t.Errorf("without a bucket: %v, want ErrAway", err)
	}
	if _, err := hivesOf(t, l); !errors.Is(err, ErrAway) {
		t.Errorf("without a bucket: %v, want ErrAway", err)
	}
	bustest.Stop(t, srv)
	bustest.Eventually(t, patience, func() (bool, string) { return l.nc.Status() == nats.RECONNECTING, l.nc.Status().String() })
	if err := l.PutSnapshot(ctxOf(t), snap("gpu-01", 1, 1), time.Now()); !errors.Is(err, ErrAway) {
		t.Errorf("without NATS: %v, want ErrAway", err)
	}
}

func BenchmarkPutSnapshot(b *testing.B) {
	for _, storage := range []jetstream.StorageType{jetstream.FileStorage, jetstream.MemoryStorage} {
		b.Run(strings.ToLower(storage.String())+"/16kB/TCP", func(b *testing.B) {
			l := opened(b, bustest.Server(b), Config{Storage: storage})
			s := snap("gpu-01", 1, 0)
			s.Payload = make([]byte, 16<<10)
			b.ReportAllocs()
			for b.Loop() {
				s.Seq++
				if err := l.PutSnapshot(b.Context(), s, s.Received); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
