// Package webhook tells the fabric's events to HTTP servers: each event's
// CloudEvents JSON is posted, signed as Standard Webhooks do, and tried again until
// a 2xx answers or its time is over.
//
// With JetStream there is one durable consumer of the event stream for each URL, and
// all queens that name that URL share it: an event is told once as a rule, by any of
// them, and what waits survives their restarts. Without it a bounded queue in memory
// holds what waits, and drops what is too much.
//
//	QUEEN_EVENTS ──durable pull consumer──▶ post ──2xx──────▶ done
//	queen.events.> ──queue in memory─────▶  ▲ │ ──else──▶ later, with backoff and jitter
//	                                        └─┴──────────────┐ past GiveUp, or 410: given up, counted
//
// An event may come twice, where an acknowledgement got lost: its webhook-id, which
// is its id, tells. Events that fail wait for their next try while others go on, so
// that order is not kept: (hive_inc, n) is it.
package webhook

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/beatfabric/hivebeat"
)

// Config says whom to tell what. URLs is required; the rest may be zero.
type Config struct {
	// URLs are told every event, each for itself: http or https, at most 16. A user
	// and password in one is sent as basic authentication. What may be a secret of it
	// is in no log, error or count.
	URLs []string
	// Secrets sign, all of them: two while one is changed for another. Default: what
	// is sent is not signed.
	Secrets []Secret
	// Kinds of events to tell. Default: all.
	Kinds []hivebeat.Kind
	// Prefix of all subjects and of the stream. Default none.
	Prefix string
	// NoJetStream listens to events as they come, and keeps what waits in memory.
	NoJetStream bool
	// Parallel is how many requests to one URL may be under way at once, from this
	// process. Default 4.
	Parallel int
	// Timeout of one request, with its answer. Default 10 s.
	Timeout time.Duration
	// GiveUp is how old an event may become before it is not tried again. Default 24 h.
	GiveUp time.Duration
	// Queue is how many events wait in memory for one URL, without JetStream. Default
	// 1000.
	Queue int
	// Transport makes the requests. Default: one of its own, which takes no proxy from
	// the environment.
	Transport http.RoundTripper
	// Logger gets Warn when a URL begins to fail, Info when it goes on. nil discards it.
	Logger *slog.Logger

	backoff func(try int) time.Duration // tests hurry
}

const (
	maxURLs         = 16
	defaultParallel = 4
	defaultTimeout  = 10 * time.Second
	defaultGiveUp   = 24 * time.Hour
	defaultQueue    = 1000
	lastWords       = 2 * time.Second // how long a request that is under way may take once Stop was called
)

func (c Config) withDefaults() Config {
	c.Parallel = cmp.Or(c.Parallel, defaultParallel)
	c.Timeout = cmp.Or(c.Timeout, defaultTimeout)
	c.GiveUp = cmp.Or(c.GiveUp, defaultGiveUp)
	c.Queue = cmp.Or(c.Queue, defaultQueue)
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.backoff == nil {
		c.backoff = backoff
	}
	c.Kinds = slices.Compact(slices.Sorted(slices.Values(c.Kinds)))
	return c
}

func (c Config) validate() error {
	if len(c.URLs) == 0 || len(c.URLs) > maxURLs {
		return fmt.Errorf("webhook: Config.URLs: %d, not 1 to %d", len(c.URLs), maxURLs)
	}
	for i, s := range c.URLs {
		if _, err := parseURL(s); err != nil {
			return fmt.Errorf("webhook: Config.URLs: number %d: %w", i+1, err)
		}
		if slices.Contains(c.URLs[:i], s) {
			return fmt.Errorf("webhook: Config.URLs: number %d is there before", i+1)
		}
	}
	for _, k := range c.Kinds {
		if !slices.Contains(Kinds(), k) {
			return fmt.Errorf("webhook: Config.Kinds: %.40q is no kind of event", string(k))
		}
	}
	for _, s := range c.Secrets {
		if err := s.check(); err != nil {
			return fmt.Errorf("webhook: Config.Secrets: %w", err)
		}
	}
	switch {
	case c.Parallel < 1 || c.Parallel > 64:
		return fmt.Errorf("webhook: Config.Parallel: %d is not 1 to 64", c.Parallel)
	case c.Timeout < 0 || c.Timeout > maxTimeout:
		return fmt.Errorf("webhook: Config.Timeout: %v is not up to %v", c.Timeout, maxTimeout)
	case c.GiveUp < 0:
		return fmt.Errorf("webhook: Config.GiveUp: %v is negative", c.GiveUp)
	case c.Queue < 0:
		return fmt.Errorf("webhook: Config.Queue: %d is negative", c.Queue)
	}
	return nil
}

// Kinds lists the kinds of events there are.
func Kinds() []hivebeat.Kind {
	return []hivebeat.Kind{
		hivebeat.KindJoined, hivebeat.KindState, hivebeat.KindStalled, hivebeat.KindLooping, hivebeat.KindLate, hivebeat.KindLost, hivebeat.KindRecovered, hivebeat.KindLeft,
		hivebeat.KindRestarted, hivebeat.KindUnverified, hivebeat.KindConflict, hivebeat.KindGap, hivebeat.KindBrake,
	}
}

// parseURL reads a URL. No error quotes what could be a secret.
func parseURL(s string) (*url.URL, error) {
	u, err := url.Parse(s)
	switch {
	case err != nil:
		return nil, errors.New("not a URL (not shown: it may hold a secret)")
	case u.Scheme != "http" && u.Scheme != "https":
		return nil, errors.New("neither http:// nor https://")
	case u.Hostname() == "":
		return nil, errors.New("no host")
	case u.Fragment != "":
		return nil, errors.New("a #fragment is not sent")
	}
	return u, nil
}

