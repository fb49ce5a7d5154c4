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

// A NATS server that is stopped, or that packets do not reach any more, keeps its
// connections: nats.go gives one up after 20 to 30 s, as pings are not answered. A
// connection of Connect that knows another server does not wait for that. The times
// follow the promise of its user, which is lost 2.05 promises after it was cut off at the
// soonest: with one of 1 s or more the connection moves within 1.5 promises, and with one
// of 15 s within 11.5 s.
const (
	minAsk, maxAsk       = 250 * time.Millisecond, pingInterval    // every / 4, between two pings
	minAnswer, maxAnswer = 500 * time.Millisecond, 2 * time.Second // every / 2, for an answer
	// unanswered is for how many times that the server may say nothing.
	unanswered = 2
	// moveGap is the least time between two moves: where no server answers, it is not
	// the server.
	moveGap = time.Minute
	// overslept is how late a look may be. One that is later finds what came meanwhile
	// unread: the process was stopped or starved.
	overslept = 500 * time.Millisecond
)

// silence decides when a connection moves. It asks for a ping in a rhythm, and after
// each the server has to say something, whatever it is: an answer may stand behind
// megabytes. It is pure.
type silence struct {
	ask, answer time.Duration
	random      func() float64

	socket *socket   // that is looked at
	heard  uint64    // what it had received when something was new last
	asked  time.Time // the last ping
	since  time.Time // when the server was given its time to answer; zero: it has answered
	most   time.Duration
	next   time.Time // of look
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

// look takes the socket, how many bytes it has received, 0 where it is not open, and how
// many servers are known. It is to be called again at next.
func (s *silence) look(now time.Time, socket *socket, received uint64, servers int) (ask, move bool) {
	if !s.next.IsZero() && now.Sub(s.next) > overslept && !s.since.IsZero() {
		s.since = now
	}
	// One that has received nothing yet is being opened, and nats.go limits that.
	if socket != s.socket || received != s.heard || received == 0 {
		s.socket, s.heard, s.since = socket, received, time.Time{}
	}
	switch {
	case s.since.IsZero():
		if ask = now.Sub(s.asked) >= s.ask; ask {
			s.asked, s.since = now, now
			// They lost their server at one time, and are not to come to another at one.
			s.most = unanswered*s.answer + time.Duration(s.random()*float64(s.ask))
		}
	case now.Sub(s.since) < s.most, servers < 2, now.Sub(s.moved) < moveGap:
	default:
		move = true
		s.moved, s.since = now, time.Time{}
	}
	s.next = s.asked.Add(s.ask)
	if !s.since.IsZero() {
		s.next = now.Add(s.answer) // to know whether it slept
		if at := s.since.Add(s.most); at.After(now) && at.Before(s.next) {
			s.next = at
		}
	}
	if !s.next.After(now) {
		s.next = now.Add(s.ask)
	}
	return ask, move
}

// mover follows a connection of Connect, and moves it.
type mover struct {
	nc      *nats.Conn
	log     *slog.Logger
	line    *line
	at      atomic.Pointer[socket] // of nc, when the server answered last
	servers atomic.Int64           // that nc knew then
	asking  atomic.Bool
}

// follow moves nc to another server where silence says so, until nc is closed.
func (l *line) follow(nc *nats.Conn, every time.Duration, log *slog.Logger) {
	if !nc.Opts.AllowReconnect || nc.Opts.InProcessServer != nil {
		return
	}
	m := &mover{nc: nc, log: log, line: l}
	closed := nc.StatusChanged(nats.CLOSED)
	if nc.IsClosed() { // before it was listened to
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
			// nats.go tries the other servers of its list first, the next one at once. Its
			// ForceReconnect would wait for the lock that a blocked write holds, and then
			// write itself.
			_ = at.Close()
		}
		if ask {
			m.ask()
		}
		wake.Reset(s.next.Sub(now))
	}
}

// ask makes the server say something. The calls may wait for a write that is blocked, so
// the loop does not.
func (m *mover) ask() {
	if !m.asking.CompareAndSwap(false, true) {
		return // a ping is out
	}
	go func() {
		defer m.asking.Store(false)
		local := m.nc.LocalAddr()
		if local == "" {
			return // it is not connected
		}
		m.at.Store(m.line.open(local))
		servers := len(m.nc.Servers())
		m.servers.Store(int64(servers))
		if servers < 2 {
			return // there is nowhere to move to: the pings of nats.go do
		}
		ctx, cancel := context.WithTimeout(context.Background(), maxAnswer)
		defer cancel()
		_ = m.nc.FlushWithContext(ctx) // what comes back shows on the socket
	}()
}

// line dials for a connection, and for others that are made with a copy of its options. It
// knows the sockets that are open, by their local address.
type line struct {
	dialer  nats.CustomDialer
	sockets sync.Map // string → *socket
}

// open returns the socket with a local address, or nil.
func (l *line) open(local string) *socket {
	s, _ := l.sockets.Load(local)
	at, _ := s.(*socket)
	return at
}

// option is to be the last: it keeps the dialer that another one set.
func (l *line) option(o *nats.Options) error {
	switch {
	case o.InProcessServer != nil:
		return nil
	case o.CustomDialer != nil:
		l.dialer = o.CustomDialer
	case o.Dialer != nil:
		l.dialer = o.Dialer
	default:
		// Half of what a server has for all of the handshake: a name may have several
		// addresses, each of which is tried.
		d := &net.Dialer{Timeout: o.Timeout / 2}
		if o.AllowMultipathTCP != nil {
			d.SetMultipathTCP(*o.AllowMultipathTCP)
		}
		l.dialer = d
	}
	o.CustomDialer = l
	return nil
}

// Dial is called by nats.go.
func (l *line) Dial(network, address string) (net.Conn, error) {
	c, err := l.dialer.Dial(network, address)
	if err != nil {
		return nil, err
	}
	s := &socket{Conn: c, line: l}
	l.sockets.Store(s.LocalAddr().String(), s)
	return s, nil
}

// SkipTLSHandshake is asked for by nats.go, of dialers that do it themselves.
func (l *line) SkipTLSHandshake() bool {
	d, ok := l.dialer.(interface{ SkipTLSHandshake() bool })
	return ok && d.SkipTLSHandshake()
}

// socket counts what it receives.
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
