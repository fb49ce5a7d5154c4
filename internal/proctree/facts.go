// Package proctree says whose a process is. A worker has a tree: its process, the
// descendants of that, and what became of them: children whose parent has ended, also
// after the worker itself has. A Forest, which is pure, keeps the trees of all workers of a
// machine over time. A Reader reads /proc and the cgroups for it.
//
// A process id is no identity, because the system reuses it. Therefore a process is always
// named with its start.
package proctree

import "github.com/beatfabric/hivebeat/internal/gpu"

// ID identifies a process.
type ID struct {
	PID   uint64
	Start uint64 // ms by the clock of the scan, rounded down
}

// Process is what a scan says of one process. Ids are those of the reader's pid namespace;
// 0 stands for a process outside it.
type Process struct {
	ID
	Parent  uint64
	Group   uint64 // its process group
	Session uint64
	Threads uint64
	RSS     uint64 // bytes
	CPU     uint64 // ms used, together with its children that ended and that it has waited for
}

// Scan is one look at all processes. Zombies are not in it: they hold nothing.
type Scan struct {
	Clock uint64    // when it was taken, in ms by the clock of the starts; 0: there is no such clock
	Procs []Process // by PID
}

// Namespace is where a process has its pid.
type Namespace struct {
	ID  string // the part of a beat's ns behind the slash
	PID uint64 // of the process there
}

// Usage is what is read of the processes of workers only. A value that cannot be read,
// such as that of another user's process, is absent.
type Usage struct {
	Read  uint64 // bytes read so far, together with its children that ended and that it has waited for
	HasIO bool   // Read is known
	Files uint64 // open files; 0 if unknown
}

// Limits are those of a cgroup.
type Limits struct {
	Max     uint64 // bytes of memory; 0: none
	Kills   uint64 // processes that the kernel killed in it for want of memory
	Counted bool   // Kills is known
}

// Source has what is too costly to read of every process. Unknown values are zero.
type Source interface {
	Cgroup(ID) Cgroup
	Namespace(ID) (Namespace, bool)
	Usage(ID) Usage
	Limits(Cgroup) Limits
}

// Key is the process of one incarnation of a worker, as its beats name it.
type Key struct {
	Worker   string
	Inc, PID uint64
	NS       string // as in the beat: <boot>/<pid namespace>
}

// Worker is a worker that the hive lists.
type Worker struct {
	Key
	Known uint64 // when its process was known to exist, by the clock of the scan; 0: unknown
	Ended bool   // it left, or its process was seen to end
	// EndedAt is when, by the clock of the scan; 0: unknown.
	EndedAt uint64
}

// Facts is what the operating system says of the tree of one worker.
type Facts struct {
	Key
	Up      uint64  // ms since its process started; 0: unknown
	RSS     uint64  // bytes, of all processes; what they share counts for each
	CPU     float64 // percent of one CPU since the last scan
	Read    uint64  // bytes read so far; it never decreases
	Procs   uint64
	Threads uint64
	Files   uint64
	Limits
	// Cgroup is the worker's own, or zero.
	Cgroup Cgroup
	// WorkRead and WorkRSS leave out the processes that belong to the worker only because
	// they are in its cgroup: what they do does not show that the worker makes progress.
	WorkRead, WorkRSS uint64
}

// Owners says whose each process of one scan is. It does not change.
type Owners struct {
	pids   []uint64         // all of the scan
	owned  map[uint64]claim // those that belong to a worker
	hidden map[uint64]bool  // those that may belong to a worker that was not found
}

type claim struct {
	owner  gpu.Owner
	worker string
}
