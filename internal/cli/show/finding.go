package show

import "github.com/beatfabric/hivebeat/internal/plaintext"

// Finding renders the result of a check, and the advice below it.
func Finding(level, what, do string, p Paint) []string {
	st := Good
	switch level {
	case "warn":
		st = Warn
	case "fail":
		st = Bad
	}
	lines := []string{p.Text(Pad(plaintext.Line(level), 4), st) + "  " + plaintext.Line(what)}
	if do != "" {
		lines = append(lines, "      "+p.Text(plaintext.Line(do), Faint))
	}
	return lines
}
