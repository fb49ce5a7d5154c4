package discover

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/beatfabric/hivebeat"
	"github.com/beatfabric/hivebeat/bus"
	"github.com/beatfabric/hivebeat/internal/bootid"
	"github.com/beatfabric/hivebeat/internal/engines"
	"github.com/beatfabric/hivebeat/internal/life"
	"github.com/beatfabric/hivebeat/internal/probe"
	"github.com/beatfabric/hivebeat/internal/sidecar"
	"github.com/beatfabric/hivebeat/internal/wire"
	"github.com/beatfabric/hivebeat/worker"
)

// Defaults of a [Config].
const (
	DefaultEvery = 10 * time.Second
	// settle is how long the beats of other workers are awaited before the first engine is
	// reported, so that none is reported twice.
	settle = 700 * time.Millisecond
	// spread is how widely the answers to the roll call at the start are spread.
	spread = "300"
	// askAtOnce bounds how many ports are asked at a time.
	askAtOnce = 4
)

// ErrSystem: this system has no /proc as that of Linux.
var ErrSystem = errors.New("discovery reads /proc, which only Linux has")

// Config describes a [Discovery]. Hive is required; the zero value of the rest works.
type Config struct {
	Hive   string // the hive of this machine
	Prefix string
	Pinned bool          // as in worker.Config
	Every  time.Duration // between two looks, [DefaultEvery] by default
	// Beat is the promise of the workers, 30 s by default.
	Beat time.Duration
	// Follow returns a source for a process. Default: life.PID.
	Follow func(pid uint64) (life.Source, error)
	// Logger gets a line for each engine that is found, left out or lost, once. Default:
	// nothing is logged.
	Logger *slog.Logger

	scan func(context.Context) (*Scan, error) // of a test
}

func (c Config) withDefaults() (Config, error) {
	c.Every = cmp.Or(c.Every, DefaultEvery)
	c.Logger = cmp.Or(c.Logger, slog.New(slog.DiscardHandler))
	if c.Follow == nil {
		c.Follow = func(pid uint64) (life.Source, error) { return life.PID(pid, life.Config{Logger: c.Logger}) }
	}
	if c.Every < 100*time.Millisecond {
		return c, fmt.Errorf("discover: Config.Every: %s is below 100ms", c.Every)
	}
	if c.scan == nil {
		s, err := newScanner("/proc")
		if err != nil {
			return c, err
		}
		c.scan = s.Scan
	}
	return c, nil
}

// Discovery finds engines and beats for them. Use [New].
type Discovery struct {
	nc       *nats.Conn
	cfg      Config
	subjects hivebeat.Subjects
	group    *engines.Group
	once     sync.Once
	gone     chan struct{} // closed by Stop
	done     chan struct{} // closed when Run has returned
	mu       sync.Mutex
	ran      bool
	findings []Finding
}

// New returns a Discovery that works once Run is called. The connection must be allowed to do
// what a hive and its workers do.
func New(nc *nats.Conn, cfg Config) (*Discovery, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	if err := hivebeat.CheckID("hive", cfg.Hive); err != nil {
		return nil, fmt.Errorf("discover: Config.Hive: %w", err)
	}
	subjects, err := hivebeat.NewSubjects(cfg.Prefix)
	if err != nil {
		return nil, fmt.Errorf("discover: Config.Prefix: %w", err)
	}
	return &Discovery{
		nc: nc, cfg: cfg, subjects: subjects, group: engines.New(nc, cfg.Logger),
		gone: make(chan struct{}), done: make(chan struct{}),
	}, nil
}

// Findings describes each process and port that was looked at.
func (d *Discovery) Findings() []Finding {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Clone(d.findings)
}

