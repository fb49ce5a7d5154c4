// Package engines runs sidecars for many engines on one connection to NATS.
package engines

import (
	"cmp"
	"context"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/beatfabric/hivebeat/internal/sidecar"
)

// leaveIn bounds the goodbye of an engine.
const leaveIn = 5 * time.Second

// Spec is an engine that a Group runs.
type Spec struct {
	ID string // of its worker; unique within the group
	// Version distinguishes the configurations of the engine: an engine whose Version has
	// changed is stopped and starts again.
	Version string
	Config  sidecar.Config
}

// Group runs engines. All methods are safe for concurrent use.
type Group struct {
	nc    *nats.Conn
	log   *slog.Logger
	ended chan string
	gone  chan struct{} // closed by Stop
	wg    sync.WaitGroup

	mu   sync.Mutex
	want map[string]Spec
	run  map[string]*running
	over map[string]string // engines that ended by themselves, with their Version
	down bool
}

// running is an engine that runs, or that is about to end.
type running struct {
	*sidecar.Engine
	version string
	leaving bool
}

// New returns a group that runs nothing.
func New(nc *nats.Conn, log *slog.Logger) *Group {
	return &Group{
		nc: nc, log: cmp.Or(log, slog.New(slog.DiscardHandler)), ended: make(chan string), gone: make(chan struct{}),
		want: map[string]Spec{}, run: map[string]*running{}, over: map[string]string{},
	}
}

// Set makes the group run these engines and no others. why has the reasons, by id, that the
// goodbyes of the others give. It does not wait. An engine whose process
// has ended for good starts again only with another Version.
func (g *Group) Set(want []Spec, why map[string]string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.down {
		return
	}
	g.want = make(map[string]Spec, len(want))
	for _, s := range want {
		g.want[s.ID] = s
	}
	for id := range g.over {
		if _, ok := g.want[id]; !ok {
			delete(g.over, id)
		}
	}
	for id, r := range g.run {
		if s, ok := g.want[id]; (!ok || s.Version != r.version) && !r.leaving {
			r.leaving = true
			reason := cmp.Or(why[id], "no longer watched")
			if ok {
				reason = "its configuration has changed"
			}
			g.wg.Go(func() { g.leave(id, r, reason) })
		}
	}
	for _, s := range want {
		g.start(s)
	}
}

// IDs returns the ids of the engines that run.
func (g *Group) IDs() []string {
	g.mu.Lock()
	defer g.mu.Unlock()
	var ids []string
	for id, r := range g.run {
		if !r.leaving {
			ids = append(ids, id)
		}
	}
	slices.Sort(ids)
	return ids
}

// Ended receives the id of each engine that ended by itself, because its process did. It has to be
// read.
func (g *Group) Ended() <-chan string { return g.ended }

// start starts an engine, unless it runs or has ended. The caller holds the lock.
func (g *Group) start(s Spec) {
	if g.run[s.ID] != nil {
		return // also if it is leaving: then it starts when it has left
	}
	if v, ok := g.over[s.ID]; ok && v == s.Version {
		return
	}
	delete(g.over, s.ID)
	e, err := sidecar.New(g.nc, s.Config)
	if err != nil {
		g.log.Error("engine left out", slog.String("worker", s.ID), slog.Any("err", err))
		g.over[s.ID] = s.Version
		return
	}
	r := &running{Engine: e, version: s.Version}
	g.run[s.ID] = r
	g.wg.Go(func() {
		if err := e.Run(context.Background()); err != nil {
			g.log.Error("engine ended", slog.String("worker", s.ID), slog.Any("err", err))
		}
		g.finished(s.ID, r)
	})
}

// finished takes note of the end of an engine, and starts the one that waits for its id.
func (g *Group) finished(id string, r *running) {
	g.mu.Lock()
	delete(g.run, id)
	own := !r.leaving && !g.down
	if own {
		g.over[id] = r.version
	}
	if s, ok := g.want[id]; ok && !g.down {
		g.start(s)
	}
	g.mu.Unlock()
	if own {
		select {
		case g.ended <- id:
		case <-g.gone:
		}
	}
}

// leave stops an engine in order.
func (g *Group) leave(id string, r *running, why string) {
	ctx, cancel := context.WithTimeout(context.Background(), leaveIn)
	defer cancel()
	if err := r.StopFor(ctx, why); err != nil {
		g.log.Warn("engine did not stop in order", slog.String("worker", id), slog.Any("err", err))
	}
}

// Stop stops all engines in order, and waits for them. It may be called several times.
func (g *Group) Stop() {
	g.mu.Lock()
	if !g.down {
		g.down = true
		close(g.gone)
		for id, r := range g.run {
			if !r.leaving {
				r.leaving = true
				g.wg.Go(func() { g.leave(id, r, "") })
			}
		}
	}
	g.mu.Unlock()
	g.wg.Wait()
}
