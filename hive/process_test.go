package hive

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/beatfabric/hivebeat"
	"github.com/beatfabric/hivebeat/bus"
	"github.com/beatfabric/hivebeat/internal/bootid"
	"github.com/beatfabric/hivebeat/internal/wire"
	"github.com/beatfabric/hivebeat/worker"
)

// asProcess makes this test binary act as another process: a worker, or a hive.
const asProcess = "HIVE_TEST_PROCESS"

// The kinds of process.
const (
	processSleeps = "sleeps"  // until it is killed
	processWorks  = "works"   // beats with package worker, says goodbye at SIGTERM
	processRaw    = "by hand" // the same without package worker; it only flushes the goodbye
	processQuiet  = "quiet"   // works, and announces a silence of 5 min
	processAgent  = "agent"   // works over a connection of package bus
	processHive   = "hive"    // a hive that sends a snapshot every second
)

// process is the main function of such a process.
func process(what string) int {
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGTERM)
	go func() { // bounds its life by that of the test
		_, _ = io.Copy(io.Discard, os.Stdin)
		os.Exit(3)
	}()
	run := map[string]func(<-chan os.Signal) error{
		processSleeps: func(stop <-chan os.Signal) error { fmt.Println("here"); <-stop; return nil },
		processWorks:  work, processQuiet: work, processAgent: work, processRaw: workByHand,
		processHive: runHive,
	}[what]
	if err := run(stop); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

func work(stop <-chan os.Signal) error {
	connect := func() (*nats.Conn, error) { return nats.Connect(os.Getenv("HIVE_TEST_NATS")) }
	if os.Getenv(asProcess) == processAgent {
		connect = func() (*nats.Conn, error) {
			return bus.Connect(context.Background(), bus.Config{URL: os.Getenv("HIVE_TEST_NATS")})
		}
	}
	nc, err := connect()
	if err != nil {
		return err
	}
	w, err := worker.New(nc, worker.Config{Hive: os.Getenv("HIVE_TEST_HIVE"), ID: os.Getenv("HIVE_TEST_WORKER")})
	if err != nil {
		return err
	}
	ended := make(chan error, 1)
	go func() { ended <- w.Run(context.Background()) }()
	if os.Getenv(asProcess) == processQuiet {
		if err := w.Quiet(context.Background(), 5*time.Minute); err != nil {
			return err
		}
	}
	fmt.Println("here")
	<-stop
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := w.Stop(ctx); err != nil {
		return err
	}
	return <-ended
}

// workByHand is the worker of the last chapter of docs/PROTOCOL.md.
func workByHand(stop <-chan os.Signal) error {
	nc, err := nats.Connect(os.Getenv("HIVE_TEST_NATS"))
	if err != nil {
		return err
	}
	f := newFake(os.Getenv("HIVE_TEST_WORKER"))
	f.PID, f.NS = uint64(os.Getpid()), bootid.Namespace()
	say := func(state hivebeat.State) error {
		f.Seq++
		f.State = state
		b, err := wire.EncodeBeat(&f.Beat)
		if err == nil {
			err = nc.Publish(beats, b)
		}
		if err == nil {
			err = nc.Flush()
		}
		return err
	}
	if err := say(hivebeat.Ready); err != nil {
		return err
	}
	fmt.Println("here")
	<-stop
	return say(hivebeat.Stopped)
}

func runHive(stop <-chan os.Signal) error {
	nc, err := bus.Connect(context.Background(), bus.Config{URL: os.Getenv("HIVE_TEST_NATS")})
	if err != nil {
		return err
	}
	cfg := quickConfig()
	cfg.ID, cfg.Every = os.Getenv("HIVE_TEST_HIVE"), time.Second
	h, err := New(nc, cfg)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(context.Background())
	go func() { <-stop; cancel() }()
	fmt.Println("here")
	return h.Run(ctx)
}

// child is another process.
type child struct {
	*exec.Cmd
	pid   uint64
	ended bool
}

func newChild(t testing.TB, what, url, id string) *child {
	t.Helper()
	return newChildOf(t, what, url, thisHive, id)
}

func newChildOf(t testing.TB, what, url, hive, id string) *child {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), asProcess+"="+what, "HIVE_TEST_NATS="+url, "HIVE_TEST_HIVE="+hive, "HIVE_TEST_WORKER="+id)
	cmd.Stderr = os.Stderr
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
	c := &child{Cmd: cmd, pid: uint64(cmd.Process.Pid)}
	t.Cleanup(func() {
		_ = in.Close()
		c.kill()
	})
	if _, err := bufio.NewReader(out).ReadString('\n'); err != nil {
		t.Fatalf("%s does not begin: %v", what, err)
	}
	return c
}

// kill ends the process with kill -9, and waits for its end.
func (c *child) kill() {
	if !c.ended {
		_ = c.Process.Kill()
		_ = c.Wait()
		c.ended = true
	}
}

func (c *child) signal(t testing.TB, s os.Signal) {
	t.Helper()
	if err := c.Process.Signal(s); err != nil {
		t.Fatal(err)
	}
}

// fakeOf returns a worker whose beats the test sends, and whose process is c.
func fakeOf(c *child, id string) *fake {
	f := newFake(id)
	f.PID, f.NS = c.pid, bootid.Namespace()
	return f
}
