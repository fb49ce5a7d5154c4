package procwatch

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strconv"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

func thisSystem() system {
	s := system{now: bootClock, look: look, exits: newPidfds}
	// Both clocks are the same, except in a sandbox with its own /proc: there, our own
	// start may lie in the future.
	if began, there := look(os.Getpid()); !there || began == 0 || began > bootClock() {
		s.now = func() int64 { return 0 }
	}
	return s
}

// bootClock returns the time since boot in ns, by the clock of start times.
func bootClock() int64 {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts); err != nil {
		return 0
	}
	return ts.Nano()
}

// look returns when the process started, rounded down to 10 ms, or 0 where /proc hides
// it, and whether the process exists. A zombie does not.
func look(pid int) (began int64, there bool) {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return 0, !errors.Is(unix.Kill(pid, 0), unix.ESRCH)
	}
	return parseStat(b)
}

// tick is the unit of times in /proc: USER_HZ is 100 wherever Go runs.
const tick = 10_000_000

// parseStat parses /proc/<pid>/stat. A file that it cannot parse is no evidence of an
// end.
func parseStat(b []byte) (began int64, there bool) {
	at := bytes.LastIndexByte(b, ')') // the name before it may contain anything
	if at < 0 {
		return 0, true
	}
	const state, threads, start = 0, 17, 19 // fields 3, 20 and 22 of proc_pid_stat(5)
	f := bytes.Fields(b[at+1:])
	if len(f) <= start {
		return 0, true
	}
	switch f[state][0] {
	case 'X', 'x':
		return 0, false
	case 'Z': // a zombie, unless only its first thread has ended
		if n, err := strconv.Atoi(string(f[threads])); err != nil || n <= 1 {
			return 0, false
		}
	}
	n, err := strconv.ParseInt(string(f[start]), 10, 64)
	if err != nil || n < 0 || n > 1<<62/tick {
		return 0, true
	}
	return n * tick, true
}

// pidfds watches all processes with one epoll, which itself waits in the Go runtime's
// poller and so costs no thread.
type pidfds struct {
	file   *os.File
	raw    syscall.RawConn
	room   atomic.Int64 // how many more may be open
	closed atomic.Bool
}

// pidfd is the handle of one process.
type pidfd struct {
	fd int
	of *pidfds
}

func (h pidfd) close() {
	_ = unix.Close(h.fd)
	h.of.room.Add(1)
}

// half returns half of the file descriptors that this process may have. The other half
// is left for the process itself.
func half() int64 {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		return 512
	}
	return int64(min(limit.Cur, 1<<30) / 2)
}

// newPidfds returns an error where pidfds are unavailable: on an old kernel, or in a
// sandbox that forbids them.
func newPidfds() (exits, error) {
	fd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("epoll: %w", err)
	}
	if err := unix.SetNonblock(fd, true); err != nil { // the runtime's poller requires it
		_ = unix.Close(fd)
		return nil, fmt.Errorf("epoll: %w", err)
	}
	p := &pidfds{file: os.NewFile(uintptr(fd), "epoll")}
	p.room.Store(half())
	if p.raw, err = p.file.SyscallConn(); err == nil {
		err = p.try()
	}
	if err != nil {
		p.close()
		return nil, err
	}
	return p, nil
}

// try checks that pidfds work, by watching this process briefly.
func (p *pidfds) try() error {
	h, err := p.open(os.Getpid())
	if err != nil {
		return err
	}
	defer h.close()
	return p.add(h, 0)
}

func (p *pidfds) open(pid int) (handle, error) {
	if p.room.Add(-1) < 0 {
		p.room.Add(1)
		return nil, unix.EMFILE
	}
	fd, err := unix.PidfdOpen(pid, 0)
	if err == nil {
		return pidfd{fd, p}, nil
	}
	p.room.Add(1)
	if errors.Is(err, unix.ESRCH) {
		return nil, errGone
	}
	return nil, fmt.Errorf("pidfd_open: %w", err)
}

func (p *pidfds) add(h handle, token uint64) error {
	fd := h.(pidfd).fd
	ev := unix.EpollEvent{Events: unix.EPOLLIN | unix.EPOLLONESHOT, Fd: int32(uint32(token)), Pad: int32(uint32(token >> 32))}
	err := p.raw.Control(func(ep uintptr) {
		if e := unix.EpollCtl(int(ep), unix.EPOLL_CTL_ADD, fd, &ev); e != nil {
			ev.Events = 0
		}
	})
	if err == nil && ev.Events == 0 {
		err = errors.New("epoll does not accept a pidfd")
	}
	return err
}

func (p *pidfds) wait(ended func(token uint64)) error {
	events := make([]unix.EpollEvent, 128)
	for {
		var n int
		var failed error
		err := p.raw.Read(func(ep uintptr) bool {
			for {
				n, failed = unix.EpollWait(int(ep), events, 0)
				if !errors.Is(failed, unix.EINTR) {
					return n > 0 || failed != nil
				}
			}
		})
		switch {
		case err != nil && p.closed.Load(): // package os returns its own error after Close
			return nil
		case err != nil:
			return err
		case failed != nil:
			return fmt.Errorf("epoll: %w", failed)
		}
		for _, ev := range events[:n] {
			ended(uint64(uint32(ev.Fd)) | uint64(uint32(ev.Pad))<<32)
		}
	}
}

func (p *pidfds) close() {
	p.closed.Store(true)
	_ = p.file.Close()
}

// age returns the time since began.
func age(began int64) time.Duration { return time.Duration(max(0, bootClock()-began)) }
