package sidecar

import (
	"context"
	"fmt"
	"hash/fnv"
	"log/slog"
	"strings"
	"sync"
	"time"

	"github.com/beatfabric/hivebeat"
	"github.com/beatfabric/hivebeat/internal/life"
	"github.com/beatfabric/hivebeat/internal/plaintext"
	"github.com/beatfabric/hivebeat/internal/probe"
	"github.com/beatfabric/hivebeat/worker"
)

// leaveIn bounds the goodbye of a worker.
const leaveIn = 3 * time.Second

// maxCold bounds the names of models on disk, in bytes: a beat has room for about 7 KiB.
const maxCold = 3 << 10

// group is the workers of one life of an engine: its base worker, and one for each model that
// it has loaded if it can load several. It belongs to one goroutine.
type group struct {
	*Engine
	base    *member
	models  map[string]*member // by name of the model
	pid     uint64
	said    hivebeat.State
	because string
}

// member is a worker that runs.
type member struct {
	*worker.Worker
	id  string
	run sync.WaitGroup
}

// newGroup starts the base worker. If it waits, its state is starting.
func newGroup(e *Engine, waits bool) (*group, error) {
	g := &group{Engine: e, models: make(map[string]*member)}
	cfg := e.cfg.Worker
	if waits {
		cfg.State = hivebeat.Starting
	}
	base, err := g.start(cfg)
	if err != nil {
		return nil, err
	}
	g.base = base
	return g, nil
}

func (g *group) start(cfg worker.Config) (*member, error) {
	w, err := worker.New(g.nc, cfg)
	if err != nil {
		return nil, err
	}
	m := &member{Worker: w, id: cfg.ID}
	m.run.Go(func() {
		if err := w.Run(context.Background()); err != nil {
			g.log.Error("worker ended", slog.Any("err", err))
		}
	})
	return m, nil
}

