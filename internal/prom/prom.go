// Package prom is shared by the collectors of worker, hive and queen: metric families
// that are declared once and sent at each scrape, and a handler with a separate
// registry.
package prom

import (
	"fmt"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/beatfabric/hivebeat"
	"github.com/beatfabric/hivebeat/internal/plaintext"
)

// Families are the metrics of one collector. Declare them before the first scrape; they
// are read-only afterwards.
type Families struct {
	prefix string
	list   []*prometheus.Desc
}

// New returns families whose names start with prefix.
func New(prefix string) *Families { return &Families{prefix: prefix} }

// Family is one metric with its labels.
type Family struct {
	desc *prometheus.Desc
	kind prometheus.ValueType
}

func (f *Families) add(kind prometheus.ValueType, name, help string, labels []string) Family {
	d := prometheus.NewDesc(f.prefix+name, help, labels, nil)
	f.list = append(f.list, d)
	return Family{d, kind}
}

// Gauge declares a gauge.
func (f *Families) Gauge(name, help string, labels ...string) Family {
	return f.add(prometheus.GaugeValue, name, help, labels)
}

// Counter declares a counter. Its name must end in _total.
func (f *Families) Counter(name, help string, labels ...string) Family {
	return f.add(prometheus.CounterValue, name, help, labels)
}

// Histogram declares a histogram in seconds.
func (f *Families) Histogram(name, help string, labels ...string) Family {
	return f.add(prometheus.UntypedValue, name, help, labels)
}

// Describe implements prometheus.Collector with the declared families.
func (f *Families) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range f.list {
		ch <- d
	}
}

// Number is the type of a metric's value.
type Number interface {
	~int | ~int64 | ~uint64 | ~float64
}

// Send sends one value. Labels are sent as plain text: their values must differ in more than
// characters that do not print.
func Send[N Number](ch chan<- prometheus.Metric, f Family, v N, labels ...string) {
	m, err := prometheus.NewConstMetric(f.desc, f.kind, float64(v), plain(labels)...)
	if err != nil {
		m = prometheus.NewInvalidMetric(f.desc, err)
	}
	ch <- m
}

// plain returns the labels as a person sees them who reads the metrics with curl.
func plain(labels []string) []string {
	out := make([]string, len(labels))
	for i, l := range labels {
		out[i] = plaintext.Line(l)
	}
	return out
}

// Seconds sends a duration in seconds.
func Seconds(ch chan<- prometheus.Metric, f Family, d time.Duration, labels ...string) {
	Send(ch, f, d.Seconds(), labels...)
}

// Flag sends 1 or 0.
func Flag(ch chan<- prometheus.Metric, f Family, on bool, labels ...string) {
	v := 0
	if on {
		v = 1
	}
	Send(ch, f, v, labels...)
}

// Durations sends a histogram.
func Durations(ch chan<- prometheus.Metric, f Family, h hivebeat.Histogram, labels ...string) {
	cumulative, n := make(map[float64]uint64, len(h.Buckets)), uint64(0)
	for _, b := range h.Buckets {
		n += b.N
		cumulative[b.UpTo.Seconds()] = n
	}
	m, err := prometheus.NewConstHistogram(f.desc, h.N, h.Sum.Seconds(), cumulative, plain(labels)...)
	if err != nil {
		m = prometheus.NewInvalidMetric(f.desc, err)
	}
	ch <- m
}

// Limits for all clients together: the number of concurrent scrapes, and the time of
// one.
const (
	scrapesAtOnce = 4
	scrapeTimeout = 10 * time.Second
)

// Handler serves the collectors, and the metrics of the Go runtime and of this process,
// from a separate registry.
func Handler(list ...prometheus.Collector) (http.Handler, error) {
	reg := prometheus.NewRegistry()
	list = append(list, collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}), collectors.NewBuildInfoCollector())
	for _, c := range list {
		if err := reg.Register(c); err != nil {
			return nil, fmt.Errorf("metrics: %w", err)
		}
	}
	return promhttp.HandlerFor(reg, promhttp.HandlerOpts{MaxRequestsInFlight: scrapesAtOnce, Timeout: scrapeTimeout, ErrorHandling: promhttp.ContinueOnError}), nil
}

// Unix returns t as a Unix time in seconds, or 0 for the zero time.
func Unix(t time.Time) float64 {
	if t.IsZero() {
		return 0
	}
	return float64(t.UnixMilli()) / 1000
}
