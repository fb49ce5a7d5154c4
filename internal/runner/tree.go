package runner

import (
	"context"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/beatfabric/hivebeat/internal/proctree"
)

// ours reports whether a variable of the environment is for the process that systemd started.
func ours(v string) bool {
	name, _, _ := strings.Cut(v, "=")
	return name == "NOTIFY_SOCKET" || name == "WATCHDOG_USEC" || name == "WATCHDOG_PID"
}

func scan() []proctree.Process {
	s, _ := proctree.NewReader().Scan(context.Background(), nil) // without it, no process is known to be left
	return s.Procs
}

// children returns the children of this process that are not in had.
func children(had map[uint64]bool) map[uint64]bool {
	out, self := map[uint64]bool{}, uint64(os.Getpid())
	for _, p := range scan() {
		if p.Parent == self && !had[p.PID] {
			out[p.PID] = true
		}
	}
	return out
}

// remaining returns the processes that a program left behind: those in its group, and if they
// were adopted, those that descend from it.
func remaining(group int, had map[uint64]bool, adopted bool) (out left) {
	procs := scan()
	of, self := map[uint64]bool{}, uint64(os.Getpid())
	for more := true; more; {
		more = false
		for _, p := range procs {
			mine := p.Group == uint64(group) || adopted && (of[p.Parent] || p.Parent == self && !had[p.PID])
			if mine && !of[p.PID] && p.PID != uint64(group) && p.PID != self {
				of[p.PID], more = true, true
			}
		}
	}
	for _, p := range procs {
		if of[p.PID] {
			out = append(out, p.PID)
		}
	}
	return out
}

// onlyZombies reports that every process of a group has ended: its parent may take its time to
// notice.
func onlyZombies(group int) bool {
	procs := scan()
	for _, p := range procs {
		if p.Group == uint64(group) {
			return false
		}
	}
	return len(procs) > 0
}

// killEvery is the interval between two readings of how many processes the kernel killed for
// want of memory. A crash had that cause if the number grew since the reading before the last.
const killEvery = 10 * time.Second

// killCount counts the processes that were killed in the cgroup of this process, which the program
// inherits.
type killCount struct {
	reader *proctree.Reader
	group  proctree.Cgroup
	done   chan struct{}

	mu           sync.Mutex
	before, last uint64
	known        bool
}

func newKillCount() *killCount {
	k := &killCount{reader: proctree.NewReader(), done: make(chan struct{})}
	self := uint64(os.Getpid())
	s, err := k.reader.Scan(context.Background(), nil)
	if err != nil {
		return k
	}
	for _, p := range s.Procs {
		if p.PID == self {
			k.group = k.reader.Cgroup(p.ID)
		}
	}
	if l := k.reader.Limits(k.group); k.group.Path != "" && l.Counted {
		k.before, k.last, k.known = l.Kills, l.Kills, true
	}
	return k
}

// run reads the number until quit or close.
func (k *killCount) run(quit <-chan struct{}) {
	if !k.known {
		return
	}
	tick := time.NewTicker(killEvery)
	defer tick.Stop()
	for {
		select {
		case <-quit:
			return
		case <-k.done:
			return
		case <-tick.C:
			l := k.reader.Limits(k.group)
			k.mu.Lock()
			k.before, k.last = k.last, l.Kills
			k.mu.Unlock()
		}
	}
}

func (k *killCount) close() { close(k.done) }

// grew reports that a process was killed lately.
func (k *killCount) grew() bool {
	if !k.known {
		return false
	}
	l := k.reader.Limits(k.group)
	k.mu.Lock()
	defer k.mu.Unlock()
	return l.Counted && l.Kills > k.before
}
