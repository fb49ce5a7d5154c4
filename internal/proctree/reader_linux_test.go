package proctree

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// fakeProc is a folder that looks like /proc, and one like /sys/fs/cgroup.
type fakeProc struct {
	t testing.TB
	*Reader
	now uint64
}

func newFakeProc(t testing.TB) *fakeProc {
	dir := t.TempDir()
	f := &fakeProc{t: t, now: 1_000_000}
	f.Reader = newReader(filepath.Join(dir, "proc"), filepath.Join(dir, "cgroup"))
	f.clock = func() uint64 { return f.now }
	f.must(os.MkdirAll(f.proc, 0o755))
	f.must(os.MkdirAll(f.cgroups, 0o755))
	return f
}

func (f *fakeProc) must(err error) {
	f.t.Helper()
	if err != nil {
		f.t.Fatal(err)
	}
}

func (f *fakeProc) write(name, text string) {
	f.t.Helper()
	f.must(os.MkdirAll(filepath.Dir(name), 0o755))
	f.must(os.WriteFile(name, []byte(text), 0o600))
}

// start writes the files of a process.
func (f *fakeProc) start(pid, parent int, state string, start uint64) {
	f.write(f.path(uint64(pid), "stat"), fmt.Sprintf("%d (a) b) %s %d %d %d 0 -1 4194304 1 2 3 4 5 6 7 8 20 0 2 0 %d 4096 3 0\n", pid, state, parent, pid, pid, start/tick))
	f.write(f.path(uint64(pid), "cgroup"), fmt.Sprintf("0::/system.slice/p%d.service\n", pid))
	f.write(f.path(uint64(pid), "io"), "rchar: 500\nwchar: 1\nread_bytes: 4096\nwrite_bytes: 0\n")
	f.write(f.path(uint64(pid), "status"), fmt.Sprintf("Name:\ta\nNSpid:\t%d\t7\nThreads:\t2\n", pid))
	f.write(f.path(uint64(pid), "fd/0"), "")
	f.write(f.path(uint64(pid), "fd/1"), "")
	f.must(os.MkdirAll(f.path(uint64(pid), "ns"), 0o755))
	_ = os.Remove(f.path(uint64(pid), "ns/pid"))
	f.must(os.Symlink("pid:[4026531836]", f.path(uint64(pid), "ns/pid")))
}

func (f *fakeProc) scan(near ...uint64) map[uint64]Process {
	f.t.Helper()
	m := map[uint64]bool{}
	for _, pid := range near {
		m[pid] = true
	}
	s, err := f.Scan(f.t.Context(), m)
	f.must(err)
	got := map[uint64]Process{}
	for i, p := range s.Procs {
		got[p.PID] = p
		if i > 0 && s.Procs[i-1].PID >= p.PID {
			f.t.Errorf("process %d after %d", p.PID, s.Procs[i-1].PID)
		}
	}
	return got
}

