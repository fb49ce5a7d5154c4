package cli

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/beatfabric/hivebeat"
	"github.com/beatfabric/hivebeat/bus"
	"github.com/beatfabric/hivebeat/bus/embedded"
	"github.com/beatfabric/hivebeat/hive"
	"github.com/beatfabric/hivebeat/internal/demo"
	"github.com/beatfabric/hivebeat/internal/discover"
	"github.com/beatfabric/hivebeat/internal/plaintext"
	"github.com/beatfabric/hivebeat/queen"
	"github.com/beatfabric/hivebeat/queen/client"
)

type upCmd struct {
	PrefixFlag
	LabelFlags
	GPUFlags
	CacheFlags
	LogFlags
	BrakeFlags
	HTTPFlags
	QueenMetricsFlags
	HiveMetricsFlags
	WebhookFlags
	DiscoverFlags
	Port  int    `default:"4222" help:"Port of the server, on 127.0.0.1; 0 picks a free one."`
	Store string `placeholder:"DIR" help:"Directory for JetStream's files (default: in the user's data directory; with --demo a temporary one)."`
	ID    string `placeholder:"ID" help:"Id of this machine's hive (default: the host name)."`
	Demo  bool   `help:"Add a small simulated fleet that changes."`
}

// Help is shown below the usage.
func (upCmd) Help() string {
	return `It needs nothing else: the NATS server, with JetStream, is in the process and listens on 127.0.0.1 only.
It has none of the connection flags of the other commands.`
}

// Validate checks the flags.
func (cmd *upCmd) Validate() error {
	if cmd.Port < 0 || cmd.Port > 65535 {
		return misused(fmt.Errorf("--port: %d is not a port", cmd.Port), "use 1 to 65535, or 0 for a free one")
	}
	return checkID("--id", cmd.ID)
}

// Run runs everything until a signal comes.
func (cmd *upCmd) Run(ctx context.Context, c *console) error {
	return c.agent(ctx, func(ctx context.Context) error { return cmd.run(ctx, c) })
}

func (cmd *upCmd) run(ctx context.Context, c *console) error {
	log := c.logger(cmd.LogFlags)
	store, err := cmd.store()
	if err != nil {
		return err
	}
	srv, err := embedded.Start(ctx, embedded.Config{Port: cmd.Port, JetStream: true, StoreDir: store, System: true, Logger: log})
	if err != nil {
		return cmd.explain(err, store)
	}
	u := &up{cmd: cmd, srv: srv, log: log}
	if u.sys, err = u.connect(ctx, "hivebeat system", log, srv.SystemOptions()...); err == nil {
		err = u.run(ctx, c)
		u.sys.Close()
	}
	leave, cancel := context.WithTimeout(context.Background(), leaveIn)
	defer cancel()
	return errors.Join(err, srv.Stop(leave))
}

// store returns the directory for JetStream. If it is empty, the server uses a temporary one and
// removes it when it stops.
func (cmd *upCmd) store() (string, error) {
	if cmd.Store != "" || cmd.Demo {
		return cmd.Store, nil
	}
	base, err := dataDir()
	if err != nil {
		return "", failed(err, "name a directory with --store DIR")
	}
	return filepath.Join(base, "hivebeat"), nil
}

func (cmd *upCmd) explain(err error, store string) error {
	switch {
	case errors.Is(err, embedded.ErrPortTaken):
		return failed(fmt.Errorf("port %d on 127.0.0.1 is in use, perhaps by another NATS server", cmd.Port),
			"use it (\"hivebeat queen\" and \"hivebeat hive\" connect to it), or use another port with --port N; --port 0 picks a free one")
	case errors.Is(err, embedded.ErrStoreLocked):
		return failed(fmt.Errorf("another hivebeat uses %s: %w", store, err), "stop it, or use another directory with --store DIR")
	case errors.Is(err, embedded.ErrStore):
		return failed(err, "use another directory with --store DIR")
	}
	return err
}

