package cli

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/alecthomas/kong"

	"github.com/beatfabric/hivebeat/bus"
	"github.com/beatfabric/hivebeat/internal/cli/show"
)

// failure is an error for people: what went wrong, what to do next, and the exit
// code.
type failure struct {
	err  error
	hint string
	code int
}

func (f *failure) Error() string { return f.err.Error() }
func (f *failure) Unwrap() error { return f.err }

// failed returns err with a hint, for exit code 1.
func failed(err error, hint string, args ...any) error {
	return &failure{err, fmt.Sprintf(hint, args...), ExitFailed}
}

// misused returns err with a hint, for exit code 2.
func misused(err error, hint string, args ...any) error {
	return &failure{err, fmt.Sprintf(hint, args...), ExitUsage}
}

// errInterrupted is the cause of a context that a signal ended.
var errInterrupted = errors.New("interrupted")

// errSilent fails a command that has already said why.
var errSilent = errors.New("failed")

// usageError turns what kong says into a failure with a hint.
func usageError(err error) error {
	if f, ok := errors.AsType[*failure](err); ok {
		return f
	}
	command := ""
	if p, ok := errors.AsType[*kong.ParseError](err); ok && p.Context != nil {
		if node := p.Context.Selected(); node != nil {
			command = " " + node.Name
		}
	}
	return misused(err, "hivebeat%s --help shows what there is", command)
}

// fail tells err and returns the exit code for it.
func (c *console) fail(err error) int {
	if err == nil {
		return ExitDone
	}
	if errors.Is(err, errSilent) {
		return ExitFailed
	}
	code, hint := ExitFailed, ""
	if f, ok := errors.AsType[*failure](err); ok {
		code, hint = f.code, f.hint
	}
	if hint == "" {
		hint = bus.Hint(err)
	}
	if errors.Is(err, context.Canceled) || errors.Is(err, errInterrupted) {
		err, hint = errInterrupted, ""
	}
	fmt.Fprintf(c.err, "hivebeat: %s\n", oneLine(err.Error()))
	if hint != "" {
		fmt.Fprintf(c.err, "hint: %s\n", oneLine(hint))
	}
	return code
}

// oneLine keeps an error on its line: errors.Join puts each one on its own.
func oneLine(s string) string {
	return show.Clean(strings.ReplaceAll(strings.TrimSpace(s), "\n", "; "))
}
