package cli

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/beatfabric/hivebeat"
	"github.com/beatfabric/hivebeat/bus"
	"github.com/beatfabric/hivebeat/bus/embedded"
	"github.com/beatfabric/hivebeat/hive"
)

// CacheFlags say where a hive's machine keeps models.
type CacheFlags struct {
	CacheDir string `placeholder:"DIR" help:"Report the free space of the model cache's file system (default: $$HF_HOME, else ~/.cache/huggingface)."`
}

// ServeFlags let a hive run the NATS server of its machine.
type ServeFlags struct {
	Serve           bool   `help:"Run the machine's NATS server in this process, on 127.0.0.1: workers connect to it, and keep beating when the uplink is down." group:"Server"`
	ServePort       int    `default:"4222" placeholder:"N" help:"Port of that server; 0 picks a free one." group:"Server"`
	Leaf            string `placeholder:"URL" help:"Join that server to the NATS of the fleet, as a leaf node (default port 7422)." group:"Server"`
	LeafCreds       string `placeholder:"FILE" help:"Credentials for --leaf." group:"Server"`
	LeafDomain      string `placeholder:"NAME" help:"JetStream domain of the fleet's NATS: the hive warms up faster after a restart." group:"Server"`
	LeafExportBeats bool   `help:"Forward beats to the fleet's NATS, for subscribers there." group:"Server"`
}

// Validate checks the flags.
func (f *ServeFlags) Validate() error {
	if f.ServePort < 0 || f.ServePort > 65535 {
		return misused(fmt.Errorf("--serve-port: %d is not a port", f.ServePort), "use 1 to 65535, or 0 for a free one")
	}
	for _, o := range []struct{ flag, value string }{{"--leaf", f.Leaf}, {"--leaf-creds", f.LeafCreds}, {"--leaf-domain", f.LeafDomain}} {
		if o.value != "" && !f.Serve {
			return misused(fmt.Errorf("%s: there is no server to join", o.flag), "add --serve, or connect to the fleet's NATS with --nats URL")
		}
		if o.value != "" && f.Leaf == "" {
			return misused(fmt.Errorf("%s needs --leaf", o.flag), "add --leaf URL")
		}
	}
	return nil
}

// machine is the connection of a hive or a queen to NATS.
type machine struct {
	nc  *nats.Conn
	sys *nats.Conn       // nil: closed connections are not reported
	srv *embedded.Server // nil without --serve

	log    *slog.Logger
	cancel context.CancelFunc
	wg     sync.WaitGroup
}

// leave ends everything besides nc, which is closed already.
func (m *machine) leave() error {
	m.cancel()
	m.wg.Wait()
	if m.sys != nil {
		m.sys.Close()
	}
	if m.srv == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), leaveIn)
	defer cancel()
	return m.srv.Stop(ctx)
}

// own is the id of the server that this machine runs, or empty.
func (m *machine) own() string {
	if m.srv == nil {
		return ""
	}
	return m.srv.ID()
}

// reach connects the hive, to the server it runs if there is one.
func (cmd *hiveCmd) reach(ctx context.Context, id string, log *slog.Logger) (m *machine, err error) {
	inner, cancel := context.WithCancel(context.WithoutCancel(ctx))
	m = &machine{log: log, cancel: cancel}
	defer func() {
		if err != nil {
			if m.nc != nil {
				m.nc.Close()
			}
			err = errors.Join(err, m.leave())
		}
	}()
	name := "hive " + id
	if cmd.Serve {
		return m, cmd.serve(ctx, m, name)
	}
	if m.nc, err = cmd.join(ctx, name, cmd.Every, log); err != nil {
		return m, err
	}
	return m, m.hearSystem(ctx, inner, cmd.SystemFlags, cmd.ConnFlags, name, cmd.Every, "worker")
}

// queenEvery lets a queen leave a server that does not answer within seconds: other queens
// miss a queen that they have not heard from for 1.5 s. It is as short as the promise of any
// hive should be.
const queenEvery = time.Second

