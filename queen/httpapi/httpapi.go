// Package httpapi answers over HTTP what a queen answers over NATS: /v1/… with the
// types of queen/api, changes as they come by server-sent events, the web page,
// and what probes and Prometheus ask. docs/HTTP.md tells its users what there is.
//
// It listens on loopback unless it is told otherwise, and beyond loopback it wants
// a token, or to be told that it is open.
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

// DefaultAddr is where a Server listens by default.
const DefaultAddr = "127.0.0.1:7833"

// Errors of New and Serve, beside those of the system.
var (
	// ErrExposed: an address beyond loopback, without a token and not said to be open.
	ErrExposed = errors.New("beyond loopback it needs a token file, or to be open")
	// ErrToken: the token file can not be used.
	ErrToken = errors.New("token file")
)

// Backend answers a verb, for the asker api.Anyone: over HTTP nobody has a name.
// *queen.Queen is one. It is called from many goroutines,
// and returns no later than ctx, but for VerbWatch with Wait, where it may take as
// long as that.
type Backend interface {
	Answer(ctx context.Context, verb string, r api.Request) api.Answer
}

// Config says how a Server works. The zero Config is usable.
type Config struct {
	// Addr is where Listen listens. Default DefaultAddr.
	Addr string
	// TokenFile holds the token, 16 to 512 visible ASCII characters, that every
	// request for the page, the API and the metrics must bring. It is read again when
	// it changes; while it can not be read nobody is let in. Default: none is needed.
	TokenFile string
	// Open lets everybody in beyond loopback too. Default false.
	Open bool
	// Origins are those of other web pages that may read the API from a browser, such
	// as https://ops.example.org. Requests on loopback may also name their hosts, as
	// those that a proxy passes on do. Default none.
	Origins []string
	// Metrics answers /metrics. Default: not found.
	Metrics http.Handler
	// Page is the web page. Default: the one that is built in.
	Page fs.FS
	// Ready says in words why the queen is not ready, beside what its answers say; it
	// must not wait. Default: nothing.
	Ready func() []string
	// MaxStreams is how many may watch at once. Default 256.
	MaxStreams int
	// Logger gets what goes wrong. nil discards it.
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
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	return c
}

func (c Config) validate() error {
	host, port, err := net.SplitHostPort(c.Addr)
	if err != nil {
		return fmt.Errorf("httpapi: Config.Addr: %w", err)
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || strconv.FormatUint(n, 10) != port {
		return fmt.Errorf("httpapi: Config.Addr: %q is no port", port)
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
			return fmt.Errorf("httpapi: Config.Origins: %q is no origin such as https://ops.example.org", o)
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

	ctx    context.Context // of all requests; ends with Stop
	cancel context.CancelFunc
	http   *http.Server
}

// New returns a server for backend. Errors name the field of cfg at fault, and wrap
// ErrExposed or ErrToken where that is why.
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

// Handler answers requests as Serve does, in a server of another: of its
// http.Server the limits are its own. Where it is asked on an address that is
// neither loopback nor a Unix socket it answers only with a token, or if it is
// open. Streams end with Stop.
func (s *Server) Handler() http.Handler { return s.handler }

// Listen takes the address of the Config.
func (s *Server) Listen(ctx context.Context) (net.Listener, error) {
	ln, err := new(net.ListenConfig).Listen(ctx, "tcp", s.cfg.Addr)
	if err != nil {
		return nil, fmt.Errorf("httpapi: %w", err)
	}
	return ln, nil
}

// Serve answers what comes through ln until Stop is called or ctx ends, and returns
// nil then. It closes ln.
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

// Stop ends Serve in order: streams end, requests that came are answered. It waits
// for that until ctx ends, then closes all connections and returns its error. It
// may be called more than once, and before Serve.
func (s *Server) Stop(ctx context.Context) error {
	s.cancel()
	err := s.http.Shutdown(ctx)
	if err != nil {
		_ = s.http.Close()
		return fmt.Errorf("httpapi: stop: %w", err)
	}
	return nil
}

// isLoopback tells whether a host, as it stands in an address, is this machine
// alone. Names other than localhost may be anybody's.
func isLoopback(host string) bool {
	if host == "localhost" {
		return true
	}
	ip := net.ParseIP(host)
	return ip != nil && ip.IsLoopback()
}

// localAddr tells whether an address can be reached from this machine alone.
func localAddr(a net.Addr) bool {
	switch a := a.(type) {
	case *net.TCPAddr:
		return a.IP.IsLoopback()
	case *net.UnixAddr:
		return true
	}
	return false
}
