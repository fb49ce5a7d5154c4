package liveness

import (
	"testing"
	"time"
)

func TestWasHeld(t *testing.T) {
	const second, sent = time.Second, 1_795_435_200_000
	for _, c := range []struct {
		name         string
		from, to     int64
		apart, since time.Duration
		want         bool
	}{
		{"sent when it was due, and came 35 s later", sent, sent + 30_000, 125 * second, 35 * second, true},
		{"sent at the verdict", sent, sent + 90_000, 125 * second, 35 * second, true},
		{"sent after it", sent, sent + 90_001, 125 * second, 35 * second, false},
		{"stopped, and sent when it went on", sent, sent + 125_000, 125 * second, 35 * second, false},
		{"does not say", 0, 0, 125 * second, 35 * second, false},
		{"did not say before", 0, sent, 125 * second, 35 * second, false},
		{"its clock was set back", sent, sent - 3_600_000, 125 * second, 35 * second, false},
		{"its clock was set forward", sent, sent + 3_600_000, 125 * second, 35 * second, false},
	} {
		if got := WasHeld(c.from, c.to, c.apart, c.since); got != c.want {
			t.Errorf("%s: %v, want %v", c.name, got, c.want)
		}
	}
}
