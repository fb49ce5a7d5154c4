package show

// Finding renders what a check found, and below it what to do.
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
