// Package httpapi serves over HTTP what a queen answers over NATS: /v1/… with the types
// of queen/api, changes as server-sent events, the web page, the probes and the
// Prometheus metrics. docs/HTTP.md is its user documentation.
//
// By default the server listens on loopback. Beyond loopback it requires a token file,
// or Config.Open.
package httpapi

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/beatfabric/hivebeat/queen/api"
	"github.com/beatfabric/hivebeat/queen/httpapi/page"
)

// DefaultAddr is the default address of a Server.
const DefaultAddr = "127.0.0.1:7833"

// Errors of New and Serve, besides those of the system.
var (
	// ErrExposed means an address beyond loopback with neither a token file nor
	// Config.Open.
	ErrExposed = errors.New("an address beyond loopback requires a token file, or Open")
	// ErrToken means that the token file cannot be used.
	ErrToken = errors.New("token file")
)

// Backend answers a verb for the asker api.Anyone, because HTTP requests name no asker.
// *queen.Queen is a Backend. Answer is called concurrently. It must return by the time
// ctx ends. For VerbWatch it may block for up to the request's Wait.
type Backend interface {
	Answer(ctx context.Context, verb string, r api.Request) api.Answer
}

// Config configures a Server. The zero Config is usable.
type Config struct {
	// Addr is the address that Listen listens on. Default: DefaultAddr.
	Addr string
	// TokenFile holds the token, 16 to 512 visible ASCII characters, that every request
	// for the page, the API and the metrics must carry. The file is read for each request.
	// While it cannot be read, no such request is admitted. Default: no token is needed.
	TokenFile string
	// Open allows the server to answer beyond loopback without a token file. Default:
	// false.
	Open bool
	// Origins lists other web origins, such as https://ops.example.org, whose pages may
	// read the API from a browser. Requests on loopback may also carry the host names of
	// these origins, as requests forwarded by a proxy do. Default: none.
	Origins []string
	// Metrics answers /metrics. Default: nil, /metrics is not found.
	Metrics http.Handler
	// Page is the web page. Default: the built-in page.
	Page fs.FS
	// Ready returns, in words, further reasons why the queen is not ready, besides those
	// in its answers. It must not block. Default: nil, no further reasons.
	Ready func() []string
	// MaxStreams is the maximum number of open streams. Default: 256.
	MaxStreams int
	// Logger receives failures. Default: nil, which discards them.
	Logger *slog.Logger
}

const (
	defaultMaxStreams = 256
	askTimeout        = 5 * time.Second // as over NATS
	maxBody           = 64 << 10
)

func (c Config) withDefaults() Config {
	c.Addr = cmp.Or(c.Addr, DefaultAddr)
	c.MaxStreams = cmp.Or(c.MaxStreams, defaultMaxStreams)
	if c.Page == nil {
		c.Page = page.Files()
	}
	c.Logger = cmp.Or(c.Logger, slog.New(slog.DiscardHandler))
	return c
}

