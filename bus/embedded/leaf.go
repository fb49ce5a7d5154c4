package embedded

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
)

// Leaf configures the connection to a hub, the NATS server that this server is a leaf
// of.
type Leaf struct {
	// URL is one or more addresses of the hub's leaf node port, separated by commas:
	// nats://, tls://, ws://, wss://, or host:port. It may contain user:password@. The
	// port is 7422 if none is given.
	URL string
	// Creds is a credentials file, with a user JWT and its seed.
	Creds string
	// TLSCA is a PEM file of the certificate authorities to trust. Default: the
	// system's authorities. TLSCert and TLSKey are PEM files of a client certificate.
	// Any of the three turns TLS on, and so does tls://.
	TLSCA   string
	TLSCert string
	TLSKey  string
	// Domain is the hub's JetStream domain. With it clients of this server use the
	// hub's JetStream as if it were local, for everything that works by request:
	// reading, managing, and publishing to $JS.<domain>.API. Without it they have no
	// JetStream, because nats-server never lets JetStream through a leaf connection
	// otherwise. It must not be set together with JetStream on this server.
	Domain string
	// DenyExports are subjects, possibly with wildcards, that stay on this server even
	// if a client of the hub subscribes to them.
	DenyExports []string
}

// Defaults of a leaf: a dead hub is noticed within 30 s, as by the connections of
// package bus. With nats-server's own defaults it would take 6 minutes.
const (
	leafPing     = 10 * time.Second
	leafPingsOut = 2
)

// globalAccount is the account of a server that has none configured.
const globalAccount = "$G"

func leafError(field string, err error) error {
	return fmt.Errorf("embedded: Config.Leaf.%s: %w", field, err)
}

func (l *Leaf) apply(opts *server.Options) error {
	remote := &server.RemoteLeafOpts{Credentials: l.Creds, DenyExports: l.DenyExports}
	for s := range strings.SplitSeq(l.URL, ",") {
		u, err := leafURL(strings.TrimSpace(s))
		if err != nil {
			return leafError("URL", err)
		}
		if u.Scheme == "tls" {
			remote.TLS = true
		}
		remote.URLs = append(remote.URLs, u)
	}
	if l.Creds != "" { // the server would only log the problem, and try forever
		f, err := os.Open(l.Creds)
		if err != nil {
			return leafError("Creds", err)
		}
		f.Close()
	}
	if err := l.applyTLS(remote); err != nil {
		return err
	}
	if l.Domain != "" {
		if opts.JetStream {
			return leafError("Domain", errors.New("must not be set together with JetStream"))
		}
		opts.JsAccDefaultDomain = map[string]string{globalAccount: l.Domain}
	}
	opts.LeafNode.Remotes = append(opts.LeafNode.Remotes, remote)
	opts.PingInterval = cmp.Or(opts.PingInterval, leafPing)
	opts.MaxPingsOut = cmp.Or(opts.MaxPingsOut, leafPingsOut)
	return nil
}

// leafURL parses one address. Its errors do not show anything that may be a password.
func leafURL(s string) (*url.URL, error) {
	if s == "" {
		return nil, errors.New("no address")
	}
	if !strings.Contains(s, "://") {
		s = "nats://" + s
	}
	u, err := url.Parse(s)
	if err != nil {
		return nil, errors.New("not a URL")
	}
	switch u.Scheme {
	case "nats", "tls", "nats-leaf", "ws", "wss":
	default:
		return nil, fmt.Errorf("scheme %q is not nats, tls, ws or wss", u.Scheme)
	}
	if u.Hostname() == "" {
		return nil, errors.New("no host")
	}
	return u, nil
}

