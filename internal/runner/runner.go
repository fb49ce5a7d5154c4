// Package runner runs a program as a worker's process: it starts it, passes its output and
// signals through, reports how it ended, and starts it again. It is a life.Source.
//
// The program is the leader of a process group. On a terminal that group is in the foreground,
// so Ctrl-C and Ctrl-Z reach the program and not the runner. Signals that the runner passes on go to
// the program alone, as under Docker and Kubernetes. When the program has ended, the processes
// left in its group get SIGTERM, and SIGKILL after Config.Grace.
package runner

import (
	"cmp"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"os"
	"slices"
	"time"
)

// Policy says when a program that has ended is started again.
type Policy string

// The policies. A program that was asked to end, by SIGINT, SIGTERM or Stop, is never started
// again.
const (
	No        Policy = "no"
	OnFailure Policy = "on-failure" // when it ends with another code than 0, or by a signal
	Always    Policy = "always"
)

// Policies lists the policies.
func Policies() []Policy { return []Policy{No, OnFailure, Always} }

// Config says what to run, and how. Only Args is required.
type Config struct {
	// Args is the program, which is looked up in the PATH, and its arguments.
	Args []string
	// Dir is where it runs. Default: the directory of this process.
	Dir string
	// Env is its environment. Default: that of this process. NOTIFY_SOCKET, WATCHDOG_USEC and
	// WATCHDOG_PID are left out: they are this process's.
	Env []string
	// Stdin, Stdout and Stderr are its streams. Default: those of this process. Stdin and
	// Stdout are handed over. So is a Stderr that is a terminal; otherwise it is a pipe whose
	// content is copied to Stderr, so that the last lines are known when the program crashes.
	Stdin, Stdout, Stderr *os.File

	// Restart says when it is started again. Default: No.
	Restart Policy
	// RestartMax is how many restarts within Window are the most. The next end is given up.
	// Default: 10.
	RestartMax int
	// Window is how long a restart counts. Default: 10 min.
	Window time.Duration
	// Backoff is the wait before the first restart within Window. It doubles with each further
	// one, up to BackoffMax, and varies by a fifth. Default: 1 s, and 60 s.
	Backoff, BackoffMax time.Duration

	// StopTimeout is how long it may take to end once it was asked to. It is then killed, with
	// its process group. Default: 30 s.
	StopTimeout time.Duration
	// Grace is how long processes that it left behind in its group may take to end before they
	// are killed. Default: 5 s.
	Grace time.Duration

	// Adopt makes this process the parent of all descendants of the program whose parent ends
	// (on Linux), and waits for every child that ends. Process 1 of a container must do that.
	// It is for a process that starts no other children.
	Adopt bool
	// Logger gets Info about starts and Warn about processes that are left behind. Default:
	// nothing is logged.
	Logger *slog.Logger
}

func (c Config) withDefaults() Config {
	c.Stdin = cmp.Or(c.Stdin, os.Stdin)
	c.Stdout = cmp.Or(c.Stdout, os.Stdout)
	c.Stderr = cmp.Or(c.Stderr, os.Stderr)
	c.Restart = cmp.Or(c.Restart, No)
	c.RestartMax = cmp.Or(c.RestartMax, 10)
	c.Window = cmp.Or(c.Window, 10*time.Minute)
	c.Backoff = cmp.Or(c.Backoff, time.Second)
	c.BackoffMax = cmp.Or(c.BackoffMax, max(time.Minute, c.Backoff))
	c.StopTimeout = cmp.Or(c.StopTimeout, 30*time.Second)
	c.Grace = cmp.Or(c.Grace, 5*time.Second)
	c.Logger = cmp.Or(c.Logger, slog.New(slog.DiscardHandler))
	if c.Env == nil {
		c.Env = os.Environ()
	}
	c.Env = slices.DeleteFunc(slices.Clone(c.Env), ours)
	return c
}

// ErrInvalid: a Config that cannot work. The error names the field.
var ErrInvalid = errors.New("invalid")

func (c *Config) validate() error {
	if len(c.Args) == 0 || c.Args[0] == "" {
		return fmt.Errorf("Args: %w: no program", ErrInvalid)
	}
	if !slices.Contains(Policies(), c.Restart) {
		return fmt.Errorf("Restart: %w: %.40q", ErrInvalid, c.Restart)
	}
	if c.RestartMax < 0 {
		return fmt.Errorf("RestartMax: %w: %d", ErrInvalid, c.RestartMax)
	}
	for _, d := range []struct {
		field string
		d     time.Duration
	}{{"Window", c.Window}, {"Backoff", c.Backoff}, {"BackoffMax", c.BackoffMax}, {"StopTimeout", c.StopTimeout}, {"Grace", c.Grace}} {
		if d.d < 0 {
			return fmt.Errorf("%s: %w: %s", d.field, ErrInvalid, d.d)
		}
	}
	if c.BackoffMax < c.Backoff {
		return fmt.Errorf("BackoffMax: %w: %s is less than Backoff, %s", ErrInvalid, c.BackoffMax, c.Backoff)
	}
	return nil
}

// restarts decides when a program is started again. It is pure.
type restarts struct {
	policy   Policy
	most     int
	window   time.Duration
	min, max time.Duration
	recent   []time.Time // restarts within the window
	begun    int         // restarts so far
}

func newRestarts(c *Config) restarts {
	return restarts{policy: c.Restart, most: c.RestartMax, window: c.Window, min: c.Backoff, max: c.BackoffMax}
}

// next is the step after the end of a program.
type next struct {
	again   bool
	wait    time.Duration
	number  int // of the restart
	givenUp bool
}

// after decides the step after an end. rnd, from 0 to 1, is the jitter.
func (r *restarts) after(now time.Time, orderly bool, rnd float64) next {
	if r.policy == No || r.policy == OnFailure && orderly {
		return next{}
	}
	r.recent = slices.DeleteFunc(r.recent, func(t time.Time) bool { return now.Sub(t) >= r.window })
	if len(r.recent) >= r.most {
		return next{givenUp: true}
	}
	wait := float64(r.min) * math.Pow(2, float64(len(r.recent)))
	wait = min(wait, float64(r.max)) * (0.8 + 0.4*rnd)
	r.recent = append(r.recent, now)
	r.begun++
	return next{again: true, wait: time.Duration(wait), number: r.begun}
}
