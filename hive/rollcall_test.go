package hive

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/beatfabric/hivebeat"
	"github.com/beatfabric/hivebeat/internal/bustest"
)

// When NATS was away for a minute, no verdict changes, and the snapshot of the
// reconnect shows all workers as older than fresh. One more snapshot soon reports that
// they are there: only one, and only with answers.
func TestVirtualAnswersAfterACutAreTold(t *testing.T) {
	for _, c := range []struct {
		workers, answers, extra int
		after                   time.Duration // since the roll call
	}{
		{0, 0, 0, 0},
		{2, 0, 0, 0},
		{2, 1, 1, 400 * time.Millisecond}, // the snapshot of the reconnect comes within 250 ms
		{2, 2, 1, 400 * time.Millisecond},
		{2, 1, 1, 3 * second}, // coming back took longer
	} {
		t.Run(fmt.Sprintf("%d of %d after %s", c.answers, c.workers, c.after), func(t *testing.T) {
			bustest.Bubble(t, func(t *testing.T) {
				srv := bustest.Server(t, bustest.NoListen())
				way, nc := overLine(t, srv, nats.ReconnectBufSize(-1))
				near := bustest.Conn(t, srv)
				q := listening(t, near)
				running(t, nc, quickConfig())
				synctest.Wait()
				workers := make([]*fake, c.workers)
				for i := range workers {
					workers[i] = newFake(fmt.Sprint("w", i))
					publish(t, near, beats, workers[i].Next(t))
				}
				pass(10 * second)
				calls, err := near.SubscribeSync("hive." + thisHive + ".rollcall")
				if err != nil {
					t.Fatal(err)
				}
				bustest.Flush(t, near)

				way.set(true)
				pass(time.Minute)
				before := len(q.all())
				way.set(false)
				if _, err := calls.NextMsg(second); err != nil {
					t.Fatal("no roll call: ", err)
				}
				called := time.Now()
				pass(c.after)
				for _, w := range workers[:c.answers] {
					publish(t, near, beats, w.Next(t))
				}
				pass(time.Until(called.Add(5 * second))) // no regular snapshot is due that soon
				all := q.all()[before:]
				if len(all) != 1+c.extra {
					t.Fatalf("%d snapshots in 5 s after the cut, want %d", len(all), 1+c.extra)
				}
				for _, w := range workers[:c.answers] {
					first, last := all[0], all[len(all)-1]
					if r, _ := worker1(first, w.Worker); r.Age.Duration() < 45*second || r.Live != hivebeat.Alive {
						t.Errorf("on reconnect: %+v", r)
					}
					if r, _ := worker1(last, w.Worker); r.Age.Duration() > second || r.Live != hivebeat.Alive || r.N != 1 {
						t.Errorf("after its answer: %+v", r)
					}
					if d := last.at.Sub(called); d > max(1300*time.Millisecond, c.after+10*time.Millisecond) {
						t.Errorf("told %s after the roll call", d)
					}
				}
				if again, _, _ := calls.Pending(); again != 0 {
					t.Errorf("%d roll calls too many", again)
				}
			})
		})
	}
}
