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

// The rules of windows are tested where there is somebody to be lost, in
// internal/detector and internal/fleet. Here is what those do not see.

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

// Who can not be lost has no window, whoever shares his connection.
func TestWindowsOfSome(t *testing.T) {
	c, now := NewClosings[string](), time.Unix(1, 0)
	for _, k := range []string{"a", "gone", "b", "moved"} {
		c.Move(k, "", "S/1")
	}
	c.Move("moved", "S/1", "S/2")
	opened := c.Disconnect(now, Disconnect{Server: "S", Conn: "S/1", Evidence: true}, func(k string) time.Duration {
		if k == "gone" {
			return 0
		}
		return FastWindow
	})
	if !opened || c.Open() != 2 {
		t.Fatalf("opened %v, %d are open", opened, c.Open())
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

func TestWindowOf(t *testing.T) {
	for rw, want := range map[time.Duration]time.Duration{
		0: Window, 1: FastWindow, FastReconnect: FastWindow, FastReconnect + time.Millisecond: Window, -1: Window,
	} {
		if got := WindowOf(rw); got != want {
			t.Errorf("WindowOf(%s) = %s, want %s", rw, got, want)
		}
	}
}