// reach connects the queen.
func (cmd *queenCmd) reach(ctx context.Context, name string, log *slog.Logger) (m *machine, err error) {
	inner, cancel := context.WithCancel(context.WithoutCancel(ctx))
	m = &machine{log: log, cancel: cancel}
	if m.nc, err = cmd.join(ctx, name, queenEvery, log); err == nil {
		err = m.hearSystem(ctx, inner, cmd.SystemFlags, cmd.ConnFlags, name, queenEvery, "hive")
	}
	if err != nil {
		if m.nc != nil {
			m.nc.Close()
		}
		err = errors.Join(err, m.leave())
	}
	return m, err
}

// hearSystem opens the second connection, if it is configured. It reports the closed
// connections of whom: workers or hives. It is tried until inner ends.
func (m *machine) hearSystem(ctx, inner context.Context, flags SystemFlags, conn ConnFlags, name string, every time.Duration, whom string) (err error) {
	if !flags.wanted() {
		return nil
	}
	if m.sys, err = flags.connectSystem(ctx, conn, bus.Config{Name: name + " system", Every: every, Logger: m.log}); err != nil {
		return err
	}
	dial := func() (*nats.Conn, error) { return conn.connect(inner, name+" tries") }
	m.wg.Go(func() { proveSystem(inner, m.sys, dial, whom, m.log) })
	return nil
}

// serve runs the server and connects to it.
func (cmd *hiveCmd) serve(ctx context.Context, m *machine, name string) error {
	cfg := embedded.Config{Port: cmd.ServePort, System: true, Logger: m.log}
	if cmd.Leaf != "" {
		cfg.Leaf = &embedded.Leaf{
			URL: cmd.Leaf, Creds: cmd.LeafCreds, Domain: cmd.LeafDomain,
			TLSCA: cmd.TLSCA, TLSCert: cmd.TLSCert, TLSKey: cmd.TLSKey,
		}
		if s := cmd.subjects(); !cmd.LeafExportBeats {
			cfg.Leaf.DenyExports = []string{s.Workers("*"), s.WorkersPinned("*")}
		}
	}
	var err error
	if m.srv, err = embedded.Start(ctx, cfg); err != nil {
		m.srv = nil
		return explainServe(err, cmd.ServePort)
	}
	connect := func(name string, opts ...nats.Option) (*nats.Conn, error) {
		return bus.Connect(ctx, bus.Config{Name: "hivebeat " + name, FailFast: true, Logger: m.log, Options: opts})
	}
	if m.nc, err = connect(name, nats.InProcessServer(m.srv)); err != nil {
		return err
	}
	if m.sys, err = connect(name+" system", m.srv.SystemOptions()...); err != nil {
		return err
	}
	m.log.Info("serving NATS for this machine", slog.String("url", m.srv.URL()), slog.Bool("leaf", cmd.Leaf != ""))
	return nil
}

func explainServe(err error, port int) error {
	if errors.Is(err, embedded.ErrPortTaken) {
		return failed(fmt.Errorf("port %d on 127.0.0.1 is in use, perhaps by another NATS server", port),
			"stop that server, or use another port with --serve-port N; without --serve the hive connects to it")
	}
	for field, flag := range map[string]string{ //nolint:gosec // names of flags
		"URL": "--leaf", "Creds": "--leaf-creds", "TLSCA": "--tls-ca", "TLSCert": "--tls-cert",
	} {
		if _, what, ok := strings.Cut(err.Error(), "Config.Leaf."+field+": "); ok {
			return misused(fmt.Errorf("%s: %s", flag, what), "check %s", flag)
		}
	}
	return err
}

// followUplink logs the state of the uplink. When it is back, the hive sends a snapshot:
// those sent in the meantime were lost.
func (m *machine) followUplink(ctx context.Context, h *hive.Hive, subjects hivebeat.Subjects) {
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	outer := m.cancel
	m.cancel = func() { cancel(); outer() }
	m.wg.Go(func() {
		err := m.srv.WatchUplink(ctx, subjects.Hives(), func(up bool) {
			if up {
				m.log.Info("uplink is up: sending a snapshot")
				h.Resend()
			} else {
				m.log.Warn("uplink is down: workers keep beating, snapshots are lost until it is back")
			}
		})
		if err != nil {
			m.log.Error("cannot watch the uplink: after a cut the next snapshot is sent on schedule", slog.Any("err", err))
		}
	})
}