// shown is what may be seen of a URL: the path and the query of many hold a secret.
func shown(u *url.URL) string { return u.Scheme + "://" + u.Host }

// nameOf is the durable consumer of a URL, or the queue group. The kinds are in it,
// so that queens told to tell others do not take events from one another.
func nameOf(u string, kinds []hivebeat.Kind) string {
	h := sha256.New()
	h.Write([]byte(u))
	for _, k := range kinds {
		h.Write([]byte("\n" + string(k)))
	}
	return "webhook_" + hex.EncodeToString(h.Sum(nil))[:20]
}

// Webhooks tells events to all its URLs. Its methods are safe for concurrent use.
type Webhooks struct {
	cfg     Config
	own     *http.Transport // nil: it is another's
	targets []*target

	mu       sync.Mutex
	begun    bool
	once     sync.Once
	stopping chan struct{}
	done     chan struct{}
}

// New returns webhooks that read from nc, which is borrowed. Errors name the field
// of cfg at fault.
func New(nc *nats.Conn, cfg Config) (*Webhooks, error) {
	if nc == nil {
		return nil, errors.New("webhook: nc is nil")
	}
	cfg = cfg.withDefaults()
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	subjects, err := hivebeat.NewSubjects(cfg.Prefix)
	if err != nil {
		return nil, fmt.Errorf("webhook: Config.Prefix: %w", err)
	}
	var own *http.Transport
	if cfg.Transport == nil {
		own = newTransport(cfg.Timeout)
		cfg.Transport = own
	}
	js, err := jetstream.New(nc, jetstream.WithDefaultTimeout(requestTimeout))
	if err != nil {
		return nil, fmt.Errorf("webhook: %w", err)
	}
	w := &Webhooks{cfg: cfg, own: own, stopping: make(chan struct{}), done: make(chan struct{})}
	for _, s := range cfg.URLs {
		u, _ := parseURL(s) // validate did
		t := &target{cfg: &w.cfg, url: u, name: nameOf(s, cfg.Kinds), poster: newPoster(&w.cfg, u)}
		t.log = cfg.Logger.With(slog.String("webhook", shown(u)), slog.String("consumer", t.name))
		if cfg.NoJetStream {
			t.source = &memory{nc: nc, subjects: subjects, t: t, wake: make(chan struct{}, 1)}
		} else {
			t.source = &stream{js: js, subjects: subjects, t: t}
		}
		w.targets = append(w.targets, t)
	}
	return w, nil
}

// Run tells events until ctx ends or Stop is called, and returns nil then. NATS or
// JetStream that is away is no error: what happened meanwhile is told once it is
// back. It works once.
func (w *Webhooks) Run(ctx context.Context) error {
	w.mu.Lock()
	if w.begun {
		w.mu.Unlock()
		return errors.New("webhook: Run was called before")
	}
	w.begun = true
	w.mu.Unlock()
	defer close(w.done)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() {
		select {
		case <-w.stopping:
			cancel()
		case <-ctx.Done():
		}
	}()
	// Requests outlive ctx by a moment: one that is answered is not sent again.
	posts, end := context.WithCancel(context.WithoutCancel(ctx))
	defer end()
	stop := context.AfterFunc(ctx, func() { time.AfterFunc(lastWords, end) })
	defer stop()
	var wg sync.WaitGroup
	for _, t := range w.targets {
		wg.Go(func() { t.run(ctx, posts) })
	}
	wg.Wait()
	if w.own != nil {
		w.own.CloseIdleConnections()
	}
	return nil
}

// Stop ends Run: requests under way may take 2 s, and what was not told waits for
// another queen or the next start. It waits for that until ctx ends, whose error it
// then returns. It may be called more than once, and before Run.
func (w *Webhooks) Stop(ctx context.Context) error {
	w.mu.Lock()
	w.once.Do(func() { close(w.stopping) })
	begun := w.begun
	w.mu.Unlock()
	if !begun {
		return nil
	}
	select {
	case <-w.done:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("webhook: stop: %w", ctx.Err())
	}
}

// Stats are the counts of one URL since New.
type Stats struct {
	Target  string // scheme and host of the URL
	Name    string // of its consumer: tells two URLs of one host apart
	Told    uint64 // events that were answered with 2xx
	Failed  uint64 // requests that were not
	GivenUp uint64 // events not tried again
	Dropped uint64 // events that were too many to wait in memory
	Waiting uint64 // events that wait in memory, or in the stream when it was asked last
	Failing bool   // the last request failed
}

// Stats returns the counts of each URL, in the order of Config.URLs.
func (w *Webhooks) Stats() []Stats {
	list := make([]Stats, 0, len(w.targets))
	for _, t := range w.targets {
		list = append(list, Stats{
			Target: shown(t.url), Name: t.name, Told: t.told.Load(), Failed: t.failed.Load(), GivenUp: t.givenUp.Load(),
			Dropped: t.dropped.Load(), Waiting: t.waiting.Load(), Failing: t.failing.Load(),
		})
	}
	return list
}

// wants reports whether events of this kind are told.
func (c *Config) wants(kind string) bool {
	return len(c.Kinds) == 0 || slices.Contains(c.Kinds, hivebeat.Kind(kind))
}

// kindOf is the last token of an event's subject.
func kindOf(subject string) string { return subject[strings.LastIndexByte(subject, '.')+1:] }
