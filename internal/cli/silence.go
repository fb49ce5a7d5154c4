package cli

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/beatfabric/hivebeat"
	"github.com/beatfabric/hivebeat/internal/cli/show"
	"github.com/beatfabric/hivebeat/queen/api"
	"github.com/beatfabric/hivebeat/queen/client"
)

// WorkerArg names a hive, or one of its workers.
type WorkerArg struct {
	ID string `arg:"" name:"hive[/worker]" help:"A hive, or a worker of it."`
}

// Validate checks the ids.
func (p *WorkerArg) Validate() error {
	g := getCmd{ID: p.ID}
	return g.Validate()
}

func (p *WorkerArg) place() client.Place {
	g := getCmd{ID: p.ID}
	hive, worker, _ := g.ids()
	return client.Place{Hive: hive, Worker: worker}
}

type silenceCmd struct {
	AskFlags
	WorkerArg
	For    time.Duration `required:"" placeholder:"DUR" env:"HIVEBEAT_SILENCE_FOR" help:"End by itself after this time, such as 2h; 7 days at most."`
	Reason string        `placeholder:"TEXT" env:"HIVEBEAT_SILENCE_REASON" help:"Why, for everyone who looks."`
}

// Help is shown below the usage.
func (silenceCmd) Help() string {
	return `Deaths and faults of what is silenced are recorded and shown, but wake nobody: webhooks do not deliver the events, and the
counters for alerts do not count them. Returns are delivered. A hive is silenced with its workers and GPUs.

  hivebeat silence gpu-01 --for 2h --reason 'kernel update'
  hivebeat silence gpu-01/llama --for 30m

It needs the permission to hold places. With --asker, everyone sees who silenced it. It gives no protection from new
work: see drain. With -o json it prints one document {"directive":{…},"status":{…}}.`
}

const maxSilence = 7 * 24 * time.Hour

// Validate checks the flags.
func (cmd *silenceCmd) Validate() error {
	if cmd.For < time.Second || cmd.For > maxSilence {
		return misused(fmt.Errorf("--for: %s is out of range", cmd.For), "use 1s to %s, such as 2h", maxSilence)
	}
	return checkText("--reason", cmd.Reason, hivebeat.MaxReason)
}

// Run silences.
func (cmd *silenceCmd) Run(ctx context.Context, c *console) error {
	return cmd.withQueen(ctx, c, "silence", func(ctx context.Context, a *asker) error {
		r := client.SilenceRequest{Place: cmd.place(), Reason: cmd.Reason, During: cmd.For}
		d, err := askOne(ctx, a, api.VerbSilence, func(ctx context.Context) (client.Silenced, error) { return a.Silence(ctx, r) })
		switch {
		case errors.Is(err, errNotFound):
			return failed(err, "\"hivebeat ls hives\" lists the known hives, \"hivebeat get %s\" what is on it", r.Hive)
		case err != nil:
			return err
		}
		return cmd.printDirective(c, &d.Directive, d.Status, show.Silenced)
	})
}

type unsilenceCmd struct {
	AskFlags
	WorkerArg
}

// Help is shown below the usage.
func (unsilenceCmd) Help() string {
	return `It ends a silence: "hivebeat unsilence gpu-01". A worker that is silenced with its hive is not silenced itself. It needs
the permission to hold places. With -o json it prints one document {"directive":{…},"status":{…}}, with the silence that
has ended.`
}

// Run ends a silence.
func (cmd *unsilenceCmd) Run(ctx context.Context, c *console) error {
	return cmd.withQueen(ctx, c, "unsilence", func(ctx context.Context, a *asker) error {
		p := cmd.place()
		d, err := askOne(ctx, a, api.VerbUnsilence, func(ctx context.Context) (client.Silenced, error) { return a.Unsilence(ctx, p) })
		switch {
		case errors.Is(err, errNotFound):
			return failed(err, "\"hivebeat ls hives\" and \"hivebeat get %s\" show what is silenced", p.Hive)
		case err != nil:
			return err
		}
		return cmd.printEnded(c, &d.Directive, d.Status, show.Silenced)
	})
}
