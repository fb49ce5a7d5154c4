package bus

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"strconv"
	"time"

	"github.com/nats-io/nats.go"
)

// ReconnectWait is what a connection of Connect waits before it first tries to
// come back, give or take half of it: the rw of its beats.
const ReconnectWait = 250 * time.Millisecond

// maxReconnectWait is what the wait grows to, give or take half of it. It stays
// well below the shortest default deadline (a hive's 45 s), so that NATS coming
// back is noticed long before anybody is lost for it.
const maxReconnectWait = 5 * time.Second

// Defaults of a connection, beside the waits above.
const (
	// A peer that is dead without a word is noticed when two pings were not
	// answered, after 20 to 30 s: below the 45 s that a snapshot lives.
	pingInterval = 10 * time.Second
	pingsOut     = 2

	// Bounds dialling as well as each server's handshake. nats.go holds the
	// connection's lock meanwhile, so a publish may wait that long.
	connectTimeout = 4 * time.Second

	// A write to a peer that takes nothing fails after this.
	flusherTimeout = 10 * time.Second

	drainTimeout = 10 * time.Second
)

// Config says where NATS is and who we are there. The zero Config connects to
// nats://127.0.0.1:4222 without credentials.
type Config struct {
	// URL is one or more server URLs, separated by commas: nats://, tls://, ws://
	// or wss://, or host:port. It may hold user:password@ or token@, which no log
	// and no error of this package shows. Default: the context's, else
	// nats://127.0.0.1:4222.
	URL string
	// Context is the name of a context of the nats CLI, or the path of such a file
	// if it ends in .json. The other fields override what it says; Creds and NKey
	// override all of its credentials. The environment variable NATS_CONTEXT and
	// the context that the CLI has selected are left to the caller.
	Context string
	// Creds is a credentials file, with a user JWT and its seed. It is read again
	// at each connect, so it may be replaced while the program runs.
	Creds string
	// NKey is a file with an nkey seed. Not together with Creds.
	NKey string
	// TLSCA is a PEM file of the certificate authorities to trust. Default: the
	// system's.
	TLSCA string
	// TLSCert and TLSKey are PEM files of the client's certificate. One needs the
	// other. Both are read again at each connect.
	TLSCert string
	TLSKey  string
	// Name is the connection's name, which servers show in their monitoring and
	// advisories: "hivebeat worker gpu-01/llama". Default "hivebeat".
	Name string
	// Every is the shortest promise that is kept over this connection: where another
	// server is known, one that does not answer is left before that promise is broken
	// for long (Connect). Default 15 s.
	Every time.Duration
	// FailFast makes Connect return an error if no server can be reached now. For
	// commands that ask one question; an agent goes on trying.
	FailFast bool
	// Logger is told when the connection comes and goes (Info, Warn), of refused
	// credentials and permissions, and of slow consumers. nil discards it.
	Logger *slog.Logger
	// Options are applied last and win over everything above. A handler given here
	// replaces the one that logs.
	Options []nats.Option
}

// ConfigError is the error of a Config that can not work, whatever NATS says.
type ConfigError struct {
	Field string // of Config
	Err   error
}

func (e *ConfigError) Error() string { return "bus: Config." + e.Field + ": " + e.Err.Error() }

// Unwrap returns the cause.
func (e *ConfigError) Unwrap() error { return e.Err }

// Connect connects to NATS as an agent that lives for years needs it: it tries to
// reconnect for ever, with growing waits and jitter, also after refused
// credentials; it notices a dead peer within 30 s; and what is published while
// NATS is away fails with nats.ErrReconnectBufExceeded instead of being delivered
// late, since an old beat is worse than none.
//
// Where it knows two servers or more, by URL or from the cluster itself, it moves to
// another one when its server says nothing for twice half of Config.Every, 0.5 to 2 s
// each time, while this process runs: at most once a minute. A connection that was made
// otherwise is never moved.
//
// If no server can be reached or the credentials are refused, Connect still
// returns a connection: it is logged, and tried again until the connection is
// closed. With FailFast that is an error instead, which wraps nats.go's.
// A *ConfigError says which field of cfg is wrong. ctx bounds the call alone. The
// caller closes the connection, with Drain or nc.Close.
func Connect(ctx context.Context, cfg Config) (*nats.Conn, error) {
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("bus: connect: %w", context.Cause(ctx))
	}
	d, err := cfg.dial()
	if err != nil {
		return nil, err
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.Name == "" {
		cfg.Name = "hivebeat"
	}
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
		// nats.go can not be interrupted, but its own time limits end it.
		go func() {
			if r := <-done; r.nc != nil {
				r.nc.Close()
			}
		}()
		return nil, fmt.Errorf("bus: connect to %s: %w", d.shown, context.Cause(ctx))
	}
}

// reconnectDelay returns the wait before the given attempt, 1 for the first: it grows
// by a tenth each time up to its maximum, which is a tenth of the time that NATS was
// away and ReconnectWait, so that a connection is back soon after a short outage. And
// random, in [0, 1), moves it by up to half, so that a thousand agents that lost one
// server do not come back as one.
func reconnectDelay(attempt int, random float64) time.Duration {
	wait := ReconnectWait
	for ; attempt > 1 && wait < maxReconnectWait; attempt-- {
		wait += wait / 10
	}
	wait = min(wait, maxReconnectWait)
	return wait/2 + time.Duration(random*float64(wait))
}

// ReconnectWaitOf returns the reconnect wait of any connection: the rw of beats
// sent over it.
func ReconnectWaitOf(nc *nats.Conn) time.Duration { return nc.Opts.ReconnectWait }

// ConnID names the connection as NATS does in its advisories, for the conn of a
// beat: <server id>/<client id>. It is empty while nc is not connected, and
// another one after each reconnect.
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

// Drain ends a connection in order: its subscriptions stop, what was received is
// handled, what was published is flushed, and it closes. Drain returns when it is
// closed. If ctx ends first it is closed at once and the error is ctx's. A
// connection that is closed already, or not connected, is closed without an error.
func Drain(ctx context.Context, nc *nats.Conn) error {
	// On a goroutine as a whole: nats.go holds the connection's lock while it
	// dials, and each of these calls waits for it.
	done := make(chan error, 1)
	go func() { done <- drain(nc) }()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		go nc.Close() // which ends drain too
		return fmt.Errorf("bus: drain: %w", context.Cause(ctx))
	}
}

func drain(nc *nats.Conn) error {
	closed := nc.StatusChanged(nats.CLOSED)
	defer nc.RemoveStatusListener(closed)
	err := nc.Drain()
	switch {
	case errors.Is(err, nats.ErrConnectionClosed), errors.Is(err, nats.ErrConnectionReconnecting):
		return nil // it is closed, and there was nobody to drain to
	case err != nil:
		return fmt.Errorf("bus: drain: %w", err)
	}
	<-closed
	if err := nc.LastError(); errors.Is(err, nats.ErrDrainTimeout) {
		return fmt.Errorf("bus: drain: %w", err)
	}
	return nil
}
