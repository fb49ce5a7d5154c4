package bus

import (
	"context"
	"log/slog"
	"math/rand/v2"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/beatfabric/hivebeat"
)

// A NATS server that is stopped, or that packets no longer reach, keeps its
// connections. nats.go gives such a connection up after 20 to 30 s, when its pings are
// not answered. A connection made by Connect that knows another server does not wait
// that long. The times follow the promise of its user, because the user is lost no
// sooner than 2.05 promises after it was cut off. With a promise of 1 s or more the
// connection moves within 1.5 promises, and with a promise of 15 s within 11.5 s.
const (
	minAsk, maxAsk       = 250 * time.Millisecond, pingInterval    // every / 4, between two pings
	minAnswer, maxAnswer = 500 * time.Millisecond, 2 * time.Second // every / 2, for an answer
	// unanswered is how many answer times the server may stay silent.
	unanswered = 2
	// moveGap is the least time between two moves: if no server answers, the cause is
	// not the server.
	moveGap = time.Minute
	// overslept is how late a call of look may be. A later call means that the process
	// was stopped or starved: input that arrived meanwhile is still unread.
	overslept = 500 * time.Millisecond
)

// silence decides when a connection moves. It asks for a ping at regular intervals.
// After each ping the server must send something, not necessarily the answer, which may
// be queued behind megabytes of other data. silence is pure.
type silence struct {
	ask, answer time.Duration
	random      func() float64

	socket *socket   // the socket that is watched
	heard  uint64    // bytes it had received when new data was last seen
	asked  time.Time // time of the last ping
	since  time.Time // when the server began to owe an answer; zero if it owes none
	most   time.Duration
	next   time.Time // when look must be called again
	moved  time.Time
}

func newSilence(every time.Duration, random func() float64) *silence {
	if every <= 0 {
		every = hivebeat.HiveEvery
	}
	return &silence{
		ask: min(max(every/4, minAsk), maxAsk), answer: min(max(every/2, minAnswer), maxAnswer), random: random,
	}
}

// look takes the socket, the number of bytes it has received (0 if it is not open), and
// the number of known servers. The caller must call it again at next.
func (s *silence) look(now time.Time, socket *socket, received uint64, servers int) (ask, move bool) {
	if !s.next.IsZero() && now.Sub(s.next) > overslept && !s.since.IsZero() {
		s.since = now
	}
	// A socket that has received nothing yet is being opened, and nats.go limits that.
	if socket != s.socket || received != s.heard || received == 0 {
		s.socket, s.heard, s.since = socket, received, time.Time{}
	}
	switch {
	case s.since.IsZero():
		if ask = now.Sub(s.asked) >= s.ask; ask {
			s.asked = now
			if servers == 1 { // there is nowhere to move to: ask, in case there is now
				break
			}
			s.since = now
			// Clients that lost a server at the same time must not reach the next one
			// at the same time.
			s.most = unanswered*s.answer + time.Duration(s.random()*float64(s.ask))
		}
	case now.Sub(s.since) < s.most, servers < 2, now.Sub(s.moved) < moveGap:
	default:
		move = true
		s.moved, s.since = now, time.Time{}
	}
	s.next = s.asked.Add(s.ask)
	if !s.since.IsZero() {
		s.next = now.Add(s.answer) // to notice whether the process slept
		if at := s.since.Add(s.most); at.After(now) && at.Before(s.next) {
			s.next = at
		}
	}
	if !s.next.After(now) {
		s.next = now.Add(s.ask)
	}
	return ask, move
}

// mover watches a connection made by Connect, and moves it.
type mover struct {
	nc      *nats.Conn
	log     *slog.Logger
	line    *line
	at      atomic.Pointer[socket] // socket of nc when the server last answered
	servers atomic.Int64           // number of servers that nc knew then
	asking  atomic.Bool
}

// follow moves nc to another server where silence says so, until nc is closed.
func (l *line) follow(nc *nats.Conn, every time.Duration, log *slog.Logger) {
	if !nc.Opts.AllowReconnect || nc.Opts.InProcessServer != nil {
		return
	}
	m := &mover{nc: nc, log: log, line: l}
	closed := nc.StatusChanged(nats.CLOSED)
	if nc.IsClosed() { // closed before the listener was added
		nc.RemoveStatusListener(closed)
		return
	}
	go m.run(closed, newSilence(every, rand.Float64))
}

