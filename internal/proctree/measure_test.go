package proctree

import (
	"testing"
)

func (m *machine) uses(pid, cpu, read uint64) {
	p := m.procs[pid]
	p.CPU = cpu
	m.procs[pid] = p
	m.usage[pid] = Usage{Read: read, HasIO: true, Files: 3}
}

// one returns the facts of the only worker.
func (m *machine) one(list []Facts) Facts {
	m.t.Helper()
	if len(list) != 1 {
		m.t.Fatalf("facts of %d workers: %+v", len(list), list)
	}
	return list[0]
}

func TestMeasureSumsATree(t *testing.T) {
	m := newMachine(t)
	m.start(100, 20, "", groups)
	m.start(101, 100, "")
	m.works("w", 100, hereNS)
	m.uses(100, 5000, 70)
	m.usage[101] = Usage{} // of another user
	f := m.one(m.round())
	if f.RSS != 2000 || f.Procs != 2 || f.Threads != 2 || f.Files != 3 || f.Read != 70 || f.CPU != 0 || f.Up == 0 {
		t.Errorf("at first %+v", f)
	}
	m.uses(100, 9000, 100)
	m.uses(101, 3500, 1000)
	m.start(102, 101, "")
	m.uses(102, 500, 10)
	f = m.one(m.round())
	if f.CPU != 80 || f.Procs != 3 || f.Files != 9 { // 8 s of CPU in 10 s
		t.Errorf("later %+v, want 80 %%", f)
	}
}

// An ended child takes nothing away, and what its parent takes over is not counted twice.
func TestMeasureNeverDecreases(t *testing.T) {
	m := newMachine(t)
	m.start(100, 20, "", groups)
	m.start(101, 100, "")
	m.start(102, 101, "")
	m.start(103, 100, "")
	m.works("w", 100, hereNS)
	for pid := uint64(100); pid <= 103; pid++ {
		m.uses(pid, 10_000, 1000)
	}
	if f := m.one(m.round()); f.Read != 4000 {
		t.Errorf("at first %+v", f)
	}
	// 102 and then 101 end after another second of CPU each, and 100 has waited for both in
	// the end. 103 ended, and nothing waited for it.
	m.end(102)
	m.end(101)
	m.end(103)
	m.uses(100, 10_000+22_000, 1000+2200)
	f := m.one(m.round())
	if f.CPU > 20 || f.Read < 4000 || f.Read > 4200 { // not below what it was, and not above what is true
		t.Errorf("%+v, want at most 20 %%, and 4000 to 4200 bytes", f)
	}
	last := f.Read
	m.uses(100, 10_000+22_000+5000, 1000+2200+500)
	if f = m.one(m.round()); f.CPU != 50 || f.Read != last+500 {
		t.Errorf("later %+v, want 50 %% and %d", f, last+500)
	}
	// A process that cannot be read for once keeps its share.
	m.usage[100] = Usage{}
	if f = m.one(m.round()); f.Read != last+500 || f.CPU != 0 {
		t.Errorf("unreadable %+v", f)
	}
	m.uses(100, 10_000+22_000+5000, 1000+2200+600)
	if f = m.one(m.round()); f.Read != last+600 {
		t.Errorf("readable again %+v, want %d", f, last+600)
	}
}

// A short child that no scan saw counts when its parent has waited for it.
func TestMeasureCountsWhatNoScanSaw(t *testing.T) {
	m := newMachine(t)
	m.start(100, 20, "", groups)
	m.works("w", 100, hereNS)
	m.uses(100, 0, 0)
	m.round()
	m.uses(100, 2000, 50)
	if f := m.one(m.round()); f.CPU != 20 || f.Read != 50 {
		t.Errorf("%+v", f)
	}
}

// A process that was there before it came into the tree brings no past along.
func TestMeasureOfAProcessThatJoins(t *testing.T) {
	m := newMachine(t)
	m.start(60, 1, "/docker/c1", leads)
	m.start(100, 60, "")
	m.start(110, 60, "")
	m.works("w", 100, hereNS)
	m.works("other", 110, hereNS)
	m.uses(60, 90_000, 5000)
	m.round()
	m.forgotten("other")
	m.uses(60, 91_000, 6000)
	f := m.one(m.round())
	if f.Procs != 2 || f.CPU != 0 || f.Read != 0 {
		t.Errorf("it joined: %+v", f)
	}
	m.uses(60, 92_000, 6100)
	if f = m.one(m.round()); f.CPU != 10 || f.Read != 100 || f.WorkRead != 0 || f.RSS != 2000 || f.WorkRSS != 1000 {
		t.Errorf("later: %+v", f)
	}
}

func TestMeasureOfACgroup(t *testing.T) {
	m := newMachine(t)
	const shared = "/user.slice/user-1000.slice/session-3.scope"
	m.limits["/docker/c1"] = Limits{Max: 1 << 30, Kills: 2, Counted: true}
	m.limits[shared] = Limits{Max: 1 << 20, Kills: 7, Counted: true}
	m.start(100, 1, "/docker/c1", leads)
	m.start(200, 20, "", groups)
	m.works("own", 100, hereNS)
	m.works("shared", 200, hereNS)
	list := m.round()
	if f := list[0]; f.Max != 1<<30 || f.Kills != 2 || !f.Counted || f.Cgroup.Path != "/docker/c1" {
		t.Errorf("its own: %+v", f)
	}
	if f := list[1]; f.Max != 1<<20 || f.Kills != 0 || f.Counted || f.Cgroup.Path != "" {
		t.Errorf("a shared one has a limit, and its kills are perhaps of another program: %+v", f)
	}
}
