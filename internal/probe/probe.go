package probe

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/beatfabric/hivebeat"
)

// Kind says how an engine is read.
type Kind string

// The kinds.
const (
	Auto       Kind = "auto"       // finds out, by [Detect]
	VLLM       Kind = "vllm"       // and what speaks its metrics
	SGLang     Kind = "sglang"     // by /v1/loads, and by /metrics where --enable-metrics is set
	LlamaCPP   Kind = "llamacpp"   // llama-server, with one model or as a router
	Ollama     Kind = "ollama"     // says which models are loaded; not how busy it is
	TRTLLM     Kind = "trtllm"     // trtllm-serve
	TGI        Kind = "tgi"        // text-generation-inference
	OpenAI     Kind = "openai"     // any server with /v1/models: only the process and the port are judged
	HTTP       Kind = "http"       // JSON, by a [Mapping]
	Prometheus Kind = "prometheus" // Prometheus text, by a [Mapping]
	TCP        Kind = "tcp"        // a port that accepts connections
)

// Kinds lists the kinds in display order.
func Kinds() []Kind {
	return []Kind{Auto, VLLM, SGLang, LlamaCPP, Ollama, TRTLLM, TGI, OpenAI, HTTP, Prometheus, TCP}
}

// Defaults of a [Config].
const (
	DefaultEvery   = 5 * time.Second
	DefaultTimeout = 4 * time.Second
)

// slowEvery is how many readings apart the facts that seldom change are read: the version, and
// the models of engines that keep their list. They are also read after each failure, so that an
// engine that restarted with another version is not described by its past.
const slowEvery = 12

// Config says which engine to read, and how. Only URL is required.
type Config struct {
	Kind Kind // default [Auto]
	// URL is the base of the engine's endpoints, http(s)://host:port[/path]. [HTTP] and
	// [Prometheus] ask for it as it stands; [TCP] takes host:port.
	URL string
	// Every is the time between two readings, [DefaultEvery] by default. The loop that calls
	// Read keeps it; here it bounds Timeout.
	Every time.Duration
	// Timeout bounds a whole reading with all its requests, [DefaultTimeout] by default, or
	// four fifths of Every if that is shorter. It is shorter than Every, so that a reading has
	// ended before the next one is due.
	Timeout time.Duration
	// TokenFile holds a bearer token. It is read before each reading, so a new token counts at once.
	TokenFile string
	// CAFile holds the PEM certificates of the authorities to trust instead of the system's.
	CAFile string
	// Insecure accepts any certificate.
	Insecure bool
	// Mapping says where the facts are, for [HTTP] and [Prometheus].
	Mapping Mapping
}

// withDefaults returns c with every default filled in.
func (c Config) withDefaults() Config {
	if c.Kind == "" {
		c.Kind = Auto
	}
	if c.Every == 0 {
		c.Every = DefaultEvery
	}
	if c.Timeout == 0 {
		c.Timeout = min(DefaultTimeout, c.Every/5*4)
	}
	return c
}

// validate checks a Config with defaults.
func (c Config) validate() error {
	switch {
	case !slices.Contains(Kinds(), c.Kind):
		return fmt.Errorf("probe: Config.Kind: %q is none of %v", c.Kind, Kinds())
	case c.Every < hivebeat.MinEvery || c.Every > hivebeat.MaxEvery:
		return fmt.Errorf("probe: Config.Every: %s is not between %s and %s", c.Every, hivebeat.MinEvery, hivebeat.MaxEvery)
	case c.Timeout <= 0 || c.Timeout >= c.Every:
		return fmt.Errorf("probe: Config.Timeout: %s must be above 0, and below Every, which is %s", c.Timeout, c.Every)
	}
	if c.Kind == TCP {
		host, port, err := net.SplitHostPort(c.URL)
		if err != nil || host == "" || port == "" {
			return fmt.Errorf("probe: Config.URL: %q is not host:port, which kind tcp needs", c.URL)
		}
		return nil
	}
	u, err := url.Parse(c.URL)
	switch {
	case err != nil: // the error of url.Parse speaks of path segments and colons
		return fmt.Errorf("probe: Config.URL: %q is not http(s)://host:port", c.URL)
	case u.User != nil: // the text of u may have a password
		return errors.New("probe: Config.URL: has a user or password, which logs would show: use TokenFile")
	case u.Scheme != "http" && u.Scheme != "https" || u.Host == "":
		return fmt.Errorf("probe: Config.URL: %q is not http(s)://host:port", c.URL)
	case c.Kind != HTTP && c.Kind != Prometheus && (u.RawQuery != "" || u.Fragment != ""):
		return fmt.Errorf("probe: Config.URL: %q has a query, which the base of endpoints cannot have", c.URL)
	}
	if c.Kind != HTTP && c.Kind != Prometheus {
		if c.Mapping != (Mapping{}) {
			return fmt.Errorf("probe: Config.Mapping: kind %s needs none", c.Kind)
		}
		return nil
	}
	return c.Mapping.validate(c.Kind)
}

// Prober reads one engine. Its methods may be called from any goroutine; readings are taken one
// at a time.
type Prober struct {
	cfg    Config
	base   string // what the path of a request is appended to
	client *http.Client

	turn chan struct{} // holds a value while a reading runs; guards the fields below
	kind atomic.Value  // Kind: what the engine is, or Auto
	slow slowFacts
	due  int // readings until the slow facts are read again
	miss map[string]bool

	readings, failed, requests, bad atomic.Uint64
}

// slowFacts are the facts of the last reading that asked for them.
type slowFacts struct {
	version string
	models  []Model
	context *uint64
	slots   *uint64
	kvCap   *uint64
}

