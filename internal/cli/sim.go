package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/beatfabric/hivebeat/internal/cli/show"
	"github.com/beatfabric/hivebeat/internal/plaintext"
	"github.com/beatfabric/hivebeat/internal/sim"
	"github.com/beatfabric/hivebeat/internal/whatif"
)

// The environment variables of simCmd start with HIVEBEAT_SIM_: a worker's HIVEBEAT_EVERY
// must not become the simulated one on its machine.
type simCmd struct {
	OutFlag
	Seed    uint64        `placeholder:"N" help:"First seed (default 1)." group:"Search for faults" env:"HIVEBEAT_SIM_SEED"`
	Seeds   int           `placeholder:"COUNT" help:"How many seeds (default 1 with --seed, 200 without)." group:"Search for faults" env:"HIVEBEAT_SIM_SEEDS"`
	For     time.Duration `placeholder:"DUR" help:"Simulated time of each run (default: the seed's choice)." group:"Search for faults" env:"HIVEBEAT_SIM_FOR"`
	Late    time.Duration `placeholder:"DUR" help:"Delay a fifth of the messages by up to this, and hold only what does not rest on messages in time: no resurrection, no false conflict, each event once." group:"Search for faults" env:"HIVEBEAT_SIM_LATE"`
	Plan    string        `placeholder:"FILE" help:"Run this plan, such as a failing run has left." group:"Search for faults" env:"HIVEBEAT_SIM_PLAN"`
	Keep    string        `placeholder:"DIR" help:"Write the shortened plan of a failing run there." group:"Search for faults" env:"HIVEBEAT_SIM_KEEP"`
	Verbose bool          `short:"v" help:"Print all that happens in the run of one seed." group:"Search for faults" env:"HIVEBEAT_SIM_VERBOSE"`

	Loss      string        `placeholder:"P" help:"Messages lost, such as 5%." group:"Choose settings" env:"HIVEBEAT_SIM_LOSS"`
	Delay     time.Duration `placeholder:"DUR" help:"Delay of every message." group:"Choose settings" env:"HIVEBEAT_SIM_DELAY"`
	Jitter    time.Duration `placeholder:"DUR" help:"Up to so much more, at random." group:"Choose settings" env:"HIVEBEAT_SIM_JITTER"`
	Every     time.Duration `placeholder:"DUR" help:"Promise of workers (default 30s)." group:"Choose settings" env:"HIVEBEAT_SIM_EVERY"`
	HiveEvery time.Duration `placeholder:"DUR" help:"Promise of hives (default 15s)." group:"Choose settings" env:"HIVEBEAT_SIM_HIVE_EVERY"`
	Misses    float64       `placeholder:"N" help:"Lost after so many promises (default 3, which is what hivebeat does)." group:"Choose settings" env:"HIVEBEAT_SIM_MISSES"`
	Workers   int           `placeholder:"N" help:"Workers of the fleet (default 100)." group:"Choose settings" env:"HIVEBEAT_SIM_WORKERS"`
	Hives     int           `placeholder:"N" help:"Hives of the fleet (default 10)." group:"Choose settings" env:"HIVEBEAT_SIM_HIVES"`

	loss float64
}

// Help is shown below the usage.
func (*simCmd) Help() string {
	return `Without settings it searches for faults: each seed makes a fleet, a network and a list of
things that go wrong, and runs the real judgement of hives and queens under a virtual clock. The
exit code is 1 if anything that must hold did not; the seed and a shortened history say how.

With any setting it says what to expect of them: false deaths a month, and how long a crash goes
unnoticed by silence alone.

Examples:

  hivebeat sim --seeds 1000
  hivebeat sim --seed 42 -v
  hivebeat sim --loss 5% --delay 200ms --jitter 100ms --every 10s --hive-every 5s`
}

// asks reports whether the command evaluates settings.
func (cmd *simCmd) asks() bool {
	return cmd.Loss != "" || cmd.Delay != 0 || cmd.Jitter != 0 || cmd.Every != 0 || cmd.HiveEvery != 0 || cmd.Misses != 0 ||
		cmd.Workers != 0 || cmd.Hives != 0
}

