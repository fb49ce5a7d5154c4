package life

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// freePort returns a port that no process listens on.
func freePort(t *testing.T) uint16 {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return uint16(l.Addr().(*net.TCPAddr).Port)
}

func TestPort(t *testing.T) {
	port := freePort(t)
	s := must(t)(Port(port, Config{Poll: poll}))
	waits(t, s, fmt.Sprintf("no process listens on port %d", port))()
	h := newHelper(t, fmt.Sprint("listen ", port))
	p := next(t, s)
	if p.PID != h.own() {
		t.Fatalf("pid %d, want %d", p.PID, h.own())
	}
	still(t, p)
	h.kill()
	if e := end(t, p); e.Final || e.Orderly || e.How != "" {
		t.Errorf("%+v", e)
	}
	h = newHelper(t, fmt.Sprint("listen ", port))
	if p := next(t, s); p.PID != h.own() {
		t.Errorf("the next process: %d, want %d", p.PID, h.own())
	}
	if _, err := Port(0, Config{}); err == nil {
		t.Error("0 is a port")
	}
}

// Of processes that share a socket, the one that the others descend from is followed; if it dies
// and a child keeps the port, the child is the next life.
func TestPortKeptByChild(t *testing.T) {
	h := newHelper(t, "parent 0")
	s := must(t)(Port(h.port, Config{Poll: poll}))
	p := next(t, s)
	if p.PID != h.own() {
		t.Fatalf("pid %d, want the parent %d of %d", p.PID, h.own(), h.pid)
	}
	_ = h.Process.Kill()
	_, _ = h.Process.Wait() // its pipes are the child's too
	if e := end(t, p); e.Orderly {
		t.Errorf("%+v", e)
	}
	p = next(t, s)
	if p.PID != h.pid {
		t.Fatalf("pid %d, want the child %d", p.PID, h.pid)
	}
	_ = syscall.Kill(int(h.pid), syscall.SIGKILL)
	end(t, p)
}

// An engine is replaced in place: the new process listens before the old one stops to. The old one
// has left then, although it still answers its last requests.
func TestPortTakenOver(t *testing.T) {
	old := newHelper(t, "listen 0")
	s := must(t)(Port(old.port, Config{Poll: poll}))
	p := next(t, s)
	fresh := newHelper(t, fmt.Sprint("listen ", old.port))
	still(t, p) // both listen
	fmt.Fprintln(old.in)
	if line, err := old.out.ReadString('\n'); err != nil || line != "closed\n" {
		t.Fatalf("%q %v", line, err)
	}
	if e := end(t, p); !e.Orderly || e.Final || !strings.Contains(e.Reason, fmt.Sprint(old.own())) {
		t.Errorf("%+v", e)
	}
	p = next(t, s)
	if p.PID != fresh.own() {
		t.Fatalf("pid %d, want %d", p.PID, fresh.own())
	}
	// A process that stops listening while no other does is still the one.
	fmt.Fprintln(fresh.in)
	if _, err := fresh.out.ReadString('\n'); err != nil {
		t.Fatal(err)
	}
	still(t, p)
	fresh.kill()
	if e := end(t, p); e.Orderly {
		t.Errorf("%+v", e)
	}
}

// The rest of the table is not read: it has a row for each connection.
func TestListening(t *testing.T) {
	const head = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n"
	row := func(local, state, inode string) string {
		return "   0: " + local + " 00000000:0000 " + state + " 00000000:00000000 00:00000000 00000000     0        0 " + inode + " 1 0 100 0 0 10 0\n"
	}
	for _, tt := range []struct {
		name, text, want string
	}{
		{"none", head, "map[]"},
		{"one", head + row("0100007F:1F40", "0A", "11"), "map[11:true]"},
		{"two addresses", head + row("00000000:1F40", "0A", "11") + row("0200007F:1F40", "0A", "12") + row("00000000:1F41", "0A", "13"), "map[11:true 12:true]"},
		{"version 6", head + row("00000000000000000000000000000000:1F40", "0A", "11"), "map[11:true]"},
		{"a connection", head + row("0100007F:1F40", "01", "11"), "map[]"},
		{"behind a connection", head + row("0100007F:1F41", "01", "11") + row("0100007F:1F40", "0A", "12"), "map[]"},
		{"nonsense", head + "x\n" + row("0100007F:1F40", "0A", "x") + row(":1F40", "0A", "7"), "map[7:true]"},
	} {
		open := map[uint64]bool{}
		if err := listening(strings.NewReader(tt.text), 8000, open); err != nil || fmt.Sprint(open) != tt.want {
			t.Errorf("%s: %v %v, want %s", tt.name, open, err, tt.want)
		}
	}
}

