package detector

import (
	"time"

	"github.com/beatfabric/hivebeat"
	"github.com/beatfabric/hivebeat/verdict"
)

// A worker that loads a large model may be silent for many minutes, because its runtime
// blocks all of its threads. Where the hive watches the process, the operating system
// shows that it loads: the process reads, or its memory grows. Meanwhile a silent
// worker stays late, cause loads, and is not lost.
const (
	// loadStep is how many bytes a process must read, or gain beyond its largest memory
	// in this silence, to count as progress: an idle process reads a little too.
	loadStep = 8 << 20
	// loadPatience is the least time that a process has to make progress, whatever its
	// promise. It covers several readings.
	loadPatience = 30 * time.Second
)

// Reading is what the operating system reports about a process, in bytes: how much it
// has read so far, and how much memory it holds.
type Reading struct {
	Process
	Read, RSS uint64
}

// load is the reading that the progress of a process is measured against.
type load struct {
	of         Process
	read, most uint64
}

// progress compares the reading g with the previous one, and reports whether its
// process made progress.
func (l *load) progress(g *Reading, silent bool) bool {
	known := silent && l.of == g.Process
	if known && (g.Read < l.read+loadStep && g.RSS < l.most+loadStep) {
		return false
	}
	*l = load{g.Process, g.Read, g.RSS}
	return known
}

// Progress takes readings of processes. A late worker whose process makes progress is
// lost only when progress has stopped for three promises or for loadPatience, whichever
// is longer.
func (r *Registry) Progress(now time.Time, list []Reading) {
	for i := range list {
		g := &list[i]
		w := r.workers[g.Worker]
		if w == nil || g.PID == 0 || w.process != g.Process {
			continue
		}
		if !w.load.progress(g, w.live == hivebeat.Late) {
			continue
		}
		w.cause = hivebeat.CauseLoads
		until := now.Add(max(loadPatience, verdict.LostAfter(w.facts.Every.Duration(), 0)))
		if at, ok := r.deadlines.At(w); ok && at.Before(until) {
			r.deadlines.Set(w, until)
		}
	}
}