// Validate checks every flag, and that they may be combined.
func (cmd *simCmd) Validate() error {
	bad := func(flag, format string, args ...any) error {
		return misused(fmt.Errorf(flag+": "+format, args...), "hivebeat sim --help has examples")
	}
	searches := cmd.Seeds != 0 || cmd.For != 0 || cmd.Late != 0 || cmd.Plan != "" || cmd.Keep != "" || cmd.Verbose
	if cmd.asks() && searches {
		return misused(errors.New("sim: settings are asked about without --seeds, --for, --plan, --keep and -v"),
			"drop one or the other: with --loss and the like it does not search for faults")
	}
	if cmd.Loss != "" {
		text, percent := strings.CutSuffix(cmd.Loss, "%")
		v, err := strconv.ParseFloat(text, 64)
		if percent {
			v /= 100
		}
		if err != nil || !(v >= 0 && v <= 0.9) {
			return bad("--loss", "%.40q is not between 0 and 90%%", cmd.Loss)
		}
		cmd.loss = v
	}
	switch {
	case cmd.Plan != "" && (cmd.Seed != 0 || cmd.Seeds != 0 || cmd.For != 0 || cmd.Late != 0):
		return bad("--plan", "a plan has its own seed and time")
	case cmd.Seeds < 0 || cmd.Seeds > 10_000_000:
		return bad("--seeds", "%d is not between 1 and 10000000", cmd.Seeds)
	case cmd.For < 0 || cmd.For > 24*time.Hour || cmd.For > 0 && cmd.For < time.Minute:
		return bad("--for", "%s is not between 1m and 24h", cmd.For)
	case cmd.Late < 0 || cmd.Late > time.Hour:
		return bad("--late", "%s is not between 0s and 1h", cmd.Late)
	case cmd.Verbose && cmd.Seeds > 1:
		return bad("-v", "all that happens is told of one seed only")
	case cmd.Delay < 0 || cmd.Delay > time.Hour:
		return bad("--delay", "%s is not between 0 and 1h", cmd.Delay)
	case cmd.Jitter < 0 || cmd.Jitter > time.Hour:
		return bad("--jitter", "%s is not between 0 and 1h", cmd.Jitter)
	case cmd.Misses != 0 && !(cmd.Misses >= 1 && cmd.Misses <= 20):
		return bad("--misses", "%g is not between 1 and 20", cmd.Misses)
	case cmd.Workers < 0 || cmd.Hives < 0:
		return bad("--workers", "a fleet is not negative")
	}
	if cmd.Every != 0 {
		if err := checkEvery(cmd.Every); err != nil {
			return err
		}
	}
	if cmd.HiveEvery != 0 {
		return checkEvery(cmd.HiveEvery)
	}
	return nil
}

// Run searches for faults, or evaluates settings.
func (cmd *simCmd) Run(ctx context.Context, c *console) error {
	ctx, stop := c.untilSignal(ctx)
	defer stop()
	switch {
	case cmd.asks():
		return cmd.answer(c)
	case cmd.Plan != "":
		p, err := sim.ReadPlan(cmd.Plan)
		if err != nil {
			return failed(err, "a plan is a JSON file that sim --keep has written")
		}
		return cmd.runOne(c, p)
	case cmd.Verbose:
		return cmd.runOne(c, sim.Generate(max(1, cmd.Seed), cmd.For, cmd.Late))
	}
	n := cmd.Seeds
	if n == 0 {
		n = 200
		if cmd.Seed != 0 {
			n = 1
		}
	}
	s := sim.RunSeeds(max(1, cmd.Seed), n, cmd.For, cmd.Late, 1, func() bool { return ctx.Err() != nil })
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if len(s.Failed) > 0 {
		s.Failed[0] = sim.Shorten(s.Failed[0].Plan, s.Failed[0].Broken.Invariant)
	}
	if cmd.json() {
		if err := printJSON(c, s); err != nil {
			return err
		}
	} else {
		line := fmt.Sprintf("%s, %s simulated in %s: %d messages, %d events, %d steps", show.Plural(s.Runs, "run"),
			s.Stats.Simulated.D().Round(time.Minute), s.Took.Round(time.Millisecond), s.Stats.Messages, s.Stats.Events, s.Stats.Happenings)
		if len(s.Failed) == 0 {
			line += "; all held"
		}
		if err := printLines(c, []string{line}); err != nil {
			return err
		}
	}
	if len(s.Failed) == 0 {
		return nil
	}
	return cmd.tellFailure(c, &s.Failed[0])
}

