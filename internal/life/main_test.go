package life

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
)

const (
	patience = 20 * time.Second
	poll     = 10 * time.Millisecond // of the sources in tests
)

// asHelper makes the test binary a process that does what the value says, and prints a line when
// it is ready.
const asHelper = "LIFE_TEST_HELPER"

func TestMain(m *testing.M) {
	if what := os.Getenv(asHelper); what != "" {
		help(what)
		os.Exit(0)
	}
	goleak.VerifyTestMain(m)
}

// help does one of:
//
//	wait                nothing
//	listen PORT         listens; on a line of stdin, it stops listening
//	parent PORT         listens, with a child that has the socket too
//	child               has the socket of its parent
//
// and ends with its stdin.
func help(what string) {
	word, port, _ := strings.Cut(what, " ")
	var l net.Listener
	pid := os.Getpid()
	switch word {
	case "listen", "parent":
		var err error
		config := net.ListenConfig{Control: reusePort}
		if l, err = config.Listen(context.Background(), "tcp", "127.0.0.1:"+port); err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		port = l.Addr().String()
		if word == "parent" {
			f, err := l.(*net.TCPListener).File()
			if err != nil {
				os.Exit(1)
			}
			child := exec.Command(os.Args[0])
			child.Env = append(os.Environ(), asHelper+"=child")
			child.Stdin, child.ExtraFiles = os.Stdin, []*os.File{f}
			if child.Start() != nil {
				os.Exit(1)
			}
			pid = child.Process.Pid
		}
	}
	fmt.Println(pid, port)
	in := bufio.NewReader(os.Stdin)
	if _, err := in.ReadString('\n'); err == nil && l != nil {
		l.Close()
		fmt.Println("closed")
	}
	_, _ = io.Copy(io.Discard, in)
}

// helper is such a process.
type helper struct {
	*exec.Cmd
	pid  uint64 // of the process, or of its child
	port uint16
	in   io.WriteCloser
	out  *bufio.Reader
}

func newHelper(t *testing.T, what string) *helper {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), asHelper+"="+what)
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	h := &helper{Cmd: cmd, in: in, out: bufio.NewReader(out)}
	t.Cleanup(func() {
		in.Close()
		h.kill()
	})
	line, err := h.out.ReadString('\n')
	if err != nil {
		t.Fatalf("%s: %q %v", what, line, err)
	}
	f := strings.Fields(line)
	h.pid, err = strconv.ParseUint(f[0], 10, 64)
	if err != nil {
		t.Fatalf("%s: %s", what, line)
	}
	if len(f) > 1 {
		_, text, _ := net.SplitHostPort(f[1])
		n, _ := strconv.ParseUint(text, 10, 16)
		h.port = uint16(n)
	}
	return h
}

func (h *helper) own() uint64 { return uint64(h.Process.Pid) }

func (h *helper) kill() {
	_ = h.Process.Kill()
	_ = h.Wait()
}

// next returns the next process of a source.
func next(t *testing.T, s Source) Process {
	t.Helper()
	late := time.AfterFunc(patience, func() { t.Errorf("no process comes: %s", s.Waiting()) })
	defer late.Stop()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel) // it also ends the watch
	p, err := s.Next(ctx)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func end(t *testing.T, p Process) End {
	t.Helper()
	select {
	case e := <-p.Ended:
		return e
	case <-time.After(patience):
		t.Fatalf("the end of %d is not seen", p.PID)
		return End{}
	}
}

// still checks that the process is followed.
func still(t *testing.T, p Process) {
	t.Helper()
	select {
	case e := <-p.Ended:
		t.Fatalf("%d has ended: %+v", p.PID, e)
	case <-time.After(10 * poll):
	}
}

// waits calls Next, and checks that the source says that it waits for this.
func waits(t *testing.T, s Source, want string) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		_, err := s.Next(ctx)
		done <- err
	}()
	tick := time.NewTicker(poll)
	defer tick.Stop()
	for late := time.Now().Add(patience); ; <-tick.C {
		if strings.Contains(s.Waiting(), want) {
			break
		}
		select {
		case err := <-done:
			t.Fatalf("Next returned: %v", err)
		default:
		}
		if time.Now().After(late) {
			t.Fatalf("it waits for %q, want %q", s.Waiting(), want)
		}
	}
	return func() {
		t.Helper()
		cancel()
		if err := <-done; err == nil {
			t.Error("a process came")
		}
	}
}
