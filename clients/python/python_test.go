//go:build unix

// Package python_test runs the Python package hivebeat against a real NATS, and a real
// hive.
package python_test

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"go.uber.org/goleak"

	"github.com/beatfabric/hivebeat"
	"github.com/beatfabric/hivebeat/bus"
	"github.com/beatfabric/hivebeat/bus/embedded"
	"github.com/beatfabric/hivebeat/hive"
	"github.com/beatfabric/hivebeat/internal/bustest"
)

const (
	patience = 30 * time.Second
	hour     = "every=3600" // no beat is due by itself within a test
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// python returns the interpreter: $PYTHON, or python3. CI must have one: a test that is
// always skipped shows nothing.
func python(t *testing.T) string {
	t.Helper()
	path, err := exec.LookPath(cmp.Or(os.Getenv("PYTHON"), "python3"))
	switch {
	case err == nil:
		return path
	case os.Getenv("CI") == "true":
		t.Fatal("python3 is not installed, and CI=true")
	}
	t.Skip("python3 is not installed")
	return ""
}

// program is a running tests/program.py.
type program struct {
	t     *testing.T
	cmd   *exec.Cmd
	stdin io.WriteCloser
	lines chan string // what it prints; closed when it ended
	end   chan error
	log   bustest.Log
}

// start runs tests/program.py with only the standard library: -I ignores the environment
// and the user's packages, -S those of the system, and -B writes nothing.
func start(t *testing.T, url string, args ...string) *program {
	t.Helper()
	p := &program{t: t, lines: make(chan string, 1024), end: make(chan error, 1)}
	p.cmd = exec.Command(python(t), append([]string{"-I", "-S", "-B", "tests/program.py"}, args...)...)
	p.cmd.Env = append(os.Environ(), "HIVEBEAT_NATS="+url)
	p.cmd.Stderr = &p.log
	stdout, err := p.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if p.stdin, err = p.cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		for s := bufio.NewScanner(stdout); s.Scan(); {
			p.lines <- s.Text()
		}
		close(p.lines)
		p.end <- p.cmd.Wait()
	}()
	t.Cleanup(func() {
		_ = p.cmd.Process.Kill()
		if len(p.end) == 0 {
			<-p.end
		}
	})
	return p
}

// try runs one line of Python, and returns what the program prints for it.
func (p *program) try(line string) string {
	p.t.Helper()
	if _, err := io.WriteString(p.stdin, line+"\n"); err != nil {
		p.t.Fatalf("%s: %v\n%s", line, err, p.log.String())
	}
	return p.read(line)
}

func (p *program) read(what string) string {
	p.t.Helper()
	select {
	case got, ok := <-p.lines:
		if !ok {
			p.t.Fatalf("%s: the program ended\n%s", what, p.log.String())
		}
		return got
	case <-time.After(patience):
		p.t.Fatalf("%s: the program says nothing\n%s", what, p.log.String())
	}
	return ""
}

// do runs lines of Python that must not raise.
func (p *program) do(lines ...string) {
	p.t.Helper()
	for _, line := range lines {
		if got := p.try(line); got != "ok" {
			p.t.Fatalf("%s: %s\n%s", line, got, p.log.String())
		}
	}
}

// run runs several lines of Python that must not raise.
func (p *program) run(source string) {
	p.t.Helper()
	p.do("exec(" + strconv.Quote(source) + ")")
}

// ends waits until the program has ended, without an error.
func (p *program) ends() {
	p.t.Helper()
	select {
	case err := <-p.end:
		p.end <- err // for the cleanup
		if err != nil {
			p.t.Errorf("it ended with %v\n%s", err, p.log.String())
		}
	case <-time.After(patience):
		p.t.Fatalf("it did not end\n%s", p.log.String())
	}
}

// awaitLog waits until the program has logged text.
func (p *program) awaitLog(text string) {
	p.t.Helper()
	bustest.Eventually(p.t, patience, func() (bool, string) {
		return strings.Contains(p.log.String(), text), "no " + text + " in\n" + p.log.String()
	})
}

// beat is a beat, with what only its message shows.
type beat struct {
	hivebeat.Beat
	raw     []byte
	subject string
	at      time.Time
}

// beats records every beat below a prefix, checked by the strict parser.
type beats struct {
	t    *testing.T
	mu   sync.Mutex
	list []beat
}

