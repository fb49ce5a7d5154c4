// Package core holds what the cores of hive and queen share: how an observer knows that
// messages reach it, what closed connections mean to it, and the lines that a core
// wants logged.
//
// The core of a role (internal/hivecore, internal/queencore) is the state machine of
// its loop. It has no NATS, no clock, no goroutine and no lock. Each kind of input has
// its own method, which takes the time when the input arrived. Ready returns the work
// that follows from the inputs, and the shell passes the results back as further
// inputs. The shell of a role (package hive or queen) and the simulation
// (internal/sim) drive the same core. The model is the RawNode of etcd's raft.
package core

import (
	"log/slog"
	"time"
)

const (
	// TokenWithin bounds a shell's wait for one token (Signals.Token). The shell does
	// not hand back a token that takes longer; the core asks for another.
	TokenWithin = 10 * time.Second
	// SettleWithin bounds a shell's wait for the outcome of Signals.Settle. When it is
	// over, the shell calls Settled all the same: the windows are long enough.
	SettleWithin = 250 * time.Millisecond
	// Batch is how many waiting messages a shell handles per wake-up. A wide select
	// costs more than a beat.
	Batch = 64
	// PendingBeats is how many beats may wait for an observer. NATS drops and counts
	// any beyond.
	PendingBeats = 4096
	// LogAgain is the minimum time between two log lines of one kind.
	LogAgain = time.Minute
)

// Log is a line that a core wants logged.
type Log struct {
	Level slog.Level
	Text  string
	Attrs []slog.Attr
}

// Logs collects lines.
type Logs []Log

// Add appends a line.
func (l *Logs) Add(level slog.Level, text string, attrs ...slog.Attr) {
	*l = append(*l, Log{level, text, attrs})
}

// Limiter lets one log line of a kind through per LogAgain, and counts the others. The
// zero value is ready to use.
type Limiter struct {
	of map[string]*limited
}

type limited struct {
	last time.Time
	n    uint64
}

// Allow counts one line of a kind. It returns how many there were since the last one
// let through, including this one, or 0 if it is too soon for another.
func (l *Limiter) Allow(kind string, now time.Time) uint64 {
	x := l.of[kind]
	if x == nil {
		if l.of == nil {
			l.of = make(map[string]*limited)
		}
		x = &limited{}
		l.of[kind] = x
	}
	x.n++
	if !x.last.IsZero() && now.Sub(x.last) < LogAgain {
		return 0
	}
	n := x.n
	x.last, x.n = now, 0
	return n
}
