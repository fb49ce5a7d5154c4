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

// A nats-server stops one stream, or its JetStream, when a write fails, mostly for want of
// space, and does not begin again by itself. No answer of JetStream says so. What it says
// of a stopped stream is as ever, only that no write is acknowledged any more. And where
// its JetStream is off, requests find nobody, or in a cluster nobody who leads; but a
// server tells every client that connects whether its JetStream is on.

const (
	lookEvery  = 5 * time.Second
	lookWithin = time.Second // one connection
	lookMost   = 32          // addresses

	// Within 10 s a leader without a majority steps down or says who does not follow.
	haltedAfter  = 12 * time.Second
	haltedRecent = 15 * time.Second // no write for so long, and nothing is known
)

// unacked is for how long no write to a bucket or the stream was acknowledged.
type unacked struct{ first, last atomic.Int64 } // Unix ns; first is 0 after one was

func (u *unacked) note(now time.Time) {
	u.first.CompareAndSwap(0, now.UnixNano())
	u.last.Store(now.UnixNano())
}

func (u *unacked) end() {
	if u.first.Load() != 0 {
		u.first.Store(0)
	}
}

// halted reports whether writes are made, and none was acknowledged for long.
func (u *unacked) halted(now time.Time) bool {
	first, last := u.first.Load(), u.last.Load()
	return first != 0 && time.Duration(last-first) >= haltedAfter && now.Sub(time.Unix(0, last)) < haltedRecent
}

// keepers are the servers that keep the buckets and the stream.
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

// next returns the keepers after others were seen: one that is missing now may be known
// from before.
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

// stopped follows what servers have stopped.
type stopped struct {
	names []string  // keepers whose JetStream is off
	next  time.Time // they are not asked before
	told  string
}

// look asks the servers where JetStream does not answer, by err, or one of its keepers
// does not follow. Where all is well by that, it names what takes no writes.
func (s *stopped) look(ctx context.Context, l *Ledger, err error, tell func(string)) {
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
		for _, name := range s.names { // one that is not reached may be on its way
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
	if said != s.told && tell != nil && ctx.Err() == nil {
		s.told = said
		tell(said)
	}
}

// common returns, in order, which of some are among others.
func common(some, others []string) (both []string) {
	for _, name := range some {
		if slices.Contains(others, name) {
			both = append(both, name)
		}
	}
	slices.Sort(both)
	return both
}

// servers connects to each server that a connection knows of, and returns the names of
// those with and those without JetStream. It leaves out those that it does not reach.
func servers(ctx context.Context, nc *nats.Conn) (on, off []string) {
	known := nc.Servers()
	known = known[:min(len(known), lookMost)]
	// Servers that were heard of have the credentials, and if they are known by their IP
	// the name in the certificate, of those that nats.go was given.
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

// knock is what lets nc into a server, and none of its handlers.
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

// named returns a configuration that expects a name in the certificate.
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

// blame adds to an error where JetStream is off.
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
