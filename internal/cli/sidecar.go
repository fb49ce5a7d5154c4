package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"

	"github.com/beatfabric/hivebeat/internal/cli/enginefile"
	"github.com/beatfabric/hivebeat/internal/engines"
	"github.com/beatfabric/hivebeat/internal/life"
	"github.com/beatfabric/hivebeat/internal/probe"
	"github.com/beatfabric/hivebeat/internal/sidecar"
)

type sidecarCmd struct {
	ConnFlags
	LogFlags
	Hive   string        `placeholder:"ID" help:"Hive of this machine: its host name, unless it has another --id. Required, except with --check."`
	Config string        `required:"" placeholder:"FILE" help:"File that lists the engines, in YAML."`
	Check  bool          `help:"Check the file, print what would be watched, and exit."`
	Every  time.Duration `default:"30s" help:"Promise of each worker: the next beat comes within this."`
	Pinned bool          `help:"Beat on the workers' own subjects, so that NATS permissions can be limited."`
}

// Help is shown below the usage.
func (sidecarCmd) Help() string {
	return `It beats for engines that know nothing of hivebeat, any number in one process. The file:

  engines:
    - id: llama                       # of the worker, unique within the hive
      probe: {kind: vllm, url: "http://127.0.0.1:8000"}
      attach: {port: 8000}            # its process: or pid, pid_file, unit
      slots: 256                      # of these, what the engine does not say itself

Further keys of an engine: model endpoint gpus need labels stall_after; of a probe: every timeout token_file
ca_file map. SIGHUP reads the file again: only engines that changed restart, and a file with a fault changes nothing.`
}

// Validate checks the flags.
func (cmd *sidecarCmd) Validate() error {
	if cmd.Hive == "" && !cmd.Check {
		return misused(errors.New("--hive is missing"), "write --hive ID: the host name of this machine, unless its hive has another --id")
	}
	return first(checkID("--hive", cmd.Hive), checkEvery(cmd.Every))
}

// Run beats until a signal comes.
func (cmd *sidecarCmd) Run(ctx context.Context, c *console) error {
	list, err := readEngines(cmd.Config)
	if err != nil {
		return misused(err, "correct the file; \"hivebeat sidecar --check --config %s\" checks it", cmd.Config)
	}
	if cmd.Check {
		printEngines(c.out, cmd.Config, list)
		return nil
	}
	return c.agent(ctx, func(ctx context.Context) error { return cmd.run(ctx, list, c.logger(cmd.LogFlags)) })
}

func (cmd *sidecarCmd) run(ctx context.Context, list []enginefile.Engine, log *slog.Logger) error {
	name := "sidecar " + cmd.Hive
	nc, err := cmd.join(ctx, name, cmd.Every, log)
	if err != nil {
		return err
	}
	s := &sidecars{cmd: cmd, log: log, group: engines.New(nc, log), hup: make(chan os.Signal, 1), gone: make(chan struct{}), done: make(chan struct{})}
	signal.Notify(s.hup, syscall.SIGHUP)
	defer signal.Stop(s.hup)
	s.set(list)
	return serve(ctx, name, s, nc, log)
}

// readEngines reads a file, up to its limit.
func readEngines(name string) ([]enginefile.Engine, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, fmt.Errorf("--config: %w", err)
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, enginefile.MaxBytes+1))
	if err != nil {
		return nil, fmt.Errorf("--config: %w", err)
	}
	return enginefile.Parse(name, b)
}

func printEngines(w io.Writer, name string, list []enginefile.Engine) {
	fmt.Fprintf(w, "%s: %d engines\n", name, len(list))
	for i := range list {
		e := &list[i]
		how := "its process alone"
		if e.Probe != nil {
			how = fmt.Sprintf("%s at %s", orAuto(e.Probe.Kind), e.Probe.URL)
		}
		fmt.Fprintf(w, "  %s: %s, %s\n", e.Worker.ID, how, e.Attach)
	}
}

func orAuto(k probe.Kind) probe.Kind {
	if k == "" {
		return probe.Auto
	}
	return k
}

// sidecars is the role of a process with many engines.
type sidecars struct {
	cmd   *sidecarCmd
	log   *slog.Logger
	group *engines.Group
	hup   chan os.Signal
	once  sync.Once
	gone  chan struct{} // closed by Stop
	done  chan struct{} // closed when Run has returned
}

// Run beats for the engines, and reads the file again at SIGHUP.
func (s *sidecars) Run(context.Context) error {
	defer close(s.done)
	defer s.group.Stop()
	for {
		select {
		case <-s.gone:
			return nil
		case id := <-s.group.Ended():
			s.log.Warn("nothing to watch any longer: the process has ended, and no other one can take its place",
				slog.String("worker", id), slog.String("hint", "attach by port, pid_file or unit follows the next process too"))
		case <-s.hup:
			list, err := readEngines(s.cmd.Config)
			if err != nil {
				s.log.Error("the file was not read again: everything stays as it was", slog.String("err", oneLine(err.Error())))
				continue
			}
			s.set(list)
			s.log.Info("read the file again", slog.String("file", s.cmd.Config), slog.Int("engines", len(list)))
		}
	}
}

// Stop says goodbye for all engines.
func (s *sidecars) Stop(ctx context.Context) error {
	s.once.Do(func() { close(s.gone) })
	select {
	case <-s.done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// set makes the group run the engines of the list. One whose process cannot be followed is left
// out.
func (s *sidecars) set(list []enginefile.Engine) {
	specs := make([]engines.Spec, 0, len(list))
	for i := range list {
		e := &list[i]
		source, err := s.source(e.Attach)
		if err != nil {
			s.log.Error("engine left out", slog.String("worker", e.Worker.ID), slog.Any("err", err))
			continue
		}
		w := e.Worker
		w.Hive, w.Prefix, w.Pinned, w.Every, w.Logger = s.cmd.Hive, s.cmd.Prefix, s.cmd.Pinned, s.cmd.Every, s.log
		specs = append(specs, engines.Spec{
			ID: w.ID, Version: e.Version(),
			Config: sidecar.Config{Worker: w, Source: source, Probe: e.Probe, Logger: s.log},
		})
	}
	s.group.Set(specs, nil)
}

// source returns the source of an engine's processes, or nil if none is named.
func (s *sidecars) source(a enginefile.Attach) (life.Source, error) {
	cfg := life.Config{Logger: s.log}
	switch {
	case a.PID != 0:
		return life.PID(a.PID, cfg)
	case a.PIDFile != "":
		return life.PIDFile(a.PIDFile, cfg)
	case a.Port != 0:
		return life.Port(a.Port, cfg)
	case a.Unit != "":
		return life.Unit(a.Unit, cfg)
	}
	return nil, nil
}
