package life

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"strconv"
	"strings"
	"time"
)

// Unit follows the main process of a service of systemd, and then the next one. systemd knows
// how a process ended; a process that it stopped, or that ended with a success, has left.
func Unit(name string, cfg Config) (Source, error) {
	if name == "" || strings.HasPrefix(name, "-") || strings.ContainsAny(name, " \t\n/*?[") {
		return nil, fmt.Errorf("%.80q is not the name of a unit", name)
	}
	path, err := exec.LookPath("systemctl")
	if err != nil {
		return nil, errors.New("systemctl is not in the PATH, and units cannot be asked for without it")
	}
	return attach(&unit{systemctl: path, name: name}, cfg, "asks systemd for unit "+name), nil
}

// unit finds the main process of a unit.
type unit struct {
	foreign
	systemctl, name string
	pid             uint64 // found last
}

// unitTimeout bounds one question to systemd.
const unitTimeout = 5 * time.Second

// endDelays are the waits before systemd is asked how a process ended: it may notice that later
// than this process does.
var endDelays = []time.Duration{0, 20 * time.Millisecond, 80 * time.Millisecond, 200 * time.Millisecond, 700 * time.Millisecond}

// show returns the properties of the unit that are of interest.
func (u *unit) show(ctx context.Context) (map[string]string, error) {
	ctx, cancel := context.WithTimeout(ctx, unitTimeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, u.systemctl, "show", "--property=LoadState,ActiveState,MainPID,Result,ExecMainPID,ExecMainCode,ExecMainStatus,ExecMainExitTimestampMonotonic", u.name)
	cmd.WaitDelay = time.Second
	out, err := cmd.Output()
	if err != nil {
		if exit, ok := errors.AsType[*exec.ExitError](err); ok && len(exit.Stderr) > 0 {
			line, _, _ := strings.Cut(strings.TrimSpace(string(exit.Stderr)), "\n")
			return nil, fmt.Errorf("systemctl: %.160s", line)
		}
		return nil, fmt.Errorf("systemctl: %w", err)
	}
	props := map[string]string{}
	for line := range strings.Lines(string(out)) {
		if k, v, ok := strings.Cut(strings.TrimSpace(line), "="); ok {
			props[k] = v
		}
	}
	return props, nil
}

func (u *unit) find(ctx context.Context) (uint64, string, error) {
	p, err := u.show(ctx)
	if err != nil {
		return 0, err.Error(), nil //nolint:nilerr // systemd may be back in a moment
	}
	pid, _ := strconv.ParseUint(p["MainPID"], 10, 31)
	switch {
	case p["LoadState"] == "not-found":
		return 0, fmt.Sprintf("systemd does not know unit %s", u.name), nil
	case pid == 0:
		return 0, fmt.Sprintf("unit %s is %s", u.name, p["ActiveState"]), nil
	case !runs(pid):
		return 0, fmt.Sprintf("process %d of unit %s has ended", pid, u.name), nil
	}
	u.pid = pid
	return pid, "", nil
}

// ended asks systemd how the process ended. If the next one runs already, that is not known.
func (u *unit) ended(ctx context.Context) End {
	for _, wait := range endDelays {
		select {
		case <-ctx.Done():
			return End{}
		case <-time.After(wait):
		}
		p, err := u.show(ctx)
		if err != nil {
			return End{}
		}
		if p["ExecMainPID"] != strconv.FormatUint(u.pid, 10) {
			return End{}
		}
		if at := p["ExecMainExitTimestampMonotonic"]; at != "" && at != "0" && p["MainPID"] != p["ExecMainPID"] {
			return endOf(u.name, p)
		}
	}
	return End{}
}

// endOf returns how a process of a unit ended.
func endOf(name string, p map[string]string) End {
	const exited, killed, dumped = "1", "2", "3" // si_code of SIGCHLD
	end := End{Reason: "unit " + name + ": " + p["Result"]}
	switch {
	case p["Result"] == "success":
		end.Orderly = true
	case p["Result"] == "oom-kill":
		end.How = "oom"
	case p["ExecMainCode"] == exited:
		end.How = "code " + p["ExecMainStatus"]
	case p["ExecMainCode"] == killed, p["ExecMainCode"] == dumped:
		end.How = "signal " + p["ExecMainStatus"]
	}
	return end
}