func (l *Leaf) applyTLS(remote *server.RemoteLeafOpts) error {
	if l.TLSCA == "" && l.TLSCert == "" && l.TLSKey == "" {
		return nil
	}
	cfg := &tls.Config{MinVersion: tls.VersionTLS12}
	if l.TLSCA != "" {
		pem, err := os.ReadFile(l.TLSCA)
		if err != nil {
			return leafError("TLSCA", err)
		}
		cfg.RootCAs = x509.NewCertPool()
		if !cfg.RootCAs.AppendCertsFromPEM(pem) {
			return leafError("TLSCA", fmt.Errorf("no certificate in %s", l.TLSCA))
		}
	}
	if l.TLSCert != "" || l.TLSKey != "" {
		cert, err := tls.LoadX509KeyPair(l.TLSCert, l.TLSKey)
		if err != nil {
			return leafError("TLSCert", err)
		}
		cfg.Certificates = []tls.Certificate{cert}
	}
	remote.TLS, remote.TLSConfig = true, cfg
	return nil
}

// interestWithin bounds the wait for the hub to send its subscriptions.
const interestWithin = 5 * time.Second

// WatchUplink calls changed, always from one goroutine, until ctx ends. It calls
// changed with true when the hub is connected and has sent its subscriptions, so that
// messages published from then on arrive, and with false when the connection is gone. A
// connection that returns at once is reported as false, then true. If no client of the
// hub subscribes to subject, the hub is reported as connected after 5 s. WatchUplink
// needs Config.System and returns an error if it cannot watch.
func (s *Server) WatchUplink(ctx context.Context, subject string, changed func(up bool)) error {
	nc, err := nats.Connect("", append(s.SystemOptions(), nats.Name("uplink"))...)
	if err != nil {
		return fmt.Errorf("embedded: uplink: %w", err)
	}
	defer nc.Close()
	events := make(chan *nats.Msg, 4096)
	for _, subject := range []string{"$SYS.ACCOUNT.*.CONNECT", "$SYS.ACCOUNT.*.DISCONNECT"} {
		if _, err := nc.ChanSubscribe(subject, events); err != nil {
			return fmt.Errorf("embedded: uplink: %w", err)
		}
	}
	if err := nc.FlushTimeout(interestWithin); err != nil {
		return fmt.Errorf("embedded: uplink: %w", err)
	}
	up := false
	tell := func(now bool) {
		if up != now {
			up = now
			changed(now)
		}
	}
	if s.srv.NumLeafNodes() > 0 {
		s.awaitInterest(ctx, subject, 0)
		tell(true)
	}
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-s.done:
			return nil
		case m := <-events:
			leaf, ok := leafOf(m.Data)
			switch {
			case !ok:
			case strings.HasSuffix(m.Subject, ".DISCONNECT"):
				tell(false)
			default:
				s.awaitInterest(ctx, subject, leaf)
				tell(true)
			}
		}
	}
}

// leafOf returns the id of the leaf connection that an event is about, if there is one.
func leafOf(event []byte) (id uint64, ok bool) {
	var m struct {
		Client struct {
			ID   uint64 `json:"id"`
			Kind string `json:"kind"`
		} `json:"client"`
	}
	err := json.Unmarshal(event, &m)
	return m.Client.ID, err == nil && m.Client.Kind == "Leafnode"
}

// awaitInterest waits until the hub subscribes to subject over the leaf connection with
// this id, or over any leaf connection if id is 0.
func (s *Server) awaitInterest(ctx context.Context, subject string, id uint64) {
	ctx, cancel := context.WithTimeout(ctx, interestWithin)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for !s.hubWants(subject, id) {
		select {
		case <-ctx.Done():
			return
		case <-s.done:
			return
		case <-tick.C:
		}
	}
}

func (s *Server) hubWants(subject string, id uint64) bool {
	z, err := s.srv.Leafz(&server.LeafzOptions{Subscriptions: true})
	if err != nil {
		return false
	}
	for _, leaf := range z.Leafs {
		if id != 0 && leaf.ID != id {
			continue // this connection is about to close
		}
		for _, wanted := range leaf.Subs {
			if filter, _, _ := strings.Cut(wanted, " "); server.SubjectMatchesFilter(subject, filter) {
				return true
			}
		}
	}
	return false
}
