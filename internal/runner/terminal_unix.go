//go:build unix

package runner

import (
	"os"
	"os/signal"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
	"golang.org/x/term"
)

func isTerminal(f *os.File) bool { return term.IsTerminal(int(f.Fd())) }

// terminal is the terminal that this process has in the foreground.
type terminal struct {
	fd  int
	own int // our process group
}

// foreground returns the terminal behind stdin if this process is in its foreground, or nil.
func foreground(stdin *os.File) *terminal {
	t := &terminal{fd: int(stdin.Fd()), own: unix.Getpgrp()}
	if !t.ours() {
		return nil
	}
	return t
}

// ours reports whether our process group is in the foreground.
func (t *terminal) ours() bool {
	pgrp, err := unix.IoctlGetInt(t.fd, unix.TIOCGPGRP)
	return err == nil && pgrp == t.own
}

// give puts a process group into the foreground. A process in the background may do that only
// while it ignores SIGTTOU. A program started meanwhile would inherit that, so no other goroutine
// starts one: Runner.mu is held.
func (t *terminal) give(pgrp int) {
	signal.Ignore(syscall.SIGTTOU)
	defer signal.Reset(syscall.SIGTTOU)
	_ = unix.IoctlSetPointerInt(t.fd, unix.TIOCSPGRP, pgrp)
}

// takeBack puts our process group into the foreground again.
func (t *terminal) takeBack() {
	if t != nil {
		t.give(t.own)
	}
}

// resume continues the program after it was stopped. It gets the terminal if that is ours.
func (p *process) resume() {
	if p.tty != nil && p.tty.ours() {
		p.tty.give(p.pid)
	}
	_ = syscall.Kill(-p.pid, syscall.SIGCONT)
}

// settle is how long a signal to ourselves may take to stop us.
const settle = 50 * time.Millisecond

// suspend stops this process after Ctrl-Z has stopped the program, so that the shell sees its job
// stopped. The SIGCONT of the shell's fg or bg continues both. Where no shell could do that, the
// kernel does not stop us, and the program continues at once.
func (r *Runner) suspend(p *process, sig syscall.Signal) {
	r.mu.Lock()
	if r.proc != p {
		r.mu.Unlock()
		return
	}
	if sig == syscall.SIGTTIN || sig == syscall.SIGTTOU {
		if p.tty.ours() { // fg brought us back without a SIGCONT
			p.resume()
		}
		r.mu.Unlock()
		return
	}
	p.tty.takeBack()
	r.mu.Unlock()
	_ = syscall.Kill(0, syscall.SIGTSTP)
	time.Sleep(settle)
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.proc == p {
		p.resume()
	}
}
