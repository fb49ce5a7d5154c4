package cli

import (
	"context"
	"errors"
	"fmt"
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
	"github.com/beatfabric/hivebeat/internal/plaintext"
)

// console is what a command reads from and writes to.
type console struct {
	in      io.Reader
	out     io.Writer
	err     io.Writer
	exit    func(int)
	outTerm int // file descriptor of out if that is a terminal, or -1
	errTerm int
	size    func() (width, height int) // of the terminal behind out, or zeros

	mu      sync.Mutex
	restore func() // restores the terminal, or nil
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

// paint reports whether output is coloured; when is auto, always or never.
func (c *console) paint(when string) show.Paint {
	switch when {
	case "always":
		return true
	case "never":
		return false
	}
	return show.Paint(c.outTerm >= 0 && os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb")
}

// logger returns the logger of a long-running command. Text that it logs is plain, whatever
// a worker or a server put into it.
func (c *console) logger(f LogFlags) *slog.Logger {
	var level slog.Level
	_ = level.UnmarshalText([]byte(f.LogLevel)) // kong checked it
	switch {
	case f.LogFormat == "json":
		return slog.New(slog.NewJSONHandler(plaintext.JSONWriter(c.err), &slog.HandlerOptions{Level: level}))
	case c.errTerm >= 0:
		return slog.New(told{tint.NewTextHandler(c.err, &tint.Options{
			Level: level, TimeFormat: time.TimeOnly, NoColor: os.Getenv("NO_COLOR") != "", ReplaceAttr: logged,
		})})
	}
	return slog.New(told{slog.NewTextHandler(c.err, &slog.HandlerOptions{Level: level, ReplaceAttr: logged})})
}

// told drops the record that fail repeats a moment later, in words for people and with a
// hint. Programs that read JSON need the record.
type told struct{ slog.Handler }

func (h told) Handle(ctx context.Context, r slog.Record) error {
	if r.Level == slog.LevelError && r.Message == "queen ends" {
		return nil
	}
	return h.Handler.Handle(ctx, r)
}

func (h told) WithAttrs(attrs []slog.Attr) slog.Handler { return told{h.Handler.WithAttrs(attrs)} }
func (h told) WithGroup(name string) slog.Handler       { return told{h.Handler.WithGroup(name)} }

// logged returns a, the message or an attribute of a record, as a text log shows it. tint
// writes messages and escape sequences as they come, so every text is made plain before.
// Attributes with an empty text, which people do not look for, are dropped. Programs that
// read JSON get every key.
func logged(_ []string, a slog.Attr) slog.Attr {
	text := ""
	switch a.Value.Kind() {
	case slog.KindString:
		text = a.Value.String()
	case slog.KindAny:
		if _, ok := a.Value.Any().(slog.Level); ok {
			return a
		}
		text = fmt.Sprintf("%+v", a.Value.Any()) // as both handlers do
	default:
		a.Key = plaintext.Line(a.Key)
		return a
	}
	if text == "" {
		return slog.Attr{}
	}
	return slog.String(plaintext.Line(a.Key), plaintext.Line(text))
}

// outliveReader keeps the process alive, until stop is called, when the reader of its
// stdout or stderr is gone. The output is lost, but the process still leaves in order.
// Otherwise SIGPIPE ends it at the first write: after Ctrl-C at "hivebeat up 2>&1 | tee log"
// that is the line that says that it is leaving. The signal is caught and not ignored,
// because child processes would inherit that.
func outliveReader() (stop func()) {
	pipes := make(chan os.Signal, 1) // never read: what does not fit is dropped
	signal.Notify(pipes, syscall.SIGPIPE)
	return func() { signal.Stop(pipes) }
}

// untilSignal returns a context that the first SIGINT or SIGTERM cancels. A second one ends
// the process at once.
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

// agent runs a long-running command. The first signal cancels the context of run, whatever
// step it is at, so that it can clean up; a second one ends the process at once. Leaving
// before the role has started is not a failure: a signal asked for it.
func (c *console) agent(ctx context.Context, run func(ctx context.Context) error) error {
	defer outliveReader()()
	ctx, stop := c.untilSignal(ctx)
	defer stop()
	err := run(ctx)
	if errors.Is(context.Cause(ctx), errInterrupted) && (errors.Is(err, errInterrupted) || errors.Is(err, context.Canceled)) {
		return nil
	}
	return err
}

// takeTerminal sets the function that restores the terminal.
func (c *console) takeTerminal(restore func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.restore = restore
}

// leaveTerminal restores the terminal. It may be called more than once.
func (c *console) leaveTerminal() {
	c.mu.Lock()
	restore := c.restore
	c.restore = nil
	c.mu.Unlock()
	if restore != nil {
		restore()
	}
}
