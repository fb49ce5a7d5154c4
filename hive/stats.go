package hive

import (
	"time"

	"github.com/beatfabric/hivebeat"
	"github.com/beatfabric/hivebeat/bus"
)

// Stats are the counts of a hive since New.
type Stats struct {
	hivebeat.Stats                            // as in its snapshots
	Reasons        map[hivebeat.Reason]uint64 // messages refused, by reason; only reasons that occurred
	Dropped        uint64                     // messages dropped because they came faster than the hive received them
	Workers        int                        // records, including workers that are lost or left
	Looping        int                        // workers that restart repeatedly
	Lost           map[hivebeat.Cause]uint64  // workers found lost, by cause
	// Margins counts, by upper bound in ms, how long after the verdict lost workers
	// were heard again in the same incarnation (FalseDead and CutOff above). MarginMax
	// is the longest. Detect counts, by cause, the time from the end of a worker to the
	// verdict, where the end was seen.
	Margins   map[string]uint64
	MarginMax time.Duration
	Detect    map[hivebeat.Cause]map[string]uint64
	Damped    map[string]uint64 // verdicts that were not reported because the worker did the same repeatedly, by worker
	// DisconnectsIgnored counts closed connections that the hive attributed to their
	// server, so that no worker is lost by them: more than 3 within a second, of a
	// server that serves a worker.
	DisconnectsIgnored uint64

	Watched   int // processes of workers whose end the hive would see
	Warm      bool
	Connected bool // by the last known state
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
