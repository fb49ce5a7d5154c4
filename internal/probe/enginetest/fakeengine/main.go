// Command fakeengine is an engine of package enginetest as a process, which tests kill, stop and
// discover. It writes "listening URL" to standard output once it does, and "child PID" if it has
// one. SIGHUP makes it fail with 500, and work again; GET /_control?key=value changes the rest.
package main

import (
	"bufio"
	"context"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/beatfabric/hivebeat/internal/probe"
	"github.com/beatfabric/hivebeat/internal/probe/enginetest"
)

// inherited is the file of the listener in a child.
const inherited = 3

func main() {
	if err := run(os.Args[1:], os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "fakeengine:", err)
		os.Exit(1) //nolint:forbidigo // a program
	}
}

func run(args []string, out io.Writer) error {
	f := flag.NewFlagSet("fakeengine", flag.ContinueOnError)
	kind := f.String("kind", "vllm", "which engine to be")
	port := f.Int("port", 0, "port of loopback to listen on; 0: a free one")
	model := f.String("model", "fake-8b", "names of models, with commas between them")
	loadFor := f.Duration("load-for", 0, "load for this long: llamacpp answers 503, the others do not listen")
	failAfter := f.Duration("fail-after", 0, "answer 500 after this time; 0: never")
	hangAfter := f.Duration("hang-after", 0, "answer nothing after this time; 0: never")
	busy := f.Uint64("busy", 0, "requests that run")
	queue := f.Uint64("queue", 0, "requests that wait")
	slots := f.Uint64("slots", 8, "requests that can run at once")
	rate := f.Duration("done-every", 0, "finish a request this often; 0: never")
	token := f.String("token", "", "bearer token to require")
	child := f.Bool("child", false, "leave the port to a child process, which outlives this one")
	lifetime := f.Duration("lifetime", 10*time.Minute, "end after this time, so that no test leaves one behind")
	adopted := f.Bool("inherited", false, "for the child: listen on the inherited file")
	if err := f.Parse(args); err != nil {
		return err
	}
	ctx, cancel := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer cancel()
	ctx, cancel = context.WithTimeout(ctx, *lifetime)
	defer cancel()

	e := enginetest.Make(probe.Kind(*kind), enginetest.With(func(s *enginetest.State) {
		s.Busy, s.Queue, s.Slots, s.Token = *busy, *queue, *slots, *token
		s.Models = nil
		for name := range strings.SplitSeq(*model, ",") {
			s.Models = append(s.Models, probe.Model{Name: name, Loaded: true})
		}
		s.Loading = *loadFor > 0
	}))
	defer e.Close()
	loaded := time.After(*loadFor)
	if e.Kind != probe.LlamaCPP && *loadFor > 0 {
		select {
		case <-loaded:
		case <-ctx.Done():
			return nil
		}
	}
	var l net.Listener
	var err error
	if *adopted {
		l, err = net.FileListener(os.NewFile(inherited, "listener"))
	} else {
		var lc net.ListenConfig
		l, err = lc.Listen(ctx, "tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(*port)))
	}
	if err != nil {
		return err
	}
	if *child {
		return bear(ctx, l, args[:len(args)-f.NArg()], f.Args(), out)
	}
	e.ServeOn(l)
	fmt.Fprintln(out, "listening", e.URL)

	hup := make(chan os.Signal, 1)
	signal.Notify(hup, syscall.SIGHUP)
	defer signal.Stop(hup)
	failed, hung := after(*failAfter), after(*hangAfter)
	var done <-chan time.Time
	if *rate > 0 {
		tick := time.NewTicker(*rate)
		defer tick.Stop()
		done = tick.C
	}
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-loaded:
			e.Set(func(s *enginetest.State) { s.Loading = false })
		case <-done:
			e.AddDone(1)
		case <-failed:
			e.Fail(http.StatusInternalServerError, "CUDA error: an illegal memory access was encountered")
		case <-hung:
			e.Hang(true)
		case <-hup:
			e.Set(func(s *enginetest.State) {
				if s.Status == 0 {
					s.Status, s.Body = http.StatusInternalServerError, "switched by SIGHUP"
				} else {
					s.Status = 0
				}
			})
		}
	}
}

func after(d time.Duration) <-chan time.Time {
	if d == 0 {
		return nil
	}
	return time.After(d)
}

// bear starts a child with the same flags that serves l, and waits. A killed parent leaves the
// child behind, as vLLM leaves its engine core.
func bear(ctx context.Context, l net.Listener, flags, rest []string, out io.Writer) error {
	file, err := l.(*net.TCPListener).File()
	if err != nil {
		return err
	}
	// The last of two flags counts.
	cmd := exec.Command(os.Args[0], slices.Concat(flags, []string{"--child=false", "--inherited", "--load-for=0"}, rest)...) //nolint:noctx,gosec // it is this program, and outlives this process
	cmd.ExtraFiles, cmd.Stderr = []*os.File{file}, os.Stderr
	said, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	file.Close()
	_ = l.Close()
	line, err := bufio.NewReader(said).ReadString('\n')
	if err != nil {
		return fmt.Errorf("the child says nothing: %w", err)
	}
	fmt.Fprintf(out, "child %d\n%s", cmd.Process.Pid, line)
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	select {
	case err := <-ended:
		return err
	case <-ctx.Done(): // an orderly end takes the child along
		_ = cmd.Process.Signal(syscall.SIGTERM)
		return <-ended
	}
}
