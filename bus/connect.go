package bus

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"strconv"
	"time"

	"github.com/nats-io/nats.go"
)

// ReconnectWait is how long a connection made by Connect waits before its first attempt
// to reconnect, plus or minus half. It is the rw of the beats sent over that
// connection.
const ReconnectWait = 250 * time.Millisecond

// maxReconnectWait is the upper limit of the reconnect wait, plus or minus half. It
// stays well below the shortest default deadline (a hive's 45 s), so that a returning
// NATS is noticed long before a worker or hive is lost because of it.
const maxReconnectWait = 5 * time.Second

// Other defaults of a connection.
const (
	// A dead peer is noticed when two pings are unanswered, after 20 to 30 s: within
	// the 45 s that a snapshot is valid.
	pingInterval = 10 * time.Second
	pingsOut     = 2

	// Bounds dialling as well as each server's handshake. nats.go holds the
	// connection's lock meanwhile, so a publish may wait that long.
	connectTimeout = 4 * time.Second

	// A write to a peer that accepts nothing fails after this time.
	flusherTimeout = 10 * time.Second

	drainTimeout = 10 * time.Second
)

// Config says where NATS is and which credentials to use. The zero Config connects to
// nats://127.0.0.1:4222 without credentials.
type Config struct {
	// URL is one or more server URLs, separated by commas: nats://, tls://, ws:// or
	// wss://, or host:port. It may contain user:password@ or token@; no log and no
	// error of this package shows them. Default: the context's URL, else
	// nats://127.0.0.1:4222.
	URL string
	// Context is the name of a context of the nats CLI, or the path of a context file
	// if it ends in .json. The other fields override its values; Creds and NKey
	// override all of its credentials. Connect does not look at the environment
	// variable NATS_CONTEXT or at the context that the CLI has selected; that is up to
	// the caller.
	Context string
	// Creds is a credentials file, with a user JWT and its seed. It is read again at
	// each connect, so it may be replaced while the program runs.
	Creds string
	// NKey is a file with an nkey seed. It must not be set together with Creds.
	NKey string
	// TLSCA is a PEM file of the certificate authorities to trust. Default: the
	// system's authorities.
	TLSCA string
	// TLSCert and TLSKey are PEM files of the client's certificate. Each requires the
	// other. Both are read again at each connect.
	TLSCert string
	TLSKey  string
	// Name is the connection's name, which servers show in their monitoring and
	// advisories, such as "hivebeat worker gpu-01/llama". Default "hivebeat".
	Name string
	// Every is the shortest promise that is kept over this connection. If another
	// server is known, a server that does not answer is left before that promise is
	// broken for long (see Connect). Default 15 s.
	Every time.Duration
	// FailFast makes Connect return an error if no server can be reached now. It is for
	// commands that ask one question; without it an agent keeps trying.
	FailFast bool
	// Logger receives messages when the connection is established and lost (Info,
	// Warn), about refused credentials and permissions, and about slow consumers. nil
	// discards them.
	Logger *slog.Logger
	// Options are applied last and override everything above. A handler given here
	// replaces the one that logs.
	Options []nats.Option
}

// ConfigError is the error of a Config that cannot work, whatever NATS answers.
type ConfigError struct {
	Field string // the field of Config
	Err   error
}

func (e *ConfigError) Error() string { return "bus: Config." + e.Field + ": " + e.Err.Error() }

// Unwrap returns the cause.
func (e *ConfigError) Unwrap() error { return e.Err }

