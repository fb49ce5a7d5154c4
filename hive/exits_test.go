package hive

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"runtime"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/beatfabric/hivebeat"
	"github.com/beatfabric/hivebeat/bus/embedded"
	"github.com/beatfabric/hivebeat/internal/bootid"
	"github.com/beatfabric/hivebeat/internal/bustest"
	"github.com/beatfabric/hivebeat/internal/detector"
	"github.com/beatfabric/hivebeat/internal/proctree"
)

// canWatch skips the test where no processes can be watched.
func canWatch(t testing.TB) {
	t.Helper()
	if bootid.Namespace() == "" || runtime.GOOS == "windows" {
		t.Skip("no process is watched here")
	}
}

// watcher returns a running hive, and a subscriber to its snapshots.
func watcher(t *testing.T, change func(*Config)) (*embedded.Server, *nats.Conn, *Hive, *queen) {
	t.Helper()
	canWatch(t)
	srv := bustest.Server(t, bustest.NoJetStream())
	nc := bustest.Conn(t, srv)
	cfg := quickConfig()
	if change != nil {
		change(&cfg)
	}
	q := listening(t, nc)
	h := running(t, bustest.Conn(t, srv), cfg)
	subscribed(t, nc, h)
	return srv, nc, h, q
}

// lostBy matches a snapshot in which the worker is lost with this cause.
func lostBy(id string, cause hivebeat.Cause) func(said) bool {
	return func(s said) bool {
		w, ok := worker1(s, id)
		return ok && w.Live == hivebeat.Lost && w.Cause == cause
	}
}

func awaitWatched(t *testing.T, h *Hive, n int) {
	t.Helper()
	bustest.Eventually(t, patience, func() (bool, string) {
		s := h.Stats()
		return s.Watched == n, fmt.Sprintf("%d watched, want %d: %+v", s.Watched, n, s)
	})
}

func TestAKilledWorkerIsLostAtOnce(t *testing.T) {
	for _, what := range []string{processWorks, processQuiet} {
		t.Run(what, func(t *testing.T) {
			var log text
			srv, _, h, q := watcher(t, func(c *Config) { c.Logger = log.Logger(slog.LevelInfo) })
			c := newChild(t, what, srv.URL(), "w")
			q.await(t, "the worker", withWorker("w", hivebeat.Alive))
			awaitWatched(t, h, 1)
			c.kill()
			s := q.await(t, "its death", lostBy("w", hivebeat.CauseExit))
			w, _ := worker1(s, "w")
			last := w.Tr[len(w.Tr)-1]
			if last.Kind != hivebeat.KindLost || last.Cause != hivebeat.CauseExit || last.From != "alive" || last.To != "lost" || w.PID != c.pid {
				t.Errorf("record %+v", w)
			}
			if what == processQuiet && w.Quiet == 0 {
				t.Errorf("it did not announce a silence: %+v", w)
			}
			if st := h.Stats(); st.Lost[hivebeat.CauseExit] != 1 || st.Watched != 0 || st.FalseDead+st.CutOff != 0 {
				t.Errorf("stats %+v", st)
			}
			awaitText(t, &log, fmt.Sprintf(`reason="process %d ended"`, c.pid))
		})
	}
}

// A worker that says goodbye and ends is never lost, however soon it ends.
func TestGoodbyeThenExitIsNoDeath(t *testing.T) {
	srv, _, h, q := watcher(t, nil)
	const rounds, many = 4, 6
	for round := range rounds {
		what := []string{processWorks, processRaw}[round%2]
		var list []*child
		for i := range many {
			list = append(list, newChild(t, what, srv.URL(), fmt.Sprintf("w%d-%d", round, i)))
		}
		awaitWatched(t, h, many)
		for _, c := range list {
			c.signal(t, syscall.SIGTERM)
		}
		for i := range many {
			q.await(t, "its goodbye", withWorker(fmt.Sprintf("w%d-%d", round, i), hivebeat.Left))
		}
		for _, c := range list {
			if err := c.Wait(); err != nil {
				t.Errorf("%s: %v", what, err)
			}
			c.ended = true
		}
	}
	if s := h.Stats(); len(s.Lost) != 0 || s.Watched != 0 {
		t.Errorf("stats %+v", s)
	}
	for _, s := range q.all() {
		for _, w := range s.Workers {
			for _, tr := range w.Tr {
				if tr.Kind == hivebeat.KindLost {
					t.Fatalf("%s was lost, cause %s, and said goodbye", w.Worker, tr.Cause)
				}
			}
		}
	}
}

