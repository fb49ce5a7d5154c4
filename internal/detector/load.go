package detector

import (
	"time"

	"github.com/beatfabric/hivebeat"
	"github.com/beatfabric/hivebeat/internal/liveness"
)

// A worker that loads a big model may be silent for many minutes: its runtime blocks
// all of its threads. Where the hive watches its process, the operating system tells
// that it loads: it reads, or takes memory. While that goes on a silent worker is
// late, cause loads, and not lost.
const (
	// loadStep is how many bytes a process has to read, or to take beyond the most that
	// it held in this silence, to make progress: what idles reads a little too.
	loadStep = 8 << 20
	// loadPatience is the least time in which it has to, whatever its promise: some
	// readings of its process.
	loadPatience = 30 * time.Second
)

// Reading is what the operating system says of a process, in bytes: what it has read
// so far, and the memory that it holds.
type Reading struct {
	Process
	Read, RSS uint64
}

// load is from where the progress of a process is counted.
type load struct {
	of         Process
	read, most uint64
}

// progress takes a reading of that process, and reports whether it went on since those
// before.
func (l *load) progress(g *Reading, silent bool) bool {
	known := silent && l.of == g.Process
	if known && (g.Read < l.read+loadStep && g.RSS < l.most+loadStep) {
		return false
	}
	*l = load{g.Process, g.Read, g.RSS}
	return known
}

// Progress takes readings of processes. A late worker whose process makes progress is
// not lost before that has stopped for three promises, or loadPatience where that is
// longer.
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
		until := now.Add(max(loadPatience, liveness.LostAfter(w.facts.Every.Duration(), 0)))
		if at, ok := r.deadlines.At(w); ok && at.Before(until) {
			r.deadlines.Set(w, until)
		}
	}
}
