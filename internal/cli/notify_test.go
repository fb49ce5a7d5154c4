//go:build !windows

package cli

import (
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"
)

// The service manager hears when the role is ready and when it stops, and the watchdog is fed in
// between; a watchdog of another process is not.
func TestNotify(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "notify")
	l, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: socket, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	hear := func() string {
		t.Helper()
		b := make([]byte, 256)
		_ = l.SetReadDeadline(time.Now().Add(patience))
		n, err := l.Read(b)
		if err != nil {
			t.Fatal(err)
		}
		return string(b[:n])
	}
	log := slog.New(slog.DiscardHandler)
	t.Setenv("NOTIFY_SOCKET", "")
	if n := notify(log); n != nil {
		t.Error("it reports to no manager")
	} else {
		n.say(ready) // no-ops
		n.close()
	}

	t.Setenv("NOTIFY_SOCKET", socket)
	t.Setenv("WATCHDOG_USEC", "2000")
	t.Setenv("WATCHDOG_PID", "1")
	n := notify(log)
	n.say(ready)
	n.say(stopping)
	n.close()
	if a, b := hear(), hear(); a != ready || b != stopping {
		t.Errorf("%q %q", a, b)
	}

	t.Setenv("WATCHDOG_PID", strconv.Itoa(os.Getpid()))
	n = notify(log)
	for range 3 {
		if got := hear(); got != alive {
			t.Errorf("%q", got)
		}
	}
	n.close()

	t.Setenv("NOTIFY_SOCKET", socket+"-none")
	if n := notify(log); n != nil {
		t.Error("it reports to a manager that is not there")
		n.close()
	}
}
