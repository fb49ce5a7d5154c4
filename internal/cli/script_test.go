package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/beatfabric/hivebeat/bus/embedded"
)

// patience is how long a script waits for something that must happen: far longer than it
// takes on a machine that is not overloaded.
const patience = 60 * time.Second

// TestScripts runs testdata/script/*.txtar. Besides the usual commands they may use
//
//	code N CMD…            run CMD; its exit code must be N
//	nats VAR [LEAF]        start a NATS server with JetStream; VAR is its URL, LEAF that for leaf nodes;
//	                       it has a system account, with the user sys and the password sys
//	start NAME ARG…        run hivebeat ARG… beside the script; its output goes to NAME.out and NAME.err
//	await FILE RE [VAR]    wait until FILE matches; VAR becomes the first group
//	until RE ARG…          run hivebeat ARG… again and again until its stdout matches
//	fetch FILE STATUS URL [HEADER]…   get URL into FILE
//	taken HOST:PORT        make sure that this address is in use
//	signal NAME INT|TERM|KILL
//	ended NAME N           wait for its end; the exit code must be N
//	serves URL RE          wait until the content of URL matches; with ! the server must not answer
//	receive VAR FILE       start a receiver of webhooks; VAR is its URL, FILE has a line for each
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: "testdata/script",
		Setup: func(e *testscript.Env) error {
			e.Setenv("HOME", e.WorkDir)
			e.Setenv("HIVEBEAT_HTTP", "off") // scripts run in parallel
			e.Setenv("HIVEBEAT_METRICS", "off")
			e.Values[startedKey{}] = map[string]*started{}
			return nil
		},
		Cmds: map[string]func(ts *testscript.TestScript, neg bool, args []string){
			"code": cmdCode, "nats": cmdNATS, "start": cmdStart, "await": cmdAwait, "until": cmdUntil,
			"signal": cmdSignal, "ended": cmdEnded, "fetch": cmdFetch, "taken": cmdTaken, "serves": cmdServes, "receive": cmdReceive,
		},
	})
}

func cmdCode(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: code N CMD [ARG]…")
	}
	err := ts.Exec(args[1], args[2:]...)
	checkCode(ts, args[0], err)
}

func checkCode(ts *testscript.TestScript, want string, err error) {
	if got := exitCode(ts, err); strconv.Itoa(got) != want {
		ts.Fatalf("exit code is %d, want %s", got, want)
	}
}

func exitCode(ts *testscript.TestScript, err error) int {
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		return exit.ExitCode()
	}
	if err != nil {
		ts.Fatalf("it did not run: %v", err)
	}
	return 0
}

func cmdNATS(ts *testscript.TestScript, _ bool, args []string) {
	cfg := embedded.Config{JetStream: true, StoreDir: ts.MkAbs(".nats-" + args[0])}
	cfg.Options = func(o *embedded.Options) {
		sys := embedded.NewAccount("$SYS")
		o.Accounts, o.SystemAccount = []*embedded.Account{sys}, "$SYS"
		o.Users = []*embedded.User{{Username: "sys", Password: "sys", Account: sys}, {Username: "all"}}
		o.NoAuthUser = "all"
		if len(args) > 1 {
			o.LeafNode.Host, o.LeafNode.Port = "127.0.0.1", -1
		}
	}
	srv, err := embedded.Start(context.Background(), cfg)
	ts.Check(err)
	if len(args) > 1 {
		ts.Setenv(args[1], srv.LeafURL())
	}
	ts.Defer(func() { _ = srv.Stop(context.Background()) })
	ts.Setenv(args[0], srv.URL())
	ts.Setenv("SYSTEM", strings.Replace(srv.URL(), "//", "//sys:sys@", 1))
}

// started is a hivebeat process that runs beside its script.
type started struct {
	cmd  *exec.Cmd
	done chan struct{}
	err  error // from Wait
}

type startedKey struct{}

func runningOf(ts *testscript.TestScript, name string) *started {
	p := ts.Value(startedKey{}).(map[string]*started)[name]
	if p == nil {
		ts.Fatalf("%s was not started", name)
	}
	return p
}

