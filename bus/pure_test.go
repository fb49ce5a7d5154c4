package bus

import (
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

func TestReconnectDelay(t *testing.T) {
	for _, c := range []struct {
		attempt int
		random  float64
		want    time.Duration
	}{
		{1, 0, 125 * time.Millisecond},
		{1, 0.5, 250 * time.Millisecond},
		{2, 0.5, 275 * time.Millisecond},
		{3, 0.5, 302500 * time.Microsecond},
		{33, 0.5, 5 * time.Second},
		{1 << 40, 0.5, 5 * time.Second},
		{0, 0.5, 250 * time.Millisecond},
	} {
		if got := reconnectDelay(c.attempt, c.random); got != c.want {
			t.Errorf("attempt %d, random %v: %v, want %v", c.attempt, c.random, got, c.want)
		}
	}
	// The wait in progress when NATS returns is at most a tenth of the time that it was
	// away plus ReconnectWait, and by chance half as much again.
	for attempt, away := 1, time.Duration(0); away < time.Hour; attempt++ {
		if d, most := reconnectDelay(attempt, 0.999), (away/10+ReconnectWait)*3/2; d > most {
			t.Fatalf("after %v without NATS the next attempt is in up to %v, want %v", away, d, most)
		}
		away += reconnectDelay(attempt, 0.5)
	}
	rapid.Check(t, func(t *rapid.T) {
		attempt, random := rapid.Int().Draw(t, "attempt"), rapid.Float64Range(0, 1).Draw(t, "random")
		d := reconnectDelay(attempt, random)
		if d < ReconnectWait/2 || d > maxReconnectWait*3/2 {
			t.Fatalf("%v", d)
		}
		if attempt <= 1 && d > 2*time.Second {
			t.Fatalf("the first wait is %v: a disconnect would count as a death", d)
		}
	})
}

func TestParseURLs(t *testing.T) {
	for _, c := range []struct{ in, urls, shown, err string }{
		{"nats://a:1", "nats://a:1", "nats://a:1", ""},
		{"a:1", "a:1", "nats://a:1", ""},
		{" tls://a , nats://b:2 ,", "tls://a,nats://b:2", "tls://a,nats://b:2", ""},
		{"nats://me:secret@a:1", "nats://me:secret@a:1", "nats://a:1", ""},
		{"nats://secret@a", "nats://secret@a", "nats://a", ""},
		{"wss://a/path?x=secret", "wss://a/path?x=secret", "wss://a", ""},
		{"nats://[::1]:4222", "nats://[::1]:4222", "nats://[::1]:4222", ""},
		{"", "", "", "no URL"},
		{" , ", "", "", "no URL"},
		{"http://a", "", "", `scheme "http"`},
		{"nats://", "", "", "no host"},
		{"nats://:4222", "", "", "no host"},
		{"nats://a:port", "", "", "invalid port"},
		{"nats://me:sec/ret@a:1", "", "", "percent-encoded"},
		{"nats://me:sec%ret@a:1", "", "", "percent-encoded"},
		{"nats://me:sec#ret@a:1", "", "", "percent-encoded"},
		{"nats://sec:12/ret@a:1", "", "", "percent-encoded"},
		{"nats://sec:12#ret@a:1", "", "", "percent-encoded"},
		{"nats://me:sec@12?ret@a:1", "", "", "percent-encoded"},
		{"me:sec ret@a:1", "", "", "percent-encoded"},
		{"nats://ok:1,nats://me:sec[ret@a:1", "", "", "percent-encoded"},
	} {
		urls, shown, err := parseURLs(c.in)
		if c.err != "" {
			if err == nil || !strings.Contains(err.Error(), c.err) {
				t.Errorf("%q: got %v, want %q", c.in, err, c.err)
			} else if strings.Contains(err.Error(), "sec") {
				t.Errorf("%q: the password is in %q", c.in, err)
			}
			continue
		}
		if err != nil || urls != c.urls || shown != c.shown {
			t.Errorf("%q: got %q, %q, %v", c.in, urls, shown, err)
		}
	}
}
