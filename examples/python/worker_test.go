// Package python_test runs worker.py, the worker that was written from
// docs/PROTOCOL.md alone, against a real NATS.
package python_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"go.uber.org/goleak"

	"github.com/beatfabric/hivebeat"
	"github.com/beatfabric/hivebeat/bus"
	"github.com/beatfabric/hivebeat/bus/embedded"
	"github.com/beatfabric/hivebeat/hive"
	"github.com/beatfabric/hivebeat/internal/bootid"
	"github.com/beatfabric/hivebeat/internal/bustest"
)

const patience = 30 * time.Second

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// python returns the interpreter. CI must have one: a test that is always skipped shows
// nothing.
func python(t *testing.T) string {
	t.Helper()
	path, err := exec.LookPath("python3")
	switch {
	case err == nil:
		return path
	case os.Getenv("CI") == "true":
		t.Fatal("python3 is not installed, and CI=true")
	}
	t.Skip("python3 is not installed")
	return ""
}

// worker is a running worker.py.
type worker struct {
	t   *testing.T
	cmd *exec.Cmd
	end chan error

	mu     sync.Mutex
	stderr bytes.Buffer
}

func (w *worker) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.stderr.Write(p)
}

func (w *worker) errors() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.stderr.String()
}

// start runs worker.py with only the standard library: -I ignores the environment and
// the user's packages, -S those of the system.
func start(t *testing.T, url string, args ...string) *worker {
	t.Helper()
	w := &worker{t: t, end: make(chan error, 1)}
	w.cmd = exec.Command(python(t), append([]string{"-I", "-S", "worker.py"}, args...)...)
	w.cmd.Env = append(os.Environ(), "HIVEBEAT_NATS="+url)
	w.cmd.Stderr = w
	if err := w.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { w.end <- w.cmd.Wait() }()
	t.Cleanup(func() {
		_ = w.cmd.Process.Kill()
		if len(w.end) == 0 {
			<-w.end
		}
	})
	return w
}

// stop sends sig and waits for the worker to end.
func (w *worker) stop(sig os.Signal) {
	w.t.Helper()
	if err := w.cmd.Process.Signal(sig); err != nil {
		w.t.Fatal(err)
	}
	select {
	case err := <-w.end:
		w.end <- err // for the cleanup
		if err != nil {
			w.t.Errorf("it ended with %v\n%s", err, w.errors())
		}
	case <-time.After(patience):
		w.t.Fatalf("it did not end on %s\n%s", sig, w.errors())
	}
}

// beats records every beat, checked by the strict parser.
type beats struct {
	t    *testing.T
	mu   sync.Mutex
	list []hivebeat.Beat
}

