//go:build unix

package runner

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"math/rand/v2"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/beatfabric/hivebeat/internal/life"
)

// Runner runs one program, one time after the other. It implements life.Source; Next is for one
// goroutine, the other methods are safe for concurrent use.
type Runner struct {
	cfg  Config
	path string
	log  *slog.Logger

	once sync.Once // starts the reaper
	quit chan struct{}
	wg   sync.WaitGroup

	stopping chan struct{} // closed once the program was asked to end, and so is never started again

	mu       sync.Mutex // held while a process is started, waited for and signalled: so its id is never another's
	restarts restarts
	proc     *process // runs, and was not waited for; else nil
	cleaned  chan struct{}
	kill     *time.Timer // kills a program that does not stop
	sent     map[syscall.Signal]bool
	stopped  bool
	closed   bool
	over     error
	due      time.Time // of the next start
	waiting  string
	code     int
}

// process is one life of the program.
type process struct {
	pid    int
	began  time.Time
	tty    *terminal // whose foreground it has; else nil
	errs   *tail     // nil: its stderr is a terminal
	copied chan struct{}
	kills  *killCount
	had    map[uint64]bool // our children from before
	ended  chan life.End
	status syscall.WaitStatus // after its end
	alone  bool               // it left no process behind
}

// New returns a Runner that starts the program at the first Next. The error is that of
// exec.LookPath if there is no such program.
func New(cfg Config) (*Runner, error) {
	cfg = cfg.withDefaults()
	if err := cfg.validate(); err != nil {
		return nil, fmt.Errorf("runner: %w", err)
	}
	path, err := exec.LookPath(cfg.Args[0])
	if err != nil {
		return nil, fmt.Errorf("runner: %w", err)
	}
	none := make(chan struct{})
	close(none)
	return &Runner{
		cfg: cfg, path: path, log: cfg.Logger, restarts: newRestarts(&cfg), cleaned: none,
		quit: make(chan struct{}), stopping: make(chan struct{}), sent: map[syscall.Signal]bool{}, waiting: "starts " + cfg.Args[0],
	}, nil
}

// Signals are those to pass on with Signal.
func Signals() []os.Signal {
	return []os.Signal{
		syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGQUIT,
		syscall.SIGUSR1, syscall.SIGUSR2, syscall.SIGWINCH, syscall.SIGCONT,
	}
}

// Stops reports whether a signal asks the program to end for good.
func Stops(s os.Signal) bool { return s == syscall.SIGINT || s == syscall.SIGTERM }

// Signal passes a signal on to the program. SIGINT and SIGTERM ask it to end: it is not started
// again, and it is killed after Config.StopTimeout.
func (r *Runner) Signal(s os.Signal) {
	sig, ok := s.(syscall.Signal)
	if !ok {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.signal(sig)
}

func (r *Runner) signal(sig syscall.Signal) {
	if Stops(sig) && !r.stopped {
		r.stopped = true
		close(r.stopping)
	}
	p := r.proc
	if p == nil {
		return
	}
	if sig == syscall.SIGCONT {
		p.resume()
		return
	}
	r.sent[sig] = true
	_ = syscall.Kill(p.pid, sig)
	if r.stopped && r.kill == nil {
		r.kill = time.AfterFunc(r.cfg.StopTimeout, func() {
			r.mu.Lock()
			defer r.mu.Unlock()
			if r.proc == p {
				r.log.Warn("does not stop: killed", slog.Int("pid", p.pid), slog.Duration("after", r.cfg.StopTimeout))
				_ = syscall.Kill(-p.pid, syscall.SIGKILL)
			}
		})
	}
}

// Stop asks the program to end, with SIGTERM if it was not asked before. It does not wait.
func (r *Runner) Stop() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.stopped {
		r.signal(syscall.SIGTERM)
	}
}

// Close stops the program, and waits until it and its process group have ended.
func (r *Runner) Close() {
	r.Stop()
	for {
		r.mu.Lock()
		running, cleaned := r.proc != nil, r.cleaned
		r.mu.Unlock()
		<-cleaned
		if !running {
			break
		}
	}
	r.mu.Lock()
	if !r.closed {
		r.closed = true
		close(r.quit)
	}
	r.mu.Unlock()
	r.wg.Wait()
}

// Code returns the exit code of the program's last life, as a shell has it: 128 and the signal
// if a signal ended it, 126 or 127 if it could not be started. It is 0 before the first end, and
// if the runner was stopped while the program did not run.
func (r *Runner) Code() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.code
}

// Waiting says what Next waits for.
func (r *Runner) Waiting() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.waiting
}

// Next starts the program, at once or after the wait that the last end announced. The end of ctx
// does not end the program: Stop and Close do.
func (r *Runner) Next(ctx context.Context) (life.Process, error) {
	r.once.Do(r.reap)
	for {
		if err := r.await(ctx); err != nil {
			return life.Process{}, err
		}
		p, err := r.start()
		switch {
		case err == nil:
			return p, nil
		case errors.Is(err, life.ErrOver):
			return p, r.leave(err)
		}
		if err = r.failed(err); err != nil {
			return p, err
		}
	}
}

