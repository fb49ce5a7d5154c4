package ledger

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/beatfabric/hivebeat"
	"github.com/beatfabric/hivebeat/internal/bustest"
)

func entry(n uint64) RosterEntry {
	return RosterEntry{
		N: n, Live: hivebeat.Late, Cause: hivebeat.CauseMissed, Inc: 5, Seq: 9, Every: 15000, Zone: "z",
		Workers: map[string]RosterWorker{"llama": {Inc: 3, Live: hivebeat.Alive, State: hivebeat.Ready, Model: "m"}},
	}
}

func advance(t testing.TB, l *Ledger, hive string, rev uint64, e RosterEntry) uint64 {
	t.Helper()
	next, err := tryAdvance(t, l, hive, rev, e)
	if err != nil {
		t.Fatal(err)
	}
	return next
}

func TestRosterRoundTrip(t *testing.T) {
	l := opened(t, bustest.Server(t), prefixed(t, "acme"))
	if all, err := l.Roster(ctxOf(t), nil); err != nil || len(all) != 0 {
		t.Fatalf("an empty roster: %v %v", all, err)
	}
	if _, ok, err := rosterOf(t, l, "gpu-01"); ok || err != nil {
		t.Fatalf("an empty roster: %v %v", ok, err)
	}
	want := entry(1)
	want.Event, _ = json.Marshal(event(l, "gpu-01", 1, time.Now()))
	rev := advance(t, l, "gpu-01", 0, want)
	want.V = 1
	all, err := l.Roster(ctxOf(t), nil)
	if err != nil || len(all) != 1 {
		t.Fatalf("%v %v", all, err)
	}
	item := all["gpu-01"]
	if diff := cmp.Diff(want, item.RosterEntry); diff != "" || item.Revision != rev || item.Epoch == 0 || item.Gone {
		t.Errorf("%+v\n%s", item, diff)
	}
	one, ok, err := rosterOf(t, l, "gpu-01")
	if err != nil || !ok || one.Revision != rev || one.Epoch != item.Epoch || one.Stored > patience {
		t.Errorf("%+v %v %v", one, ok, err)
	}
	for _, bad := range []string{"", "a.b", "*"} {
		if _, err := tryAdvance(t, l, bad, 0, want); !errors.Is(err, hivebeat.ErrID) {
			t.Errorf("Advance(%q): %v", bad, err)
		}
	}
}

func TestAdvanceConflicts(t *testing.T) {
	l := opened(t, bustest.Server(t), Config{})
	rev := advance(t, l, "a", 0, entry(1))
	for _, wrong := range []uint64{0, rev + 1, rev - 1} {
		if _, err := tryAdvance(t, l, "a", wrong, entry(2)); !errors.Is(err, ErrConflict) {
			t.Errorf("at %d: %v, want ErrConflict", wrong, err)
		}
	}
	if item, _, err := rosterOf(t, l, "a"); item.N != 1 || err != nil {
		t.Errorf("a conflict wrote %d, %v", item.N, err)
	}
	advance(t, l, "a", rev, entry(2))
}

