// Package metrics exports a queen's counts to Prometheus.
//
// The label values are bounded: verdicts, kinds, causes, reasons. There is no series
// per worker, and series per hive only if Config.PerHive is set.
package metrics

import (
	"context"
	"errors"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/beatfabric/hivebeat"
	"github.com/beatfabric/hivebeat/internal/prom"
	"github.com/beatfabric/hivebeat/queen"
)

// Config configures a Collector. The zero Config is usable.
type Config struct {
	// PerHive adds 16 series for each hive, with its id and zone as labels.
	// Default: false.
	PerHive bool
	// Timeout bounds how long a scrape waits for the queen. Default: 5 s.
	Timeout time.Duration
}

const defaultTimeout = 5 * time.Second

// Source provides the figures behind the metrics. *queen.Queen is a Source.
type Source interface {
	Report(ctx context.Context, perHive bool) (queen.Report, error)
}

// Collector is a prometheus.Collector of one queen. It is safe for concurrent use.
type Collector struct {
	q    Source
	cfg  Config
	list *prom.Families
	m    families
}

// New returns the collector of q. The caller registers it, with any registry. One
// registry takes one queen.
func New(q Source, cfg Config) (*Collector, error) {
	if q == nil {
		return nil, errors.New("queen/metrics: q is nil")
	}
	if cfg.Timeout < 0 {
		return nil, errors.New("queen/metrics: Config.Timeout: is negative")
	}
	if cfg.Timeout == 0 {
		cfg.Timeout = defaultTimeout
	}
	f := prom.New("hivebeat_queen_")
	return &Collector{q: q, cfg: cfg, list: f, m: declare(f)}, nil
}

// Handler serves the metrics of q, of the Go runtime and of the process. Mount it at
// /metrics of the queen's HTTP server.
func Handler(q Source, cfg Config) (http.Handler, error) {
	c, err := New(q, cfg)
	if err != nil {
		return nil, err
	}
	return prom.Handler(c)
}

// The label values are bounded. Counters that are zero are exported too, because rate
// needs to see a counter before its first increase.
var (
	hiveLives   = []hivebeat.Live{hivebeat.Alive, hivebeat.Late, hivebeat.Lost, hivebeat.Left, hivebeat.Unverified}
	workerLives = []hivebeat.Live{hivebeat.Alive, hivebeat.Late, hivebeat.Lost, hivebeat.Left}
	states      = []hivebeat.State{
		hivebeat.Starting, hivebeat.Loading, hivebeat.Ready, hivebeat.Busy, hivebeat.Degraded, hivebeat.Draining, hivebeat.Stopped, hivebeat.Failed,
	}
	kinds = []hivebeat.Kind{
		hivebeat.KindJoined, hivebeat.KindState, hivebeat.KindStalled, hivebeat.KindLooping, hivebeat.KindLate, hivebeat.KindLost, hivebeat.KindRecovered, hivebeat.KindLeft,
		hivebeat.KindRestarted, hivebeat.KindUnverified, hivebeat.KindConflict, hivebeat.KindGap,
		hivebeat.KindGPULost, hivebeat.KindGPUFailing, hivebeat.KindGPUDegraded, hivebeat.KindGPURecovered, hivebeat.KindGPUOrphan, hivebeat.KindGPUForgotten, other,
	}
	causes  = []hivebeat.Cause{hivebeat.CauseMissed, hivebeat.CauseSilent, hivebeat.CauseExit, hivebeat.CauseOOM, hivebeat.CauseDisconnect, hivebeat.CauseHive, other}
	sources = []string{"host", "gpu", "procs"}
)

const (
	other     = "other"
	ofHives   = "hive"
	ofWorkers = "worker"
)

// Describe sends the descriptions of all metrics.
func (c *Collector) Describe(ch chan<- *prometheus.Desc) { c.list.Describe(ch) }

// Collect asks the queen and sends its metrics. If the queen does not answer in time,
// it sends only hivebeat_queen_up, with 0.
func (c *Collector) Collect(ch chan<- prometheus.Metric) {
	ctx, cancel := context.WithTimeout(context.Background(), c.cfg.Timeout)
	defer cancel()
	r, err := c.q.Report(ctx, c.cfg.PerHive)
	prom.Flag(ch, c.m.up, err == nil)
	if err != nil {
		return
	}
	c.health(ch, &r)
	c.fleet(ch, &r)
	c.changes(ch, &r)
	for i := range r.PerHive {
		c.hive(ch, &r.PerHive[i])
	}
}