// await waits until the next start is due.
func (r *Runner) await(ctx context.Context) error {
	r.mu.Lock()
	over, due, cleaned := r.over, r.due, r.cleaned
	r.mu.Unlock()
	if over != nil {
		return over
	}
	timer := time.NewTimer(time.Until(due))
	defer timer.Stop()
	for range 2 {
		select {
		case <-ctx.Done():
			return r.leave(ctx.Err())
		case <-r.stopping:
			return r.leave(fmt.Errorf("%w: stopped", life.ErrOver))
		case <-cleaned:
			cleaned = nil
		case <-timer.C:
		}
	}
	return nil
}

// leave ends a wait: what the program did before is no longer the outcome.
func (r *Runner) leave(err error) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.code, r.over = 0, err
	return err
}

// failed decides the next step after a failed start. Its error is final.
func (r *Runner) failed(err error) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.code = 126
	if errors.Is(err, fs.ErrNotExist) {
		r.code = 127
	}
	then := r.restarts.after(time.Now(), false, rand.Float64())
	r.log.Warn("does not start", slog.Any("err", err), slog.Bool("again", then.again))
	if !then.again {
		r.over = fmt.Errorf("%w: %w", life.ErrOver, err)
		return r.over
	}
	r.plan(then)
	r.waiting = reason(err.Error(), r.waiting)
	return nil
}

// plan sets the time of the next start.
func (r *Runner) plan(then next) {
	r.due = time.Now().Add(then.wait)
	r.waiting = fmt.Sprintf("starts again in %s (restart %d)", rounded(then.wait), then.number)
}

// start starts the program.
func (r *Runner) start() (life.Process, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.stopped {
		return life.Process{}, fmt.Errorf("%w: stopped", life.ErrOver)
	}
	if r.cfg.Adopt {
		adoptOrphans(r.log)
	}
	p := &process{ended: make(chan life.End, 1), tty: foreground(r.cfg.Stdin), kills: newKillCount(), had: children(nil)}
	cmd := exec.Cmd{
		Path: r.path, Args: r.cfg.Args, Dir: r.cfg.Dir, Env: r.cfg.Env,
		Stdin: r.cfg.Stdin, Stdout: r.cfg.Stdout, Stderr: r.cfg.Stderr,
		SysProcAttr: &syscall.SysProcAttr{Setpgid: true},
	}
	if p.tty != nil {
		cmd.SysProcAttr.Foreground, cmd.SysProcAttr.Ctty = true, p.tty.fd
	}
	var pipe *os.File
	if !isTerminal(r.cfg.Stderr) {
		out, in, err := os.Pipe()
		if err != nil {
			return life.Process{}, err
		}
		defer in.Close()
		cmd.Stderr, pipe = in, out
	}
	if err := cmd.Start(); err != nil {
		if pipe != nil {
			_ = pipe.Close()
		}
		p.tty.takeBack()
		return life.Process{}, err
	}
	p.pid, p.began = cmd.Process.Pid, time.Now()
	_ = cmd.Process.Release() // the reaper waits for it
	if pipe != nil {
		p.copy(pipe, r.cfg.Stderr)
	}
	r.proc, r.cleaned, r.kill = p, make(chan struct{}), nil
	clear(r.sent)
	r.waiting = "starts " + r.cfg.Args[0]
	r.wg.Go(func() { p.kills.run(r.quit) })
	r.log.Info("started", slog.String("program", r.cfg.Args[0]), slog.Int("pid", p.pid))
	return life.Process{PID: uint64(p.pid), Ended: p.ended}, nil
}

// copy copies the stderr of the program, and keeps its end.
func (p *process) copy(from, to *os.File) {
	p.errs, p.copied = &tail{}, make(chan struct{})
	go func() { // lasts until no process has the pipe any more
		defer close(p.copied)
		defer from.Close() // if to is closed, the program sees that
		b := make([]byte, 16<<10)
		for {
			n, err := from.Read(b)
			_, _ = p.errs.Write(b[:n])
			if _, failed := to.Write(b[:n]); failed != nil || err != nil {
				return
			}
		}
	}()
}

// drain is how long the last words of a program whose stderr others keep open are waited for.
const drain = 5 * time.Millisecond

// lastWords returns the end of what the program wrote to stderr.
func (p *process) lastWords() string {
	if p.copied != nil {
		select {
		case <-p.copied:
		case <-time.After(drain):
		}
	}
	return p.errs.String()
}

// reap starts the goroutine that waits for children.
func (r *Runner) reap() {
	ended := make(chan os.Signal, 1)
	signal.Notify(ended, syscall.SIGCHLD)
	r.wg.Go(func() {
		defer signal.Stop(ended)
		for {
			select {
			case <-ended:
				r.collect()
			case <-r.quit:
				return
			}
		}
	})
}

