//go:build unix

package hive

import (
	"fmt"
	"syscall"
	"testing"
	"time"

	"github.com/beatfabric/hivebeat"
	"github.com/beatfabric/hivebeat/internal/bustest"
)

// A stopped process has not ended.
func TestAStoppedProcessIsNoExit(t *testing.T) {
	_, nc, h, q := watcher(t, nil)
	stopped, dies := newChild(t, processSleeps, "", ""), newChild(t, processSleeps, "", "")
	publish(t, nc, beats, fakeOf(stopped, "stopped").Next(t))
	publish(t, nc, beats, fakeOf(dies, "dies").Next(t))
	awaitWatched(t, h, 2)
	stopped.signal(t, syscall.SIGSTOP)
	dies.kill() // by the time this end is reported, that of the other would be as well
	s := q.await(t, "a death", lostBy("dies", hivebeat.CauseExit))
	if w, _ := worker1(s, "stopped"); w.Live != hivebeat.Alive || h.Stats().Watched != 1 {
		t.Errorf("the stopped one is %s, cause %s", w.Live, w.Cause)
	}
	stopped.kill()
	q.await(t, "its own death", lostBy("stopped", hivebeat.CauseExit))
}

// The kernel is faster than a slow link: a goodbye that is still under way when the
// process has ended is handled first.
func TestAGoodbyeOnASlowLineIsHeardFirst(t *testing.T) {
	canWatch(t)
	srv := bustest.Server(t, bustest.NoJetStream())
	proxy := bustest.NewProxy(t, srv.URL())
	h := running(t, bustest.Dial(t, proxy.URL()), quickConfig())
	bustest.Eventually(t, patience, func() (bool, string) { return h.Stats().Snapshots.Sent > 0, "not running" })
	var list []*child
	for i := range 8 {
		list = append(list, newChild(t, processRaw, srv.URL(), fmt.Sprint("w", i)))
	}
	awaitWatched(t, h, len(list))
	proxy.Delay(15 * time.Millisecond)
	for i, c := range list {
		c.signal(t, syscall.SIGTERM)
		bustest.Eventually(t, patience, func() (bool, string) {
			w := h.Snapshot().Workers[i]
			return w.Live != hivebeat.Alive, "alive"
		})
	}
	awaitWatched(t, h, 0)
	for _, w := range h.Snapshot().Workers {
		if w.Live != hivebeat.Left || len(w.Tr) != 2 {
			t.Errorf("%s is %s: %+v", w.Worker, w.Live, w.Tr)
		}
	}
	if s := h.Stats(); len(s.Lost) != 0 {
		t.Errorf("stats %+v", s)
	}
}