// up is a server with a queen, a hive, and optionally a demo.
type up struct {
	cmd   *upCmd
	srv   *embedded.Server
	sys   *nats.Conn // reports closed connections to the hives and the queen
	log   *slog.Logger
	web   *web
	roles []*running // in the order of their start
}

func (u *up) run(ctx context.Context, c *console) (err error) {
	defer func() { err = errors.Join(err, u.leave()) }()
	if err := u.queen(ctx); err != nil {
		return err
	}
	id, err := u.hive(ctx)
	if err != nil {
		return err
	}
	u.awaitAnswer(ctx)
	fmt.Fprint(c.out, u.greeting(id))

	var demos sync.WaitGroup
	defer demos.Wait() // before the hive and the queen leave
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	if u.cmd.Demo {
		demos.Go(func() {
			if err := u.demo(ctx, id); err != nil {
				cancel(err)
			}
		})
	}
	for _, r := range u.roles {
		go func() {
			<-r.ended
			cancel(r.why())
		}()
	}
	<-ctx.Done()
	if cause := context.Cause(ctx); !errors.Is(cause, errInterrupted) && !errors.Is(cause, context.Canceled) {
		return cause
	}
	u.log.Info("shutting down; a second signal exits at once")
	return nil
}

// awaitAnswer waits until the queen answers, so that the commands in the greeting work. A
// queen that takes long logs the reason.
func (u *up) awaitAnswer(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	c, err := client.New(u.roles[0].nc, client.Config{Prefix: u.cmd.Prefix, Timeout: time.Second})
	for err == nil && ctx.Err() == nil {
		if _, err := c.Summary(ctx); err == nil {
			return
		}
		select {
		case <-time.After(20 * time.Millisecond):
		case <-ctx.Done():
		}
	}
}

// leave stops the roles in reverse order of their start.
func (u *up) leave() error {
	var errs []error
	for len(u.roles) > 0 {
		last := len(u.roles) - 1
		errs = append(errs, u.roles[last].leave())
		u.roles = u.roles[:last]
	}
	return errors.Join(errs...)
}

// connect opens a connection within the process.
func (u *up) connect(ctx context.Context, name string, log *slog.Logger, opts ...nats.Option) (*nats.Conn, error) {
	opts = append([]nats.Option{nats.InProcessServer(u.srv)}, opts...)
	nc, err := bus.Connect(ctx, bus.Config{Name: name, FailFast: true, Logger: log, Options: opts})
	if err != nil {
		return nil, fmt.Errorf("connect to the embedded server: %w", err)
	}
	return nc, nil
}

func (u *up) queen(ctx context.Context) error {
	nc, err := u.connect(ctx, "hivebeat queen", u.log)
	if err != nil {
		return err
	}
	q, err := queen.New(nc, queen.Config{Prefix: u.cmd.Prefix, BrakeOff: u.cmd.Brake == 0, BrakeShare: float64(u.cmd.Brake), System: u.sys, Own: u.srv.ID(), Logger: u.log})
	if err != nil {
		nc.Close()
		return err
	}
	hooks, err := u.cmd.webhooks(nc, u.cmd.Prefix, false, u.log)
	if err != nil {
		nc.Close()
		return err
	}
	if u.web, err = u.cmd.listen(ctx, q, nc, u.cmd.handler(q, hooks), u.log); err != nil {
		nc.Close()
		return err
	}
	u.roles = append(u.roles, begin(ctx, "queen", u.web.beside(besideQueen(q, hooks, u.log)), nc))
	return nil
}