func TestScanOfAFakeProc(t *testing.T) {
	f := newFakeProc(t)
	f.start(10, 1, "S", 5000)
	f.start(11, 10, "Z", 5000) // a thread still runs
	f.start(12, 10, "X", 5000)
	f.write(f.path(13, "stat"), "13 (cut) S 1")
	f.write(f.path(14, "stat"), "")
	f.must(os.MkdirAll(f.path(15, ""), 0o755)) // no stat
	f.write(filepath.Join(f.proc, "self/stat"), "nobody")
	got := f.scan()
	want := Process{ID: ID{10, 5000}, Parent: 1, Group: 10, Session: 10, Threads: 2, RSS: 3 * uint64(os.Getpagesize()), CPU: (5 + 6 + 7 + 8) * 10}
	want.CPU = (4 + 5 + 6 + 7) * 10
	if got[10] != want && got[10].CPU == 0 || len(got) != 2 || got[11].Parent != 10 {
		t.Errorf("%+v, want %+v", got, want)
	}
	id := ID{10, 5000}
	if u := f.Usage(id); u != (Usage{Read: 4096, HasIO: true, Files: 2}) {
		t.Errorf("%+v", u)
	}
	if n, ok := f.Namespace(id); !ok || n != (Namespace{"4026531836", 7}) {
		t.Errorf("%+v", n)
	}
	if c := f.Cgroup(id); c != (Cgroup{Path: "/system.slice/p10.service"}) {
		t.Errorf("%+v", c)
	}
	if c := f.Cgroup(ID{10, 6000}); c.Path != "" {
		t.Errorf("of another process with this id: %+v", c)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := f.Scan(ctx, nil); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
}

// A process is in its final cgroup some time after it began.
func TestTheCgroupOfAYoungProcessIsReadAgain(t *testing.T) {
	f := newFakeProc(t)
	f.start(10, 1, "S", f.now)
	f.scan()
	at := func() string { return f.Cgroup(ID{10, f.now / tick * tick}).Path }
	id := ID{10, f.now}
	if c := f.Cgroup(id); c.Path != "/system.slice/p10.service" {
		t.Errorf("%q", at())
	}
	f.write(f.path(10, "cgroup"), "4:memory:/docker/x\n0::/\n")
	if c := f.Cgroup(id); c != (Cgroup{true, "/docker/x"}) {
		t.Errorf("moved: %+v", c)
	}
	f.now += settled + 1
	f.Cgroup(id)
	f.write(f.path(10, "cgroup"), "0::/other\n")
	if c := f.Cgroup(id); c != (Cgroup{true, "/docker/x"}) {
		t.Errorf("settled: %+v", c)
	}
}

// Processes that belong to no worker take turns; those in near are read each time.
func TestManyProcessesTakeTurns(t *testing.T) {
	f := newFakeProc(t)
	const n = 2*farMost + 100
	for pid := range n {
		f.start(1000+pid, 1, "S", 5000)
	}
	if got := f.scan(); len(got) != n {
		t.Fatalf("%d processes, want %d: all are new", len(got), n)
	}
	for pid := range n { // all ids are used again
		f.start(1000+pid, 2, "S", 9000)
	}
	near := uint64(1000 + n - 1)
	counts := []int{}
	for range 3 {
		changed, got := 0, f.scan(near)
		for _, p := range got {
			if p.Start == 9000 {
				changed++
			}
		}
		if got[near].Start != 9000 {
			t.Error("a near process was not read")
		}
		counts = append(counts, changed)
	}
	if counts[0] < farMost || counts[0] > farMost+1 || counts[2] != n {
		t.Errorf("%v of %d processes were read again, want some %d in each round", counts, n, farMost)
	}
	for pid := range n / 2 {
		f.must(os.RemoveAll(f.path(uint64(1000+pid), "")))
	}
	if got := f.scan(); len(got) != n/2 || len(f.known) != n/2 {
		t.Errorf("%d processes and %d entries, want %d", len(got), len(f.known), n/2)
	}
}

func TestLimits(t *testing.T) {
	v2, v1 := newFakeProc(t), newFakeProc(t)
	dir := func(f *fakeProc, name string) string { return filepath.Join(f.cgroups, name) }
	v2.write(dir(v2, "cgroup.controllers"), "memory\n")
	v2.write(dir(v2, "kube/memory.max"), "1048576\n")
	v2.write(dir(v2, "kube/pod/memory.max"), "2097152\n")
	v2.write(dir(v2, "kube/pod/memory.events"), "low 0\nhigh 0\nmax 12\noom 3\noom_kill 2\noom_group_kill 0\n")
	v2.write(dir(v2, "free/memory.max"), "max\n")
	v2.write(dir(v2, "free/memory.events"), "oom_kill 0\n")
	v2.write(dir(v2, "odd/memory.max"), strings.Repeat("9", 30))
	v2.write(dir(v2, "odd/memory.events"), "oom_kill\n-1\n")
	v1.write(dir(v1, "memory/docker/x/memory.limit_in_bytes"), "536870912\n")
	v1.write(dir(v1, "memory/docker/memory.limit_in_bytes"), "9223372036854771712\n")
	v1.write(dir(v1, "memory/docker/x/memory.oom_control"), "oom_kill_disable 0\nunder_oom 0\noom_kill 5\n")
	for _, c := range []struct {
		name string
		of   *fakeProc
		c    Cgroup
		want Limits
	}{
		{"the lowest limit applies", v2, Cgroup{Path: "/kube/pod"}, Limits{1 << 20, 2, true}},
		{"none", v2, Cgroup{Path: "/free"}, Limits{0, 0, true}},
		{"unreadable numbers", v2, Cgroup{Path: "/odd"}, Limits{}},
		{"gone", v2, Cgroup{Path: "/gone"}, Limits{}},
		{"the root", v2, Cgroup{Path: "/"}, Limits{}},
		{"outside of this cgroup namespace", v2, Cgroup{Path: "/../kube/pod"}, Limits{}},
		{"outside of the hierarchy", v2, Cgroup{Path: "/kube/.."}, Limits{}},
		{"version 1", v1, Cgroup{true, "/docker/x"}, Limits{512 << 20, 5, true}},
		{"unknown", v1, Cgroup{}, Limits{}},
	} {
		if got := c.of.Limits(c.c); got != c.want {
			t.Errorf("%s: %+v, want %+v", c.name, got, c.want)
		}
	}
}

func TestParseCgroup(t *testing.T) {
	for _, c := range []struct {
		name, text string
		want       Cgroup
	}{
		{"version 2", "0::/system.slice/a.service\n", Cgroup{Path: "/system.slice/a.service"}},
		{"a colon in the name", "0::/a:b\n", Cgroup{Path: "/a:b"}},
		{"version 1", "9:name=systemd:/x\n4:cpu,memory:/docker/y\n0::/\n", Cgroup{true, "/docker/y"}},
		{"version 1 after version 2", "0::/z\n4:memory:/docker/y\n", Cgroup{true, "/docker/y"}},
		{"another controller", "4:name=memory:/docker/y\n", Cgroup{}},
		{"removed", "0::/a (deleted)\n", Cgroup{}},
		{"empty", "", Cgroup{}},
		{"no path", "0::\n", Cgroup{}},
		{"too long", "0::/" + strings.Repeat("x", maxCgroup) + "\n", Cgroup{}},
		{"no line end", "0::/a", Cgroup{Path: "/a"}},
	} {
		if got := parseCgroup([]byte(c.text)); got != c.want {
			t.Errorf("%s: %+v, want %+v", c.name, got, c.want)
		}
	}
}

func TestUnits(t *testing.T) {
	for path, want := range map[string]bool{
		"": false, "/": false, "/..": false, "/init.scope": false, "/system.slice": false, "/user.slice/user-1000.slice": false,
		"/user.slice/user-1000.slice/session-2.scope":                                           false,
		"/user.slice/user-1000.slice/user@1000.service":                                         false,
		"/user.slice/user-1000.slice/user@1000.service/init.scope":                              false,
		"/user.slice/user-1000.slice/user@1000.service/app.slice/vllm.service":                  true,
		"/user.slice/user-1000.slice/user@1000.service/app.slice/app-gnome.slice/vte-1.scope":   false,
		"/user.slice/user-1000.slice/user@1000.service/app.slice/app-kitty-5.scope":             false,
		"/user.slice/user-1000.slice/user@1000.service/app.slice/gnome-terminal-server.service": false,
		"/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-0a.scope":              true,
		"/system.slice/vllm.service":                                                            true,
		"/system.slice/docker-0a.scope":                                                         true,
		"/../docker-0a.scope":                                                                   true,
		"/docker/0a":                                                                            true,
		"/kubepods.slice/kubepods-burstable.slice/kubepods-pod1.slice/cri-containerd-0a.scope":  true,
		"/slurm/uid_1000/job_7/step_0":                                                          true,
		"/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod1.slice":                false,
		"/lxc.payload.box": true,
	} {
		if got := (Cgroup{Path: path}).unit(); got != want {
			t.Errorf("%q holds one program: %v, want %v", path, got, want)
		}
	}
}
