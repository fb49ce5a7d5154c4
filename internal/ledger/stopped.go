package ledger

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// A nats-server stops one stream, or its JetStream, when a write fails, mostly for lack of
// space, and does not resume by itself. No answer of JetStream says so. A stopped stream
// looks as before, except that no write is acknowledged. If JetStream is off at a server,
// requests find no responder, or in a cluster no leader. But a server informs every client
// that connects whether its JetStream is on.

const (
	lookEvery  = 5 * time.Second
	lookWithin = time.Second // one connection
	lookMost   = 32          // addresses

	// Within 10 s, a leader without a majority steps down or reports which servers do not
	// follow.
	haltedAfter  = 12 * time.Second
	haltedRecent = 15 * time.Second // without a write for this time, nothing is known
)

// unacked tracks how long no write to a bucket or the stream has been acknowledged.
type unacked struct{ first, last atomic.Int64 } // Unix ns; first is 0 after an acknowledged write

func (u *unacked) note(now time.Time) {
	u.first.CompareAndSwap(0, now.UnixNano())
	u.last.Store(now.UnixNano())
}

func (u *unacked) end() {
	if u.first.Load() != 0 {
		u.first.Store(0)
	}
}

// halted reports whether writes are attempted and none was acknowledged for haltedAfter.
func (u *unacked) halted(now time.Time) bool {
	first, last := u.first.Load(), u.last.Load()
	return first != 0 && time.Duration(last-first) >= haltedAfter && now.Sub(time.Unix(0, last)) < haltedRecent
}

// keepers are the servers that store the buckets and the stream.
type keepers struct {
	names []string
	short bool // one of them is missing, or does not follow
}

func (k *keepers) add(info *jetstream.ClusterInfo, replicas int) {
	if info == nil {
		return
	}
	names, follow := []string{info.Leader}, 1
	for _, r := range info.Replicas {
		names = append(names, r.Name)
		if r.Current && !r.Offline {
			follow++
		}
	}
	k.short = k.short || follow < replicas
	for _, name := range names {
		if name != "" && !slices.Contains(k.names, name) {
			k.names = append(k.names, name)
		}
	}
}

// next returns the keepers after seen was observed. A server that is missing from seen may
// be known from before.
func (k keepers) next(seen keepers) keepers {
	if seen.short {
		for _, name := range k.names {
			if !slices.Contains(seen.names, name) {
				seen.names = append(seen.names, name)
			}
		}
	}
	return seen
}

// stopped tracks the servers whose JetStream is off.
type stopped struct {
	names    []string  // keepers whose JetStream is off
	next     time.Time // the servers are not asked before this
	reported string
}

// look asks the servers if JetStream does not answer (err), or if one of its keepers does
// not follow. If neither is the case, it names the buckets and streams that take no writes.
// It calls report when the result changes.
func (s *stopped) look(ctx context.Context, l *Ledger, err error, report func(string)) {
	l.mu.Lock()
	k := l.keepers
	l.mu.Unlock()
	var names, halted []string
	switch now := time.Now(); {
	case err == nil && !k.short:
		for i, want := range l.layout() {
			if l.unacked[i].halted(now) {
				halted = append(halted, human(want.Name))
			}
		}
	case err != nil && !errors.Is(err, ErrAway), !l.nc.IsConnected(), now.Before(s.next):
		return
	default:
		s.next = now.Add(lookEvery)
		on, off := servers(ctx, l.nc)
		for _, name := range s.names { // a server that was not reached may be starting
			if !slices.Contains(on, name) {
				off = append(off, name)
			}
		}
		names = common(k.names, off)
	}
	s.names = names
	said := ""
	switch {
	case len(names) > 0:
		said = "JetStream is off at " + strings.Join(names, ", ")
	case len(halted) > 0:
		said = "no write is acknowledged by the " + strings.Join(halted, ", ")
	}
	if said != s.reported && report != nil && ctx.Err() == nil {
		s.reported = said
		report(said)
	}
}