// New returns a Prober for the engine of cfg. It opens no connection.
func New(cfg Config) (*Prober, error) {
	cfg = cfg.withDefaults()
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	trust := &tls.Config{InsecureSkipVerify: cfg.Insecure, MinVersion: tls.VersionTLS12} //nolint:gosec // the operator asked for it
	if cfg.CAFile != "" {
		pem, err := os.ReadFile(cfg.CAFile)
		if err != nil {
			return nil, fmt.Errorf("probe: Config.CAFile: %w", err)
		}
		trust.RootCAs = x509.NewCertPool()
		if !trust.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("probe: Config.CAFile: %s has no PEM certificate", cfg.CAFile)
		}
	}
	p := &Prober{
		cfg:  cfg,
		base: baseOf(cfg.Kind, cfg.URL),
		turn: make(chan struct{}, 1),
		miss: make(map[string]bool),
		client: &http.Client{
			CheckRedirect: sameHost,
			Transport: &http.Transport{
				// No proxy: an engine is asked where it is, and environments name proxies for other reasons.
				TLSClientConfig:        trust,
				MaxConnsPerHost:        1,
				MaxIdleConnsPerHost:    1,
				IdleConnTimeout:        90 * time.Second,
				DisableCompression:     true, // the engine would compress on the cores that serve requests
				MaxResponseHeaderBytes: 64 << 10,
				ReadBufferSize:         4 << 10,
				WriteBufferSize:        1 << 10,
			},
		},
	}
	if cfg.Kind != HTTP && cfg.Kind != Prometheus {
		p.base = baseOf(cfg.Kind, cfg.URL)
	}
	p.kind.Store(cfg.Kind)
	return p, nil
}

// baseOf returns the base of an engine's endpoints. People copy the one that clients of OpenAI's
// API are given, which ends with /v1.
func baseOf(kind Kind, url string) string {
	url = strings.TrimRight(url, "/")
	if kind == HTTP || kind == Prometheus || kind == TCP {
		return url
	}
	return strings.TrimRight(strings.TrimSuffix(url, "/v1"), "/")
}

// Read takes one reading. An engine that answers with 503 and says that it loads is read, not
// failed: its state is loading. Read returns the error of ctx if ctx ends first.
func (p *Prober) Read(ctx context.Context) (Reading, error) {
	select {
	case p.turn <- struct{}{}:
		defer func() { <-p.turn }()
	case <-ctx.Done():
		return Reading{}, ctx.Err()
	}
	p.readings.Add(1)
	r, err := p.read(ctx)
	if err != nil && ctx.Err() == nil {
		r, err = loading(p.Kind(), err)
	}
	if err != nil {
		p.failed.Add(1)
		p.due = 0
		clear(p.miss)
		if p.cfg.Kind == Auto && errors.Is(err, ErrAnswer) {
			p.kind.Store(Auto) // another engine may have taken the port
		}
		return Reading{}, err
	}
	if r.State == hivebeat.Loading {
		p.due = 0
	}
	return clean(r), nil
}

// readers has the reader of each kind but Auto and TCP.
var readers = map[Kind]func(*ask, *Reading) error{
	VLLM: (*ask).vllm, SGLang: (*ask).sglang, LlamaCPP: (*ask).llamacpp, Ollama: (*ask).ollama,
	TRTLLM: (*ask).trtllm, TGI: (*ask).tgi, OpenAI: (*ask).openai, HTTP: (*ask).json, Prometheus: (*ask).prometheus,
}

func (p *Prober) read(ctx context.Context) (Reading, error) {
	limited, cancel := context.WithTimeout(ctx, p.cfg.Timeout)
	defer cancel()
	if p.cfg.Kind == TCP {
		return p.dial(ctx, limited)
	}
	a, err := p.ask(ctx, limited)
	if err != nil {
		return Reading{}, err
	}
	if p.Kind() == Auto {
		found, err := a.detect()
		if err != nil {
			return Reading{}, err
		}
		p.kind.Store(found.Kind)
		p.due = 0
	}
	a.slow = p.due == 0
	r := Reading{Engine: string(p.Kind())}
	if a.slow {
		p.slow = slowFacts{}
		clear(p.miss)
	}
	if err := readers[p.Kind()](a, &r); err != nil {
		return Reading{}, err
	}
	p.due--
	if a.slow {
		p.due = slowEvery - 1
	}
	if r.State == "" {
		r.State = hivebeat.Ready
		if r.Busy != nil && *r.Busy > 0 {
			r.State = hivebeat.Busy
		}
	}
	return r, nil
}

// dial reads a port that is only known to accept connections.
func (p *Prober) dial(ctx, limited context.Context) (Reading, error) {
	p.requests.Add(1)
	var d net.Dialer
	c, err := d.DialContext(limited, "tcp", p.cfg.URL)
	if err != nil {
		return Reading{}, classify(ctx, err)
	}
	c.Close()
	return Reading{State: hivebeat.Ready}, nil
}

// Kind returns the kind of the engine: what the Config says, or under [Auto] what the last
// reading found, and [Auto] before that.
func (p *Prober) Kind() Kind { return p.kind.Load().(Kind) }

// Stats returns what the Prober did so far.
func (p *Prober) Stats() Stats {
	return Stats{Readings: p.readings.Load(), Failed: p.failed.Load(), Requests: p.requests.Load(), BadValues: p.bad.Load()}
}

// Close closes the idle connection. A Prober that is read again opens a new one.
func (p *Prober) Close() { p.client.CloseIdleConnections() }
