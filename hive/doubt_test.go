package hive

import (
	"context"
	"log/slog"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/beatfabric/hivebeat"
	"github.com/beatfabric/hivebeat/internal/core"
)

// stopper is a log handler that stops the goroutine that logs a certain line, once.
type stopper struct {
	slog.Handler
	line  string
	stop  time.Duration
	armed *atomic.Bool
}

func (s stopper) Enabled(context.Context, slog.Level) bool { return true }
func (s stopper) WithAttrs([]slog.Attr) slog.Handler       { return s }
func (s stopper) Handle(_ context.Context, r slog.Record) error {
	if r.Message == s.line && s.armed.Swap(false) {
		time.Sleep(s.stop)
	}
	return nil
}

// A hive that is stopped for a minute declares no worker lost for that, and does not
// take messages that waited meanwhile for new ones.
func TestVirtualHiveStoppedForAMinute(t *testing.T) {
	cfg := quickConfig()
	s := stopper{line: "message refused", stop: time.Minute, armed: new(atomic.Bool)}
	cfg.Logger = slog.New(s)
	virtual(t, cfg, func(t *testing.T, h *Hive, q *queen, beat func(*fake), nc *nats.Conn) {
		going, gone := newFake("going"), newFake("gone")
		beat(going)
		beat(gone) // never beats again
		lastGone := time.Now()
		pass(20 * second)
		beat(going)
		pass(second)

		s.armed.Store(true)
		stopped := time.Now()
		publish(t, nc, beats, []byte("not a beat"))
		synctest.Wait()
		pass(9 * second)
		publish(t, nc, beats, going.Next(t)) // waits for 51 s
		waited := time.Now()
		pass(50*second + 990*time.Millisecond)
		before := len(q.all())
		pass(10 * time.Millisecond) // the hive runs again
		pass(100 * time.Millisecond)

		st := h.Stats()
		if st.SelfPause < 60_000 || st.SelfPause > 61_100 {
			t.Errorf("self_pause %d ms, want 60 s", st.SelfPause)
		}
		for _, s := range q.all()[before:] {
			if r, ok := worker1(s, "going"); ok && r.Age.Duration() < s.at.Sub(waited) {
				t.Errorf("shown as %s old, and it is %s", r.Age.Duration(), s.at.Sub(waited))
			}
		}
		r, _ := worker1(said{Snapshot: h.Snapshot()}, "going")
		if r.Seq != going.Seq || r.Live != hivebeat.Alive || r.N != 1 || r.Age.Duration() < time.Since(waited) || r.Age.Duration() > time.Since(stopped)+time.Second {
			t.Errorf("the one that beat meanwhile: %+v", r)
		}
		if r, _ := worker1(said{Snapshot: h.Snapshot()}, "gone"); r.Live != hivebeat.Alive || r.N != 1 {
			t.Errorf("judged by a silence that nobody could have heard: %+v", r)
		}
		if r, _ := worker1(said{Snapshot: h.Snapshot()}, "gone"); r.Age.Duration() < time.Since(lastGone)-time.Millisecond {
			t.Errorf("shown as %s old, and it is %s", r.Age.Duration(), time.Since(lastGone))
		}
		beat(going)
		if r, _ := worker1(said{Snapshot: h.Snapshot()}, "going"); r.Age > 1 {
			t.Errorf("%d ms old, and the hive hears again", r.Age)
		}
		// A real death is still detected: 69 s of its 90 s were left.
		pass(67 * second)
		beat(going)
		if r, _ := worker1(said{Snapshot: h.Snapshot()}, "gone"); r.Live != hivebeat.Late {
			t.Errorf("%s, want late", r.Live)
		}
		pass(5 * second)
		if r, _ := worker1(said{Snapshot: h.Snapshot()}, "gone"); r.Live != hivebeat.Lost {
			t.Errorf("%s, want lost: its time goes on", r.Live)
		}
		if st := h.Stats(); st.FalseDead+st.CutOff != 0 {
			t.Errorf("%+v", st.Stats)
		}
	})
}

// Dropped beats make no worker lost.
func TestVirtualDrops(t *testing.T) {
	cfg := quickConfig()
	s := stopper{line: "message refused", stop: 1500 * time.Millisecond, armed: new(atomic.Bool)} // too short to count as a pause
	cfg.Logger = slog.New(s)
	virtual(t, cfg, func(t *testing.T, h *Hive, _ *queen, beat func(*fake), nc *nats.Conn) {
		w := newFake("w")
		w.Every = hivebeat.MillisOf(second)
		beat(w)
		for range 3 { // a dropped beat each, and a report of drops each
			s.armed.Store(true)
			publish(t, nc, beats, []byte("not a beat"))
			synctest.Wait()
			junk := newFake("junk")
			for range core.PendingBeats + 100 {
				if err := nc.Publish(beats, junk.Next(t)); err != nil {
					t.Fatal(err)
				}
			}
			publish(t, nc, beats, w.Next(t))
			pass(1500 * time.Millisecond)
		}
		st := h.Stats()
		r, _ := worker1(said{Snapshot: h.Snapshot()}, "w")
		if st.Dropped < 300 || st.SelfPause != 0 || r.Live == hivebeat.Lost {
			t.Errorf("%d dropped, self_pause %d, %s", st.Dropped, st.SelfPause, r.Live)
		}
	})
}
