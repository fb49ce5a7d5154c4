package hive

import (
	"time"

	"github.com/beatfabric/hivebeat"
	"github.com/beatfabric/hivebeat/bus"
)

// Stats are the counts of a hive since New.
type Stats struct {
	hivebeat.Stats                            // as in its snapshots
	Reasons        map[hivebeat.Reason]uint64 // messages refused, by reason, where there were any
	Dropped        uint64                     // messages that came faster than they were heard
	Workers        int                        // records, of workers that are lost or left too
	Looping        int                        // workers that restart over and over
	Lost           map[hivebeat.Cause]uint64  // workers found lost, by cause
	// Margins of the workers that were lost and heard again in the same incarnation
	// (FalseDead and CutOff above): how long after the verdict, counted by upper
	// bounds in ms, and the longest. Detect is how long it took from the end of a
	// worker to the verdict, by cause, where the end was seen.
	Margins   map[string]uint64
	MarginMax time.Duration
	Detect    map[hivebeat.Cause]map[string]uint64
	Damped    map[string]uint64 // verdicts that were not told as the worker did the same over and over, by worker
	// Connections that closed and were taken for their server's, by which no worker is
	// lost: more than 3 of a server at which a worker is, within a second.
	DisconnectsIgnored uint64

	Watched   int // processes of workers whose end would be seen
	Warm      bool
	Connected bool // as far as is known
	Snapshots bus.PulseStats
}

// Stats returns the counts so far.
func (h *Hive) Stats() Stats {
	watched := 0
	if h.procs != nil {
		watched = h.procs.Stats().Watched
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	f := h.core.Figures(time.Now())
	var detect map[hivebeat.Cause]map[string]uint64
	for cause, times := range f.Score.Detect {
		if detect == nil {
			detect = make(map[hivebeat.Cause]map[string]uint64)
		}
		detect[cause] = times.Buckets()
	}
	return Stats{
		Stats: f.Stats, Reasons: f.Reasons, Dropped: h.droppedLocked(), Workers: f.Workers, Looping: f.Looping, Lost: f.Lost,
		Margins: f.Score.Margins.Buckets(), MarginMax: f.Score.Margins.Max, Detect: detect, Damped: f.Damped,
		DisconnectsIgnored: f.Ignored, Watched: watched, Warm: f.Warm, Connected: f.Connected, Snapshots: h.pulse.Stats(),
	}
}
