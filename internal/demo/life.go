package demo

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strconv"
	"time"

	"github.com/beatfabric/hivebeat"
	"github.com/beatfabric/hivebeat/worker"
)

// life is one simulated worker with all its incarnations.
type life struct {
	cfg Config
	box *box
	served
	cues chan scene
	r    *rand.Rand // used by the goroutine of run only
}

// run runs incarnations until ctx ends. The first one has its model loaded already.
func (l *life) run(ctx context.Context) error {
	for loaded := true; ctx.Err() == nil; loaded = false {
		away, err := l.incarnation(ctx, loaded)
		if err != nil && ctx.Err() == nil {
			return fmt.Errorf("%w: worker %s/%s: %w", errBegin, l.box.hive, l.id, err)
		}
		if !sleep(ctx, away) {
			break
		}
	}
	return nil
}

// incarnation runs one process: it loads its model, serves, and ends on a cue or when ctx
// ends. It returns how long the worker is away afterwards.
func (l *life) incarnation(ctx context.Context, loaded bool) (away time.Duration, err error) {
	nc, err := l.cfg.Connect("hivebeat worker " + l.box.hive + "/" + l.id)
	if err != nil {
		return 0, err
	}
	defer nc.Close()
	state := hivebeat.Ready
	if !loaded {
		state = hivebeat.Starting
		l.box.with(l.id, func(b *load) { b.up, b.state = true, state })
	}
	defer l.box.with(l.id, (*load).end)
	w, err := worker.New(nc, worker.Config{
		Hive: l.box.hive, ID: l.id, Prefix: l.cfg.Prefix, Every: l.cfg.Every, State: state,
		Model: l.model, Endpoint: "http://" + l.box.hive + ":" + strconv.Itoa(l.port) + "/v1",
		GPUs: l.box.uuids(l.gpus), Slots: l.slots, Logger: l.cfg.Logger,
	})
	if err != nil {
		return 0, err
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = w.Run(context.WithoutCancel(ctx)) // closing its connection is the crash
	}()
	defer func() { <-ended }()

	s := l.play(ctx, w, loaded)
	switch s {
	case crash, restart:
		nc.Close()
	default:
		leave, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*second)
		defer cancel()
		_ = w.Stop(leave)
	}
	switch s {
	case crash: // long enough to be lost
		away = 5*l.cfg.Every + time.Duration(l.r.Int64N(int64(10*second)))
	case goodbye:
		away = 5*second + time.Duration(l.r.Int64N(int64(10*second)))
	case restart:
		away = second / 2
	}
	return away, nil
}

// play serves until a cue or the end of ctx ends the process.
func (l *life) play(ctx context.Context, w *worker.Worker, loaded bool) scene {
	l.facts(w)
	if !sleep(ctx, time.Duration(l.r.Int64N(int64(second)))) || !loaded && !l.load(ctx, w, 3) {
		return goodbye
	}
	tick := time.NewTicker(second)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return goodbye
		case s := <-l.cues:
			if s != reload {
				return s
			}
			l.box.with(l.id, func(b *load) { b.vram, b.busy, b.queue = 0, 0, 0 })
			if !l.load(ctx, w, 10) {
				return goodbye
			}
		case <-tick.C:
			l.box.with(l.id, func(b *load) { b.step(l.r) })
			l.say(w)
		}
	}
}

// load loads the model within a number of seconds. A long load announces its silence first.
// load reports false if ctx ends first.
func (l *life) load(ctx context.Context, w *worker.Worker, seconds uint64) bool {
	l.box.with(l.id, func(b *load) { b.state = hivebeat.Loading })
	_ = w.SetState(hivebeat.Loading, "reading "+strconv.FormatUint(l.vram/gib, 10)+" GiB of weights")
	l.facts(w)
	if seconds > 5 {
		// Quiet may fail while NATS is away. The next beats then announce the silence.
		_ = w.Quiet(ctx, 2*time.Duration(seconds)*second)
	}
	for range seconds {
		if !sleep(ctx, second) {
			return false
		}
		l.box.with(l.id, func(b *load) { b.grow(seconds) })
		l.facts(w)
	}
	l.box.with(l.id, func(b *load) { b.state = hivebeat.Ready })
	l.say(w)
	return true
}

// say sends the simulated state to the fabric.
func (l *life) say(w *worker.Worker) {
	_ = w.SetState(l.box.look(l.id).state, "")
	l.facts(w)
}

func (l *life) facts(w *worker.Worker) {
	b := l.box.look(l.id)
	_ = w.Update(func(f *worker.Facts) { f.VRAM, f.Busy, f.Queue, f.Done = b.vram, b.busy, b.queue, b.done })
}
