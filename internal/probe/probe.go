package probe

import (
	"context"
	"time"
)

// Kind says how an engine is read.
type Kind string

// The kinds.
const (
	Auto       Kind = "auto"     // finds out, by [Detect]
	VLLM       Kind = "vllm"     // and what speaks its metrics
	SGLang     Kind = "sglang"   //
	LlamaCPP   Kind = "llamacpp" // llama-server, with one model or as a router
	Ollama     Kind = "ollama"   //
	TRTLLM     Kind = "trtllm"   // trtllm-serve
	TGI        Kind = "tgi"      //
	OpenAI     Kind = "openai"   // any server with /v1/models: only the process and the port are judged
	HTTP       Kind = "http"     // JSON, by a [Mapping]
	Prometheus Kind = "prometheus"
	TCP        Kind = "tcp" // a port that accepts connections
)

// Kinds lists the kinds in the order in which a page shows them.
func Kinds() []Kind {
	return []Kind{Auto, VLLM, SGLang, LlamaCPP, Ollama, TRTLLM, TGI, OpenAI, HTTP, Prometheus, TCP}
}

// Defaults and limits of a [Config].
const (
	DefaultEvery   = 5 * time.Second
	DefaultTimeout = 4 * time.Second
)

// Config says which engine to read, and how. Only URL is required.
type Config struct {
	Kind Kind // default [Auto]
	// URL is the base of the engine's endpoints, http(s)://host:port[/path]. [HTTP] and
	// [Prometheus] ask for it as it stands; [TCP] takes host:port.
	URL string
	// Every is the time between two readings, [DefaultEvery] by default.
	Every time.Duration
	// Timeout bounds a whole reading with all its requests, [DefaultTimeout] by default, or
	// four fifths of Every if that is shorter. It is shorter than Every, so that a reading has
	// ended before the next is due.
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

// Mapping says where each fact is in an answer: for [HTTP] a path such as data.0.status, for
// [Prometheus] a metric with optional matchers, such as queue{engine="0"}, whose matching series
// are summed (of KV the highest counts). An empty entry is a fact that the answer does not have.
type Mapping struct {
	State, Model, Version            string
	Slots, Busy, Queue, Done, Tokens string
	KV, KVCap, Context               string
}

// Prober reads one engine. Its methods may be called from any goroutine; readings are taken one
// at a time.
type Prober struct {
	cfg Config
}

// New returns a Prober for the engine of cfg. It opens no connection.
func New(cfg Config) (*Prober, error) { return &Prober{cfg: cfg}, nil }

// Read takes one reading.
func (p *Prober) Read(ctx context.Context) (Reading, error) { return Reading{}, ctx.Err() }

// Kind returns the kind of the engine: what the Config says, or under [Auto] what the last
// reading found, and [Auto] before that.
func (p *Prober) Kind() Kind { return p.cfg.Kind }

// Stats returns what the Prober did so far.
func (p *Prober) Stats() Stats { return Stats{} }

// Close closes the idle connections.
func (p *Prober) Close() {}

// Found is the result of [Detect].
type Found struct {
	Kind     Kind
	Version  string
	Evidence string // why, for people: "/props has build_info b4567"
}

// Detect finds out which engine answers at cfg.URL; it ignores cfg.Kind and cfg.Mapping. An error
// is that of the first request, if nothing answers there; [ErrAnswer] if no known engine does.
func Detect(ctx context.Context, cfg Config) (Found, error) { return Found{}, ctx.Err() }
