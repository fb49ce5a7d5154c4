package runner

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// A process that runs a program ends with its code, passes signals on, and adopts what the program
// leaves behind.
func TestProgram(t *testing.T) {
	h := newHelper(t, nil, "sh", "-c", "exit 42")
	if code := h.code(t); code != 42 {
		t.Errorf("code %d", code)
	}
	h = newHelper(t, nil, "sh", "-c", "kill -KILL $$")
	if code := h.code(t); code != 137 {
		t.Errorf("code %d", code)
	}

	at := ready(t)
	h = newHelper(t, nil, "sh", "-c", "trap 'exit 5' TERM; echo $$ >"+at+"; while :; do sleep 0.01; done")
	pid := touched(t, at)
	if line := h.line(t); line != "pid "+pid {
		t.Errorf("it reports %q, and the program is %s", line, pid)
	}
	_ = h.Process.Signal(syscall.SIGTERM)
	if code := h.code(t); code != 5 {
		t.Errorf("code %d", code)
	}
}

// Grandchildren whose parent ends are children of the runner: it reaps those that end, and names
// those that live when the program ends, also those that left its group.
func TestAdopts(t *testing.T) {
	at := ready(t)
	// The shell in the middle ends at once: its sleeps lose their parent.
	h := newHelper(t, nil, "sh", "-c", "(sleep 0.05 & setsid sleep 1000 & echo $! >"+at+"); sleep 0.3; echo boom >&2; exit 3")
	far := touched(t, at)
	t.Cleanup(func() {
		pid, _ := strconv.Atoi(far)
		_ = syscall.Kill(pid, syscall.SIGKILL)
	})
	h.line(t)
	line := h.line(t)
	if !strings.Contains(line, "How:code 3") || !strings.Contains(line, "left 1 child behind: "+far) {
		t.Errorf("it reports %q, and the process left behind is %s", line, far)
	}
	if code := h.code(t); code != 3 {
		t.Errorf("code %d", code)
	}
	if gone(far) {
		t.Error("a process that left the group was ended")
	}
}

// Process 1 of a container reaps what has lost its parent, gets the signals that it passes on, and
// ends with the program's code.
func TestProcess1(t *testing.T) {
	cmd := exec.Command("unshare", "--pid", "--fork", "--mount-proc", "--kill-child", os.Args[0], "sh", "-c",
		`for i in 1 2 3 4 5 6 7 8; do (sleep 0 &); done; for i in $(seq 500); do
			grep -l '^PPid:.1$' /proc/[0-9]*/status | xargs grep -l '^State:.Z' >/dev/null 2>&1 || { [ $i -gt 20 ] && exit 6; }
			sleep 0.01
		done; exit 1`)
	cmd.Env = append(os.Environ(), asProgram+"=1")
	if err := exec.Command("unshare", "--pid", "--fork", "--mount-proc", "true").Run(); err != nil {
		t.Skipf("no new pid namespace: %v", err)
	}
	h := startHelper(t, cmd)
	if line := h.line(t); line != "pid 2" && !strings.HasPrefix(line, "pid ") {
		t.Errorf("it reports %q", line)
	}
	if line := h.line(t); !strings.Contains(line, "How:code 6") {
		t.Errorf("orphans of process 1 remain zombies: %s", line)
	}
	if code := h.code(t); code != 6 {
		t.Errorf("code %d", code)
	}
}

// A program that the kernel kills for want of memory has ended so, whatever its parent says.
func TestOOM(t *testing.T) {
	group, files := memoryGroup(t, 64<<20)
	cmd := exec.Command("sh", "-c", `echo $$ >"$0" && exec "$@"`, filepath.Join(group, "cgroup.procs"), os.Args[0], "sh", "-c",
		asEater+"=1 "+os.Args[0]+"; exit 3")
	cmd.Env = append(os.Environ(), asProgram+"=1")
	h := startHelper(t, cmd)
	h.line(t)
	if line := h.line(t); !strings.Contains(line, "How:oom") {
		b, _ := os.ReadFile(filepath.Join(group, files))
		t.Errorf("it reports %q; the kernel says\n%s", line, b)
	}
	if code := h.code(t); code != 3 {
		t.Errorf("code %d", code)
	}
}