func listen(t *testing.T, nc *nats.Conn) *beats {
	t.Helper()
	b := &beats{t: t}
	_, err := nc.Subscribe("hive.gpu-01.workers", func(m *nats.Msg) {
		var beat hivebeat.Beat
		if err := bus.Decode(m.Data, &beat); err != nil {
			t.Errorf("% x is refused: %v", m.Data, err)
			return
		}
		b.mu.Lock()
		defer b.mu.Unlock()
		b.list = append(b.list, beat)
	})
	if err == nil {
		err = nc.Flush()
	}
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func (b *beats) all() []hivebeat.Beat {
	b.mu.Lock()
	defer b.mu.Unlock()
	return append([]hivebeat.Beat(nil), b.list...)
}

// wait waits until n beats were received.
func (b *beats) wait(w *worker, n int) []hivebeat.Beat {
	b.t.Helper()
	bustest.Eventually(b.t, patience, func() (bool, string) {
		return len(b.all()) >= n, fmt.Sprintf("%d of %d beats: %+v\n%s", len(b.all()), n, b.all(), w.errors())
	})
	return b.all()
}

func TestBeats(t *testing.T) {
	t.Parallel()
	for _, sig := range []os.Signal{syscall.SIGTERM, os.Interrupt} {
		t.Run(sig.String(), func(t *testing.T) {
			t.Parallel()
			// A server that pings ten times a second drops a client that does not
			// answer.
			srv := bustest.Server(t, bustest.NoJetStream(), bustest.Configure(func(o *embedded.Options) {
				o.PingInterval, o.MaxPingsOut = 100*time.Millisecond, 2
			}))
			heard := listen(t, bustest.Conn(t, srv))
			host, err := os.Hostname()
			if err != nil {
				t.Fatal(err)
			}
			before, booted := time.Now(), bootid.Clock()
			w := start(t, srv.URL(), "gpu-01", "snake", "päivää-8b", "200")
			list := heard.wait(w, 8)
			w.stop(sig)
			list = heard.wait(w, len(list)+1)
			if gone := list[len(list)-1]; gone.State != hivebeat.Stopped {
				t.Errorf("the last beat is %+v, want a goodbye", gone)
			}
			for i, b := range list[:len(list)-1] {
				want := hivebeat.Beat{V: 1, Hive: "gpu-01", Worker: "snake", Facts: hivebeat.Facts{
					Inc: b.Inc, Every: 200, State: hivebeat.Ready, Slots: 1, PID: uint64(w.cmd.Process.Pid), NS: ns(), Host: host,
					Conn: b.Conn, RW: 500, Model: "päivää-8b", Seq: uint64(i + 1), Sent: b.Sent,
				}, Boot: b.Boot}
				if now := bootid.Clock(); ns() != "" && (b.Boot < booted || b.Boot > now) {
					t.Errorf("beat %d was sent at %d of the boot clock, want %d to %d", i+1, b.Boot, booted, now)
				}
				if got, want := fmt.Sprintf("%+v", b), fmt.Sprintf("%+v", want); got != want {
					t.Errorf("beat %d:\n got %s\nwant %s", i+1, got, want)
				}
				if b.Conn == "" || b.Conn != list[0].Conn {
					t.Errorf("beat %d is over the connection %q, the first over %q", i+1, b.Conn, list[0].Conn)
				}
				if b.Inc != list[0].Inc || time.UnixMicro(int64(b.Inc)).Before(before.Truncate(time.Microsecond)) {
					t.Errorf("beat %d has incarnation %d, the first %d; begun at %s", i+1, b.Inc, list[0].Inc, before)
				}
				if i > 0 { // by the sender's clock, and with some tolerance for a busy machine
					if gap := b.Sent - list[i-1].Sent; gap < 160 {
						t.Errorf("beat %d came %d ms after the one before, want 170 to 190", i+1, gap)
					}
				}
			}
			if s := w.errors(); s != "" {
				t.Errorf("it complained:\n%s", s)
			}
		})
	}
}

// ns returns what worker.py sends as ns: it reads it only on Linux.
func ns() string {
	if runtime.GOOS != "linux" {
		return ""
	}
	return bootid.Namespace()
}

func TestRollCall(t *testing.T) {
	t.Parallel()
	srv := bustest.Server(t, bustest.NoJetStream())
	nc := bustest.Conn(t, srv)
	heard := listen(t, nc)
	w := start(t, srv.URL(), "gpu-01", "snake", "m", "3600000")
	heard.wait(w, 1)
	call := func(payload string) {
		t.Helper()
		if err := nc.Publish("hive.gpu-01.rollcall", []byte(payload)); err != nil {
			t.Fatal(err)
		}
	}
	for _, bad := range []string{"-1", "soon", "9999999999", "1.5", "\xff\x00", "PING\r\nMSG x 1 4\r\n9999\r\n"} {
		call(bad)
	}
	call("") // Calls are read in order: this one is answered if the bad ones did no harm.
	if n := len(heard.wait(w, 2)); n != 2 {
		t.Errorf("%d beats, want the first and one answer", n)
	}
	begin := time.Now()
	for range 100 {
		call("0")
	}
	heard.wait(w, 3)
	call("50")
	heard.wait(w, 4)
	if n, most := len(heard.all()), 4+int(time.Since(begin)/time.Second); n > most {
		t.Errorf("%d beats for a flood of roll calls, at most %d are allowed", n, most)
	}
}

func TestNATSGoneAndBack(t *testing.T) {
	t.Parallel()
	srv := bustest.Server(t, bustest.NoJetStream())
	heard := listen(t, bustest.Conn(t, srv))
	w := start(t, srv.URL(), "gpu-01", "snake", "m", "200")
	n := len(heard.wait(w, 2))
	bustest.Stop(t, srv)
	bustest.Eventually(t, patience, func() (bool, string) {
		return strings.Contains(w.errors(), "no connection"), "it did not notice: " + w.errors()
	})
	srv = bustest.Restart(t, srv)
	heard.wait(w, n+2)
	bustest.Stop(t, srv)
	w.stop(os.Interrupt) // Stopping works without NATS too.
}

// The worker names its process and its connection. A hive that sees either end need not
// wait for its silence: with a promise of an hour, the worker is lost within seconds.
func TestKilled(t *testing.T) {
	t.Parallel()
	for cause, cfg := range map[hivebeat.Cause]hive.Config{hivebeat.CauseExit: {}, hivebeat.CauseDisconnect: {NoExitWatch: true}} {
		t.Run(string(cause), func(t *testing.T) {
			t.Parallel()
			if cause == hivebeat.CauseExit && ns() == "" {
				t.Skip("no hive can watch a process of Python here")
			}
			killed(t, cfg, cause)
		})
	}
}

func killed(t *testing.T, cfg hive.Config, cause hivebeat.Cause) {
	t.Helper()
	srv := bustest.Server(t, bustest.NoJetStream(), func(c *embedded.Config) { c.System = true })
	nc := bustest.Conn(t, srv)
	sys, err := nats.Connect("", srv.SystemOptions()...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(sys.Close)
	rows := make(chan hivebeat.Record, 1024)
	if _, err := nc.Subscribe("queen.hives", func(m *nats.Msg) {
		var s hivebeat.Snapshot
		if err := bus.Decode(m.Data, &s); err != nil {
			t.Error(err)
		}
		for _, r := range s.Workers {
			rows <- r
		}
	}); err != nil {
		t.Fatal(err)
	}
	cfg.ID, cfg.System = "gpu-01", sys
	h, err := hive.New(nc, cfg)
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- h.Run(context.Background()) }()
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		if err := errors.Join(h.Stop(ctx), <-ended); err != nil {
			t.Error(err)
		}
	})
	await := func(w *worker, live hivebeat.Live) hivebeat.Record {
		t.Helper()
		for late := time.After(patience); ; {
			select {
			case r := <-rows:
				if r.Live == live {
					return r
				}
			case <-late:
				t.Fatalf("it is not %s\n%s", live, w.errors())
			}
		}
	}
	w := start(t, srv.URL(), "gpu-01", "snake", "m", "3600000")
	await(w, hivebeat.Alive)
	if err := w.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	if r := await(w, hivebeat.Lost); r.Cause != cause {
		t.Errorf("it is lost by %s, want %s", r.Cause, cause)
	}
}