// Connect connects to NATS for an agent that runs for years. It tries to reconnect
// forever, with growing waits and jitter, even after refused credentials. It notices a
// dead peer within 30 s. A publish while NATS is away fails with
// nats.ErrReconnectBufExceeded instead of being delivered late, because an old beat is
// worse than none.
//
// If it knows two or more servers, by URL or from the cluster itself, it moves to
// another one when its server is silent for two answer times. An answer time is half of
// Config.Every, limited to 0.5 to 2 s; only time during which this process runs counts.
// It moves at most once a minute. A connection that was made in another way is never
// moved.
//
// If no server can be reached or the credentials are refused, Connect still returns a
// connection: the failure is logged, and attempts continue until the connection is
// closed. With FailFast it is an error instead, which wraps the error of nats.go. A
// *ConfigError says which field of cfg is wrong. ctx bounds only the call. The caller
// closes the connection, with Drain or nc.Close.
func Connect(ctx context.Context, cfg Config) (*nats.Conn, error) {
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("bus: connect: %w", context.Cause(ctx))
	}
	d, err := cfg.dial()
	if err != nil {
		return nil, err
	}
	cfg.Logger = cmp.Or(cfg.Logger, slog.New(slog.DiscardHandler))
	cfg.Name = cmp.Or(cfg.Name, "hivebeat")
	for _, key := range d.ignored {
		cfg.Logger.Warn("key of the context is ignored", slog.String("context", cfg.Context), slog.String("key", key))
	}
	w := &watcher{log: cfg.Logger, servers: d.shown}
	opts := []nats.Option{
		nats.Name(cfg.Name),
		nats.RetryOnFailedConnect(!cfg.FailFast),
		nats.MaxReconnects(-1),
		nats.ReconnectWait(ReconnectWait),
		nats.CustomReconnectDelay(func(attempts int) time.Duration {
			w.attempt()
			return reconnectDelay(attempts, rand.Float64())
		}),
		nats.IgnoreAuthErrorAbort(),
		nats.ReconnectBufSize(-1),
		nats.PingInterval(pingInterval),
		nats.MaxPingsOutstanding(pingsOut),
		nats.Timeout(connectTimeout),
		nats.FlusherTimeout(flusherTimeout),
		nats.DrainTimeout(drainTimeout),
	}
	opts = append(opts, w.options()...)
	opts = append(opts, d.opts...)
	opts = append(opts, cfg.Options...)
	line := new(line)
	opts = append(opts, line.option)

	type result struct {
		nc  *nats.Conn
		err error
	}
	done := make(chan result, 1)
	go func() {
		nc, err := nats.Connect(d.url, opts...)
		done <- result{nc, err}
	}()
	select {
	case r := <-done:
		if r.err != nil {
			return nil, fmt.Errorf("bus: connect to %s: %w", d.shown, r.err)
		}
		w.conn.Store(r.nc)
		line.follow(r.nc, cfg.Every, cfg.Logger)
		return r.nc, nil
	case <-ctx.Done():
		// nats.go cannot be interrupted, but its own time limits end it.
		go func() {
			if r := <-done; r.nc != nil {
				r.nc.Close()
			}
		}()
		return nil, fmt.Errorf("bus: connect to %s: %w", d.shown, context.Cause(ctx))
	}
}

// reconnectDelay returns the wait before the given attempt, which is 1 for the first.
// The wait grows by a tenth each time, up to its maximum. It is therefore at most a
// tenth of the time that NATS was away, plus ReconnectWait, so that a connection is
// back soon after a short outage. random, in [0, 1), shifts the wait by up to half, so
// that a thousand agents that lost one server do not reconnect at the same time.
func reconnectDelay(attempt int, random float64) time.Duration {
	wait := ReconnectWait
	for ; attempt > 1 && wait < maxReconnectWait; attempt-- {
		wait += wait / 10
	}
	wait = min(wait, maxReconnectWait)
	return wait/2 + time.Duration(random*float64(wait))
}

// ReconnectWaitOf returns the reconnect wait of any connection: the rw of the beats
// sent over it.
func ReconnectWaitOf(nc *nats.Conn) time.Duration { return nc.Opts.ReconnectWait }

// ConnID names the connection as NATS does in its advisories, for the conn of a beat:
// <server id>/<client id>. It is empty while nc is not connected, and changes with each
// reconnect.
func ConnID(nc *nats.Conn) string {
	server := nc.ConnectedServerId()
	if server == "" {
		return ""
	}
	client, err := nc.GetClientID()
	if err != nil {
		return ""
	}
	return server + "/" + strconv.FormatUint(client, 10)
}

// Drain closes a connection in order: it ends the subscriptions, handles the received
// messages, flushes the published ones, and closes. Drain returns when the connection
// is closed. If ctx ends first, the connection is closed at once and the error is
// ctx's. A connection that is already closed, or not connected, is closed without an
// error.
func Drain(ctx context.Context, nc *nats.Conn) error {
	// All of it runs on a goroutine: nats.go holds the connection's lock while it
	// dials, and each call below waits for that lock.
	done := make(chan error, 1)
	go func() { done <- drain(nc) }()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		go nc.Close() // this ends drain too
		return fmt.Errorf("bus: drain: %w", context.Cause(ctx))
	}
}

func drain(nc *nats.Conn) error {
	closed := nc.StatusChanged(nats.CLOSED)
	defer nc.RemoveStatusListener(closed)
	err := nc.Drain()
	switch {
	case errors.Is(err, nats.ErrConnectionClosed), errors.Is(err, nats.ErrConnectionReconnecting):
		return nil // closed now, and there was no server to drain to
	case err != nil:
		return fmt.Errorf("bus: drain: %w", err)
	}
	<-closed
	if err := nc.LastError(); errors.Is(err, nats.ErrDrainTimeout) {
		return fmt.Errorf("bus: drain: %w", err)
	}
	return nil
}
