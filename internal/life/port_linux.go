package life

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/beatfabric/hivebeat/internal/proctree"
)

// Port follows the process that listens on a TCP port, on any address of this network
// namespace, and then the next one: a child that keeps the port, or a new process. Of several
// it takes the one that the others descend from, and else the oldest. It must be in the pid
// namespace of this process, and this process must be allowed to see its open files.
func Port(port uint16, cfg Config) (Source, error) {
	if port == 0 {
		return nil, errors.New("0 is no port to listen on")
	}
	f := &listener{port: port, proc: "/proc"}
	if _, err := f.sockets(); err != nil {
		return nil, err
	}
	return attach(f, cfg, fmt.Sprintf("looks for the process on port %d", port)), nil
}

// listener finds the process that listens on a port.
type listener struct {
	foreign
	port uint16
	proc string
	pid  uint64          // found last
	of   map[uint64]bool // its sockets, by inode

	unseen map[uint64]bool // sockets of no process that can be seen
	again  time.Time       // when to look for their process again
}

// unseenFor is how long the search for the process of a socket is not repeated. It reads all
// open files of all processes.
const unseenFor = 10 * time.Second

func (f *listener) find(ctx context.Context) (uint64, string, error) {
	open, err := f.sockets()
	if err != nil {
		return 0, "", err
	}
	if len(open) == 0 {
		return 0, fmt.Sprintf("no process listens on port %d", f.port), nil
	}
	unseen := fmt.Sprintf("the process that listens on port %d cannot be seen from here: it is another user's, or in another container", f.port)
	if maps.Equal(open, f.unseen) && time.Now().Before(f.again) {
		return 0, unseen, nil
	}
	holders, err := f.holders(ctx, open)
	if err != nil {
		return 0, "", err
	}
	if len(holders) == 0 {
		f.unseen, f.again = open, time.Now().Add(unseenFor)
		return 0, unseen, nil
	}
	f.pid = first(ctx, holders)
	f.of = holders[f.pid]
	return f.pid, "", nil
}

// first returns the process that listened before the others: those that it started inherit its
// socket.
func first(ctx context.Context, holders map[uint64]map[uint64]bool) (pid uint64) {
	if len(holders) > 1 {
		delete(holders, 1) // init holds the socket of a service that it starts on demand
	}
	var scan proctree.Scan
	if len(holders) > 1 {
		scan, _ = proctree.NewReader().Scan(ctx, nil) // without it, the lowest id is the best guess
	}
	parent, start := map[uint64]uint64{}, map[uint64]uint64{}
	for _, p := range scan.Procs {
		parent[p.PID], start[p.PID] = p.Parent, p.Start
	}
	below := func(pid uint64) bool {
		for up, depth := parent[pid], 0; up > 1 && depth < 1000; up, depth = parent[up], depth+1 {
			if holders[up] != nil {
				return true
			}
		}
		return false
	}
	list := slices.Sorted(maps.Keys(holders))
	slices.SortStableFunc(list, func(a, b uint64) int {
		if x, y := below(a), below(b); x != y {
			if x {
				return 1
			}
			return -1
		}
		return int(int64(start[a]) - int64(start[b]))
	})
	return list[0]
}

// replaced reports that the process no longer listens, and another one does. A process that has
// stopped listening while no other listens keeps its place: it begins, or it drains.
func (f *listener) replaced() bool {
	open, err := f.sockets()
	if err != nil || len(open) == 0 {
		return false
	}
	for inode := range f.of {
		if open[inode] {
			return false
		}
	}
	if of := f.held(f.pid, open); len(of) > 0 { // it listens again
		f.of = of
		return false
	}
	holders, err := f.holders(context.Background(), open)
	return err == nil && len(holders) > 0
}

// sockets returns the inodes of the sockets that listen on the port.
func (f *listener) sockets() (map[uint64]bool, error) {
	open := map[uint64]bool{}
	var failed error
	read := 0
	for _, name := range []string{"net/tcp", "net/tcp6"} {
		file, err := os.Open(filepath.Join(f.proc, name))
		if err != nil {
			failed = err // one of the two may be absent
			continue
		}
		read++
		err = listening(file, f.port, open)
		_ = file.Close()
		if err != nil {
			return nil, fmt.Errorf("%s/%s: %w", f.proc, name, err)
		}
	}
	if read == 0 {
		return nil, failed
	}
	return open, nil
}

// listening adds the inodes of the sockets that listen on port. The kernel lists those that
// listen before all others, so the rest is not read: it can be long.
func listening(r io.Reader, port uint16, open map[uint64]bool) error {
	const local, state, inode, listen = 1, 3, 9, "0A"
	want := fmt.Sprintf(":%04X", port)
	lines := bufio.NewScanner(r)
	lines.Scan() // the head
	for lines.Scan() {
		row := strings.Fields(lines.Text())
		if len(row) <= inode {
			continue
		}
		if row[state] != listen {
			break
		}
		if n, err := strconv.ParseUint(row[inode], 10, 64); err == nil && n > 0 && strings.HasSuffix(row[local], want) {
			open[n] = true
		}
	}
	return lines.Err()
}

// holders returns the processes that hold some of the sockets, and which.
func (f *listener) holders(ctx context.Context, open map[uint64]bool) (map[uint64]map[uint64]bool, error) {
	dir, err := os.Open(f.proc)
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	names, err := dir.Readdirnames(-1)
	if err != nil {
		return nil, err
	}
	holders := map[uint64]map[uint64]bool{}
	for _, name := range names {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		if pid, err := strconv.ParseUint(name, 10, 31); err == nil {
			if of := f.held(pid, open); len(of) > 0 {
				holders[pid] = of
			}
		}
	}
	return holders, nil
}

// held returns which of the sockets a process has open. It is none if that cannot be read.
func (f *listener) held(pid uint64, open map[uint64]bool) map[uint64]bool {
	path := filepath.Join(f.proc, strconv.FormatUint(pid, 10), "fd")
	dir, err := os.Open(path)
	if err != nil {
		return nil
	}
	defer dir.Close()
	var of map[uint64]bool
	for {
		names, err := dir.Readdirnames(512)
		for _, name := range names {
			link, err := os.Readlink(path + "/" + name)
			if err != nil {
				continue
			}
			digits, ok := strings.CutPrefix(link, "socket:[")
			if !ok {
				continue
			}
			n, err := strconv.ParseUint(strings.TrimSuffix(digits, "]"), 10, 64)
			if err == nil && open[n] {
				if of == nil {
					of = map[uint64]bool{}
				}
				of[n] = true
			}
		}
		if err != nil {
			return of
		}
	}
}
