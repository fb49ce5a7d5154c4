package proctree

import (
	"fmt"
	"testing"
	"time"
)

func TestATreeIsAProcessAndItsDescendants(t *testing.T) {
	m := newMachine(t)
	m.start(100, 20, "", groups)
	m.start(101, 100, "")
	m.start(102, 101, "")
	m.start(200, 20, "", groups) // another program of the shell
	m.works("w", 100, hereNS)
	m.round()
	m.want("at first", "100 ours w", "101 ours w", "102 ours w", "200 foreign", "20 foreign", "1 foreign", "50 foreign", "999 unattributed")
	m.start(103, 102, "")
	m.want("between two scans", "103 unattributed")
	m.round()
	m.want("later", "103 ours w")
}

func TestAWorkerWithinTheTreeOfAnother(t *testing.T) {
	m := newMachine(t)
	m.start(100, 20, "", groups)
	m.start(101, 100, "")
	m.start(102, 101, "")
	m.works("a", 100, hereNS)
	m.round()
	m.want("before the second beats", "101 ours a", "102 ours a")
	m.works("b", 101, hereNS)
	m.round()
	m.want("a process belongs to the nearest worker", "100 ours a", "101 ours b", "102 ours b")
	m.leaves("b", 0)
	m.end(101)
	m.round()
	m.want("and stays with it", "100 ours a", "102 orphaned b")
}

func TestTheHiveAndInitBelongToNoTree(t *testing.T) {
	m := newMachine(t)
	m.start(100, 20, "", groups)
	p := m.procs[hive]
	p.Parent = 100 // a worker that started its hive
	m.procs[hive] = p
	m.start(101, hive, "") // nvidia-smi
	m.works("w", 100, hereNS)
	m.works("inside", hive, hereNS)
	m.works("first", 1, hereNS)
	facts := m.round()
	m.want("a worker within the hive owns what the hive holds", "100 ours w", "50 ours inside", "101 foreign", "1 ours first", "20 foreign")
	for _, f := range facts {
		if f.Worker == "inside" {
			t.Errorf("the hive's process was measured: %+v", f)
		}
		if f.Procs != 1 {
			t.Errorf("%s has %d processes, want 1", f.Worker, f.Procs)
		}
	}
}

// A process that a scan saw in a tree stays there, whatever becomes of its parents.
func TestSeenDescendantsAreRemembered(t *testing.T) {
	m := newMachine(t)
	m.start(100, 20, "", groups)
	m.start(101, 100, "")
	m.start(102, 101, "", leads) // a daemon, with a session of its own
	m.works("w", 100, hereNS)
	m.round()
	m.end(101)
	m.start(103, 102, "")
	m.round()
	m.want("its parent ended", "102 ours w", "103 ours w")
	m.end(100)
	at := m.clock
	m.round()
	m.want("the worker's process ended, and the hive does not know yet", "102 ours w", "103 ours w")
	m.leaves("w", at)
	m.round()
	m.want("the worker ended", "102 orphaned w", "103 orphaned w")
	m.forgotten("w")
	m.start(104, 103, "")
	m.round()
	m.want("it is not listed any more", "102 orphaned w", "104 orphaned w")
	m.end(102)
	m.start(102, 20, "") // another process with this id
	m.round()
	m.want("another process has the id", "102 foreign", "103 orphaned w")
	m.now = m.now.Add(keepEnded)
	m.round()
	m.want("after a day", "103 foreign")
	if n := len(m.f.trees) + len(m.f.ended); n != 0 {
		t.Errorf("%d trees are kept", n)
	}
}

func TestAWorkerThatLeftAndWhoseProcessRuns(t *testing.T) {
	m := newMachine(t)
	m.start(100, 20, "", groups)
	m.start(101, 100, "")
	m.works("w", 100, hereNS)
	m.round()
	m.leaves("w", 0)
	m.round()
	m.want("after its goodbye", "100 orphaned w", "101 orphaned w")
	m.leaves("w", 0)
	m.workers[0].Ended = false // lost by a mistake, and heard again
	m.round()
	m.want("heard again", "100 ours w", "101 ours w")
}

// The next incarnation owns what it started, the previous one what it left behind.
func TestARestartLeavesOrphans(t *testing.T) {
	m := newMachine(t)
	m.start(30, 1, "/system.slice/w.service", leads) // a script that starts the worker again and again
	m.start(100, 30, "")
	m.start(101, 100, "")
	m.works("w", 100, hereNS)
	m.round()
	m.end(100)
	m.start(110, 30, "")
	m.start(111, 110, "")
	m.forgotten("w")
	m.workers = append(m.workers, Worker{Key: Key{"w", 2, 110, hereNS}, Known: m.clock + 10})
	facts := m.round()
	m.want("restarted", "101 orphaned w", "110 ours w", "111 ours w")
	if len(facts) != 1 || facts[0].Inc != 2 {
		t.Errorf("facts %+v", facts)
	}
}

