//go:build unix

package runner

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/beatfabric/hivebeat/internal/life"
)

func TestEnds(t *testing.T) {
	for _, tt := range []struct {
		script string
		end    life.End
		code   int
	}{
		{"exit 0", life.End{Orderly: true, Final: true}, 0},
		{"echo a line >&2; echo boom >&2; exit 3", life.End{How: "code 3", Reason: "a line | boom", Final: true}, 3},
		{"kill -KILL $$", life.End{How: "signal 9", Final: true}, 137},
		{"kill -TERM $$", life.End{How: "signal 15", Final: true}, 143}, // it was not asked to
		{"kill -SEGV $$", life.End{How: "signal 11", Final: true}, 139},
	} {
		r := shell(t, Config{}, tt.script)
		if got := end(t, following(t, r)); got != tt.end {
			t.Errorf("%s: %+v, want %+v", tt.script, got, tt.end)
		}
		if r.Code() != tt.code {
			t.Errorf("%s: code %d, want %d", tt.script, r.Code(), tt.code)
		}
		over(t, r)
	}
}

func TestNoSuchProgram(t *testing.T) {
	if _, err := New(Config{Args: []string{"no-such-program-here"}}); !errors.Is(err, exec.ErrNotFound) {
		t.Error(err)
	}
	for _, cfg := range []Config{{}, {Args: []string{"sh"}, Restart: "often"}, {Args: []string{"sh"}, Backoff: -1}, {Args: []string{"sh"}, Backoff: 2, BackoffMax: 1}} {
		if _, err := New(cfg); !errors.Is(err, ErrInvalid) {
			t.Errorf("%+v: %v", cfg, err)
		}
	}
	r := begin(t, Config{Args: []string{"sh"}, Dir: t.TempDir() + "/none", Restart: OnFailure, RestartMax: 2, Backoff: time.Millisecond})
	over(t, r) // after two more tries
	if r.Code() != 127 {
		t.Errorf("code %d", r.Code())
	}
}

// Signals reach the program. One that asks it to end makes any end orderly, with the code that
// the program chose, and final.
func TestSignals(t *testing.T) {
	for _, tt := range []struct {
		name   string
		signal syscall.Signal
		trap   string
		code   int
		end    life.End
	}{
		{"term", syscall.SIGTERM, "trap 'exit 7' TERM", 7, life.End{Orderly: true, Final: true}},
		{"term without a handler", syscall.SIGTERM, "", 143, life.End{Orderly: true, Final: true}},
		{"int", syscall.SIGINT, "trap 'exit 0' INT", 0, life.End{Orderly: true, Final: true}},
		{"usr1", syscall.SIGUSR1, "trap 'exit 9' USR1", 9, life.End{How: "code 9", Final: true}},
		{"hup kills", syscall.SIGHUP, "", 129, life.End{Orderly: true, Final: true}},
		{"winch", syscall.SIGWINCH, "trap 'exit 11' WINCH", 11, life.End{How: "code 11", Final: true}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			at := ready(t)
			r := shell(t, Config{}, fmt.Sprintf("%s\necho $$ >%s; while :; do sleep 0.01; done", tt.trap, at))
			p := following(t, r)
			touched(t, at)
			r.Signal(tt.signal)
			got := end(t, p)
			got.Reason = "" // a shell that ends leaves its sleep behind, which is not the subject here
			if got != tt.end || r.Code() != tt.code {
				t.Errorf("%+v with code %d, want %+v with %d", got, r.Code(), tt.end, tt.code)
			}
		})
	}
}

// A program that ignores SIGTERM is killed, with its group.
func TestStopTimeout(t *testing.T) {
	at := ready(t)
	r := shell(t, Config{StopTimeout: 50 * time.Millisecond, Restart: Always}, "trap '' TERM; sleep 1000 & echo $! >"+at+"; while :; do sleep 0.1; done")
	p := following(t, r)
	child := touched(t, at)
	r.Stop()
	if got := end(t, p); !got.Orderly || !got.Final || r.Code() != 137 {
		t.Errorf("%+v, code %d", got, r.Code())
	}
	until(t, "the end of the child", func() bool { return gone(child) })
	over(t, r)
}

func TestRestarts(t *testing.T) {
	r := shell(t, Config{Restart: OnFailure, RestartMax: 3, Backoff: 10 * time.Millisecond}, "echo boom >&2; exit 3")
	pids := map[uint64]bool{}
	for i := range 4 {
		p := following(t, r)
		pids[p.PID] = true
		got := end(t, p)
		if i < 3 {
			want := fmt.Sprintf("ms (restart %d)", i+1)
			if !strings.HasPrefix(got.Reason, "boom; starts again in ") || !strings.HasSuffix(got.Reason, want) || got.How != "code 3" || got.Final || got.GivenUp || got.Orderly {
				t.Errorf("end %d: %+v", i, got)
			}
			if w := r.Waiting(); !strings.HasPrefix(w, "starts again in ") {
				t.Errorf("waits: %q", w)
			}
			continue
		}
		if want := "code 3; boom; given up after 3 restarts within 10m"; got.Reason != want || !got.Final || !got.GivenUp || got.Orderly {
			t.Errorf("the last end: %+v, want reason %q", got, want)
		}
	}
	if len(pids) != 4 {
		t.Errorf("pids %v", pids)
	}
	over(t, r)
	if r.Code() != 3 {
		t.Errorf("code %d", r.Code())
	}
}

