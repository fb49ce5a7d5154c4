package sim

import (
	"cmp"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// Stats counts what happened in one or more runs.
type Stats struct {
	Happenings uint64 `json:"happenings"` // steps of the simulation
	Messages   uint64 `json:"messages"`   // sent over the bus
	Events     uint64 `json:"events"`     // stored in the stream
	Simulated  Span   `json:"simulated"`
}

// Result is the outcome of a run.
type Result struct {
	Plan    Plan       `json:"plan"`
	Broken  *Violation `json:"broken,omitempty"` // nil: every invariant held
	Stats   Stats      `json:"stats"`
	History []string   `json:"history,omitempty"` // of a traced run
}

// Run runs a plan. If trace is set, Result.History lists everything that happened.
func Run(p Plan, trace bool) (Result, error) {
	if err := p.possible(); err != nil {
		return Result{}, err
	}
	w := &world{plan: &p, tracing: trace}
	w.populate()
	w.play()
	w.stats.Simulated = Span(w.now)
	return Result{Plan: p, Broken: w.broken, Stats: w.stats, History: w.history}, nil
}

// Shorten removes faults from a plan that breaks an invariant while it still breaks the same
// one, and then everything else that it does not need. It returns the result of the
// shortened plan, with its history.
func Shorten(p Plan, broken Invariant) Result {
	fails := func(p Plan) bool {
		r, err := Run(p, false)
		return err == nil && r.Broken != nil && r.Broken.Invariant == broken
	}
	for size := max(1, len(p.Faults)/2); size >= 1; size /= 2 {
		for at := 0; at+size <= len(p.Faults); {
			q := p
			q.Faults = slices.Concat(p.Faults[:at], p.Faults[at+size:])
			if fails(q) {
				p = q
			} else {
				at += size
			}
		}
	}
	for _, simpler := range []func(p *Plan){
		func(p *Plan) { p.Net.Dup, p.Net.Replay = 0, 0 },
		func(p *Plan) { p.Net.Reorder = 0 },
		func(p *Plan) { p.Net.Loss, p.Net.LossRun = 0, 0 },
		func(p *Plan) { p.Net.Jitter = Span(time.Millisecond) },
		func(p *Plan) { p.Queens, p.Untold = 1, 0 },
		func(p *Plan) { p.Workers = 1 },
		func(p *Plan) { p.Hives = 1 },
		func(p *Plan) { p.Zones, p.Paged = 1, false },
		func(p *Plan) { p.Before = 0 },
		func(p *Plan) { p.Stall, p.StallSaid = 0, false },
		func(p *Plan) { p.Untold = 0 },
		func(p *Plan) { p.NoJetStream = false },
		func(p *Plan) { p.Replicas = 0 },
		func(p *Plan) { p.HiveClosings = false },
		func(p *Plan) { p.Closings, p.HiveClosings = 0, false },
		func(p *Plan) { p.Exits = false },
	} {
		q := p
		simpler(&q)
		if fails(q) {
			p = q
		}
	}
	r, _ := Run(p, true) // it has run before
	return r
}

// Summary is the outcome of many runs.
type Summary struct {
	Runs   int           `json:"runs"`
	Stats  Stats         `json:"stats"`
	Took   time.Duration `json:"took_ns"`
	Failed []Result      `json:"failed,omitempty"` // in order of their seeds
}

// RunSeeds runs the plans of n seeds, starting at first, on all processors. It starts no
// further runs once the number of failed runs reaches most, or once stop returns true.
func RunSeeds(first uint64, n int, length, late time.Duration, most int, stop func() bool) Summary {
	var next atomic.Int64
	var mu sync.Mutex
	var wg sync.WaitGroup
	var s Summary
	began := time.Now()
	for range min(n, runtime.GOMAXPROCS(0)) {
		wg.Go(func() {
			for enough := false; !enough; {
				i := next.Add(1) - 1
				if i >= int64(n) || stop != nil && stop() {
					return
				}
				r, err := Run(Generate(first+uint64(i), length, late), false)
				if err != nil { // not a plan that Generate makes
					r.Broken = &Violation{Invariant: Sound, Text: err.Error()}
				}
				mu.Lock()
				s.Runs++
				s.Stats.Happenings += r.Stats.Happenings
				s.Stats.Messages += r.Stats.Messages
				s.Stats.Events += r.Stats.Events
				s.Stats.Simulated += r.Stats.Simulated
				if r.Broken != nil {
					s.Failed = append(s.Failed, r)
				}
				enough = len(s.Failed) >= most
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	slices.SortFunc(s.Failed, func(a, b Result) int { return cmp.Compare(a.Plan.Seed, b.Plan.Seed) })
	s.Took = time.Since(began)
	return s
}
