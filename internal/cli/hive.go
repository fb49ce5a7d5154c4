package cli

import (
	"context"
	"fmt"
	"time"

	"github.com/beatfabric/hivebeat"
	"github.com/beatfabric/hivebeat/hive"
)

type hiveCmd struct {
	ConnFlags
	LabelFlags
	LogFlags
	ID         string        `placeholder:"ID" help:"Id of the hive (default: the host name)."`
	Every      time.Duration `default:"15s" help:"Promise: the next snapshot comes within this."`
	PushFacts  time.Duration `placeholder:"DUR" help:"Send changed facts this soon, for schedulers that can not wait for the next snapshot."`
	StallAfter time.Duration `placeholder:"DUR" help:"Show a worker as stalled that was busy for this long without finishing anything; its label stall_after goes before."`
	Pinned     bool          `help:"Send on the hive's own subject, for permissions of one hive."`
}

// Validate checks the flags.
func (cmd *hiveCmd) Validate() error {
	if d := cmd.PushFacts; d != 0 && (d < time.Second || d > hivebeat.MaxEvery) {
		return misused(fmt.Errorf("--push-facts: %s is out of range", d), "use 1s to %s, or leave it out", hivebeat.MaxEvery)
	}
	if d := cmd.StallAfter; d != 0 && d < time.Second {
		return misused(fmt.Errorf("--stall-after: %s is out of range", d), "use 1s or more, or leave it out")
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
	log := c.logger(cmd.LogFlags)
	name := "hive " + id
	nc, err := cmd.connect(ctx, name, false, log)
	if err != nil {
		return err
	}
	h, err := hive.New(nc, hive.Config{
		ID: id, Prefix: cmd.Prefix, Every: cmd.Every, Labels: cmd.Label, Pinned: cmd.Pinned, PushFacts: cmd.PushFacts,
		StallAfter: cmd.StallAfter, Logger: log,
	})
	if err != nil {
		nc.Close()
		return misused(err, "hivebeat hive --help shows what there is")
	}
	return c.serve(ctx, name, h, nc, log)
}
