package bus

import (
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/beatfabric/hivebeat/internal/advice"
)

// repeat is the interval at which a persistent problem is logged again.
const repeat = time.Minute

// watcher logs what happens to a connection. Its handlers run on goroutines of nats.go.
type watcher struct {
	log     *slog.Logger
	servers string                    // without passwords
	conn    atomic.Pointer[nats.Conn] // nil until Connect has it

	mu   sync.Mutex
	last map[trouble]time.Time // when it was logged
}

// trouble identifies a kind of message that is not logged at each attempt.
type trouble struct{ kind, detail string }

func (w *watcher) options() []nats.Option {
	return []nats.Option{
		nats.ConnectHandler(func(nc *nats.Conn) { w.connected(nc, "connected to NATS") }),
		nats.ReconnectHandler(func(nc *nats.Conn) { w.connected(nc, "connected to NATS again") }),
		nats.ReconnectErrHandler(w.failed),
		nats.DisconnectErrHandler(w.disconnected),
		nats.ErrorHandler(w.async),
		nats.LameDuckModeHandler(func(nc *nats.Conn) {
			w.log.Info("NATS server is about to shut down", slog.String("server", nc.ConnectedServerName()))
		}),
	}
}

func (w *watcher) connected(nc *nats.Conn, msg string) {
	w.mu.Lock()
	clear(w.last) // a later problem is logged at once
	w.mu.Unlock()
	w.log.Info(msg, //nolint:sloglint // one of two constants
		slog.String("addr", nc.ConnectedAddr()), slog.String("server", nc.ConnectedServerName()))
}

func (w *watcher) disconnected(_ *nats.Conn, err error) {
	if err == nil {
		w.log.Debug("connection to NATS closed")
		return
	}
	w.log.Warn("connection to NATS lost, trying to reconnect", slog.Any("error", err))
}

// attempt runs before each attempt to reconnect. nats.go calls a handler for a server
// that cannot be dialled. While the first connect has not succeeded yet, it calls none
// for a server that then refuses the credentials or the TLS handshake.
func (w *watcher) attempt() {
	if nc := w.conn.Load(); nc != nil {
		w.failed(nc, nc.LastError())
	}
}

func (w *watcher) failed(_ *nats.Conn, err error) {
	switch {
	case err == nil:
	case refused(err):
		if w.first(trouble{kind: "refused"}) {
			w.log.Error("NATS refuses the credentials, trying again",
				slog.String("servers", w.servers), slog.Any("error", err), slog.String("hint", advice.For(err)))
		}
	default:
		if w.first(trouble{kind: "unreachable"}) {
			w.log.Warn("NATS can not be reached, trying again",
				slog.String("servers", w.servers), slog.Any("error", err), slog.String("hint", advice.For(err)))
		}
	}
}

// async handles errors that NATS or nats.go reports outside of any call.
func (w *watcher) async(_ *nats.Conn, sub *nats.Subscription, err error) {
	switch {
	case refused(err):
		w.failed(nil, err)
	case errors.Is(err, nats.ErrPermissionViolation):
		if w.first(trouble{"permission", err.Error()}) {
			w.log.Error("NATS refuses a permission", slog.Any("error", err), slog.String("hint", advice.For(err)))
		}
	case errors.Is(err, nats.ErrSlowConsumer) && sub != nil:
		if w.first(trouble{"slow", sub.Subject}) {
			dropped, _ := sub.Dropped()
			w.log.Warn("messages came faster than they were handled, some were dropped",
				slog.String("subject", sub.Subject), slog.Int("dropped", dropped))
		}
	default:
		if w.first(trouble{"error", err.Error()}) {
			w.log.Warn("NATS reports an error", slog.Any("error", err))
		}
	}
}

// first reports whether t must be logged now.
func (w *watcher) first(t trouble) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	now := time.Now()
	if at, ok := w.last[t]; ok && now.Sub(at) < repeat {
		return false
	}
	if w.last == nil || len(w.last) >= 64 { // the texts come from outside, so their number is bounded
		w.last = map[trouble]time.Time{}
	}
	w.last[t] = now
	return true
}

// refused reports whether err is about the credentials, not about reaching NATS.
func refused(err error) bool {
	for _, e := range []error{
		nats.ErrAuthorization, nats.ErrAuthExpired, nats.ErrAuthRevoked, nats.ErrAccountAuthExpired,
	} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}
