package cli

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"time"

	"github.com/beatfabric/hivebeat"
	"github.com/beatfabric/hivebeat/hive"
	"github.com/beatfabric/hivebeat/internal/detector"
	"github.com/beatfabric/hivebeat/worker"
)

type workerCmd struct {
	ConnFlags
	LabelFlags
	LogFlags
	WorkerMetricsFlags
	EngineFlags
	Hive     string        `required:"" placeholder:"ID" help:"Hive of this machine: its host name, unless it has another --id."`
	ID       string        `placeholder:"ID" help:"Id of the worker, unique within its hive (default: the host name, which is unique for a container)."`
	Model    string        `placeholder:"NAME" help:"Model it serves."`
	Endpoint string        `placeholder:"URL" help:"Address at which it serves the model."`
	State    string        `default:"ready" placeholder:"WORD" help:"State that it reports: starting, loading, ready, busy, degraded or draining (default ready)."`
	Slots    uint64        `placeholder:"N" help:"Requests it can serve at once."`
	GPU      []string      `placeholder:"UUID" help:"GPU or MIG instance that it uses, as in hivebeat get HIVE. May be repeated, or have several with commas. Without it, the hive goes by the memory of its processes."`
	Need     byteSize      `placeholder:"SIZE" help:"GPU memory that it will hold once it has loaded, kept free for it while its --state is starting or loading: bytes, or a number with M, G, MiB or GiB."`
	Every    time.Duration `default:"30s" help:"Promise: the next beat comes within this."`
	Pinned   bool          `help:"Beat on the worker's own subject, so that NATS permissions can be limited to one worker."`
}

// Help is shown below the usage.
func (workerCmd) Help() string {
	return `It beats for a program that does not beat itself. It runs the program, follows one that runs already, or reads
an engine's endpoints. Without any of these it beats for itself. It says goodbye on Ctrl-C:

  hivebeat worker --hive gpu-01 --id qwen --probe-url http://127.0.0.1:8000 -- vllm serve Qwen/Qwen3-8B
  hivebeat worker --hive gpu-01 --id llama --probe-url http://127.0.0.1:8080
  hivebeat worker --hive gpu-01 --id batch --restart on-failure -- ./batch --all
  hivebeat worker --hive gpu-01 --id llama --model Llama-3.3-70B --slots 8`
}

// Validate checks the flags.
func (cmd *workerCmd) Validate() error {
	if cmd.ID == "" {
		id, err := hive.DefaultID()
		if err != nil {
			return misused(err, "name the worker: --id llama, unique within its hive")
		}
		cmd.ID = id
	}
	if cmd.engine() && cmd.Metrics != "" && cmd.Metrics != metricsOff {
		return misused(errors.New("--metrics: only a worker that beats for itself has metrics"), "read those of its engine, or of its hive")
	}
	return first(
		checkID("--hive", cmd.Hive),
		checkID("--id", cmd.ID),
		checkEvery(cmd.Every),
		checkFirstState(hivebeat.State(cmd.State)),
		checkText("--model", cmd.Model, hivebeat.MaxModel),
		checkText("--endpoint", cmd.Endpoint, hivebeat.MaxEndpoint),
	)
}

// checkFirstState accepts the states that a worker may start with; empty means ready. The
// protocol allows other words too, but a worker that reports one is never picked. Here it is
// a typo; a program that needs such a word uses package worker.
func checkFirstState(s hivebeat.State) error {
	switch {
	case s.Goodbye():
		return misused(fmt.Errorf("--state: %s is a goodbye", s), "a worker says goodbye when it is stopped; start with ready")
	case s == "" || s.Known():
		return nil
	}
	first := slices.DeleteFunc(hivebeat.States(), hivebeat.State.Goodbye)
	return misused(fmt.Errorf("--state: %.40q is not a state of a worker", s), "use %s; ready and busy are picked for work", joined(first))
}

// Run beats until a signal comes.
func (cmd *workerCmd) Run(ctx context.Context, c *console) error {
	if len(cmd.Command) > 0 {
		return cmd.runProgram(ctx, c)
	}
	return c.agent(ctx, func(ctx context.Context) error { return cmd.run(ctx, c.logger(cmd.LogFlags)) })
}

// config returns what is known of the worker beforehand.
func (cmd *workerCmd) config(log *slog.Logger) worker.Config {
	labels := maps.Clone(cmd.Label)
	if cmd.StallAfter > 0 {
		if labels == nil {
			labels = map[string]string{}
		}
		labels[detector.StallLabel] = cmd.StallAfter.String()
	}
	return worker.Config{
		Hive: cmd.Hive, ID: cmd.ID, Prefix: cmd.Prefix, Pinned: cmd.Pinned, Every: cmd.Every, Model: cmd.Model,
		Endpoint: cmd.Endpoint, Slots: cmd.Slots, GPUs: cmd.GPU, Need: uint64(cmd.Need), Labels: labels, State: hivebeat.State(cmd.State), Logger: log,
	}
}

func (cmd *workerCmd) run(ctx context.Context, log *slog.Logger) error {
	if cmd.engine() {
		return cmd.runEngine(ctx, log)
	}
	name := "worker " + cmd.Hive + "/" + cmd.ID
	nc, err := cmd.join(ctx, name, cmd.Every, log)
	if err != nil {
		return err
	}
	w, err := worker.New(nc, cmd.config(log))
	if err != nil {
		nc.Close()
		return misused(err, "hivebeat worker --help lists the flags")
	}
	metrics, err := cmd.WorkerMetricsFlags.serve(ctx, w, log)
	if err != nil {
		nc.Close()
		return err
	}
	return serve(ctx, name, beside(w, log, metrics), nc, log)
}
