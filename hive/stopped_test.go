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

// TestVirtualHiveStoppedForAMinute with a real process that is stopped and continued.
func TestHiveProcessStopped(t *testing.T) {
	if testing.Short() {
		t.Skip("takes 15 s")
	}
	srv := bustest.Server(t)
	nc := bustest.Conn(t, srv)
	q := listening(t, nc)
	p := newChildOf(t, processHive, srv.URL(), thisHive, "")
	workers := []*fake{newFake("w0"), newFake("w1"), newFake("w2")}
	sent := map[string]time.Time{}
	beatAll := func() {
		for _, w := range workers {
			w.Every = hivebeat.MillisOf(second)
			sent[w.Worker] = time.Now()
			publish(t, nc, beats, w.Next(t))
		}
	}
	q.await(t, "anything", func(said) bool { return true }) // from then on it receives beats
	beatAll()
	q.await(t, "all workers", func(s said) bool { return len(s.Workers) == len(workers) })
	beatFor := func(d time.Duration) {
		tick, end := time.NewTicker(700*time.Millisecond), time.After(d)
		defer tick.Stop()
		for {
			beatAll()
			select {
			case <-tick.C:
			case <-end:
				return
			}
		}
	}
	beatFor(2 * second)
	before := len(q.all())
	p.signal(t, syscall.SIGSTOP)
	beatFor(8 * second) // a worker would be lost after 3 s
	last := sent["w0"]
	p.signal(t, syscall.SIGCONT)
	resumed := time.Now()
	// No beats for a moment: the hive now reads only old ones.
	s := q.await(t, "self_pause", func(s said) bool { return s.Stats.SelfPause > 0 })
	if s.Stats.SelfPause < 7000 || s.at.Sub(resumed) > 20*second {
		t.Errorf("self_pause %d ms, told after %s", s.Stats.SelfPause, s.at.Sub(resumed))
	}
	beatFor(4 * second)
	for _, s := range q.all()[before:] {
		if s.Stats.FalseDead+s.Stats.CutOff != 0 {
			t.Errorf("stats %+v", s.Stats)
		}
		for _, r := range s.Workers {
			if r.Live == hivebeat.Lost {
				t.Errorf("%s was lost while its hive was stopped", r.Worker)
			}
			if r.Live != hivebeat.Alive || r.N != 1 {
				t.Logf("%s is %s, n %d", r.Worker, r.Live, r.N)
			}
			if s.at.Before(resumed.Add(500*time.Millisecond)) && s.at.After(resumed) && r.Seq < workers[0].Seq && r.Age.Duration()+second < s.at.Sub(last) {
				t.Errorf("%s is shown as %s old right after the stop: it waited for %s", r.Worker, r.Age.Duration(), s.at.Sub(last))
			}
		}
	}
	if s, _ := q.last(); len(s.Workers) != len(workers) || s.Workers[0].Live != hivebeat.Alive {
		t.Errorf("the last: %s", fmt.Sprint(s.Workers))
	}
}