func TestAReusedPidIsNotTheWorker(t *testing.T) {
	m := newMachine(t)
	m.start(100, 20, "", groups)
	m.works("w", 100, hereNS)
	m.end(100)
	m.clock += 2 * slack
	m.start(100, 20, "", groups)
	if facts := m.round(); len(facts) != 0 {
		t.Errorf("facts %+v", facts)
	}
	m.want("it began after the worker", "100 foreign")

	m = newMachine(t)
	m.start(100, 20, "", groups)
	m.works("w", 100, hereNS)
	m.round()
	m.end(100)
	m.start(100, 20, "", groups) // so soon that the hive may not have seen the end
	m.round()
	m.want("it has the id of a process that was seen", "100 foreign")
}

// A child whose parent ended before any scan saw it.
func TestOrphansBySessionAndGroup(t *testing.T) {
	for _, c := range []struct {
		name   string
		worker func(*machine) // starts process 100
		orphan []func(*Process)
		want   string
	}{
		{"the session of the worker", func(m *machine) { m.start(100, 20, "", leads) }, []func(*Process){groups}, "102 ours w"},
		{"a session of its own", func(m *machine) { m.start(100, 20, "", leads) }, []func(*Process){leads}, "102 foreign"},
		{"the group of the worker, a job of a shell", func(m *machine) { m.start(100, 20, "", groups) }, nil, "102 ours w"},
		{"another job of the shell", func(m *machine) { m.start(100, 20, "", groups) }, []func(*Process){groups}, "102 foreign"},
		{
			"the group of a script", func(m *machine) {
				m.start(60, 20, "", groups)
				m.start(100, 60, "")
			}, nil, "102 ours w",
		},
		{
			"the group of a script that has started two workers", func(m *machine) {
				m.start(60, 20, "", groups)
				m.start(100, 60, "")
				m.start(110, 60, "")
				m.works("other", 110, hereNS)
			}, nil, "102 foreign",
		},
		{
			"the group of a script that has started the hive too", func(m *machine) {
				m.start(60, 20, "", groups)
				m.start(100, 60, "")
				p := m.procs[hive]
				p.Group, p.Session = 60, 20
				m.procs[hive] = p
			}, nil, "102 foreign",
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := newMachine(t)
			c.worker(m)
			m.works("w", 100, hereNS)
			m.round()
			m.start(101, 100, "")
			m.start(102, 101, "", c.orphan...)
			m.end(101)
			m.round()
			m.want(c.name, c.want)
		})
	}
}

func TestASiblingInTheGroupIsForeign(t *testing.T) {
	m := newMachine(t)
	m.start(100, 20, "", groups)
	m.start(101, 20, "", func(p *Process) { p.Group = 100 }) // worker | tee
	m.works("w", 100, hereNS)
	m.round()
	m.want("the other end of a pipe", "100 ours w", "101 foreign")
}

// What began after the worker's end is not the worker's.
func TestOrphansOfAnEndedWorkerAreOlderThanItsEnd(t *testing.T) {
	m := newMachine(t)
	m.start(60, 20, "", groups) // a script
	m.start(100, 60, "")
	m.works("w", 100, hereNS)
	m.round()
	m.start(101, 100, "")
	m.start(102, 101, "")
	m.end(101)
	m.end(100)
	m.leaves("w", m.clock)
	m.start(103, 60, "")
	m.start(104, 103, "")
	m.end(103)
	m.round()
	m.want("before and after", "102 orphaned w", "104 foreign")
}

func TestTheCgroupOfAWorker(t *testing.T) {
	const unit, scope = "/system.slice/w.service", "/system.slice/docker-0a.scope"
	for _, c := range []struct {
		name string
		do   func(*machine)
		want []string
	}{
		{"an engine beside the worker, in its service", func(m *machine) {
			m.start(60, 1, unit, leads)
			m.start(101, 60, "")
			m.start(100, 60, "")
		}, []string{"100 ours w", "101 ours w", "60 ours w"}},
		{"a daemon in a container, or below", func(m *machine) {
			m.start(100, 1, scope, leads)
			m.start(101, 1, scope+"/init", leads)
			m.start(102, 1, "/system.slice/docker-0b.scope", leads)
			m.start(103, 1, "/system.slice", leads)
		}, []string{"101 ours w", "102 foreign", "103 foreign"}},
		{"two workers share it", func(m *machine) {
			m.start(100, 1, unit, leads)
			m.start(110, 1, unit, leads)
			m.works("other", 110, hereNS)
			m.start(101, 1, unit, leads)
		}, []string{"101 foreign"}},
		{"another worker is below it", func(m *machine) {
			m.start(100, 1, unit, leads)
			m.start(110, 1, unit+"/other", leads)
			m.works("other", 110, hereNS)
			m.start(101, 1, unit, leads)
			m.start(111, 1, unit+"/other", leads)
		}, []string{"101 foreign", "111 ours other"}},
		{"the hive is in it", func(m *machine) {
			m.cgroups[hive] = unit + "/hive"
			m.start(100, 1, unit, leads)
			m.start(101, 1, unit, leads)
		}, []string{"101 foreign"}},
		{"the hive is in the root", func(m *machine) {
			m.cgroups[hive] = "/"
			m.start(100, 1, unit, leads)
			m.start(101, 1, unit, leads)
		}, []string{"101 ours w"}},
		{"that of the hive is unknown", func(m *machine) {
			m.cgroups[hive] = ""
			m.start(100, 1, unit, leads)
			m.start(101, 1, unit, leads)
		}, []string{"101 foreign"}},
		{"the session of a user", func(m *machine) {
			m.start(100, 20, "", groups)
			m.start(101, 1, "/user.slice/user-1000.slice/session-3.scope", leads)
		}, []string{"101 foreign"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := newMachine(t)
			c.do(m)
			m.works("w", 100, hereNS)
			m.round()
			m.want(c.name, c.want...)
		})
	}
}

