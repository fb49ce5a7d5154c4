// Package metrics exposes the counts of a hive, and the facts of its machine, to
// Prometheus. The labels are bounded; there is no series per worker.
package metrics

import (
	"errors"
	"net/http"
	"slices"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/beatfabric/hivebeat"
	"github.com/beatfabric/hivebeat/hive"
	"github.com/beatfabric/hivebeat/internal/prom"
)

// Source provides the Report that the metrics are made from; *hive.Hive is one.
type Source interface{ Report() hive.Report }

// Collector is a prometheus.Collector of one hive. It is safe for concurrent use.
type Collector struct {
	h    Source
	list *prom.Families
	m    families
}

// New returns the collector of h. The caller registers it with a registry of its
// choice; one registry takes one hive.
func New(h Source) (*Collector, error) {
	if h == nil {
		return nil, errors.New("hive/metrics: h is nil")
	}
	f := prom.New("hivebeat_hive_")
	return &Collector{h: h, list: f, m: declare(f)}, nil
}

// Handler serves the metrics of h, of the Go runtime and of the process.
func Handler(h Source) (http.Handler, error) {
	c, err := New(h)
	if err != nil {
		return nil, err
	}
	return prom.Handler(c)
}

// families are the metrics of a hive. Names and help are for operators: a changed name
// breaks their rules, and the list in testdata.
type families struct {
	warm, connected, workers, states, watched     prom.Family
	looping                                       prom.Family
	beats, stale, refused, dropped, wireLost      prom.Family
	lost, falseDead, cutOff, margin, detection    prom.Family
	selfPause, ignored                            prom.Family
	snapshots, failed, late, pages, bytes, last   prom.Family
	collect, cpus, load, cpu, memTotal, memUsed   prom.Family
	gpuMemory, gpuUtil, gpuTemp, gpuPower, gpuAge prom.Family
	gpuUp, gpuInfo, gpuState, gpuReading          prom.Family
}

func declare(f *prom.Families) families {
	return families{
		warm:      f.Gauge("warm", "1 once the absence of a worker is evidence that it is dead."),
		connected: f.Gauge("connected", "1 while the hive is connected to NATS, as far as it knows."),
		workers:   f.Gauge("workers", "Workers known, by verdict.", "live"),
		states:    f.Gauge("alive_workers", "Workers that are alive, by the state that they report.", "state"),
		looping:   f.Gauge("looping_workers", "Workers that restart repeatedly: at least 3 times within 5 minutes, most recently within 10 minutes."),
		watched:   f.Gauge("watched_processes", "Processes of workers whose end the hive would see."),

		beats:    f.Counter("beats_total", "Beats accepted."),
		stale:    f.Counter("beats_stale_total", "Beats replayed, out of order, or of an older incarnation."),
		refused:  f.Counter("refused_total", "Messages that changed nothing, by reason.", "reason"),
		dropped:  f.Counter("dropped_total", "Messages dropped because the hive was too slow."),
		wireLost: f.Counter("beats_wire_lost_total", "Beats lost on the way, as the sequence numbers of later ones prove."),

		lost:      f.Counter("lost_total", "Workers found lost, by cause.", "cause"),
		falseDead: f.Counter("false_dead_total", "Workers found lost and heard again in the same incarnation, too late: the verdict was wrong."),
		cutOff:    f.Counter("cut_off_total", "Workers found lost and heard again in the same incarnation, which had kept beating while its beats did not arrive."),
		margin:    f.Histogram("margin_seconds", "How long after a verdict the same incarnation was heard again."),
		detection: f.Histogram("detection_seconds", "Time from the end of a worker to the verdict, by cause, if the end was seen.", "cause"),
		ignored:   f.Counter("disconnects_ignored_total", "Closed connections attributed to their NATS server, so that no worker is lost by them: more than 3 within a second."),
		selfPause: f.Counter("self_pause_seconds_total", "Time the hive itself was stopped or starved of CPU."),

		snapshots: f.Counter("snapshots_total", "Snapshots sent."),
		failed:    f.Counter("snapshots_failed_total", "Attempts to send a snapshot that failed."),
		late:      f.Counter("snapshots_late_total", "Snapshots sent later than promised."),
		pages:     f.Counter("snapshot_pages_total", "Pages of snapshots sent."),
		bytes:     f.Counter("snapshot_bytes_total", "Bytes of snapshots sent."),
		last:      f.Gauge("last_snapshot_timestamp_seconds", "Unix time of the last snapshot sent. 0 before the first."),

		collect:  f.Gauge("collect_ok", "1 if the last read of the source succeeded, or there is nothing to read.", "source"),
		cpus:     f.Gauge("machine_cpus", "CPUs of the machine."),
		load:     f.Gauge("machine_load1", "Load average of one minute."),
		cpu:      f.Gauge("machine_cpu_used_ratio", "Share of all CPUs in use, 0 to 1."),
		memTotal: f.Gauge("machine_memory_total_bytes", "Memory of the machine."),
		memUsed:  f.Gauge("machine_memory_used_bytes", "Memory in use."),

		gpuInfo:    f.Gauge("gpu_info", "1 for each GPU, with its name and UUID.", "gpu", "uuid", "name"),
		gpuState:   f.Gauge("gpu_state", "1 for the state of each GPU that the machine has, or had within 7 days.", "gpu", "uuid", "state"),
		gpuUp:      f.Gauge("gpu_up", "1 if the GPU is ok or degraded, and the last read of its facts succeeded. Otherwise its memory, load, temperature and power are absent.", "gpu"),
		gpuMemory:  f.Gauge("gpu_memory_bytes", "Memory of the GPU: ours is held by workers with their descendants, orphaned by processes whose worker has ended, foreign by processes that never belonged to a worker, unattributed by unknown ones, reserved by the driver. The kinds add up to the total.", "gpu", "kind"),
		gpuUtil:    f.Gauge("gpu_used_ratio", "Share of time in which the GPU was busy, 0 to 1.", "gpu"),
		gpuTemp:    f.Gauge("gpu_temperature_celsius", "Temperature of the GPU.", "gpu"),
		gpuPower:   f.Gauge("gpu_power_watts", "Power that the GPU draws.", "gpu"),
		gpuReading: f.Gauge("gpu_reading_seconds", "How long the last reading of the GPUs took, by reader.", "reader"),
		gpuAge:     f.Gauge("gpu_facts_age_seconds", "Age of the facts of the GPU.", "gpu"),
	}
}

