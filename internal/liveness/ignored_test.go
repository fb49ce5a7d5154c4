package liveness

import (
	"fmt"
	"testing"
	"time"
)

// counter counts disconnects at the times that the test sets.
type counter struct {
	*testing.T
	Ignored
	now time.Time
}

func (c *counter) after(d time.Duration, server string, want uint64) {
	c.Helper()
	c.now = c.now.Add(d)
	if got := c.Count(c.now, server); got != want {
		c.Errorf("%s, %s later: tells %d, want %d", server, d, got, want)
	}
}

func TestIgnoredIsToldWhereItGoesOn(t *testing.T) {
	c := counter{T: t, now: time.Unix(1, 0)}
	c.after(0, "S", 0)
	c.after(0, "S", 0)
	c.after(time.Second, "T", 0)
	c.after(TellAfter-time.Second-1, "S", 0)
	c.after(1, "S", 4)
	c.after(0, "S", 0) // the report was made
	c.after(time.Second, "T", 2)
	c.after(TellAgain-time.Second-1, "S", 0)
	c.after(1, "S", 3)
	c.after(0, "S", 0)
	if c.Total() != 10 {
		t.Errorf("%d in all", c.Total())
	}
}

// Many clients that end together are not reported, nor are as many an hour later.
func TestIgnoredBurstsAreNotTold(t *testing.T) {
	c := counter{T: t, now: time.Unix(1, 0)}
	for range 5 {
		for range 50 {
			c.after(100*time.Millisecond, "S", 0)
		}
		c.after(TellAgain, "S", 0) // counts as the first one
	}
	// The forgotten ones are not counted either.
	c.after(TellAfter, "S", 2)
}

func TestIgnoredServersAreForgotten(t *testing.T) {
	c := counter{T: t, now: time.Unix(1, 0)}
	for n := range 10 * maxServers {
		c.after(TellAgain, fmt.Sprint(n), 0)
	}
	if n := len(c.of); n > maxServers {
		t.Errorf("%d servers are remembered", n)
	}
}
