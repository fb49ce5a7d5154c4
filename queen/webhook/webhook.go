// Package webhook posts the fabric's events to HTTP servers. Each event is sent as
// CloudEvents JSON, signed according to Standard Webhooks, and retried until it is
// answered with 2xx or is too old.
//
// With JetStream there is one durable consumer of the event stream per URL, shared by
// all queens configured with that URL. Normally each event is posted once, by any of
// these queens, and waiting events survive their restarts. Without JetStream, waiting
// events are in a bounded queue in memory; events that do not fit are dropped.
//
//	QUEEN_EVENTS ──durable pull consumer──▶ post ──2xx──────▶ done
//	queen.events.> ──queue in memory─────▶  ▲ │ ──else──▶ later, with backoff and jitter
//	                                        └─┴──────────────┐ past GiveUp, or 410: given up, counted
//
// An event may be posted twice if an acknowledgement is lost. Its webhook-id, which is
// the event's id, shows that. An event that fails waits for its next try while others
// are posted, so the order of arrival is not the order of events; use (hive_inc, n) for
// that.
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

// Config says which events go where. URLs is required; the other fields may be zero.
type Config struct {
	// URLs each receive every event: http or https, at most 16. A user and password in a
	// URL is sent as basic authentication. Logs, errors and counts never show the parts of
	// a URL that may be secret.
	URLs []string
	// Secrets sign every request, all of them. Use two while you replace one by another.
	// Default: requests are not signed.
	Secrets []Secret
	// Kinds of events to post. Default: all.
	Kinds []hivebeat.Kind
	// Prefix of all subjects and of the stream. Default: none.
	Prefix string
	// NoJetStream makes Webhooks listen to events as they are published, and keep waiting
	// events in memory. Default: false.
	NoJetStream bool
	// Parallel is how many requests from this process to one URL may be under way at once.
	// Default: 4.
	Parallel int
	// Timeout of one request, including its answer. Default: 10 s.
	Timeout time.Duration
	// GiveUp is the maximum age of an event that is retried. Default: 24 h.
	GiveUp time.Duration
	// Queue is how many events may wait in memory for one URL, without JetStream. Default:
	// 1000.
	Queue int
	// Transport sends the requests. Default: a private one that takes no proxy from the
	// environment.
	Transport http.RoundTripper
	// Logger receives Warn when a URL begins to fail, and Info when it recovers. Default:
	// nil, which discards them.
	Logger *slog.Logger

	backoff func(try int) time.Duration // shortened in tests
}

const (
	maxURLs         = 16
	defaultParallel = 4
	defaultTimeout  = 10 * time.Second
	defaultGiveUp   = 24 * time.Hour
	defaultQueue    = 1000
	lastWords       = 2 * time.Second // how long a request under way may take after Stop was called
)

func (c Config) withDefaults() Config {
	c.Parallel = cmp.Or(c.Parallel, defaultParallel)
	c.Timeout = cmp.Or(c.Timeout, defaultTimeout)
	c.GiveUp = cmp.Or(c.GiveUp, defaultGiveUp)
	c.Queue = cmp.Or(c.Queue, defaultQueue)
	c.Logger = cmp.Or(c.Logger, slog.New(slog.DiscardHandler))
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
			return fmt.Errorf("webhook: Config.URLs: number %d is a duplicate", i+1)
		}
	}
	for _, k := range c.Kinds {
		if !slices.Contains(Kinds(), k) {
			return fmt.Errorf("webhook: Config.Kinds: %.40q is not a kind of event", string(k))
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
		return fmt.Errorf("webhook: Config.Timeout: %v is not within 0 to %v", c.Timeout, maxTimeout)
	case c.GiveUp < 0:
		return fmt.Errorf("webhook: Config.GiveUp: %v is negative", c.GiveUp)
	case c.Queue < 0:
		return fmt.Errorf("webhook: Config.Queue: %d is negative", c.Queue)
	}
	return nil
}

// Kinds returns all kinds of events.
func Kinds() []hivebeat.Kind {
	return []hivebeat.Kind{
		hivebeat.KindJoined, hivebeat.KindState, hivebeat.KindStalled, hivebeat.KindLooping, hivebeat.KindLate, hivebeat.KindLost, hivebeat.KindRecovered, hivebeat.KindLeft,
		hivebeat.KindRestarted, hivebeat.KindUnverified, hivebeat.KindConflict, hivebeat.KindGap, hivebeat.KindBrake,
		hivebeat.KindGPULost, hivebeat.KindGPUFailing, hivebeat.KindGPUDegraded, hivebeat.KindGPURecovered, hivebeat.KindGPUOrphan, hivebeat.KindGPUForgotten,
		hivebeat.KindForgotten, hivebeat.KindDrained, hivebeat.KindUndrained, hivebeat.KindSilenced, hivebeat.KindUnsilenced,
	}
}

// parseURL parses a URL. No error quotes a part that may be secret.
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

// shown returns the part of a URL that may be shown: the path and the query often hold
// a secret.
func shown(u *url.URL) string { return u.Scheme + "://" + u.Host }

// nameOf returns the name of the durable consumer of a URL, or of its queue group. The
// name depends on the kinds, so that queens configured with other kinds do not take
// events from one another.
func nameOf(u string, kinds []hivebeat.Kind) string {
	h := sha256.New()
	h.Write([]byte(u))
	for _, k := range kinds {
		h.Write([]byte("\n" + string(k)))
	}
	return "webhook_" + hex.EncodeToString(h.Sum(nil))[:20]
}

// Webhooks posts events to all its URLs. Its methods are safe for concurrent use.
type Webhooks struct {
	cfg     Config
	own     *http.Transport // nil if Config.Transport was set
	targets []*target

	mu       sync.Mutex
	begun    bool
	once     sync.Once
	stopping chan struct{}
	done     chan struct{}
}

// New returns webhooks that read from nc. The connection is borrowed. Errors name the
// field of cfg at fault.
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
		u, _ := parseURL(s) // validate has parsed it
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

// Run posts events until ctx ends or Stop is called, and then returns nil. It is no
// error if NATS or JetStream is unavailable: the events that happen meanwhile are
// posted once it is back. Run can be called once.
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
	// Requests outlive ctx for a moment, because one that is answered need not be sent
	// again.
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

// Stop ends Run: requests under way may take 2 s more, and events not yet posted wait
// for another queen or the next start. Stop waits for that until ctx ends, and then
// returns the error of ctx. It may be called more than once, and before Run.
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
	Name    string // name of its consumer, which differs between two URLs of one host
	Told    uint64 // events answered with 2xx
	Failed  uint64 // requests not answered with 2xx
	GivenUp uint64 // events no longer retried
	Dropped uint64 // events that did not fit into the queue in memory
	Waiting uint64 // events that wait in memory, or that waited in the stream at the last pull
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

// wants reports whether events of this kind are posted.
func (c *Config) wants(kind string) bool {
	return len(c.Kinds) == 0 || slices.Contains(c.Kinds, hivebeat.Kind(kind))
}

// kindOf returns the last token of an event's subject.
func kindOf(subject string) string { return subject[strings.LastIndexByte(subject, '.')+1:] }
