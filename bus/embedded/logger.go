package embedded

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"sync/atomic"
)

// logger hands what the server says to slog, and keeps the first thing it gave
// up for.
type logger struct {
	log   *slog.Logger
	first atomic.Pointer[fatalError]
}

// fatalError is what nats-server would have ended the process for.
type fatalError struct {
	text   string
	causes []error
}

func (e *fatalError) Error() string   { return e.text }
func (e *fatalError) Unwrap() []error { return e.causes }

func (e *fatalError) jetStream() bool { return strings.Contains(e.text, "JetStream") }

func (l *logger) fatal() *fatalError { return l.first.Load() }

func (l *logger) say(level slog.Level, format string, v []any) {
	ctx := context.Background()
	if l.log.Enabled(ctx, level) {
		l.log.Log(ctx, level, "nats-server", slog.String("text", fmt.Sprintf(format, v...)))
	}
}

func (l *logger) Noticef(format string, v ...any) { l.say(slog.LevelDebug, format, v) }
func (l *logger) Warnf(format string, v ...any)   { l.say(slog.LevelWarn, format, v) }
func (l *logger) Debugf(string, ...any)           {}
func (l *logger) Tracef(string, ...any)           {}

// Errorf logs an error, unless it was asked for: a doctor finds out what it may do
// by trying, each try is a violation on purpose, and dozens of these would hide
// what is real. Whoever takes the doctor's name hides nothing but violations, of
// permissions that are refused all the same.
func (l *logger) Errorf(format string, v ...any) {
	level := slog.LevelError
	if text := fmt.Sprintf(format, v...); strings.Contains(text, `:`+doctorName+`" - `) && strings.Contains(text, " Violation - ") {
		level = slog.LevelDebug
	}
	l.say(level, format, v)
}

// doctorName is the name of a connection of internal/doctor that only probes.
const doctorName = "hivebeat doctor"

// Fatalf does not end the process, as nats-server's own logger does: the server
// returns from what it was doing, and Start finds the reason here and returns it.
func (l *logger) Fatalf(format string, v ...any) {
	e := &fatalError{text: fmt.Sprintf(format, v...)}
	for _, a := range v {
		if err, ok := a.(error); ok {
			e.causes = append(e.causes, err)
		}
	}
	if !l.first.CompareAndSwap(nil, e) {
		l.say(slog.LevelError, "%s", []any{e.text})
	}
}
