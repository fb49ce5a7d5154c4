package cli

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/beatfabric/hivebeat/bus"
	"github.com/beatfabric/hivebeat/internal/cli/show"
	"github.com/beatfabric/hivebeat/internal/doctor"
)

type doctorCmd struct {
	AskFlags
	SystemFlags
	KeepFlags
	DiscoverFlags
	Role   string `enum:"all,worker,hive,queen,viewer,scheduler" default:"all" help:"Role to check: ${enum}."`
	Hive   string `placeholder:"ID" help:"Hive whose subjects are checked."`
	Worker string `placeholder:"ID" help:"Worker whose subject is checked."`
	Pinned bool   `help:"Check the pinned subjects that --pinned uses."`

	Webhooks bool `help:"The queen has webhooks."`
}

// Help is shown below the usage.
func (doctorCmd) Help() string {
	return `It changes nothing. The exit code is 1 if anything fails, and 0 if there are warnings only.
With -o json it prints {"ok":…,"findings":[{"role":…,"level":…,"check":…,"what":…,"do":…}]}.`
}

// Validate checks the ids.
func (cmd *doctorCmd) Validate() error {
	return first(checkID("--hive", cmd.Hive), checkID("--worker", cmd.Worker))
}

// roleFinding is a finding, and the first role it was made for.
type roleFinding struct {
	Role doctor.Role `json:"role"`
	doctor.Finding
}

// Run runs the checks, and fails if any check does.
func (cmd *doctorCmd) Run(ctx context.Context, c *console) error {
	var findings []roleFinding
	err := cmd.withQueen(ctx, c, "doctor", func(ctx context.Context, a *asker) (err error) {
		if findings, err = cmd.check(ctx, a); err != nil || !cmd.wanted() {
			return err
		}
		f, err := cmd.checkSystem(ctx)
		findings = append(findings, roleFinding{Finding: f})
		return err
	})
	if f, ok := errors.AsType[*failure](err); err != nil && ctx.Err() == nil && !errors.Is(err, errInterrupted) && (!ok || f.code == ExitFailed) {
		hint := ""
		if ok {
			hint = f.hint
		}
		findings = []roleFinding{{Finding: doctor.Finding{Level: doctor.Fail, Check: doctor.CheckConnection, What: plain(err.Error()), Do: hint}}}
		err = nil
	}
	if err != nil {
		return err
	}
	engines, err := cmd.DiscoverFlags.found(ctx)
	if err != nil {
		return err
	}
	findings = append(findings, engines...)
	bad := slices.ContainsFunc(findings, func(f roleFinding) bool { return f.Level == doctor.Fail })
	if err := cmd.print(c, findings, bad); err != nil {
		return err
	}
	if bad {
		return errSilent
	}
	return nil
}

func (cmd *doctorCmd) check(ctx context.Context, a *asker) (findings []roleFinding, err error) {
	roles := []doctor.Role{doctor.Role(cmd.Role)}
	if cmd.Role == "all" {
		roles = []doctor.Role{doctor.Queen, doctor.Hive, doctor.Worker, doctor.Scheduler}
	}
	for _, role := range roles {
		list, err := doctor.Check(ctx, a.nc, doctor.Config{
			Role: role, Subjects: a.subjects, Hive: cmd.Hive, Worker: cmd.Worker, Pinned: cmd.Pinned, Discover: cmd.Discover, Asker: cmd.Asker,
			NoJetStream: cmd.NoJetStream, Replicas: cmd.Replicas, Storage: cmd.storage(), EventsMax: int64(cmd.EventsMax),
			Webhooks: cmd.Webhooks,
		})
		if err != nil {
			return nil, fmt.Errorf("check as %s: %w", role, err)
		}
		for _, f := range list {
			// A finding that holds for every role is shown once.
			told := func(t roleFinding) bool {
				return t.Check == f.Check && (t.Finding == f || t.Level == f.Level && f.Check == doctor.CheckRoundTrip)
			}
			if !slices.ContainsFunc(findings, told) {
				findings = append(findings, roleFinding{role, f})
			}
		}
	}
	return findings, nil
}

// checkSystem opens a connection, closes it, and waits for the advisory.
func (cmd *doctorCmd) checkSystem(ctx context.Context) (doctor.Finding, error) {
	took, err := cmd.hearsOne(ctx)
	f := doctor.Finding{Level: doctor.OK, Check: doctor.CheckSystem, What: fmt.Sprintf("system account: reported a closed connection within %d ms", took.Milliseconds()+1)}
	if wrong, ok := errors.AsType[*failure](err); ok && wrong.code == ExitUsage || ctx.Err() != nil {
		return f, err
	}
	if err != nil {
		f = doctor.Finding{Level: doctor.Fail, Check: doctor.CheckSystem, What: "system account: " + plain(err.Error()), Do: systemHint}
	}
	return f, nil
}

func (cmd *doctorCmd) hearsOne(ctx context.Context) (took time.Duration, err error) {
	sys, err := cmd.connectSystem(ctx, cmd.ConnFlags, bus.Config{Name: "doctor system", FailFast: true})
	if err != nil {
		return 0, err
	}
	defer sys.Close()
	heard, end, err := hearClosings(sys)
	if err != nil {
		return 0, err
	}
	defer end()
	probe, err := cmd.connect(ctx, "doctor tries")
	if err != nil {
		return 0, err
	}
	began := time.Now()
	if !toldOf(ctx, heard, probe) {
		return 0, errNotTold
	}
	return time.Since(began), nil
}

func (cmd *doctorCmd) print(c *console, findings []roleFinding, bad bool) error {
	if cmd.json() {
		return printJSON(c, map[string]any{"ok": !bad, "findings": findings})
	}
	p := c.paint(cmd.Color)
	var lines []string
	for i, f := range findings {
		if cmd.Role == "all" && f.Role != "" && (i == 0 || f.Role != findings[i-1].Role) {
			lines = append(lines, p.Text(string(f.Role), show.Strong))
		}
		lines = append(lines, show.Finding(string(f.Level), f.What, f.Do, p)...)
	}
	return printLines(c, lines)
}
