package cli

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"strings"

	"github.com/beatfabric/hivebeat/internal/advice"
	"github.com/beatfabric/hivebeat/internal/plaintext"
)

// failure is an error for people: the cause, a hint about what to do next, and the exit
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

// endedWith ends a command with the exit code of the program that it ran, which has said why.
type endedWith int

func (e endedWith) Error() string { return fmt.Sprintf("exit code %d", int(e)) }

// fail prints err and returns its exit code.
func (c *console) fail(err error) int {
	if err == nil {
		return ExitDone
	}
	if errors.Is(err, errSilent) {
		return ExitFailed
	}
	if code, ok := errors.AsType[endedWith](err); ok {
		return int(code)
	}
	code, hint := ExitFailed, ""
	if f, ok := errors.AsType[*failure](err); ok {
		code, hint = f.code, f.hint
	}
	if hint == "" {
		hint = advice.For(err)
	}
	if errors.Is(err, context.Canceled) || errors.Is(err, errInterrupted) {
		err, hint = errInterrupted, ""
	}
	fmt.Fprintf(c.err, "hivebeat: %s\n", oneLine(plain(err.Error())))
	if hint != "" {
		fmt.Fprintf(c.err, "hint: %s\n", oneLine(hint))
	}
	return code
}

// inner matches the package names at the start of errors. They help readers of Go code; a
// person at a terminal has the command and the flag.
var inner = regexp.MustCompile(`(^|: |; |\n)(?:(?:bus|embedded|client|worker|hive|queen|ledger|httpapi|webhook|nats|runner|sidecar): )+`)

// plain removes these names.
func plain(s string) string { return inner.ReplaceAllString(s, "$1") }

// oneLine puts an error on one line: errors.Join writes one line per error.
func oneLine(s string) string {
	return plaintext.Line(strings.ReplaceAll(strings.TrimSpace(s), "\n", "; "))
}
