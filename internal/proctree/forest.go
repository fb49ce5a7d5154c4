package proctree

import (
	"cmp"
	"iter"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/beatfabric/hivebeat/internal/bootid"
	"github.com/beatfabric/hivebeat/internal/gpu"
)

const (
	// slack is how far the start of a process may be off, in ms: on some systems it is by
	// the wall clock.
	slack = 2000
	// keepEnded is how long the processes of a worker that has ended are remembered, and
	// mostEnded how many of them, for all workers together.
	keepEnded = 24 * time.Hour
	mostEnded = 4096
)

// Forest holds the trees of the workers of one machine. Use NewForest. It is pure, and not
// safe for concurrent use.
type Forest struct {
	self uint64 // pid of the hive, which belongs to no tree
	ns   string // its pid namespace, as in a beat

	trees map[Key]*tree
	live  []*tree // listed and not ended, in the order of the workers
	ended []*tree // the first to end first

	// Of the current scan, by the place of a process in it.
	scan   Scan
	at     map[uint64]int // by pid
	first  []int          // its first child, or -1
	next   []int          // the next child of the same parent, or -1
	owner  []*tree
	beside []bool // it belongs to its owner only by the cgroup
	hidden []bool // its namespace could not be read, although a worker was looked for there
	before uint64 // clock of the previous scan
}

// tree is what is known of the processes of one worker.
type tree struct {
	Key
	root  ID
	found bool // root is known
	there bool // root is in this scan
	ended bool
	gone  time.Time // when it was first seen that the worker had ended
	until uint64    // no later process belongs to it by group or cgroup, once root has ended; 0: unknown

	group, session       uint64 // those of root
	ownGroup, ownSession bool   // no other worker, and not the hive, is in it
	cgroup               Cgroup
	ownCgroup            bool

	members []member  // by PID
	was     []member  // at the scan before
	at      time.Time // of the last measurement; zero: none
	work    uint64    // bytes read by its own processes
	rest    uint64    // bytes read by those beside
}

// member is a process of a tree.
type member struct {
	ID
	parent    uint64
	beside    bool
	counted   bool // cpu and read were measured
	cpu, read uint64
}

// NewForest returns a forest for the hive with this pid and pid namespace.
func NewForest(self uint64, ns string) *Forest {
	return &Forest{self: self, ns: ns, trees: make(map[Key]*tree), at: make(map[uint64]int)}
}

// Update takes a scan, and the workers that the hive lists. A worker that is not listed any
// more has ended.
func (f *Forest) Update(now time.Time, s Scan, src Source, workers []Worker) {
	f.index(s)
	f.list(now, workers)
	f.plant(src, workers)
	f.describe(src)
	f.claimAll(src)
	f.remember(now)
}

// index prepares the lookups in a scan.
func (f *Forest) index(s Scan) {
	n := len(s.Procs)
	f.before, f.scan = f.scan.Clock, s
	clear(f.at)
	f.first, f.next = slices.Grow(f.first[:0], n)[:n], slices.Grow(f.next[:0], n)[:n]
	f.owner, f.beside, f.hidden = slices.Grow(f.owner[:0], n)[:n], slices.Grow(f.beside[:0], n)[:n], slices.Grow(f.hidden[:0], n)[:n]
	clear(f.owner)
	clear(f.beside)
	clear(f.hidden)
	for i := range s.Procs {
		f.at[s.Procs[i].PID] = i
		f.first[i] = -1
	}
	for i := n - 1; i >= 0; i-- {
		f.next[i] = -1
		if up, ok := f.at[s.Procs[i].Parent]; ok && up != i {
			f.next[i], f.first[up] = f.first[up], i
		}
	}
}

// find returns the place of a process in the scan.
func (f *Forest) find(id ID) (int, bool) {
	i, ok := f.at[id.PID]
	return i, ok && f.scan.Procs[i].Start == id.Start
}

// list brings the trees in line with the workers.
func (f *Forest) list(now time.Time, workers []Worker) {
	listed := make(map[Key]bool, len(workers))
	f.live = f.live[:0]
	for i := range workers {
		w := &workers[i]
		t := f.trees[w.Key]
		switch {
		case w.Ended && t == nil:
			continue // nothing is known of it
		case t == nil:
			t = &tree{Key: w.Key}
			f.trees[w.Key] = t
		}
		listed[w.Key] = true
		if w.EndedAt > 0 {
			t.until = w.EndedAt
		}
		if w.Ended {
			f.end(now, t)
			continue
		}
		if t.ended { // it was heard again
			t.ended = false
			f.ended = slices.DeleteFunc(f.ended, func(o *tree) bool { return o == t })
		}
		f.live = append(f.live, t)
	}
	for key, t := range f.trees {
		if !listed[key] {
			f.end(now, t)
		}
	}
}

func (f *Forest) end(now time.Time, t *tree) {
	if !t.ended {
		t.ended, t.gone = true, now
		at, _ := slices.BinarySearchFunc(f.ended, t, func(o, t *tree) int {
			if c := o.gone.Compare(t.gone); c != 0 {
				return c
			}
			return cmp.Or(strings.Compare(o.Worker, t.Worker), cmp.Compare(o.Inc, t.Inc))
		})
		f.ended = slices.Insert(f.ended, at, t)
	}
}

