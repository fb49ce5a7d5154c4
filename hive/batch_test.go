package hive

import (
	"fmt"
	"log/slog"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/beatfabric/hivebeat"
	"github.com/beatfabric/hivebeat/bus"
	"github.com/beatfabric/hivebeat/internal/bustest"
	"github.com/beatfabric/hivebeat/internal/liveness"
)

// Many workers of one machine die together, as after a driver reset, and the server
// lives. Within a second none of them may be picked. If the server is in the hive's
// process, all are lost soon. With a separate server, a failing proxy looks the same:
// there silence decides.
func TestABatchOfDeaths(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		many  int
		where string
		rw    hivebeat.Millis
		bound time.Duration // 0: not lost by this
	}{
		{8, "own", 250, 6 * second},
		{64, "own", 2000, 8 * second},
		{crowd, "own", 250, 6 * second},
		{64, "beside", 250, 0},
	} {
		t.Run(fmt.Sprintf("%d,%s", c.many, c.where), func(t *testing.T) {
			var log text
			srv := deployment(t)
			q := listening(t, bustest.Conn(t, srv))
			cfg := quickConfig()
			cfg.System, cfg.NoExitWatch, cfg.Logger = asSystem(t, srv.URL()), true, log.Logger(slog.LevelInfo)
			if c.where == "own" {
				cfg.Own = srv.ID()
			}
			h := running(t, agent(t, srv.URL()), cfg)
			awaitText(t, &log, "hears workers")
			bustest.Flush(t, cfg.System)
			conns := batch(t, srv.URL(), c.many, c.rw)
			awaitBeats(t, h, uint64(c.many))

			killed := time.Now()
			for _, nc := range conns {
				nc.Close()
			}
			closing := time.Since(killed)
			count := func(ok func(*hivebeat.Record) bool) (n int, at time.Time) {
				seen := make(map[string]bool)
				for _, s := range q.all() {
					for i := range s.Workers {
						if w := &s.Workers[i]; ok(w) && !seen[w.Worker] {
							seen[w.Worker], at = true, s.at
						}
					}
				}
				return len(seen), at
			}
			var marked, lost time.Time
			bustest.Eventually(t, patience, func() (bool, string) {
				n, at := count(func(w *hivebeat.Record) bool { return w.Closed || w.Live == hivebeat.Lost })
				marked = at
				return n == c.many, fmt.Sprint(n, " are not to be picked")
			})
			if d := marked.Sub(killed) - closing; d > second {
				t.Errorf("some could be picked for %s", d)
			}
			if c.bound == 0 {
				neverLost(t, liveness.Window+liveness.BatchMore, h) // longer than any window
				nobodyLost(t, h, q, c.many)
				return
			}
			bustest.Eventually(t, patience, func() (bool, string) {
				n, at := count(func(w *hivebeat.Record) bool { return w.Live == hivebeat.Lost })
				lost = at
				return n == c.many, fmt.Sprint(n, " are lost")
			})
			if d := lost.Sub(killed) - closing; d > c.bound {
				t.Errorf("the last was lost after %s, want %s", d, c.bound)
			}
			t.Logf("closed within %s, not to be picked after %s, lost after %s", closing, marked.Sub(killed), lost.Sub(killed))
			if s := h.Stats(); s.Lost[hivebeat.CauseDisconnect] != uint64(c.many) {
				t.Errorf("stats %+v", s)
			}
		})
	}
}

// batch returns the connections of many workers. Each has beaten once.
func batch(t *testing.T, url string, many int, rw hivebeat.Millis) []*nats.Conn {
	t.Helper()
	list := make([]*nats.Conn, many)
	for i := range list {
		nc, err := nats.Connect(url)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(nc.Close)
		f := newFake(fmt.Sprint("w", i))
		f.Conn, f.RW = bus.ConnID(nc), rw
		publish(t, nc, beats, f.Next(t))
		list[i] = nc
	}
	return list
}
