package cli

import (
	"context"
	"errors"
	"fmt"
	"regexp"
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

// usageError turns what kong says of args into a failure with a hint.
func usageError(err error, args []string) error {
	if f, ok := errors.AsType[*failure](err); ok {
		return f
	}
	if flag, line := misplaced(err, args); flag != "" {
		return misused(fmt.Errorf("%s stands before the command", flag), "flags come after it: %s", line)
	}
	command := ""
	if p, ok := errors.AsType[*kong.ParseError](err); ok && p.Context != nil {
		if node := p.Context.Selected(); node != nil {
			command = " " + node.Name
		}
	}
	return misused(err, "hivebeat%s --help shows what there is", command)
}

// misplaced returns the flag that err does not know because it stands before the
// command, and the line as it should be.
func misplaced(err error, args []string) (flag, line string) {
	p, ok := errors.AsType[*kong.ParseError](err)
	if !ok || p.Context == nil || p.Context.Selected() != nil || len(args) == 0 || !strings.HasPrefix(args[0], "-") || !strings.HasPrefix(err.Error(), "unknown flag ") {
		return "", ""
	}
	for i, arg := range args {
		for _, node := range p.Context.Model.Children {
			if node.Type == kong.CommandNode && node.Name == arg {
				flag, _, _ = strings.Cut(args[0], "=")
				return flag, shellLine(append(append([]string{"hivebeat", arg}, args[:i]...), args[i+1:]...))
			}
		}
	}
	return "", ""
}

// shellLine writes a command as a shell takes it.
func shellLine(args []string) string {
	out := make([]string, len(args))
	for i, arg := range args {
		if out[i] = arg; !plainWord.MatchString(arg) {
			out[i] = "'" + strings.ReplaceAll(arg, "'", `'\''`) + "'"
		}
	}
	return strings.Join(out, " ")
}

var plainWord = regexp.MustCompile(`^[A-Za-z0-9_@%+=:,./-]+$`)

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
	fmt.Fprintf(c.err, "hivebeat: %s\n", oneLine(plain(err.Error())))
	if hint != "" {
		fmt.Fprintf(c.err, "hint: %s\n", oneLine(hint))
	}
	return code
}

// inner are the names that packages put before their errors: for who reads them in
// Go. A person has the command, and the flag.
var inner = regexp.MustCompile(`(^|: |; |\n)(?:(?:bus|embedded|client|worker|hive|queen|ledger|httpapi|webhook|nats): )+`)

// plain leaves them out.
func plain(s string) string { return inner.ReplaceAllString(s, "$1") }

// oneLine keeps an error on its line: errors.Join puts each one on its own.
func oneLine(s string) string {
	return show.Clean(strings.ReplaceAll(strings.TrimSpace(s), "\n", "; "))
}