func TestRestartAlways(t *testing.T) {
	r := shell(t, Config{Restart: Always, Backoff: time.Millisecond}, "exit 0")
	for range 2 {
		if got := end(t, following(t, r)); !got.Orderly || got.Final || got.How != "" {
			t.Errorf("%+v", got)
		}
	}
	r = shell(t, Config{Restart: OnFailure, Backoff: time.Millisecond}, "exit 0")
	if got := end(t, following(t, r)); !got.Orderly || !got.Final {
		t.Errorf("%+v", got)
	}
}

// A Runner that is stopped between two lives starts nothing, and is not blamed for the last end.
func TestStopWhileItWaits(t *testing.T) {
	r := shell(t, Config{Restart: OnFailure, Backoff: time.Hour}, "exit 3")
	end(t, following(t, r))
	waits := make(chan error, 1)
	go func() {
		_, err := r.Next(t.Context())
		waits <- err
	}()
	r.Stop()
	if err := <-waits; !errors.Is(err, life.ErrOver) || r.Code() != 0 {
		t.Errorf("%v, code %d", err, r.Code())
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	r = shell(t, Config{Restart: OnFailure, Backoff: time.Hour}, "exit 3")
	end(t, following(t, r))
	if _, err := r.Next(ctx); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

// Output passes through, stderr too, byte by byte, and the environment lacks what is systemd's
// for hivebeat.
func TestStreams(t *testing.T) {
	out, in, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	errs, errIn, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	r := shell(t, Config{Stdout: in, Stderr: errIn, Env: []string{"A=1", "NOTIFY_SOCKET=/run/x", "WATCHDOG_USEC=5"}},
		`printf 'out\000\033[1m'; env | grep -c -e NOTIFY -e WATCHDOG; printf '\033[31merr\r\n' >&2`)
	end(t, following(t, r))
	r.Close()
	in.Close()
	errIn.Close()
	if b, _ := io.ReadAll(out); string(b) != "out\x00\x1b[1m0\n" {
		t.Errorf("stdout %q", b)
	}
	if b, _ := io.ReadAll(errs); string(b) != "\x1b[31merr\r\n" {
		t.Errorf("stderr %q", b)
	}
}

// A child that a crashed program leaves behind, and that keeps its stderr open, delays no
// report. It is named, and it has ended before the next start.
func TestLeftBehind(t *testing.T) {
	at := ready(t)
	r := shell(t, Config{Restart: OnFailure, Backoff: time.Millisecond, Grace: 50 * time.Millisecond},
		"(trap '' TERM; while :; do sleep 0.05; done) & echo $! >"+at+"; echo boom >&2; exit 3")
	p := following(t, r)
	got := end(t, p)
	child := touched(t, at)
	if !strings.HasPrefix(got.Reason, "boom; left ") || !strings.Contains(got.Reason, child) || !strings.Contains(got.Reason, " behind: ") {
		t.Errorf("%+v, and the child is %s", got, child)
	}
	following(t, r)
	until(t, "the end of the child before the next start", func() bool { return gone(child) })
}

func TestAfter(t *testing.T) {
	cfg := Config{Restart: OnFailure}.withDefaults()
	s := newRestarts(&cfg)
	now := time.Unix(1_000_000, 0)
	var waits []string
	for range 10 {
		n := s.after(now, false, 0.5)
		if !n.again {
			t.Fatalf("gave up after %s", waits)
		}
		waits = append(waits, n.wait.String())
		now = now.Add(n.wait)
	}
	if got, want := strings.Join(waits, " "), "1s 2s 4s 8s 16s 32s 1m0s 1m0s 1m0s 1m0s"; got != want {
		t.Errorf("waits %s, want %s", got, want)
	}
	if n := s.after(now, false, 0.5); !n.givenUp || n.again {
		t.Errorf("the eleventh end: %+v", n)
	}
	now = now.Add(10 * time.Minute)
	if n := s.after(now, false, 0); n.wait != 800*time.Millisecond || n.number != 11 {
		t.Errorf("after ten minutes: %+v", n)
	}
	if n := s.after(now, true, 0); n.again || n.givenUp {
		t.Errorf("an orderly end: %+v", n)
	}
}

func TestLastLines(t *testing.T) {
	long := strings.Repeat("x", 300)
	for _, tt := range []struct{ text, want string }{
		{"", ""},
		{"\n\n", ""},
		{"one\ntwo\nthree\nfour\n", "two | three | four"},
		{"Traceback\n  File\n\x1b[31mValueError: no GPU\x1b[0m\r\n", "Traceback | File | ValueError: no GPU"},
		{"load 10%\rload 50%\rload 99%", "load 99%"},
		{"before\n" + long + "\n", long[:tailBytes]},
		{long + "\nlast\n", "last"},
		{"a\u200bb\u202ec\n", "a\ufffdb\ufffdc"},
	} {
		if got := lastLines(tt.text); got != tt.want {
			t.Errorf("%q: %q, want %q", tt.text, got, tt.want)
		}
	}
	var l tail
	for range 1000 {
		fmt.Fprintln(&l, long)
	}
	if len(l.b) != tailKept {
		t.Errorf("%d bytes are kept", len(l.b))
	}
}
