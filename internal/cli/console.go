package cli

import (
	"context"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"

	"github.com/lmittmann/tint"
	"golang.org/x/term"

	"github.com/beatfabric/hivebeat/internal/cli/show"
)

// console is what a command reads from and writes to.
type console struct {
	in      io.Reader
	out     io.Writer
	err     io.Writer
	exit    func(int)
	outTerm int // file descriptor of the terminal that out is, or -1
	errTerm int
	size    func() (width, height int) // of the terminal that out is, or zeros

	mu      sync.Mutex
	restore func() // puts the terminal back as it was, or nil
}

func newConsole(s Streams) *console {
	c := &console{in: s.In, out: s.Out, err: s.Err, exit: s.Exit, outTerm: terminal(s.Out), errTerm: terminal(s.Err)}
	c.size = c.termSize
	return c
}

func terminal(w io.Writer) int {
	if f, ok := w.(*os.File); ok && term.IsTerminal(int(f.Fd())) {
		return int(f.Fd())
	}
	return -1
}

func (c *console) termSize() (width, height int) {
	if c.outTerm < 0 {
		return 0, 0
	}
	width, height, err := term.GetSize(c.outTerm)
	if err != nil || width <= 0 || height <= 0 {
		return 80, 24
	}
	return width, height
}

// paint says whether output is coloured: when is auto, always or never.
func (c *console) paint(when string) show.Paint {
	switch when {
	case "always":
		return true
	case "never":
		return false
	}
	return show.Paint(c.outTerm >= 0 && os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb")
}

// logger returns the logger of a long-running command.
func (c *console) logger(f LogFlags) *slog.Logger {
	var level slog.Level
	_ = level.UnmarshalText([]byte(f.LogLevel)) // kong checked it
	opts := &slog.HandlerOptions{Level: level}
	switch {
	case f.LogFormat == "json":
		return slog.New(slog.NewJSONHandler(c.err, opts))
	case c.errTerm >= 0:
		return slog.New(tint.NewTextHandler(c.err, &tint.Options{
			Level: level, TimeFormat: time.TimeOnly, NoColor: os.Getenv("NO_COLOR") != "",
		}))
	}
	return slog.New(slog.NewTextHandler(c.err, opts))
}

// untilSignal returns a context that the first SIGINT or SIGTERM ends; a second
// one leaves the process at once.
func (c *console) untilSignal(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancelCause(ctx)
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	done := make(chan struct{})
	go func() {
		select {
		case <-signals:
			cancel(errInterrupted)
		case <-done:
			return
		}
		select {
		case <-signals:
			c.leaveTerminal()
			c.exit(ExitFailed)
		case <-done:
		}
	}()
	return ctx, sync.OnceFunc(func() {
		signal.Stop(signals)
		close(done)
		cancel(nil)
	})
}

// takeTerminal remembers how to put the terminal back.
func (c *console) takeTerminal(restore func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.restore = restore
}

// leaveTerminal puts the terminal back as it was. More than one call is no harm.
func (c *console) leaveTerminal() {
	c.mu.Lock()
	restore := c.restore
	c.restore = nil
	c.mu.Unlock()
	if restore != nil {
		restore()
	}
}
