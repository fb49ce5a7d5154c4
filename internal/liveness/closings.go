package liveness

import (
	"iter"
	"slices"
	"strings"
	"time"
)

// A closed connection is not a death: the sender may have moved. A sender that does not
// come back within a window is lost. While its window is open it is in doubt and must
// not be picked.
//
//	        its connection closes                 it is over
//	alive, late ──────────────▶ window ─────────────────────────▶ lost (disconnect)
//	        ▲                     │  ▲
//	        │     more than 3 of  │  │ the observer's own token returns over the
//	        │ that server close   │  │ same path: the same server, from the same host
//	        │          within 1 s ▼  │
//	        └── any message ──── held ──────────────────────────▶ (silence decides)
//
// If many connections close at once, the cause may be the server or a proxy before it.
// Their windows are held: they have no end. Strangers that connect only briefly do not
// count. A server in this very process is never held responsible: it fails with the
// observer.
const (
	// Window is how long a sender may take to come back after its connection closed:
	// nats.go's default takes 2.0 to 2.1 s. FastWindow applies to a sender whose
	// reconnect wait is at most FastReconnect.
	Window        = 5 * time.Second
	FastWindow    = 2 * time.Second
	FastReconnect = 500 * time.Millisecond

	// More than MassDisconnects of one server within MassWithin are a batch, and may be
	// the server's fault. A disconnect that precedes the others by BatchGap or more is
	// not part of it. A window that the observer's own token frees is longer by
	// BatchMore: a component between the senders and their server may have been
	// restarted.
	MassDisconnects = 3
	MassWithin      = time.Second
	BatchGap        = 250 * time.Millisecond
	BatchMore       = 2 * time.Second

	// AskBefore is how long before the end of a window its sender is asked for a
	// message, as it may have come back unheard: a single lost message must not make it
	// lost.
	AskBefore = 1250 * time.Millisecond

	maxServers = 64 // servers whose last disconnects are remembered, besides those with one in the last second

	// maxBefore is how many former connections of senders are remembered: the report
	// that one closed may arrive after its sender was heard over another.
	maxBefore = 1024
)

// Disconnect says that a client's connection to a NATS server closed.
type Disconnect struct {
	Server string // its id
	Conn   string // as in the conn of beats and snapshots
	Host   string // the client's address, as its server sees it; empty: unknown
	Name   string // of the connection, for people
	Reason string // in the server's words
	// Evidence says that the client may have ended. Otherwise the server ended, or it
	// closed the connection for silence, which has its own deadline; such a disconnect
	// is only counted.
	Evidence bool
	// Passing says that the client ended by itself after a short connection, as scripts
	// do. If no known sender had that connection, it says nothing about the server and
	// is not counted.
	Passing bool
}

// Noted is the effect of a Disconnect.
type Noted struct {
	Opened  bool // a window opened; Settle must follow
	Ignored bool // it belongs to a batch at a server with known senders
	Held    bool // windows that were open before no longer have an end; Settle must follow
}

// Path is the route of an observer's own connection: its server, and its address as
// that server sees it. Host is empty if the address identifies no host: a loopback
// address may belong to a proxy on the server's machine. The zero Path stands for a
// token that did not return.
type Path struct{ Server, Host string }

// WindowOf returns how long a sender with the reconnect wait rw may take to come back;
// rw 0 means unknown.
func WindowOf(rw time.Duration) time.Duration {
	if rw > 0 && rw <= FastReconnect {
		return FastWindow
	}
	return Window
}

// Closing is a window: the connection of a sender closed, and it may come back.
type Closing struct {
	Disconnect
	At     time.Time     // when it opened
	Length time.Duration // not counting blind time
	Over   time.Time     // when it ended; set by Due

	settled bool // no message over the closed connection can be in flight any more
	asked   bool
	held    bool // it belongs to a batch, and has no end until Vouch frees it
	freed   bool // by Vouch
}

// Closings holds the windows of the senders K. Its owner reports which sender has which
// connection (Move), which connections close (Disconnect) and which senders were heard
// (Heard), and asks whose window is over (Due). Use NewClosings.
type Closings[K comparable] struct {
	of map[string][]K // by conn; several senders may share one
	at map[string]int // number of connections in of, by server
	// Connections that were in of, in two generations: at least the last maxBefore.
	before, earlier map[string]struct{}

	open   map[K]Closing
	due    Deadlines[K]       // when to ask, or the end of the window
	recent map[string]*recent // by server
	ask    []K                // not taken yet
	moved  []K                // senders whose window opened or closed; not taken yet
	held   []K                // senders whose window is or was held, in the order of holding
	own    string             // the server in this process
}

