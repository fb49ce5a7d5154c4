package queen

import (
	"context"
	"time"

	"github.com/beatfabric/hivebeat"
	"github.com/beatfabric/hivebeat/internal/detector"
	"github.com/beatfabric/hivebeat/internal/fleet"
	"github.com/beatfabric/hivebeat/internal/index"
	"github.com/beatfabric/hivebeat/queen/api"
)

// Report holds the figures behind a queen's metrics.
type Report struct {
	Stats
	Status    api.Status
	Connected bool // to NATS, according to the client connection
	Keeps     bool // the queen is configured to use JetStream
	Doubts    bool // the queen is not sure that it heard every hive, and judges none
	Pending   int  // snapshots waiting to be handled

	Margin hivebeat.Histogram // FalseDead and CutOff: time since the verdict

	HiveTransitions, WorkerTransitions Transitions

	Live    map[hivebeat.Live]int  // hives
	Shown   map[hivebeat.Live]int  // workers
	States  map[hivebeat.State]int // workers that are alive
	Looping int                    // workers that restart repeatedly
	Stale   int                    // hives that are up, with facts older than the freshness limit
	Failing map[string]int         // fresh hives that fail to collect something, by source

	// GPUStates counts the GPUs of hives that are up by state, and GPUHives the hives that
	// have at least one in that state.
	GPUStates, GPUHives map[hivebeat.GPUState]int
	// VRAMStale is the memory of those of them that are neither ok nor degraded, or whose
	// hive is not fresh: their figures are old, and count in no sum below.
	VRAMStale uint64

	// Sums over the other GPUs, in bytes, as in a summary.
	GPUs                          int
	VRAMTotal, VRAMUsed, VRAMOurs uint64
	VRAMOrphaned, VRAMForeign     uint64
	VRAMUnattributed              uint64
	VRAMReserved                  uint64
	FactsAge                      time.Duration // age of the oldest facts about a GPU that is not known to be at fault
	PerHive                       []HiveReport  // only if requested
}

// Transitions counts the changes of verdict and state that this queen applied since it
// started, of hives or of workers. Other queens count the same ones, and a queen that
// restarted counts those of the last 60 s again.
type Transitions struct {
	Kinds     map[hivebeat.Kind]uint64
	Lost      map[hivebeat.Cause]uint64
	Disproved uint64 // lost, and heard again in the same incarnation
	// Detection is the time from the end to lost, by cause. The end of a silent sender is
	// not known; for it, Detection is the longer time since it was last heard. Of the other
	// causes it counts only ends that were seen.
	Detection map[hivebeat.Cause]hivebeat.Histogram
}

func transitionsOf(c fleet.LevelCounts) Transitions {
	return Transitions{Kinds: c.Kinds, Lost: c.Lost, Disproved: c.Disproved, Detection: detector.PublicByCause(c.Detection)}
}

// HiveReport is one hive in a Report.
type HiveReport struct {
	Hive, Zone                    string
	Live                          hivebeat.Live
	Age                           time.Duration // of its last snapshot
	Fresh                         bool          // if false, its facts are zero
	Shown                         map[hivebeat.Live]int
	VRAMTotal, VRAMUsed, VRAMOurs uint64 // of its GPUs that are ok or degraded, as the next ones
	VRAMOrphaned, VRAMForeign     uint64
	VRAMUnattributed              uint64
	VRAMReserved                  uint64
}

// reportChunk is how many hives one turn of the loop looks at. The loop receives
// messages between two turns.
const reportChunk = 256

