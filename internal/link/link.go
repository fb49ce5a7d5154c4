// Package link connects a core.Hearing to NATS. It follows the status of a connection,
// sends the tokens with which an observer tests itself, and listens in the system account
// for connections that close. Hive and queen have one each.
package link

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/beatfabric/hivebeat/internal/core"
	"github.com/beatfabric/hivebeat/internal/liveness"
)

// pendingClosings is how many advisories may wait. NATS drops any beyond; the workers
// and hives concerned are then lost by silence.
const pendingClosings = 4096

// Link is the outside of a core.Hearing. Use Open.
type Link struct {
	nc, sys *nats.Conn
	log     *slog.Logger
	events  chan Event
	look    chan struct{}

	status, sysStatus chan nats.Status
	closings          chan *nats.Msg
	sub               *nats.Subscription
	flying            sync.WaitGroup // tokens and requests that are under way
}

// Core is the part of a role's core that a Link feeds. Each method is an input of the
// core.
type Core interface {
	// Connection handles the state of the connection.
	Connection(now time.Time, c core.Connection)
	// TokenBack hands back a token. dropped counts all messages dropped so far.
	TokenBack(now time.Time, token, dropped uint64)
	// Closed handles a connection that closed.
	Closed(now time.Time, d liveness.Disconnect)
	// Settled answers Signals.Settle. by is the path of the token that returned.
	Settled(now time.Time, by liveness.Path)
	// System handles the state of the connection to the system account.
	System(now time.Time, up bool)
	// Located handles the client address of a connection, after Link.Locate.
	Located(now time.Time, conn, addr string)
}

// Event is an input for a Core.
type Event struct {
	kind  kind
	conn  core.Connection
	token uint64
	d     liveness.Disconnect
	path  liveness.Path
	up    bool
	addr  [2]string // a connection, and its client address
}

type kind uint8

const (
	connection kind = iota
	tokenBack
	closed
	settled
	system
	located
)

// Open starts to listen; Close ends that. Open borrows nc and sys: it never closes
// them, and leaves their handlers alone. sys may be nil; then closed connections are
// not reported. Open fails only if it cannot subscribe.
func Open(nc, sys *nats.Conn, log *slog.Logger) (*Link, error) {
	l := &Link{nc: nc, sys: sys, log: log, events: make(chan Event), look: make(chan struct{}, 1)}
	if sys != nil {
		l.closings = make(chan *nats.Msg, pendingClosings)
		l.sysStatus = sys.StatusChanged()
		var err error
		if l.sub, err = sys.ChanSubscribe(DisconnectSubject, l.closings); err != nil {
			sys.RemoveStatusListener(l.sysStatus)
			return nil, fmt.Errorf("Config.System: subscribe to %s: %w", DisconnectSubject, err)
		}
		log.Debug("receiving disconnects", slog.Bool("connected", sys.IsConnected()))
	}
	l.status = nc.StatusChanged(nats.CONNECTED, nats.RECONNECTING, nats.DISCONNECTED, nats.CLOSED)
	return l, nil
}

// Close ends all subscriptions, and waits for tokens and requests that are under way.
// The contexts of Send and Locate must have ended before.
func (l *Link) Close() {
	if l.sub != nil {
		_ = l.sub.Unsubscribe() // fails only on a closed connection
		l.sys.RemoveStatusListener(l.sysStatus)
	}
	l.nc.RemoveStatusListener(l.status)
	l.flying.Wait()
}

// Events returns the channel of inputs for a core; pass each on with Feed.
func (l *Link) Events() <-chan Event { return l.events }

// Feed passes the event to c. The caller must first pass c all messages that wait.
// dropped counts all messages dropped so far.
func (e Event) Feed(now time.Time, dropped uint64, c Core) {
	switch e.kind {
	case connection:
		c.Connection(now, e.conn)
	case tokenBack:
		c.TokenBack(now, e.token, dropped)
	case closed:
		c.Closed(now, e.d)
	case settled:
		c.Settled(now, e.path)
	case system:
		c.System(now, e.up)
	case located:
		c.Located(now, e.addr[0], e.addr[1])
	}
}

// Connection returns the current state of the connection.
func (l *Link) Connection() core.Connection {
	return core.Connection{
		Up: l.nc.IsConnected(), Closed: l.nc.IsClosed(),
		// nats.go closes a connection after this many unanswered pings.
		Unnoticed: l.nc.Opts.PingInterval * time.Duration(l.nc.Opts.MaxPingsOut+1),
	}
}

