//go:build e2e

package nemesis

import (
	"fmt"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/beatfabric/hivebeat"
	"github.com/beatfabric/hivebeat/bus"
	"github.com/beatfabric/hivebeat/internal/e2e/rig"
	"github.com/beatfabric/hivebeat/queen/api"
)

// hear waits for an event since a time and returns when it arrived.
func (s *stage) hear(kind hivebeat.Kind, subject string, from time.Time) time.Time {
	s.Helper()
	var at time.Time
	rig.Until(s.T, patience+3*max(*hiveEvery, *workerEvery), fmt.Sprintf("event %s of %s", kind, subject), func() (bool, string) {
		h, ok := s.ears.since(kind, subject, from)
		at = h.at
		return ok, "not heard"
	})
	return at
}

// beat waits for the next beat of a worker.
func (s *stage) beat(hive, worker string) {
	s.Helper()
	var none hivebeat.Subjects
	heard := make(chan struct{}, 1)
	sub, err := s.nc.Subscribe(none.Workers(hive), func(m *nats.Msg) {
		var b hivebeat.Beat
		if bus.Decode(m.Data, &b) == nil && b.Worker == worker {
			select {
			case heard <- struct{}{}:
			default:
			}
		}
	})
	if err != nil {
		s.Fatal(err)
	}
	defer sub.Unsubscribe()
	select {
	case <-heard:
	case <-time.After(2**workerEvery + patience):
		s.Fatalf("no beat of %s/%s", hive, worker)
	}
}

// judged counts the live workers of a hive that this judge reports.
func (s *stage) judged(hive, via string) (n int, state string) {
	a, err := rig.Ask(s.nc, api.VerbWorkers, api.Request{Hive: hive, Limit: 1000})
	if err != nil {
		return 0, err.Error()
	}
	for _, w := range a.Workers {
		if w.Live == hivebeat.Alive && w.Via == via {
			n++
		}
		state += fmt.Sprintf("%s=%s via %s ", w.Worker, w.Live, w.Via)
	}
	return n, state
}

// adopted waits until the queen hears n workers of a lost hive itself, and returns when it
// saw that.
func (s *stage) adopted(hive string, n int) time.Time {
	s.Helper()
	rig.Until(s.T, patience, fmt.Sprintf("%d workers of %s to answer for themselves", n, hive), func() (bool, string) {
		got, state := s.judged(hive, hivebeat.ViaQueen)
		return got >= n, state
	})
	return time.Now()
}

// handedBack waits until n workers are alive according to their hive.
func (s *stage) handedBack(hive string, n int) {
	s.Helper()
	rig.Until(s.T, patience, fmt.Sprintf("%d workers to be %s's again", n, hive), func() (bool, string) {
		got, state := s.judged(hive, hivebeat.ViaHive)
		return got >= n, state
	})
}
