package embedded

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"sync/atomic"
)

// logger passes the server's messages to slog, and keeps its first fatal error.
type logger struct {
	log   *slog.Logger
	first atomic.Pointer[fatalError]
}

// fatalError is an error that would have made nats-server end the process.
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

// Errorf logs an error, at a lower level if it was provoked. A doctor finds out its
// permissions by trying. Each attempt is an intended violation, and dozens of
// violations would hide the real ones. A client that uses the doctor's name hides only
// permission violations, which are refused all the same.
func (l *logger) Errorf(format string, v ...any) {
	level := slog.LevelError
	if text := fmt.Sprintf(format, v...); strings.Contains(text, `:`+doctorName+`" - `) && strings.Contains(text, " Violation - ") {
		level = slog.LevelDebug
	}
	l.say(level, format, v)
}

// doctorName is the name of a connection of internal/doctor that only probes.
const doctorName = "hivebeat doctor"

// Fatalf does not end the process, unlike nats-server's own logger. The server returns
// from its current step, and Start finds the reason here and returns it.
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
