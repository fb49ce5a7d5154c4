//go:build unix

package hive

import (
	"syscall"
	"testing"

	"github.com/beatfabric/hivebeat"
)

// A process that is stopped has not ended.
func TestAStoppedProcessIsNoExit(t *testing.T) {
	_, nc, h, q := watcher(t, nil)
	stopped, dies := newChild(t, processSleeps, "", ""), newChild(t, processSleeps, "", "")
	publish(t, nc, beats, fakeOf(stopped, "stopped").next(t))
	publish(t, nc, beats, fakeOf(dies, "dies").next(t))
	awaitWatched(t, h, 2)
	stopped.signal(t, syscall.SIGSTOP)
	dies.kill() // what would be told of the other is told by then
	s := q.await(t, "a death", lostBy("dies", hivebeat.CauseExit))
	if w, _ := worker1(s, "stopped"); w.Live != hivebeat.Alive || h.Stats().Watched != 1 {
		t.Errorf("the stopped one is %s, cause %s", w.Live, w.Cause)
	}
	stopped.kill()
	q.await(t, "its own death", lostBy("stopped", hivebeat.CauseExit))
}
