package demo

import (
	"context"
	"errors"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"go.uber.org/goleak"

	"github.com/beatfabric/hivebeat"
	"github.com/beatfabric/hivebeat/bus"
	"github.com/beatfabric/hivebeat/internal/bustest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m, bustest.Leaks()) }

func TestFleetIsPlausible(t *testing.T) {
	hives, workers := Size()
	if hives < 3 || hives > 4 || workers < 9 || workers > 12 {
		t.Errorf("%d hives, %d workers", hives, workers)
	}
	seen := map[string]bool{}
	for _, m := range fleet() {
		if hivebeat.CheckID("hive", m.hive) != nil || seen[m.hive] {
			t.Errorf("hive %q", m.hive)
		}
		seen[m.hive] = true
		for _, s := range m.workers {
			if hivebeat.CheckID("worker", s.id) != nil || seen[m.hive+"/"+s.id] {
				t.Errorf("worker %q", s.id)
			}
			seen[m.hive+"/"+s.id] = true
			for _, g := range s.gpus {
				if g >= len(m.gpus) {
					t.Errorf("%s uses GPU %d of %d", s.id, g, len(m.gpus))
				}
			}
		}
	}
}

// At any time no GPU holds more than its memory, and the loads add up.
func TestLoadsStayWithinTheirMachine(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	now := time.Now()
	for _, m := range fleet() {
		b := newBox(m, now, r)
		for second := range 2000 {
			for _, s := range m.workers {
				var was uint64
				b.with(s.id, func(l *load) {
					was = l.done
					switch r.IntN(40) {
					case 0:
						l.end()
					case 1:
						l.up, l.state = true, hivebeat.Loading
					case 2:
						l.grow(3)
					case 3:
						l.state = hivebeat.Ready
					}
					l.step(r)
				})
				if l := b.look(s.id); l.busy > l.slots || l.done < was || l.queue > 4*l.slots {
					t.Fatalf("second %d: %+v", second, l)
				}
			}
			for _, g := range b.gpuFacts(now.Add(time.Duration(second) * time.Second)) {
				if g.Used+g.Reserved > g.Total || g.Ours > g.Used || g.Util > 100 {
					t.Fatalf("second %d: %+v", second, g)
				}
			}
			if h := b.hostFacts(now); h.MemUsed > h.MemTotal || h.CPU > 100 {
				t.Fatalf("second %d: %+v", second, h)
			}
		}
	}
}

// One GPU is always slow, and another one fails now and then and works again.
func TestSomeGPUsAreNotOK(t *testing.T) {
	now := time.Now()
	seen := map[hivebeat.GPUState]int{}
	for _, m := range fleet() {
		b := newBox(m, now, rand.New(rand.NewPCG(1, 2)))
		for second := range int(2 * failEvery / time.Second) {
			for _, g := range b.gpuFacts(now.Add(time.Duration(second) * time.Second)) {
				seen[g.State]++
				if bad := g.State != hivebeat.GPUOK; bad != (g.Evidence != "") || (g.Action != "") != (g.State == hivebeat.GPUFailing) {
					t.Fatalf("second %d: %+v", second, g)
				}
			}
		}
	}
	if slow, failing := seen[hivebeat.GPUDegraded], seen[hivebeat.GPUFailing]; slow != 720 || failing != 120 {
		t.Errorf("%v", seen)
	}
}

func TestPlotHasEveryScene(t *testing.T) {
	p := plot{r: rand.New(rand.NewPCG(3, 4)), size: 10, pace: time.Second, last: -1}
	last := -1
	for range 50 {
		round := map[scene]bool{}
		for range int(scenes) {
			c := p.next()
			round[c.scene] = true
			if c.who == last || c.who < 0 || c.who >= 10 || c.wait < time.Second/2 || c.wait > 3*time.Second/2 {
				t.Errorf("cue %+v after %d", c, last)
			}
			last = c.who
		}
		if len(round) != int(scenes) {
			t.Errorf("a round of %v", round)
		}
	}
}

// The fleet beats over a real NATS, and leaves in order.
func TestRun(t *testing.T) {
	srv := bustest.Server(t)
	nc := bustest.Conn(t, srv)
	var s hivebeat.Subjects
	snapshots, err := nc.SubscribeSync(s.Hives())
	if err != nil {
		t.Fatal(err)
	}
	bustest.Flush(t, nc)

	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	ended := make(chan error, 1)
	go func() {
		ended <- Run(ctx, Config{
			Connect: func(name string) (*nats.Conn, error) { return srv.Connect(nats.Name(name)) },
			Avoid:   "gpu-01", Every: 200 * time.Millisecond, HiveEvery: time.Second, Pace: 50 * time.Millisecond, Seed: 5,
		})
	}()
	seen := map[string]bool{}
	heard := func(want int) {
		t.Helper()
		for len(seen) < want {
			m, err := snapshots.NextMsg(30 * time.Second)
			if err != nil {
				t.Fatalf("%v; seen %v", err, seen)
			}
			see(t, m.Data, seen)
		}
	}
	heard(4 + 10) // each hive, and each worker at a hive
	if seen["gpu-01"] || !seen["gpu-01-demo"] {
		t.Errorf("seen %v", seen)
	}
	cancel()
	select {
	case err := <-ended:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(30 * time.Second):
		t.Fatal("it does not end")
	}
	// Every hive said goodbye.
	bustest.Eventually(t, 10*time.Second, func() (bool, string) {
		for {
			m, err := snapshots.NextMsg(10 * time.Millisecond)
			if err != nil {
				break
			}
			see(t, m.Data, seen)
		}
		n := 0
		for _, m := range fleet() {
			if seen["bye "+m.hive] || seen["bye "+m.hive+"-demo"] {
				n++
			}
		}
		return n == 4, "not every hive said goodbye"
	})
}

// see records the hives and workers in a snapshot.
func see(t *testing.T, b []byte, seen map[string]bool) {
	t.Helper()
	var s hivebeat.Snapshot
	if err := bus.Decode(b, &s); err != nil {
		t.Fatal(err)
	}
	seen[s.Hive] = true
	if s.Bye != "" {
		seen["bye "+s.Hive] = true
	}
	for i := range s.Workers {
		seen[s.Hive+"/"+s.Workers[i].Worker] = true
	}
}

func TestRunTellsWhyItCanNot(t *testing.T) {
	no := errors.New("no NATS")
	err := Run(t.Context(), Config{Connect: func(string) (*nats.Conn, error) { return nil, no }})
	if !errors.Is(err, no) {
		t.Error(err)
	}
}
