package proctree

// claimAll says which process belongs to which tree. What is known for certain comes first:
//
//  1. A process belongs to the nearest of its ancestors that is a worker's process.
//  2. One that did so at an earlier scan still does, although its parent has ended since,
//     and so do its descendants.
//  3. One whose parent ended before any scan saw it belongs to the worker that leads its
//     session, or is the only one in its process group.
//  4. What is in the cgroup of a single worker, a container or a service, belongs to that
//     worker, even if the worker did not start it: the engine beside a worker that beats for
//     it is such a process.
func (f *Forest) claimAll(src Source) {
	for _, t := range f.live {
		if i := f.at[t.root.PID]; t.there && f.owner[i] == nil {
			f.owner[i] = t
		}
	}
	for _, t := range f.live {
		if i := f.at[t.root.PID]; t.there && f.owner[i] == t && !f.barred(i) {
			f.descend(i, t)
		}
	}
	for _, list := range [][]*tree{f.live, f.ended} {
		for _, t := range list {
			for _, m := range t.members { // of the scan before
				if i, ok := f.find(m.ID); ok && !m.beside {
					f.claim(i, t)
				}
			}
		}
	}
	f.claimGroups()
	f.claimCgroups(src)
}

// barred reports whether process i belongs to no tree, and neither do its children because
// of it: the hive, and the first process of the machine, which adopts all orphans.
func (f *Forest) barred(i int) bool {
	pid := f.scan.Procs[i].PID
	return pid == f.self || pid == 1
}

// claim gives process i and its descendants to t, except those that have an owner.
func (f *Forest) claim(i int, t *tree) {
	if f.owner[i] == nil && !f.barred(i) {
		f.owner[i] = t
		f.descend(i, t)
	}
}

func (f *Forest) descend(i int, t *tree) {
	for c := f.first[i]; c >= 0; c = f.next[c] {
		f.claim(c, t)
	}
}

// claimGroups claims by sessions and process groups.
func (f *Forest) claimGroups() {
	sessions, groups := make(map[uint64][]*tree), make(map[uint64][]*tree)
	for _, list := range [][]*tree{f.ended, f.live} {
		for _, t := range list {
			if t.ownSession {
				sessions[t.session] = append(sessions[t.session], t)
			}
			if t.ownGroup {
				groups[t.group] = append(groups[t.group], t)
			}
		}
	}
	if len(sessions)+len(groups) == 0 {
		return
	}
	for i := range f.scan.Procs {
		if f.owner[i] != nil {
			continue
		}
		p := &f.scan.Procs[i]
		// All processes of a session descend from its leader.
		t := oneOf(sessions[p.Session], p)
		if t == nil && f.orphan(p) {
			t = oneOf(groups[p.Group], p)
		}
		if t != nil {
			f.claim(i, t)
		}
	}
}

// oneOf returns the first of trees that p may belong to by its time.
func oneOf(list []*tree, p *Process) *tree {
	for _, t := range list {
		if p.Start >= t.root.Start && (t.there || p.Start <= t.until) {
			return t
		}
	}
	return nil
}

// orphan reports whether the parent of p ended. A process that does not lead its session
// has inherited it from its parent, so a parent in another session adopted it.
func (f *Forest) orphan(p *Process) bool {
	if p.Session == p.PID {
		return false
	}
	up, ok := f.at[p.Parent]
	return !ok || f.scan.Procs[up].Session != p.Session
}

// claimCgroups claims by cgroups. A process that was claimed in this way goes to the next
// worker that begins in the cgroup, as an engine does when the worker beside it restarts.
func (f *Forest) claimCgroups(src Source) {
	own := make(map[Cgroup]*tree)
	for _, list := range [][]*tree{f.ended, f.live} {
		for _, t := range list {
			// Two workers may be one process: the first one has it.
			if t.ownCgroup && (t.ended || !t.there || f.owner[f.at[t.root.PID]] == t) {
				own[t.cgroup] = t
			}
		}
	}
	if len(own) == 0 {
		return
	}
	for i := range f.scan.Procs {
		if f.owner[i] != nil || f.barred(i) {
			continue
		}
		p := &f.scan.Procs[i]
		for c := src.Cgroup(p.ID); c.Path != ""; c = c.above() {
			if t := own[c]; t != nil {
				if t.there || p.Start <= t.until {
					f.owner[i], f.beside[i] = t, true
				}
				break
			}
		}
	}
}
