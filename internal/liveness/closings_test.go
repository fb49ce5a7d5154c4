package liveness

import (
	"fmt"
	"slices"
	"testing"
	"time"
)

func always(d time.Duration) func(string) time.Duration {
	return func(string) time.Duration { return d }
}

// internal/detector and internal/fleet test the rules of windows, where senders can be
// lost. The tests here cover the rest.

// Servers that are not ours come and go.
func TestServersAreForgotten(t *testing.T) {
	c, now := NewClosings[string](), time.Unix(1, 0)
	for i := range 10 * maxServers {
		c.Disconnect(now, Disconnect{Server: fmt.Sprint(i), Conn: "x"}, always(Window))
		now = now.Add(100 * time.Millisecond)
	}
	if n := len(c.recent); n > maxServers {
		t.Errorf("%d servers are remembered", n)
	}
}

// A sender that cannot be lost has no window, even if others share its connection.
func TestWindowsOfSome(t *testing.T) {
	c, now := NewClosings[string](), time.Unix(1, 0)
	for _, k := range []string{"a", "gone", "b", "moved"} {
		c.Move(k, "", "S/1")
	}
	c.Move("moved", "S/1", "S/2")
	noted := c.Disconnect(now, Disconnect{Server: "S", Conn: "S/1", Evidence: true}, func(k string) time.Duration {
		if k == "gone" {
			return 0
		}
		return FastWindow
	})
	if !noted.Opened || noted.Ignored || c.Open() != 2 {
		t.Fatalf("%+v, %d are open", noted, c.Open())
	}
	var over []string
	look := func(at time.Duration) {
		t.Helper()
		for k, win := range c.Due(now.Add(at)) {
			if win.Conn != "S/1" || !win.Over.Equal(now.Add(FastWindow)) {
				t.Errorf("%s: %+v", k, win)
			}
			over = append(over, k)
		}
	}
	look(FastWindow - AskBefore)
	if ask := slices.Sorted(slices.Values(c.TakeAsk())); !slices.Equal(ask, []string{"a", "b"}) || len(over) > 0 {
		t.Errorf("asks %v, over %v", ask, over)
	}
	c.Close("b")
	look(FastWindow + time.Hour)
	if !slices.Equal(over, []string{"a"}) || c.Open() != 0 || len(c.TakeAsk()) != 0 {
		t.Errorf("over %v, %d are open", over, c.Open())
	}
	for k, conn := range map[string]string{"a": "S/1", "gone": "S/1", "b": "S/1", "moved": "S/2"} {
		c.Move(k, conn, "")
	}
	if c.Linked() != 0 {
		t.Errorf("%d connections are left", c.Linked())
	}
}

// Only disconnects at servers with known senders are reported as ignored.
func TestIgnoredWhereSomebodyIs(t *testing.T) {
	c, now := NewClosings[string](), time.Unix(1, 0)
	c.Move("a", "", "S/1")
	c.Move("b", "", "S/1")
	c.Move("a", "S/1", "S/2")
	c.Move("b", "S/1", "S/2")
	many := func(server string, passing bool) (n int) {
		for i := range 10 {
			if c.Disconnect(now, Disconnect{Server: server, Conn: fmt.Sprint(server, "/", 100+i), Passing: passing}, always(Window)).Ignored {
				n++
			}
		}
		now = now.Add(2 * MassWithin)
		return n
	}
	if n := many("S", false); n != 10-MassDisconnects {
		t.Errorf("%d of 10 are ignored where two are", n)
	}
	if n := many("S", true); n != 0 {
		t.Errorf("%d of 10 that passed by are ignored", n)
	}
	if n := many("T", false); n != 0 {
		t.Errorf("%d of 10 are ignored where nobody is", n)
	}
	c.Move("a", "S/2", "")
	c.Move("b", "S/2", "T/1")
	if n := many("S", false); n != 0 {
		t.Errorf("%d of 10 are ignored where nobody is any more", n)
	}
	if len(c.at) != 1 {
		t.Errorf("servers: %v", c.at)
	}
}

// The former connection of a sender is remembered for a while, in bounded memory.
func TestConnectionsOfBefore(t *testing.T) {
	c := NewClosings[string]()
	const many = 5 * maxBefore
	conn := func(i int) string { return fmt.Sprint("S/", i) }
	for i := range many {
		c.Move("a", conn(i), conn(i+1))
		if back := max(0, i-maxBefore+1); i > 0 && back > 0 && !c.Knows(conn(back)) {
			t.Fatalf("after %d moves the connection of %d moves ago is forgotten", i, i-back)
		}
		if n := len(c.before) + len(c.earlier); n > 2*maxBefore {
			t.Fatalf("%d are remembered", n)
		}
	}
	for id, want := range map[string]bool{conn(many): true, conn(0): false, "": false} {
		if got := c.Knows(id); got != want {
			t.Errorf("connection %q is known: %t, want %t", id, got, want)
		}
	}
}

func TestWindowOf(t *testing.T) {
	for rw, want := range map[time.Duration]time.Duration{
		0: Window, 1: FastWindow, FastReconnect: FastWindow, FastReconnect + time.Millisecond: Window, -1: Window,
	} {
		if got := WindowOf(rw); got != want {
			t.Errorf("WindowOf(%s) = %s, want %s", rw, got, want)
		}
	}
}