// Report counts the fleet as this queen sees it. It looks at a few hundred hives per
// turn of the loop, so that it never blocks the loop; the result therefore does not
// describe a single moment. The error is that of ctx, or says that the queen is not
// running.
func (q *Queen) Report(ctx context.Context, perHive bool) (Report, error) {
	r := Report{
		Live: make(map[hivebeat.Live]int), Shown: make(map[hivebeat.Live]int), States: make(map[hivebeat.State]int), Failing: make(map[string]int),
		GPUStates: make(map[hivebeat.GPUState]int), GPUHives: make(map[hivebeat.GPUState]int),
	}
	err := q.do(ctx, func(now time.Time) {
		r.Stats, r.Status = q.stats(), q.status(now)
		r.Connected, r.Keeps, r.Pending = q.core.Hearing().Connected(), !q.cfg.NoJetStream, len(q.msgs)
		_, r.Doubts = q.core.Hearing().Doubts()
		counts := q.view.TransitionCounts()
		r.HiveTransitions, r.WorkerTransitions = transitionsOf(counts.Hives), transitionsOf(counts.Workers)
		r.Margin, r.Looping = q.view.Score().Margins.Public(), q.view.Index().Totals().Looping
	})
	for after, more := "", true; more && err == nil; {
		err = q.do(ctx, func(now time.Time) {
			q.view.Settle(now)
			list := q.view.Index().After(after)
			more = len(list) > reportChunk
			list = list[:min(len(list), reportChunk)]
			for _, h := range list {
				r.add(q.view.Index(), h, perHive, now)
				after = h.ID()
			}
		})
	}
	return r, err
}

// add adds one hive.
func (r *Report) add(x *index.Index, h *index.Hive, perHive bool, now time.Time) {
	if h.Live() == "" {
		return
	}
	one := HiveReport{Hive: h.ID(), Zone: h.Zone(), Live: h.Live()}
	if perHive {
		one.Shown = make(map[hivebeat.Live]int)
	}
	r.Live[h.Live()]++
	h.EachMix(func(m index.Mix, n int) {
		live := index.Counted(m.Live)
		r.Shown[live] += n
		if live == hivebeat.Alive {
			r.States[m.State] += n
		}
		if perHive {
			one.Shown[live] += n
		}
	})
	one.Age = now.Sub(h.Received())
	head := h.Head()
	one.Fresh = head.Inc != 0 && one.Age <= x.Fresh() && h.Up()
	if !one.Fresh && h.Up() {
		r.Stale++
	}
	if one.Fresh {
		for source, word := range head.Collect {
			none := word == hivebeat.CollectNone && (source != "gpu" || len(head.GPUs) == 0) // GPUs that were seen are missed
			if word != hivebeat.CollectOK && !none {
				r.Failing[source]++
			}
		}
	}
	if h.Up() {
		r.addGPUs(&one, h, now)
	}
	r.VRAMTotal += one.VRAMTotal
	r.VRAMUsed += one.VRAMUsed
	r.VRAMOurs += one.VRAMOurs
	r.VRAMOrphaned += one.VRAMOrphaned
	r.VRAMForeign += one.VRAMForeign
	r.VRAMUnattributed += one.VRAMUnattributed
	r.VRAMReserved += one.VRAMReserved
	if perHive {
		r.PerHive = append(r.PerHive, one)
	}
}

// addGPUs adds the GPUs of a hive that is up to r and to one.
func (r *Report) addGPUs(one *HiveReport, h *index.Hive, now time.Time) {
	has := make(map[hivebeat.GPUState]bool)
	gpus := h.Head().GPUs
	for i := range gpus {
		g := &gpus[i]
		state := g.Condition()
		r.GPUStates[state]++
		if !has[state] {
			has[state] = true
			r.GPUHives[state]++
		}
		if one.Fresh && !state.Bad() {
			r.FactsAge = max(r.FactsAge, index.EffectiveAge(g.Age, h.Received(), now).Duration())
		}
		if !one.Fresh || !state.Usable() {
			r.VRAMStale += g.Total
			continue
		}
		r.GPUs++
		one.VRAMTotal += g.Total
		one.VRAMUsed += g.Used
		one.VRAMOurs += min(g.Ours, g.Used)
		one.VRAMOrphaned += g.Orphaned
		one.VRAMForeign += g.Foreign()
		one.VRAMUnattributed += g.Unattributed
		one.VRAMReserved += g.Reserved
	}
}