// The same pid in another namespace is another process.
func TestAProcessOfAnotherNamespaceIsNotWatched(t *testing.T) {
	_, nc, h, q := watcher(t, nil)
	c := newChild(t, processSleeps, "", "")
	far, unknown, near := fakeOf(c, "far"), fakeOf(c, "unknown"), fakeOf(c, "near")
	far.NS, unknown.NS = far.NS+"0", ""
	for _, f := range []*fake{far, unknown, near} {
		publish(t, nc, beats, f.Next(t))
	}
	awaitBeats(t, h, 3)
	awaitWatched(t, h, 1)
	c.kill()
	q.await(t, "the death of the near one", lostBy("near", hivebeat.CauseExit))
	publish(t, nc, beats, far.Next(t)) // received after any verdict on it
	awaitBeats(t, h, 4)
	for _, w := range h.Snapshot().Workers {
		if w.Worker != "near" && w.Live != hivebeat.Alive {
			t.Errorf("%s is %s, cause %s", w.Worker, w.Live, w.Cause)
		}
	}
}

// The process of a wrapper ends, and its child keeps beating: the verdict was wrong, is
// counted as such, and is not repeated.
func TestTheEndOfAWrapperIsDisproved(t *testing.T) {
	_, nc, h, q := watcher(t, nil)
	c := newChild(t, processSleeps, "", "")
	f := fakeOf(c, "w")
	publish(t, nc, beats, f.Next(t))
	awaitWatched(t, h, 1)
	c.kill()
	q.await(t, "its death", lostBy("w", hivebeat.CauseExit))
	bustest.Eventually(t, patience, func() (bool, string) {
		f.Boot = bootid.Clock()
		publish(t, nc, beats, f.Next(t)) // a beat in the millisecond of the end counts as sent before it
		w := h.Snapshot().Workers[0]
		return w.Live == hivebeat.Alive, fmt.Sprintf("%+v", w)
	})
	publish(t, nc, beats, f.Next(t))
	awaitBeats(t, h, f.Seq)
	s := h.Stats()
	if s.FalseDead+s.CutOff != 1 || s.Lost[hivebeat.CauseExit] != 1 || s.Watched != 0 {
		t.Errorf("stats %+v, want one that was wrong", s)
	}
	if w := h.Snapshot().Workers[0]; w.Live != hivebeat.Alive || w.Tr[len(w.Tr)-1].Kind != hivebeat.KindRecovered {
		t.Errorf("record %+v", w)
	}
}

// The end of an earlier incarnation does not end the new one.
func TestTheEndOfTheLifeBeforeChangesNothing(t *testing.T) {
	_, nc, h, q := watcher(t, nil)
	before, now, other := newChild(t, processSleeps, "", ""), newChild(t, processSleeps, "", ""), newChild(t, processSleeps, "", "")
	f := fakeOf(before, "w")
	publish(t, nc, beats, f.Next(t))
	publish(t, nc, beats, fakeOf(other, "other").Next(t))
	awaitWatched(t, h, 2)
	f.Inc, f.Seq, f.PID = f.Inc+1, 0, now.pid
	publish(t, nc, beats, f.Next(t))
	awaitBeats(t, h, 3)
	before.kill()
	other.kill()
	s := q.await(t, "the death of the other one", lostBy("other", hivebeat.CauseExit))
	if w, _ := worker1(s, "w"); w.Live != hivebeat.Alive {
		t.Errorf("it is %s, cause %s", w.Live, w.Cause)
	}
	now.kill()
	q.await(t, "its own death", lostBy("w", hivebeat.CauseExit))
}

// A worker that ended before its beat was received is lost as soon as the beat is
// received.
func TestAWorkerThatHasEndedAlready(t *testing.T) {
	_, nc, _, q := watcher(t, nil)
	c := newChild(t, processSleeps, "", "")
	c.kill()
	publish(t, nc, beats, fakeOf(c, "w").Next(t))
	q.await(t, "its death", lostBy("w", hivebeat.CauseExit))
}