// runOne runs one plan and prints its whole history.
func (cmd *simCmd) runOne(c *console, p sim.Plan) error {
	r, err := sim.Run(p, true)
	if err != nil {
		return failed(err, "a plan is a JSON file that sim --keep has written")
	}
	if cmd.json() {
		if err := printJSON(c, r); err != nil {
			return err
		}
	} else if r.Broken == nil || cmd.Verbose {
		lines := []string{fmt.Sprintf("seed %d: %s simulated, %d messages, %d events; all held", p.Seed, r.Stats.Simulated.D().Round(time.Second), r.Stats.Messages, r.Stats.Events)}
		if r.Broken != nil {
			lines = nil
		}
		if cmd.Verbose {
			for i, l := range r.History {
				r.History[i] = plaintext.Line(l)
			}
			lines = append(r.History, lines...)
		}
		if err := printLines(c, lines); err != nil {
			return err
		}
		r.History = nil
	}
	if r.Broken == nil {
		return nil
	}
	return cmd.tellFailure(c, &r)
}

// longest is how many lines of a history are printed, counted from its end.
const longest = 60

// tellFailure reports what did not hold, and the history that led to it.
func (cmd *simCmd) tellFailure(c *console, r *sim.Result) error {
	hint := fmt.Sprintf("see it again: hivebeat sim --seed %d", r.Plan.Seed)
	if cmd.For > 0 {
		hint += fmt.Sprintf(" --for %s", cmd.For)
	}
	if cmd.Late > 0 {
		hint += fmt.Sprintf(" --late %s", cmd.Late)
	}
	hint += "; all of it: add -v"
	if !cmd.json() {
		lines := []string{fmt.Sprintf("seed %d, shortened to %d faults:", r.Plan.Seed, len(r.Plan.Faults))}
		if len(r.History) > longest {
			lines = append(lines, fmt.Sprintf("  … %d lines before", len(r.History)-longest))
			r.History = r.History[len(r.History)-longest:]
		}
		for _, l := range r.History {
			lines = append(lines, "  "+plaintext.Line(l))
		}
		if err := printLines(c, lines); err != nil {
			return err
		}
	}
	if cmd.Keep != "" {
		p := r.Plan
		p.Why = r.Broken.String()
		name := filepath.Join(cmd.Keep, fmt.Sprintf("seed-%d.json", p.Seed))
		if err := os.MkdirAll(cmd.Keep, 0o755); err != nil { //nolint:gosec // a plan is no secret
			return failed(err, "--keep needs a directory that can be written to")
		}
		if err := sim.WritePlan(name, p); err != nil {
			return failed(err, "--keep needs a directory that can be written to")
		}
		hint = "see it again: hivebeat sim --plan " + name
	}
	return failed(fmt.Errorf("sim: seed %d: %s", r.Plan.Seed, r.Broken), "%s", hint)
}

// answer prints what to expect of the settings.
func (cmd *simCmd) answer(c *console) error {
	s := whatif.Settings{
		Loss: cmd.loss, Delay: cmd.Delay, Jitter: cmd.Jitter, Every: cmd.Every, HiveEvery: cmd.HiveEvery,
		Misses: cmd.Misses, Workers: cmd.Workers, Hives: cmd.Hives, Seed: cmd.Seed,
	}.WithDefaults()
	a := whatif.Ask(s)
	if cmd.json() {
		return printJSON(c, a)
	}
	row := func(who string, n int, every time.Duration, o *whatif.Outlook) string {
		return fmt.Sprintf("%-7s %8s %11s %8d   %-22s %-22s %8s %8s %8s", who, every, o.Patience, o.Survives,
			whatif.Often(o.PerMonth), fmt.Sprintf("%s (%d)", whatif.Often(o.FleetWide), n),
			brief(o.Detection.P50), brief(o.Detection.P99), brief(o.Detection.Max))
	}
	return printLines(c, []string{
		fmt.Sprintf("loss %.3g%%, delay %s to %s, lost after %g promises", 100*s.Loss, s.Delay, s.Delay+s.Jitter, s.Misses),
		"",
		fmt.Sprintf("%-7s %8s %11s %8s   %-22s %-22s %8s %8s %8s", "", "", "", "survives", "false deaths", "false deaths", "crash to", "lost", ""),
		fmt.Sprintf("%-7s %8s %11s %8s   %-22s %-22s %8s %8s %8s", "", "every", "lost after", "in a row", "of each", "of all", "p50", "p99", "max"),
		row("worker", s.Workers, s.Every, &a.Workers),
		row("hive", s.Hives, s.HiveEvery, &a.Hives),
		"",
		"By silence alone: exit, disconnect and goodbye are seen in milliseconds, whatever the settings.",
	})
}

func brief(d time.Duration) string { return fmt.Sprintf("%.1fs", d.Seconds()) }