func (u *up) hive(ctx context.Context) (id string, err error) {
	if id = u.cmd.ID; id == "" {
		if id, err = hive.DefaultID(); err != nil {
			// No other machine can reach this server, so no id can collide.
			id = "local"
			u.log.Warn("the host name is not a valid hive id; set one with --id", slog.String("hive", id), slog.Any("err", err))
		}
	}
	nc, err := u.connect(ctx, "hivebeat hive "+id, u.log)
	if err != nil {
		return "", err
	}
	cfg := hive.Config{
		ID: id, Prefix: u.cmd.Prefix, Labels: u.cmd.Label, CacheDir: u.cmd.CacheDir, StoreDir: u.srv.Config().StoreDir,
		System: u.sys, Own: u.srv.ID(), Logger: u.log,
	}
	if err := u.cmd.GPUFlags.apply(&cfg); err != nil {
		nc.Close()
		return "", err
	}
	h, err := hive.New(nc, cfg)
	if err != nil {
		nc.Close()
		return "", err
	}
	metrics, err := u.cmd.HiveMetricsFlags.serve(ctx, h, u.log)
	if err != nil {
		nc.Close()
		return "", err
	}
	r, err := u.cmd.DiscoverFlags.beside(h, nc, discover.Config{Hive: id, Prefix: u.cmd.Prefix, Logger: u.log})
	if err != nil {
		nc.Close()
		return "", err
	}
	u.roles = append(u.roles, begin(ctx, "hive "+id, beside(r, u.log, metrics), nc))
	return id, nil
}

func (u *up) demo(ctx context.Context, avoid string) error {
	// What happens to the simulated fleet is expected, so only the real hive and queen are
	// logged, unless the level is debug.
	log := u.log
	if !log.Enabled(ctx, slog.LevelDebug) {
		log = nil
	}
	connect := func(name string) (*nats.Conn, error) { return u.connect(context.WithoutCancel(ctx), name, nil) }
	return demo.Run(ctx, demo.Config{Connect: connect, System: u.sys, Prefix: u.cmd.Prefix, Avoid: avoid, Seed: rand.Uint64(), Logger: log})
}

// greeting says what runs and which commands to try next.
func (u *up) greeting(id string) string {
	store := u.srv.Config().StoreDir
	url := u.srv.URL()
	flags, nats := "", ""
	if url != "nats://127.0.0.1:4222" {
		flags, nats = " --nats "+url, " -s "+url
	}
	sub, _ := hivebeat.NewSubjects(u.cmd.Prefix)
	if u.cmd.Prefix != "" {
		flags += " --prefix " + u.cmd.Prefix
	}
	var b strings.Builder
	fmt.Fprintf(&b, "hivebeat is up: NATS with JetStream on %s, a queen, and hive %s for this machine.\n", url, id)
	kept := "It keeps its data in " + store + "."
	if u.cmd.Demo {
		hives, workers := demo.Size()
		fmt.Fprintf(&b, "A demo of %d machines and %d workers changes every few seconds.\n", hives, workers)
		if u.cmd.Store == "" {
			kept = "Its data is in " + store + " and is removed when it ends."
		}
	}
	fmt.Fprintf(&b, "%s Ctrl-C stops it.\n", kept)
	if url := u.web.url(); url != "" {
		fmt.Fprintf(&b, "\nIn a browser:\n\n  %s\n", url)
		if beyond := u.web.beyond(); beyond != "" {
			who := "everyone who can reach it"
			if u.cmd.HTTPTokenFile != "" {
				who = "everyone with the token"
			}
			fmt.Fprintf(&b, "      from other machines too: it listens on %s, for %s\n", beyond, who)
		}
	}
	b.WriteString("\nIn another terminal:\n\n")
	for _, line := range [][2]string{
		{"hivebeat ls" + flags, "which workers are alive"},
		{"hivebeat watch" + flags, "live, with events"},
		{"hivebeat worker --hive " + id + " --id llama --model Llama-3.3-70B --slots 8" + flags, "a worker of your own"},
		{"nats" + nats + " sub '" + sub.Events() + "'", "events, with the nats CLI"},
		{"nats" + nats + " sub " + sub.Hives() + " --translate \"hivebeat decode\"", "snapshots"},
	} {
		fmt.Fprintf(&b, "  %s\n      %s\n", line[0], line[1])
	}
	return plaintext.Lines(b.String()) + "\n" // the directory of the store may have any name
}