// begun waits until the worker has tried to send a beat: one that is stopped before sends no last
// beat either, and a process may end at once.
func (m *member) begun(ctx context.Context) {
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for s := m.Stats(); s.Sent+s.Failed == 0; s = m.Stats() {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// each calls fn for all members.
func (g *group) each(fn func(*member)) {
	fn(g.base)
	for _, m := range g.models {
		fn(m)
	}
}

// state sets the state of all workers.
func (g *group) state(s hivebeat.State, reason string) {
	if s != g.said && !s.SameAs(g.said) || s == hivebeat.Starting && reason != g.because {
		level := slog.LevelInfo
		if s == hivebeat.Degraded {
			level = slog.LevelWarn
		}
		g.log.Log(context.Background(), level, "engine", slog.String("state", string(s)), slog.String("reason", reason))
	}
	g.said, g.because = s, reason
	g.each(func(m *member) { _ = m.SetState(s, reason) }) // ErrStopped, or a state that it refuses and counts
}

// process sets the process that the workers beat for.
func (g *group) process(pid uint64) {
	g.pid = pid
	g.each(func(m *member) { _ = m.Update(func(f *worker.Facts) { f.PID = pid }) })
}

// end ends all workers as their process ended, and waits for their last beats.
func (g *group) end(end life.End) {
	ctx, cancel := context.WithTimeout(context.Background(), leaveIn)
	defer cancel()
	how := end.How
	if how == "" {
		how = hivebeat.ExitEnded
	}
	var wg sync.WaitGroup
	g.each(func(m *member) {
		wg.Go(func() {
			m.begun(ctx)
			var err error
			switch {
			case end.Orderly:
				err = m.StopFor(ctx, end.Reason)
			case end.GivenUp:
				err = m.Fail(ctx, end.Reason)
			default:
				err = m.Exited(ctx, how, end.Reason)
			}
			if err != nil {
				g.log.Warn("last beat not sent", slog.Any("err", err))
			}
			m.run.Wait()
		})
	})
	wg.Wait()
}

// report lets the workers say what a reading found.
func (g *group) report(r *probe.Report) {
	loaded, cold := split(r)
	several := isSeveral(r)
	facts := g.facts(r)
	base := facts
	if several { // the workers of the models have what the engine holds and does
		base = idle(base)
		base.Slots, base.Cold = 0, cold
		if len(loaded) > 1 {
			facts = idle(facts) // any one may be the one that works
		}
		g.keep(r, loaded)
	} else if len(loaded) > 0 && base.Model == "" {
		base.Model = loaded[0].Name
	}
	g.update(g.base, base)
	for _, m := range loaded {
		if w := g.models[m.Name]; w != nil {
			of := facts
			of.Model = m.Name
			of.VRAM, of.Context = value(m.VRAM), value(m.Context)
			g.update(w, of)
		}
	}
	g.state(r.State, r.Reason)
}

// idle returns f without work and memory.
func idle(f worker.Facts) worker.Facts {
	f.VRAM, f.Busy, f.Queue, f.Done, f.Tokens, f.KV = 0, 0, 0, 0, 0, nil
	return f
}

// split separates the models that are loaded from those on disk.
func split(r *probe.Report) (loaded []probe.Model, cold []string) {
	bytes := 0
	for _, m := range r.Reading.Models {
		switch {
		case m.Name == "" || len(m.Name) > hivebeat.MaxModel:
		case m.Loaded:
			loaded = append(loaded, m)
		case len(cold) < hivebeat.MaxCold && bytes+len(m.Name) <= maxCold:
			cold, bytes = append(cold, m.Name), bytes+len(m.Name)
		}
	}
	return loaded, cold
}

// isSeveral reports whether the engine loads and unloads models as they are asked for. Several
// names of one engine of another kind are one model.
func isSeveral(r *probe.Report) bool {
	if r.Reading.Engine == string(probe.Ollama) {
		return true
	}
	for _, m := range r.Reading.Models {
		if !m.Loaded {
			return true
		}
	}
	return false
}

// keep has one worker for each loaded model. An unloaded one has left: it did not die.
func (g *group) keep(r *probe.Report, loaded []probe.Model) {
	if r.Probed.IsZero() {
		return
	}
	now := make(map[string]bool, len(loaded))
	for _, m := range loaded {
		now[m.Name] = true
		if g.models[m.Name] != nil {
			continue
		}
		cfg := g.cfg.Worker
		cfg.ID, cfg.Model, cfg.State = g.modelID(m.Name), m.Name, r.State
		w, err := g.start(cfg)
		if err != nil {
			g.log.Warn("model left out", slog.String("model", m.Name), slog.Any("err", err))
			continue
		}
		_ = w.Update(func(f *worker.Facts) { f.PID = g.pid })
		g.models[m.Name] = w
		g.log.Info("model loaded", slog.String("model", m.Name))
	}
	for name, w := range g.models {
		if now[name] {
			continue
		}
		delete(g.models, name)
		g.log.Info("model unloaded", slog.String("model", name))
		ctx, cancel := context.WithTimeout(context.Background(), leaveIn)
		if err := w.StopFor(ctx, "the engine has unloaded the model"); err != nil {
			g.log.Warn("goodbye not sent", slog.String("model", name), slog.Any("err", err))
		}
		cancel()
		w.run.Wait()
	}
}

// update sets the facts of a worker. Facts that do not fit a beat leave out the models on disk.
func (g *group) update(m *member, facts worker.Facts) {
	set := func(f *worker.Facts) { *f = facts }
	err := m.Update(set)
	if err != nil && len(facts.Cold) > 0 {
		facts.Cold = nil
		err = m.Update(set)
	}
	if err != nil {
		g.log.Debug("facts", slog.Any("err", err))
	}
}

// facts returns what all workers of the engine have in common.
func (g *group) facts(r *probe.Report) worker.Facts {
	cfg, is := &g.cfg.Worker, &r.Reading
	f := worker.Facts{
		Model: cfg.Model, Endpoint: cfg.Endpoint, GPUs: cfg.GPUs, Slots: cfg.Slots, Need: cfg.Need, Labels: cfg.Labels,
		PID: g.pid, Probed: r.Probed,
		Busy: value(is.Busy), Queue: value(is.Queue), Done: value(is.Done), Tokens: value(is.Tokens), KV: is.KV,
		KVCapacity: value(is.KVCap), Context: value(is.Context),
		Engine: plaintext.Clip(is.Engine, hivebeat.MaxEngine), Version: plaintext.Clip(is.Version, hivebeat.MaxEngine),
	}
	if f.Slots == 0 {
		f.Slots = value(is.Slots)
	}
	if f.Endpoint == "" && g.cfg.Probe != nil && g.cfg.Probe.Kind != probe.TCP {
		f.Endpoint = g.cfg.Probe.URL
	}
	for i := range is.Models {
		if m := &is.Models[i]; m.Loaded {
			f.VRAM += value(m.VRAM)
			if f.Context == 0 {
				f.Context = value(m.Context)
			}
		}
	}
	if l := is.Lora; l != nil {
		f.LoRA = hivebeat.LoRA{Max: value(l.Max), On: few(l.Running), Wait: few(l.Waiting)}
	}
	return f
}

func value(p *uint64) uint64 {
	if p == nil {
		return 0
	}
	return min(*p, hivebeat.MaxInt)
}

// few returns the names that a beat has room for.
func few(names []string) (out []string) {
	for _, n := range names {
		if n != "" && len(n) <= hivebeat.MaxAdapter && len(out) < hivebeat.MaxAdapters {
			out = append(out, n)
		}
	}
	return out
}

// modelID returns the id of the worker for a model: that of the base worker and the name of the
// model, with a hash of the name if that is too long or another model has the same.
func (g *group) modelID(model string) string {
	clean := strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z', r >= 'A' && r <= 'Z', r >= '0' && r <= '9', r == '-', r == '_':
			return r
		}
		return '-'
	}, model)
	id := g.cfg.Worker.ID + "-" + clean
	taken := false
	for _, m := range g.models {
		taken = taken || m.id == id
	}
	if len(id) <= hivebeat.MaxID && !taken {
		return id
	}
	h := fnv.New32a()
	_, _ = h.Write([]byte(model))
	hash := fmt.Sprintf("-%08x", h.Sum32())
	return id[:min(len(id), hivebeat.MaxID-len(hash))] + hash
}
