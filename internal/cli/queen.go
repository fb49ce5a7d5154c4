package cli

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/beatfabric/hivebeat/internal/cli/show"
	"github.com/beatfabric/hivebeat/internal/inbox"
	"github.com/beatfabric/hivebeat/queen"
)

// KeepFlags say what a queen stores in JetStream, and how.
type KeepFlags struct {
	NoJetStream bool     `name:"no-jetstream" help:"Keep nothing in JetStream; publish events directly."`
	Replicas    int      `default:"1" help:"Replicas of the buckets and the stream, if this queen creates them."`
	Storage     string   `enum:"file,memory" default:"file" help:"Storage of the buckets and the stream, if this queen creates them: ${enum}."`
	EventsMax   byteSize `default:"64MiB" placeholder:"SIZE" help:"Size of the event stream, which JetStream reserves: bytes, or a number with M, G, MiB or GiB (default 64MiB)."`
}

// byteSize is a size as people write it: 1048576, 1024KiB, 128MiB, 2GiB.
type byteSize int64

// UnmarshalText reads a size.
func (n *byteSize) UnmarshalText(text []byte) error {
	v, err := show.ParseSize(string(text))
	if err != nil {
		return err
	}
	*n = byteSize(v)
	return nil
}

// Validate checks the numbers.
func (f *KeepFlags) Validate() error {
	switch {
	case f.Replicas < 1 || f.Replicas > 5:
		return misused(fmt.Errorf("--replicas: %d is not within 1 to 5", f.Replicas), "3 replicas survive the loss of a server, 1 does not")
	case f.EventsMax < 1<<20:
		return misused(fmt.Errorf("--events-max: %d bytes are too few", f.EventsMax), "use 1MiB or more")
	}
	return nil
}

func (f *KeepFlags) storage() jetstream.StorageType {
	if f.Storage == "memory" {
		return jetstream.MemoryStorage
	}
	return jetstream.FileStorage
}

// BrakeFlags say when the brake holds hives that would be lost.
type BrakeFlags struct {
	Brake brakeShare `default:"30%" placeholder:"PERCENT" help:"Share of a zone's hives that may be lost within 10 s before the brake holds them (default 30%); off disables the brake."`
}

// brakeShare is the value of --brake: "30%", or "off", which is 0.
type brakeShare float64

// UnmarshalText reads the flag.
func (b *brakeShare) UnmarshalText(text []byte) error {
	if string(text) == "off" {
		*b = 0
		return nil
	}
	digits, percent := strings.CutSuffix(string(text), "%")
	n, err := strconv.ParseFloat(digits, 64)
	if err != nil || !percent || !(n > 0 && n <= 100) {
		return misused(fmt.Errorf("--brake: %q is not a share", text), "use a share like 30%%, or off")
	}
	*b = brakeShare(n / 100)
	return nil
}

type queenCmd struct {
	ConnFlags
	SystemFlags
	LogFlags
	KeepFlags
	BrakeFlags
	HTTPFlags
	QueenMetricsFlags
	WebhookFlags
	ID    string        `placeholder:"ID" help:"Id of the queen, shown in its answers (default: a random one)."`
	Fresh time.Duration `default:"45s" help:"Age up to which a record counts as fresh."`

	InboxPrefix []string `placeholder:"P" help:"Answer to inboxes below P too, for clients with a custom inbox prefix. May be repeated."`
}

// Validate checks the flags.
func (cmd *queenCmd) Validate() error {
	if cmd.Fresh <= 0 {
		return misused(fmt.Errorf("--fresh: %s is not a valid age", cmd.Fresh), "use something like 45s")
	}
	if _, err := inbox.New(cmd.subjects(), cmd.InboxPrefix...); err != nil {
		return misused(fmt.Errorf("--inbox-prefix: %w", err), "use the inbox prefix of the clients, such as _INBOX_ops; inboxes below _INBOX always work")
	}
	return checkID("--id", cmd.ID)
}

// Run runs the queen until a signal comes.
func (cmd *queenCmd) Run(ctx context.Context, c *console) error {
	return c.agent(ctx, func(ctx context.Context) error { return cmd.run(ctx, c.logger(cmd.LogFlags)) })
}

func (cmd *queenCmd) run(ctx context.Context, log *slog.Logger) error {
	name := "queen"
	if cmd.ID != "" {
		name += " " + cmd.ID
	}
	m, err := cmd.reach(ctx, name, log)
	if err != nil {
		return err
	}
	q, err := queen.New(m.nc, queen.Config{
		ID: cmd.ID, Prefix: cmd.Prefix, InboxPrefixes: cmd.InboxPrefix, Fresh: cmd.Fresh, NoJetStream: cmd.NoJetStream, Replicas: cmd.Replicas,
		Storage: cmd.storage(), EventsMax: int64(cmd.EventsMax), BrakeOff: cmd.Brake == 0, BrakeShare: float64(cmd.Brake), System: m.sys, Logger: log,
	})
	if err != nil {
		m.nc.Close()
		return errors.Join(misused(err, "hivebeat queen --help lists the flags"), m.leave())
	}
	hooks, err := cmd.webhooks(m.nc, cmd.Prefix, cmd.NoJetStream, log)
	if err != nil {
		m.nc.Close()
		return errors.Join(err, m.leave())
	}
	web, err := cmd.listen(ctx, q, m.nc, cmd.handler(q, hooks), log)
	if err != nil {
		m.nc.Close()
		return errors.Join(err, m.leave())
	}
	return errors.Join(serve(ctx, name, web.beside(besideQueen(q, hooks, log)), m.nc, log), m.leave())
}