func listen(t *testing.T, nc *nats.Conn, subjects ...string) *beats {
	t.Helper()
	b := &beats{t: t}
	if len(subjects) == 0 {
		subjects = []string{"hive.*.workers", "hive.*.workers.*"}
	}
	for _, subject := range subjects {
		if _, err := nc.Subscribe(subject, func(m *nats.Msg) {
			got := beat{raw: m.Data, subject: m.Subject, at: time.Now()}
			if err := bus.Decode(m.Data, &got.Beat); err != nil {
				t.Errorf("% x is refused: %v", m.Data, err)
				return
			}
			b.mu.Lock()
			defer b.mu.Unlock()
			b.list = append(b.list, got)
		}); err != nil {
			t.Fatal(err)
		}
	}
	if err := nc.Flush(); err != nil {
		t.Fatal(err)
	}
	return b
}

func (b *beats) all() []beat {
	b.mu.Lock()
	defer b.mu.Unlock()
	return append([]beat(nil), b.list...)
}

// await waits for the first beat after the first from beats that satisfies ok.
func (b *beats) await(p *program, from int, what string, ok func(beat) bool) beat {
	b.t.Helper()
	var found beat
	bustest.Eventually(b.t, patience, func() (bool, string) {
		list := b.all()
		for _, one := range list[min(from, len(list)):] {
			if ok(one) {
				found = one
				return true, ""
			}
		}
		var last hivebeat.Beat
		if len(list) > 0 {
			last = list[len(list)-1].Beat
		}
		return false, fmt.Sprintf("no %s in %d beats; the last: %+v\n%s", what, len(list), last, p.log.String())
	})
	return found
}

func anyBeat(beat) bool { return true }

func in(state hivebeat.State) func(beat) bool {
	return func(b beat) bool { return b.State == state }
}

// fabric is a NATS server with a running hive, whose snapshots it records.
type fabric struct {
	t    *testing.T
	srv  *embedded.Server
	nc   *nats.Conn
	hive *hive.Hive
}

func newFabric(t *testing.T) *fabric {
	t.Helper()
	f := &fabric{t: t, srv: bustest.Server(t, bustest.NoJetStream())}
	f.nc = bustest.Conn(t, f.srv)
	h, err := hive.New(f.nc, hive.Config{
		ID: "gpu-01", PushFacts: time.Second,
		Host: func(context.Context) (hivebeat.Host, error) { return hivebeat.Host{Name: "machine"}, nil },
		GPUs: func(context.Context) ([]hivebeat.GPU, error) { return nil, nil },
	})
	if err != nil {
		t.Fatal(err)
	}
	f.hive = h
	ended := make(chan error, 1)
	go func() { ended <- h.Run(context.Background()) }()
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		if err := errors.Join(h.Stop(ctx), <-ended); err != nil {
			t.Error(err)
		}
	})
	bustest.Eventually(t, patience, func() (bool, string) { return h.Stats().Snapshots.Sent > 0, "the hive does not run" })
	bustest.Flush(t, f.nc)
	return f
}

// await waits until the hive's record of the worker satisfies ok.
func (f *fabric) await(p *program, id, what string, ok func(hivebeat.Record) bool) hivebeat.Record {
	f.t.Helper()
	var found hivebeat.Record
	bustest.Eventually(f.t, patience, func() (bool, string) {
		s := f.hive.Snapshot()
		for _, r := range s.Workers {
			if r.Worker == id && ok(r) {
				found = r
				return true, ""
			}
		}
		return false, fmt.Sprintf("no %s: %+v\n%s", what, s.Workers, p.log.String())
	})
	return found
}

func live(l hivebeat.Live) func(hivebeat.Record) bool {
	return func(r hivebeat.Record) bool { return r.Live == l }
}

// The tests in Python check the parts that need no NATS.
func TestUnits(t *testing.T) {
	t.Parallel()
	cmd := exec.Command(python(t), "-I", "-S", "-B", "-W", "error", "tests/run.py")
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Run(); err != nil {
		t.Errorf("%v\n%s", err, out.String())
	}
	if !strings.Contains(out.String(), "OK") || strings.Contains(out.String(), "Ran 0 tests") {
		t.Errorf("no test ran:\n%s", out.String())
	}
}
