package liveness

import (
	"iter"
	"slices"
	"strings"
	"time"
)

// A connection that closes is no death: it may have moved. Who does not come back
// within a window is lost.
//
//	                     more than 3 of that server close within 1 s, not counting
//	                     strangers that only pass by
//	        its connection closes   ┌──────────▶ (none: it was the server)
//	alive, late ──────────────▶ window ─────────────────────────▶ lost (disconnect)
//	        ▲                       │           it is over
//	        └── any message ────────┘
const (
	// Window is how long a sender may take to come back after its connection
	// closed: nats.go's default takes 2.0 to 2.1 s. FastWindow is that of one whose
	// reconnect wait is at most FastReconnect.
	Window        = 5 * time.Second
	FastWindow    = 2 * time.Second
	FastReconnect = 500 * time.Millisecond

	// More than MassDisconnects of one server within MassWithin are the server's.
	MassDisconnects = 3
	MassWithin      = time.Second

	// AskBefore is how long before the end of a window those who may have come back
	// unheard are to be asked for a message: one that is lost kills nobody.
	AskBefore = 1250 * time.Millisecond

	maxServers = 64 // whose last disconnects are remembered, beyond those of the last second

	// So many connections that somebody had before are remembered: that one closes may
	// be told after he was heard over another.
	maxBefore = 1024
)

// Disconnect says that a client's connection to a NATS server closed.
type Disconnect struct {
	Server string // its id
	Conn   string // as in the conn of beats and snapshots
	Name   string // of the connection, for people
	Reason string // in the server's words
	// Evidence says that the client may have ended. Where not, because the server
	// did, or for silence, which has a deadline of its own, it is counted only.
	Evidence bool
	// Passing says that the client ended by itself and had not been there for long, as
	// scripts do. Where nobody is known to have had that connection it says nothing of
	// the server, and is not counted.
	Passing bool
}

// Noted is what a Disconnect amounted to.
type Noted struct {
	Opened  bool // a window: then Settle is to follow
	Ignored bool // it was the server's, at which somebody known is
}

// WindowOf returns how long a sender with the reconnect wait rw may take to come
// back; 0 is not known.
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
	Length time.Duration // not counting time in which the observer was blind
	Over   time.Time     // when it was over, as Due has it

	settled bool // a message over the closed connection can not be on its way any more
	asked   bool
}

// Closings are the windows of the senders K. Its owner tells it who has which
// connection (Move), which connections close (Disconnect), who was heard (Heard);
// and asks it whose window is over (Due). Use NewClosings.
type Closings[K comparable] struct {
	of map[string][]K // by conn: several senders may share one
	at map[string]int // connections in of, by server
	// Those that were in of, the last maxBefore at least, and the others between.
	before, earlier map[string]struct{}

	open   map[K]Closing
	due    Deadlines[K]       // asking, or the end of the window
	recent map[string]*recent // by server
	ask    []K                // nobody took them yet
}

// recent is when the last clients of a server disconnected, the oldest first.
type recent [MassDisconnects]time.Time

// NewClosings returns one that knows nobody.
func NewClosings[K comparable]() Closings[K] {
	return Closings[K]{of: make(map[string][]K), at: make(map[string]int), open: make(map[K]Closing), recent: make(map[string]*recent)}
}

// Open returns how many windows are open.
func (c *Closings[K]) Open() int { return len(c.open) }

// Linked returns how many connections are known to be somebody's.
func (c *Closings[K]) Linked() int { return len(c.of) }

// Move notes that k has the connection to, and not from any more. Empty means
// none.
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

// count counts the connections of a server.
func (c *Closings[K]) count(conn string, by int) {
	server, _, _ := strings.Cut(conn, "/")
	if c.at[server] += by; c.at[server] == 0 {
		delete(c.at, server)
	}
}

// remember keeps the name of a connection that nobody has any more.
func (c *Closings[K]) remember(conn string) {
	if c.before == nil || len(c.before) >= maxBefore {
		c.before, c.earlier = make(map[string]struct{}), c.before
	}
	c.before[conn] = struct{}{}
}

// Knows reports whether a message ever named the connection, as far as is
// remembered.
func (c *Closings[K]) Knows(conn string) bool {
	if len(c.of[conn]) > 0 {
		return true
	}
	_, before := c.before[conn]
	_, earlier := c.earlier[conn]
	return before || earlier
}

// Disconnect notes that a client of a server disconnected, whoever it is. All that
// was heard before must have been received. window says how long each sender with
// that connection may take to come back, and 0 for one who can not be lost any
// more.
func (c *Closings[K]) Disconnect(now time.Time, d Disconnect, window func(K) time.Duration) (n Noted) {
	if d.Passing && !c.Knows(d.Conn) {
		return n
	}
	if c.mass(now, d.Server) {
		for k, win := range c.open {
			if win.Server == d.Server && now.Sub(win.At) <= MassWithin {
				c.Close(k)
			}
		}
		n.Ignored = c.at[d.Server] > 0
		return n
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
		n.Opened = true
	}
	return n
}

// mass notes a disconnect, and reports whether there were too many.
func (c *Closings[K]) mass(now time.Time, server string) bool {
	last := c.recent[server]
	if last == nil {
		if len(c.recent) >= maxServers {
			for id, other := range c.recent {
				if now.Sub(other[MassDisconnects-1]) > MassWithin {
					delete(c.recent, id)
				}
			}
		}
		last = new(recent)
		c.recent[server] = last
	}
	oldest := last[0]
	copy(last[:], last[1:])
	last[MassDisconnects-1] = now
	return !oldest.IsZero() && now.Sub(oldest) <= MassWithin
}

// Settle says that what was on its way at the given time has been received: a
// message that is heard from now on was sent after each disconnect up to then.
// Until that is known one over the closed connection proves nothing. It reports
// whether there are later windows, which need another Settle.
func (c *Closings[K]) Settle(upTo time.Time) (more bool) {
	for k, win := range c.open {
		switch {
		case win.settled:
		case win.At.After(upTo):
			more = true
		default:
			win.settled = true
			c.open[k] = win
		}
	}
	return more
}

// Heard closes the window of k where a message that names the connection conn
// proves that it came back. final says that it does whatever it names: it begins
// another incarnation, or is a goodbye.
func (c *Closings[K]) Heard(k K, conn string, final bool) {
	if len(c.open) == 0 {
		return
	}
	if win, ok := c.open[k]; ok && (win.settled || final || win.Conn != conn) {
		c.Close(k)
	}
}

// Close closes the window of k, if it has one: nobody is lost for it.
func (c *Closings[K]) Close(k K) {
	delete(c.open, k)
	c.due.Remove(k)
}

// Forget closes all windows: who hears of disconnects was cut off itself, or
// doubts what it hears.
func (c *Closings[K]) Forget() {
	for k := range c.open {
		c.Close(k)
	}
	clear(c.recent)
	c.ask = nil
}

// TakeAsk returns those who are to be asked for a message now, since the last
// call. Some may have been heard meanwhile.
func (c *Closings[K]) TakeAsk() []K {
	list := c.ask
	c.ask = nil
	return list
}

// Due yields each whose window is over, and the window.
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

// Next returns the earlier of a deadline, where there is one, and when Due has
// something to do.
func (c *Closings[K]) Next(at time.Time, ok bool) (time.Time, bool) {
	own, is := c.due.Next()
	if is && (!ok || own.Before(at)) {
		return own, true
	}
	return at, ok
}

// Shift credits all windows with a time in which nobody could be heard.
func (c *Closings[K]) Shift(d time.Duration) { c.due.Shift(d) }
