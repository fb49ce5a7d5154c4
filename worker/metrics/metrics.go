// Package metrics exposes a worker's counts to Prometheus. It is separate from package
// worker, so that a program that only beats does not link a Prometheus client.
package metrics

import (
	"errors"
	"net/http"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/beatfabric/hivebeat/internal/prom"
	"github.com/beatfabric/hivebeat/worker"
)

// Source provides the values of the metrics; *worker.Worker implements it.
type Source interface{ Stats() worker.Stats }

// Collector is a prometheus.Collector of one worker. It is safe for concurrent use.
type Collector struct {
	w    Source
	list *prom.Families
	m    families
}

// New returns the collector of w. The caller registers it, in a registry of its choice.
// A registry takes one worker; a program with several workers wraps the Registerer,
// with prometheus.WrapRegistererWith and a distinct label.
func New(w Source) (*Collector, error) {
	if w == nil {
		return nil, errors.New("worker/metrics: w is nil")
	}
	f := prom.New("hivebeat_worker_")
	return &Collector{w: w, list: f, m: declare(f)}, nil
}

// Handler serves the metrics of w, of the Go runtime and of the process.
func Handler(w Source) (http.Handler, error) {
	c, err := New(w)
	if err != nil {
		return nil, err
	}
	return prom.Handler(c)
}

// families are the metrics of a worker. Names and help are for operators: changing a
// name breaks their rules, and the list in testdata with it.
type families struct {
	beats, failed, late, last    prom.Family
	refused, clipped             prom.Family
	factsFailed, calls, badCalls prom.Family
	unheard                      prom.Family
}

func declare(f *prom.Families) families {
	return families{
		beats:       f.Counter("beats_total", "Beats handed to NATS."),
		failed:      f.Counter("beats_failed_total", "Attempts to beat that failed, for the most part because NATS was away."),
		late:        f.Counter("beats_late_total", "Beats later than promised: the process was stopped or starved, or NATS away."),
		last:        f.Gauge("last_beat_timestamp_seconds", "Unix time of the last beat sent. 0 before the first."),
		refused:     f.Counter("calls_refused_total", "Calls of SetState and Update with what no beat may hold."),
		clipped:     f.Counter("reasons_clipped_total", "Reasons that were cut to what a beat may hold."),
		factsFailed: f.Counter("facts_failed_total", "Beats without new facts, by why the function that reads them failed.", "why"),
		calls:       f.Counter("roll_calls_total", "Roll calls heard."),
		badCalls:    f.Counter("roll_calls_bad_total", "Roll calls with a payload that is none, which were ignored."),
		unheard:     f.Counter("beats_unheard_total", "Beats of which NATS said that nobody listens: no hive of this id runs. It is asked once a minute at most while somebody does."),
	}
}

// Describe sends the descriptions of all metrics.
func (c *Collector) Describe(ch chan<- *prometheus.Desc) { c.list.Describe(ch) }

// Collect implements prometheus.Collector.
func (c *Collector) Collect(ch chan<- prometheus.Metric) {
	s, m := c.w.Stats(), &c.m
	prom.Send(ch, m.beats, s.Sent)
	prom.Send(ch, m.failed, s.Failed)
	prom.Send(ch, m.late, s.Late)
	prom.Send(ch, m.last, prom.Unix(s.Last))
	prom.Send(ch, m.refused, s.Refused)
	prom.Send(ch, m.clipped, s.Clipped)
	prom.Send(ch, m.factsFailed, s.FactsSlow, "slow")
	prom.Send(ch, m.factsFailed, s.FactsPanics, "panic")
	prom.Send(ch, m.factsFailed, s.FactsRefused, "refused")
	prom.Send(ch, m.calls, s.Calls)
	prom.Send(ch, m.badCalls, s.BadCalls)
	prom.Send(ch, m.unheard, s.Unheard)
}