// recent holds the last disconnected clients of a server, the oldest first.
type recent [MassDisconnects]struct {
	at   time.Time
	conn string
}

// NewClosings returns a Closings without senders.
func NewClosings[K comparable]() Closings[K] {
	return Closings[K]{of: make(map[string][]K), at: make(map[string]int), open: make(map[K]Closing), recent: make(map[string]*recent)}
}

// SetOwn names the server that runs in this process: each of its windows ends, however
// many of its connections close.
func (c *Closings[K]) SetOwn(server string) { c.own = server }

// Has reports whether k has a window, held or not.
func (c *Closings[K]) Has(k K) bool {
	_, ok := c.open[k]
	return ok
}

// TakeMoved returns the senders whose window opened or was closed since the last call,
// except those that Due yielded. It may name a sender twice.
func (c *Closings[K]) TakeMoved() []K {
	list := c.moved
	c.moved = nil
	return list
}

// Open returns how many windows are open.
func (c *Closings[K]) Open() int { return len(c.open) }

// Linked returns how many connections have a known sender.
func (c *Closings[K]) Linked() int { return len(c.of) }

// Move records that k has the connection to, and no longer has from. Empty means none.
func (c *Closings[K]) Move(k K, from, to string) {
	if from == to {
		return
	}
	if from != "" {
		list := slices.DeleteFunc(c.of[from], func(o K) bool { return o == k })
		if len(list) == 0 {
			delete(c.of, from)
			c.count(from, -1)
			c.remember(from)
		} else {
			c.of[from] = list
		}
	}
	if to != "" {
		list := c.of[to]
		if len(list) == 0 {
			c.count(to, 1)
		}
		c.of[to] = append(list, k)
	}
}

// count changes the number of known connections of conn's server.
func (c *Closings[K]) count(conn string, by int) {
	server, _, _ := strings.Cut(conn, "/")
	if c.at[server] += by; c.at[server] == 0 {
		delete(c.at, server)
	}
}

// remember keeps the name of a connection that no sender has any more.
func (c *Closings[K]) remember(conn string) {
	if c.before == nil || len(c.before) >= maxBefore {
		c.before, c.earlier = make(map[string]struct{}), c.before
	}
	c.before[conn] = struct{}{}
}

// Knows reports whether a message ever named the connection, as far back as Closings
// remembers.
func (c *Closings[K]) Knows(conn string) bool {
	if len(c.of[conn]) > 0 {
		return true
	}
	_, before := c.before[conn]
	_, earlier := c.earlier[conn]
	return before || earlier
}

// Disconnect records that a client of a server disconnected, whether or not it is a
// known sender. Everything that arrived before must have been received first. window
// returns how long a sender with that connection may take to come back, and 0 if it can
// no longer be lost.
func (c *Closings[K]) Disconnect(now time.Time, d Disconnect, window func(K) time.Duration) (n Noted) {
	if d.Passing && !c.Knows(d.Conn) {
		return n
	}
	batch, held := c.mass(now, d)
	if held {
		for _, conn := range batch {
			for _, k := range c.of[conn] {
				n.Held = c.hold(k) || n.Held
			}
		}
		n.Ignored = c.at[d.Server] > 0
	}
	if !d.Evidence {
		return n
	}
	for _, k := range c.of[d.Conn] {
		if _, ok := c.open[k]; ok {
			continue
		}
		length := window(k)
		if length == 0 {
			continue
		}
		c.open[k] = Closing{Disconnect: d, At: now, Length: length}
		c.due.Set(k, now.Add(length-AskBefore))
		c.moved = append(c.moved, k)
		n.Opened = true
		if held {
			c.hold(k)
		}
	}
	return n
}

// hold suspends the end of k's window, if it has one and no token has proved since that
// the server lives. It reports whether it did.
func (c *Closings[K]) hold(k K) bool {
	win, ok := c.open[k]
	if ok = ok && !win.held && !win.freed; ok {
		win.held, win.settled, win.Length = true, false, win.Length+BatchMore
		c.open[k] = win
		c.due.Remove(k)
		if len(c.held) > 2*len(c.open) {
			c.held = slices.DeleteFunc(c.held, func(k K) bool { return !c.open[k].held })
		}
		c.held = append(c.held, k)
	}
	return ok
}