func (c *Collector) health(ch chan<- prometheus.Metric, r *queen.Report) {
	m := &c.m
	prom.Flag(ch, m.warm, r.Status.Warm)
	prom.Send(ch, m.unsure, len(r.Status.Unsure))
	prom.Flag(ch, m.doubts, r.Doubts)
	prom.Flag(ch, m.connected, r.Connected)
	if r.Keeps {
		prom.Flag(ch, m.jetstream, r.Status.JetStream)
		for _, kind := range []string{"no_space", "needs_restart"} {
			prom.Flag(ch, m.jetstreamTrouble, r.StoreTrouble == kind, kind)
		}
		prom.Send(ch, m.eventsUnstored, r.EventsUnstored)
	}
	held, longest := 0, hivebeat.Millis(0)
	for _, b := range r.Status.Brake {
		held, longest = held+b.Held, max(longest, b.Since)
	}
	prom.Send(ch, m.brakeZones, len(r.Status.Brake))
	prom.Send(ch, m.brakeHeld, held)
	prom.Seconds(ch, m.brakeLongest, longest.Duration())

	prom.Seconds(ch, m.selfPause, r.SelfPause)
	prom.Send(ch, m.ignored, r.DisconnectsIgnored)
	prom.Seconds(ch, m.blind, r.Blind)
	prom.Send(ch, m.snapshots, r.Snapshots)
	for _, reason := range hivebeat.Reasons() {
		prom.Send(ch, m.refused, r.Refused[reason], string(reason))
	}
	prom.Send(ch, m.repliesRefused, r.RepliesRefused)
	prom.Send(ch, m.dropped, r.Dropped)
	prom.Send(ch, m.incomplete, r.Incomplete)
	prom.Send(ch, m.pending, r.Pending)
	prom.Send(ch, m.falseDead, r.FalseDead)
	prom.Send(ch, m.cutOff, r.CutOff)
	prom.Durations(ch, m.margin, r.Margin)
	prom.Send(ch, m.adoptedHives, r.AdoptedHives)
	prom.Send(ch, m.adoptedWorkers, r.AdoptedWorkers)
	prom.Send(ch, m.adoptedBeats, r.AdoptedBeats)

	prom.Send(ch, m.eventsWaiting, r.EventsWaiting)
	prom.Send(ch, m.eventsPublished, r.EventsPublished)
	prom.Send(ch, m.eventsDropped, r.EventsDropped)
	prom.Send(ch, m.putsWaiting, r.Puts.Waiting)
	for _, p := range []struct {
		result string
		n      uint64
	}{
		{"put", r.Puts.Put}, {"replaced", r.Puts.Replaced}, {"stale", r.Puts.Stale}, {"old", r.Puts.Old}, {"failed", r.Puts.Failed},
	} {
		prom.Send(ch, m.puts, p.n, p.result)
	}
}

func (c *Collector) fleet(ch chan<- prometheus.Metric, r *queen.Report) {
	m := &c.m
	for _, live := range hiveLives {
		prom.Send(ch, m.hives, r.Live[live], string(live))
	}
	for _, live := range workerLives {
		prom.Send(ch, m.workers, r.Shown[live], string(live))
	}
	rest := r.Shown[hivebeat.Alive]
	for _, state := range states {
		prom.Send(ch, m.states, r.States[state], string(state))
		rest -= r.States[state]
	}
	prom.Send(ch, m.states, rest, other)
	prom.Send(ch, m.looping, r.Looping)
	prom.Send(ch, m.stale, r.Stale)
	for _, source := range sources {
		prom.Send(ch, m.failing, r.Failing[source], source)
	}
	byState := func(f prom.Family, counts map[hivebeat.GPUState]int) {
		rest := 0
		for _, n := range counts {
			rest += n
		}
		for _, state := range hivebeat.GPUStates() {
			prom.Send(ch, f, counts[state], string(state))
			rest -= counts[state]
		}
		prom.Send(ch, f, rest, other)
	}
	byState(m.gpus, r.GPUStates)
	byState(m.gpuHives, r.GPUHives)
	memory(r.VRAMTotal, r.VRAMUsed, r.VRAMOurs, r.VRAMOrphaned, r.VRAMForeign, r.VRAMUnattributed, r.VRAMReserved, func(bytes uint64, kind string) {
		prom.Send(ch, m.vram, bytes, kind)
	})
	prom.Send(ch, m.vramStale, r.VRAMStale)
	prom.Seconds(ch, m.factsAge, r.FactsAge)
}

func (c *Collector) changes(ch chan<- prometheus.Metric, r *queen.Report) {
	m := &c.m
	for of, changes := range map[string]*queen.Transitions{ofHives: &r.HiveTransitions, ofWorkers: &r.WorkerTransitions} {
		for _, kind := range kinds {
			prom.Send(ch, m.transitions, changes.Kinds[kind], of, string(kind))
		}
		for _, cause := range causes {
			prom.Send(ch, m.lost, changes.Lost[cause], of, string(cause))
			prom.Durations(ch, m.detection, changes.Detection[cause], of, string(cause))
		}
		prom.Send(ch, m.disproved, changes.Disproved, of)
	}
}

func (c *Collector) hive(ch chan<- prometheus.Metric, h *queen.HiveReport) {
	m := &c.m
	for _, live := range hiveLives {
		prom.Flag(ch, m.hiveLive, h.Live == live, h.Hive, h.Zone, string(live))
	}
	prom.Seconds(ch, m.hiveAge, h.Age, h.Hive, h.Zone)
	for _, live := range workerLives {
		prom.Send(ch, m.hiveWorkers, h.Shown[live], h.Hive, h.Zone, string(live))
	}
	if !h.Fresh {
		return
	}
	memory(h.VRAMTotal, h.VRAMUsed, h.VRAMOurs, h.VRAMOrphaned, h.VRAMForeign, h.VRAMUnattributed, h.VRAMReserved, func(bytes uint64, kind string) {
		prom.Send(ch, m.hiveVRAM, bytes, h.Hive, h.Zone, kind)
	})
}

// memory sends the parts of total, by kind.
func memory(total, used, ours, orphaned, foreign, unattributed, reserved uint64, send func(bytes uint64, kind string)) {
	send(ours, "ours")
	send(orphaned, "orphaned")
	send(foreign, "foreign")
	send(unattributed, "unattributed")
	send(reserved, "reserved")
	send(total-min(total, used+reserved), "free")
}