// Stop ends Run and waits for it: the workers say goodbye.
func (d *Discovery) Stop(ctx context.Context) error {
	d.once.Do(func() { close(d.gone) })
	d.mu.Lock()
	ran := d.ran
	d.mu.Unlock()
	if !ran {
		return nil
	}
	select {
	case <-d.done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// answer is that of a candidate.
type answer struct {
	key
	probe.Found
	err error
}

// Run looks for engines and beats for them until ctx ends or Stop is called. It works once.
func (d *Discovery) Run(ctx context.Context) error {
	d.mu.Lock()
	if d.ran {
		d.mu.Unlock()
		return fmt.Errorf("discover: %w", hivebeat.ErrStopped)
	}
	d.ran = true
	d.mu.Unlock()
	defer close(d.done)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() {
		select {
		case <-d.gone:
			cancel()
		case <-ctx.Done():
		}
	}()
	beats, end, err := d.listen()
	if err != nil {
		return fmt.Errorf("discover: %w", err)
	}
	defer end()
	l := &loop{Discovery: d, plan: newPlan(bootid.Namespace(), hostName()), own: map[string]bool{}, answers: make(chan answer), gate: make(chan struct{}, askAtOnce)}
	defer l.wg.Wait()
	defer cancel()
	defer d.group.Stop()
	l.run(ctx, beats)
	return nil
}

func hostName() string { h, _ := os.Hostname(); return h }

// listen receives the beats of the workers of the hive, and asks for one of each.
func (d *Discovery) listen() (beats chan *nats.Msg, end func(), err error) {
	beats = make(chan *nats.Msg, 4096)
	var subs []*nats.Subscription
	end = func() {
		for _, s := range subs {
			_ = s.Unsubscribe()
		}
	}
	for _, subject := range []string{d.subjects.Workers(d.cfg.Hive), d.subjects.WorkersPinned(d.cfg.Hive)} {
		s, err := d.nc.ChanSubscribe(subject, beats)
		if err != nil {
			end()
			return nil, nil, err
		}
		subs = append(subs, s)
	}
	return beats, end, d.nc.Publish(d.subjects.WorkerRollcall(d.cfg.Hive), []byte(spread))
}

// loop is the state of Run.
type loop struct {
	*Discovery
	plan    *plan
	own     map[string]bool // ids of this process's connections to NATS
	answers chan answer
	gate    chan struct{}
	wg      sync.WaitGroup
	failed  string // why the last look failed
}

func (l *loop) run(ctx context.Context, beats <-chan *nats.Msg) {
	settled := time.NewTimer(settle)
	defer settled.Stop()
	tick := time.NewTicker(l.cfg.Every)
	defer tick.Stop()
	ready := false
	l.look(ctx)
	for {
		select {
		case <-ctx.Done():
			return
		case <-settled.C:
			ready = true
		case <-tick.C:
			l.look(ctx)
		case m := <-beats:
			if !l.hear(m) {
				continue
			}
		case a := <-l.answers:
			l.plan.asked(time.Now(), a.key, a.Found, a.err)
		case id := <-l.group.Ended():
			l.plan.ended(id)
		}
		if ready {
			l.decide()
		}
	}
}

// look scans, and asks the ports that are new.
func (l *loop) look(ctx context.Context) {
	s, err := l.cfg.scan(ctx)
	if err != nil {
		if text := err.Error(); text != l.failed && ctx.Err() == nil {
			l.failed = text
			l.cfg.Logger.Warn("cannot look for engines", slog.Any("err", err))
		}
		return
	}
	l.failed = ""
	for _, c := range l.plan.look(time.Now(), s) {
		l.wg.Go(func() {
			select {
			case l.gate <- struct{}{}:
				defer func() { <-l.gate }()
			case <-ctx.Done():
				return
			}
			found, err := probe.Detect(ctx, probe.Config{URL: c.URL})
			select {
			case l.answers <- answer{c.key, found, err}:
			case <-ctx.Done():
			}
		})
	}
}

// hear takes a beat, and reports whether it may change a decision.
func (l *loop) hear(m *nats.Msg) bool {
	if id := bus.ConnID(l.nc); id != "" {
		l.own[id] = true
	}
	b, err := wire.DecodeBeat(m.Data)
	if err != nil || l.own[b.Conn] {
		return false
	}
	l.plan.heard(time.Now(), &b)
	return true
}

// decide starts and stops engines, and logs what changed.
func (l *loop) decide() {
	var specs []engines.Spec
	for _, e := range l.plan.decide(time.Now()) {
		if e.spec == nil {
			spec, err := l.spec(e)
			if err != nil { // it has ended
				l.plan.ended(e.id)
				continue
			}
			e.spec = &spec
		}
		specs = append(specs, *e.spec)
	}
	l.group.Set(specs, l.plan.reasons())
	l.say(l.plan.findings())
}

// spec describes the engine to the sidecar.
func (d *Discovery) spec(e *entry) (engines.Spec, error) {
	cfg := sidecar.Config{
		Worker: worker.Config{Hive: d.cfg.Hive, ID: e.id, Prefix: d.cfg.Prefix, Pinned: d.cfg.Pinned, Every: d.cfg.Beat, Endpoint: e.URL, Slots: e.Slots},
		Probe:  &probe.Config{Kind: e.found.Kind, URL: e.URL},
		Logger: d.cfg.Logger,
	}
	if len(e.PIDs) > 0 {
		source, err := d.cfg.Follow(e.PIDs[0])
		if err != nil {
			return engines.Spec{}, err
		}
		cfg.Source = source
	}
	return engines.Spec{ID: e.id, Version: fmt.Sprint(e.key), Config: cfg}, nil
}

// say logs each finding that is new or another one.
func (l *loop) say(now []Finding) {
	l.mu.Lock()
	before := l.findings
	l.findings = now
	l.mu.Unlock()
	for i := range now {
		f := &now[i]
		if slices.ContainsFunc(before, func(b Finding) bool { return b == *f }) {
			continue
		}
		attrs := []any{slog.String("engine", f.Subject()), slog.String("found", f.What)}
		if f.Do != "" {
			attrs = append(attrs, slog.String("hint", f.Do))
		}
		switch {
		case f.Beats:
			l.cfg.Logger.Info("engine found", attrs...)
		case f.Trouble || f.Kind != "":
			l.cfg.Logger.Info("engine not reported", attrs...)
		default:
			l.cfg.Logger.Debug("no engine", attrs...)
		}
	}
}

// Look looks once, asks each candidate, and returns its findings. It beats for none.
func Look(ctx context.Context, cfg Config) ([]Finding, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	s, err := cfg.scan(ctx)
	if err != nil {
		return nil, err
	}
	p := newPlan(bootid.Namespace(), hostName())
	for _, c := range p.look(time.Now(), s) {
		found, err := probe.Detect(ctx, probe.Config{URL: c.URL})
		p.asked(time.Now(), c.key, found, err)
	}
	p.decide(time.Now())
	return p.findings(), ctx.Err()
}
