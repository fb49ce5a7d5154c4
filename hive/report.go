package hive

import (
	"sync/atomic"
	"time"

	"github.com/beatfabric/hivebeat"
	"github.com/beatfabric/hivebeat/internal/detector"
)

// Report is what a hive's metrics are made of.
type Report struct {
	Stats
	Live   map[hivebeat.Live]int  // workers
	States map[hivebeat.State]int // of those that are alive

	Margin    detector.Histogram                    // of FalseDead and CutOff: how long after the verdict
	Detection map[hivebeat.Cause]detector.Histogram // from the end of a worker to the verdict, where it was seen

	Host    hivebeat.Host
	GPUs    []hivebeat.GPU    // not to be changed
	Collect map[string]string // per source; not to be changed
	Pages   uint64            // messages of snapshots sent
	Bytes   uint64            // of them, in all
}

// sizes count what snapshots cost.
type sizes struct{ pages, bytes atomic.Uint64 }

// Report returns all counts so far, and the facts of the machine as they would go
// out now.
func (h *Hive) Report() Report {
	var s hivebeat.Snapshot
	h.machine.fill(&s, time.Now())
	h.mu.Lock()
	score := h.core.Figures(time.Now()).Score
	lives, states := h.core.Mix()
	h.mu.Unlock()
	return Report{
		Stats: h.Stats(), Live: lives, States: states, Margin: score.Margins, Detection: score.Detect, Host: s.Host, GPUs: s.GPUs, Collect: s.Collect,
		Pages: h.sizes.pages.Load(), Bytes: h.sizes.bytes.Load(),
	}
}
