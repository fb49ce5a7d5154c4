package cli

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/beatfabric/hivebeat/bus"
	"github.com/beatfabric/hivebeat/internal/link"
)

// SystemFlags give a hive or a queen access to the system account of an existing NATS.
type SystemFlags struct {
	SystemCreds string `placeholder:"FILE" help:"Credentials of a user of the system account: it then hears which connections close, and who does not come back, a worker of a hive or a hive of a queen, is lost within seconds." group:"Connection"`
	SystemNATS  string `name:"system-nats" placeholder:"URL" help:"NATS for that, perhaps with user:password@ (default: that of --nats)." group:"Connection"`
}

func (f *SystemFlags) wanted() bool { return f.SystemCreds != "" || f.SystemNATS != "" }

// connectSystem opens the second connection. What f does not set comes from conn. An agent
// does not fail fast, because NATS may start later; refused credentials are logged, if
// there is a logger.
func (f *SystemFlags) connectSystem(ctx context.Context, conn ConnFlags, cfg bus.Config) (*nats.Conn, error) {
	flags := conn
	if f.SystemNATS != "" {
		flags.NATS = f.SystemNATS
	}
	flags.Creds, flags.NKey = f.SystemCreds, ""
	if f.SystemCreds == "" && flags.Context != "" {
		return nil, misused(errors.New("--system-nats: it would take its credentials from --context"), "give --system-creds FILE, or --nats URL in place of --context")
	}
	if cfg.Logger != nil {
		cfg.Logger = cfg.Logger.With(slog.String("account", "system"))
	}
	nc, err := flags.dial(ctx, cfg)
	if wrong, ok := errors.AsType[*failure](err); ok && wrong.code == ExitUsage {
		return nil, misused(fmt.Errorf("%s: %w", "--system-creds, --system-nats", wrong.err), "%s", wrong.hint)
	}
	return nc, err
}

const (
	proofWithin = 5 * time.Second // an advisory takes milliseconds
	proofAgain  = 10 * time.Second
	proofTries  = 3
)

// systemHint says what a user needs to receive advisories of closed connections.
const systemHint = "the user of --system-creds or --system-nats must be of the system account and may subscribe to " + link.DisconnectSubject

// errNotTold reports that a connection was closed without an advisory.
var errNotTold = errors.New("nobody tells which connections close")

// proveSystem checks whether advisories of closed connections arrive, and logs the
// result.
func proveSystem(ctx context.Context, sys *nats.Conn, dial func() (*nats.Conn, error), whom string, log *slog.Logger) {
	if !awaitConnected(ctx, sys) {
		return
	}
	heard, end, err := hearClosings(sys)
	if err == nil {
		defer end()
	}
	for try := 0; err == nil && try < proofTries; try++ {
		probe, down := dial()
		if down != nil { // the other connection logs why
			if sleepFor(ctx, proofAgain) != nil {
				return
			}
			continue
		}
		if toldOf(ctx, heard, probe) {
			log.Info("hears which connections close: who does not come back is lost within seconds", slog.String("of", whom))
			return
		}
	}
	if ctx.Err() == nil {
		log.Warn("is not told which connections close, and goes on without: silence decides, and the ends of processes that a hive sees",
			slog.String("hint", systemHint), slog.Any("error", err))
	}
}

// hearClosings subscribes to advisories of closed connections until end is called.
func hearClosings(sys *nats.Conn) (heard <-chan *nats.Msg, end func(), err error) {
	all := make(chan *nats.Msg, 1024)
	sub, err := sys.ChanSubscribe(link.DisconnectSubject, all)
	if err != nil {
		return nil, nil, err
	}
	end = func() { _ = sub.Unsubscribe() }
	if err := sys.FlushTimeout(proofWithin); err != nil {
		end()
		return nil, nil, err
	}
	return all, end, nil
}

// toldOf closes probe, and reports whether its advisory arrives. It does not arrive if a
// permission or an export is missing, or if the account is the wrong one.
func toldOf(ctx context.Context, heard <-chan *nats.Msg, probe *nats.Conn) bool {
	id := bus.ConnID(probe)
	probe.Close()
	return awaitDisconnect(ctx, heard, id)
}

func awaitConnected(ctx context.Context, nc *nats.Conn) bool {
	status := nc.StatusChanged(nats.CONNECTED, nats.CLOSED)
	defer nc.RemoveStatusListener(status)
	for !nc.IsConnected() {
		select {
		case <-ctx.Done():
			return false
		case <-status:
			if nc.IsClosed() {
				return false
			}
		}
	}
	return true
}

func awaitDisconnect(ctx context.Context, heard <-chan *nats.Msg, id string) bool {
	timer := time.NewTimer(proofWithin)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return false
		case <-timer.C:
			return false
		case m := <-heard:
			if d, err := link.ParseDisconnect(m.Data); err == nil && d.Conn() == id {
				return true
			}
		}
	}
}

func sleepFor(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
