package show

// Finding renders the result of a check, and the advice below it.
func Finding(level, what, do string, p Paint) []string {
	st := Good
	switch level {
	case "warn":
		st = Warn
	case "fail":
		st = Bad
	}
	lines := []string{p.Text(pad(Clean(level), 4), st) + "  " + Clean(what)}
	if do != "" {
		lines = append(lines, "      "+p.Text(Clean(do), Faint))
	}
	return lines
}
