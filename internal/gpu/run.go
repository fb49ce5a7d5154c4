package gpu

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"time"

	"github.com/beatfabric/hivebeat/internal/plaintext"
)

// Limits of a command.
const (
	maxOutput = 8 << 20  // bytes of stdout; more ends the command: 64 GPUs print about 8 MB
	maxStderr = 64 << 10 // bytes of stderr that are kept
	waitDelay = 500 * time.Millisecond
	maxLine   = 200 // bytes of a line that an error quotes
)

var errTooMuch = fmt.Errorf("more than %d MiB of output", maxOutput>>20)

// command runs one tool, one process at a time. The zero value is ready.
type command struct {
	stuck chan struct{} // closed once the process that outlived SIGKILL is gone; nil without one
	pid   int
}

// run returns what the tool prints. The tool runs in a process group of its own, which is
// killed as a whole once ctx ends: a wrapper's child would outlive it otherwise. A process
// that hangs in the driver outlives even SIGKILL; then run returns nevertheless, and starts
// no other one until it is gone.
func (c *command) run(ctx context.Context, path string, args ...string) (stdout, stderr []byte, err error) {
	if c.stuck != nil {
		select {
		case <-c.stuck:
			c.stuck = nil
		default:
			return nil, nil, fmt.Errorf("process %d still hangs in the driver: it outlived SIGKILL", c.pid)
		}
	}
	cmd := exec.Command(path, args...) //nolint:noctx // Wait would wait for a process that cannot be killed
	cmd.Env = append(os.Environ(), "LC_ALL=C")
	cmd.WaitDelay = waitDelay // a grandchild may hold the pipes open
	ownGroup(cmd)
	ctx, tooMuch := context.WithCancelCause(ctx)
	defer tooMuch(nil)
	out := &bounded{limit: maxOutput, over: func() { tooMuch(errTooMuch) }}
	errs := &bounded{limit: maxStderr}
	cmd.Stdout, cmd.Stderr = out, errs
	if err := cmd.Start(); err != nil {
		return nil, nil, err
	}
	ended := make(chan struct{})
	var how error // how it ended; valid once ended is closed
	go func() {
		defer close(ended)
		how = cmd.Wait()
	}()
	select {
	case <-ended:
		if errors.Is(how, exec.ErrWaitDelay) {
			killGroup(cmd) // it ended, and left a child behind that holds its pipes
		}
		return out.b, errs.b, how
	case <-ctx.Done():
	}
	killGroup(cmd)
	grace := time.NewTimer(4 * waitDelay)
	defer grace.Stop()
	select {
	case <-ended:
		return out.b, errs.b, context.Cause(ctx)
	case <-grace.C:
		c.stuck, c.pid = ended, cmd.Process.Pid
		return nil, nil, fmt.Errorf("%w; process %d outlived SIGKILL", context.Cause(ctx), c.pid)
	}
}

// bounded keeps up to limit bytes, and drops what comes after them.
type bounded struct {
	b     []byte
	limit int
	over  func() // called when the limit is passed; nil if that does not matter
}

func (w *bounded) Write(p []byte) (int, error) {
	room := w.limit - len(w.b)
	w.b = append(w.b, p[:min(room, len(p))]...)
	if len(p) > room && w.over != nil {
		w.over()
	}
	return len(p), nil
}

// lines returns the lines of a text that are not blank, trimmed and printable.
func lines(text []byte) []string {
	var all []string
	for line := range bytes.Lines(text) {
		if len(bytes.TrimSpace(line)) == 0 {
			continue
		}
		if s := oneLine(string(line), maxLine); s != "" {
			all = append(all, s)
		}
	}
	return all
}

// oneLine returns s as one printable line of at most n bytes.
func oneLine(s string, n int) string {
	if len(s) > 4*n {
		s = s[:4*n] // a megabyte without an end of line is not worth looking at
	}
	return plaintext.Clip(strings.Join(strings.Fields(plaintext.Line(s)), " "), n)
}
