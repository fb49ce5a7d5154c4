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

type waitCmd struct {
	AskerFlags
	Model    string        `placeholder:"GLOB" env:"HIVEBEAT_FILTER_MODEL" help:"Count workers that serve a model that matches this glob."`
	Hive     string        `placeholder:"ID" env:"HIVEBEAT_FILTER_HIVE" help:"Count only workers of this hive."`
	Zone     string        `placeholder:"Z" env:"HIVEBEAT_FILTER_ZONE" help:"Count only workers in this zone."`
	Selector string        `placeholder:"EXPR" env:"HIVEBEAT_FILTER_SELECTOR" help:"Count only workers with such labels."`
	Ready    int           `default:"1" help:"Wait for this many workers that can serve."`
	Timeout  time.Duration `default:"5m" help:"Give up after this time."`
}

// Help is shown below the usage.
func (waitCmd) Help() string {
	return `It ends as soon as that many workers can serve: alive, ready or busy, and with nothing known against them.
For scripts and CI:

  hivebeat wait --model 'meta-llama/*' --ready 3 --timeout 10m && ./start-traffic

Exit code 0: they can; 1: not within the timeout, or no queen answers; 2: wrong use.`
}

// Validate checks the flags.
func (cmd *waitCmd) Validate() error {
	switch {
	case cmd.Ready < 1 || cmd.Ready > hivebeat.MaxWorkers:
		return misused(fmt.Errorf("--ready: %d is out of range", cmd.Ready), "use 1 to %d", hivebeat.MaxWorkers)
	case cmd.Timeout <= 0:
		return misused(fmt.Errorf("--timeout: %s is not a valid timeout", cmd.Timeout), "use something like --timeout 5m")
	}
	if _, err := api.ParseSelector(cmd.Selector); err != nil {
		return misused(fmt.Errorf("--%w", err), "write it as in Kubernetes: 'gpu,tier!=dev,disk in (ssd,nvme)'")
	}
	return first(checkID("--hive", cmd.Hive), checkText("--model", cmd.Model, hivebeat.MaxModel), checkText("--zone", cmd.Zone, hivebeat.MaxModel))
}

// waitEvery is the time between two looks: a worker that becomes ready is reported within a
// second or two, so looking more often would show nothing sooner.
const waitEvery = time.Second

// waitAnswer is how long one answer may take. A queen that does not answer is asked again.
const waitAnswer = 5 * time.Second

// Run waits.
func (cmd *waitCmd) Run(ctx context.Context, c *console) error {
	flags := AskFlags{AskerFlags: cmd.AskerFlags, Timeout: min(waitAnswer, cmd.Timeout)}
	began := time.Now()
	return flags.withQueen(ctx, c, "wait", func(ctx context.Context, a *asker) error {
		over, cancel := context.WithTimeout(ctx, cmd.Timeout-time.Since(began))
		defer cancel()
		n, last := 0, error(nil)
		for {
			n, last = cmd.count(over, a)
			switch {
			case last == nil && n >= cmd.Ready:
				return printLines(c, []string{fmt.Sprintf("%s can serve after %s", show.Plural(n, "worker"), time.Since(began).Round(100*time.Millisecond))})
			case errors.Is(last, client.ErrBadRequest):
				return last
			}
			select {
			case <-time.After(waitEvery):
			case <-over.Done():
				if ctx.Err() != nil {
					return ctx.Err()
				}
				why := fmt.Errorf("%d of %s can serve after %s", n, show.Plural(cmd.Ready, "worker"), cmd.Timeout)
				if last != nil && !errors.Is(last, context.DeadlineExceeded) {
					why = fmt.Errorf("%w: %w", why, last)
				}
				return failed(why, "\"hivebeat ls workers\" shows why the others cannot")
			}
		}
	})
}

// count returns how many workers can serve now.
func (cmd *waitCmd) count(ctx context.Context, a *asker) (n int, err error) {
	q := client.Query{Hive: cmd.Hive, Filter: api.Filter{
		Model: cmd.Model, Zone: cmd.Zone, Selector: cmd.Selector,
		Live: []hivebeat.Live{hivebeat.Alive}, State: []hivebeat.State{hivebeat.Ready, hivebeat.Busy},
	}}
	for p, err := range a.WorkerPages(ctx, q) {
		if err != nil {
			if errors.Is(err, client.ErrNotFound) { // the hive is not known yet
				return 0, nil
			}
			return n, err
		}
		for i := range p.Rows {
			if canServe(&p.Rows[i]) {
				n++
			}
		}
		if n >= cmd.Ready {
			return n, nil
		}
	}
	return n, nil
}

// canServe reports whether nothing is known against a worker that is alive and ready or busy.
func canServe(w *api.WorkerInfo) bool {
	onDisk := w.Model == "" && w.Engine != "" // an engine that has loaded no model, or that other workers stand for
	return w.Fresh && w.Drained == nil && !w.Stalled && !w.Closed && w.Rival == 0 && w.Quiet == 0 && !onDisk && !w.EngineSilent(w.Age) && (w.GPUFault == nil || !w.GPUFault.State.Bad())
}
