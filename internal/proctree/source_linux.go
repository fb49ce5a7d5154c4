package proctree

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// entryOf returns the entry of a process of the last scan.
func (r *Reader) entryOf(id ID) *entry {
	if e := r.known[id.PID]; e != nil && e.ID == id {
		return e
	}
	return nil
}

// Cgroup returns the cgroup of a process.
func (r *Reader) Cgroup(id ID) Cgroup {
	e := r.entryOf(id)
	if e == nil || e.grouped {
		if e == nil {
			return Cgroup{}
		}
		return e.cgroup
	}
	b, err := r.read(id.PID, "cgroup")
	if err != nil {
		return Cgroup{}
	}
	now := r.clock()
	e.cgroup, e.grouped = parseCgroup(b), now > 0 && now > e.Start+settled
	return e.cgroup
}

// Namespace returns where a process has its pid. It is unknown if this process may not read
// that.
func (r *Reader) Namespace(id ID) (Namespace, bool) {
	e := r.entryOf(id)
	if e == nil {
		return Namespace{}, false
	}
	if !e.placed {
		e.placed = true
		e.ns, _ = r.namespace(id.PID)
	}
	return e.ns, e.ns.ID != ""
}

func (r *Reader) namespace(pid uint64) (n Namespace, err error) {
	link, err := os.Readlink(r.path(pid, "ns/pid")) // pid:[4026531836]
	if err != nil {
		return n, err
	}
	b, err := r.read(pid, "status")
	if err != nil {
		return n, err
	}
	for line := range bytes.Lines(b) {
		list, ok := bytes.CutPrefix(line, []byte("NSpid:"))
		if f := bytes.Fields(list); ok && len(f) > 0 {
			if n.PID, ok = number(f[len(f)-1]); ok { // the innermost one
				n.ID = strings.TrimSuffix(strings.TrimPrefix(link, "pid:["), "]")
			}
			return n, nil
		}
	}
	return n, errors.New("no NSpid")
}

func (r *Reader) path(pid uint64, name string) string {
	return filepath.Join(r.proc, strconv.FormatUint(pid, 10), name)
}

// Usage returns what a process has read, and how many files it has open.
func (r *Reader) Usage(id ID) (u Usage) {
	if b, err := r.read(id.PID, "io"); err == nil { // fails for a process of another user
		for line := range bytes.Lines(b) {
			name, value, _ := bytes.Cut(bytes.TrimSpace(line), []byte(": "))
			switch string(name) {
			case "rchar", "read_bytes": // the second includes mapped files, but not what was in memory already
				if n, ok := number(value); ok {
					u.Read, u.HasIO = max(u.Read, n), true
				}
			}
		}
	}
	u.Files = r.files(id.PID)
	return u
}

// files returns the number of open files of a process, or 0.
func (r *Reader) files(pid uint64) uint64 {
	if r.counts {
		var st unix.Stat_t
		if unix.Fstatat(r.fd, strconv.FormatUint(pid, 10)+"/fd", &st, 0) != nil {
			return 0
		}
		return uint64(max(0, st.Size))
	}
	d, err := os.Open(r.path(pid, "fd"))
	if err != nil {
		return 0
	}
	defer d.Close()
	n := 0
	for {
		list, err := d.Readdirnames(1000)
		if n += len(list); err != nil {
			return uint64(n)
		}
	}
}

// unlimited is the least limit that is none: version 1 says so with a large number.
const unlimited = 1 << 60

// Limits reads what applies to a cgroup: the lowest limit of memory of it and those above,
// and how many processes were killed in it.
func (r *Reader) Limits(c Cgroup) (l Limits) {
	name, events := "memory.max", "memory.events"
	if c.V1 {
		name, events = "memory.limit_in_bytes", "memory.oom_control"
	}
	for up := c; up.Path != ""; up = up.above() {
		dir := r.cgroupDir(up)
		if dir == "" {
			return l
		}
		b, _ := readSmall(filepath.Join(dir, name)) // the unified hierarchy has none if another one has the memory
		if n, ok := number(bytes.TrimSpace(b)); ok && n < unlimited && (l.Max == 0 || n < l.Max) {
			l.Max = n
		}
	}
	dir := r.cgroupDir(c)
	if dir == "" {
		return l
	}
	b, err := readSmall(filepath.Join(dir, events))
	if err != nil {
		return l
	}
	for line := range bytes.Lines(b) {
		if value, ok := bytes.CutPrefix(line, []byte("oom_kill ")); ok {
			l.Kills, l.Counted = number(bytes.TrimSpace(value))
		}
	}
	return l
}

// cgroupDir returns the directory of a cgroup, or "" if it cannot be named here.
func (r *Reader) cgroupDir(c Cgroup) string {
	if c.Path == "" || c.Path == "/" || strings.Contains(c.Path+"/", "/../") {
		return ""
	}
	if c.V1 {
		return filepath.Join(r.cgroups, "memory", c.Path)
	}
	r.root.Do(func() {
		r.unified = r.cgroups
		if _, err := os.Stat(filepath.Join(r.cgroups, "cgroup.controllers")); err != nil {
			r.unified = filepath.Join(r.cgroups, "unified")
		}
	})
	return filepath.Join(r.unified, c.Path)
}

// readSmall reads the start of a file, which is all of it in a cgroup.
func readSmall(name string) ([]byte, error) {
	fd, err := unix.Open(name, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	defer func() { _ = unix.Close(fd) }()
	b := make([]byte, 1024)
	n, err := unix.Read(fd, b)
	return b[:max(0, n)], err
}