// Label values are bounded, and sent even when the count is zero: rate() must see a
// counter before it moves.
var (
	lives  = []hivebeat.Live{hivebeat.Alive, hivebeat.Late, hivebeat.Lost, hivebeat.Left}
	states = []hivebeat.State{
		hivebeat.Starting, hivebeat.Loading, hivebeat.Ready, hivebeat.Busy, hivebeat.Degraded, hivebeat.Draining, hivebeat.Stopped, hivebeat.Failed,
	}
	causes = []hivebeat.Cause{hivebeat.CauseMissed, hivebeat.CauseSilent, hivebeat.CauseExit, hivebeat.CauseDisconnect}
	seen   = []hivebeat.Cause{hivebeat.CauseExit, hivebeat.CauseDisconnect}
)

// Describe sends the descriptions of all metrics.
func (c *Collector) Describe(ch chan<- *prometheus.Desc) { c.list.Describe(ch) }

// Collect implements prometheus.Collector.
func (c *Collector) Collect(ch chan<- prometheus.Metric) {
	r := c.h.Report()
	c.workers(ch, &r)
	c.sent(ch, &r)
	c.machine(ch, &r)
}

func (c *Collector) workers(ch chan<- prometheus.Metric, r *hive.Report) {
	m := &c.m
	prom.Flag(ch, m.warm, r.Warm)
	prom.Flag(ch, m.connected, r.Connected)
	for _, live := range lives {
		prom.Send(ch, m.workers, r.Live[live], string(live))
	}
	rest := r.Live[hivebeat.Alive]
	for _, state := range states {
		prom.Send(ch, m.states, r.States[state], string(state))
		rest -= r.States[state]
	}
	prom.Send(ch, m.states, rest, "other")
	prom.Send(ch, m.looping, r.Looping)
	prom.Send(ch, m.watched, r.Watched)

	prom.Send(ch, m.beats, r.Beats)
	prom.Send(ch, m.stale, r.Stats.Stale)
	for _, reason := range hivebeat.Reasons() {
		prom.Send(ch, m.refused, r.Reasons[reason], string(reason))
	}
	prom.Send(ch, m.dropped, r.Dropped)
	prom.Send(ch, m.wireLost, r.WireLost)

	for _, cause := range causes {
		prom.Send(ch, m.lost, r.Lost[cause], string(cause))
	}
	for _, cause := range seen {
		prom.Durations(ch, m.detection, r.Detection[cause], string(cause))
	}
	prom.Send(ch, m.ignored, r.DisconnectsIgnored)
	prom.Send(ch, m.falseDead, r.FalseDead)
	prom.Send(ch, m.cutOff, r.CutOff)
	prom.Durations(ch, m.margin, r.Margin)
	prom.Seconds(ch, m.selfPause, r.SelfPause.Duration())
}