// memoryGroup makes a cgroup with this limit, and returns its directory and the file with its
// kills.
func memoryGroup(t *testing.T, limit int) (dir, events string) {
	t.Helper()
	name := fmt.Sprintf("runner-test-%d", os.Getpid())
	for _, v := range []struct{ root, limit, swap, events string }{
		{"/sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.swappiness", "memory.oom_control"},
		{"/sys/fs/cgroup", "memory.max", "memory.swap.max", "memory.events"},
	} {
		dir := filepath.Join(v.root, name)
		if os.Mkdir(dir, 0o755) != nil {
			continue
		}
		t.Cleanup(func() {
			until(t, "the removal of "+dir, func() bool { return os.Remove(dir) == nil })
		})
		if os.WriteFile(filepath.Join(dir, v.limit), []byte(strconv.Itoa(limit)), 0o644) != nil {
			continue
		}
		_ = os.WriteFile(filepath.Join(dir, v.swap), []byte("0"), 0o644)
		return dir, v.events
	}
	t.Skip("no cgroup of the memory controller can be made here")
	return "", ""
}

// On a terminal the program has the foreground: Ctrl-C ends it in order, and Ctrl-Z stops the whole
// job of the shell, which continues it with fg.
func TestTerminal(t *testing.T) {
	if _, err := exec.LookPath("tmux"); err != nil {
		t.Skip(err)
	}
	dir := t.TempDir()
	socket := filepath.Join(dir, "tmux")
	tmux := func(args ...string) string {
		t.Helper()
		out, err := exec.Command("tmux", append([]string{"-S", socket}, args...)...).CombinedOutput()
		if err != nil {
			t.Fatalf("tmux %q: %v: %s", args, err, out)
		}
		return string(out)
	}
	tmux("-f", os.DevNull, "new-session", "-d", "-x", "100", "-y", "30", "bash --norc --noprofile")
	t.Cleanup(func() { _ = exec.Command("tmux", "-S", socket, "kill-server").Run() })
	screen := func(what string) {
		t.Helper()
		var last string
		tick := time.NewTicker(20 * time.Millisecond)
		defer tick.Stop()
		for late := time.Now().Add(patience); ; <-tick.C {
			if last = tmux("capture-pane", "-p"); strings.Contains(last, what) {
				return
			}
			if time.Now().After(late) {
				t.Fatalf("the terminal never shows %q:\n%s", what, last)
			}
		}
	}
	// holds waits until a program has the terminal: keys that come before may be discarded.
	holds := func(name string) {
		t.Helper()
		until(t, name+" in the foreground", func() bool {
			return strings.TrimSpace(tmux("display-message", "-p", "#{pane_current_command}")) == name
		})
	}
	run := asProgram + "=1 " + os.Args[0] + " 3>" + dir + "/report "
	script := `sh -c 'test -t 0 && test -t 1 && test -t 2 && echo on a $((1+0)) terminal; while read x; do echo got $x; done; echo end of input'`
	tmux("send-keys", run+script, "Enter")
	screen("on a 1 terminal")
	tmux("send-keys", "hello", "Enter")
	screen("got hello") // it may read: its group is in the foreground

	tmux("send-keys", "C-z")
	screen("Stopped")
	tmux("send-keys", "echo shell-is-back", "Enter")
	screen("\nshell-is-back")
	tmux("send-keys", "fg", "Enter")
	holds("sh")
	tmux("send-keys", "again", "Enter")
	screen("got again")

	tmux("send-keys", "C-c")
	until(t, "the report", func() bool {
		b, err := os.ReadFile(filepath.Join(dir, "report"))
		return err == nil && strings.Contains(string(b), "Final:true")
	})
	holds("bash")
	tmux("send-keys", "echo code $?", "Enter")
	screen("\ncode 130")
	b, err := os.ReadFile(filepath.Join(dir, "report"))
	if err != nil || !strings.Contains(string(b), "Orderly:true Final:true") {
		t.Errorf("the end by Ctrl-C: %s %v", b, err)
	}
}