// A worker whose pid belongs to a process that started after the beat has ended as
// well.
func TestAProcessThatBeganAfterTheBeatIsAnotherOne(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("no clock of start times")
	}
	canWatch(t)
	nc := bustest.Conn(t, bustest.Server(t, bustest.NoJetStream()))
	h := running(t, nc, quickConfig())
	subscribed(t, nc, h)
	known := time.Now()
	bustest.Eventually(t, patience, func() (bool, string) { // start times are rounded down to 10 ms
		d := time.Since(known)
		return d > 20*time.Millisecond, d.String()
	})
	c := newChild(t, processSleeps, "", "")
	f := fakeOf(c, "w")
	h.mu.Lock()
	ok := h.core.Beat(known, beats, f.Next(t)) // of the process that had the pid before
	watches := h.core.Ready().Watches
	h.mu.Unlock()
	if !ok || len(watches) != 1 {
		t.Fatalf("accepted %t, %d to be watched", ok, len(watches))
	}
	h.watchProcs(watches)
	bustest.Eventually(t, patience, func() (bool, string) {
		w := h.Snapshot().Workers[0]
		return w.Live == hivebeat.Lost && w.Cause == hivebeat.CauseExit, fmt.Sprintf("%+v", w)
	})
}

func TestAnExitWhileNATSIsAway(t *testing.T) {
	canWatch(t)
	srv := bustest.Server(t, bustest.NoJetStream())
	proxy := bustest.NewProxy(t, srv.URL())
	nc := bustest.Dial(t, proxy.URL(), nats.MaxReconnects(-1), nats.ReconnectWait(20*time.Millisecond))
	near := bustest.Conn(t, srv)
	h := running(t, nc, quickConfig())
	subscribed(t, nc, h)
	q := listening(t, near)
	c := newChild(t, processSleeps, "", "")
	publish(t, near, beats, fakeOf(c, "w").Next(t))
	awaitWatched(t, h, 1)
	proxy.Cut()
	bustest.Eventually(t, patience, func() (bool, string) { return !h.Stats().Connected, "NATS is available" })
	c.kill()
	bustest.Eventually(t, patience, func() (bool, string) {
		w := h.Snapshot().Workers[0]
		return w.Live == hivebeat.Lost && w.Cause == hivebeat.CauseExit, fmt.Sprintf("%+v", w)
	})
	proxy.Restore()
	q.await(t, "its death", lostBy("w", hivebeat.CauseExit))
}

// A NATS that accepts everything and answers nothing blocks nothing.
func TestAnExitWhileNATSHangs(t *testing.T) {
	canWatch(t)
	srv := bustest.Server(t, bustest.NoJetStream())
	proxy := bustest.NewProxy(t, srv.URL())
	nc := bustest.Dial(t, proxy.URL(), nats.MaxReconnects(-1))
	near := bustest.Conn(t, srv)
	h := running(t, nc, quickConfig())
	subscribed(t, nc, h)
	c := newChild(t, processSleeps, "", "")
	publish(t, near, beats, fakeOf(c, "w").Next(t))
	awaitWatched(t, h, 1)
	proxy.Stall()
	defer proxy.Resume()
	c.kill()
	bustest.Eventually(t, patience, func() (bool, string) {
		w := h.Snapshot().Workers[0]
		return w.Live == hivebeat.Lost && w.Cause == hivebeat.CauseExit, fmt.Sprintf("%+v", w)
	})
}

func TestTwoHundredEndAtOnce(t *testing.T) {
	_, nc, h, q := watcher(t, nil)
	c := newChild(t, processSleeps, "", "")
	const n = 200
	for i := range n {
		if err := nc.Publish(beats, fakeOf(c, fmt.Sprintf("w%03d", i)).Next(t)); err != nil {
			t.Fatal(err)
		}
	}
	awaitWatched(t, h, n)
	c.kill()
	bustest.Eventually(t, patience, func() (bool, string) {
		s, _ := q.last()
		dead := 0
		for _, w := range s.Workers {
			if w.Live == hivebeat.Lost && w.Cause == hivebeat.CauseExit {
				dead++
			}
		}
		return dead == n, fmt.Sprintf("%d of %d", dead, n)
	})
}

func TestNoExitWatch(t *testing.T) {
	_, nc, h, _ := watcher(t, func(c *Config) { c.NoExitWatch = true })
	c := newChild(t, processSleeps, "", "")
	f := fakeOf(c, "w")
	publish(t, nc, beats, f.Next(t))
	awaitBeats(t, h, 1)
	c.kill()
	publish(t, nc, beats, f.Next(t))
	awaitBeats(t, h, 2)
	if s, w := h.Stats(), h.Snapshot().Workers[0]; s.Watched != 0 || w.Live != hivebeat.Alive {
		t.Errorf("%+v, and it is %s", s, w.Live)
	}
}

