package hivecore

import (
	"time"

	"github.com/beatfabric/hivebeat"
	"github.com/beatfabric/hivebeat/internal/detector"
)

// Figures are the counts of a hive.
type Figures struct {
	Stats   hivebeat.Stats
	Reasons map[hivebeat.Reason]uint64 // messages refused, by reason; only reasons that occurred
	Lost    map[hivebeat.Cause]uint64  // workers found lost, by cause
	Damped  map[string]uint64          // verdicts that were not reported, by worker
	Score   detector.Score
	Workers int    // records
	Looping int    // workers that restart repeatedly
	Ignored uint64 // closed connections that the hive attributed to their server

	Warm, Connected bool
}

// Figures returns the counts so far.
func (c *Core) Figures(now time.Time) Figures {
	return Figures{
		Stats: c.reg.Stats(), Reasons: c.reg.Reasons(), Lost: c.reg.Lost(), Damped: c.reg.Damped(), Score: c.reg.Score(),
		Workers: c.reg.Len(), Looping: c.reg.Looping(), Ignored: c.hear.Ignored(),
		Warm: c.reg.Warm(now), Connected: c.hear.Connected() && !c.closed,
	}
}

// Mix counts the workers by verdict, and those that are alive also by the state that
// they report.
func (c *Core) Mix() (map[hivebeat.Live]int, map[hivebeat.State]int) { return c.reg.Mix() }

// Number assigns the next number to a snapshot, even to one that cannot be sent: the
// gap shows that this hive was alive, and cut off.
func (c *Core) Number() { c.seq++ }

// Fill sets what the core knows in s: all workers, the counts, and the number of the
// last snapshot.
func (c *Core) Fill(now time.Time, s *hivebeat.Snapshot) {
	s.Seq, s.Warm, s.Stats, s.Workers = c.seq, c.reg.Warm(now), c.reg.Stats(), c.reg.Records(now)
}

// Record returns the record of one worker, without its transitions.
func (c *Core) Record(now time.Time, worker string) (hivebeat.Record, bool) {
	return c.reg.Record(now, worker)
}

// Pids returns the process ids of the workers in the hive's pid namespace.
func (c *Core) Pids() map[uint64]bool { return c.reg.Pids(c.cfg.NS) }

// Running returns the processes of the workers on this boot of the machine, also those in
// other pid namespaces.
func (c *Core) Running() []detector.Running { return c.reg.Running(c.cfg.NS) }