// plant finds the processes of the workers.
func (f *Forest) plant(src Source, workers []Worker) {
	for _, t := range f.ended {
		_, t.there = f.find(t.root)
		if t.there = t.there && t.found; t.there && f.scan.Clock > 0 {
			t.until = f.scan.Clock
		}
	}
	type place struct {
		ns  string
		pid uint64
	}
	var elsewhere map[place]*Worker
	for i := range workers {
		w := &workers[i]
		t := f.trees[w.Key]
		if t == nil || t.ended {
			continue
		}
		switch {
		case t.found:
			_, t.there = f.find(t.root)
		case w.NS == f.ns && f.ns != "":
			if i, ok := f.at[w.PID]; ok {
				f.root(t, i, w.Known)
			}
		case bootid.Same(w.NS, f.ns):
			if _, ns, _ := strings.Cut(w.NS, "/"); ns != "" {
				if elsewhere == nil {
					elsewhere = make(map[place]*Worker)
				}
				elsewhere[place{ns, w.PID}] = w
			}
		}
		if t.there && f.scan.Clock > 0 {
			t.until = f.scan.Clock
		}
	}
	if len(elsewhere) == 0 {
		return
	}
	missing := len(elsewhere)
	for i := range f.scan.Procs {
		n, ok := src.Namespace(f.scan.Procs[i].ID)
		f.hidden[i] = !ok
		if w := elsewhere[place{n.ID, n.PID}]; ok && w != nil {
			if f.root(f.trees[w.Key], i, w.Known) {
				missing--
			}
		}
	}
	if missing == 0 {
		clear(f.hidden)
	}
}

// root makes the process i that of the worker of t, unless it started after the worker was
// known.
func (f *Forest) root(t *tree, i int, known uint64) bool {
	p := &f.scan.Procs[i]
	if known > 0 && p.Start > known+slack {
		return false
	}
	t.root, t.found, t.there = p.ID, true, true
	if f.scan.Clock > 0 {
		t.until = f.scan.Clock
	}
	return true
}

// describe notes what the processes of the workers share, and with whom.
func (f *Forest) describe(src Source) {
	groups, sessions := make(map[uint64]int), make(map[uint64]int)
	var roots []*tree // one for each process
	seen := make(map[uint64]bool)
	for _, t := range f.live {
		if !t.there {
			continue
		}
		p := &f.scan.Procs[f.at[t.root.PID]]
		t.group, t.session, t.cgroup = p.Group, p.Session, src.Cgroup(p.ID)
		if !seen[p.PID] { // two workers may be one process
			seen[p.PID] = true
			groups[t.group]++
			sessions[t.session]++
			roots = append(roots, t)
		}
	}
	var hive Process
	var cgroup Cgroup
	if i, ok := f.at[f.self]; ok {
		hive = f.scan.Procs[i]
		cgroup = src.Cgroup(hive.ID)
	}
	// How many workers are in a cgroup, or below it.
	inside := make(map[Cgroup]int)
	for _, t := range roots {
		for c := t.cgroup; c.Path != ""; c = c.above() {
			inside[c]++
		}
	}
	for _, t := range f.live {
		if t.there {
			t.ownGroup = t.group != 0 && t.group != hive.Group && groups[t.group] == 1
			t.ownSession = t.session == t.root.PID && t.session != hive.Session && sessions[t.session] == 1
			t.ownCgroup = cgroup.Path != "" && t.cgroup.unit() && !cgroup.within(t.cgroup) && inside[t.cgroup] == 1
		}
	}
}

// remember keeps the processes that each tree has now, and drops the trees of ended workers
// that have none.
func (f *Forest) remember(now time.Time) {
	for _, t := range f.trees {
		t.was, t.members = t.members, t.was[:0]
	}
	kept := 0
	for i, t := range f.owner {
		if t != nil {
			t.members = append(t.members, member{ID: f.scan.Procs[i].ID, parent: f.scan.Procs[i].Parent, beside: f.beside[i]})
			if t.ended {
				kept++
			}
		}
	}
	f.ended = slices.DeleteFunc(f.ended, func(t *tree) bool {
		n := len(t.members)
		drop := n == 0 || now.Sub(t.gone) >= keepEnded || kept > mostEnded
		if drop {
			kept -= n
			delete(f.trees, t.Key)
			for i := range f.owner {
				if n > 0 && f.owner[i] == t {
					f.owner[i] = nil
				}
			}
		}
		return drop
	})
}

// Owners returns whose the processes of the last scan are.
func (f *Forest) Owners() *Owners {
	o := &Owners{pids: make([]uint64, len(f.scan.Procs)), owned: make(map[uint64]claim)}
	for i := range f.scan.Procs {
		pid := f.scan.Procs[i].PID
		o.pids[i] = pid
		switch t := f.owner[i]; {
		case t != nil && t.ended:
			o.owned[pid] = claim{gpu.Orphaned, t.Worker}
		case t != nil:
			o.owned[pid] = claim{gpu.Ours, t.Worker}
		case f.hidden[i]:
			if o.hidden == nil {
				o.hidden = make(map[uint64]bool)
			}
			o.hidden[pid] = true
		}
	}
	return o
}

// Of returns whose process pid is, and the worker that it belongs to or belonged to. A
// process that was not in the scan is Unattributed: it began later, or is in a place that
// cannot be seen.
func (o *Owners) Of(pid uint64) (gpu.Owner, string) {
	if o == nil {
		return gpu.Unattributed, ""
	}
	if c, ok := o.owned[pid]; ok {
		return c.owner, c.worker
	}
	if _, ok := slices.BinarySearch(o.pids, pid); !ok || o.hidden[pid] {
		return gpu.Unattributed, ""
	}
	return gpu.Foreign, ""
}

// Owned returns the processes that belong to a worker, or did.
func (o *Owners) Owned() iter.Seq[uint64] {
	if o == nil {
		return func(func(uint64) bool) {}
	}
	return maps.Keys(o.owned)
}
