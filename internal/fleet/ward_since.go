package fleet

import (
	"time"

	"github.com/beatfabric/hivebeat"
	"github.com/beatfabric/hivebeat/internal/detector"
)

// turned notes since when c, whose record is w (nil: there is none), is alive after
// the step s, its first or not. One that its hive had as alive, and that answers, was
// alive all along: it is since its hive says so, and not since it answered.
func (c *ward) turned(s *detector.Step, w *Worker, first bool) {
	switch s.Kind {
	case hivebeat.KindState, hivebeat.KindStalled, hivebeat.KindLooping, hivebeat.KindConflict:
		return // no verdict
	}
	c.alive = time.Time{}
	if s.Kind == hivebeat.KindRecovered && first && w != nil && w.rec.Live == hivebeat.Alive && w.rec.Inc == s.Inc {
		c.alive = w.received.Add(-min(w.rec.Since, maxAge).Duration())
	}
}

// sinceAlive is the age of its verdict, which the detector says is since.
func (c *ward) sinceAlive(live hivebeat.Live, since hivebeat.Millis, now time.Time) hivebeat.Millis {
	if c.alive.IsZero() || live != hivebeat.Alive {
		return since
	}
	return max(since, hivebeat.MillisOf(now.Sub(c.alive)))
}