func (c Config) validate() error {
	host, port, err := net.SplitHostPort(c.Addr)
	if err != nil {
		return fmt.Errorf("httpapi: Config.Addr: %w", err)
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || strconv.FormatUint(n, 10) != port {
		return fmt.Errorf("httpapi: Config.Addr: %q is not a port", port)
	}
	if !isLoopback(host) && c.TokenFile == "" && !c.Open {
		return fmt.Errorf("httpapi: Config.Addr: %s: %w", c.Addr, ErrExposed)
	}
	if c.MaxStreams < 0 {
		return fmt.Errorf("httpapi: Config.MaxStreams: %d is negative", c.MaxStreams)
	}
	for _, o := range c.Origins {
		u, err := url.Parse(o)
		if err != nil || (u.Scheme != "http" && u.Scheme != "https") || u.Host == "" || u.User != nil || o != u.Scheme+"://"+u.Host {
			return fmt.Errorf("httpapi: Config.Origins: %q is not an origin such as https://ops.example.org", o)
		}
	}
	return nil
}

// Server answers over HTTP. Its methods are safe for concurrent use.
type Server struct {
	cfg     Config
	backend Backend
	log     *slog.Logger
	guard   *guard
	files   *files
	handler http.Handler
	counts  counts
	pace    pace

	ctx    context.Context // ends with Stop, and with it all streams
	cancel context.CancelFunc
	http   *http.Server
}

// New returns a server for backend. Errors name the field of cfg at fault, and wrap
// ErrExposed or ErrToken if that is the cause.
func New(backend Backend, cfg Config) (*Server, error) {
	if backend == nil {
		return nil, errors.New("httpapi: backend is nil")
	}
	cfg = cfg.withDefaults()
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	s := &Server{cfg: cfg, backend: backend, log: cfg.Logger, pace: defaultPace}
	s.counts.max = cfg.MaxStreams
	var err error
	if s.guard, err = newGuard(cfg); err != nil {
		return nil, err
	}
	if s.files, err = newFiles(cfg.Page); err != nil {
		return nil, fmt.Errorf("httpapi: Config.Page: %w", err)
	}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	s.handler = s.guarded(s.routes())
	s.http = &http.Server{
		Handler:           s.handler,
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       15 * time.Second,
		WriteTimeout:      30 * time.Second,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    16 << 10,
		ErrorLog:          slog.NewLogLogger(cfg.Logger.Handler(), slog.LevelDebug),
	}
	return s, nil
}

// Handler returns the handler that Serve uses, for use in another http.Server, whose
// limits and timeouts then apply. On a local address that is neither loopback nor a
// Unix socket, the handler answers only with a token or if Config.Open is set. Streams
// end with Stop.
func (s *Server) Handler() http.Handler { return s.handler }

// Listen listens on Config.Addr.
func (s *Server) Listen(ctx context.Context) (net.Listener, error) {
	ln, err := new(net.ListenConfig).Listen(ctx, "tcp", s.cfg.Addr)
	if err != nil {
		return nil, fmt.Errorf("httpapi: %w", err)
	}
	return ln, nil
}

// Serve answers the requests on ln until Stop is called or ctx ends, and then returns
// nil. It closes ln.
func (s *Server) Serve(ctx context.Context, ln net.Listener) error {
	if !s.cfg.Open && s.cfg.TokenFile == "" && !localAddr(ln.Addr()) {
		_ = ln.Close()
		return fmt.Errorf("httpapi: %s: %w", ln.Addr(), ErrExposed)
	}
	left := make(chan struct{})
	stay := context.AfterFunc(ctx, func() {
		defer close(left)
		leave, cancel := context.WithTimeout(context.WithoutCancel(ctx), askTimeout)
		defer cancel()
		_ = s.Stop(leave)
	})
	err := s.http.Serve(ln)
	if !stay() {
		<-left
	}
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return fmt.Errorf("httpapi: %w", err)
}

// Stop ends Serve in order: streams end, and requests already received are answered. It
// waits for that until ctx ends; then it closes all connections and returns the error
// of ctx. It may be called more than once, and before Serve.
func (s *Server) Stop(ctx context.Context) error {
	s.cancel()
	err := s.http.Shutdown(ctx)
	if err != nil {
		_ = s.http.Close()
		return fmt.Errorf("httpapi: stop: %w", err)
	}
	return nil
}

// isLoopback reports whether a host from an address is certainly this machine. Names
// other than localhost may belong to any machine.
func isLoopback(host string) bool {
	if host == "localhost" {
		return true
	}
	ip := net.ParseIP(host)
	return ip != nil && ip.IsLoopback()
}

// localAddr reports whether an address can be reached only from this machine.
func localAddr(a net.Addr) bool {
	switch a := a.(type) {
	case *net.TCPAddr:
		return a.IP.IsLoopback()
	case *net.UnixAddr:
		return true
	}
	return false
}