// The hive does not watch its own process.
func TestTheHivesOwnProcessIsNotWatched(t *testing.T) {
	_, nc, h, _ := watcher(t, nil)
	f := newFake("w")
	f.PID, f.NS = uint64(os.Getpid()), bootid.Namespace()
	publish(t, nc, beats, f.Next(t))
	awaitBeats(t, h, 1)
	if s := h.Stats(); s.Watched != 0 {
		t.Errorf("%+v", s)
	}
}

// A worker that hangs is reported as stalled, by its own limit, and stays alive.
func TestAStalledWorkerIsTold(t *testing.T) {
	_, nc, h, q := watcher(t, func(c *Config) { c.StallAfter = time.Hour })
	f := newFake("w")
	f.Busy, f.Done, f.Labels = 1, 7, map[string]string{"stall_after": "20ms"}
	publish(t, nc, beats, f.Next(t))
	awaitBeats(t, h, 1)
	stalled := func(is bool) func(said) bool {
		return func(s said) bool {
			w, ok := worker1(s, "w")
			return ok && w.Live == hivebeat.Alive && w.Stalled == is && w.Tr[len(w.Tr)-1].Kind == hivebeat.KindStalled
		}
	}
	bustest.Eventually(t, patience, func() (bool, string) { // until 20 ms passed between two beats
		publish(t, nc, beats, f.Next(t))
		s, ok := q.last()
		return ok && stalled(true)(s), fmt.Sprintf("%+v", s.Snapshot)
	})
	f.Done++
	publish(t, nc, beats, f.Next(t))
	q.await(t, "one that goes on", stalled(false))
	if s := h.Stats(); len(s.Lost) != 0 {
		t.Errorf("stats %+v", s)
	}
}

// A goodbye that has arrived is handled before the end of the process is judged.
func TestWhoWaitsToSayGoodbyeIsNotDead(t *testing.T) {
	canWatch(t)
	l, waiting := turning(t)
	f := newFake("w")
	f.NS = bootid.Namespace()
	l.core.Beat(time.Now(), beats, f.Next(t))
	f.State = hivebeat.Stopped
	waiting <- &nats.Msg{Subject: beats, Data: f.Next(t)}
	exit := detector.Exit{Process: detector.Process{Worker: "w", Inc: f.Inc, PID: f.PID}, At: time.Now()}
	if err := l.turn(t.Context(), func(now time.Time, _ uint64) { l.core.Exited(now, bootid.Clock(), []detector.Exit{exit}) }); err != nil {
		t.Fatal(err)
	}
	if w := l.Snapshot().Workers[0]; w.Live != hivebeat.Left || w.N != 2 {
		t.Errorf("judged before it was heard: %+v", w)
	}
}

// A process that ends while the count of kills in its own cgroup rises was killed for want
// of memory. Another one, that ends at the same time, was not.
func TestAProcessThatTheKernelKilled(t *testing.T) {
	sys := &fakeProcesses{
		scan:   func(context.Context, map[uint64]bool) (proctree.Scan, error) { return proctree.Scan{}, nil },
		limits: proctree.Limits{Kills: 3, Counted: true},
	}
	_, nc, h, q := watcher(t, func(cfg *Config) { cfg.processes = sys })
	bustest.Eventually(t, patience, func() (bool, string) { // the next scan comes 10 s later
		word := h.Snapshot().Collect[sourceOS]
		return word == hivebeat.CollectNone, word
	})
	killed, other := newChild(t, processSleeps, "", ""), newChild(t, processSleeps, "", "")
	facts := map[proctree.Key]procFacts{}
	for id, c := range map[string]*child{"killed": killed, "other": other} {
		f := fakeOf(c, id)
		publish(t, nc, beats, f.Next(t))
		key := proctree.Key{Worker: id, Inc: f.Inc, PID: f.PID, NS: f.NS}
		facts[key] = procFacts{Facts: proctree.Facts{Key: key}}
		if id == "killed" {
			facts[key] = procFacts{Facts: proctree.Facts{Key: key, Cgroup: proctree.Cgroup{Path: "/docker/a"}, Limits: proctree.Limits{Kills: 2, Counted: true}}}
		}
	}
	h.table.set(facts)
	awaitWatched(t, h, 2)
	killed.kill()
	other.kill()
	q.await(t, "its death, and why", lostBy("killed", hivebeat.CauseOOM))
	q.await(t, "the other death", lostBy("other", hivebeat.CauseExit))
	if s := h.Stats(); s.Lost[hivebeat.CauseOOM] != 1 || s.Lost[hivebeat.CauseExit] != 1 {
		t.Errorf("lost %v", s.Lost)
	}
}
