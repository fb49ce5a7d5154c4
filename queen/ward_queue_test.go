package queen

import (
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/beatfabric/hivebeat"
	"github.com/beatfabric/hivebeat/internal/bustest"
	"github.com/beatfabric/hivebeat/internal/wire"
	"github.com/beatfabric/hivebeat/queen/api"
)

// Some are heard at once, then it is told for a second who is lost, and the last of
// ten thousand is heard 3.5 s after the first.
func TestWardQueue(t *testing.T) {
	t.Parallel()
	var q wardQueue
	now := time.Date(2030, 1, 2, 3, 4, 5, 0, time.UTC)
	if _, _, ok := q.pop(now); ok || !q.next(now).IsZero() {
		t.Fatal("there is something to do for nobody")
	}
	const hives = 10_000
	for i := range hives {
		q.push(strconv.Itoa(i))
		if i%2 == 0 {
			q.call(strconv.Itoa(i), time.Minute)
		}
	}
	heard := make([]time.Duration, 0, hives)
	for at := now; len(heard) < hives; at = q.next(at) {
		if at.Sub(now) > time.Minute {
			t.Fatalf("%d of %d are heard within a minute", len(heard), hives)
		}
		for {
			id, spread, ok := q.pop(at)
			if !ok {
				break
			}
			n := len(heard)
			if id != strconv.Itoa(n) || (spread == time.Minute) != (n%2 == 0) {
				t.Fatalf("%d. is %s, its roll to be called over %s", n, id, spread)
			}
			q.took(at)
			heard = append(heard, at.Sub(now))
		}
	}
	if heard[wardsBurst-1] != 0 || heard[wardsBurst] < time.Second || heard[wardsBurst] > time.Second+wardsWake {
		t.Errorf("%d. and %d. are heard after %s and %s", wardsBurst-1, wardsBurst, heard[wardsBurst-1], heard[wardsBurst])
	}
	if last := heard[hives-1]; last < 3400*time.Millisecond || last > 3600*time.Millisecond {
		t.Errorf("the last is heard after %s", last)
	}

	// What is popped and not heard, as it is nobody's ward any more, costs nothing.
	now = now.Add(time.Hour)
	for range hives {
		q.push("gone")
	}
	q.push("there")
	for {
		id, _, ok := q.pop(now)
		if !ok {
			t.Fatal("it waits for those that are gone")
		}
		if id == "there" {
			break
		}
	}
}

// More hives are lost at once than are heard at once, and each has a worker that
// says nothing unless it is called: all of them are called, and heard to answer.
func TestManyHivesDieAndTheirWorkersLiveOn(t *testing.T) {
	t.Parallel()
	srv := bustest.Server(t)
	nc := bustest.Conn(t, srv)
	q := startQueen(t, bustest.Conn(t, srv), Config{ID: "q", BrakeOff: true})
	q.warm()
	const hives = 10 * wardsBurst
	var none hivebeat.Subjects
	called := map[string]bool{}
	answer := func(m *nats.Msg) {
		id := strings.Split(m.Subject, ".")[1]
		if called[id] {
			return // once must do
		}
		called[id] = true
		b, err := wire.EncodeBeat(&hivebeat.Beat{V: 1, Hive: id, Worker: "w", Facts: hivebeat.Facts{Inc: 7, Seq: 11, Every: 30_000, State: hivebeat.Ready}})
		if err != nil {
			t.Error(err)
		}
		if err := nc.Publish(none.Workers(id), b); err != nil {
			t.Error(err)
		}
	}
	if _, err := nc.Subscribe("hive.*.rollcall", answer); err != nil {
		t.Fatal(err)
	}
	bustest.Flush(t, nc)
	for i := range hives {
		s := snapshotOf(fmt.Sprintf("h%03d", i), 100, 1, workerOf("w"))
		s.Every = 500
		s.Workers[0].Age, s.Workers[0].N = 0, 0
		if err := nc.Publish(none.Hives(), encode(t, s)); err != nil {
			t.Fatal(err)
		}
	}
	q.eventually("all workers answer to the queen", func() bool {
		s := q.ask(api.VerbSummary, api.Request{}).Summary
		workers := q.ask(api.VerbWorkers, api.Request{Filter: api.Filter{Live: []hivebeat.Live{hivebeat.Alive}}, Limit: 1000}).Workers
		n := 0
		for _, w := range workers {
			if w.Via == hivebeat.ViaQueen {
				n++
			}
		}
		return s.Hives[hivebeat.Lost] == hives && n == hives
	})
	for _, ev := range storedEvents(t, nc) {
		if ev.Data.Worker != "" && ev.Data.Kind != hivebeat.KindJoined {
			t.Errorf("%s of %s is told", ev.Data.Kind, ev.Subject)
		}
	}
}
