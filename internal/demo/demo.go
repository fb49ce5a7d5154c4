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

// Config configures the simulated fleet.
type Config struct {
	// Connect opens a connection. Each hive and each incarnation of a worker has its own.
	Connect func(name string) (*nats.Conn, error)
	// System is the hives' connection to the system account, as in hive.Config. It
	// may be nil.
	System *nats.Conn
	Prefix string
	// Avoid is a hive id that is taken: the fleet does not use it.
	Avoid string
	// Every is the promise of the workers. It is short so that a death shows within seconds
	// even without System: late after 1.5 times Every, lost after 3. Default 2 s.
	Every time.Duration
	// HiveEvery is the promise of the hives. Default 5 s.
	HiveEvery time.Duration
	// Pace is the average time between two scenes. Default 8 s.
	Pace time.Duration
	// Seed determines what happens, but only partly when it happens.
	Seed   uint64
	Logger *slog.Logger
}

// second is a second of the simulated life.
const second = time.Second

// Run runs the fleet until ctx ends. The workers and hives then leave in order, which takes
// a few seconds at most. Run returns an error at once if a hive or worker cannot start.
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

	// Workers leave first, so that their hives can report it.
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

// errBegin is the start of the error of a hive or worker that could not start or continue.
var errBegin = errors.New("demo")

// direct sends cues to the workers until ctx ends.
func direct(ctx context.Context, p *plot, all []*life) {
	for {
		c := p.next()
		if !sleep(ctx, c.wait) {
			return
		}
		select {
		case all[c.who].cues <- c.scene:
		default: // it is in the middle of another scene
		}
	}
}

// sleep waits for d. It reports false if ctx ends first.
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
		GPUs:   func(context.Context) ([]hivebeat.GPU, error) { return b.gpuFacts(time.Now()), nil },
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