// common returns the elements of some that are also among others, sorted.
func common(some, others []string) (both []string) {
	for _, name := range some {
		if slices.Contains(others, name) {
			both = append(both, name)
		}
	}
	slices.Sort(both)
	return both
}

// servers connects to each server that the connection knows. It returns the names of the
// servers with JetStream and of those without, and leaves out servers that it does not
// reach.
func servers(ctx context.Context, nc *nats.Conn) (on, off []string) {
	known := nc.Servers()
	known = known[:min(len(known), lookMost)]
	// Discovered servers share the credentials of the servers that nats.go was given. If
	// they are known by their IP, they also share the name in the certificate.
	var user *url.Userinfo
	if u, err := url.Parse(nc.ConnectedUrl()); err == nil {
		user = u.User
	}
	host := ""
	for _, raw := range known {
		if u, err := url.Parse(raw); err == nil && host == "" && net.ParseIP(u.Hostname()) == nil {
			host = u.Hostname()
		}
	}
	var wg sync.WaitGroup
	var mu sync.Mutex
	for _, raw := range known {
		u, err := url.Parse(raw)
		if err != nil || ctx.Err() != nil {
			continue
		}
		opts := knock(nc)
		if u.User = user; host != "" && net.ParseIP(u.Hostname()) != nil {
			opts.TLSConfig = named(opts.TLSConfig, host)
		}
		opts.Url = u.String()
		wg.Go(func() {
			c, err := opts.Connect()
			if err != nil {
				return
			}
			defer c.Close()
			name := c.ConnectedServerName()
			has, _ := c.ConnectedServerJetStream()
			mu.Lock()
			defer mu.Unlock()
			list := &off
			if has {
				list = &on
			}
			if !slices.Contains(*list, name) { // a server may have several addresses
				*list = append(*list, name)
			}
		})
	}
	wg.Wait()
	slices.Sort(on)
	slices.Sort(off)
	return on, off
}

// knock returns the options that let nc into a server, without its handlers.
func knock(nc *nats.Conn) nats.Options {
	o := &nc.Opts
	return nats.Options{
		Name: "hivebeat: is JetStream on?", Timeout: lookWithin, IgnoreDiscoveredServers: true,
		CustomDialer: o.CustomDialer, InProcessServer: o.InProcessServer, SkipHostLookup: o.SkipHostLookup,
		ProxyPath: o.ProxyPath, WebSocketConnectionHeaders: o.WebSocketConnectionHeaders, WebSocketConnectionHeadersHandler: o.WebSocketConnectionHeadersHandler,
		TLSConfig: o.TLSConfig, TLSCertCB: o.TLSCertCB, RootCAsCB: o.RootCAsCB, TLSHandshakeFirst: o.TLSHandshakeFirst, Secure: o.TLSHandshakeFirst,
		User: o.User, Password: o.Password, UserInfo: o.UserInfo, Token: o.Token, TokenHandler: o.TokenHandler,
		Nkey: o.Nkey, UserJWT: o.UserJWT, SignatureCB: o.SignatureCB,
	}
}

// named returns a TLS configuration that expects host in the certificate.
func named(cfg *tls.Config, host string) *tls.Config {
	if cfg == nil {
		cfg = &tls.Config{MinVersion: tls.VersionTLS12}
	}
	if cfg.ServerName != "" {
		return cfg
	}
	cfg = cfg.Clone()
	cfg.ServerName = host
	return cfg
}

// blame adds to err the servers where JetStream is off.
func blame(ctx context.Context, nc *nats.Conn, err error) error {
	if !errors.Is(err, ErrAway) && !errors.Is(err, ErrNoJetStream) || !nc.IsConnected() {
		return err
	}
	switch on, off := servers(ctx, nc); {
	case len(off) == 0:
		return err
	case len(on) == 0:
		return fmt.Errorf("%w (JetStream is off at %s)", err, strings.Join(off, ", "))
	default:
		return fmt.Errorf("%w (JetStream is off at %s, and on at %s)", err, strings.Join(off, ", "), strings.Join(on, ", "))
	}
}