// Each of three queens increments the number as often as it can: each number is won exactly
// once.
func TestAdvanceRace(t *testing.T) {
	srv := bustest.Server(t)
	const goal = 50
	var won [goal + 1]atomic.Int64
	var wg sync.WaitGroup
	for range 3 {
		l := opened(t, srv, Config{})
		wg.Go(func() {
			var item RosterItem
			for item.N < goal {
				_, err := tryAdvance(t, l, "gpu-01", item.Revision, entry(item.N+1))
				switch {
				case err == nil:
					won[item.N+1].Add(1)
				case !errors.Is(err, ErrConflict):
					t.Error(err)
					return
				}
				if item, _, err = rosterOf(t, l, "gpu-01"); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	for n := 1; n <= goal; n++ {
		if got := won[n].Load(); got != 1 {
			t.Errorf("%d was won %d times", n, got)
		}
	}
}

func TestRosterOtherHands(t *testing.T) {
	l := opened(t, bustest.Server(t), Config{})
	kv, err := l.js.KeyValue(ctxOf(t), "queen_roster")
	if err != nil {
		t.Fatal(err)
	}
	advance(t, l, "removed", 0, entry(4))
	if err := kv.Delete(ctxOf(t), "removed"); err != nil {
		t.Fatal(err)
	}
	rev, err := kv.PutString(ctxOf(t), "garbage", "{")
	if err != nil {
		t.Fatal(err)
	}
	all, err := l.Roster(ctxOf(t), nil)
	if err != nil || len(all) != 1 || all["garbage"].Revision != rev || all["garbage"].N != 0 {
		t.Errorf("%+v %v", all, err)
	}
	if item, ok, err := rosterOf(t, l, "removed"); ok || !item.Gone || err != nil {
		t.Errorf("%+v %v %v", item, ok, err)
	}
	advance(t, l, "removed", 0, entry(5))
	advance(t, l, "garbage", rev, entry(1))
}

func TestRefresh(t *testing.T) {
	srv := bustest.Server(t)
	l := opened(t, srv, Config{})
	lost, left := entry(1), entry(1)
	lost.Live, left.Live = hivebeat.Lost, hivebeat.Left
	rev := advance(t, l, "late", 0, entry(1))
	lostRev := advance(t, l, "lost", 0, lost)
	leftRev := advance(t, l, "left", 0, left)
	if n, err := l.Refresh(ctxOf(t)); n != 0 || err != nil {
		t.Fatalf("put %d again, %v; all are new", n, err)
	}
	const old = 50 * time.Millisecond
	bustest.Eventually(t, patience, func() (bool, string) {
		all, err := l.Roster(ctxOf(t), nil)
		return all["late"].Stored >= old, fmt.Sprintf("stored %v ago, %v", all["late"].Stored, err)
	})
	for want := rev; ; {
		n, err := l.refresh(ctxOf(t), 0)
		if n != 1 || err != nil {
			t.Fatalf("put %d again, %v; want 1", n, err)
		}
		all, err := l.Roster(ctxOf(t), nil)
		if err != nil {
			t.Fatal(err)
		}
		for id, rev := range map[string]uint64{"lost": lostRev, "left": leftRev} {
			if item := all[id]; item.Revision != rev {
				t.Errorf("the entry of %s, which is gone, was put again: %+v, want revision %d", id, item, rev)
			}
		}
		item := all["late"]
		if item.Revision <= want || item.N != 1 || len(item.Workers) != 1 {
			t.Fatalf("late is %+v, want a revision above %d", item, want)
		}
		// The age of its event keeps growing.
		if item.Stored < old {
			t.Errorf("stored %v ago", item.Stored)
		}
		if want != rev {
			break // a second round, over an entry that was put again
		}
		want = item.Revision
	}
}

// roster collects the entries that a watcher received.
type roster struct {
	mu    sync.Mutex
	items map[string]RosterItem
	calls int
}

func watched(t testing.TB, l *Ledger) *roster {
	r := &roster{items: make(map[string]RosterItem)}
	running(t, func(ctx context.Context) error {
		return l.WatchRoster(ctx, func(hive string, item RosterItem) {
			r.mu.Lock()
			defer r.mu.Unlock()
			r.calls++
			r.items[hive] = item
		}, nil)
	})
	return r
}

func (r *roster) get() map[string]RosterItem {
	r.mu.Lock()
	defer r.mu.Unlock()
	return maps.Clone(r.items)
}

func (r *roster) waitN(t testing.TB, hive string, n uint64) RosterItem {
	t.Helper()
	var item RosterItem
	bustest.Eventually(t, patience, func() (bool, string) {
		item = r.get()[hive]
		return item.N == n, fmt.Sprintf("%s is at %d, want %d", hive, item.N, n)
	})
	return item
}

func TestWatchRoster(t *testing.T) {
	srv := bustest.Server(t)
	l := opened(t, srv, Config{})
	rev := advance(t, l, "a", 0, entry(1))
	advance(t, l, "b", 0, entry(1))
	r := watched(t, opened(t, srv, Config{}))
	r.waitN(t, "a", 1)
	r.waitN(t, "b", 1)
	begin := time.Now()
	rev = advance(t, l, "a", rev, entry(2))
	if item := r.waitN(t, "a", 2); item.Revision != rev || item.Live != hivebeat.Late {
		t.Errorf("%+v, want revision %d", item, rev)
	}
	t.Logf("seen after %v", time.Since(begin))
	kv, err := l.js.KeyValue(ctxOf(t), "queen_roster")
	if err != nil {
		t.Fatal(err)
	}
	if err := kv.Delete(ctxOf(t), "b"); err != nil {
		t.Fatal(err)
	}
	bustest.Eventually(t, patience, func() (bool, string) { b := r.get()["b"]; return b.Gone && b.N == 0, fmt.Sprint(b) })
	if r.calls != 4 {
		t.Errorf("called %d times, want 4", r.calls)
	}
}

// A client that sees the inbox of a reader can make responders answer there.
func TestWatchRosterIgnoresStrayMessages(t *testing.T) {
	srv := bustest.Server(t)
	l := opened(t, srv, Config{})
	rev := advance(t, l, "a", 0, entry(1))
	nc := bustest.Conn(t, srv)
	inboxes, err := nc.SubscribeSync("_INBOX.>")
	if err != nil {
		t.Fatal(err)
	}
	bustest.Flush(t, nc)
	var log bustest.Log
	r := watched(t, opened(t, srv, Config{Logger: log.Logger(slog.LevelDebug)}))
	r.waitN(t, "a", 1)
	for {
		m, err := inboxes.NextMsg(patience)
		if err != nil {
			t.Fatalf("no heartbeat of a consumer: %v", err)
		}
		if m.Header.Get("Status") == "100" {
			if err := nc.Publish(m.Subject, []byte(`{"status":{}}`)); err != nil {
				t.Fatal(err)
			}
			break
		}
	}
	bustest.Flush(t, nc)
	advance(t, l, "a", rev, entry(2))
	r.waitN(t, "a", 2)
	if strings.Contains(log.String(), "interrupted") {
		t.Errorf("a stray message ends the reading:\n%s", &log)
	}
}

func TestWatchRosterGoesOnAfterRestart(t *testing.T) {
	srv := bustest.Server(t)
	l := opened(t, srv, Config{})
	rev := advance(t, l, "a", 0, entry(1))
	advance(t, l, "b", 0, entry(1))
	r := watched(t, opened(t, srv, Config{}))
	first := r.waitN(t, "a", 1)
	r.waitN(t, "b", 1)
	srv = bustest.Restart(t, srv)
	advance(t, opened(t, srv, Config{}), "a", rev, entry(2))
	begin := time.Now()
	if item := r.waitN(t, "a", 2); item.Epoch != first.Epoch {
		t.Errorf("epoch %d after %d, but it is the same bucket", item.Epoch, first.Epoch)
	}
	t.Logf("seen after %v", time.Since(begin))
	if r.calls != 3 {
		t.Errorf("called %d times, want 3: nothing twice", r.calls)
	}
}

// While the watcher is cut off, others write.
func TestWatchRosterGoesOnAfterCut(t *testing.T) {
	srv := bustest.Server(t)
	l := opened(t, srv, Config{})
	rev := advance(t, l, "a", 0, entry(1))
	proxy := bustest.NewProxy(t, srv.URL())
	cut, err := Open(ctxOf(t), bustest.Dial(t, proxy.URL(), nats.MaxReconnects(-1), nats.ReconnectWait(20*time.Millisecond), nats.ReconnectJitter(0, 0)), Config{})
	if err != nil {
		t.Fatal(err)
	}
	r := watched(t, cut)
	r.waitN(t, "a", 1)
	proxy.Cut()
	bustest.Eventually(t, patience, func() (bool, string) { return !cut.nc.IsConnected(), cut.nc.Status().String() })
	for n := uint64(2); n < 10; n++ {
		rev = advance(t, l, "a", rev, entry(n))
	}
	proxy.Restore()
	begin := time.Now()
	r.waitN(t, "a", 9)
	t.Logf("seen after %v", time.Since(begin))
}

func TestWatchRosterOfRenewedBucket(t *testing.T) {
	srv := bustest.Server(t)
	l := opened(t, srv, Config{})
	var rev uint64
	for n := uint64(1); n <= 20; n++ { // sequences that the new bucket does not reach
		rev = advance(t, l, "a", rev, entry(n))
	}
	keeper := opened(t, srv, Config{})
	r := watched(t, keeper)
	first := r.waitN(t, "a", 20)
	if err := l.js.DeleteStream(ctxOf(t), "KV_queen_roster"); err != nil {
		t.Fatal(err)
	}
	if _, err := l.Reopen(ctxOf(t)); err != nil {
		t.Fatal(err)
	}
	advance(t, l, "a", 0, entry(3))
	if item := r.waitN(t, "a", 3); item.Epoch == first.Epoch || item.Revision != 1 {
		t.Errorf("%+v after %+v", item, first)
	}
}

func TestWatchRosterFromNothing(t *testing.T) {
	srv := bustest.Server(t)
	l, other := opened(t, srv, Config{}), opened(t, srv, Config{}) // a watch does not decode what its own ledger wrote
	if err := l.js.DeleteStream(ctxOf(t), "KV_queen_roster"); err != nil {
		t.Fatal(err)
	}
	r := watched(t, l)
	running(t, func(ctx context.Context) error { return l.Keep(ctx, nil, nil, nil) })
	bustest.Eventually(t, patience, func() (bool, string) {
		_, err := tryAdvance(t, other, "a", 0, entry(1))
		return err == nil, fmt.Sprint(err)
	})
	r.waitN(t, "a", 1)
}

func TestRosterTTLStays(t *testing.T) {
	l := opened(t, bustest.Server(t), Config{})
	kv, err := l.js.KeyValue(ctxOf(t), "queen_roster")
	if err != nil {
		t.Fatal(err)
	}
	advance(t, l, "a", 0, entry(1))
	st, err := kv.Status(ctxOf(t))
	if err != nil || st.TTL() != 7*24*time.Hour || st.Values() != 1 {
		t.Errorf("%v %v", st, err)
	}
	if e, err := kv.Get(ctxOf(t), "a"); err != nil || e.Operation() != jetstream.KeyValuePut {
		t.Errorf("%v %v", e, err)
	}
}

// The pending messages at the start of a reader are gone before they arrive: the reader
// ends all the same, and does not wait for them.
func TestReaderEndsWhenTheRestIsGone(t *testing.T) {
	l := opened(t, bustest.Server(t), Config{})
	for i := range 2 * readAhead {
		if err := l.nc.Publish(l.subject(atRoster, fmt.Sprintf("h%d", i)), []byte("{}")); err != nil {
			t.Fatal(err)
		}
	}
	bustest.Flush(t, l.nc)
	s, err := l.js.Stream(ctxOf(t), "KV_queen_roster")
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	err = new(reader).read(ctxOf(t), l, atRoster, true, func(found) {
		if n++; n == 1 {
			if err := s.Purge(ctxOf(t)); err != nil {
				t.Error(err)
			}
		}
	})
	if err != nil || n < 1 || n >= 2*readAhead {
		t.Errorf("%v after %d of %d", err, n, 2*readAhead)
	}
}
