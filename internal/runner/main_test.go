//go:build unix

package runner

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/beatfabric/hivebeat/internal/life"
)

// patience is how long a test waits for something that must happen.
const patience = 20 * time.Second

// asProgram makes the test binary a process that runs its arguments as hivebeat worker does,
// prints each end, and exits with the program's code.
const asProgram = "RUNNER_TEST_PROGRAM"

// asEater makes the test binary take memory until it is killed.
const asEater = "RUNNER_TEST_EATER"

func TestMain(m *testing.M) {
	switch {
	case os.Getenv(asEater) != "":
		eat()
	case os.Getenv(asProgram) != "":
		os.Exit(program())
	}
	goleak.VerifyTestMain(m)
}

func eat() {
	var all [][]byte
	for range 4096 {
		b := make([]byte, 1<<20)
		for i := range b {
			b[i] = 1
		}
		all = append(all, b)
	}
	fmt.Fprintln(os.Stderr, len(all), "MiB taken, and not killed")
	os.Exit(1)
}

func program() int {
	restart, _ := strconv.Atoi(os.Getenv("RUNNER_TEST_RESTARTS"))
	cfg := Config{Args: os.Args[1:], Adopt: true, StopTimeout: patience, Grace: time.Second, Backoff: time.Millisecond, RestartMax: restart}
	if restart > 0 {
		cfg.Restart = OnFailure
	}
	r, err := New(cfg)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 127
	}
	defer r.Close()
	signals := make(chan os.Signal, 16)
	signal.Notify(signals, Signals()...)
	go func() {
		for s := range signals {
			r.Signal(s)
		}
	}()
	report := os.NewFile(3, "report")
	for {
		p, err := r.Next(context.Background())
		if err != nil {
			return r.Code()
		}
		fmt.Fprintln(report, "pid", p.PID)
		fmt.Fprintf(report, "%+v\n", <-p.Ended)
	}
}

// shell returns a Runner of a shell script, which is closed with the test.
func shell(t *testing.T, cfg Config, script string) *Runner {
	t.Helper()
	cfg.Args = []string{"sh", "-c", script}
	return begin(t, cfg)
}

func begin(t *testing.T, cfg Config) *Runner {
	t.Helper()
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { null.Close() })
	for _, f := range []**os.File{&cfg.Stdin, &cfg.Stdout, &cfg.Stderr} {
		if *f == nil {
			*f = null
		}
	}
	if cfg.Logger == nil && testing.Verbose() {
		cfg.Logger = slog.New(slog.NewTextHandler(t.Output(), nil))
	}
	r, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.Close)
	return r
}

func following(t *testing.T, r *Runner) life.Process {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	p, err := r.Next(ctx)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func end(t *testing.T, p life.Process) life.End {
	t.Helper()
	select {
	case e := <-p.Ended:
		return e
	case <-time.After(patience):
		t.Fatal("the program does not end")
		return life.End{}
	}
}

func over(t *testing.T, r *Runner) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if p, err := r.Next(ctx); !errors.Is(err, life.ErrOver) {
		t.Errorf("a further process %d, %v", p.PID, err)
	}
}

func until(t *testing.T, what string, is func() bool) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for late := time.Now().Add(patience); !is(); <-tick.C {
		if time.Now().After(late) {
			t.Fatalf("waited %s in vain for: %s", patience, what)
		}
	}
}

// touched waits for a file that a script makes when it is ready.
func touched(t *testing.T, path string) string {
	t.Helper()
	until(t, path, func() bool { b, err := os.ReadFile(path); return err == nil && len(b) > 0 })
	b, _ := os.ReadFile(path)
	return strings.TrimSpace(string(b))
}

func ready(t *testing.T) (path string) { return filepath.Join(t.TempDir(), "ready") }

func gone(pid string) bool {
	n, _ := strconv.Atoi(pid)
	if errors.Is(syscall.Kill(n, 0), syscall.ESRCH) {
		return true
	}
	b, err := os.ReadFile("/proc/" + pid + "/stat")
	return err == nil && strings.Contains(string(b), ") Z ")
}

// helper is the test binary as a process that runs a program.
type helper struct {
	*exec.Cmd
	out *bufio.Reader
}

func newHelper(t *testing.T, env []string, args ...string) *helper {
	t.Helper()
	cmd := exec.Command(os.Args[0], args...)
	cmd.Env = append(append(os.Environ(), asProgram+"=1"), env...)
	return startHelper(t, cmd)
}

func startHelper(t *testing.T, cmd *exec.Cmd) *helper {
	t.Helper()
	out, in, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.ExtraFiles = []*os.File{in}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	in.Close()
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		out.Close()
	})
	return &helper{cmd, bufio.NewReader(out)}
}

// line returns the next line of its report.
func (h *helper) line(t *testing.T) string {
	t.Helper()
	line, err := h.out.ReadString('\n')
	if err != nil && !errors.Is(err, io.EOF) {
		t.Fatal(err)
	}
	return strings.TrimSpace(line)
}

// code waits for its end.
func (h *helper) code(t *testing.T) int {
	t.Helper()
	ended := make(chan error, 1)
	go func() { ended <- h.Wait() }()
	select {
	case <-ended:
	case <-time.After(patience):
		_ = h.Process.Kill()
		<-ended
		t.Fatal("it does not end")
	}
	ws := h.ProcessState.Sys().(syscall.WaitStatus)
	if ws.Signaled() {
		return 128 + int(ws.Signal())
	}
	return ws.ExitStatus()
}
