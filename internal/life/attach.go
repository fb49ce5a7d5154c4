package life

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/beatfabric/hivebeat/internal/procwatch"
)

// Config is how a source looks for processes. The zero Config is valid.
type Config struct {
	// Poll is the interval between two looks while no process is there. Default: 1 s.
	Poll time.Duration
	// Logger gets Warn if the system does not report the ends of processes. Default: nothing
	// is logged.
	Logger *slog.Logger
}

// finder finds processes of one kind. It belongs to one goroutine at a time.
type finder interface {
	// find returns the process that runs now, or why there is none, for people.
	find(ctx context.Context) (pid uint64, why string, err error)
	// ended says how the process ended that find returned last.
	ended(ctx context.Context) End
	// replaced reports that another process has taken the place of this one, which still runs.
	// It is called at every poll.
	replaced() bool
}

// attached follows processes that other programs started.
type attached struct {
	cfg  Config
	find finder
	why  atomic.Pointer[string]
	// only is set if just the process that existed at known counts.
	only  bool
	known time.Time
	over  bool
}

func attach(f finder, cfg Config, what string) *attached {
	cfg.Poll = cmp.Or(max(0, cfg.Poll), time.Second)
	cfg.Logger = cmp.Or(cfg.Logger, slog.New(slog.DiscardHandler))
	a := &attached{cfg: cfg, find: f}
	a.why.Store(&what)
	return a
}

// Waiting says what Next waits for.
func (a *attached) Waiting() string { return *a.why.Load() }

// Next returns the next process. The end of ctx also ends its watch.
func (a *attached) Next(ctx context.Context) (Process, error) {
	if a.over {
		return Process{}, fmt.Errorf("%w: %s", ErrOver, a.Waiting())
	}
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return Process{}, ctx.Err()
		case <-timer.C:
		}
		pid, why, err := a.find.find(ctx)
		switch {
		case ctx.Err() != nil:
			return Process{}, ctx.Err()
		case err != nil:
			return Process{}, err
		case pid != 0:
			return a.follow(ctx, pid), nil
		}
		a.why.Store(&why)
		timer.Reset(a.cfg.Poll)
	}
}

// follow watches a process that was just seen to run.
func (a *attached) follow(ctx context.Context, pid uint64) Process {
	known := time.Now()
	if a.only {
		known = a.known
	}
	ended := make(chan End, 1)
	w := procwatch.New[uint64](procwatch.Config{Max: 1, Poll: a.cfg.Poll, Logger: a.cfg.Logger})
	w.Watch(pid, pid, known)
	watch, cancel := context.WithCancel(ctx)
	go w.Run(watch)
	go func() {
		defer cancel()
		tick := time.NewTicker(a.cfg.Poll)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-w.Ready():
				end := a.find.ended(ctx)
				if a.only {
					why := fmt.Sprintf("process %d has ended", pid)
					a.why.Store(&why)
					end.Final, a.over = true, true
				}
				if ctx.Err() == nil {
					ended <- end
				}
				return
			case <-tick.C:
				if a.find.replaced() {
					ended <- End{Orderly: true, Reason: fmt.Sprintf("process %d gave its place to another one", pid)}
					return
				}
			}
		}
	}()
	return Process{PID: pid, Ended: ended}
}

// foreign is what finders have in common: how a process ended that is no child of this one is
// not known, and no other takes its place.
type foreign struct{}

func (foreign) ended(context.Context) End { return End{} }
func (foreign) replaced() bool            { return false }

// isPID reports whether a process can have the id.
func isPID(pid uint64) bool { return pid > 0 && pid <= math.MaxInt32 }

// runs reports whether the process exists.
func runs(pid uint64) bool {
	_, there := procwatch.Age(pid)
	return there
}

// PID follows one process, which runs now. A later process with the same id is another one.
func PID(pid uint64, cfg Config) (Source, error) {
	known := time.Now()
	if !isPID(pid) {
		return nil, fmt.Errorf("%d is no process id", pid)
	}
	if !runs(pid) {
		return nil, fmt.Errorf("there is no process %d", pid)
	}
	a := attach(onePID{pid: pid}, cfg, fmt.Sprintf("looks at process %d", pid))
	a.only, a.known = true, known
	return a, nil
}

// onePID finds one process. Whether it is still the same one is up to the watch.
type onePID struct {
	foreign
	pid uint64
}

func (f onePID) find(context.Context) (uint64, string, error) { return f.pid, "", nil }

// PIDFile follows the process whose id is in a file, and then the next one whose id is in it.
// A process that began after the file was written is not the one that it names: such a file
// outlived its process.
func PIDFile(path string, cfg Config) (Source, error) {
	if path == "" {
		return nil, errors.New("the file has no name")
	}
	return attach(pidFile{path: path}, cfg, "reads "+path), nil
}

type pidFile struct {
	foreign
	path string
}

// fileSlack is how much younger than its file a process may seem. The time of a file is by the
// wall clock, and a daemon may write it while the process begins.
const fileSlack = 2 * time.Second

func (f pidFile) find(context.Context) (uint64, string, error) {
	st, err := os.Stat(f.path)
	if err != nil {
		return 0, reasonOf(err, f.path), nil
	}
	b, err := readStart(f.path, 64)
	if err != nil {
		return 0, reasonOf(err, f.path), nil
	}
	text, _, _ := strings.Cut(strings.TrimSpace(string(b)), "\n")
	pid, _ := strconv.ParseUint(strings.TrimSpace(text), 10, 64) // 0 if it is no number
	if !isPID(pid) {
		return 0, f.path + " does not begin with a process id", nil
	}
	age, there := procwatch.Age(pid)
	switch {
	case !there:
		return 0, fmt.Sprintf("process %d of %s does not run", pid, f.path), nil
	case age > 0 && time.Since(st.ModTime()) > age+fileSlack:
		return 0, fmt.Sprintf("process %d began after %s was written: it is another one", pid, f.path), nil
	}
	return pid, "", nil
}

// reasonOf says for people why a file cannot be read.
func reasonOf(err error, path string) string {
	if errors.Is(err, os.ErrNotExist) {
		return path + " does not exist"
	}
	return err.Error()
}

// readStart reads the first n bytes of a file.
func readStart(path string, n int) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b := make([]byte, n)
	n, err = f.Read(b)
	if n == 0 && err != nil {
		return nil, fmt.Errorf("%s is empty", path)
	}
	return b[:n], nil
}
