package proctree

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/beatfabric/hivebeat/internal/bootid"
)

const (
	// farMost is how many of the processes that belong to no worker are read again in one
	// scan. They take turns: all that could change is that another process has the id.
	farMost = 100
	// settled is the age in ms from which a process is expected to stay in its cgroup:
	// service managers and container runtimes move it when it begins.
	settled = 60_000
	// checkEvery is how many processes are read between two looks at the context.
	checkEvery = 64
)

// Reader reads /proc and the cgroups of this machine. Use NewReader. It is the Source of
// its scans. Apart from Limits, which needs no scan, it is not safe for concurrent use.
type Reader struct {
	proc, cgroups string
	clock         func() uint64
	counts        bool   // the size of /proc/<pid>/fd is the number of open files
	page          uint64 // bytes
	dir           *os.File
	fd            int // of dir
	root          sync.Once
	unified       string // where the cgroups of version 2 are
	known         map[uint64]*entry
	round, turn   uint64
	procs         []Process
	far           []*entry
	buf           []byte
}

// entry is what the reader knows of a process.
type entry struct {
	Process
	round   uint64 // of the last scan that listed it
	cgroup  Cgroup
	grouped bool // cgroup will not change
	ns      Namespace
	placed  bool // ns was looked for
}

// NewReader returns a reader of this machine.
func NewReader() *Reader {
	r := newReader("/proc", "/sys/fs/cgroup")
	r.clock = bootid.Clock
	var fs unix.Statfs_t
	if unix.Statfs(r.proc, &fs) == nil && fs.Type == unix.PROC_SUPER_MAGIC {
		var st unix.Stat_t
		r.counts = unix.Stat(r.proc+"/self/fd", &st) == nil && st.Size > 0 // since Linux 6.2
	}
	return r
}

func newReader(proc, cgroups string) *Reader {
	return &Reader{
		proc: proc, cgroups: cgroups, page: uint64(os.Getpagesize()), clock: func() uint64 { return 0 },
		known: make(map[uint64]*entry), buf: make([]byte, 8<<10),
	}
}

// Scan looks at all processes. It reads those that it did not know and those in near; of
// the others, a part. The scan is valid until the next one.
func (r *Reader) Scan(ctx context.Context, near map[uint64]bool) (Scan, error) {
	if r.dir != nil {
		_ = r.dir.Close()
	}
	var err error
	if r.dir, err = os.Open(r.proc); err != nil {
		return Scan{}, err
	}
	r.fd = int(r.dir.Fd())
	names, err := r.dir.Readdirnames(-1)
	if err != nil {
		return Scan{}, fmt.Errorf("%s: %w", r.proc, err)
	}
	r.round++
	r.procs, r.far = r.procs[:0], r.far[:0]
	for i, name := range names {
		if i%checkEvery == 0 && ctx.Err() != nil {
			return Scan{}, ctx.Err()
		}
		pid, ok := number([]byte(name))
		if !ok {
			continue
		}
		e := r.known[pid]
		if e != nil && !near[pid] {
			e.round = r.round
			r.far = append(r.far, e)
			continue
		}
		r.look(pid)
	}
	n := uint64(len(r.far))
	if n <= farMost {
		r.turn = 0
	}
	for i := range n {
		e := r.far[(r.turn+i)%n]
		if i >= farMost {
			break
		}
		r.look(e.PID)
	}
	r.turn += farMost
	for pid, e := range r.known {
		if e.round != r.round {
			delete(r.known, pid)
			continue
		}
		r.procs = append(r.procs, e.Process)
	}
	slices.SortFunc(r.procs, func(a, b Process) int {
		if a.PID < b.PID {
			return -1
		}
		return 1
	})
	s := Scan{Clock: r.clock(), Procs: r.procs}
	if e := r.known[uint64(os.Getpid())]; e != nil && e.Start > s.Clock {
		s.Clock = 0 // a sandbox, whose /proc has a clock of its own
	}
	return s, nil
}

// look reads what /proc/<pid>/stat says.
func (r *Reader) look(pid uint64) {
	b, err := r.read(pid, "stat")
	p, there := parseStat(b, r.page)
	if err != nil || !there {
		delete(r.known, pid)
		return
	}
	p.PID = pid
	e := r.known[pid]
	if e == nil || e.ID != p.ID {
		e = &entry{}
		r.known[pid] = e
	}
	e.Process, e.round = p, r.round
}

// read returns the contents of a file of a process, up to the size of the buffer, which the
// next call uses again.
func (r *Reader) read(pid uint64, name string) ([]byte, error) {
	if r.dir == nil {
		return nil, os.ErrClosed
	}
	fd, err := unix.Openat(r.fd, strconv.FormatUint(pid, 10)+"/"+name, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	defer func() { _ = unix.Close(fd) }()
	for {
		n, err := unix.Read(fd, r.buf) // these files are short, and the kernel gives each at once
		if err == nil {
			return r.buf[:n], nil
		}
		if !errors.Is(err, unix.EINTR) {
			return nil, err
		}
	}
}

// parseStat parses /proc/<pid>/stat, but for the pid. A zombie is not there, unless only
// its first thread has ended.
func parseStat(b []byte, page uint64) (p Process, there bool) {
	at := bytes.LastIndexByte(b, ')') // the name before it may contain anything
	if at < 0 || len(b) < at+3 {
		return p, false
	}
	b = b[at+2:]
	state := b[0]
	const last = 21
	var f [last + 1]uint64 // fields 3 to 24 of proc_pid_stat(5); negative ones are 0
	i := 0
	for field := range bytes.FieldsSeq(b) {
		if i > last {
			break
		}
		f[i], _ = number(field)
		i++
	}
	if i <= last {
		return p, false
	}
	p = Process{
		ID:     ID{Start: f[19] * tick},
		Parent: f[1], Group: f[2], Session: f[3],
		CPU:     (f[11] + f[12] + f[13] + f[14]) * tick, // USER_HZ is 100 wherever Go runs
		Threads: f[17],
		RSS:     f[21] * page,
	}
	ended := state == 'X' || state == 'x' || state == 'Z' && p.Threads <= 1
	return p, !ended
}

// number parses a decimal number without a sign.
func number(b []byte) (n uint64, ok bool) {
	if len(b) == 0 || len(b) > 18 {
		return 0, false
	}
	for _, c := range b {
		if c < '0' || c > '9' {
			return 0, false
		}
		n = 10*n + uint64(c-'0')
	}
	return n, true
}