// mass records a disconnect, and reports whether it belongs to a batch. If so, conns
// are the connections that closed before it and may have windows with an end.
func (c *Closings[K]) mass(now time.Time, d Disconnect) (conns []string, batch bool) {
	if d.Server == c.own {
		return nil, false
	}
	last := c.recent[d.Server]
	if last == nil {
		if len(c.recent) >= maxServers {
			for id, other := range c.recent {
				if now.Sub(other[MassDisconnects-1].at) > MassWithin {
					delete(c.recent, id)
				}
			}
		}
		last = new(recent)
		c.recent[d.Server] = last
	}
	before := *last
	copy(last[:], last[1:])
	last[MassDisconnects-1].at, last[MassDisconnects-1].conn = now, d.Conn
	if at := before[0].at; at.IsZero() || now.Sub(at) > MassWithin {
		return nil, false
	}
	from := now
	for i := len(before) - 1; i >= 0 && from.Sub(before[i].at) < BatchGap; i-- {
		conns, from = append(conns, before[i].conn), before[i].at
	}
	return conns, true
}

// Settle records that everything in flight at upTo has been received: a message that is
// heard from now on was sent after each disconnect up to that time. Before Settle, a
// message over the closed connection proves nothing. Settle reports whether there are
// windows that need another call: later ones, and held ones, which only Vouch settles.
func (c *Closings[K]) Settle(upTo time.Time) (more bool) {
	for k, win := range c.open {
		switch {
		case win.settled:
		case win.held, win.At.After(upTo):
			more = true
		default:
			win.settled = true
			c.open[k] = win
		}
	}
	return more
}

// Vouch records that a token which the observer sent at upTo returned by the path by:
// everything in flight at that time has been received, and the server serves clients
// that connect from there. Windows that were held up to that time get an end if their
// path was the same.
func (c *Closings[K]) Vouch(upTo time.Time, by Path) {
	later := c.held[:0]
	for _, k := range c.held {
		win := c.open[k]
		if !win.held || win.settled {
			continue
		}
		if win.At.After(upTo) {
			later = append(later, k)
			continue
		}
		win.settled = true
		if by.Host != "" && win.Host == by.Host && win.Server == by.Server {
			win.held, win.freed = false, true
			at := win.At.Add(win.Length - AskBefore)
			if at.Before(upTo) {
				at = upTo
			}
			c.due.Set(k, at)
		}
		c.open[k] = win
	}
	clear(c.held[len(later):])
	c.held = later
}

// Heard closes the window of k if a message that names the connection conn proves that
// k came back. final says that the message proves it whatever connection it names: it
// begins another incarnation, or is a goodbye.
func (c *Closings[K]) Heard(k K, conn string, final bool) {
	if len(c.open) == 0 {
		return
	}
	if win, ok := c.open[k]; ok && (win.settled || final || win.Conn != conn) {
		c.Close(k)
	}
}

// Close closes the window of k, if it has one: k is not lost for it.
func (c *Closings[K]) Close(k K) {
	if !c.Has(k) {
		return
	}
	c.moved = append(c.moved, k)
	delete(c.open, k)
	c.due.Remove(k)
}

// Forget closes all windows. Call it when the observer was cut off from the disconnect
// events, or doubts its connection.
func (c *Closings[K]) Forget() {
	for k := range c.open {
		c.Close(k)
	}
	clear(c.recent)
	c.ask = nil
}

// TakeAsk returns the senders to ask for a message now, since the last call. Some may
// have been heard meanwhile.
func (c *Closings[K]) TakeAsk() []K {
	list := c.ask
	c.ask = nil
	return list
}

// Due yields each sender whose window is over, and the window.
func (c *Closings[K]) Due(now time.Time) iter.Seq2[K, Closing] {
	return func(yield func(K, Closing) bool) {
		for k, at := range c.due.Due(now) {
			win := c.open[k]
			if !win.asked {
				win.asked = true
				c.ask = append(c.ask, k)
				if at = at.Add(AskBefore); at.After(now) {
					c.open[k] = win
					c.due.Set(k, at)
					continue
				}
			}
			delete(c.open, k)
			win.Over = at
			if !yield(k, win) {
				return
			}
		}
	}
}

// Next returns the earlier of at, if ok, and the time when Due next has something to
// do. It returns false if there is neither.
func (c *Closings[K]) Next(at time.Time, ok bool) (time.Time, bool) {
	own, is := c.due.Next()
	if is && (!ok || own.Before(at)) {
		return own, true
	}
	return at, ok
}

// Shift credits all windows with d, the time when no sender could be heard.
func (c *Closings[K]) Shift(d time.Duration) {
	c.due.Shift(d)
	for k, win := range c.open {
		if win.held { // it has no end yet that could be moved
			win.Length += d
			c.open[k] = win
		}
	}
}
