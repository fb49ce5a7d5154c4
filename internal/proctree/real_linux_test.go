package proctree

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/beatfabric/hivebeat/internal/bootid"
	"github.com/beatfabric/hivebeat/internal/gpu"
)

// real is a forest of the processes of this machine. This process is its hive.
type real struct {
	t       *testing.T
	r       *Reader
	f       *Forest
	workers []Worker
	facts   map[string]Facts
}

func newReal(t *testing.T) *real {
	ns := bootid.Namespace()
	if ns == "" || bootid.Clock() == 0 {
		t.Skip("no pid namespace, or no boot clock, is known here")
	}
	return &real{t: t, r: NewReader(), f: NewForest(uint64(os.Getpid()), ns)}
}

func (m *real) round() {
	m.t.Helper()
	near := map[uint64]bool{}
	for _, w := range m.workers {
		near[w.PID] = true
	}
	for pid := range m.f.Owners().Owned() {
		near[pid] = true
	}
	s, err := m.r.Scan(m.t.Context(), near)
	if err != nil {
		m.t.Fatal(err)
	}
	m.f.Update(time.Now(), s, m.r, m.workers)
	m.facts = map[string]Facts{}
	for _, f := range m.f.Measure(time.Now(), m.r) {
		m.facts[f.Worker] = f
	}
}

// await runs rounds until each process has this owner.
func (m *real) await(about string, owner gpu.Owner, worker string, pids ...int) {
	m.t.Helper()
	var last string
	for end := time.Now().Add(10 * time.Second); time.Now().Before(end); {
		m.round()
		last = ""
		for _, pid := range pids {
			if got, of := m.f.Owners().Of(uint64(pid)); got != owner || of != worker {
				last += fmt.Sprintf(" process %d: %d %q", pid, got, of)
			}
		}
		if last == "" {
			return
		}
		<-time.After(10 * time.Millisecond)
	}
	m.t.Fatalf("%s: want %d %q, got%s", about, owner, worker, last)
}

func (m *real) works(id string, pid int) {
	m.workers = append(m.workers, Worker{Key: Key{id, 1, uint64(pid), m.f.ns}, Known: bootid.Clock()})
}