// An engine that runs beside its worker belongs to the worker's next incarnation, and is an
// orphan while there is none.
func TestAnEngineBesideAWorkerThatRestarts(t *testing.T) {
	m := newMachine(t)
	m.start(60, 1, "/kubepods/pod1/c1", leads)
	m.start(101, 60, "") // the engine
	m.start(100, 60, "")
	m.start(102, 100, "")
	m.works("w", 100, hereNS)
	m.round()
	m.want("at first", "101 ours w", "102 ours w")
	m.end(100)
	m.leaves("w", m.clock)
	m.round()
	m.want("its worker ended", "101 orphaned w", "102 orphaned w")
	m.start(110, 60, "")
	m.workers = []Worker{{Key: Key{"w", 2, 110, hereNS}, Known: m.clock + 10}}
	m.round()
	m.want("its worker is back", "101 ours w", "110 ours w", "102 orphaned w")
}

// A worker in a container reports a pid of its own namespace.
func TestAWorkerInAnotherNamespace(t *testing.T) {
	m := newMachine(t)
	m.ns[300], m.ns[301] = Namespace{"200", 1}, Namespace{"200", 7}
	m.start(7, 1, "", leads) // has the same id here
	m.start(300, 1, "/docker/c1", leads)
	m.start(301, 300, "")
	m.ns[302] = Namespace{"200", 8}
	m.start(302, 301, "")
	m.works("w", 7, thereNS)
	facts := m.round()
	m.want("translated", "7 foreign", "300 ours w", "301 ours w", "302 ours w")
	if len(facts) != 1 || facts[0].Procs != 3 || facts[0].Key.PID != 7 {
		t.Errorf("facts %+v", facts)
	}
	m.works("elsewhere", 7, "another boot/200")
	m.works("nowhere", 9, thereNS)
	m.ns[400] = Namespace{}
	m.start(400, 1, "/docker/c2", leads)
	m.round()
	m.want("what may be that of a worker that was not found is not foreign", "7 foreign", "400 unattributed", "301 ours w")
	m.forgotten("nowhere")
	m.round()
	m.want("all are found", "400 foreign")
}

func TestTwoWorkersAreOneProcess(t *testing.T) {
	m := newMachine(t)
	m.start(100, 1, "/docker/c1", leads)
	m.start(101, 1, "/docker/c1", leads)
	m.works("a", 100, hereNS)
	m.works("b", 100, hereNS)
	facts := m.round()
	m.want("the first one has it", "100 ours a", "101 ours a")
	if len(facts) != 2 || facts[0].Procs != 2 || facts[1].Procs != 2 || facts[1].Worker != "b" {
		t.Errorf("facts %+v", facts)
	}
}

func TestEndedTreesAreBounded(t *testing.T) {
	m := newMachine(t)
	pid := uint64(1000)
	const each = 64
	for i := range mostEnded/each + 10 {
		root := pid
		m.start(root, 20, "", groups)
		for range each {
			pid++
			m.start(pid, root, "")
		}
		pid++
		m.works(fmt.Sprintf("w%03d", i), root, hereNS)
	}
	m.round()
	for i := range m.workers {
		m.workers[i].Ended = true
		m.now = m.now.Add(time.Second)
	}
	m.round()
	kept := 0
	for _, tr := range m.f.ended {
		kept += len(tr.members)
	}
	if kept > mostEnded || kept < mostEnded-2*each {
		t.Errorf("%d processes of ended workers are kept, want about %d", kept, mostEnded)
	}
	m.want("the oldest are dropped", "1000 foreign", fmt.Sprint(pid-1, " orphaned ", m.workers[len(m.workers)-1].Worker))
}
