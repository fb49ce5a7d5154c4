package hive

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/beatfabric/hivebeat"
	"github.com/beatfabric/hivebeat/bus/embedded"
	"github.com/beatfabric/hivebeat/internal/bustest"
	"github.com/beatfabric/hivebeat/internal/detector"
)

// virtual runs a hive under a virtual clock, and f, which plays a worker.
func virtual(t *testing.T, cfg Config, f func(t *testing.T, h *Hive, q *queen, beat func(*fake), nc *nats.Conn)) {
	t.Helper()
	bustest.Bubble(t, func(t *testing.T) {
		srv := bustest.Server(t, bustest.NoListen())
		nc := bustest.Conn(t, srv)
		q := listening(t, nc)
		h := running(t, nc, cfg)
		synctest.Wait()
		f(t, h, q, func(w *fake) {
			publish(t, nc, beats, w.Next(t))
			synctest.Wait()
		}, nc)
	})
}

// pass lets virtual time pass.
func pass(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

func TestVirtualLifeOfAWorker(t *testing.T) {
	virtual(t, quickConfig(), func(t *testing.T, _ *Hive, q *queen, beat func(*fake), _ *nats.Conn) {
		w := newFake("w")
		beat(w)
		heard := time.Now()
		pass(2 * time.Minute)
		want := map[hivebeat.Live]time.Duration{hivebeat.Alive: 0, hivebeat.Late: 45 * second, hivebeat.Lost: 90 * second}
		seen := map[hivebeat.Live]bool{}
		var last time.Time
		for _, s := range q.all() {
			if !last.IsZero() && s.at.Sub(last) > hivebeat.HiveEvery {
				t.Errorf("no snapshot for %s", s.at.Sub(last))
			}
			last = s.at
			r, ok := worker1(s, "w")
			if !ok {
				continue
			}
			if !seen[r.Live] {
				seen[r.Live] = true
				if got := s.at.Sub(heard); got < want[r.Live] || got > want[r.Live]+time.Millisecond {
					t.Errorf("%s is told after %s, want %s", r.Live, got, want[r.Live])
				}
			}
			if age := s.at.Sub(heard); r.Age.Duration() > age || r.Age.Duration() < age-time.Millisecond {
				t.Errorf("age %s, want %s", r.Age.Duration(), age)
			}
		}
		if len(seen) != 3 {
			t.Errorf("saw %v, want alive, late and lost", seen)
		}

		beat(w) // the worker was alive: the silence was the test's
		pass(second)
		s, _ := q.last()
		if r, _ := worker1(s, "w"); r.Live != hivebeat.Alive || s.Stats.FalseDead != 1 || s.Stats.CutOff != 0 {
			t.Errorf("heard again: %+v, %+v", r, s.Stats)
		}
	})
}

func TestVirtualWarmAfter45Seconds(t *testing.T) {
	virtual(t, quickConfig(), func(t *testing.T, _ *Hive, q *queen, _ func(*fake), _ *nats.Conn) {
		begun := time.Now()
		pass(2 * time.Minute)
		for _, s := range q.all() {
			if warm := s.at.Sub(begun) >= detector.WarmAfter; s.Warm != warm {
				t.Errorf("warm is %t after %s", s.Warm, s.at.Sub(begun))
			}
		}
	})
}

// Changes are reported at once, but a burst of changes does not cause a burst of
// snapshots.
func TestVirtualStormOfChanges(t *testing.T) {
	virtual(t, quickConfig(), func(t *testing.T, _ *Hive, q *queen, beat func(*fake), _ *nats.Conn) {
		pass(5 * second)
		before := len(q.all())
		begun := time.Now()
		for i := range 600 { // over 6 s
			beat(newFake(fmt.Sprintf("w%d", i)))
			pass(10 * time.Millisecond)
		}
		all := q.all()[before:]
		if first := all[0].at.Sub(begun); first > time.Millisecond {
			t.Errorf("the first change is told after %s", first)
		}
		if len(all) < 8 || len(all) > 14 { // 5 in a burst, then one per second, and the regular ones
			t.Errorf("%d snapshots in 6 s", len(all))
		}
		pass(2 * second)
		if s, _ := q.last(); len(s.Workers) != 600 {
			t.Errorf("%d workers in the last snapshot", len(s.Workers))
		}
	})
}

// The end of a worker is reported at once, however many workers have just joined, both
// by silence and by goodbye.
func TestVirtualEndsWaitForNoJoins(t *testing.T) {
	virtual(t, quickConfig(), func(t *testing.T, _ *Hive, q *queen, beat func(*fake), _ *nats.Conn) {
		told := func(id string, live hivebeat.Live, since time.Time) {
			t.Helper()
			for _, s := range q.all() {
				if r, ok := worker1(s, id); ok && r.Live == live {
					if d := s.at.Sub(since); d > 51*time.Millisecond {
						t.Errorf("%s of %s is told after %s", live, id, d)
					}
					return
				}
			}
			t.Errorf("%s of %s is not told", live, id)
		}
		dies := newFake("dies")
		beat(dies)
		lost := time.Now().Add(90 * second)
		pass(79*second + 700*time.Millisecond) // so that no change is due at the same time
		stays := 0
		for time.Now().Before(lost.Add(5 * second)) {
			beat(newFake(fmt.Sprintf("w%d", stays)))
			stays++
			pass(10 * time.Millisecond)
		}
		told("dies", hivebeat.Lost, lost)

		for i := range 10 {
			leaves := newFake(fmt.Sprintf("w%d", i))
			leaves.Inc++
			beat(leaves) // a restart is urgent as well
			leaves.State = hivebeat.Stopped
			at := time.Now()
			beat(leaves)
			pass(50 * time.Millisecond)
			told(leaves.Worker, hivebeat.Left, at)
		}
	})
}

func TestVirtualRollCalls(t *testing.T) {
	virtual(t, quickConfig(), func(t *testing.T, _ *Hive, q *queen, _ func(*fake), nc *nats.Conn) {
		pass(6 * second)
		n := len(q.all())
		publish(t, nc, "queen.rollcall", []byte("100"))
		pass(101 * time.Millisecond)
		if got := len(q.all()) - n; got != 1 {
			t.Errorf("%d answers within the spread, want 1", got)
		}
		publish(t, nc, "queen.rollcall."+thisHive, []byte("0"))
		publish(t, nc, "queen.rollcall", nil)
		pass(4 * second)
		if got := len(q.all()) - n; got != 1 {
			t.Errorf("%d answers within 5 s, want 1", got)
		}
		pass(2 * second)
		if got := len(q.all()) - n; got != 2 {
			t.Errorf("%d answers after 6 s, want 2", got)
		}
		publish(t, nc, "queen.rollcall.other", []byte("0"))
	})
}

func TestVirtualPushFacts(t *testing.T) {
	for _, push := range []time.Duration{0, 2 * second} {
		t.Run(fmt.Sprint(push), func(t *testing.T) {
			cfg := quickConfig()
			cfg.PushFacts = push
			virtual(t, cfg, func(t *testing.T, _ *Hive, q *queen, beat func(*fake), _ *nats.Conn) {
				w := newFake("w")
				beat(w)
				at := 0 // changes reported within a second
				for range 10 {
					pass(9 * second)
					w.Busy++
					beat(w)
					pass(second)
					s, _ := q.last()
					if r, _ := worker1(s, "w"); r.Busy == w.Busy {
						at++
					}
				}
				if push == 0 && at > 5 || push > 0 && at != 10 {
					t.Errorf("%d changes of 10 were told within a second", at)
				}
				n := len(q.all())
				for range 100 { // over 10 s
					w.Busy++
					beat(w)
					pass(100 * time.Millisecond)
				}
				if told := len(q.all()) - n; push > 0 && (told < 5 || told > 7) {
					t.Errorf("%d snapshots in 10 s, want one in 2 s", told)
				}
				pass(3 * second)
				if s, _ := q.last(); push > 0 {
					if r, _ := worker1(s, "w"); r.Busy != w.Busy {
						t.Errorf("busy %d, want %d: the last change was not told", r.Busy, w.Busy)
					}
				}
			})
		})
	}
}

// A hung driver delays no snapshot: it shows in collect, and in the age of the facts.
func TestVirtualHungDriver(t *testing.T) {
	cfg := quickConfig()
	hang := make(chan chan struct{}, 1)
	calls := 0
	cfg.GPUs = func(context.Context) ([]hivebeat.GPU, error) {
		calls++
		if calls == 3 {
			<-<-hang // ignores its context
		}
		return []hivebeat.GPU{{UUID: "GPU-1", Total: 100, Used: uint64(calls)}}, nil
	}
	virtual(t, cfg, func(t *testing.T, _ *Hive, q *queen, _ func(*fake), _ *nats.Conn) {
		release := make(chan struct{})
		hang <- release
		pass(15 * second)
		if s, _ := q.last(); s.Collect["gpu"] != "ok" || len(s.GPUs) != 1 || s.GPUs[0].Age > 10_000 {
			t.Errorf("at first: %v %+v", s.Collect, s.GPUs)
		}
		pass(2 * time.Minute)
		var last time.Time
		for _, s := range q.all() {
			if !last.IsZero() && s.at.Sub(last) > hivebeat.HiveEvery {
				t.Errorf("no snapshot for %s", s.at.Sub(last))
			}
			last = s.at
		}
		s, _ := q.last()
		if !strings.HasPrefix(s.Collect["gpu"], "error: no answer within 30s, and the call cannot be stopped; the source is not read again until it returns") || s.Collect["host"] != "ok" {
			t.Errorf("collect %v", s.Collect)
		}
		if len(s.GPUs) != 1 || s.GPUs[0].Used != 2 || s.GPUs[0].Age < 100_000 || calls != 3 {
			t.Errorf("GPUs %+v after %d calls: the facts should stay and age", s.GPUs, calls)
		}
		close(release)
		pass(30 * second)
		if s, _ = q.last(); s.Collect["gpu"] != "ok" || s.GPUs[0].Age > 31_000 { // it pauses for its limit once
			t.Errorf("when it answers again: %v %+v", s.Collect, s.GPUs)
		}
	})
}

// line is a link to a server within the process, which a test can cut.
type line struct {
	srv   *embedded.Server
	mu    sync.Mutex
	conns []net.Conn
	down  bool
}

func (l *line) InProcessConn() (net.Conn, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.down {
		return nil, errors.New("cut")
	}
	c, err := l.srv.InProcessConn()
	if err == nil {
		l.conns = append(l.conns, c)
	}
	return c, err
}

// overLine connects over a link that the test can cut.
func overLine(t *testing.T, srv *embedded.Server, opts ...nats.Option) (*line, *nats.Conn) {
	t.Helper()
	way := &line{srv: srv}
	nc, err := nats.Connect("", append(opts, nats.InProcessServer(way), nats.MaxReconnects(-1), nats.ReconnectWait(250*time.Millisecond))...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	return way, nc
}

func (l *line) set(down bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.down = down
	if down {
		for _, c := range l.conns {
			_ = c.Close()
		}
		l.conns = nil
	}
}

// While a hive is cut off, its workers are not judged, and the time is credited.
func TestVirtualNATSGoneForTwoMinutes(t *testing.T) {
	bustest.Bubble(t, func(t *testing.T) {
		srv := bustest.Server(t, bustest.NoListen())
		way, nc := overLine(t, srv, nats.ReconnectBufSize(-1))
		near := bustest.Conn(t, srv)
		q := listening(t, near)
		h := running(t, nc, quickConfig())
		synctest.Wait()

		going, dead := newFake("going"), newFake("dead")
		beat := func(f *fake) { publish(t, near, beats, f.Next(t)); synctest.Wait() }
		beat(going)
		beat(dead)
		pass(20 * second)
		way.set(true)
		cut := time.Now()
		for range 6 { // the worker keeps beating, and the hive does not receive it
			pass(20 * second)
			beat(going)
		}
		if st := h.Stats(); st.Connected || st.Beats != 2 {
			t.Errorf("cut off: %+v", st)
		}
		for _, w := range h.Snapshot().Workers {
			if w.Live != hivebeat.Alive || w.N != 1 {
				t.Errorf("%s was judged while nobody could be heard: %+v", w.Worker, w)
			}
		}
		way.set(false)
		pass(second)
		if s := h.Stats(); !s.Connected {
			t.Fatalf("not connected again: %+v", s)
		}
		s, _ := q.last()
		if gap := s.at.Sub(cut); gap < 2*time.Minute || gap > 2*time.Minute+2*second || len(s.Workers) != 2 {
			t.Errorf("no snapshot when it came back: the last after %s: %+v", gap, s.Snapshot)
		}
		// The last message was received 20 s before the cut: the dead worker has the
		// 45 s left from then, and the grace after a reconnect.
		for _, c := range []struct {
			after time.Duration
			want  hivebeat.Live
		}{
			{24 * second, hivebeat.Alive},
			{25 * second, hivebeat.Alive},
			{2 * second, hivebeat.Late},
			{20 * second, hivebeat.Late},
			{20 * second, hivebeat.Late},
			{4 * second, hivebeat.Lost},
		} {
			beat(going)
			pass(c.after)
			if w, _ := worker1(said{Snapshot: h.Snapshot()}, "dead"); w.Live != c.want {
				t.Errorf("%s after %s, want %s", w.Live, time.Since(cut), c.want)
			}
		}
		if w, _ := worker1(said{Snapshot: h.Snapshot()}, "going"); w.N != 1 || w.Live != hivebeat.Alive {
			t.Errorf("%+v: it beat all the time", w)
		}
		if st := h.Stats(); st.FalseDead+st.CutOff != 0 {
			t.Errorf("stats %+v", st)
		}
	})
}

// A brief kick also causes one snapshot: a queen may have been kicked at the same time,
// and have missed one.
func TestVirtualKick(t *testing.T) {
	bustest.Bubble(t, func(t *testing.T) {
		srv := bustest.Server(t, bustest.NoListen())
		way, nc := overLine(t, srv)
		q := listening(t, bustest.Conn(t, srv))
		running(t, nc, quickConfig())
		pass(3 * second)
		n := len(q.all())
		way.set(true)
		way.set(false)
		pass(second)
		if got := len(q.all()) - n; got != 1 {
			t.Errorf("%d snapshots in the second after a kick, want 1", got)
		}
	})
}
