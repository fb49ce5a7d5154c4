//go:build unix

package gpu

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// script writes a shell script, and returns its path.
func script(t testing.TB, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "nvidia-smi")
	// A process that another test forks meanwhile would hold the file open for writing, and
	// then it cannot be executed.
	syscall.ForkLock.RLock()
	defer syscall.ForkLock.RUnlock()
	if err := os.WriteFile(path, []byte("#!/bin/sh\n"+text), 0o700); err != nil {
		t.Fatal(err)
	}
	return path
}

// eventually waits until done reports true.
func eventually(t *testing.T, what string, done func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); !done(); {
		if time.Now().After(end) {
			t.Fatalf("waited in vain: %s", what)
		}
		<-time.After(5 * time.Millisecond)
	}
}

// A command that hangs is killed with its children, whatever signals they ignore. The
// children write their pids into a file, so that the test can look for them.
func TestHungCommandIsKilledWithItsChildren(t *testing.T) {
	for name, text := range map[string]string{
		"hangs":                    `echo $$ >>%; trap '' TERM INT HUP; while :; do sleep 1000; done`,
		"is a wrapper":             `echo $$ >>%; (echo $$ >>%; exec sleep 1000); echo never`,
		"has children that go on":  `for i in 1 2 3; do sleep 1000 & echo $! >>%; done; echo $$ >>%; wait`,
		"prints, and then hangs":   `echo $$ >>%; echo '<nvidia_smi_log>'; exec sleep 1000`,
		"a grandchild holds pipes": `echo $$ >>%; sh -c 'sleep 1000 & echo $! >>%; wait' & wait`,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			pids := filepath.Join(t.TempDir(), "pids")
			path := script(t, strings.ReplaceAll(text, "%", pids))
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			go func() {
				for ctx.Err() == nil {
					if b, _ := os.ReadFile(pids); len(b) > 0 {
						<-time.After(100 * time.Millisecond) // the children are on their way
						cancel()
					}
					<-time.After(5 * time.Millisecond)
				}
			}()
			began := time.Now()
			_, _, err := new(command).run(ctx, path)
			if !errors.Is(err, context.Canceled) {
				t.Errorf("error %v, want that of the context", err)
			}
			t.Logf("ended after %s: %v", time.Since(began).Round(time.Millisecond), err)
			b, err := os.ReadFile(pids)
			if err != nil {
				t.Fatal(err)
			}
			for _, s := range strings.Fields(string(b)) {
				pid, err := strconv.Atoi(s)
				if err != nil {
					t.Fatal(err)
				}
				eventually(t, "the end of process "+s, func() bool { return !runs(pid) })
			}
		})
	}
}

// runs reports whether a process runs: a zombie that waits for init does not.
func runs(pid int) bool {
	if syscall.Kill(pid, 0) != nil {
		return false
	}
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return !os.IsNotExist(err)
	}
	_, rest, _ := strings.Cut(string(b), ") ")
	return !strings.HasPrefix(rest, "Z")
}

func TestCommand(t *testing.T) {
	t.Setenv("LC_ALL", "de_DE.UTF-8")
	for _, c := range []struct {
		name, script   string
		stdout, stderr string // the beginning of each
		err            string // part of the error
	}{
		{"succeeds", "echo out; echo err >&2", "out\n", "err\n", ""},
		{"fails, and its output is kept", "echo out; echo err >&2; exit 15", "out\n", "err\n", "exit status 15"},
		{"is killed", "echo out; kill -9 $$", "out\n", "", "signal: killed"},
		{"speaks English", `echo "$LC_ALL"`, "C\n", "", ""},
		{"prints for ever", "while :; do echo 'a line that comes again and again'; done", "a line", "", "more than 8 MiB of output"},
		{"prints errors for ever, and ends", "i=0; while [ $i -lt 20000 ]; do echo 'an error that is long' >&2; i=$((i+1)); done; echo out", "out\n", "an error", ""},
		{"leaves a child that holds the pipes", "echo out; sleep 1000 & exit 0", "out\n", "", "WaitDelay"},
	} {
		t.Run(c.name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			stdout, stderr, err := new(command).run(ctx, script(t, c.script))
			if !strings.HasPrefix(string(stdout), c.stdout) || !strings.HasPrefix(string(stderr), c.stderr) || !says(err, c.err) {
				t.Errorf("printed %.80q and %.80q, error %v; want %q, %q, %q", stdout, stderr, err, c.stdout, c.stderr, c.err)
			}
			if len(stdout) > maxOutput || len(stderr) > maxStderr {
				t.Errorf("%d and %d bytes are kept", len(stdout), len(stderr))
			}
		})
	}
	if _, _, err := new(command).run(t.Context(), filepath.Join(t.TempDir(), "none")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a tool that is not there: %v", err)
	}
}

// A process in uninterruptible sleep outlives SIGKILL. It cannot be made here, so a command
// stands for it whose end the test decides.
func TestNoSecondCommandBesideOneThatCannotBeKilled(t *testing.T) {
	ended := make(chan struct{})
	c := command{stuck: ended, pid: 4711}
	path := script(t, "echo out")
	for range 2 {
		if _, _, err := c.run(t.Context(), path); !says(err, "process 4711 still hangs") {
			t.Errorf("beside it: %v", err)
		}
	}
	close(ended)
	if out, _, err := c.run(t.Context(), path); string(out) != "out\n" || err != nil {
		t.Errorf("after it: %q, %v", out, err)
	}
}
