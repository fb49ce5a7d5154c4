package cli

import (
	"bytes"
	"errors"
	"log/slog"
	"strings"
	"testing"
)

func TestPaint(t *testing.T) {
	c := newConsole(Streams{Out: new(bytes.Buffer)})
	tty := newConsole(Streams{Out: new(bytes.Buffer)})
	tty.outTerm = 1
	for _, tt := range []struct {
		c             *console
		when, noColor string
		want          bool
	}{
		{c, "auto", "", false},
		{c, "always", "", true},
		{c, "never", "", false},
		{tty, "auto", "", true},
		{tty, "auto", "1", false},
		{tty, "always", "1", true},
		{tty, "never", "", false},
	} {
		t.Setenv("NO_COLOR", tt.noColor)
		t.Setenv("TERM", "xterm")
		if got := bool(tt.c.paint(tt.when)); got != tt.want {
			t.Errorf("terminal %v, --color %s, NO_COLOR=%s: %v", tt.c == tty, tt.when, tt.noColor, got)
		}
	}
}

func TestLogger(t *testing.T) {
	var errs bytes.Buffer
	c := newConsole(Streams{Err: &errs})
	log := c.logger(LogFlags{LogLevel: "warn", LogFormat: "json"})
	log.Info("no")
	log.Warn("yes", slog.String("hive", "h"))
	if got := errs.String(); strings.Contains(got, "no") || !strings.Contains(got, `"msg":"yes","hive":"h"`) {
		t.Errorf("json: %s", got)
	}
	errs.Reset()
	c.logger(LogFlags{LogLevel: "debug", LogFormat: "text"}).Debug("yes", slog.String("from", ""), slog.Int("n", 0))
	if got := errs.String(); !strings.HasSuffix(got, "level=DEBUG msg=yes n=0\n") {
		t.Errorf("text: %s", got)
	}
}

// An error is printed on one line that cannot move the cursor, whatever it contains.
func TestErrorsAreOneLine(t *testing.T) {
	var errs bytes.Buffer
	c := newConsole(Streams{Err: &errs})
	if code := c.fail(misused(errors.Join(errors.New("a\x1b[2J"), errors.New("b")), "do\nthis")); code != ExitUsage {
		t.Errorf("exit code %d", code)
	}
	if got, want := errs.String(), "hivebeat: a\ufffd[2J; b\nhint: do; this\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}
