//go:build e2e

package rig

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// Proc is a running program. Its output is kept, and shown if the test fails.
type Proc struct {
	Name string
	tb   testing.TB
	cmd  *exec.Cmd
	out  *lines
	done chan struct{} // closed when it has ended
	code int           // exit code; -1 if a signal ended it
}

// Start runs a program until it ends or the test does. env is added to a small clean
// environment, without the caller's HIVEBEAT_* and NATS_* variables and nats CLI contexts.
func Start(tb testing.TB, name string, env []string, argv ...string) *Proc {
	tb.Helper()
	p := &Proc{Name: name, tb: tb, out: new(lines), done: make(chan struct{})}
	p.cmd = exec.Command(argv[0], argv[1:]...)
	p.cmd.Env = append(Env(tb), env...)
	p.cmd.Stdout, p.cmd.Stderr = p.out, p.out
	p.cmd.WaitDelay = 5 * time.Second
	if err := p.cmd.Start(); err != nil {
		tb.Fatalf("%s: %v", name, err)
	}
	go func() {
		defer close(p.done)
		err := p.cmd.Wait()
		var exit *exec.ExitError
		switch {
		case errors.As(err, &exit):
			p.code = exit.ExitCode()
		case err != nil:
			p.code = -2
		}
	}()
	tb.Cleanup(func() {
		p.Kill()
		if tb.Failed() {
			tb.Logf("--- %s printed:\n%s", name, p.out.tail(80))
		}
	})
	return p
}

// Env is the environment of a test's programs: PATH, and an empty home directory.
func Env(tb testing.TB) []string {
	home := tb.TempDir()
	return []string{
		"PATH=" + os.Getenv("PATH"), "HOME=" + home, "XDG_CONFIG_HOME=" + home, "TMPDIR=" + os.TempDir(),
		"LANG=C.UTF-8", "TERM=dumb", "NO_COLOR=1",
	}
}

// Signal sends s to the process.
func (p *Proc) Signal(s os.Signal) {
	p.tb.Helper()
	if err := p.cmd.Process.Signal(s); err != nil && !errors.Is(err, os.ErrProcessDone) {
		p.tb.Fatalf("%s: %v", p.Name, err)
	}
}

// Interrupt sends SIGINT and waits until the process has left in order.
func (p *Proc) Interrupt() {
	p.tb.Helper()
	p.Signal(os.Interrupt)
	if code := p.Wait(30 * time.Second); code != 0 {
		p.tb.Errorf("%s: exit code %d after an interrupt, want 0", p.Name, code)
	}
}

// Kill sends SIGKILL and waits until the process is gone.
func (p *Proc) Kill() {
	_ = p.cmd.Process.Kill()
	<-p.done
}

// Wait waits for the process to end by itself and returns its exit code.
func (p *Proc) Wait(most time.Duration) int {
	p.tb.Helper()
	select {
	case <-p.done:
	case <-time.After(most):
		p.tb.Fatalf("%s: still running after %s", p.Name, most)
	}
	return p.code
}

// Ended reports whether the process has ended.
func (p *Proc) Ended() bool {
	select {
	case <-p.done:
		return true
	default:
		return false
	}
}

// PID returns the process id.
func (p *Proc) PID() int { return p.cmd.Process.Pid }

// CPU returns how much CPU time the process has used so far. It needs Linux.
func (p *Proc) CPU() time.Duration {
	p.tb.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.PID()))
	if err != nil {
		p.tb.Fatalf("%s: %v", p.Name, err)
	}
	_, rest, _ := bytes.Cut(b, []byte(") ")) // the name may contain spaces
	f := bytes.Fields(rest)
	if len(f) < 13 {
		p.tb.Fatalf("%s: /proc says %q", p.Name, b)
	}
	var ticks int64
	for _, field := range f[11:13] { // of user and system, at 100 Hz
		n, err := strconv.ParseInt(string(field), 10, 64)
		if err != nil {
			p.tb.Fatalf("%s: /proc says %q", p.Name, b)
		}
		ticks += n
	}
	return time.Duration(ticks) * time.Second / 100
}

// Memory returns a field of the process's status in /proc in bytes, such as VmRSS. It needs Linux.
func (p *Proc) Memory(field string) int64 {
	p.tb.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.PID()))
	if err != nil {
		p.tb.Fatalf("%s: %v", p.Name, err)
	}
	_, rest, _ := strings.Cut(string(b), "\n"+field+":")
	var kb int64
	if _, err := fmt.Sscan(rest, &kb); err != nil {
		p.tb.Fatalf("%s: /proc says %q", p.Name, b)
	}
	return kb << 10
}

// Output returns everything that it has printed so far.
func (p *Proc) Output() string { return p.out.String() }

// Said waits until the process has printed something that matches the pattern.
func (p *Proc) Said(pattern string, most time.Duration) {
	p.tb.Helper()
	re := regexp.MustCompile(pattern)
	Until(p.tb, most, fmt.Sprintf("%s to say %q", p.Name, pattern), func() (bool, string) {
		s := p.Output()
		if !re.MatchString(s) && p.Ended() {
			p.tb.Fatalf("%s ended (exit code %d) and never said %q:\n%s", p.Name, p.code, pattern, s)
		}
		return re.MatchString(s), ""
	})
}

// Until waits for a condition, which it checks every 20 ms. It fails the test with the last
// state if that takes longer than most. What must not happen for a while is checked with
// bustest.Never.
func Until(tb testing.TB, most time.Duration, what string, ok func() (bool, string)) {
	tb.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for end, state := time.Now().Add(most), ""; ; <-tick.C {
		var done bool
		if done, state = ok(); done {
			return
		}
		if time.Now().After(end) {
			tb.Fatalf("waited %s for %s; last: %s", most, what, state)
		}
	}
}

// Port returns a TCP port of the loopback address that is free, and that it has given to no other
// caller of this process. It is below the range from which Linux and others take ports for
// connections and for listeners without a port: one of those could take it before its own
// program does.
func Port(tb testing.TB) int {
	tb.Helper()
	ports.Lock()
	defer ports.Unlock()
	for range 1000 {
		port := 15_000 + rand.IntN(17_000)
		if ports.taken[port] {
			continue
		}
		l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port))
		if err != nil {
			continue
		}
		_ = l.Close()
		ports.taken[port] = true
		return port
	}
	tb.Fatal("no free port")
	return 0
}

// ports are those that Port returned.
var ports = struct {
	sync.Mutex
	taken map[int]bool
}{taken: map[int]bool{}}

// lines is a buffer for concurrent reads and writes.
type lines struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func (l *lines) tail(n int) string {
	all := strings.Split(strings.TrimRight(l.String(), "\n"), "\n")
	return strings.Join(all[max(0, len(all)-n):], "\n")
}