func (m *mover) run(closed <-chan nats.Status, s *silence) {
	wake := time.NewTimer(0)
	defer wake.Stop()
	for {
		select {
		case <-closed:
			return
		case <-wake.C:
		}
		now, at, received := time.Now(), m.at.Load(), uint64(0)
		if at != nil && !at.closed.Load() {
			received = at.received.Load()
		}
		since := s.since
		ask, move := s.look(now, at, received, int(m.servers.Load()))
		if move {
			m.log.Warn("NATS does not answer: this connection moves to another server",
				slog.String("addr", at.RemoteAddr().String()), slog.Duration("silent", now.Sub(since)))
			// nats.go tries the other servers of its list first, and the next one
			// immediately. Its ForceReconnect would wait for the lock that a blocked
			// write holds, and then write itself.
			_ = at.Close()
		}
		if ask {
			m.ask()
		}
		wake.Reset(s.next.Sub(now))
	}
}

// ask makes the server send something. It returns at once: the calls that it makes may
// wait for a blocked write.
func (m *mover) ask() {
	if !m.asking.CompareAndSwap(false, true) {
		return // a ping is outstanding
	}
	go func() {
		defer m.asking.Store(false)
		local := m.nc.LocalAddr()
		if local == "" {
			return // not connected
		}
		m.at.Store(m.line.open(local))
		servers := len(m.nc.Servers())
		m.servers.Store(int64(servers))
		if servers < 2 {
			return // there is no other server to move to; the pings of nats.go suffice
		}
		ctx, cancel := context.WithTimeout(context.Background(), maxAnswer)
		defer cancel()
		_ = m.nc.FlushWithContext(ctx) // the answer shows as bytes received on the socket
	}()
}

// line dials for a connection, and for others that are made with a copy of its options.
// It holds the open sockets by their local address.
type line struct {
	dialer  nats.CustomDialer
	sockets sync.Map // string → *socket
}

// open returns the open socket with this local address, or nil.
func (l *line) open(local string) *socket {
	s, _ := l.sockets.Load(local)
	at, _ := s.(*socket)
	return at
}

// option must be applied last: it wraps the dialer that another option set.
func (l *line) option(o *nats.Options) error {
	switch {
	case o.InProcessServer != nil:
		return nil
	case o.CustomDialer != nil:
		l.dialer = o.CustomDialer
	case o.Dialer != nil:
		l.dialer = o.Dialer
	default:
		// Half of the time that a server has for the whole handshake: a name may have
		// several addresses, and each is tried.
		d := &net.Dialer{Timeout: o.Timeout / 2}
		if o.AllowMultipathTCP != nil {
			d.SetMultipathTCP(*o.AllowMultipathTCP)
		}
		l.dialer = d
	}
	o.CustomDialer = l
	return nil
}

// Dial implements nats.CustomDialer.
func (l *line) Dial(network, address string) (net.Conn, error) {
	c, err := l.dialer.Dial(network, address)
	if err != nil {
		return nil, err
	}
	s := &socket{Conn: c, line: l}
	l.sockets.Store(s.LocalAddr().String(), s)
	return s, nil
}

// SkipTLSHandshake reports whether the wrapped dialer does the TLS handshake itself.
func (l *line) SkipTLSHandshake() bool {
	d, ok := l.dialer.(interface{ SkipTLSHandshake() bool })
	return ok && d.SkipTLSHandshake()
}

// socket counts the bytes that it receives.
type socket struct {
	net.Conn
	line     *line
	received atomic.Uint64
	closed   atomic.Bool
}

func (s *socket) Read(p []byte) (int, error) {
	n, err := s.Conn.Read(p)
	s.received.Add(uint64(max(0, n)))
	return n, err
}

func (s *socket) Close() error {
	s.closed.Store(true)
	s.line.sockets.CompareAndDelete(s.LocalAddr().String(), s)
	return s.Conn.Close()
}
