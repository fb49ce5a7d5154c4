package cli

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"runtime"
	"time"

	"github.com/beatfabric/hivebeat"
	"github.com/beatfabric/hivebeat/hive"
	"github.com/beatfabric/hivebeat/internal/discover"
)

type hiveCmd struct {
	ConnFlags
	SystemFlags
	ServeFlags
	LabelFlags
	GPUFlags
	CacheFlags
	LogFlags
	HiveMetricsFlags
	DiscoverFlags
	ID         string        `placeholder:"ID" help:"Id of the hive (default: the host name)."`
	Every      time.Duration `default:"15s" help:"Promise: the next snapshot comes within this."`
	PushFacts  time.Duration `placeholder:"DUR" help:"Send changed facts this soon, for schedulers that cannot wait for the next snapshot."`
	StallAfter time.Duration `placeholder:"DUR" help:"Show a worker as stalled when it has been busy for this long without finishing anything; its label stall_after takes precedence."`
	StoreDir   string        `placeholder:"DIR" help:"Report the free space of this file system too, such as that of a NATS server's store on this machine."`
	Pinned     bool          `help:"Send on the hive's own subject, so that NATS permissions can be limited to one hive."`
}

// Validate checks the flags.
func (cmd *hiveCmd) Validate() error {
	if d := cmd.PushFacts; d != 0 && (d < time.Second || d > hivebeat.MaxEvery) {
		return misused(fmt.Errorf("--push-facts: %s is out of range", d), "use 1s to %s, or leave it out", hivebeat.MaxEvery)
	}
	if d := cmd.StallAfter; d != 0 && d < time.Second {
		return misused(fmt.Errorf("--stall-after: %s is out of range", d), "use 1s or more, or leave it out")
	}
	if cmd.Serve && (cmd.NATS != "" || cmd.Context != "" || cmd.Creds != "" || cmd.NKey != "") {
		return misused(errors.New("--serve: the hive connects to its own server, not to that of --nats, --context, --creds or --nkey"),
			"leave out those flags and their environment variables; --leaf URL joins the server to the fleet's NATS")
	}
	if cmd.Serve && cmd.SystemFlags.wanted() {
		return misused(errors.New("--serve: the server reports closed connections to its hive; --system-creds and --system-nats are not needed"), "leave those out")
	}
	return first(checkID("--id", cmd.ID), checkEvery(cmd.Every))
}

// Run runs the hive until a signal comes.
func (cmd *hiveCmd) Run(ctx context.Context, c *console) error {
	id := cmd.ID
	if id == "" {
		var err error
		if id, err = hive.DefaultID(); err != nil {
			return misused(err, "name the hive: --id gpu-01, unique among your machines")
		}
	}
	if !cmd.Serve {
		stayOnFewCPUs()
	}
	return c.agent(ctx, func(ctx context.Context) error { return cmd.run(ctx, id, c.logger(cmd.LogFlags)) })
}

// hiveCPUs is how many CPUs a hive uses at once: one for the loop that judges, and one for
// what it reads.
const hiveCPUs = 2

// stayOnFewCPUs limits this process to hiveCPUs. Go prepares for every CPU of the machine
// otherwise: on one with 192, a hive has 73 threads and 10 MB more. The variable GOMAXPROCS
// takes precedence.
func stayOnFewCPUs() {
	if os.Getenv("GOMAXPROCS") == "" && runtime.GOMAXPROCS(0) > hiveCPUs {
		runtime.GOMAXPROCS(hiveCPUs)
	}
}

func (cmd *hiveCmd) run(ctx context.Context, id string, log *slog.Logger) error {
	name := "hive " + id
	m, err := cmd.reach(ctx, id, log)
	if err != nil {
		return err
	}
	cfg := hive.Config{
		ID: id, Prefix: cmd.Prefix, Every: cmd.Every, Labels: cmd.Label, Pinned: cmd.Pinned, PushFacts: cmd.PushFacts,
		StallAfter: cmd.StallAfter, CacheDir: cmd.CacheDir, StoreDir: cmd.StoreDir, System: m.sys, Own: m.own(), Logger: log,
	}
	if err := cmd.GPUFlags.apply(&cfg); err != nil {
		m.nc.Close()
		return errors.Join(err, m.leave())
	}
	h, err := hive.New(m.nc, cfg)
	if err != nil {
		m.nc.Close()
		return errors.Join(misused(err, "hivebeat hive --help lists the flags"), m.leave())
	}
	metrics, err := cmd.HiveMetricsFlags.serve(ctx, h, log)
	if err != nil {
		m.nc.Close()
		return errors.Join(err, m.leave())
	}
	if cmd.Leaf != "" {
		m.followUplink(ctx, h, cmd.subjects())
	}
	r, err := cmd.DiscoverFlags.beside(h, m.nc, discover.Config{Hive: id, Prefix: cmd.Prefix, Logger: log})
	if err != nil {
		m.nc.Close()
		return errors.Join(err, m.leave())
	}
	return errors.Join(serve(ctx, name, beside(r, log, metrics), m.nc, log), m.leave())
}