// collect waits for the children that have ended: every one if orphans are adopted, and else
// only the program.
func (r *Runner) collect() {
	r.mu.Lock()
	defer r.mu.Unlock()
	p := r.proc
	if p == nil && !r.cfg.Adopt {
		return
	}
	pid := -1
	if !r.cfg.Adopt {
		pid = p.pid
	}
	alone := false // no child is left
	for {
		var ws syscall.WaitStatus
		got, err := syscall.Wait4(pid, &ws, syscall.WNOHANG|syscall.WUNTRACED, nil)
		if errors.Is(err, syscall.EINTR) {
			continue
		}
		if err != nil || got <= 0 {
			alone = errors.Is(err, syscall.ECHILD)
			break
		}
		switch {
		case p == nil || got != p.pid: // an orphan
		case ws.Stopped():
			if p.tty != nil {
				r.wg.Go(func() { r.suspend(p, ws.StopSignal()) })
			}
		case ws.Exited(), ws.Signaled():
			r.proc, p.status = nil, ws
			if r.kill != nil {
				r.kill.Stop()
			}
			p.tty.takeBack()
		}
	}
	if p != nil && r.proc == nil {
		p.alone = alone && errors.Is(syscall.Kill(-p.pid, 0), syscall.ESRCH)
		cleaned := r.cleaned
		r.wg.Go(func() {
			defer close(cleaned)
			r.end(p)
		})
	}
}

// end reports the end of the program, and then ends the rest of its group. The hive sees the end
// too, and waits only a few ms for this report.
func (r *Runner) end(p *process) {
	var behind left
	if !p.alone {
		behind = remaining(p.pid, p.had, r.cfg.Adopt)
	}
	words := p.lastWords()
	oom := p.kills.grew()

	r.mu.Lock()
	end := r.judge(p, oom, words, behind)
	r.mu.Unlock()
	if len(behind) > 0 {
		r.log.Warn("processes left behind", slog.Int("count", len(behind)), slog.Any("pids", []uint64(behind)))
	}
	p.ended <- end
	p.kills.close()
	r.endGroup(p.pid)
}

// judge classifies an end, and decides the next step. r.mu is held.
func (r *Runner) judge(p *process, oom bool, words string, behind left) life.End {
	how, ws := "", p.status
	if ws.Signaled() {
		r.code, how = 128+int(ws.Signal()), fmt.Sprintf("signal %d", ws.Signal())
	} else {
		r.code, how = ws.ExitStatus(), fmt.Sprintf("code %d", ws.ExitStatus())
	}
	if p.tty != nil && !r.stopped && byTerminal(ws) {
		r.stopped = true
		close(r.stopping)
	}
	orderly := r.code == 0 || r.stopped || ws.Signaled() && r.sent[ws.Signal()]
	if orderly {
		how = ""
	} else if oom {
		how = "oom"
	}
	if r.stopped {
		r.over = life.ErrOver
		return life.End{Orderly: true, Final: true}
	}
	then := r.restarts.after(time.Now(), orderly, rand.Float64())
	end := life.End{How: how, Orderly: orderly, Final: !then.again, GivenUp: then.givenUp}
	ran := ""
	switch {
	case then.again:
		r.plan(then)
		ran = r.waiting
	case then.givenUp:
		r.over = life.ErrOver
		ran = fmt.Sprintf("given up after %s within %s", counted(r.cfg.RestartMax, "restart"), rounded(r.cfg.Window))
		end.Orderly = false
		words = reason(strings.TrimSpace(how), words)
	default:
		r.over = life.ErrOver
	}
	end.Reason = reason(words, behind.String(), ran)
	return end
}

// byTerminal reports whether a program on a terminal was ended from there: Ctrl-C, Ctrl-\ and the
// end of the terminal reach the program and not its runner.
func byTerminal(ws syscall.WaitStatus) bool {
	if ws.Signaled() {
		return ws.Signal() == syscall.SIGINT || ws.Signal() == syscall.SIGQUIT || ws.Signal() == syscall.SIGHUP
	}
	return ws.ExitStatus() == 128+int(syscall.SIGINT)
}

// endGroup ends the processes that are left in the group of the program.
func (r *Runner) endGroup(pgid int) {
	if syscall.Kill(-pgid, syscall.SIGTERM) != nil {
		return
	}
	_ = syscall.Kill(-pgid, syscall.SIGCONT) // a stopped process cannot end in order
	late := time.NewTimer(r.cfg.Grace)
	defer late.Stop()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for !errors.Is(syscall.Kill(-pgid, 0), unix.ESRCH) && !onlyZombies(pgid) {
		select {
		case <-tick.C:
		case <-late.C:
			r.log.Warn("processes left behind do not end: killed", slog.Int("group", pgid))
			_ = syscall.Kill(-pgid, syscall.SIGKILL)
			return
		}
	}
}