// Look makes Run compare the state of the connection with the last event of it: nats.go may
// skip some of many changes. A shell calls Look whenever its own timer fires, at least every
// liveness.LookEvery. A second timer for this would wake an idle process twice as often.
func (l *Link) Look() {
	select {
	case l.look <- struct{}{}:
	default: // Run has yet to take the last one
	}
}

// Run turns what happens into events until ctx ends.
func (l *Link) Run(ctx context.Context) {
	status, sysStatus := l.status, l.sysStatus
	last := l.Connection()
	for {
		var e Event
		select {
		case <-ctx.Done():
			return
		case _, ok := <-status:
			// The connection's own state counts: nats.go may skip some of many changes.
			e = Event{kind: connection, conn: l.Connection()}
			e.conn.Flapped = true
			if !ok {
				status, e.conn.Closed = nil, true
			}
			last = e.conn
		case <-l.look:
			c := l.Connection()
			if c.Up == last.Up && c.Closed == last.Closed {
				continue
			}
			last = c
			e = Event{kind: connection, conn: c}
		case s, ok := <-sysStatus:
			e = Event{kind: system, up: ok && s == nats.CONNECTED}
			if !ok || s == nats.CLOSED {
				sysStatus = nil
			}
		case m := <-l.closings:
			d, err := ParseDisconnect(m.Data)
			if err != nil {
				l.log.Debug("not a disconnect", slog.String("subject", m.Subject), slog.Any("err", err))
				continue
			}
			if !d.OfClient() {
				continue
			}
			e = Event{kind: closed, d: liveness.Disconnect{
				Server: d.Server, Conn: d.Conn(), Host: d.Host, Name: d.Name, Reason: d.Reason, Evidence: d.Evidence(), Passing: d.Passing(),
			}}
		}
		if !l.tell(ctx, e) {
			return
		}
	}
}

func (l *Link) tell(ctx context.Context, e Event) bool {
	select {
	case l.events <- e:
		return true
	case <-ctx.Done():
		return false
	}
}

// Send carries out the requests of a core. The token is a NATS PING: its PONG comes in
// the same stream as the messages, so by then everything that the server had for this
// observer is in its channels. A PING needs no permission and no subject, and is not
// dropped when a channel is full.
func (l *Link) Send(ctx context.Context, s core.Signals) {
	if s.Token != 0 {
		l.flying.Go(func() {
			within, cancel := context.WithTimeout(ctx, core.TokenWithin)
			defer cancel()
			if l.nc.FlushWithContext(within) == nil { // otherwise the core asks again, at the latest once NATS is back
				l.tell(ctx, Event{kind: tokenBack, token: s.Token})
			}
		})
	}
	if s.Settle {
		l.flying.Go(func() {
			within, cancel := context.WithTimeout(ctx, core.SettleWithin)
			defer cancel()
			e := Event{kind: settled} // if NATS hangs, the window is long enough
			if l.nc.FlushWithContext(within) == nil {
				e.path = liveness.Path{Server: l.nc.ConnectedServerId()}
				if ip, err := l.nc.GetClientIP(); err == nil && ip != nil && !ip.IsLoopback() {
					e.path.Host = ip.String()
				}
			}
			l.tell(ctx, e)
		})
	}
}

const (
	// locateWithin bounds a request for an address. A server that is gone does not
	// answer, nor does one where this user may not ask.
	locateWithin = 2 * time.Second
	// locateMost is how many connections one call of Locate asks for.
	locateMost = 16
)

// Locate asks NATS for the client addresses of conns, which are named as in beats and
// snapshots. It needs a connection to the system account, and does nothing
// without it.
func (l *Link) Locate(ctx context.Context, conns []string) {
	if l.sys == nil {
		return
	}
	for _, conn := range conns[:min(len(conns), locateMost)] {
		server, client, ok := SplitConn(conn)
		if !ok || !l.sys.IsConnected() {
			continue
		}
		l.flying.Go(func() {
			within, cancel := context.WithTimeout(ctx, locateWithin)
			defer cancel()
			subject, payload := ConnzRequest(server, client)
			m, err := l.sys.RequestWithContext(within, subject, payload)
			if err != nil {
				l.log.Debug("no answer about a connection", slog.String("conn", conn), slog.Any("err", err))
				return
			}
			if addr, ok := ParseConnz(m.Data, client); ok {
				l.tell(ctx, Event{kind: located, addr: [2]string{conn, addr}})
			}
		})
	}
}
