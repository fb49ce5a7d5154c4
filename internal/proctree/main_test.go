package proctree

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/beatfabric/hivebeat/internal/gpu"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	boot    = "a1b2"
	hereNS  = boot + "/100"
	thereNS = boot + "/200"
	hive    = 50 // pid of the hive
)

// machine is a machine whose processes a test makes up. It is the Source of its scans.
type machine struct {
	t       testing.TB
	f       *Forest
	now     time.Time
	clock   uint64
	procs   map[uint64]Process
	cgroups map[uint64]string
	ns      map[uint64]Namespace
	usage   map[uint64]Usage
	limits  map[string]Limits
	workers []Worker
}

// newMachine returns a machine with an init process, a service manager for users, a shell in
// a terminal and a hive.
func newMachine(t testing.TB) *machine {
	m := &machine{
		t: t, f: NewForest(hive, hereNS), now: time.Unix(1_700_000_000, 0), clock: 1_000_000,
		procs: map[uint64]Process{}, cgroups: map[uint64]string{}, ns: map[uint64]Namespace{}, usage: map[uint64]Usage{}, limits: map[string]Limits{},
	}
	m.start(1, 0, "/init.scope", leads)
	m.start(20, 1, "/user.slice/user-1000.slice/session-3.scope", leads) // a shell
	m.start(hive, 1, "/system.slice/hive.service", leads)
	return m
}

// leads makes a process the leader of a session of its own, groups that of a process group.
func leads(p *Process)  { p.Session, p.Group = p.PID, p.PID }
func groups(p *Process) { p.Group = p.PID }

// start starts a process as a child, in the session and group of its parent, and in its
// cgroup unless another one is named.
func (m *machine) start(pid, parent uint64, cgroup string, how ...func(*Process)) ID {
	m.clock += 10
	up := m.procs[parent]
	p := Process{ID: ID{pid, m.clock}, Parent: parent, Group: up.Group, Session: up.Session, Threads: 1, RSS: 1000}
	for _, h := range how {
		h(&p)
	}
	if cgroup == "" {
		cgroup = m.cgroups[parent]
	}
	m.procs[pid], m.cgroups[pid] = p, cgroup
	if _, ok := m.ns[pid]; !ok {
		m.ns[pid] = Namespace{"100", pid}
	}
	return p.ID
}

// end ends a process: init adopts its children.
func (m *machine) end(pid uint64) {
	m.clock += 10
	delete(m.procs, pid)
	for id, p := range m.procs {
		if p.Parent == pid {
			p.Parent = 1
			m.procs[id] = p
		}
	}
}

func (m *machine) works(id string, pid uint64, ns string) {
	m.clock += 100
	m.workers = append(m.workers, Worker{Key: Key{id, 1, pid, ns}, Known: m.clock})
}

// leaves makes the hive conclude that a worker ended, which was so at the time at.
func (m *machine) leaves(id string, at uint64) {
	for i := range m.workers {
		if m.workers[i].Worker == id {
			m.workers[i].Ended, m.workers[i].EndedAt = true, at
		}
	}
}

// forgotten removes a worker from the hive's list.
func (m *machine) forgotten(id string) {
	m.workers = slices.DeleteFunc(m.workers, func(w Worker) bool { return w.Worker == id })
}

// round scans, 10 s after the last time.
func (m *machine) round() []Facts {
	m.clock += 10_000
	m.now = m.now.Add(10 * time.Second)
	m.f.Update(m.now, m.scan(), m, m.workers)
	return m.f.Measure(m.now, m)
}

func (m *machine) scan() Scan {
	s := Scan{Clock: m.clock}
	for _, p := range m.procs {
		s.Procs = append(s.Procs, p)
	}
	slices.SortFunc(s.Procs, func(a, b Process) int { return int(a.PID) - int(b.PID) })
	return s
}

func (m *machine) Cgroup(id ID) Cgroup { return Cgroup{Path: m.cgroups[id.PID]} }
func (m *machine) Namespace(id ID) (Namespace, bool) {
	n := m.ns[id.PID]
	return n, n.ID != ""
}
func (m *machine) Usage(id ID) Usage      { return m.usage[id.PID] }
func (m *machine) Limits(c Cgroup) Limits { return m.limits[c.Path] }

// want compares whose the processes are, written as "pid owner worker".
func (m *machine) want(about string, want ...string) {
	m.t.Helper()
	o := m.f.Owners()
	names := map[gpu.Owner]string{gpu.Ours: "ours", gpu.Orphaned: "orphaned", gpu.Foreign: "foreign", gpu.Unattributed: "unattributed"}
	for _, w := range want {
		var pid uint64
		if _, err := fmt.Sscan(w, &pid); err != nil {
			m.t.Fatal(err)
		}
		owner, worker := o.Of(pid)
		if got := strings.TrimSpace(fmt.Sprint(pid, " ", names[owner], " ", worker)); got != w {
			m.t.Errorf("%s: got %q, want %q", about, got, w)
		}
	}
}
