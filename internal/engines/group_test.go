package engines

import (
	"context"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"go.uber.org/goleak"

	"github.com/beatfabric/hivebeat"
	"github.com/beatfabric/hivebeat/internal/bustest"
	"github.com/beatfabric/hivebeat/internal/life"
	"github.com/beatfabric/hivebeat/internal/sidecar"
	"github.com/beatfabric/hivebeat/internal/wire"
	"github.com/beatfabric/hivebeat/worker"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const patience = 20 * time.Second

// fleet is what the group's workers say.
type fleet struct {
	t    *testing.T
	mu   sync.Mutex
	last map[string]hivebeat.Beat
	incs map[string]map[uint64]bool
}

func newFleet(t *testing.T) (*fleet, *Group) {
	t.Helper()
	srv := bustest.Server(t, bustest.NoJetStream())
	f := &fleet{t: t, last: map[string]hivebeat.Beat{}, incs: map[string]map[uint64]bool{}}
	nc := bustest.Conn(t, srv)
	_, err := nc.Subscribe("hive.h.workers", func(m *nats.Msg) {
		b, err := wire.DecodeBeat(m.Data)
		if err != nil {
			t.Errorf("beat: %v", err)
			return
		}
		f.mu.Lock()
		defer f.mu.Unlock()
		if f.last[b.Worker] = b; f.incs[b.Worker] == nil {
			f.incs[b.Worker] = map[uint64]bool{}
		}
		f.incs[b.Worker][b.Inc] = true
	})
	if err != nil {
		t.Fatal(err)
	}
	bustest.Flush(t, nc)
	g := New(bustest.Conn(t, srv), nil)
	t.Cleanup(g.Stop)
	return f, g
}

// until waits until the worker has begun that often, and its last beat has this state.
func (f *fleet) until(id string, state hivebeat.State, lives int) {
	f.t.Helper()
	bustest.Eventually(f.t, patience, func() (bool, string) {
		f.mu.Lock()
		defer f.mu.Unlock()
		b := f.last[id]
		return b.State == state && len(f.incs[id]) == lives, id + " is " + string(b.State)
	})
}

func spec(id, version string, s life.Source) Spec {
	return Spec{ID: id, Version: version, Config: sidecar.Config{Worker: worker.Config{Hive: "h", ID: id}, Source: s}}
}

// one yields one process, whose end the test decides.
type one struct {
	end  chan life.End
	over bool
}

func (s *one) Next(ctx context.Context) (life.Process, error) {
	if s.over {
		return life.Process{}, life.ErrOver
	}
	s.over = true
	return life.Process{PID: 7, Ended: s.end}, ctx.Err()
}

func (*one) Waiting() string { return "" }

// Only what changed restarts.
func TestSet(t *testing.T) {
	f, g := newFleet(t)
	g.Set([]Spec{spec("a", "1", nil), spec("b", "1", nil), spec("c", "1", nil)}, nil)
	for _, id := range []string{"a", "b", "c"} {
		f.until(id, hivebeat.Ready, 1)
	}
	g.Set([]Spec{spec("a", "1", nil), spec("b", "2", nil), spec("d", "1", nil)}, nil)
	f.until("b", hivebeat.Ready, 2)
	f.until("c", hivebeat.Stopped, 1)
	f.until("d", hivebeat.Ready, 1)
	f.until("a", hivebeat.Ready, 1)
	bustest.Eventually(t, patience, func() (bool, string) {
		ids := g.IDs()
		return len(ids) == 3 && ids[0] == "a" && ids[1] == "b" && ids[2] == "d", "it runs others"
	})
	g.Stop()
	for id, lives := range map[string]int{"a": 1, "b": 2, "d": 1} {
		f.until(id, hivebeat.Stopped, lives)
	}
	g.Set([]Spec{spec("e", "1", nil)}, nil)
	if ids := g.IDs(); len(ids) != 0 {
		t.Errorf("after Stop it runs %q", ids)
	}
}

// An engine whose process has ended for good is reported, and starts again only if it is another.
func TestEnded(t *testing.T) {
	f, g := newFleet(t)
	first := spec("a", "1", &one{end: make(chan life.End, 1)})
	g.Set([]Spec{first}, nil)
	f.until("a", hivebeat.Ready, 1)
	first.Config.Source.(*one).end <- life.End{How: "signal 9", Final: true}
	select {
	case id := <-g.Ended():
		if id != "a" {
			t.Errorf("%q ended", id)
		}
	case <-time.After(patience):
		t.Fatal("the end is not reported")
	}
	g.Set([]Spec{first}, nil)
	if ids := g.IDs(); len(ids) != 0 {
		t.Errorf("it runs %q again", ids)
	}
	g.Set([]Spec{spec("a", "2", &one{end: make(chan life.End, 1)})}, nil)
	f.until("a", hivebeat.Ready, 2)
}

// An engine that cannot be configured is left out, and the others run.
func TestInvalid(t *testing.T) {
	f, g := newFleet(t)
	g.Set([]Spec{spec("a.b", "1", nil), spec("b", "1", nil)}, nil)
	f.until("b", hivebeat.Ready, 1)
	if ids := g.IDs(); len(ids) != 1 {
		t.Errorf("it runs %q", ids)
	}
}
