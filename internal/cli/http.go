package cli

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"strconv"
	"strings"
	"syscall"

	"github.com/nats-io/nats.go"

	"github.com/beatfabric/hivebeat/queen"
	"github.com/beatfabric/hivebeat/queen/httpapi"
)

// HTTPFlags configure the web page and the HTTP API of a queen.
type HTTPFlags struct {
	HTTP          string   `name:"http" placeholder:"ADDR" help:"Address of the web page and the HTTP API: HOST:PORT, or off (default ${http_addr})." group:"HTTP"`
	HTTPTokenFile string   `name:"http-token-file" placeholder:"FILE" help:"File with the token that clients must send, 16 characters or more." group:"HTTP"`
	HTTPOpen      bool     `name:"http-open" help:"Allow access from other machines without a token." group:"HTTP"`
	HTTPOrigin    []string `name:"http-origin" placeholder:"URL" help:"Origin of another web page that may read the API, or of a proxy in front. May be repeated." group:"HTTP"`
}

const httpOff = "off"

// Validate checks what can be checked without a queen.
func (f *HTTPFlags) Validate() error {
	if f.HTTP == httpOff {
		return nil
	}
	_, err := httpapi.New(noQueen{}, f.config())
	return explainHTTP(err)
}

// noQueen is a backend for checks only.
type noQueen struct{ httpapi.Backend }

func (f *HTTPFlags) config() httpapi.Config {
	return httpapi.Config{Addr: f.HTTP, TokenFile: f.HTTPTokenFile, Open: f.HTTPOpen, Origins: f.HTTPOrigin}
}

// explainHTTP names the flag that is at fault.
func explainHTTP(err error) error {
	if err == nil {
		return nil
	}
	for field, flag := range map[string]string{"Addr": "--http", "TokenFile": "--http-token-file", "Origins": "--http-origin"} { //nolint:gosec // names, no secrets
		if text, ok := strings.CutPrefix(err.Error(), "httpapi: Config."+field); ok {
			err = &reworded{flag + text, err}
			break
		}
	}
	switch {
	case errors.Is(err, httpapi.ErrExposed):
		return misused(err, "protect it with --http-token-file FILE, or use --http-open to allow everyone on that network to read everything")
	case errors.Is(err, httpapi.ErrToken):
		return misused(err, "make one with: openssl rand -hex 32 > FILE")
	}
	return misused(err, "use --http HOST:PORT such as %s, or --http off; --http-origin https://ops.example.org", httpapi.DefaultAddr)
}

// web is the HTTP server of a queen. It listens already, or there is none.
type web struct {
	srv *httpapi.Server
	ln  net.Listener
	log *slog.Logger
}

// listen takes the address. If it is the default one and is in use, the queen runs without
// HTTP: two queens on one machine are not an error.
func (f *HTTPFlags) listen(ctx context.Context, q *queen.Queen, nc *nats.Conn, metrics http.Handler, log *slog.Logger) (*web, error) {
	if f.HTTP == httpOff {
		return &web{}, nil
	}
	cfg := f.config()
	cfg.Logger, cfg.Metrics = log, metrics
	cfg.Ready = func() []string {
		if nc.IsConnected() {
			return nil
		}
		return []string{"this queen is cut off from NATS"}
	}
	srv, err := httpapi.New(q, cfg)
	if err != nil {
		return nil, explainHTTP(err)
	}
	ln, err := srv.Listen(ctx)
	switch {
	case err == nil:
		w := &web{srv: srv, ln: ln, log: log}
		switch beyond := w.beyond(); {
		case beyond == "":
			log.Info("web page and HTTP API", slog.String("url", w.url()))
		case f.HTTPTokenFile != "":
			log.Info("web page and HTTP API, with a token", slog.String("url", w.url()), slog.String("listens", beyond))
		default:
			log.Warn("web page and HTTP API are open to everyone who can reach this address: --http-token-file FILE requires a token",
				slog.String("url", w.url()), slog.String("listens", beyond))
		}
		return w, nil
	case f.HTTP == "" && errors.Is(err, syscall.EADDRINUSE):
		log.Warn("no web page and no HTTP API: the default address is in use; choose another with --http ADDR, or --http off", slog.String("addr", httpapi.DefaultAddr))
		return &web{}, nil
	}
	return nil, failed(fmt.Errorf("--http: %w", errors.Unwrap(err)), "use another address with --http HOST:PORT, or --http off")
}

// url is the address of the page, or empty.
func (w *web) url() string {
	if w.ln == nil {
		return ""
	}
	addr := w.ln.Addr().String()
	if a, ok := w.ln.Addr().(*net.TCPAddr); ok && a.IP.IsUnspecified() { // not an address to connect to
		addr = net.JoinHostPort("127.0.0.1", strconv.Itoa(a.Port))
	}
	return "http://" + addr + "/"
}

// beyond is the address of the page for other machines, or empty if they cannot reach it.
func (w *web) beyond() string {
	if w.ln == nil {
		return ""
	}
	if a, ok := w.ln.Addr().(*net.TCPAddr); !ok || a.IP.IsLoopback() {
		return ""
	}
	return w.ln.Addr().String()
}

// beside returns the queen with its HTTP server, which stops first, so that pending
// requests get an answer.
func (w *web) beside(r role) role {
	if w.ln == nil {
		return r
	}
	return &accompanied{role: r, companion: w, first: true, log: w.log}
}

// Run serves until Stop.
func (w *web) Run(ctx context.Context) error { return w.srv.Serve(ctx, w.ln) }

// Stop stops the server; a second time it does nothing.
func (w *web) Stop(ctx context.Context) error { return w.srv.Stop(ctx) }