func TestPassword(t *testing.T) {
	t.Parallel()
	srv := bustest.Server(t, bustest.NoJetStream(), bustest.User("ann", nil, nil), bustest.User("snake", []string{"hive.gpu-01.workers"}, []string{"hive.gpu-01.rollcall"}))
	heard := listen(t, bustest.Conn(t, srv, nats.UserInfo("ann", "ann")))
	w := start(t, strings.Replace(srv.URL(), "nats://", "nats://snake:snake@", 1), "gpu-01", "snake", "m", "200")
	heard.wait(w, 2)
	w.stop(os.Interrupt)
}

// The script is as short as it claims, and refuses arguments that would build another
// subject.
func TestScript(t *testing.T) {
	t.Parallel()
	src, err := os.ReadFile("worker.py")
	if err != nil {
		t.Fatal(err)
	}
	code := 0
	for line := range bytes.Lines(src) {
		if len(bytes.TrimSpace(line)) > 0 {
			code++
		}
	}
	if code >= 60 {
		t.Errorf("worker.py has %d lines that are not empty, want under 60", code)
	}
	for _, args := range [][]string{{}, {"gpu-01", "x"}, {"gpu.01", "x", "m"}, {"gpu-01", "*", "m"}, {"gpu-01", "", "m"}, {"gpu-01", "x\n", "m"}} {
		cmd := exec.Command(python(t), append([]string{"-I", "-S", "worker.py"}, args...)...)
		out, err := cmd.CombinedOutput()
		if err == nil || !strings.Contains(string(out), "usage:") {
			t.Errorf("worker.py %q: %v\n%s", args, err, out)
		}
	}
}
