package cli

import (
	"log/slog"
	"net"
	"os"
	"strconv"
	"sync"
	"time"
)

// Messages to systemd, in the words of sd_notify(3).
const (
	ready    = "READY=1"
	stopping = "STOPPING=1"
	alive    = "WATCHDOG=1"
)

// notifier reports to the service manager that started this process. A nil notifier reports
// nothing: no manager asked for it.
type notifier struct {
	conn *net.UnixConn
	log  *slog.Logger
	wg   sync.WaitGroup
	done chan struct{}
}

// notify returns the notifier that the environment asks for. It feeds the watchdog until close,
// which proves that this process runs. Whether NATS can be reached is no reason to restart an
// engine.
func notify(log *slog.Logger) *notifier {
	socket := os.Getenv("NOTIFY_SOCKET")
	if socket == "" {
		return nil
	}
	conn, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: socket, Net: "unixgram"}) // @ at the start is abstract
	if err != nil {
		log.Warn("the service manager cannot be reached", slog.Any("err", err))
		return nil
	}
	n := &notifier{conn: conn, log: log, done: make(chan struct{})}
	usec, _ := strconv.ParseInt(os.Getenv("WATCHDOG_USEC"), 10, 64)
	if pid := os.Getenv("WATCHDOG_PID"); usec > 0 && (pid == "" || pid == strconv.Itoa(os.Getpid())) {
		n.wg.Go(func() { n.feed(time.Duration(usec) * time.Microsecond / 2) })
	}
	return n
}

func (n *notifier) feed(every time.Duration) {
	tick := time.NewTicker(max(every, time.Millisecond))
	defer tick.Stop()
	for {
		n.say(alive)
		select {
		case <-n.done:
			return
		case <-tick.C:
		}
	}
}

func (n *notifier) say(what string) {
	if n == nil {
		return
	}
	if _, err := n.conn.Write([]byte(what)); err != nil {
		n.log.Debug("the service manager does not listen", slog.Any("err", err))
	}
}

func (n *notifier) close() {
	if n == nil {
		return
	}
	close(n.done)
	n.wg.Wait()
	_ = n.conn.Close()
}
