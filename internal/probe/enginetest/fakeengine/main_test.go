//go:build unix

package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/beatfabric/hivebeat"
	"github.com/beatfabric/hivebeat/internal/probe"
)

// TestMain makes the test binary a fake engine if a test starts it as one.
func TestMain(m *testing.M) {
	if os.Getenv("FAKEENGINE") != "" {
		if err := run(os.Args[1:], os.Stdout); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	goleak.VerifyTestMain(m)
}

// engine is a process that a test started.
type engine struct {
	cmd   *exec.Cmd
	url   string
	child int
	out   *bufio.Reader
}

// start starts a fake engine, and waits until it listens if wait is set.
func start(t *testing.T, wait bool, args ...string) *engine {
	t.Helper()
	cmd := exec.Command(os.Args[0], args...)
	cmd.Env, cmd.Stderr = append(os.Environ(), "FAKEENGINE=1"), os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	e := &engine{cmd: cmd, out: bufio.NewReader(out)}
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGCONT)
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		if e.child > 0 {
			_ = syscall.Kill(e.child, syscall.SIGKILL)
		}
	})
	if wait {
		e.listening(t)
	}
	return e
}

// listening reads what the process says until it listens.
func (e *engine) listening(t *testing.T) {
	t.Helper()
	for e.url == "" {
		line, err := e.out.ReadString('\n')
		if err != nil {
			t.Fatalf("the engine said %q, and ended: %v", line, err)
		}
		if _, err := fmt.Sscanf(line, "child %d", &e.child); err == nil {
			continue
		}
		e.url = strings.TrimSpace(strings.TrimPrefix(line, "listening "))
	}
}

func (e *engine) signal(t *testing.T, s syscall.Signal) {
	t.Helper()
	if err := e.cmd.Process.Signal(s); err != nil {
		t.Fatal(err)
	}
}

// until reads until it gets what a test waits for.
func until(t *testing.T, p *probe.Prober, what string, good func(probe.Reading, error) bool) {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); ; {
		r, err := p.Read(t.Context())
		if good(r, err) {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("never %s; at last %+v, %v", what, r, err)
		}
	}
}

func ready(r probe.Reading, err error) bool { return err == nil && r.State == hivebeat.Ready }

func refused(_ probe.Reading, err error) bool { return errors.Is(err, probe.ErrRefused) }

func failing(_ probe.Reading, err error) bool {
	status, ok := errors.AsType[*probe.StatusError](err)
	return ok && status.Code == http.StatusInternalServerError
}

func of(t *testing.T, url string, timeout time.Duration) *probe.Prober {
	t.Helper()
	p, err := probe.New(probe.Config{URL: url, Kind: probe.VLLM, Every: time.Minute, Timeout: timeout})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Close)
	return p
}

func TestSignals(t *testing.T) {
	t.Parallel()
	e := start(t, true, "--model=a,b")
	p := of(t, e.url, 10*time.Second)
	until(t, p, "ready", func(r probe.Reading, err error) bool { return ready(r, err) && len(r.Models) == 2 })

	e.signal(t, syscall.SIGHUP)
	until(t, p, "500", failing)
	e.signal(t, syscall.SIGHUP)
	until(t, p, "ready again", ready)

	control(t, e.url+"/_control?busy=3&queue=1&done=7&version=9.9")
	until(t, p, "busy", func(r probe.Reading, err error) bool {
		return err == nil && r.State == hivebeat.Busy && *r.Busy == 3 && *r.Queue == 1 && *r.Done == 7
	})

	e.signal(t, syscall.SIGSTOP) // the kernel still accepts connections
	until(t, of(t, e.url, 200*time.Millisecond), "silent", func(_ probe.Reading, err error) bool { return errors.Is(err, probe.ErrTimeout) })
	e.signal(t, syscall.SIGCONT)
	until(t, p, "busy again", func(r probe.Reading, err error) bool { return err == nil && r.State == hivebeat.Busy })

	e.signal(t, syscall.SIGKILL)
	until(t, p, "refused", refused)
}

func control(t *testing.T, url string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusNoContent {
		text, _ := io.ReadAll(resp.Body)
		t.Fatalf("control: %s: %s", resp.Status, text)
	}
}

// TestChildKeepsThePort: the parent is killed, and its child still answers.
func TestChildKeepsThePort(t *testing.T) {
	t.Parallel()
	e := start(t, true, "--child")
	if e.child == 0 || e.child == e.cmd.Process.Pid {
		t.Fatalf("child %d of %d", e.child, e.cmd.Process.Pid)
	}
	p := of(t, e.url, 10*time.Second)
	until(t, p, "ready", ready)
	e.signal(t, syscall.SIGKILL)
	_ = e.cmd.Wait()
	until(t, p, "ready without its parent", ready)
	if err := syscall.Kill(e.child, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	until(t, p, "refused", refused)
}

// TestLoad: vLLM does not listen while it loads, and llama.cpp says so.
func TestLoad(t *testing.T) {
	t.Parallel()
	var lc net.ListenConfig
	l, err := lc.Listen(context.Background(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	port := l.Addr().(*net.TCPAddr).Port
	l.Close()
	e := start(t, false, fmt.Sprint("--port=", port), "--load-for=300ms")
	p := of(t, fmt.Sprint("http://127.0.0.1:", port), 10*time.Second)
	if _, err := p.Read(t.Context()); !errors.Is(err, probe.ErrRefused) {
		t.Errorf("error %v while the process starts and loads, want %v", err, probe.ErrRefused)
	}
	e.listening(t)
	until(t, p, "ready", ready)

	e = start(t, true, "--kind=llamacpp", "--load-for=1h", "--fail-after=1h", "--done-every=1h", "--token=x")
	p, err = probe.New(probe.Config{URL: e.url})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Close)
	until(t, p, "loading", func(r probe.Reading, err error) bool { return err == nil && r.State == hivebeat.Loading })

	f := start(t, true, "--fail-after=1ms")
	until(t, of(t, f.url, 10*time.Second), "500", failing)
	h := start(t, true, "--hang-after=1ms")
	until(t, of(t, h.url, 200*time.Millisecond), "silent", func(_ probe.Reading, err error) bool { return errors.Is(err, probe.ErrTimeout) })
}
