package demo

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/beatfabric/hivebeat"
	"github.com/beatfabric/hivebeat/hive"
)

// Config says how the fleet lives.
type Config struct {
	// Connect makes one connection: each hive and each life of a worker has its own.
	Connect func(name string) (*nats.Conn, error)
	// System is the hives' connection to the system account, as in hive.Config. It
	// may be nil.
	System *nats.Conn
	Prefix string
	// Avoid is a hive id that is taken: the fleet does not use it.
	Avoid string
	// Every is the workers' promise, short so that a death shows in seconds also
	// without System: late after 1.5 times this, lost after 3. Default 2 s.
	Every time.Duration
	// HiveEvery is the hives' promise. Default 5 s.
	HiveEvery time.Duration
	// Pace is how long nothing happens between two scenes, on average. Default 8 s.
	Pace time.Duration
	// Seed makes the fleet's life another one. What happens follows from it; when,
	// does not wholly.
	Seed   uint64
	Logger *slog.Logger
}

// second is how fast the simulated life goes.
const second = time.Second

// Run lets the fleet live until ctx ends, and then leaves in order, for at most a
// few seconds. It returns at once if a hive or worker can not begin.
func Run(ctx context.Context, cfg Config) error {
	cfg.Every = cmp.Or(cfg.Every, 2*time.Second)
	cfg.HiveEvery = cmp.Or(cfg.HiveEvery, 5*time.Second)
	cfg.Pace = cmp.Or(cfg.Pace, 8*time.Second)
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	r := rand.New(rand.NewPCG(cfg.Seed, 1))

	// Workers leave first, so that their hives can tell.
	living, endLives := context.WithCancel(ctx)
	hiving, endHives := context.WithCancel(context.WithoutCancel(ctx))
	var hives, lives sync.WaitGroup
	fail := func(err error) {
		if err != nil {
			cancel(err)
		}
	}
	var all []*life
	for _, m := range fleet() {
		if m.hive == cfg.Avoid {
			m.hive += "-demo"
		}
		b := newBox(m, time.Now(), r)
		hives.Go(func() { fail(runHive(hiving, cfg, b)) })
		for _, s := range m.workers {
			l := &life{cfg: cfg, box: b, served: s, cues: make(chan scene, 1), r: rand.New(rand.NewPCG(r.Uint64(), 2))}
			all = append(all, l)
			lives.Go(func() { fail(l.run(living)) })
		}
	}
	direct(living, &plot{r: r, size: len(all), pace: cfg.Pace, last: -1}, all)
	endLives()
	lives.Wait()
	endHives()
	hives.Wait()
	if err := context.Cause(ctx); errors.Is(err, errBegin) {
		return err
	}
	return nil
}

// errBegin: a part of the fleet could not begin or go on.
var errBegin = errors.New("demo")

// direct gives the workers their cues until ctx ends.
func direct(ctx context.Context, p *plot, all []*life) {
	for {
		c := p.next()
		if !sleep(ctx, c.wait) {
			return
		}
		select {
		case all[c.who].cues <- c.scene:
		default: // it is in the middle of another one
		}
	}
}

// sleep waits for d, and reports false when ctx ended.
func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

func runHive(ctx context.Context, cfg Config, b *box) error {
	nc, err := cfg.Connect("hivebeat hive " + b.hive)
	if err != nil {
		return fmt.Errorf("%w: hive %s: %w", errBegin, b.hive, err)
	}
	defer nc.Close()
	h, err := hive.New(nc, hive.Config{
		ID: b.hive, Prefix: cfg.Prefix, Every: cfg.HiveEvery, PushFacts: second, System: cfg.System,
		Labels: map[string]string{"zone": b.zone, "demo": "true"},
		Host:   func(context.Context) (hivebeat.Host, error) { return b.hostFacts(time.Now()), nil },
		GPUs:   func(context.Context) ([]hivebeat.GPU, error) { return b.gpuFacts(), nil },
		Logger: cfg.Logger,
	})
	if err != nil {
		return fmt.Errorf("%w: hive %s: %w", errBegin, b.hive, err)
	}
	if err := h.Run(ctx); err != nil {
		return fmt.Errorf("%w: hive %s: %w", errBegin, b.hive, err)
	}
	return nil
}
