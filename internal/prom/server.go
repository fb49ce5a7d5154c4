package prom

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"sync"
	"time"
)

// ErrExposed reports an address beyond loopback without ServerConfig.Open.
var ErrExposed = errors.New("an address beyond loopback must be opened explicitly")

// ServerConfig configures a Server. Addr is required.
type ServerConfig struct {
	Addr   string       // HOST:PORT
	Open   bool         // allows addresses beyond loopback; there is neither a token nor encryption. Default false
	Logger *slog.Logger // nil discards
}

// Server serves metrics at /metrics, and nothing else. Its methods are safe for
// concurrent use, in every order.
type Server struct {
	cfg  ServerConfig
	http *http.Server

	mu sync.Mutex
	ln net.Listener
}

// NewServer returns a server of h. An error wraps ErrExposed if the address needs Open.
func NewServer(h http.Handler, cfg ServerConfig) (*Server, error) {
	host, port, err := net.SplitHostPort(cfg.Addr)
	if err != nil {
		return nil, fmt.Errorf("metrics: %w", err)
	}
	if _, err := strconv.ParseUint(port, 10, 16); err != nil {
		return nil, fmt.Errorf("metrics: %q is not a port", port)
	}
	if !cfg.Open && !loopback(host) {
		return nil, fmt.Errorf("metrics: %s: %w", cfg.Addr, ErrExposed)
	}
	cfg.Logger = cmp.Or(cfg.Logger, slog.New(slog.DiscardHandler))
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", h)
	return &Server{cfg: cfg, http: &http.Server{
		Handler:           known(mux, cfg.Open),
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       10 * time.Second,
		WriteTimeout:      30 * time.Second,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    16 << 10,
		ErrorLog:          slog.NewLogLogger(cfg.Logger.Handler(), slog.LevelDebug),
	}}, nil
}

func loopback(host string) bool {
	if host == "localhost" {
		return true
	}
	ip, err := netip.ParseAddr(host)
	return err == nil && ip.Unmap().IsLoopback()
}

// known refuses requests for foreign host names, unless open. A web page can point its
// own name at this machine, and would otherwise read what is only for this machine.
func known(next http.Handler, open bool) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		host, _, err := net.SplitHostPort(r.Host)
		if err != nil {
			host = r.Host
		}
		if !open && !loopback(host) {
			http.Error(w, "not under this host name", http.StatusForbidden)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// Listen opens the listener and returns its address. Port 0 picks a free port.
func (s *Server) Listen(ctx context.Context) (net.Addr, error) {
	ln, err := new(net.ListenConfig).Listen(ctx, "tcp", s.cfg.Addr)
	if err != nil {
		return nil, fmt.Errorf("metrics: %w", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ln = ln
	return ln.Addr(), nil
}

// Run serves until Stop, and then returns nil. Listen must come first.
func (s *Server) Run(context.Context) error {
	s.mu.Lock()
	ln := s.ln
	s.mu.Unlock()
	if ln == nil {
		return errors.New("metrics: Listen was not called")
	}
	if err := s.http.Serve(ln); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("metrics: %w", err)
	}
	return nil
}

// Stop ends Run. Scrapes in progress complete, unless ctx ends first.
func (s *Server) Stop(ctx context.Context) error {
	err := s.http.Shutdown(ctx)
	if err != nil {
		_ = s.http.Close()
		err = fmt.Errorf("metrics: stop: %w", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ln != nil {
		_ = s.ln.Close() // it may never have run
	}
	return err
}