// A process whose files cannot be read is not found, and the reason says so.
func TestPortUnseen(t *testing.T) {
	proc := t.TempDir()
	for name, text := range map[string]string{
		"net/tcp": "head\n   0: 0100007F:1F40 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 11 1 0 100 0 0 10 0\n",
		"12/stat": "",
	} {
		if err := errors.Join(os.MkdirAll(filepath.Dir(filepath.Join(proc, name)), 0o755), os.WriteFile(filepath.Join(proc, name), []byte(text), 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	s := attach(&listener{port: 8000, proc: proc}, Config{Poll: poll}, "")
	waits(t, s, "another user's")()
}

// systemctl puts a command of that name into the PATH, which shows what is in the returned file.
func systemctl(t *testing.T) (set func(text string)) {
	t.Helper()
	dir := t.TempDir()
	file := filepath.Join(dir, "props")
	script := "#!/bin/sh\n[ \"$1\" = show ] && [ \"$3\" = vllm.service ] || { echo 'bad question' >&2; exit 1; }\ncat " + file + "\n"
	if err := os.WriteFile(filepath.Join(dir, "systemctl"), []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
	return func(text string) {
		t.Helper()
		if err := errors.Join(os.WriteFile(file+".new", []byte(text), 0o600), os.Rename(file+".new", file)); err != nil {
			t.Fatal(err)
		}
	}
}

func TestUnit(t *testing.T) {
	set := systemctl(t)
	for _, tt := range []struct {
		name, props string
		want        End
	}{
		{"stopped", "Result=success\nExecMainCode=2\nExecMainStatus=15", End{Orderly: true, Reason: "unit vllm.service: success"}},
		{"a crash", "Result=exit-code\nExecMainCode=1\nExecMainStatus=3", End{How: "code 3", Reason: "unit vllm.service: exit-code"}},
		{"kill -9", "Result=signal\nExecMainCode=2\nExecMainStatus=9", End{How: "signal 9", Reason: "unit vllm.service: signal"}},
		{"a core", "Result=core-dump\nExecMainCode=3\nExecMainStatus=11", End{How: "signal 11", Reason: "unit vllm.service: core-dump"}},
		{"memory", "Result=oom-kill\nExecMainCode=2\nExecMainStatus=9", End{How: "oom", Reason: "unit vllm.service: oom-kill"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			set("LoadState=loaded\nActiveState=inactive\nMainPID=0\n")
			s := must(t)(Unit("vllm.service", Config{Poll: poll}))
			waits(t, s, "unit vllm.service is inactive")()
			h := newHelper(t, "wait")
			runs := fmt.Sprintf("LoadState=loaded\nActiveState=active\nMainPID=%d\nExecMainPID=%[1]d\nExecMainExitTimestampMonotonic=0\nResult=success\n", h.pid)
			set(runs)
			p := next(t, s)
			if p.PID != h.pid {
				t.Fatalf("pid %d, want %d", p.PID, h.pid)
			}
			set(fmt.Sprintf("ActiveState=failed\nMainPID=0\nExecMainPID=%d\nExecMainExitTimestampMonotonic=7\n%s\n", h.pid, tt.props))
			h.kill()
			if e := end(t, p); e != tt.want {
				t.Errorf("%+v, want %+v", e, tt.want)
			}
		})
	}
	t.Run("the next one runs already", func(t *testing.T) {
		h := newHelper(t, "wait")
		set(fmt.Sprintf("ActiveState=active\nMainPID=%d\nExecMainPID=%[1]d\n", h.pid))
		s := must(t)(Unit("vllm.service", Config{Poll: poll}))
		p := next(t, s)
		other := newHelper(t, "wait")
		set(fmt.Sprintf("ActiveState=active\nMainPID=%d\nExecMainPID=%[1]d\n", other.pid))
		h.kill()
		if e := end(t, p); e != (End{}) {
			t.Errorf("%+v", e)
		}
		if p := next(t, s); p.PID != other.pid {
			t.Errorf("pid %d, want %d", p.PID, other.pid)
		}
	})
	t.Run("unknown", func(t *testing.T) {
		set("LoadState=not-found\nActiveState=inactive\nMainPID=0\n")
		waits(t, must(t)(Unit("vllm.service", Config{Poll: poll})), "systemd does not know unit vllm.service")()
		waits(t, must(t)(Unit("other", Config{Poll: poll})), "systemctl: bad question")()
		for _, name := range []string{"", "--version", "a b", "vllm*"} {
			if _, err := Unit(name, Config{}); err == nil {
				t.Errorf("%q is a unit", name)
			}
		}
		t.Setenv("PATH", t.TempDir())
		if _, err := Unit("vllm.service", Config{}); err == nil || !strings.Contains(err.Error(), "systemctl is not in the PATH") {
			t.Error(err)
		}
	})
}