func (c *Collector) sent(ch chan<- prometheus.Metric, r *hive.Report) {
	m := &c.m
	prom.Send(ch, m.snapshots, r.Snapshots.Sent)
	prom.Send(ch, m.failed, r.Snapshots.Failed)
	prom.Send(ch, m.late, r.Snapshots.Late)
	prom.Send(ch, m.pages, r.Pages)
	prom.Send(ch, m.bytes, r.Bytes)
	prom.Send(ch, m.last, prom.Unix(r.Snapshots.Last))
}

func (c *Collector) machine(ch chan<- prometheus.Metric, r *hive.Report) {
	m := &c.m
	for _, source := range []string{"host", "gpu", "procs", "cache", "store"} {
		if word, ok := r.Collect[source]; ok {
			prom.Flag(ch, m.collect, word == hivebeat.CollectOK || word == hivebeat.CollectNone, source)
		}
	}
	if host := &r.Host; r.Collect["host"] != "" {
		prom.Send(ch, m.cpus, host.CPUs)
		prom.Send(ch, m.load, host.Load1)
		prom.Send(ch, m.cpu, host.CPU/100)
		prom.Send(ch, m.memTotal, host.MemTotal)
		prom.Send(ch, m.memUsed, host.MemUsed)
	}
	for reader, took := range r.Readings {
		prom.Send(ch, m.gpuReading, took.Seconds(), reader)
	}
	// A GPU that is gone may have the index of the one that replaced it: those that work come
	// first. A duplicate series would void the scrape.
	known, shown := make(map[string]bool), make(map[uint64]bool)
	for _, usable := range []bool{true, false} {
		for i := range r.GPUs {
			if g := &r.GPUs[i]; g.Condition().Usable() == usable {
				c.gpu(ch, g, known, shown)
			}
		}
	}
}

func (c *Collector) gpu(ch chan<- prometheus.Metric, g *hivebeat.GPU, known map[string]bool, shown map[uint64]bool) {
	m := &c.m
	gpu, state := strconv.FormatUint(g.Index, 10), g.Condition()
	if !known[g.UUID] {
		known[g.UUID] = true
		prom.Send(ch, m.gpuInfo, 1, gpu, g.UUID, g.Name)
		word := "other"
		if slices.Contains(hivebeat.GPUStates(), state) {
			word = string(state)
		}
		prom.Send(ch, m.gpuState, 1, gpu, g.UUID, word)
	}
	if shown[g.Index] {
		return
	}
	shown[g.Index] = true
	prom.Flag(ch, m.gpuUp, state.Usable() && g.Err == "", gpu)
	prom.Seconds(ch, m.gpuAge, min(g.Age, hivebeat.MillisOf(100*24*time.Hour)).Duration(), gpu)
	if !state.Usable() { // its figures are old
		return
	}
	for _, part := range []struct {
		kind  string
		bytes uint64
	}{
		{"ours", min(g.Ours, g.Used)}, {"orphaned", g.Orphaned}, {"foreign", g.Foreign()}, {"unattributed", g.Unattributed}, {"reserved", g.Reserved}, {"free", g.Free()},
	} {
		prom.Send(ch, m.gpuMemory, part.bytes, gpu, part.kind)
	}
	prom.Send(ch, m.gpuUtil, float64(g.Util)/100, gpu)
	prom.Send(ch, m.gpuTemp, g.Temp, gpu)
	prom.Send(ch, m.gpuPower, float64(g.Power)/1000, gpu)
}
