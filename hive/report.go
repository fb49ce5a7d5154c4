package hive

import (
	"sync/atomic"
	"time"

	"github.com/beatfabric/hivebeat"
	"github.com/beatfabric/hivebeat/internal/detector"
)

// Report is the input of a hive's metrics.
type Report struct {
	Stats
	Live   map[hivebeat.Live]int  // of workers
	States map[hivebeat.State]int // of the workers that are alive

	Margin    hivebeat.Histogram                    // for FalseDead and CutOff: how long after the verdict the worker was heard
	Detection map[hivebeat.Cause]hivebeat.Histogram // from the end of a worker to the verdict, where the end was seen

	Host    hivebeat.Host
	GPUs    []hivebeat.GPU    // must not be modified
	Collect map[string]string // per source; must not be modified
	// Readings is how long the last reading of the GPUs took, by reader.
	Readings map[string]time.Duration
	Pages    uint64 // messages sent for snapshots
	Bytes    uint64 // their total size
}

// sizes counts the messages and bytes of snapshots.
type sizes struct{ pages, bytes atomic.Uint64 }

// Report returns all counts so far, and the facts of the machine as the next snapshot
// would carry them.
func (h *Hive) Report() Report {
	var s hivebeat.Snapshot
	h.machine.fill(&s, time.Now())
	readings := h.machine.readings()
	h.mu.Lock()
	score := h.core.Figures(time.Now()).Score
	lives, states := h.core.Mix()
	h.mu.Unlock()
	return Report{
		Stats: h.Stats(), Live: lives, States: states, Margin: score.Margins.Public(), Detection: detector.PublicByCause(score.Detect),
		Host: s.Host, GPUs: s.GPUs, Collect: s.Collect, Readings: readings,
		Pages: h.sizes.pages.Load(), Bytes: h.sizes.bytes.Load(),
	}
}
