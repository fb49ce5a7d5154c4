package queen

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/beatfabric/hivebeat"
	"github.com/beatfabric/hivebeat/internal/bustest"
	"github.com/beatfabric/hivebeat/internal/fleet"
)

func eventOf(worker string, n uint64) fleet.Happened {
	return fleet.Happened{
		Data: hivebeat.EventData{Hive: "h", Worker: worker, HiveInc: 100, Inc: 7, N: n, Kind: hivebeat.KindLate},
		ID:   hivebeat.WorkerEventID("h", 100, worker, 7, hivebeat.KindLate, n), At: time.Now(),
	}
}

// sink takes events, unless it is broken.
type sink struct {
	mu     sync.Mutex
	broken bool
	got    map[string][]uint64 // n by worker
	gaps   map[string]hivebeat.EventData
}

func (s *sink) publish(_ context.Context, events []hivebeat.Event) []error {
	errs := make([]error, len(events))
	for i := range events {
		errs[i] = s.one(&events[i])
	}
	return errs
}

func (s *sink) one(ev *hivebeat.Event) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.broken {
		return errors.New("broken")
	}
	if ev.Data.Kind == hivebeat.KindGap {
		s.gaps[ev.Data.Worker] = ev.Data
	}
	s.got[ev.Data.Worker] = append(s.got[ev.Data.Worker], ev.Data.N)
	return nil
}

func startOutbox(t *testing.T) (*outbox, *sink) {
	o, s := newOutbox(hivebeat.Subjects{}), &sink{got: map[string][]uint64{}, gaps: map[string]hivebeat.EventData{}}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { o.run(ctx, func() bool { return false }, func(error) {}) })
	t.Cleanup(func() { cancel(); wg.Wait() })
	return o, s
}

func TestOutboxKeepsTheOrderOfEachWorker(t *testing.T) {
	o, s := startOutbox(t)
	s.broken = true
	o.open(s.publish)
	want := []uint64(nil)
	for n := range uint64(100) {
		want = append(want, n+1)
		var list []fleet.Happened
		for w := range 20 {
			list = append(list, eventOf(fmt.Sprint("w", w), n+1))
		}
		o.push(list)
		if n == 50 { // it fails for a while
			bustest.Eventually(t, patience, func() (bool, string) { return !o.idle(), "idle" })
		}
	}
	s.mu.Lock()
	s.broken = false
	s.mu.Unlock()
	bustest.Eventually(t, patience, func() (bool, string) { return o.idle(), "busy" })
	for w := range 20 {
		if got := s.got[fmt.Sprint("w", w)]; !slices.Equal(got, want) {
			t.Errorf("w%d: %v", w, got)
		}
	}
	if waiting, published, dropped := o.counts(); waiting != 0 || published != 2000 || dropped != 0 {
		t.Errorf("%d waiting, %d published, %d dropped", waiting, published, dropped)
	}
}

func TestOutboxKeepsTheNewestAndTellsTheGap(t *testing.T) {
	o, s := startOutbox(t)
	for n := range uint64(fleet.OutboxMax/2 + 100) {
		o.push([]fleet.Happened{eventOf("a", n+1), eventOf("b", n+1)})
	}
	if waiting, _, dropped := o.counts(); waiting != fleet.OutboxMax || dropped != 200 {
		t.Fatalf("%d waiting, %d dropped", waiting, dropped)
	}
	if len(s.got) != 0 {
		t.Fatal("published while that was not possible")
	}
	o.open(s.publish)
	bustest.Eventually(t, patience, func() (bool, string) { return o.idle(), "busy" })
	for _, w := range []string{"a", "b"} {
		g := s.gaps[w]
		if g.Missing != 100 || g.N != 100 || g.HiveInc != 100 || g.Reason == "" {
			t.Errorf("%s: gap %+v", w, g)
		}
		if got := s.got[w]; len(got) != fleet.OutboxMax/2+1 || got[0] != 100 || got[1] != 101 || !slices.IsSorted(got) {
			t.Errorf("%s: %d events, %v …", w, len(got), got[:3])
		}
	}
}

func TestOutboxPublishesNothingOld(t *testing.T) {
	o, s := startOutbox(t)
	old := eventOf("w", 1)
	old.At = time.Now().Add(-fleet.TooOld - time.Second)
	o.push([]fleet.Happened{old, eventOf("w", 2)})
	o.open(s.publish)
	bustest.Eventually(t, patience, func() (bool, string) { return o.idle(), "busy" })
	if got := s.got["w"]; !slices.Equal(got, []uint64{1, 2}) || s.gaps["w"].Missing != 1 {
		t.Errorf("%v, gap %+v", got, s.gaps["w"])
	}
}

func TestOutboxHoldsBackWhenItIsShut(t *testing.T) {
	o, s := startOutbox(t)
	o.open(s.publish)
	o.open(nil)
	o.push([]fleet.Happened{eventOf("w", 1)})
	if waiting, _, _ := o.counts(); waiting != 1 || !o.idle() {
		t.Errorf("%d waiting", waiting)
	}
	o.open(s.publish)
	bustest.Eventually(t, patience, func() (bool, string) { return len(s.seen("w")) == 1, "not published" })
}

func (s *sink) seen(w string) []uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.got[w])
}