// shell runs a script as a worker with a session of its own, and returns the command and
// the ids that the script prints, one in each line.
func shell(t *testing.T, script string, pids int, attr *syscall.SysProcAttr) (*exec.Cmd, []int) {
	t.Helper()
	cmd := exec.Command("sh", "-c", script)
	cmd.SysProcAttr = attr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Skipf("cannot start it here: %v", err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	var list []int
	lines := bufio.NewScanner(out)
	for len(list) < pids && lines.Scan() {
		pid, err := strconv.Atoi(strings.TrimSpace(lines.Text()))
		if err != nil {
			t.Fatalf("%q", lines.Text())
		}
		list = append(list, pid)
		t.Cleanup(func() { _ = syscall.Kill(pid, syscall.SIGKILL) })
	}
	if len(list) < pids {
		t.Fatalf("the script printed %v", list)
	}
	return cmd, list
}

func TestRealProcesses(t *testing.T) {
	m := newReal(t)
	// A child, a grandchild with a session of its own, and the same after a double fork.
	const script = `
		sleep 300 & echo $!
		sh -c 'echo $$; sleep 300 & echo $!; wait' &
		setsid sh -c 'echo $$; exec sleep 300' &
		sleep 0.2
		sh -c 'sleep 300 & echo $!'
		echo $$
		wait`
	cmd, pids := shell(t, script, 6, &syscall.SysProcAttr{Setsid: true})
	m.works("w", cmd.Process.Pid)
	m.await("while it runs", gpu.Ours, "w", append(pids, cmd.Process.Pid)...)
	f := m.facts["w"]
	if f.Procs < 6 || f.Threads < f.Procs || f.RSS < 1<<20 || f.Files < f.Procs || f.Up == 0 || f.Read == 0 {
		t.Errorf("facts %+v", f)
	}
	if owner, worker := m.f.Owners().Of(uint64(os.Getpid())); owner != gpu.Foreign {
		t.Errorf("the hive: %d %q", owner, worker)
	}
	_ = cmd.Process.Kill()
	_ = cmd.Wait()
	m.await("the hive does not know yet", gpu.Ours, "w", pids[:5]...)
	m.workers[0].Ended, m.workers[0].EndedAt = true, bootid.Clock()
	m.await("it was killed", gpu.Orphaned, "w", pids[:5]...)
	for _, pid := range pids[:5] {
		_ = syscall.Kill(pid, syscall.SIGKILL)
	}
	m.workers = nil
	for end := time.Now().Add(10 * time.Second); len(m.f.trees) > 0; m.round() {
		if time.Now().After(end) {
			t.Fatalf("%d trees are kept", len(m.f.trees))
		}
	}
}

// The parent ended before any scan: the session tells.
func TestRealOrphanThatNoScanSaw(t *testing.T) {
	m := newReal(t)
	cmd, pids := shell(t, `sh -c 'sleep 300 & echo $!'; wait; exec sleep 300`, 1, &syscall.SysProcAttr{Setsid: true})
	m.works("w", cmd.Process.Pid)
	m.await("by its session", gpu.Ours, "w", pids...)

	cmd, pids = shell(t, `sh -c 'sleep 300 & echo $!'; wait; exec sleep 300`, 1, &syscall.SysProcAttr{Setpgid: true})
	m.works("g", cmd.Process.Pid)
	m.await("by its process group", gpu.Ours, "g", pids...)
}

// A worker in a container has another id there than here.
func TestRealNamespace(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root")
	}
	m := newReal(t)
	cmd, _ := shell(t, `sleep 300 & echo $!; wait`, 0, &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWPID})
	link, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/pid", cmd.Process.Pid))
	if err != nil {
		t.Skip(err)
	}
	ns := strings.TrimSuffix(strings.TrimPrefix(link, "pid:["), "]")
	boot, _, _ := strings.Cut(m.f.ns, "/")
	m.workers = []Worker{{Key: Key{"w", 1, 1, boot + "/" + ns}, Known: bootid.Clock()}}
	m.await("its process, which is the first one there", gpu.Ours, "w", cmd.Process.Pid)
	for end := time.Now().Add(10 * time.Second); m.facts["w"].Procs < 2; m.round() {
		if time.Now().After(end) {
			t.Fatalf("facts %+v, want its child too", m.facts["w"])
		}
	}
}

// The kernel kills a process in its own cgroup for want of memory.
func TestRealOOM(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root")
	}
	m := newReal(t)
	name := fmt.Sprintf("hivebeat-test-%d", os.Getpid())
	dir, limit, cgroup := filepath.Join("/sys/fs/cgroup/memory", name), "memory.limit_in_bytes", Cgroup{true, "/" + name}
	if _, err := os.Stat("/sys/fs/cgroup/cgroup.controllers"); err == nil {
		dir, limit, cgroup = filepath.Join("/sys/fs/cgroup", name), "memory.max", Cgroup{Path: "/" + name}
	}
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Skipf("no cgroup of its own: %v", err)
	}
	t.Cleanup(func() { _ = os.Remove(dir) })
	if err := os.WriteFile(filepath.Join(dir, limit), []byte("33554432"), 0); err != nil {
		t.Skipf("no limit of memory: %v", err)
	}
	// It doubles a text until it is killed, once it is told to.
	const eats = `echo $$ > "$0/cgroup.procs"; echo $$; read line; x=0123456789abcdef; while :; do x=$x$x; done`
	cmd := exec.Command("sh", "-c", eats, dir)
	in, _ := cmd.StdinPipe()
	out, _ := cmd.StdoutPipe()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill() })
	if _, err := bufio.NewReader(out).ReadString('\n'); err != nil {
		t.Fatal(err)
	}
	m.works("w", cmd.Process.Pid)
	m.round()
	f := m.facts["w"]
	if f.Cgroup != cgroup || f.Max != 32<<20 || !f.Counted {
		t.Fatalf("facts %+v", f)
	}
	fmt.Fprintln(in)
	err := cmd.Wait()
	if l := m.r.Limits(cgroup); l.Kills != f.Kills+1 {
		t.Errorf("%v: limits %+v, want one kill more than %d", err, l, f.Kills)
	}
}