func cmdStart(ts *testscript.TestScript, _ bool, args []string) {
	name := args[0]
	out, err := os.Create(ts.MkAbs(name + ".out"))
	ts.Check(err)
	defer out.Close()
	log, err := os.Create(ts.MkAbs(name + ".err"))
	ts.Check(err)
	defer log.Close()
	bin := filepath.Join(ts.Getenv("WORK"), ".bin", "hivebeat")
	if path, err := exec.LookPath("hivebeat"); err == nil {
		bin = path
	}
	p := &started{cmd: exec.Command(bin, args[1:]...), done: make(chan struct{})}
	p.cmd.Stdout, p.cmd.Stderr, p.cmd.Dir = out, log, ts.MkAbs(".")
	for _, v := range []string{
		"HOME", "PATH", "TMPDIR", "NO_COLOR", "HIVEBEAT_NATS", "HIVEBEAT_PREFIX", "HIVEBEAT_HIVE", "HIVEBEAT_ID", "HIVEBEAT_LABEL",
		"HIVEBEAT_LOG_LEVEL", "HIVEBEAT_LOG_FORMAT", "HIVEBEAT_EVERY", "HIVEBEAT_HTTP", "HIVEBEAT_HTTP_OPEN", "HIVEBEAT_METRICS",
	} {
		if s := ts.Getenv(v); s != "" {
			p.cmd.Env = append(p.cmd.Env, v+"="+s)
		}
	}
	ts.Check(p.cmd.Start())
	ts.Value(startedKey{}).(map[string]*started)[name] = p
	go func() {
		defer close(p.done)
		p.err = p.cmd.Wait()
	}()
	ts.Defer(func() {
		_ = p.cmd.Process.Kill()
		<-p.done
	})
}

func cmdAwait(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: await FILE RE [VAR]")
	}
	re, err := regexp.Compile("(?m)" + args[1])
	ts.Check(err)
	wait(ts, func() (bool, string) {
		b, err := os.ReadFile(ts.MkAbs(args[0]))
		ts.Check(err)
		m := re.FindSubmatch(b)
		if m != nil && len(args) > 2 {
			ts.Setenv(args[2], string(m[1]))
		}
		return m != nil, fmt.Sprintf("%s does not match %q:\n%s", args[0], args[1], b)
	})
}

func cmdUntil(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: until RE ARG…")
	}
	re, err := regexp.Compile("(?m)" + args[0])
	ts.Check(err)
	wait(ts, func() (bool, string) {
		err := ts.Exec("hivebeat", args[1:]...)
		out := ts.ReadFile("stdout")
		return re.MatchString(out), fmt.Sprintf("hivebeat %v (%v) never said %q, but\n%s%s", args[1:], err, args[0], out, ts.ReadFile("stderr"))
	})
}

func wait(ts *testscript.TestScript, cond func() (ok bool, state string)) {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(patience); ; <-tick.C {
		ok, state := cond()
		if ok {
			return
		}
		if time.Now().After(deadline) {
			ts.Fatalf("waited %s in vain: %s", patience, state)
		}
	}
}

func cmdSignal(ts *testscript.TestScript, _ bool, args []string) {
	sig := map[string]os.Signal{"INT": os.Interrupt, "TERM": syscall.SIGTERM, "KILL": os.Kill}[args[1]]
	ts.Check(runningOf(ts, args[0]).cmd.Process.Signal(sig))
}

func cmdEnded(ts *testscript.TestScript, _ bool, args []string) {
	p := runningOf(ts, args[0])
	select {
	case <-p.done:
		// The output belongs to a failure, and only to a failure.
		if got := exitCode(ts, p.err); strconv.Itoa(got) != args[1] {
			ts.Fatalf("%s ended with exit code %d, want %s:\n%s", args[0], got, args[1], ts.ReadFile(args[0]+".err"))
		}
	case <-time.After(patience):
		ts.Fatalf("%s did not end:\n%s", args[0], ts.ReadFile(args[0]+".err"))
	}
}
